"""Transformed rows written out: whole, with their transform, resumable; and by many processes."""

import json
import os
import shutil
import signal
import textwrap
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

import epochal
from epochal.converting import convert as module
from epochal.converting.transforming import transform_file
from epochal.errors import FormatError, MismatchError, SourceNameError
from epochal.stores.kept import kept_in
from epochal.transforms import (
    PCA,
    ZCA,
    CentralWindow,
    GlobalContrastNormalization,
    Pipeline,
    Standardize,
    fitting,
    load,
)
from epochal.writing.writer import Writer

N, SHAPE = 2000, (4, 4, 3)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    rows = np.clip(rng.normal(100, 30, (N, 48)), 0, 255).astype("u1").reshape(N, *SHAPE)
    rows.flags.writeable = False
    return rows


@pytest.fixture(scope="module")
def path(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "images.h5"
    with epochal.create(path, {"X": (SHAPE, "u1"), "y": ((), "i8")}, chunk_rows=64) as writer:
        writer.append(X=images, y=np.arange(N))
    return str(path)


@pytest.fixture
def pipe(path):
    with epochal.open(path) as ds:
        return Pipeline([GlobalContrastNormalization(), Standardize(), ZCA()]).fit(ds)


KINDS = {"a.h5": {}, "a.zarr": {}, "a": {"flavour": "npy"}, "t.h5": {"flavour": "pytables"}}


@pytest.mark.parametrize("name", list(KINDS))
def test_saved_with_its_transform(name, path, images, pipe, tmp_path):
    expected = pipe.transform(images)
    with epochal.open(path) as ds:
        ds.transform(pipe).save(tmp_path / name, **KINDS[name])
    with epochal.open(str(tmp_path / name)) as made:
        assert list(made.sources) == ["X", "y"]
        assert np.array_equal(made["X"][:], expected)
        assert np.array_equal(made["y"][:], np.arange(N))
    assert epochal.verify(tmp_path / name).ok
    again = load(tmp_path / name)
    assert repr(again) == repr(pipe)
    assert np.array_equal(again.transform(images), expected)
    with epochal.open(str(tmp_path / name)) as ds:  # what is written of that went through nothing
        ds.save(tmp_path / "plain.h5")
    assert kept_in(tmp_path / "plain.h5") is None
    with pytest.raises(FormatError, match="holds no transform"):
        load(tmp_path / "plain.h5")


def test_what_zarr_keeps_is_an_array_of_its_own(path, pipe, tmp_path):
    with epochal.open(path) as ds:
        ds.transform(pipe).save(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r", use_consolidated=False)
    assert sorted(name for name, _ in group.members()) == ["X", "epochal.transforms", "y"]
    assert bytes(group["epochal.transforms"][:]) == kept_in(tmp_path / "a.zarr")
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    del document["consolidated_metadata"]
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(document))
    with epochal.open(str(tmp_path / "a.zarr")) as ds:
        assert list(ds.sources) == ["X", "y"]
        assert [other.name for other in ds.others] == ["epochal.transforms"]
    chunk = tmp_path / "a.zarr" / "epochal.transforms" / "c.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    with pytest.raises(epochal.errors.DamageError, match="is damaged"):
        load(tmp_path / "a.zarr")


def test_one_npy_file_has_no_place_for_it(path, images, pipe, tmp_path):
    with epochal.open(path, sources=["X"]) as ds:
        ds.transform(pipe).save(tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), pipe.transform(images))
    with pytest.raises(FormatError, match="holds no transform"):
        load(tmp_path / "a.npy")


def test_several_sources_several_transforms(path, images, tmp_path):
    with epochal.open(path) as ds:
        first = Standardize().fit(ds)
        second = PCA(3).fit(ds.transform(first))
        labels = Standardize(global_mean=True).fit(ds, source="y")
        made = ds.transform(first).transform(second).transform(labels, "y")
        expected = second.transform(first.transform(images))
        made.save(tmp_path / "a.h5")
        assert np.allclose(made["X"][:], expected, atol=1e-5)
    with pytest.raises(SourceNameError, match="has transforms of X, y"):
        load(tmp_path / "a.h5")
    assert repr(load(tmp_path / "a.h5", "y")) == repr(labels)
    both = load(tmp_path / "a.h5", "X")
    assert np.allclose(both.transform(images), expected, atol=1e-5)


