"""`create` and `append` against an array, every flavour read by the programs that it is for."""

from __future__ import annotations

import errno
import os
import re
import subprocess

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
import pytest
import tables
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import epochal
from epochal.errors import (
    BudgetError,
    FileMissingError,
    MismatchError,
    SourceNameError,
    TargetError,
    TargetExistsError,
)

FLAVOURS = {"hdf5": "out.h5", "pytables": "out.h5", "zarr": "out.zarr", "npy": "out"}
COMPRESSIONS = {
    "hdf5": ("gzip", "zstd", "lz4", "blosc", "blosc2", None),
    "pytables": ("gzip", "blosc", "blosc2", None),
    "zarr": ("gzip", "zstd", "blosc", None),
    "npy": (None,),
}
PAIRS = [(flavour, name) for flavour, names in COMPRESSIONS.items() for name in names]
SOURCES = {"X": ((3, 2), "<f4"), "y": ((), "i8"), "deep/er": ((5,), "u1")}


def rows_from(start, n):
    at = np.arange(start, start + n)
    return {
        "X": (at[:, None, None] + np.arange(6).reshape(3, 2) / 8).astype("<f4"),
        "y": at * at,
        "deep/er": (at[:, None] * 3 + np.arange(5)).astype("u1"),
    }


def read_back(path, flavour):
    """By the program that the flavour is for."""
    if flavour == "hdf5":
        with h5py.File(path) as file:
            return {name: file[name][:] for name in SOURCES}
    if flavour == "pytables":
        with tables.open_file(path) as file:
            return {name: file.get_node(f"/{name}")[:] for name in SOURCES}
    if flavour == "zarr":
        group = zarr.open_group(path, mode="r")
        return {name: group[name][:] for name in SOURCES}
    return {name: np.load(os.path.join(path, f"{name}.npy"), mmap_mode="r") for name in SOURCES}


def same(found, due):
    assert list(found) == list(due)
    for name in due:
        assert found[name].dtype == due[name].dtype
        assert np.array_equal(found[name], due[name])


def written(path, flavour, sizes, **how):
    with epochal.create(path, SOURCES, flavour=flavour, chunk_rows=7, **how) as writer:
        at = 0
        for n in sizes:
            writer.append(rows_from(at, n))
            at += n
    return at


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("flavour", "compression"), PAIRS)
def test_other_programs_read_it(tmp_path, flavour, compression, declared):
    path = str(tmp_path / FLAVOURS[flavour])
    sizes = [5, 0, 16, 1, 9]
    total = written(
        path, flavour, sizes, compression=compression, rows=sum(sizes) if declared else None
    )
    due = rows_from(0, total)
    same(read_back(path, flavour), due)
    with epochal.open(path) as ds:
        assert set(ds.sources) == set(due)
        same({name: ds[name][:] for name in due}, due)
    assert os.listdir(tmp_path) == [FLAVOURS[flavour]]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flavour=st.sampled_from(list(FLAVOURS)),
    first=st.lists(st.integers(0, 30), max_size=4),
    more=st.lists(st.lists(st.integers(0, 20), max_size=3), max_size=3),
)
def test_appends_to_what_is_there(tmp_path_factory, flavour, first, more):
    folder = tmp_path_factory.mktemp("a")
    path = str(folder / FLAVOURS[flavour])
    at = written(path, flavour, first)
    for sizes in more:
        with epochal.append(path) as writer:
            assert writer.rows == at
            for n in sizes:
                writer.append(rows_from(at, n))
                at += n
    same(read_back(path, flavour), rows_from(0, at))
    with epochal.open(path) as ds:
        same({name: ds[name][:] for name in SOURCES}, rows_from(0, at))
    assert os.listdir(folder) == [FLAVOURS[flavour]]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_append_that_fails_leaves_the_old_rows(tmp_path, flavour):
    path = str(tmp_path / FLAVOURS[flavour])
    written(path, flavour, [20])
    writer = epochal.append(path)
    writer.append(rows_from(20, 50))
    with pytest.raises(ZeroDivisionError), writer:
        raise ZeroDivisionError
    same(read_back(path, flavour), rows_from(0, 20))
    assert os.listdir(tmp_path) == [FLAVOURS[flavour]]


