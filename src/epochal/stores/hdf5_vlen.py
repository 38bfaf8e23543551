"""Rows of varying length as HDF5 keeps them: references into heaps of small objects, read raw.

A row is stored as its length and the place of its items: the address of a *global heap collection*
and an object's number in it (HDF5 File Format Specification 3.0, section IV.B "Variable Length
Type"); `hdf5_heap` reads those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.file import File
from epochal.stores.hdf5_heap import HELD_BYTES, Heaps
from epochal.stores.ragged import RaggedSource
from epochal.stores.rows import byte_view
from epochal.stores.source import Source

__all__ = ["VlenColumn", "vlen_source"]

REFERENCE = np.dtype([("items", "<u4"), ("heap", "<u8"), ("object", "<u4")])
RUN_BYTES = 1 << 20
BLOCK_ROWS = 4096  # references that are looked up at a time
LIST_BYTES = 320  # Python's integers of one row
MAX_PIECE_BYTES = (1 << 32) - 1


class VlenColumn:
    """The items of all rows of one dataset, one after another, ``(n_items, *item_shape)``.

    A chunk is a run of rows of about a mebibyte. Reading some decodes the references of their rows
    again, once a call, and reads each of their collections once for every 4096 rows.
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
        self._file, self._base, self._item_bytes = file, base, dtype.itemsize
        n_items = int(offsets[-1])
        step = max(1, RUN_BYTES // max(self._item_bytes, 1))
        marks = np.searchsorted(offsets, np.arange(0, n_items, step), "right") - 1
        # Rows at which runs begin, and the end; each run has some item.
        self._rows = np.append(np.unique(marks), len(offsets) - 1).astype(np.int64)
        edges = offsets[self._rows]
        counts = np.diff(edges)
        held = references.layout
        block_rows = min(max(held.chunk_rows, BLOCK_ROWS), len(offsets))
        self.layout: Layout = Layout(
            shape=(n_items, *dtype.shape),
            dtype=dtype.base,
            chunk_rows=max(int(counts.max(initial=0)), 1),
            piece_bytes=np.minimum(counts * self._item_bytes, MAX_PIECE_BYTES)
            .astype(np.uint32)
            .reshape(-1, 1),
            read_overhead_bytes=held.read_overhead_bytes
            + block_rows * REFERENCE.itemsize
            + min(BLOCK_ROWS, len(offsets)) * LIST_BYTES
            + HELD_BYTES
            + file.copy_bytes,
            kind="heap",
            in_flight=file.in_flight,
            codec=held.codec,
            starts=edges if n_items else None,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the items of the rows of the runs ``[start, stop)``."""
        if out.nbytes == 0:
            return
        heaps = Heaps(self._file.checked(), self._base, self._file.size_bytes)
        first, last = int(self._rows[start]), int(self._rows[stop])
        target, base = byte_view(out).data, int(self._offsets[first])
        for row, block in _blocks(self._references, first, last):
            try:
                self._fill(heaps, row, block, target, base)
            except EpochalError:
                raise
            except (ValueError, OSError) as error:
                raise DamageError(
                    f"{self._file.name}: source {self._name!r}, rows {row} to "
                    f"{row + len(block) - 1}: {error}. The file is damaged there: restore it from "
                    "a copy, or leave these rows out"
                ) from error

    def _fill(
        self, heaps: Heaps, first: int, block: NDArray[Any], target: memoryview, base: int
    ) -> None:
        """Read the items of the rows from `first` on; ``target`` begins at item `base`."""
        offsets = self._offsets[first : first + len(block) + 1]
        if (block["items"] != np.diff(offsets)).any():
            raise ValueError("its rows have other lengths than when it was opened")
        some = np.flatnonzero(block["items"])
        some = some[np.argsort(block["heap"][some], kind="stable")]
        found = block[some]
        wrong = heaps.copy(
            found["heap"].tolist(),
            found["object"].tolist(),
            (found["items"].astype(np.int64) * self._item_bytes).tolist(),
            ((offsets[some] - base) * self._item_bytes).tolist(),
            target,
        )
        if wrong is not None:
            raise ValueError(f"the items of row {first + some[wrong]} are not in its heap")

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: items are reached through their rows."""
        raise NotImplementedError("items of rows of varying length are not read alone")


def _blocks(source: Source, first: int, last: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Lengths and places of the rows ``[first, last)``, at most `BLOCK_ROWS` at a time, each with
    its first row. Decodes each chunk of `source` once.
    """
    layout = source.layout
    if layout.rows_alone:
        for low in range(first, last, BLOCK_ROWS):
            rows = np.arange(low, min(low + BLOCK_ROWS, last))
            alone = np.empty((len(rows), *layout.row_shape), layout.dtype)
            source.read_rows(rows, alone)
            yield low, alone.reshape(-1).view(REFERENCE)
        return
    at = layout.chunk_of(first)
    while first < last:
        end = min(at + max(1, BLOCK_ROWS // layout.chunk_rows), layout.chunk_of(last - 1) + 1)
        start, stop = layout.bounds(at)[0], layout.bounds(end - 1)[1]
        block = np.empty((stop - start, *layout.row_shape), layout.dtype)
        source.read(at, end, block)
        references = block.reshape(-1).view(REFERENCE)
        for low in range(first, min(stop, last), BLOCK_ROWS):
            high = min(low + BLOCK_ROWS, stop, last)
            yield low, references[low - start : high - start]
        at, first = end, stop


def vlen_source(
    name: str, references: Source, dtype: np.dtype, file: File, base: int
) -> RaggedSource:
    """The dataset as rows of varying length. Reads all lengths: 8 bytes a row are held.

    Raises
    ------
    DamageError
        Lengths that the file has no room for, or that cannot be read.
    """
    offsets = np.zeros(references.layout.n_rows + 1, np.int64)
    for first, block in _blocks(references, 0, references.layout.n_rows):
        offsets[first + 1 : first + 1 + len(block)] = block["items"]
    np.cumsum(offsets, out=offsets)
    if int(offsets[-1]) * max(dtype.itemsize, 1) > file.size_bytes:
        raise DamageError(
            f"{file.name}: source {name!r} says that its rows have {offsets[-1]} items, more than "
            "the file has room for: it is damaged"
        )
    column = VlenColumn(name, references, offsets, dtype, file, base)
    return RaggedSource(name, {"values": column}, offsets)