def test_a_damaged_transform_is_told(path, pipe, tmp_path):
    with epochal.open(path) as ds:
        ds.transform(pipe).save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["epochal.transforms"][1000] ^= 1
    with pytest.raises(epochal.errors.DamageError, match=r"epochal\.transforms is damaged"):
        load(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["a.h5", "a.zarr", "folder"])
def test_verify_finds_a_damaged_transform(name, path, pipe, tmp_path):
    target = tmp_path / name
    with epochal.open(path) as ds:
        ds.transform(pipe).save(target, flavour="npy" if name == "folder" else None)
    whole = epochal.verify(target)
    assert whole.ok
    assert "epochal.transforms: the fitted transform is what it was" in str(whole)
    kept = {"a.zarr": "epochal.transforms/c.0", "folder": "epochal.transforms", "a.h5": "."}[name]
    place = target / kept
    data = place.read_bytes()
    at = data.index(b"state.npy") + 500  # in the first array of the state
    place.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    found = epochal.verify(target)
    assert not found.ok
    assert not found.bad
    assert len(found.damage) == 1
    assert "epochal.transforms" in found.damage[0]
    assert str(found).endswith(": damaged")
    assert epochal.verify(target, sources=["X", "y"]).ok
    assert not epochal.verify(target, untrusted=True).damage  # it is not opened in this process


class Unfit(Standardize):
    def fit(self, *args, **how):
        raise AssertionError("it would have taken hours")


def test_a_target_that_is_in_the_way_is_told_before_the_fit(path, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"mine")
    with pytest.raises(epochal.errors.TargetExistsError, match="is there already"):
        transform_file(path, tmp_path / "a.h5", Unfit())
    for where in ({"dst": tmp_path / "no" / "a.h5"}, {"save_fit": tmp_path / "no" / "fit.npz"}):
        with pytest.raises(epochal.errors.TargetError, match="there is no folder"):
            transform_file(path, **{"dst": tmp_path / "b.h5", **where}, transform=Unfit())
    assert os.listdir(tmp_path) == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == b"mine"


def test_a_fit_replaces_what_is_there_only_if_told_to(path, images, tmp_path):
    (tmp_path / "fit.npz").write_bytes(b"mine")
    how = {"save_fit": tmp_path / "fit.npz"}
    with pytest.raises(epochal.errors.TargetExistsError, match=r"fit\.npz is there already"):
        transform_file(path, tmp_path / "a.h5", Unfit(), **how)
    assert (tmp_path / "fit.npz").read_bytes() == b"mine"
    transform_file(path, tmp_path / "a.h5", Standardize(), overwrite=True, **how)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(load(tmp_path / "fit.npz").transform(images), file["X"][:])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["src", "dst", "fit_on", "link", "inside"])
def test_a_fit_is_never_saved_where_rows_are(path, tmp_path, overwrite, what):
    for name in ("src.h5", "fit_on.h5"):
        shutil.copy(path, tmp_path / name)
    (tmp_path / "link.npz").symlink_to("src.h5")
    with epochal.open(path) as ds:
        ds.save(tmp_path / "dst.zarr")
    places = {"dst": "dst.zarr", "link": "link.npz", "inside": "dst.zarr/fit.npz"}
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(epochal.errors.EpochalError, match=r"or lies in it|there already"):
        transform_file(
            tmp_path / "src.h5",
            tmp_path / "dst.zarr",
            Unfit(),
            fit_on=tmp_path / "fit_on.h5",
            save_fit=tmp_path / places.get(what, f"{what}.h5"),
            overwrite=overwrite,
        )
    assert sorted(os.listdir(tmp_path)) == before
    for name in ("src.h5", "fit_on.h5"):
        assert (tmp_path / name).read_bytes() == Path(path).read_bytes()
    assert epochal.verify(tmp_path / "dst.zarr").ok


def test_a_fit_is_saved_to_no_folder(path, tmp_path):
    with epochal.open(path) as ds:
        ds.save(tmp_path / "fit.zarr")
    how = {"save_fit": tmp_path / "fit.zarr", "overwrite": True}
    with pytest.raises(epochal.errors.TargetExistsError, match="is a folder: give another name"):
        transform_file(path, tmp_path / "a.h5", Unfit(), **how)