def test_appends_to_files_of_h5py(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name, how in (
            ("a", {"compression": "gzip", "shuffle": True, "fletcher32": True}),
            ("b", {"compression": "lzf"}),
            ("c", {}),
        ):
            file.create_dataset(name, data=np.arange(10), chunks=(4,), maxshape=(None,), **how)
    more = np.arange(10, 33)
    with epochal.append(path) as writer:
        writer.append(a=more, b=more, c=more)
    with h5py.File(path) as file:
        for name in "abc":
            assert file[name][:].tolist() == list(range(33))


def test_appends_where_nothing_was_stored(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", (10,), "i4", chunks=(4,), maxshape=(None,), fillvalue=7)
    with epochal.append(tmp_path / "x.h5") as writer:
        writer.append(a=[1, 2, 3])
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["a"][:].tolist() == [7] * 10 + [1, 2, 3]


@pytest.mark.parametrize("flavour", ["hdf5", "pytables", "zarr", "npy"])
def test_a_name_within_another(tmp_path, flavour):
    with pytest.raises(SourceNameError, match="a"):
        epochal.create(tmp_path / "x", {"a": ((), "u1"), "a/b": ((), "u1")}, flavour=flavour)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({}, "it is stored in one piece, not in chunks; epochal convert"),
        ({"chunks": (4, 2)}, r"made with at most 10 rows \(maxshape\)"),
        ({"chunks": (4, 1), "maxshape": (None, 2)}, r"chunks \(4, 1\) cut its rows \(2,\)"),
        (
            {"chunks": (4, 2), "maxshape": (None, 2), "scaleoffset": 3},
            "scaleoffset is decoded by libhdf5 only",
        ),
    ],
)
def test_what_cannot_grow(tmp_path, how, match):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=np.arange(20).reshape(10, 2), **how)
    before = path.read_bytes()
    with pytest.raises(MismatchError, match=match):
        epochal.append(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.h5"]


def test_the_tools_of_hdf5_read_it(tmp_path):
    if not any(os.path.exists(f"{folder}/h5ls") for folder in os.environ["PATH"].split(":")):
        pytest.skip("hdf5-tools are not installed here")
    path = str(tmp_path / "out.h5")
    written(path, "hdf5", [20])
    listed = subprocess.run(["h5ls", "-r", path], capture_output=True, text=True, check=True)
    assert "/deep/er                 Dataset {20/Inf, 5}" in listed.stdout
    dumped = subprocess.run(
        ["h5dump", "-d", "/y", "-w", "0", path], capture_output=True, text=True, check=True
    )
    assert ", ".join(str(k * k) for k in range(10)) in dumped.stdout


def test_the_same_rows_give_the_same_bytes(tmp_path):
    # However they come: of one source, since of several the chunks' order is that of the calls.
    with epochal.create(tmp_path / "c.h5", {"y": ((), "i8")}, chunk_rows=7, threads=1) as writer:
        writer.append(y=np.arange(100))
    with epochal.create(tmp_path / "d.h5", {"y": ((), "i8")}, chunk_rows=7, threads=4) as writer:
        for k in range(100):
            writer.append(y=[k])
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "d.h5").read_bytes()


