"""HDF5 datasets without chunks: contiguous ones, and those that came with the index."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.file import File
from epochal.stores.hdf5_facts import Compact, Contiguous, Facts
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.rows import GATHER_BYTES, byte_view, check_rows, gather
from epochal.stores.strings import pad_with_nuls

__all__ = ["CompactSource", "ContiguousSource"]


def _layout(facts: Facts, kind: str, overhead_bytes: int, file: File | None = None) -> Layout:
    row_bytes = prod(facts.shape[1:]) * facts.dtype.itemsize
    return Layout(
        shape=facts.shape,
        dtype=facts.dtype,
        chunk_rows=virtual_chunk_rows(row_bytes),
        rows_alone=True,
        read_overhead_bytes=min(overhead_bytes, prod(facts.shape) * facts.dtype.itemsize)
        + (file.copy_bytes if file else 0),
        kind=kind,
        in_flight=file.in_flight if file else 1,
    )


class ContiguousSource:
    """Rows one after another in the file: read in place, singly where asked."""

    def __init__(self, facts: Contiguous, file: File) -> None:
        self._facts, self._file = facts, file
        self._layout = _layout(facts, "contiguous", GATHER_BYTES, file)

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the rows of the virtual chunks ``[start, stop)`` straight into `out`."""
        assert 0 <= start <= stop <= self._layout.n_chunks
        if out.nbytes == 0:
            return
        read = self._file.checked()
        first = start * self._layout.chunk_rows
        target = byte_view(out)
        try:
            got = read([target.data], self._facts.offset + first * self._layout.row_bytes)
        except EpochalError:
            raise
        except OSError as error:
            raise self._damage(first, len(out), f"cannot be read: {error.strerror}") from error
        if got < len(target):
            raise self._damage(
                first, len(out), f"the file ends {len(target) - got} bytes too early"
            )
        self._pad(out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows, neighbours in one ``pread``."""
        rows = np.asarray(rows, dtype=np.int64)
        check_rows(rows, self._layout.n_rows, self._facts.name)
        if out.nbytes == 0:
            return
        row_bytes = self._layout.row_bytes
        read = self._file.checked()
        try:
            gather(read, self._facts.offset + rows * row_bytes, None, row_bytes, byte_view(out))
        except EpochalError:
            raise
        except (EOFError, OSError) as error:
            raise self._damage(int(rows.min()), int(np.ptp(rows)) + 1, str(error)) from error
        self._pad(out)

    def _pad(self, out: NDArray[Any]) -> None:
        if self._facts.paddings:
            pad_with_nuls(byte_view(out), self._facts.dtype.itemsize, self._facts.paddings)

    def _damage(self, first: int, n_rows: int, what: str) -> DamageError:
        chunk = first // self._layout.chunk_rows
        return DamageError(
            f"{self._file.name}: source {self._facts.name!r}, chunk {chunk}, rows {first} to "
            f"{first + n_rows - 1}: {what}. "
            "The file is damaged there: restore it from a copy, or leave these rows out"
        )


class CompactSource:
    """Bytes that came with the index: a compact dataset, or one item that is everywhere."""

    def __init__(self, facts: Compact) -> None:
        self._facts = facts
        self._layout = _layout(facts, "compact", 0)
        unit = facts.dtype.itemsize if facts.repeated else max(self._layout.row_bytes, 1)
        self._items = np.frombuffer(facts.data, dtype=f"V{unit}")

    def __getstate__(self) -> Compact:
        return self._facts

    def __setstate__(self, state: Compact) -> None:
        self.__init__(state)  # type: ignore[misc]

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy the rows of the virtual chunks ``[start, stop)``."""
        assert 0 <= start <= stop <= self._layout.n_chunks
        first = start * self._layout.chunk_rows
        self._copy(slice(first, first + len(out)), out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy single rows."""
        rows = np.asarray(rows, dtype=np.int64)
        check_rows(rows, self._layout.n_rows, self._facts.name)
        self._copy(rows, out)

    def _copy(self, rows: slice | NDArray[np.int64], out: NDArray[Any]) -> None:
        if out.nbytes:
            target = byte_view(out).view(self._items.dtype)
            target[...] = self._items[0] if self._facts.repeated else self._items[rows]
