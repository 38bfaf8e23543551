"""Rows of varying length as HDF5 keeps them: references into heaps of small objects, read raw.

A row is stored as its length and the place of its items: the address of a *global heap collection*
and an object's number in it (HDF5 File Format Specification 3.0, sections III.E and IV.B "Variable
Length Type"). A collection is usually 4 KiB with the items of several rows.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.layout import Layout
from epochal.stores.codecs import Bytes
from epochal.stores.file import File, Read
from epochal.stores.ragged import RaggedSource
from epochal.stores.rows import byte_view
from epochal.stores.source import Source

__all__ = ["REFERENCE", "VlenColumn", "vlen_source"]

REFERENCE = np.dtype([("items", "<u4"), ("heap", "<u8"), ("object", "<u4")])
COLLECTION = struct.Struct("<4sB3xQ")
OBJECT = struct.Struct("<HH4xQ")
USUAL_BYTES = 4096  # of a collection: what is read of one before its size is known
WHOLE_BYTES = 1 << 20  # a larger one is read object by object
RUN_BYTES = 512 << 10
BLOCK_ROWS = 1 << 18


class _Heap:
    """Collections of one file, for one call: none is read twice in a row."""

    def __init__(self, read: Read, base: int, file_bytes: int) -> None:
        self._read, self._base, self._file_bytes = read, base, file_bytes

    def objects(self, address: int) -> tuple[Bytes, dict[int, tuple[int, int]]]:
        """Bytes of a collection, or as many as lie before its large objects, and where in the file
        each object lies and how long it is.
        """
        at = address + self._base
        head = self._bytes(at, min(USUAL_BYTES, self._file_bytes - at))
        if len(head) < COLLECTION.size:
            raise ValueError(f"its heap at {at} lies outside the file")
        magic, version, size = COLLECTION.unpack_from(head.data)
        if magic != b"GCOL" or version != 1 or not 0 < size <= self._file_bytes - at:
            raise ValueError(f"there is no heap at {at}")
        if len(head) < size <= WHOLE_BYTES:
            head = self._bytes(at, size)
        return head, dict(self._walk(head, at, size))

    def _walk(self, head: Bytes, at: int, size: int) -> list[tuple[int, tuple[int, int]]]:
        found = []
        place = COLLECTION.size
        while place + OBJECT.size <= size:
            raw = head[place : place + OBJECT.size]
            if len(raw) < OBJECT.size:
                raw = self._bytes(at + place, OBJECT.size)
            number, _, n_bytes = OBJECT.unpack(raw.tobytes())
            if number == 0:  # the free space, at the end
                break
            place += OBJECT.size
            if n_bytes > size - place:
                raise ValueError(f"an object of {n_bytes} bytes runs past its heap at {at}")
            found.append((number, (at + place, n_bytes)))
            place += -(-n_bytes // 8) * 8
        return found

    def _bytes(self, at: int, n_bytes: int) -> Bytes:
        if at < 0 or n_bytes < 0 or at + n_bytes > self._file_bytes:
            raise ValueError(f"its heap at {at} lies outside the file")
        out = np.empty(n_bytes, np.uint8)
        self.into(at, out)
        return out

    def into(self, at: int, out: Bytes) -> None:
        """Fill bytes from the file."""
        if len(out) and self._read([out.data], at) < len(out):
            raise ValueError("the file ends too early")


class VlenColumn:
    """The items of all rows of one dataset, one after another, ``(n_items, *item_shape)``.

    A chunk is a run of rows of about half a mebibyte. Reading one reads the references of its rows
    again, and each of its collections once.
    """

    def __init__(
        self,
        name: str,
        references: Source,
        offsets: NDArray[np.int64],
        dtype: np.dtype,
        file: File,
        base: int,
    ) -> None:
        self._name, self._references, self._offsets = name, references, offsets
        self._file, self._base, self._dtype = file, base, dtype
        self._item_bytes = dtype.itemsize
        run = max(1, RUN_BYTES // max(self._item_bytes, 1))
        n_items = int(offsets[-1])
        marks = np.searchsorted(offsets, np.arange(0, n_items, run), "right") - 1
        # Rows at which runs begin; each run has some item.
        starts, first = np.unique(offsets[marks], return_index=True)
        self._rows = np.r_[marks[first], len(offsets) - 1].astype(np.int64)
        if n_items and starts[0] != 0:
            starts, self._rows = np.r_[0, starts], np.r_[0, self._rows]
        edges = np.r_[starts, n_items].astype(np.int64) if n_items else None
        counts = np.diff(edges) if edges is not None else np.zeros(0, np.int64)
        overhead = references.layout.read_overhead_bytes + references.layout.chunk_bytes
        self.layout = Layout(
            shape=(n_items, *dtype.shape),
            dtype=dtype.base,
            chunk_rows=max(int(counts.max(initial=0)), 1),
            piece_bytes=(counts * self._item_bytes).astype(np.uint32).reshape(-1, 1),
            read_overhead_bytes=overhead + WHOLE_BYTES + RUN_BYTES,
            kind="heap",
            codec=references.layout.codec,
            starts=edges,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the items of the rows of the runs ``[start, stop)``."""
        if out.nbytes == 0:
            return
        heap = _Heap(self._file.checked(), self._base, self._file.size_bytes)
        target = byte_view(out)
        base = int(self._offsets[self._rows[start]])
        for run in range(start, stop):
            first, last = int(self._rows[run]), int(self._rows[run + 1])
            try:
                self._fill(heap, first, last, target, base)
            except (ValueError, OSError) as error:
                if isinstance(error, DamageError):
                    raise
                raise DamageError(
                    f"{self._file.name}: source {self._name!r}, rows {first} to {last - 1}: "
                    f"{error}. The file is damaged there: restore it from a copy, or leave these "
                    "rows out"
                ) from error

    def _fill(self, heap: _Heap, first: int, last: int, target: Bytes, base: int) -> None:
        found = references_of(self._references, first, last)
        offsets = self._offsets[first : last + 1]
        if (found["items"] != np.diff(offsets)).any():
            raise ValueError("its rows have other lengths than when it was opened")
        begins = ((offsets[:-1] - base) * self._item_bytes).tolist()
        sizes = (found["items"].astype(np.int64) * self._item_bytes).tolist()
        some = np.flatnonzero(found["items"])
        some = some[np.argsort(found["heap"][some], kind="stable")]
        address, data = -1, np.empty(0, np.uint8)
        places: dict[int, tuple[int, int]] = {}
        heaps, numbers = found["heap"].tolist(), found["object"].tolist()
        for row in some.tolist():
            if heaps[row] != address:
                address = heaps[row]
                data, places = heap.objects(address)
            where = places.get(numbers[row])
            if where is None or where[1] != sizes[row]:
                raise ValueError(f"the items of row {first + row} are not in its heap")
            part = target[begins[row] : begins[row] + sizes[row]]
            inside = where[0] - address - self._base
            if inside + sizes[row] <= len(data):
                part[:] = data[inside : inside + sizes[row]]
            else:
                heap.into(where[0], part)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: items are reached through their rows."""
        raise NotImplementedError("items of rows of varying length are not read alone")


def references_of(source: Source, first: int, last: int) -> NDArray[Any]:
    """Lengths and places of the rows ``[first, last)``."""
    layout = source.layout
    if first >= last:
        return np.empty(0, REFERENCE)
    start, stop = layout.chunk_of(first), layout.chunk_of(last - 1) + 1
    low, high = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
    block = np.empty((high - low, *layout.row_shape), layout.dtype)
    source.read(start, stop, block)
    return block.reshape(-1).view(REFERENCE)[first - low : last - low]


def vlen_source(
    name: str, references: Source, dtype: np.dtype, file: File, base: int
) -> RaggedSource:
    """The dataset as rows of varying length. Reads all lengths: 8 bytes a row are held."""
    n_rows = references.layout.n_rows
    offsets = np.zeros(n_rows + 1, np.int64)
    for first in range(0, n_rows, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, n_rows)
        offsets[first + 1 : last + 1] = references_of(references, first, last)["items"]
    np.cumsum(offsets, out=offsets)
    if int(offsets[-1]) * max(prod(dtype.shape) * dtype.base.itemsize, 1) > file.size_bytes:
        raise DamageError(
            f"{file.name}: source {name!r} says that its rows have {offsets[-1]} items, more than "
            "the file has room for: it is damaged"
        )
    column = VlenColumn(name, references, offsets, dtype, file, base)
    return RaggedSource(name, {"values": column}, offsets)
