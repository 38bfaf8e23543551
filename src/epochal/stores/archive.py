"""Zip archives: what they hold and where it lies, so that stored members are read in place."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from epochal.errors import DamageError, FileMissingError, FormatError
from epochal.stores.file import File, Read, Slice

__all__ = [
    "Inflater",
    "Member",
    "SeekableFile",
    "UnpackedCopy",
    "ZipTree",
    "members",
    "open_member",
]

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
STORED, DEFLATED = 0, 8
MAX_MEMBERS = 10_000_000
MAX_WHOLE_BYTES = 1 << 31  # a deflated member that is unpacked into memory
INPUT_BYTES = 1 << 16
DIRECTORY_BYTES = 1 << 20  # read at once from the end, where the list of members is


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes
    ----------
    header_offset
        Where its local header lies.
    stored_bytes, size_bytes
        As it lies in the archive, and unpacked.
    method
        0: stored as it is; 8: deflate.
    """

    name: str
    header_offset: int
    stored_bytes: int
    size_bytes: int
    method: int
    crc32: int


class SeekableFile(io.RawIOBase):
    """A `File` as Python's file object, for libraries that want one. Reads only."""

    def __init__(self, file: File) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size_bytes}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        view = memoryview(buffer).cast("B")
        view = view[: max(self._file.size_bytes - self._at, 0)]
        got = self._file.checked()([view], self._at) if len(view) else 0
        self._at += got
        return got


