"""Columns of tables: one field of a source whose items are records, as a source of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout
from epochal.stores.source import Source

__all__ = ["ColumnSource", "column_of", "columns_in"]

BLOCK_BYTES = 1 << 20


class ColumnSource:
    """The field ``"a"``, or ``"a/b"`` of a nested one, of a table's records.

    Reads decode whole records, some chunks at a time, and keep the field: two columns of one table
    decode it twice. Where several are wanted, take the table itself.
    """

    def __init__(self, table: Source, field: str) -> None:
        self._table = table
        self._path = field.split("/")
        layout = table.layout
        dtype = layout.dtype
        for name in self._path:
            assert dtype.fields is not None
            dtype = dtype.fields[name][0]
        stored = layout.piece_bytes
        if stored is None:  # all bytes of the records are read
            stored = layout.chunk_stored_bytes.astype(np.uint32).reshape(-1, 1)
        block = max(layout.chunk_bytes, min(BLOCK_BYTES, layout.decoded_bytes))
        self.layout: Layout = replace(
            layout,
            shape=(*layout.shape, *dtype.shape),
            dtype=dtype.base,
            piece_bytes=stored,
            rows_alone=False,
            read_overhead_bytes=layout.read_overhead_bytes + block,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Decode the records of the chunks ``[start, stop)`` and copy the field."""
        if out.nbytes == 0:
            return
        layout = self._table.layout
        base = layout.bounds(start)[0]
        step = max(1, BLOCK_BYTES // max(layout.chunk_bytes, 1))
        for chunk in range(start, stop, step):
            end = min(chunk + step, stop)
            first, last = layout.bounds(chunk)[0], layout.bounds(end - 1)[1]
            records: NDArray[Any] = np.empty((last - first, *layout.row_shape), layout.dtype)
            self._table.read(chunk, end, records)
            for name in self._path:
                records = records[name]
            out[first - base : last - base] = records

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered."""
        raise NotImplementedError("rows of a column are read with their chunks")


def column_of(table: Source, field: str) -> ColumnSource | None:
    """The column of that name; None if the table has none."""
    dtype = table.layout.dtype
    for name in field.split("/"):
        if dtype.fields is None or name not in dtype.fields:
            return None
        dtype = dtype.fields[name][0]
    return ColumnSource(table, field)


def columns_in(dtype: np.dtype) -> list[str]:
    """Names of the columns of records, nested ones by their path.

    >>> columns_in(np.dtype([("a", "i4"), ("b", [("c", "f4", (2,))])]))
    ['a', 'b/c']
    """
    if dtype.fields is None:
        return []
    names: list[str] = []
    for name, (field, *_) in dtype.fields.items():
        names += [f"{name}/{inner}" for inner in columns_in(field)] or [name]
    return names
