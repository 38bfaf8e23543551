"""Zip archives: stored members are read in place, deflated ones unpacked; a tree of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

from epochal.errors import DamageError, FileMissingError, FormatError
from epochal.stores.archive_directory import DEFLATED, STORED, Member, decoded_name, members
from epochal.stores.archive_inflate import Inflater
from epochal.stores.file import File, Read, Slice

__all__ = ["DEFLATED", "STORED", "Member", "ZipTree", "members", "open_member", "packed"]

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
MAX_WHOLE_BYTES = 1 << 31  # of a deflated member that is unpacked into memory


def packed(file: File, member: Member) -> Slice:
    """The bytes of a member as they lie in the archive. Reads its local header.

    Raises
    ------
    FormatError
        The header is not that of the member, or its bytes would run into the next one.
    """
    header = bytearray(LOCAL_HEADER.size + len(member.name.encode()))
    got = file.checked()([memoryview(header)], member.header_offset)
    magic, _, flags, method, *_, names, extras = LOCAL_HEADER.unpack_from(header)
    start = LOCAL_HEADER.size
    try:
        same = decoded_name(bytes(header[start : start + names]), flags) == member.name
    except UnicodeDecodeError:
        same = False
    if got < start or magic != b"PK\x03\x04" or method != member.method or not same:
        raise FormatError(
            f"{file.name}: member {member.name!r} is not where the list of members says: damaged"
        )
    offset = member.header_offset + start + names + extras
    if offset + member.stored_bytes > member.end_offset:
        raise FormatError(f"{file.name}: member {member.name!r} overlaps the next one: damaged")
    return Slice(file, offset, member.stored_bytes, f"{file.name}/{member.name}")


def open_member(file: File, member: Member) -> File:
    """A member as a file: in place if it is stored, else unpacked into memory at each opening.

    Raises
    ------
    FormatError
        Compressed by a method other than deflate, too large to be unpacked whole, or not where the
        archive's list says.
    """
    inside = packed(file, member)
    if member.method == STORED:
        if member.stored_bytes != member.size_bytes:
            raise FormatError(
                f"{inside.name}: stored in {member.stored_bytes} of "
                f"{member.size_bytes} bytes: damaged"
            )
        return _Stored(inside, member)
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


class _Stored:
    """A stored member as a file. Its checksum is over all of it, so that reads of all of it look at
    it: those of a chunk of Zarr, or of metadata.
    """

    def __init__(self, inside: File, member: Member) -> None:
        self.name, self.size_bytes = inside.name, inside.size_bytes
        self._inside, self._crc32 = inside, member.crc32

    @property
    def in_flight(self) -> int:
        """That of the archive."""
        return self._inside.in_flight

    @property
    def copy_bytes(self) -> int:
        """That of the archive."""
        return self._inside.copy_bytes

    def checked(self) -> Read:
        """Reads in place. Raises `DamageError` where all of it is not what was stored."""
        read = self._inside.checked()

        def read_stored(parts: Sequence[memoryview], offset: int) -> int:
            got = read(parts, offset)
            if got == self.size_bytes and offset == 0 and self._sum(parts) != self._crc32:
                raise DamageError(
                    f"{self.name}: its checksum is not the one in the archive. "
                    "Restore the archive from a copy"
                )
            return got

        return read_stored

    def _sum(self, parts: Sequence[memoryview]) -> int:
        crc, left = 0, self.size_bytes
        for part in parts:
            crc = zlib.crc32(part[:left], crc)
            left -= min(len(part), left)
        return crc

    def close(self) -> None:
        """Nothing is held."""


class _Unpacked:
    """A small deflated member as a file."""

    def __init__(self, inside: File, member: Member) -> None:
        self.name, self.size_bytes = inside.name, member.size_bytes
        self._inside, self._member = inside, member

    @property
    def in_flight(self) -> int:
        """That of the archive."""
        return self._inside.in_flight

    @property
    def copy_bytes(self) -> int:
        """All of it, unpacked, and what reading the archive takes."""
        return self.size_bytes + self._inside.copy_bytes

    def checked(self) -> Read:
        """Unpacks it: once for all reads of a call. Raises `DamageError`."""
        data = memoryview(bytearray(self.size_bytes))
        if data:
            Inflater(self._inside, self._member).read_into(data)

        def read(parts: Sequence[memoryview], offset: int) -> int:
            at = offset
            for part in parts:
                some = data[at : at + len(part)]
                part[: len(some)] = some
                at += len(some)
            return at - offset

        return read

    def close(self) -> None:
        """Nothing is held."""


class ZipTree:
    """An archive as a `epochal.stores.file.Tree`. Holds the list of its members."""

    def __init__(self, file: File, listed: dict[str, Member] | None = None) -> None:
        self.name = file.name
        self._file = file
        self._members = members(file) if listed is None else listed
        self.in_flight = file.in_flight
        deflated = (m.size_bytes for m in self._members.values() if m.method == DEFLATED)
        self.copy_bytes = file.copy_bytes + max(deflated, default=0)

    def file(self, key: str, size_bytes: int | None = None) -> File:
        """The member of that name. Reads its local header."""
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
