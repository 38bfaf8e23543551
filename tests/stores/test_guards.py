"""What the store does on an older or odder libhdf5, and that it holds what it says it holds."""

import tracemalloc

import h5py
import numpy as np
import pytest
from hdf5_files import CHAINS, read_all, some_items, write_dataset

from epochal.stores import hdf5_chunks, hdf5_index, open_store

SLACK_BYTES = 32 << 10  # Python's own objects, of which a read makes a few hundred


def test_addresses_that_lack_the_user_block(tmp_path, monkeypatch):
    """As before HDF5 1.14.4 (HDFGroup/hdf5#3003): one chunk is compared, and then libhdf5 reads."""
    path = tmp_path / "userblock.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        write_dataset(file, some_items("<i4", (30, 3), 1), "<i4", (10, 3), CHAINS["gzip"])
    assert open_store(path).sources["x"].layout.kind == "chunked"

    def old(dataset, shape, chunk, file_bytes):
        offsets, sizes, masks = hdf5_chunks.chunk_index(dataset, shape, chunk, file_bytes)
        return offsets - 1024, sizes, masks

    monkeypatch.setattr(hdf5_index, "chunk_index", old)
    store = open_store(path)
    assert store.sources["x"].why == "this libhdf5 gives wrong addresses"
    assert (read_all(store.sources["x"]) == some_items("<i4", (30, 3), 1)).all()
    store.close()


def test_edges_that_nothing_tells_about(tmp_path, monkeypatch):
    path = tmp_path / "edges.h5"
    with h5py.File(path, "w", libver="latest") as file:
        write_dataset(
            file, some_items("<i4", (31, 3), 1), "<i4", (10, 3), CHAINS["shuffle"], plain_edges=True
        )
    monkeypatch.setattr(hdf5_chunks.ctypes, "CDLL", lambda name: object())
    store = open_store(path)
    assert store.sources["x"].why == "whether its edges are filtered cannot be told"
    assert (read_all(store.sources["x"]) == some_items("<i4", (31, 3), 1)).all()
    store.close()


def test_plain_edges_are_what_the_test_means(tmp_path):
    """Else the law of `test_raw_equals_h5py` would hold for nothing."""
    path = tmp_path / "edges.h5"
    with h5py.File(path, "w", libver="latest") as file:
        items = some_items("<i4", (14, 50), 1)
        dataset = write_dataset(file, items, "<i4", (10, 50), CHAINS["gzip"], plain_edges=True)
        assert dataset.id.get_chunk_info(0).size < 2000
        assert tuple(dataset.id.get_chunk_info(1))[1::2] == (0, 2000)
    assert (read_all(open_store(path).sources["x"]) == items).all()


@pytest.mark.parametrize("chain", sorted(set(CHAINS) - {"szip"}))
@pytest.mark.parametrize("chunk", [(397, 61, 5), (250, 40, 3)], ids=["rows", "parts"])
def test_a_read_holds_no_more_than_its_layout_says(tmp_path, chain, chunk):
    path = tmp_path / "held.h5"
    with h5py.File(path, "w") as file:
        items = np.random.default_rng(0).integers(0, 256, (400, 61, 5), "u2")
        write_dataset(file, items, "u2", chunk, CHAINS[chain])
    source = open_store(path).sources["x"]
    layout = source.layout
    out = np.empty((layout.chunk_rows, *layout.row_shape), layout.dtype)
    source.read(0, 1, out)  # what is made once is not counted
    tracemalloc.start()
    try:
        source.read(0, 1, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= layout.read_overhead_bytes + SLACK_BYTES
