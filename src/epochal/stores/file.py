"""Bytes at positions: what every store reads through, wherever the bytes are.

A `File` is one run of bytes that must not change while it is open; a `Tree` is many of them by
name. Both pickle as what names them, and reopen by themselves in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from epochal.errors import FormatError

__all__ = ["File", "Read", "Slice", "Tree", "read_whole"]

Read = Callable[[Sequence[memoryview], int], int]
"""Fill some buffers one after another with the bytes from a position on; how many there were."""


class File(Protocol):
    """One file: local, inside an archive, or remote. Threads share it."""

    @property
    def name(self) -> str:
        """For people: the path or URL."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its length when it was opened."""
        ...

    @property
    def in_flight(self) -> int:
        """How many reads are worth having under way at once: 1 for a local file, whose readers
        also decode; more where each waits for a network.
        """
        ...

    @property
    def copy_bytes(self) -> int:
        """What one read holds beside its buffers, at most: 0 for a local file."""
        ...

    def checked(self) -> Read:
        """What reads it, known to be still the file that was opened; good for one call of a source.

        Raises `ChangedError`, `FormatError` once it is closed.
        """
        ...

    def close(self) -> None:
        """Give back what the system lent; nothing may be read any more."""
        ...


class Tree(Protocol):
    """Files by key (``"X/c/0/0"``): a directory, an archive, or what lies below a URL."""

    @property
    def name(self) -> str:
        """For people: the path or URL."""
        ...

    @property
    def in_flight(self) -> int:
        """That of its files."""
        ...

    @property
    def copy_bytes(self) -> int:
        """That of its files, the most."""
        ...

    def file(self, key: str, size_bytes: int | None = None) -> File:
        """The file of that key. Raises `FileMissingError` if there is none.

        `size_bytes` is what `sizes` said of it: a tree far away then takes its word for it, and
        whoever reads the file learns if it is another one by now.
        """
        ...

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and length of each file whose key begins with `prefix`, in any order: one listing."""
        ...

    def close(self) -> None:
        """Give back what the system lent."""
        ...


class Slice:
    """A part of a file as a file: a stored member of an archive, or an array in a container."""

    def __init__(self, file: File, offset: int, size_bytes: int, name: str) -> None:
        if offset < 0 or size_bytes < 0 or offset + size_bytes > file.size_bytes:
            raise FormatError(
                f"{name}: bytes {offset} to {offset + size_bytes} of a file of {file.size_bytes}"
            )
        self.name, self.size_bytes = name, size_bytes
        self._file, self._offset = file, offset

    @property
    def in_flight(self) -> int:
        """That of the file."""
        return self._file.in_flight

    @property
    def copy_bytes(self) -> int:
        """That of the file."""
        return self._file.copy_bytes

    def checked(self) -> Read:
        """Reads that end where the slice does."""
        read = self._file.checked()

        def read_slice(parts: Sequence[memoryview], offset: int) -> int:
            left = max(self.size_bytes - offset, 0)
            if sum(map(len, parts)) > left:
                parts = list(_cut(parts, left))
            return read(parts, self._offset + offset) if parts else 0

        return read_slice

    def close(self) -> None:
        """The file is its owner's to close."""


def _cut(parts: Sequence[memoryview], n_bytes: int) -> Iterator[memoryview]:
    for part in parts:
        if not n_bytes:
            return
        yield part[:n_bytes]
        n_bytes -= min(len(part), n_bytes)


def read_whole(file: File, limit_bytes: int) -> bytes:
    """All bytes of a small file. Raises `FormatError` where it is larger than `limit_bytes`, or
    ends too early.
    """
    if file.size_bytes > limit_bytes:
        raise FormatError(
            f"{file.name}: {file.size_bytes} bytes where at most {limit_bytes} make sense"
        )
    data = bytearray(file.size_bytes)
    got = file.checked()([memoryview(data)], 0) if data else 0
    if got < len(data):
        raise FormatError(f"{file.name}: ends after {got} of {len(data)} bytes")
    return bytes(data)
