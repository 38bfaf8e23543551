"""Rows that are read past the page cache, from the device itself."""

import os
from contextlib import closing

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import ChangedError, DamageError
from epochal.execute import uncached
from epochal.execute.pool import Pool
from epochal.execute.probe import probe_source
from epochal.execute.uncached import Uncached
from epochal.plan.gather import uncached_bytes
from epochal.plan.machine import Machine, Rates
from epochal.stores import many, open_store

N = 700


def on_a_thread(function, *arguments):
    """An interrupt on the main thread would leave reads under way: it reads nothing so."""
    with closing(Pool(1)) as pool:
        return pool.submit(function, *arguments).result()


@pytest.fixture(params=[1, 700, 3072, 5000, 70_000], ids="{} bytes a row".format)
def table(request, tmp_path):
    """A ``.npy``, and what is in it; skipped where the folder's files have no such way."""
    X = np.random.default_rng(0).integers(0, 256, (N, request.param), np.uint8)
    np.save(tmp_path / "X.npy", X)
    source = Uncached(open_store(tmp_path / "X.npy").sources["X"])
    if not source.works():
        pytest.skip("files here cannot be read past the page cache")
    return tmp_path / "X.npy", X, source


@pytest.mark.parametrize("blocks", [(512, 4096), (4096,)])
@pytest.mark.parametrize("n", [0, 1, 3, 300])
def test_rows_come_as_they_are(table, blocks, n, monkeypatch):
    """In any order, with repeats, to several arrays."""
    monkeypatch.setattr(uncached, "BLOCKS", blocks)
    _, X, source = table
    wanted = np.random.default_rng(n).integers(0, N, n)
    outs = [np.zeros((k, X.shape[1]), np.uint8) for k in (n // 3, 0, n - n // 3)]
    assert on_a_thread(source.read_uncached, wanted, outs)
    assert (np.concatenate(outs) == X[wanted]).all()


def test_rows_of_many_files(tmp_path, monkeypatch):
    """More than are held open."""
    monkeypatch.setattr(uncached, "MOST_WAYS", 2)
    monkeypatch.setattr("epochal.stores.concat.FILES_AT_ONCE", 3)
    arrays = [
        np.random.default_rng(n).integers(0, 256, (n, 900), np.uint8) for n in (50, 20, 70, 1, 30)
    ]
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"X-{number}.npy", array)
    X = np.concatenate(arrays)
    source = Uncached(next(iter(open_store(tmp_path).sources.values())))
    if not source.works():
        pytest.skip("files here cannot be read past the page cache")
    for n in (1, 40, 300):
        wanted = np.random.default_rng(n).integers(0, len(X), n)
        outs = [np.zeros((k, 900), np.uint8) for k in (n // 3, n - n // 3)]
        assert on_a_thread(source.read_uncached, wanted, outs)
        assert (np.concatenate(outs) == X[wanted]).all()
    outs = [np.zeros((len(X), 900), np.uint8)]
    on_a_thread(source.read_rows_into, np.arange(len(X))[::-1], outs)
    assert (outs[0] == X[::-1]).all()


def test_the_last_rows_come_too(table):
    """A block that begins before the end of a file ends behind it."""
    _, X, source = table
    wanted = np.array([0, N - 1, N - 2])
    out = np.zeros((3, X.shape[1]), np.uint8)
    assert on_a_thread(source.read_uncached, wanted, [out])
    assert (out == X[wanted]).all()


def test_nothing_is_left_in_the_page_cache(tmp_path):
    """Else the next rows push out others, in vain."""
    X = np.random.default_rng(0).integers(0, 256, (2000, 4096), np.uint8)
    np.save(tmp_path / "X.npy", X)
    source = open_store(tmp_path / "X.npy").sources["X"]
    past = Uncached(source)
    if not past.works():
        pytest.skip("files here cannot be read past the page cache")
    with open(tmp_path / "X.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        wanted = np.random.default_rng(1).permutation(1990)[:500]
        out = np.zeros((500, 4096), np.uint8)
        assert on_a_thread(past.read_uncached, wanted, [out])
        assert (out == X[wanted]).all()
        cached = 0
        for row in wanted[:50].tolist():
            try:
                cached += (
                    os.preadv(file.fileno(), [bytearray(4096)], 128 + row * 4096, os.RWF_NOWAIT) > 0
                )
            except BlockingIOError:
                continue
            except OSError:
                pytest.skip("this system does not say what is cached")
    assert cached < 25


def test_the_main_thread_reads_as_ever(table):
    _, X, source = table
    out = np.zeros((2, X.shape[1]), np.uint8)
    assert not source.read_uncached(np.array([3, 1]), [out])
    source.read_rows(np.array([3, 1]), out)
    assert (out == X[[3, 1]]).all()


@pytest.mark.parametrize("without", ["O_DIRECT", "aio", "proc"])
def test_systems_that_have_no_such_way(table, without, monkeypatch):
    path, X, _ = table
    if without == "O_DIRECT":
        monkeypatch.delattr(os, "O_DIRECT")
    elif without == "aio":
        monkeypatch.setattr(many, "_calls", lambda: None)
    else:
        real = os.open

        def without_proc(name, *rest):
            return real(str(name).replace("/proc/self", "/nowhere"), *rest)

        monkeypatch.setattr(os, "open", without_proc)
    source = Uncached(open_store(path).sources["X"])
    assert not source.works()
    out = np.zeros((2, X.shape[1]), np.uint8)
    on_a_thread(source.read_rows, np.array([3, 1]), out)
    assert (out == X[[3, 1]]).all()


def made(ds, **more):
    """Batches in exact shuffle, of rows that are read past the page cache."""
    batches = ds.batches("shuffled_sequential", 16, seed=1, memory="24MiB", **more)
    rates = Rates(queued_row_seconds=1e-6, row_readers=2, uncached=True)
    machine = Machine(threads=2, rates={"X": rates})
    batches._planner.constrain(strategies=("gather",), machine=machine)
    return batches


def test_epochs(table):
    path, X, _ = table
    with epochal.open(path) as ds:
        batches = made(ds)
        for _ in range(2):
            rows = epochal.from_arrays(X=X).batches(
                "shuffled_sequential", 16, seed=1, epoch=batches.epoch
            )
            for got, want in zip(batches, rows, strict=True):
                assert (got.X == want.X).all()
        report = batches.explain()
        assert report.plan.feeds[0].uncached
        assert "past the page cache" in str(report)
        assert dict(report.plan.held)["X: rows being read"] >= 2 * uncached_bytes(X.shape[1])
        assert report.measured.read_bytes == report.predicted.read_bytes == X.nbytes


def test_chunks_without_filters_and_files_with_damage(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (N, 1000), np.uint8)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file.create_dataset("X", data=X, chunks=(50, 1000))
    with epochal.open(tmp_path / "X.h5") as ds:
        rows = epochal.from_arrays(X=X).batches("shuffled_sequential", 16, seed=1)
        for got, want in zip(made(ds), rows, strict=True):
            assert (got.X == want.X).all()
        batches = made(ds)
        next(iter(batches))
        os.utime(tmp_path / "X.h5", ns=(1, 1))
        with pytest.raises(ChangedError):
            list(batches)


def test_a_file_that_was_cut_short(table, monkeypatch):
    path, X, source = table
    monkeypatch.setattr("epochal.stores.descriptor.Descriptor._compare", lambda *_: None)
    os.truncate(path, path.stat().st_size - X.shape[1] - 1)
    with pytest.raises(DamageError, match="the file ends"):
        on_a_thread(source.read_rows, np.array([0, N - 1]), np.empty((2, X.shape[1]), np.uint8))


def test_a_device_is_asked_past_the_page_cache(tmp_path, monkeypatch):
    """Where rows take longer than a copy, and those past the page cache do not take the longest."""
    np.save(tmp_path / "X.npy", np.zeros((N, 700), np.uint8))
    source = open_store(tmp_path / "X.npy").sources["X"]
    monkeypatch.setattr(Uncached, "works", lambda *_: True)
    times = {True: 1e-4, False: 9e-5}
    monkeypatch.setattr(
        "epochal.execute.probe._timed_rows", lambda one, *_: times[isinstance(one, Uncached)]
    )
    rates = probe_source(source, 2)
    assert (rates.uncached, rates.row_readers, rates.queued_row_seconds) == (True, 2, 1e-4)
    times[False] = 5e-5  # the page cache has half of it
    rates = probe_source(source, 2)
    assert (rates.uncached, rates.queued_row_seconds) == (False, 5e-5)
    times[False] = 1e-6
    assert probe_source(source, 2).queued_row_seconds == 0.75e-6  # they share the memory
