"""MATLAB's files of version 5 to 7.2 as streams, after "MAT-File Level 5 File Format" (MathWorks).

A file is a header of 128 bytes and elements: a tag (type and bytes) and data, padded to 8 bytes. An
array is an element of elements: flags (its class), sizes, name, numbers; it may be compressed
whole. Its numbers are in column-major order, examples of the last axis one after another, so blocks
along that axis are read without the rest. Numbers of one class may be stored as a narrower type.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from epochal.errors import FormatError, MismatchError, RowError

__all__ = ["Variable", "variables"]

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
TYPES = {  # of stored numbers
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"},
    **{16: "u1", 17: "u2", 18: "u4"},
}
KINDS = {  # MATLAB's classes, and what rows of them are
    **{1: ("cell", None), 2: ("struct", None), 3: ("object", None), 4: ("char", None)},
    **{5: ("sparse", None), 6: ("double", "f8"), 7: ("single", "f4"), 8: ("int8", "i1")},
    **{9: ("uint8", "u1"), 10: ("int16", "i2"), 11: ("uint16", "u2"), 12: ("int32", "i4")},
    **{13: ("uint32", "u4"), 14: ("int64", "i8"), 15: ("uint64", "u8")},
    **{16: ("function", None), 17: ("opaque", None)},
}
COMPLEX, LOGICAL = 0x800, 0x200  # of the flags
MOST_AXES, MOST_NAME_BYTES = 64, 4096
INFLATE_BYTES = 256 << 10


@dataclass(frozen=True)
class Variable:
    """One array of a file, of which the headers were read.

    Parameters
    ----------
    name, shape
        As MATLAB has them: at least two axes.
    kind
        MATLAB's class, such as ``"uint8"``, ``"double"`` or ``"cell"``; ``"logical"`` where numbers
        are truth values.
    dtype
        What blocks are, in this machine's byte order. None where it is no array of real numbers.
    path, place, order
        The file, where the variable's element begins in it (bytes), and the file's byte order,
        ``"<"`` or ``">"``.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    dtype: np.dtype | None
    path: str
    place: int
    order: str

    def blocks(self, n: int, start: int = 0) -> Iterator[NDArray[Any]]:
        """Consecutive blocks along the last axis, ``(*shape[:-1], m)`` with at most `n`, in column-
        major order, from position `start` on.

        Holds one block; reads, and inflates, each stored byte once.

        Raises
        ------
        FormatError
            The file ends too early, or does not inflate; its shape is none that its data can have.
        MismatchError, RowError
            `n` is below 1; `start` is outside of the last axis.
        """
        if n < 1:
            raise MismatchError(f"blocks of {n} along the last axis: ask for 1 or more")
        if not 0 <= start <= self.shape[-1]:
            raise RowError(f"{self.path}: {self.name!r} has {self.shape[-1]} rows, no row {start}")
        if self.dtype is None:
            raise FormatError(f"{self.path}: {self.name!r} is a {self.kind}, no array of numbers")
        row = prod(self.shape[:-1])
        with open(self.path, "rb") as file:
            stream = _element_at(file, self.path, self.place, self.order)
            _matrix_head(stream, self.path)
            code, n_bytes = stream.tag()
            stored = _stored_type(code, self.order, self.path, self.name)
            if stored.kind == "f" and self.dtype.kind != "f":
                raise _broken(self.path, f"{self.name!r} is {self.kind}, stored as {stored}")
            # NumPy makes no array, not even an empty one, of axes that are longer together.
            if prod(length or 1 for length in self.shape) > sys.maxsize // 8:
                raise _broken(self.path, f"{self.name!r} is of shape {self.shape}")
            if n_bytes != row * self.shape[-1] * stored.itemsize:
                raise _broken(
                    self.path,
                    f"{self.name!r} of shape {self.shape} has {n_bytes} bytes of {stored}",
                )
            stream.skip(row * start * stored.itemsize)
            for at in range(start, self.shape[-1], n):
                m = min(n, self.shape[-1] - at)
                data = np.frombuffer(stream.take(row * m * stored.itemsize), stored)
                with np.errstate(all="ignore"):  # of floats that float32 does not hold
                    block = data.astype(self.dtype, copy=False)
                yield block.reshape(*self.shape[:-1], m, order="F")
            stream.finish()


