"""A deflated member in a nameless temporary file: for what cannot be read from front to back."""

from __future__ import annotations

import os
import tempfile
import threading

from epochal.errors import EpochalError, FormatError, ScratchError
from epochal.stores.archive_directory import Member
from epochal.stores.archive_inflate import Inflater
from epochal.stores.descriptor import Handle
from epochal.stores.file import File, Read

__all__ = ["UnpackedCopy", "temporary_folder"]

BLOCK_BYTES = 256 << 10


def temporary_folder() -> str:
    """Where copies go: `EPOCHAL_SCRATCH`, `TMPDIR`, ``/var/tmp`` (on disk where ``/tmp`` is often
    memory), or what Python takes for temporary files.
    """
    named = os.environ.get("EPOCHAL_SCRATCH") or os.environ.get("TMPDIR")
    return named or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())


class UnpackedCopy:
    """A deflated member as a file that is read at any position.

    Unpacked when it is first read, once in a process and its forks; takes its unpacked size of
    temporary space (`temporary_folder`) until it is closed.
    """

    in_flight = 1
    copy_bytes = 0

    def __init__(self, inside: File, member: Member) -> None:
        self.name, self.size_bytes = inside.name, member.size_bytes
        self._inside, self._member = inside, member
        self._closed = False
        self._copy: Handle | None = None
        # By process: a fork must not wait for a lock that a thread holds which it does not have.
        self._locks: dict[int, threading.Lock] = {}

    def __getstate__(self) -> tuple[File, Member]:
        return self._inside, self._member

    def __setstate__(self, state: tuple[File, Member]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def checked(self) -> Read:
        """Reads of the copy, known to be of the file that was opened.

        Raises `ScratchError` where there is no room for it.
        """
        self._inside.checked()
        copy = self._copy
        if copy is None:
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                copy = self._copy or self._unpacked()
                self._copy = None if self._closed else copy
        return copy

    def fits(self) -> bool:
        """Whether it would take no more than half of the temporary space that is free."""
        try:
            status = os.statvfs(temporary_folder())
        except OSError:
            return False
        return 2 * self.size_bytes <= status.f_bavail * status.f_frsize

    def _unpacked(self) -> Handle:
        if self._closed:
            raise FormatError(f"{self.name}: asked for rows of a store that was closed")
        folder = temporary_folder()
        try:
            with tempfile.TemporaryFile(buffering=0, dir=folder) as copy:
                self._unpack_into(copy.fileno())
                return Handle(os.dup(copy.fileno()))
        except OSError as error:
            if isinstance(error, EpochalError):
                raise
            raise ScratchError(
                f"{self.name}: cannot be unpacked into {folder!r}, which takes {self.size_bytes} "
                f"bytes there: {error.strerror}. Name another folder in the environment variable "
                "EPOCHAL_SCRATCH, or write the archive again without compression"
            ) from error

    def _unpack_into(self, fd: int) -> None:
        inflater = Inflater(self._inside, self._member)
        block = memoryview(bytearray(min(BLOCK_BYTES, self.size_bytes)))
        at = 0
        while at < self.size_bytes:
            part = block[: min(len(block), self.size_bytes - at)]
            inflater.read_into(part)
            while part:
                written = os.pwrite(fd, part, at)
                at += written
                part = part[written:]

    def close(self) -> None:
        """Give the space back, once nobody reads there any more."""
        self._closed = True
        self._copy = None
