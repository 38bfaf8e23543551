"""The index of a chunked HDF5 dataset, taken once through libhdf5 into NumPy arrays.

``chunk_iter`` is the only call that costs the same for every chunk: its siblings search from the
start for each.
"""

from __future__ import annotations

import ctypes
import os
import struct
from array import array
from collections.abc import Callable
from math import prod
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.stores.hdf5_facts import Shape

__all__ = ["MAX_CHUNKS", "ChunkIndex", "Refused", "chunk_index", "edges_are_plain"]

MAX_CHUNKS = 1 << 28
DONT_FILTER_PARTIAL_CHUNKS = 2

ChunkIndex = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32] | None]


class Refused(Exception):
    """A dataset that is not read; the text says why."""


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
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    records = _records(dataset, len(shape))
    cells = _cells(records["at"], grid, chunk)
    _check_ranges(records, file_bytes)
    n_chunks = prod(grid)
    in_order = len(cells) == n_chunks and bool((cells == np.arange(n_chunks)).all())
    if in_order:
        offsets = records["offset"].copy()
        sizes, masks = records["size"].astype(np.uint32), records["mask"].copy()
    else:
        offsets, sizes, masks = (
            np.zeros(n_chunks, np.int64),
            np.zeros(n_chunks, np.uint32),
            np.zeros(n_chunks, np.uint32),
        )
        offsets[cells], sizes[cells], masks[cells] = (
            records["offset"],
            records["size"],
            records["mask"],
        )
    return offsets, sizes, masks if masks.any() else None


def _records(dataset: Any, ndim: int) -> NDArray[np.void]:
    kept = array("B")
    try:
        dataset.chunk_iter(_collector(ndim, kept.frombytes))
    except struct.error as error:
        raise Refused("its index holds a chunk at no possible place in the file") from error
    dtype = np.dtype([("at", "=i8", (ndim,)), ("offset", "=i8"), ("size", "=i8"), ("mask", "=u4")])
    return np.frombuffer(kept, dtype=dtype)


def _collector(ndim: int, keep: Callable[[bytes], None]) -> Callable[[Any], None]:
    """A callback that packs what it is told of a chunk. It runs a million times."""
    pack = struct.Struct(f"={ndim}qqqI").pack

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
    """Number of each chunk in raster order of the grid."""
    cells = np.zeros(len(at), dtype=np.int64)
    for axis, (n, size) in enumerate(zip(grid, chunk, strict=True)):
        step, rest = np.divmod(at[:, axis], size)
        # libhdf5 1.12 once gave positions in chunks instead of items (HDFGroup/hdf5#1419): then
        # this fails too.
        if rest.any() or (step >= n).any() or (step < 0).any():
            raise Refused("its index holds a chunk that is not on its grid")
        cells *= n
        cells += step
    return cells


def _check_ranges(records: NDArray[np.void], file_bytes: int) -> None:
    offset, size = records["offset"], records["size"]
    outside = (offset < 0) | (size < 0) | (offset > file_bytes) | (size > file_bytes - offset)
    if outside.any():
        bad = records[int(np.argmax(outside))]
        raise Refused(
            f"its index puts a chunk of {bad['size']} bytes at offset {bad['offset']} "
            f"of a file of {file_bytes} bytes"
        )


def addresses_hold(dataset: Any, path: str, shape: Shape, chunk: Shape, index: ChunkIndex) -> bool:
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
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(os.pread(fd, int(sizes[cell]), int(offsets[cell])) == due)
    finally:
        os.close(fd)


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
