"""Arrays whose first axis varies fastest (Fortran order): a row lies all over the file."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.file import File, Read
from epochal.stores.forms import form_of
from epochal.stores.manifest import Form
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.npy_header import Header

__all__ = ["FortranSource"]

SEGMENT_BYTES = 4096  # of one column, in one read, of a local file
FAR_SEGMENT_BYTES = 1 << 20  # of one whose reads wait for a network
MAX_CHUNK_BYTES = 32 << 20
PART_BYTES = 1 << 20  # read before it is transposed

Slab = tuple[int, int, tuple[int | slice, ...]]
"""First column, number of columns, and what they are of the axes of a row, the last axis first."""


class FortranSource:
    """An array that lies column by column: ``(n_rows, *row_shape)``, the first axis fastest.

    A chunk is so many rows that each column's share is a read of `SEGMENT_BYTES` or more, where
    that makes no more than `MAX_CHUNK_BYTES`; its columns are read one by one and transposed, by
    parts of `PART_BYTES`.
    """

    def __init__(self, name: str, header: Header, file: File, codec: str = "columns first") -> None:
        self._name, self._header, self._file = name, header, file
        row_bytes = max(prod(header.shape[1:]) * header.dtype.itemsize, 1)
        segment = SEGMENT_BYTES if file.in_flight == 1 else FAR_SEGMENT_BYTES
        wanted = segment // max(header.dtype.itemsize, 1)
        chunk_rows = max(virtual_chunk_rows(row_bytes), min(wanted, MAX_CHUNK_BYTES // row_bytes))
        chunk_rows = max(min(chunk_rows, header.shape[0]), 1)
        self.layout = Layout(
            shape=header.shape,
            dtype=header.dtype,
            chunk_rows=chunk_rows,
            read_overhead_bytes=max(PART_BYTES, header.dtype.itemsize) + file.copy_bytes,
            kind="contiguous",
            codec=codec,
            in_flight=file.in_flight,
        )

    @property
    def form(self) -> Form:
        """What its rows are decoded by."""
        return {**form_of(self.layout.shape, self.layout.dtype), "order": "F"}

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the rows of the chunks ``[start, stop)``: a read a column, of all their rows, as
        far as `PART_BYTES` go.
        """
        if out.nbytes == 0:
            return
        read = self._file.checked()
        first = self.layout.bounds(start)[0]
        most = max(PART_BYTES // self._header.dtype.itemsize, 1)
        for at in range(0, len(out), most):
            self._rows(read, first + at, out[at : at + most])

    def _rows(self, read: Read, first: int, out: NDArray[Any]) -> None:
        segment = len(out) * self._header.dtype.itemsize
        most = max(PART_BYTES // segment, 1)
        part = np.empty(min(most, prod(out.shape[1:])) * segment, np.uint8)
        items = np.dtype(f"V{self._header.dtype.itemsize}")  # as they are, padding and all
        target = out.view(items).transpose()  # axes from the slowest to the fastest in the file
        for column, n_columns, place in _slabs(out.shape[1:], most):
            raw = part[: n_columns * segment]
            self._columns(read, column, n_columns, first, len(out), raw)
            slab = target[place]
            slab[...] = raw.view(items).reshape(slab.shape)

    def _columns(
        self, read: Read, column: int, n_columns: int, first: int, n_rows: int, raw: NDArray[Any]
    ) -> None:
        """Rows from `first` on of neighbouring columns, one after another."""
        all_rows, itemsize = self._header.shape[0], self._header.dtype.itemsize
        at = self._header.offset + (column * all_rows + first) * itemsize
        segment, view, got = n_rows * itemsize, raw.data, 0
        try:
            if n_rows == all_rows:
                got = read([view], at)
            else:
                for k in range(n_columns):
                    part = view[k * segment : (k + 1) * segment]
                    got += read([part], at + k * all_rows * itemsize)
        except OSError as error:
            if isinstance(error, EpochalError):
                raise
            raise self._damage(first, n_rows, f"cannot be read: {error.strerror}") from error
        if got < len(view):
            raise self._damage(first, n_rows, f"the file ends {len(view) - got} bytes too early")

    def _damage(self, first: int, n_rows: int, what: str) -> DamageError:
        return DamageError(
            f"{self._file.name}: source {self._name!r}, chunk {self.layout.chunk_of(first)}, rows "
            f"{first} to {first + n_rows - 1}: {what}. "
            "The file is damaged there: restore it from a copy, or leave these rows out"
        )

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: a row lies all over the file."""
        raise NotImplementedError("rows of a Fortran-ordered array are not read alone")


def _slabs(row_shape: tuple[int, ...], most: int) -> Iterator[Slab]:
    """Columns in the order of the file, at most so many at once, cut so that each slab is a slice
    of the transposed rows.

    >>> list(_slabs((2, 3), 4))
    [(0, 4, (slice(0, 2, None),)), (4, 2, (slice(2, 3, None),))]
    >>> [place for _, _, place in _slabs((2, 3), 1)][:3]
    [(0, slice(0, 1, None)), (0, slice(1, 2, None)), (1, slice(0, 1, None))]
    """
    axes = row_shape[::-1]  # the last axis of a row is the slowest in the file
    inner, cut = 1, len(axes)  # axes from `cut` on are whole in every slab
    while cut and inner * axes[cut - 1] <= most:
        cut -= 1
        inner *= axes[cut]
    if not cut:
        yield 0, inner, ()
        return
    step, long = max(most // inner, 1), axes[cut - 1]
    for number, outer in enumerate(np.ndindex(*axes[: cut - 1])):
        for at in range(0, long, step):
            n = min(step, long - at)
            yield (number * long + at) * inner, n * inner, (*outer, slice(at, at + n))
