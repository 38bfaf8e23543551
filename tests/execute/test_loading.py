"""Files that the page cache is told to read while rows of them are."""

import os
from concurrent.futures import CancelledError
from dataclasses import replace

import h5py
import numpy as np
import pytest

import epochal
from epochal.execute import loading, probe
from epochal.execute.probe import probe_source
from epochal.plan.machine import Machine, Rates
from epochal.stores import open_store
from epochal.testing.stores import ChunkedArrays

N, WIDTH = 3000, 3000
LATE = Rates(1e8, queued_row_seconds=5e-5, row_readers=2, uncached=True, cached_row_seconds=1e-6)


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(0, 256, (N, WIDTH), np.uint8)


def npy(rows, folder):
    np.save(folder / "X.npy", rows)
    return folder / "X.npy"


def npys(rows, folder):
    (folder / "parts").mkdir()
    for number, part in enumerate(np.split(rows, [1, 500, 501, 2000])):
        np.save(folder / "parts" / f"X-{number}.npy", part)
    return folder / "parts"


def chunked(rows, folder):
    """Chunks that lie out of order, with another source between them."""
    with h5py.File(folder / "X.h5", "w") as file:
        X = file.create_dataset("X", rows.shape, "u1", chunks=(70, WIDTH))
        y = file.create_dataset("y", (N,), "i4", chunks=(70,))
        for chunk in np.random.default_rng(1).permutation(-(-N // 70)).tolist():
            some = slice(chunk * 70, (chunk + 1) * 70)
            X[some], y[some] = rows[some], chunk
    return folder / "X.h5"


def source_of(path):
    return next(iter(open_store(path).sources.values()))


@pytest.mark.parametrize("write", [npy, npys, chunked])
@pytest.mark.parametrize("at_a_time", [4, 1 << 14])
def test_what_is_told_of_is_the_rows(write, at_a_time, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CHUNKS", at_a_time)
    monkeypatch.setattr(loading, "STEP_BYTES", 40_000)
    told = []

    def tell(fd, first, n_bytes, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        assert 0 < n_bytes <= 40_000
        told.append(os.pread(fd, n_bytes, first))

    monkeypatch.setattr(os, "posix_fadvise", tell)
    source = source_of(write(rows, tmp_path))
    loading.load(source, lambda: None)
    got = b"".join(told)
    assert len(got) == rows.nbytes
    if write is chunked:  # in the order of the file, and not of the chunks
        found = np.frombuffer(got, np.uint8).reshape(N, WIDTH)
        assert sorted(map(bytes, found)) == sorted(map(bytes, rows))
    else:
        assert got == rows.tobytes()


def test_neighbouring_chunks_are_told_of_together(rows, tmp_path):
    source = source_of(npy(rows, tmp_path))
    spans = [(first, stop) for _, first, stop in loading._spans(source)]
    assert spans == [(128, 128 + rows.nbytes)]


def test_chunks_that_must_be_decoded_are_not(rows):
    source = ChunkedArrays({"X": (rows, 70)}).sources["X"]
    assert list(loading._spans(source)) == []
    assert not loading.can_load(source)
    loading.load(source, lambda: pytest.fail("there is nothing to load"))


def test_it_ends_when_the_pool_does(rows, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(loading, "STEP_BYTES", 1000)
    monkeypatch.setattr(os, "posix_fadvise", lambda *what: told.append(what))

    def check():
        if len(told) == 3:
            raise CancelledError

    with pytest.raises(CancelledError):
        loading.load(source_of(npy(rows, tmp_path)), check)
    assert len(told) == 3


def test_a_system_without_it(rows, tmp_path, monkeypatch):
    source = source_of(npy(rows, tmp_path))
    assert loading.can_load(source)
    monkeypatch.delattr(os, "posix_fadvise")
    assert not loading.can_load(source)


def late(ds, rates=LATE, scheme="shuffled_sequential", **more):
    """Batches of a machine on which the file is late."""
    batches = ds.batches(scheme, 64, seed=0, memory="6MiB", **more)
    machine = Machine(threads=2, rates={"X": rates}, scratch_why="no scratch is allowed")
    batches._planner.constrain(machine=machine)
    return batches


@pytest.mark.parametrize("write", [npy, npys, chunked])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_the_first_epoch_loads_and_later_ones_have_it(write, on_error, rows, tmp_path, monkeypatch):
    told = []

    def tell(fd, first, n_bytes, advice):
        told.append(n_bytes)

    monkeypatch.setattr(os, "posix_fadvise", tell)
    with epochal.open(write(rows, tmp_path), sources="X") as ds:
        batches = late(ds, on_error=on_error)
        plan = batches.plan
        assert (plan.strategy, plan.feeds[0].kind, plan.feeds[0].loads) == ("gather", "direct", 1)
        assert plan.pool_threads == 3
        assert "while the page cache reads all of the file" in str(plan)
        assert plan.predicted.seconds > plan.second.seconds == plan.later.seconds
        for epoch in range(3):
            order = batches.scheme.at(epoch).rows(0, N)
            assert (np.concatenate([batch.X for batch in batches]) == rows[order]).all()
            assert not batches.plan.feeds[0].loads
            report = batches.explain()
            assert report.predicted.read_bytes == report.measured.read_bytes == rows.nbytes
            assert report.predicted.seconds == (plan.predicted if not epoch else plan.later).seconds
            assert sum(told) == rows.nbytes
        assert batches.plan.pool_threads == 2
        again = ds.batches("shuffled_sequential", 64, seed=1, memory="6MiB")
        assert not again.plan.feeds[0].loads  # what one iteration knows, others do


def test_a_few_rows_of_many_are_no_reason_to(rows, tmp_path):
    with epochal.open(npy(rows, tmp_path)) as ds:
        batches = late(ds, scheme="random_uniform", num_batches=1)
        assert not batches.plan.feeds[0].loads
        assert batches.plan.feeds[0].uncached
        assert late(ds, scheme="random_uniform", num_batches=1000).plan.feeds[0].loads


def test_an_epoch_that_was_left_loads_again(rows, tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr(loading, "load", lambda *what: loads.append(what))
    with epochal.open(npy(rows, tmp_path)) as ds:
        batches = late(ds)
        next(iter(batches))
        order = batches.scheme.at(0).rows(0, N)
        assert (np.concatenate([batch.X for batch in batches]) == rows[order]).all()
    assert len(loads) == 2


def test_only_what_there_is_room_for(rows, tmp_path, monkeypatch):
    """Files that are late, and are held."""
    monkeypatch.setattr(probe, "CACHED_ROW_SECONDS", 0.0)
    monkeypatch.setattr(probe, "CACHED_BYTES_PER_S", 1e18)
    source = source_of(npy(rows, tmp_path))
    assert probe_source(source, 2, roomy=True).cached_row_seconds > 0
    assert probe_source(source, 2, roomy=False).cached_row_seconds == 0
    for free, loads in ((1 << 40, True), (12 << 20, False)):
        monkeypatch.setattr("epochal.sizes.free_memory", lambda free=free: free)
        with epochal.open(tmp_path / "X.npy") as ds:
            batches = ds.batches("shuffled_sequential", 64, memory="6MiB")
            rates = batches.plan.machine.of("X")
            assert bool(rates.cached_row_seconds) == loads
    assert replace(rates, cached_row_seconds=1.0).loaded(2).queued_row_seconds == 1.0
