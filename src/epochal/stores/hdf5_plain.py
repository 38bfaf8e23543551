"""HDF5 datasets without chunks: contiguous ones, and those that came with the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.codecs import Bytes
from epochal.stores.file import File
from epochal.stores.hdf5_facts import Compact, Contiguous, Facts, form_of_facts
from epochal.stores.manifest import Form, Manifest, crc32, differs
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.rows import (
    GATHER_BYTES,
    Located,
    byte_view,
    check_rows,
    gather,
)
from epochal.stores.strings import pad_with_nuls

__all__ = ["CompactSource", "ContiguousSource"]


def _layout(
    facts: Facts,
    kind: str,
    overhead_bytes: int,
    file: File | None = None,
    chunk_rows: int | None = None,
    checked: bool = False,
) -> Layout:
    row_bytes = prod(facts.shape[1:]) * facts.dtype.itemsize
    return Layout(
        shape=facts.shape,
        dtype=facts.dtype,
        chunk_rows=chunk_rows or virtual_chunk_rows(row_bytes),
        rows_alone=True,
        read_overhead_bytes=min(overhead_bytes, prod(facts.shape) * facts.dtype.itemsize)
        + (file.copy_bytes if file else 0),
        kind=kind,
        in_flight=file.in_flight if file else 1,
        checked=checked,
    )


class ContiguousSource:
    """Rows one after another in the file: read in place, singly where asked.

    With a manifest its pieces are the virtual chunks, and `read` checks them; rows that are read
    alone are not checked.
    """

    def __init__(self, facts: Contiguous, file: File) -> None:
        self._facts, self._file = facts, file
        self._sums, chunk_rows = None, None
        manifest = facts.manifest
        if manifest is not None and manifest.piece_rows is not None:
            n_pieces = -(-facts.shape[0] // manifest.piece_rows)
            if manifest.fits(n_pieces, manifest.piece_rows):
                self._sums, chunk_rows = manifest.sums, manifest.piece_rows
        checked = self._sums is not None
        self._layout = _layout(facts, "contiguous", GATHER_BYTES, file, chunk_rows, checked)

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the rows of the virtual chunks ``[start, stop)`` straight into `out`."""
        assert 0 <= start <= stop <= self._layout.n_chunks
        if out.nbytes == 0:
            return
        self._read(start, [out])
        if self._sums is not None:
            self._check(start, byte_view(out))
        self._pad(out)

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Read the rows of the virtual chunks ``[start, stop)`` straight into several arrays. False
        where they are to be checked.
        """
        if self._sums is not None:
            return False
        outs = [out for out in outs if out.nbytes]
        if outs:
            self._read(start, outs)
        for out in outs:
            self._pad(out)
        return True

    def _read(self, start: int, outs: Sequence[NDArray[Any]]) -> None:
        read = self._file.checked()
        first, n_rows = start * self._layout.chunk_rows, sum(map(len, outs))
        parts = [byte_view(out).data for out in outs]
        try:
            got = read(parts, self._facts.offset + first * self._layout.row_bytes)
        except EpochalError:
            raise
        except OSError as error:
            raise self._damage(first, n_rows, f"cannot be read: {error.strerror}") from error
        missing = n_rows * self._layout.row_bytes - got
        if missing > 0:
            raise self._damage(first, n_rows, f"the file ends {missing} bytes too early")

    def _check(self, chunk: int, stored: Bytes) -> None:
        assert self._sums is not None
        step = self._layout.chunk_rows * self._layout.row_bytes
        for at in range(0, len(stored), step):
            found = crc32(stored[at : at + step])
            if found != self._sums[chunk]:
                first, last = self._layout.bounds(chunk)
                what = differs(found, int(self._sums[chunk]))
                raise self._damage(first, last - first, what)
            chunk += 1

    @property
    def manifest(self) -> Manifest | None:
        """Checksums that came with it, of this state of the file or of an older one."""
        return self._facts.manifest

    @property
    def path(self) -> str:
        """The file."""
        return self._file.name

    @property
    def offset(self) -> int:
        """Where in it the first row begins."""
        return self._facts.offset

    @property
    def form(self) -> Form:
        """What its rows are decoded by."""
        return form_of_facts(self._facts)

    def unchecked(self) -> ContiguousSource:
        """The same without its checksums."""
        return ContiguousSource(replace(self._facts, manifest=None), self._file)

    def stored_sums(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Checksums of what is stored of the virtual chunks ``[start, stop)`` now."""
        read, row_bytes = self._file.checked(), self._layout.row_bytes
        sums = np.zeros(stop - start, np.uint32)
        for k in range(stop - start):
            first, last = self._layout.bounds(start + k)
            stored = np.empty((last - first) * row_bytes, np.uint8)
            if read([stored.data], self._facts.offset + first * row_bytes) < len(stored):
                raise self._damage(first, last - first, "the file ends too early")
            sums[k] = crc32(stored)
        return sums

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

    def locate(self, rows: NDArray[np.int64]) -> Located | None:
        """Where single rows lie. None where they are padded."""
        if self._facts.paddings:
            return None
        check_rows(rows, self._layout.n_rows, self._facts.name)
        row_bytes = self._layout.row_bytes
        return Located(self._file.checked(), self._facts.offset + rows * row_bytes)

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

    @property
    def form(self) -> Form:
        """What its rows are decoded by."""
        return form_of_facts(self._facts)

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
