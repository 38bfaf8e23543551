"""Archives of arrays: ``.npz``. Stored members are read in place, compressed ones as a stream."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from epochal.errors import DamageError, EpochalError, FormatError, UnsafeError
from epochal.stores.archive import DEFLATED, STORED, Member, members, open_member, packed
from epochal.stores.archive_copy import UnpackedCopy
from epochal.stores.archive_inflate import Inflater
from epochal.stores.file import File
from epochal.stores.npy import name_of, source_in, source_of
from epochal.stores.npy_fortran import FortranSource
from epochal.stores.npy_header import FIRST_BYTES, Header, check_rows_fit, end_of, read_header
from epochal.stores.npz_scipy import PARTS, matrix_of
from epochal.stores.npz_stream import StreamedSource
from epochal.stores.source import Source
from epochal.stores.store import Other

__all__ = ["NpzStore"]


class NpzStore:
    """One ``.npz`` file: a source for each member ``NAME.npy`` that has rows.

    A matrix that scipy saved is a group named as the file is, of its parts.
    """

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._file = file
        self.name = file.name
        self.sources: dict[str, Any] = {}
        self.groups: Mapping[str, Mapping[str, Any]] = {}
        self._copies: list[StreamedSource | UnpackedCopy] = []
        listed = members(file)
        matrix = matrix_of(file, listed, name_of(file.name, ".npz"))
        if matrix is not None:
            self.groups = {matrix.name: matrix.attributes}
        others: list[Other] = []
        for member in listed.values():
            name = member.name.removesuffix(".npy")
            if name == member.name:
                others.append(Other(name, "not an array: its name does not end in .npy"))
                continue
            if matrix is not None and name in matrix.about:
                continue
            if matrix is not None and name in PARTS:
                name = f"{matrix.name}/{name}"
            try:
                self.sources[name] = self._source(member, name)
            except EpochalError as error:
                unsafe, damaged = isinstance(error, UnsafeError), isinstance(error, DamageError)
                others.append(Other(name, str(error), unsafe=unsafe, damaged=damaged))
        self.others = tuple(others)

    def _source(self, member: Member, name: str) -> Source:
        if member.method == STORED:
            return source_in(open_member(self._file, member), name)
        if member.method != DEFLATED:
            open_member(self._file, member)  # says what is wrong
        inside = packed(self._file, member)
        header = _header(inside, member)
        if not header.nbytes:
            return source_of(inside, header, name)
        if header.by_columns:
            # Each block of its rows lies all over the member: unpacked once rather than once a
            # block.
            copy = UnpackedCopy(inside, member)
            self._copies.append(copy)
            return FortranSource(name, header, copy, "deflate, columns first")
        streamed = StreamedSource(name, header, inside, member)
        self._copies.append(streamed)
        return streamed

    def close(self) -> None:
        """Give back the descriptor and temporary space."""
        self._file.close()
        for copy in self._copies:
            copy.close()


def _header(inside: File, member: Member) -> Header:
    """The header of a deflated array, whose rows are all that follows."""
    inflater = Inflater(inside, member)
    head = bytearray(min(member.size_bytes, FIRST_BYTES))
    inflater.read_into(memoryview(head))
    if len(head) < (end := end_of(bytes(head), inside.name)) <= member.size_bytes:
        more = bytearray(end - len(head))
        inflater.read_into(memoryview(more))
        head += more
    header = read_header(bytes(head), inside.name)
    check_rows_fit(header, member.size_bytes, inside.name)
    if header.offset + header.nbytes < member.size_bytes:
        # Its sum would never be checked, since nobody reads so far.
        raise FormatError(
            f"{inside.name}: {header.shape} of {header.dtype} ends after "
            f"{header.offset + header.nbytes} of {member.size_bytes} bytes: damaged"
        )
    return header