DTYPES = ("?", "i1", ">i2", "<u4", "f2", ">f8", "c8", "S7", [("a", "u1"), ("b", ">f4", (2,))])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dtypes(tmp_path, flavour, dtype):
    rng = np.random.default_rng(0)
    dtype = np.dtype(dtype)
    if flavour == "zarr" and dtype.names:
        dtype = np.dtype([("a", "u1"), ("b", "<f4")])  # it has no form for axes in a structure
    raw = rng.integers(0, 2, (30, dtype.itemsize), dtype=np.uint8)
    rows = np.frombuffer(raw.tobytes(), dtype)
    path = str(tmp_path / (FLAVOURS[flavour] + (".npy" if flavour == "npy" else "")))
    with epochal.create(path, {"X": ((), dtype)}, flavour=flavour, chunk_rows=8) as writer:
        writer.append(X=rows)
    with epochal.open(path) as ds:
        (name,) = ds.sources
        found = ds[name][:]
    if dtype.kind == "b" and flavour == "pytables":
        found = found.astype(bool)  # a bit field in the file, read as bytes
    if dtype.names:
        for field in dtype.names:
            assert np.array_equal(found[field], rows[field])
    else:
        assert found.dtype.newbyteorder("=") == dtype.newbyteorder("=")
        assert np.array_equal(found, rows)


@pytest.mark.parametrize("flavour", ["hdf5", "zarr", "npy"])
def test_dates(tmp_path, flavour):
    days = np.arange("2024-01", "2024-03", dtype="datetime64[D]")
    path = str(tmp_path / "out.npy") if flavour == "npy" else str(tmp_path / "out")
    kind = {"t": ((), "datetime64[D]")}
    with epochal.create(path, kind, flavour=flavour) as writer:
        writer.append(t=days)
    with epochal.open(path) as ds:
        (name,) = ds.sources
        assert ds[name][:].tolist() == days.tolist()


