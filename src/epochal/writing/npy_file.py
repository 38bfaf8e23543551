"""One ``.npy`` file that grows: rows behind a header that has room for their number."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.stores.descriptor import Descriptor, Stamp, read_into
from epochal.stores.forms import form_of
from epochal.stores.manifest import Form, sidecar_of
from epochal.stores.npy import header_of
from epochal.stores.npy_header import MAGIC, Header
from epochal.writing import folder
from epochal.writing.container import Bytes
from epochal.writing.disk import remove, write_at
from epochal.writing.npy_form import with_rows
from epochal.writing.spec import Compression, SourceSpec, chunk_rows_for

__all__ = ["NpyFile", "check_grows", "header_at", "spec_of"]


class NpyFile:
    """One file, open for writing."""

    def __init__(self, path: str, spec: SourceSpec, offset: int) -> None:
        self.path, self.spec, self.offset = path, spec, offset
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def _at(self, row: int) -> int:
        return self.offset + row * self.spec.row_bytes

    def write(self, first: int, stored: Bytes) -> None:
        """Rows from one on."""
        write_at(self.fd, stored, self._at(first))

    def read(self, first: int, out: NDArray[Any]) -> bool:
        """Rows from one on; whether the file has them."""
        data = np.empty(out.nbytes, np.uint8)
        if len(data) and read_into(self.fd, [data.data], self._at(first)) < len(data):
            return False
        out[...] = data.view(self.spec.dtype).reshape(out.shape)
        return True

    def past(self, first: int, stored: Bytes, rows: int) -> tuple[Bytes, bool]:
        """What follows the first `rows` rows, and whether what comes before is in the file so."""
        old = min((rows - first) * self.spec.row_bytes, len(stored))
        there = np.empty(old, np.uint8)
        same = read_into(self.fd, [there.data], self._at(first)) == old
        return stored[old:], same and bool((there == stored[:old]).all())

    def cut(self, rows: int) -> None:
        """Let the file end after so many rows."""
        if os.fstat(self.fd).st_size != self._at(rows):
            os.ftruncate(self.fd, self._at(rows))

    def settle(self, rows: int) -> None:
        """Let file and header end after so many rows, where a stopped writer left more."""
        remove(folder.staged_name(sidecar_of(self.path)))
        if header_at(self.path).shape[0] > rows:  # never longer than the file
            folder.edit_file(self.path, *self.edit(rows))
        self.cut(rows)

    def form(self, rows: int) -> Form:
        """What so many rows are decoded by."""
        header = header_at(self.path)
        return form_of((rows, *header.shape[1:]), header.dtype)

    def edit(self, rows: int) -> tuple[int, bytes]:
        """What makes the header one of so many rows: where it changes, and to what."""
        old = os.pread(self.fd, self.offset, 0)
        new = with_rows(old, rows)
        there, due = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
        other = np.flatnonzero(there != due)
        first, last = (int(other[0]), int(other[-1]) + 1) if len(other) else (0, 0)
        return first, new[first:last]


def header_at(path: str) -> Header:
    """What a file says of its array. Raises as `epochal.stores.npy.source_in`."""
    file = Descriptor(path, Stamp.at(path))
    try:
        return header_of(file)
    finally:
        file.close()


def spec_of(name: str, header: Header, chunk_rows: int | None = None) -> SourceSpec:
    """The source that a header describes; its chunks are the writer's own affair."""
    row_shape = header.shape[1:]
    row_bytes = int(np.prod(row_shape, dtype=np.int64)) * header.dtype.itemsize
    wanted = chunk_rows_for(row_bytes) if chunk_rows is None else chunk_rows
    return SourceSpec(name, row_shape, header.dtype, wanted, Compression(None))


def check_grows(path: str, header: Header) -> None:
    """Refuse a file that no rows can be put behind."""
    if header.by_columns:
        raise MismatchError(
            f"{path}: cannot grow: it is in Fortran order, column by column; epochal convert "
            "writes a file that can"
        )
    if not header.nbytes and 0 in header.shape[1:]:
        raise MismatchError(f"{path}: cannot grow: rows of shape {header.shape[1:]} hold nothing")
    with open(path, "rb") as file:
        file.seek(header.offset + header.nbytes)
        if file.read(len(MAGIC)) == MAGIC:
            raise MismatchError(
                f"{path}: cannot grow: another array follows the first; write each to a file"
            )
        file.seek(0)
        try:
            with_rows(file.read(header.offset), 10**12)
        except MismatchError as error:
            raise MismatchError(f"{path}: cannot grow: {error}") from None
