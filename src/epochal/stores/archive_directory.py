"""The list at the end of a zip archive: its members, and where each lies. Plain struct parsing.

After the ZIP specification of PKWARE (APPNOTE 6.3), sections 4.3 and 4.5.3, with zip64.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from epochal.errors import FormatError, UnsafeError
from epochal.stores.file import File

__all__ = ["DEFLATED", "STORED", "Member", "decoded_name", "members"]

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x1
MOST_DEFLATED = 1032  # bytes that one byte of deflate can stand for
MAX_MEMBERS = 10_000_000
TAIL_BYTES = 256 << 10  # read at once from the end: the whole list of most archives

END = struct.Struct("<4sHHHHIIH")
END64 = struct.Struct("<4sQHHIIQQQQ")
LOCATOR64 = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
LOCAL_BYTES = 30
FULL = 0xFFFFFFFF  # of a field: its value is in the zip64 extra field
OUTSIDE = re.compile(r"^([/\\]|[A-Za-z]:[/\\])|(^|[/\\])\.\.([/\\]|$)|\0")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive.

    Attributes
    ----------
    header_offset, end_offset
        Where its local header lies, and where the next thing in the archive does.
    stored_bytes, size_bytes
        As it lies in the archive, and unpacked.
    method
        0: stored as it is; 8: deflate.
    """

    name: str
    header_offset: int
    end_offset: int
    stored_bytes: int
    size_bytes: int
    method: int
    crc32: int


def members(file: File) -> dict[str, Member]:
    """The members of the archive by name, in the order in which they lie; no folders.

    One read of the archive's end, another one where the list is longer than `TAIL_BYTES`.

    Raises
    ------
    FormatError
        No archive, an encrypted one, or one whose members overlap, lie outside of it, share a name
        or are said to unpack to more than they can.
    UnsafeError
        A member is named for a place outside of the folder that the archive is unpacked in.
    """
    start, data, shift = _directory(file)
    try:
        listed = sorted(_entries(file, start, data, shift), key=lambda m: m.header_offset)
    except (struct.error, UnicodeDecodeError) as error:
        raise _broken(file, str(error)) from error
    found: dict[str, Member] = {}
    limits = [*(member.header_offset for member in listed[1:]), start]
    for member, limit in zip(listed, limits, strict=False):
        if member.end_offset > limit:
            what = "runs into the list of members" if limit == start else "overlaps the next one"
            raise FormatError(f"{file.name}: member {member.name!r} {what}: damaged")
        if member.name in found:
            raise FormatError(f"{file.name}: member {member.name!r} comes twice: which is meant?")
        if not member.name.endswith("/"):
            found[member.name] = replace(member, end_offset=limit)
    return found


def _entries(file: File, start: int, data: bytes, shift: int) -> Iterator[Member]:
    """Each member, ending where it does if its local header has no extra fields."""
    at = 0
    while at < len(data):
        magic, *middle, offset = ENTRY.unpack_from(data, at)
        _, _, flags, method, _, _, crc, stored, size, names, extras, comment, *_ = middle
        if magic != b"PK\x01\x02":
            raise _broken(file, f"no entry where one is due, at byte {start + at}")
        at += ENTRY.size
        raw, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comment
        if at > len(data):
            raise _broken(file, "its last entry is cut off")
        name = decoded_name(raw, flags)
        size, stored, offset = _wide(extra, [size, stored, offset])
        first = offset + shift
        end = first + LOCAL_BYTES + names + stored
        member = Member(name, first, end, stored, size, method, crc)
        _check(file, member, flags)
        yield member


def decoded_name(raw: bytes, flags: int) -> str:
    """UTF-8 where the flags say so, else the code page of old."""
    return raw.decode("utf-8" if flags & 0x800 else "cp437")


def _check(file: File, member: Member, flags: int) -> None:
    if OUTSIDE.search(member.name):
        raise UnsafeError(
            f"{file.name}: member {member.name!r} is named for a place outside of the archive; "
            "such archives are not read: write it again with plain names"
        )
    if flags & ENCRYPTED:
        raise FormatError(
            f"{file.name}: member {member.name!r} is encrypted; unpack the archive first"
        )
    if member.method == DEFLATED and member.size_bytes > MOST_DEFLATED * (member.stored_bytes + 1):
        raise FormatError(
            f"{file.name}: member {member.name!r} is said to unpack from {member.stored_bytes} to "
            f"{member.size_bytes} bytes: more than deflate can hold"
        )


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """The values, those that are full taken from the zip64 field: size, stored size, offset."""
    at = 0
    while FULL in values and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length // 8, 3)}Q", extra, at))
            return [next(wide, value) if value == FULL else value for value in values]
        at += length
    return values


def _directory(file: File) -> tuple[int, bytes, int]:
    """Where the list begins, its bytes, and by how much all offsets are short: by what lies before
    the archive in the file.
    """
    tail_at = max(file.size_bytes - TAIL_BYTES, 0)
    tail = _read(file, tail_at, file.size_bytes - tail_at)
    at = _end_record(file, tail)
    disks = END.unpack_from(tail, at)[1:3]
    count, n_bytes, offset = END.unpack_from(tail, at)[4:7]
    end = tail_at + at
    if tail[max(at - LOCATOR64.size, 0) : at].startswith(b"PK\x06\x07"):
        end, count, n_bytes, offset = _end64(file, tail, tail_at, at)
    if any(disks) and disks != (0xFFFF, 0xFFFF):
        raise _broken(file, "it is one part of several; join them first")
    start = end - n_bytes
    shift = start - offset
    if start < 0 or shift < 0:
        raise _broken(file, f"{n_bytes} bytes from {offset} on, and it ends at {end}")
    if count > MAX_MEMBERS or n_bytes < count * ENTRY.size:
        raise _broken(file, f"{count} members in {n_bytes} bytes; at most {MAX_MEMBERS} are read")
    if start >= tail_at:
        return start, tail[start - tail_at : end - tail_at], shift
    return start, _read(file, start, n_bytes), shift


def _end_record(file: File, tail: bytes) -> int:
    """Where in the tail the record lies that ends an archive: the last one whose comment fits."""
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + END.size <= len(tail):
            comment = END.unpack_from(tail, at)[7]
            if at + END.size + comment <= len(tail):
                return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    raise FormatError(
        f"{file.name}: a zip archive without the list of members that ends one: it was cut off. "
        "Get it again"
    )


def _end64(file: File, tail: bytes, tail_at: int, at: int) -> tuple[int, int, int, int]:
    """Where the list ends, and members, bytes and offset of it, of a zip64 archive."""
    stated = LOCATOR64.unpack_from(tail, at - LOCATOR64.size)[2]
    # What lies before the archive moves the record, so it is looked for before its locator first.
    for place in (tail_at + at - LOCATOR64.size - END64.size, stated):
        if 0 <= place <= file.size_bytes - END64.size:
            record = END64.unpack(_read(file, place, END64.size))
            if record[0] == b"PK\x06\x06":
                return place, *record[7:]
    raise _broken(file, "its zip64 record is not where it should be")


def _read(file: File, offset: int, n_bytes: int) -> bytes:
    data = bytearray(n_bytes)
    got = file.checked()([memoryview(data)], offset) if n_bytes else 0
    if got < n_bytes:
        raise _broken(file, f"the file ends {n_bytes - got} bytes too early")
    return bytes(data)


def _broken(file: File, what: str) -> FormatError:
    return FormatError(f"{file.name}: its list of members cannot be read: {what}")