def test_attributes(tmp_path):
    attrs = {"label_names": ["cat", "dog"], "scale": 0.5, "n": 3, "mean": np.arange(3.0)}
    with epochal.create(tmp_path / "out.h5", {"y": ((), "i8")}, attrs=attrs) as writer:
        writer.append(y=[1])
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["label_names"].tolist() == ["cat", "dog"]
        assert file.attrs["scale"] == 0.5
        assert file.attrs["mean"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"flavour": "hdf4"}, "flavour='hdf4' is not one of: hdf5, pytables, zarr, npy"),
        ({"compression": "snappy"}, "compression='snappy' is not known"),
        ({"flavour": "pytables", "compression": "zstd"}, "'zstd' is not read by PyTables"),
        ({"flavour": "npy", "compression": "gzip"}, "compression"),
        ({"flavour": "zarr", "compression": "lz4"}, "lz4"),
        ({"rows": -1}, "rows=-1: give a whole number"),
        ({"chunk_rows": 0}, "chunk_rows=0 of 'X': give a whole number from 1"),
        ({"chunk_rows": 2.5}, "chunk_rows=2.5 of 'X': give a whole number from 1"),
        ({"chunk_rows": {"z": 3}}, "chunk_rows of 'z': there are X"),
        ({"level": 99}, "level=99 of compression='gzip', which has 0 to 9"),
        ({"level": 3, "compression": None}, "which has none: leave it out"),
        ({"attrs": {"a": object()}}, "'a' of object cannot be an attribute"),
        ({"attrs": {"a": np.zeros(100_000)}}, "takes 800000 bytes, an attribute at most"),
        ({"sources": {}}, "name at least one"),
        ({"sources": {"X": (3,)}}, "is not the shape of a row and a dtype"),
        ({"sources": {"X": ((0,), "u1")}}, r"rows of shape \(0,\) hold nothing"),
        ({"sources": {"X": ((), "O")}}, "dtype object has no fixed size"),
        ({"sources": {"X": ((), "U5")}}, "HDF5 has no strings of 4-byte characters"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(tmp_path, how, match):
    arguments = {"sources": {"X": ((3,), "u1")}, **how}
    with pytest.raises(MismatchError, match=match):
        epochal.create(tmp_path / "out", **arguments)
    assert os.listdir(tmp_path) == []


def test_threads_and_memory(tmp_path):
    with pytest.raises(ValueError, match="threads=0: give a whole number from 1"):
        epochal.create(tmp_path / "out.h5", SOURCES, threads=0)
    with pytest.raises(BudgetError, match="cannot hold a chunk of each source"):
        epochal.create(tmp_path / "out.h5", {"X": ((3072,), "u1")}, memory="1MiB")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_opened_while_one_of_its_files_is_made(tmp_path):
    with epochal.create(tmp_path / "a.h5", {"y": ((), "i8")}) as writer:
        writer.append(y=[1, 2])
    with epochal.create(tmp_path / "b.h5", {"y": ((), "i8")}) as writer:
        writer.append(y=[3])
        writer.checkpoint()  # from here on it has a journal
        writer.append(y=np.arange(300_000))
        with epochal.open(tmp_path) as ds:
            assert ds["y"][:].tolist() == [1, 2]
        writer.write(1, y=np.arange(300_000))
    with epochal.open(tmp_path) as ds:
        assert len(ds) == 300_003


@pytest.mark.parametrize("name", ["", "a//b", "../x", "a/./b"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(SourceNameError):
        epochal.create(tmp_path / "out.h5", {name: ((), "u1")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("flavour", ["hdf5", "pytables", "zarr", "npy"])
@pytest.mark.parametrize("name", ["a\0b", "a\udc80", 3])
def test_names_that_nothing_can_be_called(tmp_path, flavour, name):
    with pytest.raises(SourceNameError, match=r"^source name .*: give"):
        epochal.create(tmp_path / "out", {name: ((), "u1"), "y": ((), "u1")}, flavour=flavour)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("flavour", ["hdf5", "pytables", "zarr", "npy"])
def test_names_of_which_one_holds_another(tmp_path, flavour):
    sources = {"a/b/c": ((), "u1"), "a": ((), "u1")}
    with pytest.raises(SourceNameError, match="'a/b/c' would lie inside of source 'a': name one"):
        epochal.create(tmp_path / "out", sources, flavour=flavour)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.h5", "out.zarr", "out.npy", "out"])
def test_what_stands_in_the_way_is_told_of_the_target(tmp_path, monkeypatch, name):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    sources = {"X": ((), "u1"), "y": ((), "u1")}
    flavour = {"out.npy": "npy", "out": "npy"}.get(name)
    if name == "out.npy":
        del sources["y"]
    match = f"^{re.escape(str(tmp_path / name))}: cannot be written: the disk is full"
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with (
            pytest.raises(TargetError, match=match),
            epochal.create(tmp_path / name, sources, flavour=flavour) as writer,
        ):
            writer.append(dict.fromkeys(sources, np.zeros(5, "u1")))
    assert os.listdir(tmp_path) == []


def test_targets(tmp_path):
    (tmp_path / "there.h5").write_bytes(b"mine")
    with pytest.raises(TargetExistsError, match="give overwrite=True"):
        epochal.create(tmp_path / "there.h5", SOURCES)
    with pytest.raises(TargetError, match="there is no folder"):
        epochal.create(tmp_path / "missing" / "x.h5", SOURCES)
    with pytest.raises(FileMissingError, match=r"epochal\.create makes one"):
        epochal.append(tmp_path / "missing.h5")
    with pytest.raises(MismatchError, match=r"more rows can be written to HDF5, Zarr 3 and \.npy"):
        epochal.append(tmp_path / "there.h5")
    with epochal.create(tmp_path / "there.h5", {"y": ((), "u1")}, overwrite=True) as writer:
        assert (tmp_path / "there.h5").read_bytes() == b"mine"
        writer.append(y=[1, 2])
    with epochal.open(tmp_path / "there.h5") as ds:
        assert ds["y"][:].tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["there.h5"]


def test_the_name_says_what_is_written(tmp_path):
    """As that of `epochal.convert` does."""
    X = np.arange(12, dtype="i4").reshape(4, 3)
    for name, read in (
        ("X.npy", lambda path: np.load(path, mmap_mode="r")),
        ("X.zarr", lambda path: zarr.open_group(path, mode="r")["X"][:]),
        ("X.h5", lambda path: h5py.File(path)["X"][:]),
        ("X", lambda path: h5py.File(path)["X"][:]),
    ):
        with epochal.create(tmp_path / name, {"X": ((3,), "i4")}, rows=4) as writer:
            writer.append(X=X)
        assert (read(tmp_path / name) == X).all()