def test_a_run_that_goes_on_finds_the_fit_that_it_saved(path, tmp_path, monkeypatch):
    def killed(*args, **how):
        raise KeyboardInterrupt

    how = {"save_fit": tmp_path / "fit.npz", "resume": True}
    with monkeypatch.context() as patch:
        patch.setattr("epochal.converting.transforming.convert", killed)
        with pytest.raises(KeyboardInterrupt):
            transform_file(path, tmp_path / "a.h5", Standardize(), **how)
    saved = (tmp_path / "fit.npz").read_bytes()
    (tmp_path / "fit.npz").write_bytes(b"mine")
    with pytest.raises(epochal.errors.TargetExistsError, match="is there already"):
        transform_file(path, tmp_path / "a.h5", Standardize(), **how)
    (tmp_path / "fit.npz").write_bytes(saved)
    transform_file(path, tmp_path / "a.h5", Standardize(), **how)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "fit.npz"]
    assert (tmp_path / "fit.npz").read_bytes() == saved


def test_rows_that_become_short_are_held_as_they_are_read(tmp_path):
    # A step of so many bytes of what is written would be all the rows that are read.
    rows = np.random.default_rng(0).integers(0, 256, (40_000, 1000), "u1")
    with epochal.create(tmp_path / "a.h5", {"X": ((1000,), "u1")}, compression=None) as writer:
        writer.append(X=rows)
    window = CentralWindow((1, 1), image_shape=(10, 10, 10)).fit(rows[:10])
    with epochal.open(tmp_path / "a.h5") as ds:
        short = ds.transform(window)
        epochal.convert(short, tmp_path / "b.h5", memory="16MiB", chunk_rows=1000)
    with epochal.open(tmp_path / "b.h5") as ds:
        assert np.array_equal(ds["X"][:], window.transform(rows))


def test_memory_that_cannot_hold_rows_is_told_before_the_fit(path, tmp_path):
    match = r"of memory=10\.0 KiB, reading gets 7\.5 KiB and writing 2\.5 KiB: memory=7\.5 KiB"
    with pytest.raises(epochal.errors.BudgetError, match=match):
        transform_file(path, tmp_path / "a.h5", Unfit(), memory="10KiB")
    assert os.listdir(tmp_path) == []


def test_a_dataset_may_replace_its_own_file(images, pipe, tmp_path):
    path = str(tmp_path / "own.h5")
    with epochal.create(path, {"X": (SHAPE, "u1")}) as writer:
        writer.append(X=images)
    with epochal.open(path) as ds:
        ds.transform(pipe).save(path, overwrite=True)
    with epochal.open(path) as ds:
        assert np.array_equal(ds["X"][:], pipe.transform(images))


# Kills ----------------------------------------------------------------------------------------


