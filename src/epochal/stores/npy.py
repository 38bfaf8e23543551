"""NumPy's own files: ``.npy``, read in place by ``pread``; nothing is ever unpickled.

The format is described in `numpy.lib.format`, versions 1.0 to 3.0.
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Collection, Mapping
from math import prod
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, FormatError, UnsafeError
from epochal.layout import Layout
from epochal.stores.file import File, Read
from epochal.stores.hdf5_facts import Contiguous
from epochal.stores.hdf5_plain import ContiguousSource
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.source import Source
from epochal.stores.store import Other

__all__ = ["MAGIC", "FortranSource", "Header", "NpyStore", "read_header", "source_in"]

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 1 << 16
SEGMENT_BYTES = 4096  # of one column of a Fortran-ordered array, in one read
MAX_BLOCK_BYTES = 32 << 20


class Header(NamedTuple):
    """What a ``.npy`` file says of itself: where its items begin, and their order in it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """Of all items."""
        return prod(self.shape) * self.dtype.itemsize


def read_header(data: bytes, name: str) -> Header:
    """The header at the beginning of `data`.

    Raises
    ------
    FormatError
        It is no header.
    UnsafeError
        The array holds pickled objects.

    >>> import io
    >>> file = io.BytesIO(); np.save(file, np.zeros((3, 2), "<i2"))
    >>> read_header(file.getvalue(), "file")
    Header(shape=(3, 2), dtype=dtype('int16'), fortran=False, offset=128)
    """
    if data[:6] != MAGIC or len(data) < 12 or data[6] not in (1, 2, 3):
        raise FormatError(f"{name}: not a .npy file of version 1, 2 or 3")
    wide = data[6] > 1
    start = 12 if wide else 10
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    if length > MAX_HEADER_BYTES or start + length > len(data):
        raise FormatError(f"{name}: a header of {length} bytes: the file is cut off or damaged")
    try:
        text = data[start : start + length].decode("utf-8" if data[6] == 3 else "latin-1")
        told = ast.literal_eval(text.strip())
        shape, fortran = told["shape"], told["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(told["descr"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise FormatError(f"{name}: its header cannot be read: {error}") from error
    good = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not good or not isinstance(fortran, bool):
        raise FormatError(f"{name}: its header says shape={shape!r}, fortran_order={fortran!r}")
    if dtype.hasobject:
        raise UnsafeError(f"{name}: holds pickled Python objects, which are never read")
    if prod(shape) * dtype.itemsize >= 1 << 63:
        raise FormatError(f"{name}: shape {shape} is more than any machine can address")
    # Items that are arrays themselves are more axes, as numpy makes them.
    return Header(shape + dtype.shape, dtype.base, fortran, start + length)


def source_in(file: File, name: str) -> Source:
    """The array in a ``.npy`` file as a source.

    Raises
    ------
    FormatError
        No array with rows, or one that the file is too short for.
    """
    head = bytearray(min(file.size_bytes, MAX_HEADER_BYTES + 12))
    got = file.checked()([memoryview(head)], 0)
    header = read_header(bytes(head[:got]), file.name)
    check_rows_fit(header, file.size_bytes, file.name)
    if header.fortran and prod(header.shape[1:]) > 1:
        return FortranSource(name, header, file)
    return ContiguousSource(Contiguous(name, header.shape, header.dtype, header.offset), file)


def check_rows_fit(header: Header, size_bytes: int, name: str) -> None:
    """Refuse a scalar, and an array that its file is too short for."""
    if not header.shape:
        raise FormatError(f"{name}: a scalar: it has no rows")
    if header.offset + header.nbytes > size_bytes:
        raise FormatError(
            f"{name}: {header.shape} of {header.dtype} takes {header.nbytes} bytes after the "
            f"header, and the file has {size_bytes - header.offset}: it was cut off"
        )


class FortranSource:
    """An array whose first axis varies fastest: rows are strided all over the file.

    A block of rows is read as one segment a column, of `SEGMENT_BYTES` or more, and transposed.
    """

    def __init__(self, name: str, header: Header, file: File) -> None:
        self._name, self._header, self._file = name, header, file
        self._columns = prod(header.shape[1:])
        row_bytes = self._columns * header.dtype.itemsize
        least = SEGMENT_BYTES // max(header.dtype.itemsize, 1)
        most = max(MAX_BLOCK_BYTES // max(row_bytes, 1), 1)
        chunk_rows = min(max(virtual_chunk_rows(row_bytes), min(least, most), 1), 1 << 40)
        chunk_rows = min(chunk_rows, max(header.shape[0], 1))
        self.layout = Layout(
            shape=header.shape,
            dtype=header.dtype,
            chunk_rows=chunk_rows,
            read_overhead_bytes=chunk_rows * row_bytes,
            kind="contiguous",
            codec="columns first",
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the rows of the chunks ``[start, stop)``, one segment a column and chunk."""
        if out.nbytes == 0:
            return
        read = self._file.checked()
        base = self.layout.bounds(start)[0]
        for chunk in range(start, stop):
            first, last = self.layout.bounds(chunk)
            self._block(read, first, out[first - base : last - base])

    def _block(self, read: Read, first: int, out: NDArray[Any]) -> None:
        n_rows, itemsize = self._header.shape[0], self._header.dtype.itemsize
        segment = len(out) * itemsize
        raw = np.empty(self._columns * segment, np.uint8)
        view = raw.data
        if len(out) == n_rows:
            got = read([view], self._header.offset)
        else:
            got = 0
            for column in range(self._columns):
                at = self._header.offset + (column * n_rows + first) * itemsize
                got += read([view[column * segment : (column + 1) * segment]], at)
        if got < len(view):
            raise DamageError(
                f"{self._file.name}: source {self._name!r}, rows {first} to "
                f"{first + len(out) - 1}: the file ends too early. Restore it from a copy"
            )
        axes = (*reversed(out.shape[1:]), len(out))
        out[...] = raw.view(self._header.dtype).reshape(axes).transpose()

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: a row lies all over the file."""
        raise NotImplementedError("rows of a Fortran-ordered array are not read alone")


class NpyStore:
    """One ``.npy`` file: one source, named as the file is (``train_X.npy``: ``train_X``)."""

    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._file = file
        self.name = file.name
        name = PurePosixPath(file.name).name.removesuffix(".npy") or "array"
        self.sources: dict[str, Any] = {name: source_in(file, name)}

    def close(self) -> None:
        """Give back the descriptor."""
        self._file.close()