def variables(path: str | os.PathLike[str]) -> dict[str, Variable]:
    """Every array of a file, by name. Reads headers, and of compressed arrays their beginnings.

    Raises
    ------
    FormatError
        It is no file of version 5, or ends too early.
    """
    name = os.fspath(path)
    found: dict[str, Variable] = {}
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        order = _byte_order(file, name)
        at = HEADER_BYTES
        while at < size:
            code, n_bytes = _tag_at(file, name, at, order)
            end = at + 8 + n_bytes
            if code in (MATRIX, COMPRESSED):
                if end > size:
                    raise _broken(name, f"an array ends at byte {end}, the file at {size}")
                each = _look(_element_at(file, name, at, order), name, at, order)
                if each is not None:
                    found[each.name] = each
            # What is compressed is not padded.
            at = end if code == COMPRESSED else end + -n_bytes % 8
    return found


def _byte_order(file: BinaryIO, path: str) -> str:
    head = file.read(HEADER_BYTES)
    mark = head[126:128]
    if len(head) == HEADER_BYTES and mark in (b"IM", b"MI"):
        order = "<" if mark == b"IM" else ">"
        version = struct.unpack(f"{order}H", head[124:126])[0] >> 8
        if version == 1:
            return order
        if version == 2:
            raise FormatError(f"{path}: a MATLAB file of version 7.3, which is HDF5")
    raise FormatError(
        f"{path}: no MATLAB file of version 5 to 7.2: it begins with {head[:19]!r}. One of version "
        "4 is saved anew by MATLAB, or read by SciPy"
    )


def _tag_at(file: BinaryIO, path: str, at: int, order: str) -> tuple[int, int]:
    file.seek(at)
    tag = file.read(8)
    if len(tag) < 8:
        raise _broken(path, f"it ends within the tag at byte {at}")
    code, n_bytes = struct.unpack(f"{order}II", tag)
    return code, n_bytes


def _element_at(file: BinaryIO, path: str, at: int, order: str) -> _Stream:
    """The bytes of an array's element, past its tag."""
    code, n_bytes = _tag_at(file, path, at, order)
    stream: _Stream = _Stream(file, path, order, n_bytes)
    if code == COMPRESSED:
        stream = _Inflated(file, path, order, n_bytes)
        inner, _ = stream.tag()
        if inner != MATRIX:
            raise _broken(path, f"what is compressed at byte {at} is of type {inner}, no array")
    return stream


def _look(stream: _Stream, path: str, place: int, order: str) -> Variable | None:
    """What an element's headers say; None of what has no name: MATLAB's own."""
    name, shape, kind, flags = _matrix_head(stream, path)
    if not name:
        return None
    label, numbers = KINDS.get(kind, (f"class {kind}", None))
    dtype = None if numbers is None or flags & COMPLEX else np.dtype(numbers)
    if flags & LOGICAL and dtype is not None:
        label, dtype = "logical", np.dtype("u1")
    return Variable(name, shape, label, dtype, path, place, order)


