"""Chunks as they are stored: read back by libhdf5, with the plugins where it needs them."""

from __future__ import annotations

import h5py
import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
import pytest

from epochal.errors import MismatchError
from epochal.stores.filters import Filter, Pipeline
from epochal.writing.encode import Encoder, as_stored, chain_for
from epochal.writing.spec import Compression

DTYPES = ("u1", "<i2", ">f4", "f8", "c16", "S5", "S300")
CHAINS = {
    f"{name}{'+shuffle' * shuffle}": Compression(name, shuffle)
    for name in ("gzip", "zstd", "lz4", "blosc", "blosc2", None)
    for shuffle in (False, True)
}


def rows_of(dtype: str, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    raw = rng.integers(0, 7, (n, 5, np.dtype(dtype).itemsize), dtype=np.uint8)
    if dtype.startswith("S"):
        raw += 65
    return raw.reshape(-1).view(dtype).reshape(n, 5)


def stored_by_us(path, chain, rows: np.ndarray, chunk_rows: int) -> None:
    encoder = Encoder(chain)
    with h5py.File(path, "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((chunk_rows, *rows.shape[1:]))
        for each in chain:
            creation.set_filter(each.id, h5py.h5z.FLAG_OPTIONAL, each.cd)
        kind = h5py.h5t.py_create(rows.dtype, logical=True)
        space = h5py.h5s.create_simple(rows.shape)
        made = h5py.h5d.create(file.id, b"X", kind, space, creation)
        for first in range(0, len(rows), chunk_rows):
            chunk = np.ascontiguousarray(rows[first : first + chunk_rows])
            stored, mask = encoder(as_stored(chunk, chunk_rows))
            made.write_direct_chunk((first, 0), stored, mask)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_libhdf5_reads_what_was_encoded(tmp_path, name, dtype):
    rows = rows_of(dtype, 50)
    chain = chain_for(CHAINS[name], rows.dtype.itemsize, 16 * rows[0].nbytes)
    stored_by_us(tmp_path / "x.h5", chain, rows, 16)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["X"][:].tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    "chain",
    [
        (Filter(3),),
        (Filter(2, (4,)), Filter(1, (9,)), Filter(3)),
        (Filter(1, (0,)),),
        (Filter(32000, (4, 261, 2000)),),
        (Filter(2, (4,)), Filter(32000, (4, 261, 2000))),
        (Filter(32004, (64,)),),
        *((Filter(32001, (2, 2, 4, 0, 5, 1, codec)),) for codec in (0, 1, 2, 4, 5)),
        (Filter(32001, (2, 2, 4, 0, 5, 2, 1)),),
        (Filter(32026, (1, 0, 4, 1280, 5, 2, 1)),),
    ],
    ids=str,
)
def test_chains_of_other_writers(tmp_path, chain):
    rows = np.arange(200, dtype="<i4").reshape(40, 5) // 7
    stored_by_us(tmp_path / "x.h5", chain, rows, 16)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["X"][:].tolist() == rows.tolist()


def test_what_only_others_can_do_is_left_out_by_its_mask(tmp_path):
    # Bitshuffle with LZ4 of 4-byte items: its filter is there, and no chunk went through it.
    rows = np.arange(200, dtype="<i4").reshape(40, 5)
    chain = (Filter(32008, (0, 4, 4, 0, 2)),)
    stored, mask = Encoder(chain)(as_stored(rows[:16], 16))
    assert mask == 1
    assert len(stored) == rows[:16].nbytes
    stored_by_us(tmp_path / "x.h5", chain, rows, 16)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["X"][:].tolist() == rows.tolist()


def test_our_own_pipeline_undoes_it():
    rows = np.random.default_rng(0).integers(0, 3, (16, 7), dtype="<u2")
    for compression in CHAINS.values():
        chain = chain_for(compression, 2, rows.nbytes)
        stored, mask = Encoder(chain)(rows.reshape(-1).view(np.uint8))
        out = np.empty(rows.nbytes, np.uint8)
        Pipeline(chain, rows.nbytes).decode(stored, mask, out)
        assert out.tobytes() == rows.tobytes()


def test_gzip_is_smaller_than_h5pys(tmp_path):
    rows = np.random.default_rng(0).integers(0, 16, (256, 1024), dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        made = file.create_dataset("X", data=rows, chunks=rows.shape, compression="gzip")
        theirs = made.id.get_storage_size()
    stored, _ = Encoder(chain_for(Compression("gzip"), 1, rows.nbytes))(rows.reshape(-1))
    assert len(stored) <= theirs


def test_a_short_chunk_is_filled_with_zeros():
    chunk = np.ones((3, 2), "<u2")
    stored = as_stored(chunk, 5)
    assert stored.view("<u2").tolist() == [1] * 6 + [0] * 4
    assert as_stored(np.empty((0, 2), "<u2"), 2).tolist() == [0] * 8


def test_an_unknown_compression():
    with pytest.raises(MismatchError, match="compression='snappy' is not known: give one of gzip"):
        Compression("snappy")