def members(file: File) -> dict[str, Member]:
    """The members of the archive by name, in its own order.

    Raises
    ------
    FormatError
        No archive, or one whose members overlap, lie outside of it, or share a name.
    """
    try:
        buffered = io.BufferedReader(
            SeekableFile(file), min(DIRECTORY_BYTES, max(file.size_bytes, 1))
        )
        with zipfile.ZipFile(buffered) as archive:
            listed = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError) as error:
        raise FormatError(f"{file.name}: its zip directory cannot be read: {error}") from error
    if len(listed) > MAX_MEMBERS:
        raise FormatError(f"{file.name}: {len(listed)} members: more than {MAX_MEMBERS}")
    found: dict[str, Member] = {}
    end = 0
    for info in sorted(listed, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise FormatError(f"{file.name}: member {info.filename!r} overlaps another one")
        end = info.header_offset + LOCAL_HEADER.size + info.compress_size
        if info.filename in found or end > file.size_bytes:
            what = "comes twice" if info.filename in found else "runs past the end of the archive"
            raise FormatError(f"{file.name}: member {info.filename!r} {what}")
        if info.flag_bits & 0x1:
            raise FormatError(f"{file.name}: member {info.filename!r} is encrypted")
        found[info.filename] = Member(
            info.filename,
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
        )
    return found


def packed(file: File, member: Member) -> Slice:
    """The bytes of a member as they lie in the archive."""
    header = bytearray(LOCAL_HEADER.size)
    got = file.checked()([memoryview(header)], member.header_offset)
    magic, *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    if got < len(header) or magic != b"PK\x03\x04":
        raise FormatError(f"{file.name}: member {member.name!r} is not where the directory says")
    offset = member.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    return Slice(file, offset, member.stored_bytes, f"{file.name}/{member.name}")


def open_member(file: File, member: Member) -> File:
    """A member as a file: in place if it is stored, else unpacked into memory at each opening.

    Raises
    ------
    FormatError
        Compressed by a method other than deflate, or too large to be unpacked whole.
    """
    inside = packed(file, member)
    if member.method == STORED:
        if member.stored_bytes != member.size_bytes:
            raise FormatError(
                f"{inside.name}: stored in {member.stored_bytes} of "
                f"{member.size_bytes} bytes: damaged"
            )
        return inside
    if member.method != DEFLATED:
        raise FormatError(
            f"{inside.name}: compressed by zip method {member.method}; only deflate is read. "
            "Write the archive again, without compression"
        )
    if member.size_bytes > MAX_WHOLE_BYTES:
        raise FormatError(
            f"{inside.name}: {member.size_bytes} bytes unpacked; not more than {MAX_WHOLE_BYTES} "
            "are. Write the archive again, without compression"
        )
    return _Unpacked(inside, member)


class Inflater:
    """A deflated member unpacked from front to back, now at byte `position`; checks its sum."""

    def __init__(self, file: File, member: Member) -> None:
        self.position = 0
        self._file, self._member = file, member
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = b""
        self._at = 0
        self._crc = 0

    def copy(self) -> Inflater:
        """Another one that goes on from here: holds about 40 KB."""
        twin = Inflater(self._file, self._member)
        twin.__dict__.update(self.__dict__)
        twin._engine = self._engine.copy()
        return twin

    def read_into(self, out: memoryview) -> None:
        """Fill `out` with what comes next.

        Raises
        ------
        DamageError
            It does not inflate to its declared length and checksum.
        """
        read = self._file.checked()
        done = 0
        while done < len(out):
            data = self._more(read, len(out) - done)
            out[done : done + len(data)] = data
            done += len(data)

    def skip(self, n_bytes: int) -> None:
        """Unpack and drop."""
        read = self._file.checked()
        while n_bytes > 0:
            n_bytes -= len(self._more(read, min(n_bytes, 1 << 20)))

    def _more(self, read: Read, most: int) -> bytes:
        if not self._pending and not self._engine.eof:
            block = bytearray(min(INPUT_BYTES, self._file.size_bytes - self._at))
            got = read([memoryview(block)], self._at) if block else 0
            self._at += got
            self._pending = bytes(block[:got])
        try:
            data = self._engine.decompress(self._pending, most)
        except zlib.error as error:
            raise self._damage(str(error)) from error
        self._pending = self._engine.unconsumed_tail
        if not data and (self._engine.eof or self._at >= self._file.size_bytes):
            raise self._damage(f"it ends after {self.position} of {self._member.size_bytes} bytes")
        self.position += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self.position == self._member.size_bytes and self._crc != self._member.crc32:
            raise self._damage("its checksum is not the one in the archive")
        return data

    def _damage(self, what: str) -> DamageError:
        return DamageError(
            f"{self._file.name}: does not unpack: {what}. Restore the archive from a copy"
        )


class _Unpacked:
    """A small deflated member as a file."""

    in_flight = 1

    def __init__(self, inside: File, member: Member) -> None:
        self.name, self.size_bytes = inside.name, member.size_bytes
        self._inside, self._member = inside, member

    def checked(self) -> Read:
        """Unpacks it: once for all reads of a call."""
        data = bytearray(self.size_bytes)
        if data:
            Inflater(self._inside, self._member).read_into(memoryview(data))

        def read(parts: Sequence[memoryview], offset: int) -> int:
            total = 0
            for part in parts:
                some = data[offset + total : offset + total + len(part)]
                part[: len(some)] = some
                total += len(some)
            return total

        return read

    def close(self) -> None:
        """Nothing is held."""


class UnpackedCopy:
    """A deflated member in a nameless temporary file, made when it is first read: for what cannot
    be read from front to back. Takes its unpacked size of temporary space.
    """

    in_flight = 1

    def __init__(self, inside: File, member: Member) -> None:
        self.name, self.size_bytes = inside.name, member.size_bytes
        self._inside, self._member = inside, member
        # By process: a fork must not wait for a lock that a lost thread holds.
        self._copies: dict[int, Any] = {}
        self._locks: dict[int, threading.Lock] = {}

    def __getstate__(self) -> tuple[File, Member]:
        return self._inside, self._member

    def __setstate__(self, state: tuple[File, Member]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def checked(self) -> Read:
        """Reads of the copy, known to be of the file that was opened."""
        self._inside.checked()
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            if pid not in self._copies:
                self._copies[pid] = self._unpacked()
        fd = self._copies[pid].fileno()
        return lambda parts, offset: os.preadv(fd, parts, offset)

    def _unpacked(self) -> Any:
        copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it is closed with the store
        inflater = Inflater(self._inside, self._member)
        block = bytearray(1 << 20)
        for start in range(0, self.size_bytes, len(block)):
            part = memoryview(block)[: min(len(block), self.size_bytes - start)]
            inflater.read_into(part)
            copy.write(part)
        return copy

    def __del__(self) -> None:
        if hasattr(self, "_copies"):  # not so if unpickling it failed
            self.close()

    def close(self) -> None:
        """Give the space back."""
        for copy in self._copies.values():
            copy.close()
        self._copies.clear()


class ZipTree:
    """An archive as a `epochal.stores.file.Tree`."""

    def __init__(self, file: File, listed: dict[str, Member] | None = None) -> None:
        self.name = file.name
        self._file = file
        self._members = members(file) if listed is None else listed

    def file(self, key: str) -> File:
        """The member of that name."""
        member = self._members.get(key)
        if member is None:
            raise FileMissingError(f"{self.name}: has no member {key!r}")
        return open_member(self._file, member)

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Name and unpacked length of each member."""
        for name, member in self._members.items():
            if name.startswith(prefix):
                yield name, member.size_bytes

    def close(self) -> None:
        """Close the archive."""
        self._file.close()