def run(path, target, moment, *, save=False):
    """Transform in a process of its own, which kills itself as it gives the writer that block."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        left = moment

        def append(self, *rows, real=Writer.append):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            real(self, *rows)

        Writer.append = append
        module.APPEND_BYTES, module.CHECKPOINT_BYTES = 64 * 192, 4 * 64 * 192
        if save:
            epochal.open(path).save(target)
        pipe = Pipeline([Standardize(), ZCA()])
        done = transform_file(path, target, pipe, resume=True)
        Path(f"{target}.at").write_text(str(done.resumed_at))
        status = 0
    finally:
        os._exit(status)


def test_killed_and_resumed_to_the_same_bytes(path, tmp_path):
    assert run(path, tmp_path / "whole.h5", -1) == 0
    for moment in (1, 6, 13, 30):
        target = tmp_path / f"at-{moment}.h5"
        assert run(path, target, moment) == signal.SIGKILL
        assert not target.exists()
        assert run(path, target, -1) == 0
        assert (int(Path(f"{target}.at").read_text()) > 0) == (moment > 4)
        Path(f"{target}.at").unlink()
        assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["whole.h5", "whole.h5.at", *(f"at-{moment}.h5" for moment in (1, 6, 13, 30))]
    )


def test_another_transform_does_not_go_on(path, pipe, tmp_path):
    target = tmp_path / "a.h5"
    assert run(path, target, 13) == signal.SIGKILL
    with (
        epochal.open(path) as ds,
        pytest.raises(MismatchError, match="what is left there is of another conversion"),
    ):
        epochal.convert(ds.transform(pipe), target, resume=True)


def test_a_dataset_does_not_go_on_with_a_file_that_was_changed(images, tmp_path):
    source, target = str(tmp_path / "in.h5"), tmp_path / "a.h5"
    for rows in (images, images[::-1]):
        with epochal.create(source, {"X": (SHAPE, "u1")}, overwrite=True) as writer:
            writer.append(X=rows)
        if rows is images:
            assert run(source, target, 7, save=True) == signal.SIGKILL
            assert (tmp_path / ".a.h5.epochal-partial").exists()
    with (
        epochal.open(source) as ds,
        pytest.raises(MismatchError, match="is of another conversion: its src"),
    ):
        ds.save(target, resume=True)


# Many processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    how = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(n_workers=2, **how) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


STAGES = {
    "standardize": lambda: Standardize(),
    "zca": lambda: ZCA(),
    "wide": lambda: PCA(3, solver="randomized", n_iter=1),
    "two passes": lambda: Pipeline([Standardize(), GlobalContrastNormalization(), PCA(4)]),
}


@pytest.mark.parametrize("name", list(STAGES))
def test_fitted_by_workers(name, path, images, client):
    with epochal.open(path) as ds:
        here = STAGES[name]().fit(ds)
        there = STAGES[name]().fit(ds, client=client)
        part = ds.split(0.6)[0]
        one = Standardize().fit(part, client=client)
        assert np.allclose(one.mean_, Standardize().fit(part).mean_, rtol=1e-12)
    found, expected = there.transform(images), here.transform(images)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["a.h5", "a.zarr", "a"])
def test_written_by_workers(name, path, images, pipe, client, tmp_path):
    with epochal.open(path) as ds:
        how = {**KINDS[name], "chunk_rows": {"X": 48, "y": 700}}
        epochal.convert(ds.transform(pipe), tmp_path / name, client=client, **how)
    with epochal.open(str(tmp_path / name)) as made:
        assert np.array_equal(made["X"][:], pipe.transform(images))
        assert np.array_equal(made["y"][:], np.arange(N))
    assert epochal.verify(tmp_path / name).ok
    assert repr(load(tmp_path / name)) == repr(pipe)


SLOW = """
    import os, time
    from pathlib import Path
    import numpy as np

    class Slow:
        '''Waits until it may go on, so that somebody can kill its process.'''
        def __init__(self, folder):
            self.folder = folder
        def __call__(self, batch):
            Path(self.folder, f"at-{os.getpid()}").touch()
            while not Path(self.folder, "go").exists():
                time.sleep(0.02)
            return batch
"""


# A cluster of which a worker was killed leaves sockets to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_that_is_killed_midway(path, images, tmp_path, monkeypatch):
    (tmp_path / "slow_batches.py").write_text(textwrap.dedent(SLOW))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fitting, "_rows_of_block", lambda *of: 100)
    from slow_batches import Slow

    how = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        epochal.open(path) as ds,
        LocalCluster(n_workers=2, **how) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        fitted = []
        slow = ds.map(Slow(str(tmp_path)))
        job = threading.Thread(target=lambda: fitted.append(Standardize().fit(slow, client=client)))
        job.start()
        limit = time.monotonic() + 30
        while len(started := list(tmp_path.glob("at-*"))) < 2 and time.monotonic() < limit:
            time.sleep(0.02)
        assert len(started) == 2
        os.kill(int(started[0].name[3:]), signal.SIGKILL)
        (tmp_path / "go").touch()
        job.join(120)
        assert np.allclose(fitted[0].mean_, images.reshape(N, 48).mean(axis=0), rtol=1e-12)
        assert fitted[0].statistics_.tally.n_rows == N


def test_what_workers_cannot_read(path, images, client, tmp_path):
    with pytest.raises(MismatchError, match="client=: an array lies in this process"):
        Standardize().fit(images, client=client)
    with epochal.open(path) as ds, pytest.raises(MismatchError, match="batches lies"):
        Standardize().fit(ds.batches("sequential", 10, sources="X"), client=client)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MismatchError, match=r"workers read what epochal\.open reads"):
        epochal.convert(tmp_path / "a.csv", tmp_path / "a.h5", client=client)
    assert not Path(tmp_path, "a.h5").exists()
    assert sorted(os.listdir(tmp_path)) == ["a.csv"]
