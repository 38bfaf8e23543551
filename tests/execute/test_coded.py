"""Filters that left most chunks as they are: rows are read alone, other chunks decoded once."""

import h5py
import numpy as np
import pytest
import tables

import epochal
from epochal.errors import BudgetError, DamageError, DamageWarning
from epochal.plan.machine import Machine, Rates
from epochal.stores import open_store

N, D, CHUNK = 2030, 700, 50  # the last chunk holds 30 rows
FLAT = (3, 17, 18, 29)  # chunks of zeros
EMPTY = 8  # a chunk that is not stored


def gathered(ds, memory, batch_size=64, **more):
    """Batches in exact shuffle, by rows that are read alone."""
    batches = ds.batches("shuffled_sequential", batch_size, seed=1, memory=memory, **more)
    machine = Machine(threads=2, rates={"X": Rates(row_readers=1)})
    batches._planner.constrain(strategies=("gather",), machine=machine)
    return batches


@pytest.fixture(scope="module")
def rows():
    """Noise, which no codec makes smaller, but for some chunks."""
    X = np.random.default_rng(0).integers(0, 256, (N, D), np.uint8)
    for chunk in FLAT:
        X[chunk * CHUNK : (chunk + 1) * CHUNK] = chunk
    X[EMPTY * CHUNK : (EMPTY + 1) * CHUNK] = 7
    return X


@pytest.fixture
def path(rows, tmp_path):
    """LZF, whose filter h5py makes optional, as PyTables does those of Blosc."""
    with h5py.File(tmp_path / "X.h5", "w") as file:
        made = file.create_dataset(
            "X", rows.shape, "u1", chunks=(CHUNK, D), compression="lzf", fillvalue=7
        )
        for start in range(0, N, CHUNK):
            if start != EMPTY * CHUNK:
                made[start : start + CHUNK] = rows[start : start + CHUNK]
    return tmp_path / "X.h5"


CODED = [*FLAT, N // CHUNK]  # the last one is padded with what compresses


def test_chunks_that_must_be_decoded_are_known(path, rows):
    layout = open_store(path).sources["X"].layout
    assert layout.coded.tolist() == CODED
    assert layout.some_alone
    assert not layout.rows_alone


def test_every_epoch_is_that_of_the_rows(path, rows):
    with epochal.open(path) as ds:
        batches = gathered(ds, "4MiB")
        plain = epochal.from_arrays(X=rows).batches("shuffled_sequential", 64, seed=1)
        for _ in range(3):
            for got, want in zip(batches, plain, strict=True):
                assert (got.X == want.X).all()
            report = batches.explain()
            assert report.plan.strategy == "gather"
            assert dict(report.plan.held)["X: chunks that were decoded"] == (4 * CHUNK + 30) * D
            assert report.measured.chunks_decoded == report.predicted.chunks_decoded == len(CODED)
            assert report.measured.read_bytes == report.predicted.read_bytes
            assert report.measured.held_bytes <= 4 << 20


def test_a_split_decodes_what_it_needs(path, rows):
    """Damage elsewhere is not its business."""
    _, mine = epochal.from_arrays(X=np.arange(N)).split(0.995, seed=3)
    touched = np.intersect1d(mine["X"][:] // CHUNK, CODED)
    with epochal.open(path) as ds:
        batches = gathered(ds.split(0.995, seed=3)[1], "4MiB", 5)
        assert sum(len(batch.X) for batch in batches) == len(mine)
        report = batches.explain()
    assert 0 < len(touched) < len(CODED)
    assert report.measured.chunks_decoded == report.predicted.chunks_decoded == len(touched)
    assert report.measured.read_bytes == report.predicted.read_bytes


@pytest.mark.parametrize("wanted", [np.r_[2029, 0:N:3, 5, 5], np.array([850, 3]), np.r_[150:200]])
def test_rows_by_number(path, rows, wanted):
    with epochal.open(path) as ds:
        assert (ds["X"][wanted] == rows[wanted]).all()
        shuffled = np.random.default_rng(0).permutation(wanted)
        assert (ds["X"][shuffled] == rows[shuffled]).all()


def test_rows_of_plain_chunks_are_read_alone(path, rows, monkeypatch):
    """Not their chunks."""
    store = open_store(path)
    source = store.sources["X"]
    with epochal.open(path) as ds:
        (mine,) = ds.stored.values()
        monkeypatch.setattr(type(mine), "read", lambda *_: pytest.fail("a chunk was read"))
        assert (ds["X"][[1999, 5, 700]] == rows[[1999, 5, 700]]).all()
    with pytest.raises(AssertionError):  # what would be read is compressed
        source.read_rows(np.array([FLAT[0] * CHUNK]), np.empty((1, D), np.uint8))


def test_files_of_which_some_have_no_filters(path, rows, tmp_path):
    with h5py.File(tmp_path / "Y.h5", "w") as file:
        file.create_dataset("X", data=rows[:110], chunks=(CHUNK, D))
    both = np.concatenate([rows[:110], rows])
    with epochal.open([tmp_path / "Y.h5", path]) as ds:
        (source,) = ds.stored.values()
        assert source.layout.coded.tolist() == [c + 3 for c in CODED]
        batches = gathered(ds, "4MiB")
        plain = epochal.from_arrays(X=both).batches("shuffled_sequential", 64, seed=1)
        for got, want in zip(batches, plain, strict=True):
            assert (got.X == want.X).all()


def test_pytables_blosc(rows, tmp_path):
    with tables.open_file(tmp_path / "X.h5", "w") as file:
        filters = tables.Filters(5, "blosc", shuffle=True)
        made = file.create_carray(
            "/", "X", tables.UInt8Atom(), rows.shape, filters=filters, chunkshape=(CHUNK, D)
        )
        made[:] = rows
    assert open_store(tmp_path / "X.h5").sources["X"].layout.coded.tolist() == sorted(
        [*CODED, EMPTY]
    )


def test_a_chunk_that_does_not_decode(path, rows):
    with h5py.File(path, "r+") as file:
        file["X"].id.write_direct_chunk((FLAT[1] * CHUNK, 0), b"\xff" * 40)
    with epochal.open(path) as ds:
        with pytest.raises(DamageError, match=f"chunk {FLAT[1]}, rows 850 to 899"):
            list(gathered(ds, "4MiB"))
        batches = gathered(ds, "4MiB", on_error="skip")
        with pytest.warns(DamageWarning, match="rows 850 to 899"):
            n_rows = sum(len(batch.X) for batch in batches)
        assert n_rows == N - CHUNK
        assert batches.stats.rows_skipped == CHUNK


def test_memory_that_does_not_hold_them(path):
    with epochal.open(path) as ds:
        batches = gathered(ds, "200KiB", 8)
        with pytest.raises(BudgetError, match="needed"):
            next(iter(batches))


def test_checksums_are_compared_all_the_same(path, rows):
    """Rows read alone are not: so none is."""
    epochal.verify(path, record=True)
    with epochal.open(path) as ds:
        (source,) = ds.stored.values()
        assert source.layout.checked
        assert source.layout.coded is None
