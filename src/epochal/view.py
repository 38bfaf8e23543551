"""Rows by number: ``ds["X"][rows]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import RowError
from epochal.execute.probe import default_threads
from epochal.execute.rows import read_ragged, read_rows
from epochal.layout import Layout, RaggedLayout
from epochal.ragged import Block, Ragged, SparseRows
from epochal.stores.memory import ArraySource
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source

__all__ = ["RaggedView", "Selection", "SourceView"]

Selection = NDArray[np.int64]


class SourceView:
    """One source of a dataset: ``view[rows]`` reads rows.

    Rows are an int, a slice, a boolean mask, or integers in any order with repeats; negative ones
    count from the end. What follows a comma indexes the rows that were read: ``ds["X"][10:20, 0]``.
    `axes` are the names that the file gives to its axes (HDF5 dimension labels and scales, Zarr
    dimension names); empty where it gives none.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        selection: Selection | None,
        axes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.axes = axes
        self._source = source
        self._selection = selection

    @property
    def layout(self) -> Layout:
        """Where the rows lie in the file."""
        return self._source.layout

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_rows, *row_shape)``, of the view's rows."""
        return (len(self), *self.layout.row_shape)

    @property
    def dtype(self) -> np.dtype:
        """As reads return it, byte order included."""
        return self.layout.dtype

    def __len__(self) -> int:
        return self.layout.n_rows if self._selection is None else len(self._selection)

    def __repr__(self) -> str:
        return f"<{self.name!r}: {self.shape} {self.dtype}>"

    def __getitem__(self, key: Any) -> Any:
        """Decodes each touched chunk once; holds the result and a run of chunks."""
        whole = key if isinstance(key, tuple) and key else (key,)
        first, rest = whole[0], whole[1:]
        if first is Ellipsis or (isinstance(first, tuple) and not first):
            rows = self._read(slice(0, len(self)))
            return rows[whole] if rest else rows
        if isinstance(first, int | np.integer) and not isinstance(first, bool | np.bool_):
            row = self._read(_checked(np.array([first]), len(self), self.name))[0]
            return row[rest] if rest else row
        rows = self._read(_rows(first, len(self), self.name))
        return rows[(slice(None), *rest)] if rest else rows

    def _read(self, rows: slice | Selection) -> NDArray[Any]:
        if self._selection is not None:
            rows = self._selection[rows]
        return read_rows(self._source, rows, default_threads())


class RaggedView:
    """One source whose rows differ in length: ``view[rows]`` gives `Ragged` or `SparseRows`.

    Rows are what they are for `SourceView`; an int gives the items of one row (of a sparse one,
    `SparseRows` of one row).
    """

    def __init__(self, name: str, source: RaggedSource, selection: Selection | None) -> None:
        self.name = name
        self._source = source
        self._selection = selection

    @property
    def layout(self) -> RaggedLayout:
        """Where the rows lie in the file."""
        return self._source.layout

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_rows,)``, or ``(n_rows, n_columns)`` of sparse rows."""
        return (len(self), *self.layout.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.layout.dtype

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row, ``(n_rows,)``."""
        lengths = self.layout.lengths
        return lengths if self._selection is None else lengths[self._selection]

    def __len__(self) -> int:
        return self.layout.n_rows if self._selection is None else len(self._selection)

    def __repr__(self) -> str:
        return f"<{self.name!r}: {self.shape} {self.layout.kind} {self.dtype}>"

    def __getitem__(self, key: Any) -> Any:
        """Decodes each touched chunk once; holds the result, the rows once, and a run of chunks."""
        if isinstance(key, int | np.integer) and not isinstance(key, bool | np.bool_):
            rows = self._read(_checked(np.array([key]), len(self), self.name)).rows()
            return rows.values if isinstance(rows, Ragged) else rows
        chosen = _rows(slice(None) if key is Ellipsis else key, len(self), self.name)
        if isinstance(chosen, slice):
            chosen = np.arange(chosen.start, chosen.stop, dtype=np.int64)
        found: Ragged | SparseRows = self._read(chosen).rows()
        return found

    def loaded(self) -> RaggedSource:
        """The rows in memory, as a source."""
        block = self._read(np.arange(len(self), dtype=np.int64))
        columns: dict[str, Source] = {
            name: ArraySource(column)
            for name, column in zip(self._source.columns, block.columns, strict=True)
        }
        return RaggedSource(self.name, columns, block.offsets, block.n_columns)

    def _read(self, rows: Selection) -> Block:
        if self._selection is not None:
            rows = self._selection[rows]
        return read_ragged(self._source, rows, default_threads())


def _rows(key: Any, n: int, name: str) -> slice | Selection:
    if isinstance(key, slice):
        start, stop, step = key.indices(n)
        if step == 1:
            return slice(start, max(start, stop))
        return np.arange(start, stop, step, dtype=np.int64)
    rows = np.asarray(key)
    if rows.size == 0 and rows.ndim == 1:
        return np.empty(0, np.int64)
    if rows.dtype == bool and rows.shape == (n,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise RowError(
            f"rows of {name!r} are an int, a slice, a mask of {n} "
            f"or a list of ints; found {type(key).__name__}, {rows.shape} {rows.dtype}"
        )
    return _checked(rows, n, name)


def _checked(rows: NDArray[Any], n: int, name: str) -> Selection:
    outside = (rows >= n) if rows.dtype.kind == "u" else (rows < -n) | (rows >= n)
    if outside.any():
        raise RowError(f"row {rows[outside][0]} of {name!r}: it has {n} rows")
    rows = rows.astype(np.int64)
    return np.where(rows < 0, rows + n, rows)
