"""Rows by number: ``ds["X"][rows]``."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.casting import keeps
from epochal.errors import MismatchError, ReadOnlyError, RowError
from epochal.execute.probe import default_threads
from epochal.execute.rows import read_ragged, read_rows
from epochal.layout import Layout, RaggedLayout
from epochal.ragged import Block, Ragged, SparseRows
from epochal.stores.memory import ArraySource
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import Assignable

__all__ = ["RaggedView", "Selection", "SourceView"]

Selection = NDArray[np.int64]
ASSIGN_BYTES = 16 << 20  # of rows that are assigned at once


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
    def source(self) -> Source:
        """What is read: all rows of the file."""
        return self._source

    @property
    def selection(self) -> Selection | None:
        """Which of its rows the view has, ``(n_rows,)``; None: all."""
        return self._selection

    @property
    def layout(self) -> Layout:
        """Where the rows lie in the file."""
        return self._source.layout

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_rows, *row_shape)``, of the view's rows."""
        return (len(self), *self.layout.row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes, that of rows among them."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return prod(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """As reads return it, byte order included."""
        return self.layout.dtype

    def __len__(self) -> int:
        return self.layout.n_rows if self._selection is None else len(self._selection)

    def __repr__(self) -> str:
        return f"<{self.name!r}: {self.shape} {self.dtype}>"

    def part(self, start: int, stop: int) -> SourceView:
        """The rows ``[start, stop)`` of the view, as a view: nothing is read."""
        first, last, _ = slice(start, stop).indices(len(self))
        rows = np.arange(first, max(first, last), dtype=np.int64)
        chosen = rows if self._selection is None else self._selection[rows]
        return SourceView(self.name, self._source, chosen, self.axes)

    def read(self, start: int, stop: int, *, threads: int | None = None) -> NDArray[Any]:
        """The rows ``[start, stop)`` of the view, on so many threads; None: one a core."""
        return self._read(slice(start, stop), threads)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, in memory: what ``np.asarray(view)`` gives."""
        if copy is False:
            raise ValueError(f"rows of {self.name!r} lie in a file: they cannot but be copied")
        rows: NDArray[Any] = self[:]
        return rows if dtype is None else rows.astype(dtype, copy=False)

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

    def _read(self, rows: slice | Selection, threads: int | None = None) -> NDArray[Any]:
        if self._selection is not None:
            rows = self._selection[rows]
        return read_rows(self._source, rows, threads or default_threads())

    def __setitem__(self, key: Any, values: Any) -> None:
        """Assign to rows, as NumPy would, of a dataset opened with ``mode="c"`` or ``"r+"``.

        Decodes and stores each touched chunk; holds a run of rows, and two chunks. Of a row that
        comes twice the last value stays.

        Raises
        ------
        ReadOnlyError
            The dataset was opened for reading only.
        MismatchError
            Values of another shape, or that the dtype cannot hold.
        """
        source = self._source
        if not isinstance(source, Assignable):
            raise _read_only(self.name)
        whole = key if isinstance(key, tuple) and key else (key,)
        first, rest = whole[0], whole[1:]
        single = isinstance(first, int | np.integer) and not isinstance(first, bool | np.bool_)
        if first is Ellipsis or (isinstance(first, tuple) and not first):
            first = slice(None)
        rows = _rows([first] if single else first, len(self), self.name)
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop, dtype=np.int64)
        given = self._values(values, len(rows), rest, single=single)
        file_rows = rows if self._selection is None else self._selection[rows]
        step = max(1, ASSIGN_BYTES // max(self.layout.row_bytes, 1))
        for at in range(0, len(rows), step):
            some = file_rows[at : at + step]
            block = np.empty((len(some), *self.layout.row_shape), self.dtype)
            if rest:
                block[...] = read_rows(source, some, default_threads())
            block[(slice(None), *rest)] = given[at : at + step]
            source.assign(some, block)

    def _values(self, values: Any, n: int, rest: tuple[Any, ...], *, single: bool) -> NDArray[Any]:
        """The values of each row, ``(n, ...)``, not copied."""
        array = np.asarray(values)
        fits = keeps(array, self.dtype) or (
            array.dtype.kind not in "iu" and np.can_cast(array.dtype, self.dtype, "same_kind")
        )
        if not fits:
            raise MismatchError(
                f"{self.name!r} is {self.dtype}, which cannot hold {array.dtype} without loss; "
                f"convert the values yourself with .astype({str(self.dtype)!r}) if that is meant"
            )
        one = np.broadcast_to(np.empty((), "?"), self.layout.row_shape)
        try:
            shape = one[rest].shape if rest else one.shape
            wide = np.broadcast_to(array, shape if single else (n, *shape))
        except (ValueError, IndexError) as error:
            raise MismatchError(
                f"values of shape {array.shape} for {n} rows of {self.name!r}, of shape "
                f"{self.layout.row_shape}: {error}"
            ) from None
        return wide[None] if single else wide


def _read_only(name: str) -> ReadOnlyError:
    return ReadOnlyError(
        f"{name!r} was opened for reading only, so its rows cannot be assigned to: "
        "epochal.open(path, mode='c') changes what this process sees and never the file, mode='r+' "
        "the file itself"
    )


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

    def __setitem__(self, key: Any, values: Any) -> None:
        """Refused."""
        raise ReadOnlyError(
            f"rows of {self.name!r} vary in length, and cannot be assigned to: write them anew"
        )

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
