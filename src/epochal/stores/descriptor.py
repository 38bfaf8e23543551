"""A file read at positions: shared by threads, inherited by forks, reopened after pickling."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from epochal.errors import ChangedError, FileMissingError, FormatError
from epochal.stores.file import Read

__all__ = ["Descriptor", "Handle", "Stamp"]

IOV_MAX = 1024


class Stamp(NamedTuple):
    """What tells whether a file is still the one that was opened."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """From what ``stat`` says."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def at(cls, path: str) -> Stamp:
        """Of the file that is at `path` now."""
        return cls.of(os.stat(path))


class Handle:
    """An open descriptor, its own from now on: closed when nobody reads by it any more."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    def __call__(self, parts: Sequence[memoryview], offset: int) -> int:
        """See `epochal.stores.file.Read`."""
        return read_into(self.fd, parts, offset)


# Files that are open, in the order in which they were opened. Of a thousand files read as one only
# so many stay open: the oldest is let go of, which closes it once no thread reads by it.
MAX_OPEN = 256
_opened: deque[weakref.ref[Descriptor]] = deque()


class Descriptor:
    """A local file (`epochal.stores.file.File`): a plain descriptor that is opened when first read.

    A fork may go on with it, since ``pread`` shares no position; another process reopens the path.
    Either way the file must look as it did when its index was taken.
    """

    in_flight = 1
    copy_bytes = 0

    def __init__(self, path: str, stamp: Stamp) -> None:
        self.path = self.name = path
        self.stamp = stamp
        self.size_bytes = stamp.size_bytes
        self._closed = False
        # The handle, under the key 0, once it is open. A dict, since its `setdefault` settles a
        # race of two threads without a lock, which a fork might find held for ever.
        self._open: dict[int, Handle] = {}

    def __getstate__(self) -> tuple[str, Stamp, bool]:
        return self.path, self.stamp, self._closed

    def __setstate__(self, state: tuple[str, Stamp, bool]) -> None:
        self.__init__(state[0], state[1])  # type: ignore[misc]
        self._closed = state[2]

    def checked(self) -> Read:
        """Reads of the file, unchanged since it was indexed. Costs one ``fstat``."""
        handle = self._open.get(0) or self._reopen()
        self._compare(os.fstat(handle.fd))
        return handle

    def close(self) -> None:
        """Give the descriptor back."""
        self._closed = True
        self._open.pop(0, None)

    def _reopen(self) -> Handle:
        if self._closed:
            raise FormatError(
                f"{self.path}: asked for rows of a store that was closed; open the file again"
            )
        handle = self._open.setdefault(0, Handle(open_for_reading(self.path)))
        _opened.append(weakref.ref(self))
        while len(_opened) > MAX_OPEN:
            oldest = _opened.popleft()()
            if oldest is not None and oldest is not self:
                oldest._open.pop(0, None)
        return handle

    def _compare(self, status: os.stat_result) -> None:
        s = self.stamp
        if (
            status.st_mtime_ns == s.modified_ns
            and status.st_size == s.size_bytes
            and status.st_ino == s.inode
            and status.st_dev == s.device
        ):
            return
        raise changed(self.path, s, Stamp.of(status))


def changed(path: str, was: Stamp, now: Stamp) -> ChangedError:
    """The error for a file that is not the one that was indexed."""
    if (was.device, was.inode) != (now.device, now.inode):
        what = "another file was put in its place"
    elif was.size_bytes != now.size_bytes:
        what = f"it had {was.size_bytes} bytes, now it has {now.size_bytes}"
    else:
        what = "it was written to"
    return ChangedError(
        f"{path} is no longer the file that was opened: {what}. Its index is out of date, so "
        "reading on could give wrong rows. Open it again when nothing writes to it"
    )


def open_for_reading(path: str) -> int:
    """A descriptor, or an error that says what stands in the way."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileMissingError(f"{path}: there is no such file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be opened for reading: {error.strerror}") from error


def read_into(fd: int, parts: Sequence[memoryview], offset: int) -> int:
    """Fill `parts` one after another from `offset` on; the bytes that the file had for them."""
    if len(parts) == 1:
        return _read_one(fd, parts[0], offset)
    total = 0
    for first in range(0, len(parts), IOV_MAX):
        some = parts[first : first + IOV_MAX]
        wanted = sum(len(part) for part in some)
        got = os.preadv(fd, some, offset + total)
        if got < wanted:
            got = sum(_continue(fd, some, offset + total, got))
        total += got
        if got < wanted:
            break
    return total


def _continue(fd: int, parts: Sequence[memoryview], offset: int, got: int) -> list[int]:
    """Bytes of each part after a read that stopped at `got`: the rest is read part by part."""
    filled, at = [], 0
    for part in parts:
        have = min(max(got - at, 0), len(part))
        filled.append(
            have + (_read_one(fd, part[have:], offset + at + have) if have < len(part) else 0)
        )
        at += len(part)
    return filled


def _read_one(fd: int, part: memoryview, offset: int) -> int:
    got = os.preadv(fd, (part,), offset)
    if got == len(part) or got == 0:
        return got
    done = got
    while done < len(part) and (got := os.preadv(fd, (part[done:],), offset + done)):
        done += got
    return done
