"""What a ``.npy`` file says of its array, parsed as a literal: nothing in it is run."""

from __future__ import annotations

import ast
import re
import struct
import warnings
from math import prod
from typing import Any, NamedTuple

import numpy as np

from epochal.errors import FormatError, UnsafeError

__all__ = ["FIRST_BYTES", "MAGIC", "Header", "check_rows_fit", "end_of", "read_header"]

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 1 << 16  # numpy itself takes 10,000 at most, where it is not told to trust
FIRST_BYTES = 4096  # read at first: longer headers have hundreds of fields
LONG = re.compile(r"('[^']*'|\"[^\"]*\")|(?<=\d)L\b")  # quoted text, or the L of Python 2's 12L
WRONG = (
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


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

    @property
    def by_columns(self) -> bool:
        """Whether the items of a row do not lie together."""
        return self.fortran and prod(self.shape[1:]) > 1


def end_of(data: bytes, name: str) -> int:
    """Where the header that begins with `data` ends. Raises `FormatError` where none does."""
    if data[:6] != MAGIC:
        raise FormatError(f"{name}: not a .npy file: it begins with {data[:6]!r}")
    if len(data) < 12:
        raise FormatError(f"{name}: {len(data)} bytes, less than any header: it was cut off")
    if data[6] not in (1, 2, 3):
        raise FormatError(f"{name}: a .npy file of version {data[6]}; 1, 2 and 3 are read")
    wide = data[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    if length > MAX_HEADER_BYTES:
        raise FormatError(
            f"{name}: a header of {length} bytes, of which {MAX_HEADER_BYTES} are read at most: "
            "damaged, or an array of thousands of fields; write it as several"
        )
    return int(length) + (12 if wide else 10)


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
    end = end_of(data, name)
    start = 12 if data[6] > 1 else 10
    if end > len(data):
        raise FormatError(
            f"{name}: a header of {end - start} bytes, of which {len(data) - start} are there: "
            "the file was cut off"
        )
    try:
        told = _literal(data[start:end].decode("utf-8" if data[6] == 3 else "latin-1"))
        shape, fortran = told["shape"], told["fortran_order"]
        dtype = np.lib.format.descr_to_dtype(told["descr"])
    except WRONG as error:
        raise FormatError(f"{name}: its header cannot be read: {error}") from error
    good = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not good or not isinstance(fortran, bool):
        raise FormatError(f"{name}: its header says shape={shape!r}, fortran_order={fortran!r}")
    if dtype.hasobject:
        raise UnsafeError(
            f"{name}: holds pickled Python objects (dtype {dtype}), which are never read: "
            "unpickling runs whatever they say. Save numbers, or text of fixed length (dtype 'U')"
        )
    if not dtype.itemsize:
        raise FormatError(f"{name}: its items (dtype {dtype}) have no bytes: nothing to read")
    n_bytes = prod(shape) * dtype.itemsize
    if n_bytes >= 1 << 63 or (not n_bytes and max(shape, default=0) >= 1 << 40):
        raise FormatError(f"{name}: shape {shape} is more than any machine can address")
    # Items that are arrays themselves are more axes, as numpy makes them.
    return Header(shape + dtype.shape, dtype.base, fortran, end)


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd spellings: they are read as Python reads them
        try:
            return ast.literal_eval(text.strip())
        except SyntaxError:  # Python 2 wrote {'shape': (12L,)}
            return ast.literal_eval(LONG.sub(lambda found: found[1] or "", text).strip())


def check_rows_fit(header: Header, size_bytes: int, name: str) -> None:
    """Refuse a scalar, and an array that its file is too short for."""
    if not header.shape:
        raise FormatError(f"{name}: a scalar: it has no rows")
    if header.offset + header.nbytes > size_bytes:
        raise FormatError(
            f"{name}: {header.shape} of {header.dtype} takes {header.nbytes} bytes after the "
            f"header, and the file has {size_bytes - header.offset}: it was cut off"
        )
