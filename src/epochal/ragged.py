"""Rows of varying length in memory, and the forms in which batches give them.

Row ``r`` of a block is the items ``[offsets[r], offsets[r + 1])`` of each of its columns: one
column of values, or ``data`` and ``indices`` of sparse rows (the compressed sparse row format).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.errors import EpochalError, MismatchError

__all__ = ["FORMS", "Block", "Padded", "Ragged", "SparseRows", "check_form", "form_of"]

FORMS = ("offsets", "padded", "csr", "dense")


class Ragged(NamedTuple):
    """Rows of varying length.

    Attributes
    ----------
    values
        Items of all rows, one after another, ``(n_items, *item_shape)``.
    offsets
        Where each row begins, and the end, int64, ``(n_rows + 1,)``.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row, ``(n_rows,)``."""
        return np.diff(self.offsets)

    def rows(self) -> list[NDArray[Any]]:
        """The rows as views.

        >>> [row.tolist() for row in Ragged(np.arange(3), np.array([0, 2, 2, 3])).rows()]
        [[0, 1], [], [2]]
        """
        return np.split(self.values, self.offsets[1:-1])

    def padded(self, fill: Any = 0) -> Padded:
        """Rows of one width, filled up."""
        lengths = self.lengths
        width = int(lengths.max(initial=0))
        out = np.full((len(lengths), width, *self.values.shape[1:]), fill, self.values.dtype)
        out[np.arange(width) < lengths[:, None]] = self.values
        return Padded(out, lengths)


class Padded(NamedTuple):
    """Rows filled up to the longest of them.

    Attributes
    ----------
    values
        ``(n_rows, longest, *item_shape)``, 0 after the end of each row.
    lengths
        Items of each row, int64, ``(n_rows,)``.
    """

    values: NDArray[Any]
    lengths: NDArray[np.int64]


class SparseRows(NamedTuple):
    """Rows of a sparse matrix: ``data[k]`` stands in column ``indices[k]``.

    Attributes
    ----------
    data, indices
        Of all rows, one after another, ``(n_items,)``.
    offsets
        Where each row begins, and the end, int64, ``(n_rows + 1,)``.
    n_columns
        Width of the matrix.
    """

    data: NDArray[Any]
    indices: NDArray[Any]
    offsets: NDArray[np.int64]
    n_columns: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row, ``(n_rows,)``."""
        return np.diff(self.offsets)

    def csr(self) -> Any:
        """The same as ``scipy.sparse.csr_array``, ``(n_rows, n_columns)``; shares memory."""
        sparse = _scipy_sparse()
        shape = (len(self.offsets) - 1, self.n_columns)
        # SciPy wants both index arrays of one type; the larger would be a copy of the larger array.
        offsets = self.offsets
        if self.indices.dtype.itemsize == 4 and offsets[-1] < 1 << 31:
            offsets = offsets.astype(self.indices.dtype)
        return sparse.csr_array((self.data, self.indices, offsets), shape=shape, copy=False)

    def dense(self) -> NDArray[Any]:
        """The same with its zeros, ``(n_rows, n_columns)``.

        >>> rows = SparseRows(np.array([7, 8]), np.array([2, 0]), np.array([0, 1, 2]), 3)
        >>> rows.dense().tolist()
        [[0, 0, 7], [8, 0, 0]]
        """
        out = np.zeros((len(self.offsets) - 1, self.n_columns), self.data.dtype)
        rows = np.repeat(np.arange(len(out)), self.lengths)
        if len(self.indices) and not (
            int(self.indices.min()) >= 0 and int(self.indices.max()) < self.n_columns
        ):
            raise MismatchError(
                f"column numbers from {self.indices.min()} to {self.indices.max()} in a matrix of "
                f"{self.n_columns} columns: the file is damaged"
            )
        np.add.at(out, (rows, self.indices), self.data)  # doubled entries add up, as in SciPy
        return out


class Block:
    """What a feed fills: `columns` of items, ``(n_items, *item_shape)`` each, and `offsets` from 0,
    ``(n_rows + 1,)``.
    """

    __slots__ = ("columns", "n_columns", "offsets")

    def __init__(
        self,
        columns: tuple[NDArray[Any], ...],
        offsets: NDArray[np.int64],
        n_columns: int | None = None,
    ) -> None:
        self.columns = columns
        self.offsets = offsets
        self.n_columns = n_columns

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.offsets.nbytes + sum(column.nbytes for column in self.columns)

    def __getitem__(self, keep: NDArray[np.bool_]) -> Block:
        """The rows for which `keep`, ``(n_rows,)``, is true: copies."""
        lengths = np.diff(self.offsets)
        items = np.repeat(keep, lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64)
        return Block(tuple(column[items] for column in self.columns), offsets, self.n_columns)

    def rows(self) -> Ragged | SparseRows:
        """As a user gets it; shares memory."""
        if self.n_columns is None:
            return Ragged(self.columns[0], self.offsets)
        data, indices = self.columns
        return SparseRows(data, indices, self.offsets, self.n_columns)


def check_form(form: str, *, sparse: bool, name: str) -> None:
    """Refuse a form that the rows of a source do not have, before any of them is read.

    Raises
    ------
    MismatchError
        With what would do.
    """
    if form not in FORMS:
        raise MismatchError(f"ragged={form!r} is not one of: {', '.join(FORMS)}")
    if form in ("csr", "dense") and not sparse:
        raise MismatchError(
            f"ragged={form!r}: the rows of {name!r} are sequences of values without column "
            'numbers; ask for ragged="offsets" or "padded"'
        )
    if form == "padded" and sparse:
        raise MismatchError(
            f"ragged='padded': {name!r} is a sparse matrix; "
            'ask for ragged="csr", "dense" or "offsets"'
        )
    if form == "csr":
        _scipy_sparse()


def form_of(rows: Ragged | SparseRows, form: str) -> Any:
    """Rows in the form asked for, which `check_form` let pass."""
    if form == "offsets":
        return rows
    return getattr(rows, form)()


def _scipy_sparse() -> Any:
    try:
        return import_module("scipy.sparse")
    except ImportError:
        raise EpochalError(
            "ragged='csr' gives scipy.sparse arrays: pip install 'epochal[sparse]', "
            "or ask for ragged='offsets'"
        ) from None
