"""The index of a chunked HDF5 dataset, taken once through libhdf5 into NumPy arrays.

``chunk_iter`` is the only call that costs the same for every chunk: its siblings search from the
start for each.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Callable
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.stores.file import File
from epochal.stores.hdf5_facts import Shape

__all__ = ["MAX_CHUNKS", "ChunkIndex", "Refused", "chunk_index", "edges_are_plain"]

MAX_CHUNKS = 1 << 28
MAX_STORED_BYTES = (1 << 32) - 1
DONT_FILTER_PARTIAL_CHUNKS = 2

ChunkIndex = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32] | None]


class Refused(Exception):
    """A dataset that is not read; the text says why."""


class RefusedUnsafe(Refused):
    """A dataset that would read other files, run code, or allocate without bound."""


class RefusedDamaged(Refused):
    """A dataset that cannot be what somebody wrote."""


def chunk_index(dataset: Any, shape: Shape, chunk: Shape, file_bytes: int) -> ChunkIndex:
    """Offsets, sizes (0: not stored) and filter masks of all chunks in raster order of their grid.

    Parameters
    ----------
    dataset
        The `h5py.h5d.DatasetID`.
    shape, chunk
        Of the dataset and of a chunk.
    file_bytes
        The file's size: no chunk may lie past it.
    """
    ndim = len(shape)
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    columns = _table(dataset, ndim).T
    cells = _cells(columns[:ndim], grid, chunk)
    found = columns[ndim:]
    _check_ranges(found[0], found[1], file_bytes)
    n_chunks = prod(grid)
    if not (len(cells) == n_chunks and np.array_equal(cells, np.arange(n_chunks))):
        in_order = np.zeros((3, n_chunks), dtype=np.int64)
        in_order[:, cells] = found
        found = in_order
    offsets, sizes, masks = found
    return (
        offsets.copy(),
        sizes.astype(np.uint32),
        masks.astype(np.uint32) if masks.any() else None,
    )


def _table(dataset: Any, ndim: int) -> NDArray[np.int64]:
    """A row a chunk: its place in the dataset, offset, size, mask: ``(n_stored, ndim + 3)``."""
    kept = array("q")
    try:
        dataset.chunk_iter(_collector(ndim, kept.frombytes))
    except struct.error as error:
        raise RefusedDamaged("its index holds a chunk at no possible place in the file") from error
    return np.frombuffer(kept, dtype=np.int64).reshape(-1, ndim + 3)


def _collector(ndim: int, keep: Callable[[bytes], None]) -> Callable[[Any], None]:
    """A callback that packs what it is told of a chunk. It runs a million times."""
    pack = struct.Struct(f"={ndim}qqqq").pack

    def collect_1(info: Any) -> None:
        (a,), mask, offset, size = info
        keep(pack(a, offset, size, mask))

    def collect_2(info: Any) -> None:
        (a, b), mask, offset, size = info
        keep(pack(a, b, offset, size, mask))

    def collect_n(info: Any) -> None:
        at, mask, offset, size = info
        keep(pack(*at, offset, size, mask))

    return {1: collect_1, 2: collect_2}.get(ndim, collect_n)


def _cells(at: NDArray[np.int64], grid: Shape, chunk: Shape) -> NDArray[np.int64]:
    """Number of each chunk in raster order of the grid, from its place ``(ndim, n_stored)``."""
    cells = np.zeros(at.shape[1], dtype=np.int64)
    for place, n, size in zip(at, grid, chunk, strict=True):
        step = place // size
        # libhdf5 1.12 once gave places in chunks instead of items (HDFGroup/hdf5#1419): then this
        # fails too.
        if step.max(initial=0) >= n or not np.array_equal(step * size, place):
            raise RefusedDamaged("its index holds a chunk that is not on its grid")
        cells *= n
        cells += step
    return cells


def _check_ranges(offset: NDArray[np.int64], size: NDArray[np.int64], file_bytes: int) -> None:
    largest = min(file_bytes, MAX_STORED_BYTES)
    outside = (size <= 0) | (size > largest) | (offset > file_bytes - size)
    if outside.any():
        bad = int(np.argmax(outside))
        raise RefusedDamaged(
            f"its index puts a chunk of {size[bad]} bytes at offset {offset[bad]} "
            f"of a file of {file_bytes} bytes"
        )


def addresses_hold(dataset: Any, file: File, shape: Shape, chunk: Shape, index: ChunkIndex) -> bool:
    """Whether one chunk read at its address is what libhdf5 reads.

    Before HDF5 1.14.4 the addresses lack the user block (HDFGroup/hdf5#3003).
    """
    offsets, sizes, _ = index
    stored = np.flatnonzero(sizes)
    if not len(stored):
        return True
    cell = int(stored[0])
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    at = tuple(int(i) * c for i, c in zip(np.unravel_index(cell, grid), chunk, strict=True))
    due = dataset.read_direct_chunk(at)[1]
    found = bytearray(int(sizes[cell]))
    got = file.checked()([memoryview(found)], int(offsets[cell]))
    return bool(found[:got] == due)


def edges_are_plain(plist: Any) -> bool | None:
    """Whether chunks over the edge are stored without filters, whatever their masks; None: unknown.

    h5py does not wrap ``H5Pget_chunk_opts``; the libhdf5 that it loaded has it.
    """
    options = ctypes.c_uint()
    try:
        library = ctypes.CDLL(
            h5py.h5p.__file__
        )  # a search in it goes on in the libhdf5 that it is linked to
        get = library.H5Pget_chunk_opts
    except (OSError, AttributeError):
        return None
    get.argtypes, get.restype = [ctypes.c_int64, ctypes.POINTER(ctypes.c_uint)], ctypes.c_int
    with h5py._objects.phil:
        status = get(plist.id, ctypes.byref(options))
    return None if status < 0 else bool(options.value & DONT_FILTER_PARTIAL_CHUNKS)
