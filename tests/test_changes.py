"""Assigning to rows: what this process sees (``mode="c"``), and the file itself (``"r+"``)."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import epochal
from epochal.errors import MismatchError, ReadOnlyError, RowError, TargetError
from epochal.writing.journal import journal_of

N = 50
KINDS = ("gzip", "plain", "contiguous", "npy", "zarr", "ours", "npyfolder", "compact")
EDITABLE = tuple(kind for kind in KINDS if kind != "compact")


def make(folder, kind):
    """A file of rows ``(N, 3)`` int32, and of numbers."""
    X = np.arange(N * 3, dtype="<i4").reshape(N, 3)
    path = str(folder / {"npy": "X.npy", "zarr": "x.zarr", "npyfolder": "x"}.get(kind, "x.h5"))
    if kind == "npy":
        np.save(path, X)
    elif kind == "zarr":
        group = zarr.open_group(path, mode="w", zarr_format=3)
        group.create_array("X", data=X, chunks=(7, 3))
    elif kind in ("ours", "npyfolder"):
        flavour = "hdf5" if kind == "ours" else "npy"
        sources = {"X": ((3,), "<i4"), "y": ((), "i8")}
        with epochal.create(path, sources, chunk_rows=7, flavour=flavour) as writer:
            writer.append(X=X, y=np.arange(N))
    else:
        how = {
            "gzip": {"chunks": (7, 3), "compression": "gzip", "shuffle": True},
            "plain": {"chunks": (7, 3)},
        }.get(kind, {})
        with h5py.File(path, "w") as file:
            if kind == "compact":
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.COMPACT)
                space = h5py.h5s.create_simple(X.shape)
                made = h5py.h5d.create(file.id, b"X", h5py.h5t.NATIVE_INT32, space, plist)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, X)
            else:
                file.create_dataset("X", data=X, **how)
    return path, X


def content(path):
    if os.path.isfile(path):
        return Path(path).read_bytes()
    return {str(each): each.read_bytes() for each in Path(path).rglob("*") if each.is_file()}


ASSIGNMENTS = [
    (3, 7),
    (-1, [1, 2, 3]),
    (slice(5, 20), 0),
    (slice(40, 3, -2), np.arange(3)),
    ([7, 3, 3, 49], np.arange(12).reshape(4, 3)),
    (np.arange(N) % 3 == 0, -1),
    ((slice(2, 30), 1), 99),
    ((4, slice(0, 2)), [5, 6]),
    (([1, 9], [0, 2]), np.array([[8, 9], [10, 11]])),
    (Ellipsis, 4),
    (slice(3, 3), 1),
    ([], 1),
]


def assign(X, key, values):
    """As NumPy does, but that lists of rows and of columns are not paired."""
    if isinstance(key, tuple) and all(isinstance(k, list) for k in key):
        key = np.ix_(*key)
    X[key] = values


@pytest.mark.parametrize("kind", KINDS)
def test_this_process_alone_sees_it(tmp_path, kind):
    path, X = make(tmp_path, kind)
    before = content(path)
    with epochal.open(path, mode="c") as ds, epochal.open(path) as other:
        for key, values in ASSIGNMENTS:
            ds["X"][key] = values
            assign(X, key, values)
            assert np.array_equal(ds["X"][:], X), key
            assert np.array_equal(ds["X"][[4, 4, 0]], X[[4, 4, 0]])
        assert other["X"][0].tolist() == [0, 1, 2]
    assert content(path) == before


@pytest.mark.parametrize("kind", EDITABLE)
def test_the_file_is_changed(tmp_path, kind):
    path, X = make(tmp_path, kind)
    with epochal.open(path, mode="r+") as ds:
        for key, values in ASSIGNMENTS:
            ds["X"][key] = values
            assign(X, key, values)
            assert np.array_equal(ds["X"][:], X), key
            with epochal.open(path) as other:
                assert np.array_equal(other["X"][:], X)
    assert np.array_equal(by_others(path, kind), X)
    assert epochal.verify(path).ok
    assert os.listdir(tmp_path) == [os.path.basename(path)]


def by_others(path, kind):
    if kind == "npy":
        return np.load(path)
    if kind == "npyfolder":
        return np.load(f"{path}/X.npy")
    if kind == "zarr":
        return zarr.open_group(path, mode="r")["X"][:]
    with h5py.File(path) as file:
        return file["X"][:]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_order_sees_it(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(("gzip", "plain", "contiguous", "npy")))
    path, X = make(tmp_path_factory.mktemp("c"), kind)
    scheme = data.draw(
        st.sampled_from(
            ("sequential", "shuffled_sequential", "random_uniform", "chunkwise_shuffled_sequential")
        )
    )
    memory = data.draw(st.sampled_from(("200KiB", "1MiB", "64MiB")))
    with epochal.open(path, mode="c") as ds:
        batches = ds.batches(
            scheme,
            8,
            num_batches=None if scheme != "random_uniform" else 5,
            seed=1,
            memory=memory,
            threads=2,
        )
        for _ in range(data.draw(st.integers(1, 3))):
            rows = data.draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=6))
            ds["X"][rows] = X[rows] = data.draw(st.integers(-9, 9))
            order = np.concatenate(
                [
                    batches.scheme.batch(i)
                    if not isinstance(batches.scheme.batch(i), slice)
                    else np.arange(N)[batches.scheme.batch(i)]
                    for i in range(len(batches))
                ]
            )
            found = np.concatenate([batch.X for batch in batches])
            assert np.array_equal(found, X[order])
        batches.close()


def test_parts_share_it(tmp_path):
    path, X = make(tmp_path, "gzip")
    with epochal.open(path, mode="c") as ds:
        train, valid = ds.split(0.8, seed=0)
        rows = train["X"][:][:, 0] // 3
        train["X"][5] = 777
        X[rows[5]] = 777
        assert np.array_equal(ds["X"][:], X)
        assert not (valid["X"][:] == 777).any()


def test_what_is_saved(tmp_path):
    path, X = make(tmp_path, "ours")
    with epochal.open(path, mode="c") as ds:
        ds["X"][10:20] = 5
        X[10:20] = 5
        ds.save(tmp_path / "new.zarr", flavour="zarr")
        ds.save(path, overwrite=True)
    for out in (tmp_path / "new.zarr", path):
        with epochal.open(out) as ds:
            assert np.array_equal(ds["X"][:], X)
            assert ds["y"][:].tolist() == list(range(N))


def test_reading_is_the_default(tmp_path):
    path, _ = make(tmp_path, "gzip")
    with (
        epochal.open(path) as ds,
        pytest.raises(ReadOnlyError, match=r"mode='c'\) changes what this"),
    ):
        ds["X"][0] = 1
    with pytest.raises(MismatchError, match="mode='w' is not one of: 'r', 'c', 'r\\+'"):
        epochal.open(path, mode="w")
    with pytest.raises(MismatchError, match="mode='r\\+' changes one file or folder"):
        epochal.open([path, path], mode="r+")
    with pytest.raises(MismatchError, match="load_all=True loads what is there for reading"):
        epochal.open(path, mode="c", load_all=True)


@pytest.mark.parametrize("mode", ["c", "r+"])
def test_what_does_not_fit(tmp_path, mode):
    path, X = make(tmp_path, "gzip")
    before = content(path)
    with epochal.open(path, mode=mode) as ds:
        for key, values, error, match in [
            (0, 1.5, MismatchError, "int32, which cannot hold float64"),
            (0, 2**40, MismatchError, "int32, which cannot hold int64"),
            (slice(0, 2), [1, 2], MismatchError, r"values of shape \(2,\) for 2 rows"),
            ((0, 9), 1, MismatchError, "out of bounds"),
            (99, 1, RowError, "row 99 of 'X': it has 50 rows"),
            ("a", 1, RowError, "rows of 'X' are an int"),
        ]:
            with pytest.raises(error, match=match):
                ds["X"][key] = values
        assert np.array_equal(ds["X"][:], X)
    assert content(path) == before


def test_rows_of_varying_length(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("r", (3,), h5py.vlen_dtype("i4"))
    with (
        epochal.open(tmp_path / "x.h5", mode="c") as ds,
        pytest.raises(ReadOnlyError, match="vary in length"),
    ):
        ds["r"][0] = 1


def test_changes_go_to_no_other_process(tmp_path):
    path, X = make(tmp_path, "gzip")
    with epochal.open(path, mode="c") as ds:
        assert np.array_equal(pickle.loads(pickle.dumps(ds))["X"][:], X)
        ds["X"][0] = 1
        with pytest.raises(MismatchError, match=r"save the dataset with ds.save\(path\)"):
            pickle.dumps(ds)


def test_a_fork_keeps_what_it_saw(tmp_path):
    path, _ = make(tmp_path, "gzip")
    with epochal.open(path, mode="c") as ds:
        ds["X"][0] = 1
        mine, theirs = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.read(mine[0], 1)  # the parent has changed it again
                seen = ds["X"][0].tolist() == [1, 1, 1]
                try:
                    ds["X"][0] = 3
                except MismatchError:
                    status = 0 if seen else 2
            finally:
                os._exit(status)
        ds["X"][0] = 2
        os.write(mine[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ds["X"][0].tolist() == [2, 2, 2]
        for end in (*mine, *theirs):
            os.close(end)


def test_one_writer(tmp_path):
    path, _ = make(tmp_path, "ours")
    with epochal.open(path, mode="r+"):
        with pytest.raises(TargetError, match="another process is writing it"):
            epochal.open(path, mode="r+")
        with pytest.raises(TargetError, match="another process is writing it"):
            epochal.append(path)
    epochal.open(path, mode="r+").close()


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"chunks": (7, 2)}, r"chunks \(7, 2\) cut its rows"),
        ({"chunks": (7, 3), "scaleoffset": 3}, "scaleoffset is decoded by libhdf5 only"),
    ],
)
def test_what_cannot_be_changed_in_place(tmp_path, how, match):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", data=np.zeros((N, 3), "i4"), **how)
    before = content(tmp_path / "x.h5")
    with epochal.open(tmp_path / "x.h5", mode="r+") as ds, pytest.raises(MismatchError) as caught:
        ds["X"][0] = 1
    assert "cannot be changed in place" in str(caught.value)
    assert content(tmp_path / "x.h5") == before
    assert match.replace("\\", "") in str(caught.value) or "library chunks" in str(caught.value)


def test_the_old_manifest_of_a_file_of_others(tmp_path):
    path, _ = make(tmp_path, "gzip")
    epochal.verify(path, record=True)
    with epochal.open(path, mode="r+") as ds:
        ds["X"][0] = 1
    assert epochal.verify(path).ok


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("kind", ["ours", "zarr", "npy", "contiguous"])
@pytest.mark.parametrize("name", ["pwrite", "fsync", "ftruncate", "unlink", "replace", "rename"])
def test_killed_at_each_call_each_chunk_is_old_or_new(tmp_path, kind, name):
    for n in range(100):
        folder = tmp_path / str(n)
        folder.mkdir()
        path, X = make(folder, kind)
        pid = os.fork()
        if pid == 0:
            real, left = getattr(os, name), [n]

            def dying(*args, real=real, left=left, **kwargs):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **kwargs)

            setattr(os, name, dying)
            try:
                ds = epochal.open(path, mode="r+")
                ds["X"][:] = -X
                ds.close()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        with epochal.open(path) as ds:  # finishes or undoes it
            found = ds["X"][:]
        assert np.array_equal(np.abs(found), X)
        assert not os.path.exists(journal_of(path))
        assert np.array_equal(by_others(path, kind), found)
        assert epochal.verify(path).ok
        with epochal.open(path, mode="r+") as ds:  # and cleans up
            ds["X"][:] = X
        assert os.listdir(folder) == [os.path.basename(path)]
        if os.WIFEXITED(status):
            return
    raise AssertionError("it never came to its end")
