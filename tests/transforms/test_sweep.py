"""Blocks straight from a source: the same rows as of batches, in order, wherever that can be."""

import threading

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import DamageError
from epochal.transforms import Standardize
from epochal.transforms.sweep import swept

N, CHUNK = 1000, 64


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(0).integers(0, 256, (N, 5, 3), dtype="u1")
    rows.flags.writeable = False
    return rows


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "rows.h5"
    with epochal.create(path, {"X": ((5, 3), "u1")}, chunk_rows=CHUNK) as writer:
        writer.append(X=rows)
    return str(path)


def blocks_of(ds, first=0, n_rows=CHUNK, memory="64MiB", threads=2, function=np.copy):
    return swept(ds, "X", first, n_rows, function, memory, threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n_rows", [CHUNK, 3 * CHUNK, 40 * CHUNK])
def test_all_rows_in_order(threads, n_rows, rows, path):
    with epochal.open(path) as ds:
        for first in (0, n_rows):
            found = list(blocks_of(ds, first, n_rows, threads=threads))
            assert [n for n, _ in found] == [min(n_rows, N - at) for at in range(first, N, n_rows)]
            if found:
                assert np.array_equal(np.concatenate([each for _, each in found]), rows[first:])


def test_a_block_lasts_until_the_next_is_asked_for(rows, path):
    with epochal.open(path) as ds:
        at = 0
        for n, block in blocks_of(ds, function=lambda rows: rows):
            assert np.array_equal(block, rows[at : at + n])
            at += n
        assert at == N


def test_rows_of_a_part(rows, path):
    with epochal.open(path) as ds:
        for start, stop in ((0, 4 * CHUNK), (2 * CHUNK, 9 * CHUNK), (3 * CHUNK, N)):
            found = list(blocks_of(ds.part(start, stop), n_rows=2 * CHUNK))
            assert np.array_equal(np.concatenate([each for _, each in found]), rows[start:stop])


def test_what_takes_batches(path):
    with epochal.open(path) as ds:
        assert blocks_of(ds) is not None
        assert blocks_of(ds.part(1, CHUNK)) is None
        assert blocks_of(ds.part(0, CHUNK + 1)) is None
        assert blocks_of(ds.part(5, 5)) is None
        turned = np.arange(4 * CHUNK)
        turned[[3, 9]] = turned[[9, 3]]
        assert blocks_of(ds._view(turned)) is None
        assert blocks_of(ds.split(0.5)[0]) is None
        assert blocks_of(ds, n_rows=CHUNK + 1) is None
        assert blocks_of(ds, memory=3 * CHUNK * 15 - 1) is None
        assert blocks_of(ds.map(np.negative)) is None


def test_what_fails_is_told(rows, path):
    def failing(block):
        if block[0, 0, 0] == rows[5 * CHUNK, 0, 0]:
            raise ZeroDivisionError("of this block")
        return len(block)

    with epochal.open(path) as ds, pytest.raises(ZeroDivisionError, match="of this block"):
        list(blocks_of(ds, function=failing))


def test_damage_is_told(rows, tmp_path):
    path = tmp_path / "bad.h5"
    with epochal.create(path, {"X": ((5, 3), "u1")}, chunk_rows=CHUNK) as writer:
        writer.append(X=rows)
    with h5py.File(path) as file:
        at = file["X"].id.get_chunk_info(7).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 9] ^= 1
    path.write_bytes(data)
    with (
        epochal.open(str(path)) as ds,
        pytest.raises(DamageError, match=f"rows {7 * CHUNK} to {8 * CHUNK - 1}"),
    ):
        Standardize().fit(ds)


def test_what_is_left_early_leaves_no_thread(path):
    with epochal.open(path) as ds:
        before = threading.active_count()
        blocks = blocks_of(ds)
        next(blocks)
        assert threading.active_count() > before
        blocks.close()
        for each in threading.enumerate():
            if each.name.startswith("epochal"):
                each.join(10)  # they end by themselves
        assert threading.active_count() <= before