def _matrix_head(stream: _Stream, path: str) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, class and flags; the stream is then at the numbers."""
    code, n_bytes = stream.tag()
    if code != 6 or n_bytes != 8:
        raise _broken(path, "an array begins without its flags")
    flags = stream.number()
    stream.skip(4)
    if flags & 0xFF in (16, 17):  # functions and opaque objects have other headers
        return "", (), flags & 0xFF, flags
    code, n_bytes = stream.tag()
    if code != 5 or n_bytes % 4 or not 8 <= n_bytes <= 4 * MOST_AXES:
        raise _broken(path, f"an array has {n_bytes} bytes of sizes")
    shape = struct.unpack(f"{stream.order}{n_bytes // 4}i", stream.padded(n_bytes))
    if min(shape) < 0:
        raise _broken(path, f"an array of shape {shape}")
    code, n_bytes, small = stream.small_tag()
    if code not in (1, 2, 16) or n_bytes > MOST_NAME_BYTES:
        raise _broken(path, "an array has no name")
    name = small if small is not None else stream.padded(n_bytes)
    return name.decode("utf-8", "replace"), tuple(shape), flags & 0xFF, flags


def _stored_type(code: int, order: str, path: str, name: str) -> np.dtype:
    if code not in TYPES:
        raise _broken(path, f"the numbers of {name!r} are of an unknown type {code}")
    return np.dtype(order + TYPES[code])


def _broken(path: str, what: str) -> FormatError:
    return FormatError(f"{path}: {what}: the file is damaged, or was cut off: get it anew")


class _Stream:
    """Bytes of one element, in order."""

    def __init__(self, file: BinaryIO, path: str, order: str, n_bytes: int) -> None:
        self._file, self._path, self.order, self._left = file, path, order, n_bytes
        self._small: bytes | None = None

    def take(self, n: int) -> bytes | bytearray:
        """The next bytes."""
        if self._small is not None:
            data, self._small = self._small[:n], self._small[n:]
            if len(data) < n:
                raise self._short()
            return data
        return self._take(n)

    def _take(self, n: int) -> bytes | bytearray:
        data = self._file.read(n) if n <= self._left else b""
        if len(data) < n:
            raise self._short()
        self._left -= n
        return data

    def _short(self) -> FormatError:
        return _broken(self._path, "an array ends too early")

    def skip(self, n: int) -> None:
        """Leave bytes out."""
        while n > 0:
            n -= len(self.take(min(n, INFLATE_BYTES)))

    def padded(self, n: int) -> bytes:
        """The next bytes, and what fills them up to 8."""
        data = bytes(self._take(n))
        self._take(-n % 8)
        return data

    def number(self) -> int:
        """The next 4 bytes."""
        value: int = struct.unpack(f"{self.order}I", self._take(4))[0]
        return value

    def small_tag(self) -> tuple[int, int, bytes | None]:
        """Type and bytes of the next element, and its data where they are in the tag itself."""
        first = self.number()
        if first >> 16:
            n_bytes = first >> 16
            if n_bytes > 4:
                raise _broken(self._path, f"a small element of {n_bytes} bytes")
            return first & 0xFFFF, n_bytes, bytes(self._take(4))[:n_bytes]
        return first, self.number(), None

    def tag(self) -> tuple[int, int]:
        """Type and bytes of the next element; `take` then gives its data."""
        code, n_bytes, self._small = self.small_tag()
        return code, n_bytes

    def finish(self) -> None:
        """Nothing is to be compared at the end."""


class _Inflated(_Stream):
    """The same of what is compressed."""

    def __init__(self, file: BinaryIO, path: str, order: str, n_bytes: int) -> None:
        super().__init__(file, path, order, n_bytes)
        self._zlib = zlib.decompressobj()
        self._rest = b""

    def _take(self, n: int) -> bytes | bytearray:
        out = bytearray()
        while len(out) < n:
            part = self._inflate(n - len(out))
            if not part:
                raise self._short()
            out += part
        return out

    def _inflate(self, most: int) -> bytes:
        """Some bytes, at most so many; none at the end."""
        while not self._zlib.eof:
            if not self._rest and self._left:
                self._rest = self._file.read(min(self._left, INFLATE_BYTES))
                self._left -= len(self._rest)
                if not self._rest:
                    raise self._short()
            ended = not self._rest
            try:
                part = self._zlib.decompress(self._rest, most)
            except zlib.error as error:
                raise _broken(self._path, f"an array does not inflate ({error})") from None
            self._rest = self._zlib.unconsumed_tail
            if part:
                return part
            if ended:
                break
        return b""

    def finish(self) -> None:
        """Read to the end, where zlib compares its checksum."""
        while self._inflate(INFLATE_BYTES):
            pass
        if not self._zlib.eof:
            raise self._short()
