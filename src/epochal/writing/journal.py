r"""A redo journal beside a file: after a kill it tells whether a change is to be undone or done.

It is locked by whoever changes the file, and removed when the change is on the disk::

    "epochal journal 1\\n", old size, sums of the first and the last page
    below it, CRC-32 of all that                                          from the beginning
    then, appended at commit, for each page: offset, length, bytes
    "commit", new size, number of pages, CRC-32 of all records             or it was not committed
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from epochal.errors import TargetError
from epochal.stores.manifest import crc32
from epochal.writing.disk import is_at, sync, write_at, writing_to

__all__ = ["PAGE_BYTES", "Journal", "journal_of", "recover"]

MAGIC = b"epochal journal 1\n"
HEAD = struct.Struct("<QIII")  # old size, sums of its first and last page, sum of all that
PAGE = struct.Struct("<QQ")  # offset, length
COMMIT = struct.Struct("<8sQQI")  # mark, new size, number of pages, sum of all records before
MARK = b"commit\0\0"
PAGE_BYTES = 4096  # of what is changed and journalled at once
WAIT_SECONDS = 2.0  # for another process that mends the same file, which takes milliseconds


def journal_of(path: str) -> str:
    """The journal of a file.

    >>> journal_of("/data/x.h5")
    '/data/.x.h5.epochal-journal'
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.epochal-journal")


class Journal:
    """The journal of a change that is being made; nobody else changes the file meanwhile."""

    def __init__(self, path: str, fd: int, old_size: int) -> None:
        self._name, self._path = journal_of(path), path
        self._fd = _locked(self._name, path)
        if os.fstat(fd).st_size != old_size:
            raise TargetError(f"{path}: another process has written it meanwhile")
        os.ftruncate(self._fd, 0)
        head = MAGIC + HEAD.pack(old_size, *_marks(fd, old_size), 0)[:-4]
        write_at(self._fd, head + struct.pack("<I", crc32(head)), 0)
        os.fsync(self._fd)
        sync(os.path.dirname(os.path.abspath(path)))

    def note(self, pages: Iterable[tuple[int, bytes]]) -> tuple[int, int, int]:
        """Write pages down: where they end, how many there are, and their sum."""
        at, total, count = len(MAGIC) + HEAD.size, 0, 0
        for offset, data in pages:
            record = PAGE.pack(offset, len(data)) + data
            total = crc32(struct.pack("<I", total) + struct.pack("<I", crc32(record)))
            write_at(self._fd, record, at)
            at, count = at + len(record), count + 1
        os.fsync(self._fd)
        return at, count, total

    def commit(self, new_size: int, at: int, count: int, total: int) -> None:
        """From here on the change is to be done. Where that cannot be written it is not."""
        head = struct.pack("<8sQQ", MARK, new_size, count)
        total = crc32(struct.pack("<I", total) + head)
        try:
            write_at(self._fd, head + struct.pack("<I", total), at)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, at)
            os.fsync(self._fd)
            raise

    def remove(self) -> None:
        """The change is done, or undone."""
        os.unlink(self._name)
        self.close()
        sync(os.path.dirname(os.path.abspath(self._path)))

    def close(self) -> None:
        """Leave it as it is, for `recover`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _marks(fd: int, size: int) -> tuple[int, int]:
    """Sums of the first and the last page below a size: whether a file is the one that it was."""
    last = max(size - PAGE_BYTES, 0)
    return crc32(os.pread(fd, min(PAGE_BYTES, size), 0)), crc32(os.pread(fd, size - last, last))


def _locked(journal: str, path: str) -> int:
    """The journal, opened and locked, made where it is not there."""
    while True:
        fd = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise _busy(path) from None
        if is_at(fd, journal):
            return fd
        os.close(fd)  # whoever had it has ended, and removed it


def _found(journal: str, path: str) -> int | None:
    """The journal that is there, locked; None where it is gone, maybe since another mended it."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fd = os.open(journal, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(fd, journal):
                return fd
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(fd)
                raise _busy(path) from None
            time.sleep(0.01)
        os.close(fd)


def _busy(path: str) -> TargetError:
    return TargetError(f"{path}: another process is writing it: wait until it is done")


class _Committed(NamedTuple):
    """A journal that is whole."""

    new_size: int
    pages: list[tuple[int, int, int]]  # offset in the file, offset in the journal, length


def recover(path: str) -> str | None:
    """Finish or undo what a killed process left: ``"finished"``, ``"undone"``, None if nothing.

    May be called again after a kill in it. Costs one ``stat`` where there is no journal.

    Raises
    ------
    TargetError
        The journal is in use, is that of another file, or the file cannot be written to.
    """
    journal = journal_of(path)
    if not os.path.exists(journal):
        return None
    with writing_to(path):
        fd = _found(journal, path)
        if fd is None:
            return None
        try:
            done = _recover(path, journal, fd)
            os.unlink(journal)
        finally:
            os.close(fd)
        sync(os.path.dirname(os.path.abspath(path)))
    return done


def _recover(path: str, journal: str, fd: int) -> str | None:
    head = os.pread(fd, len(MAGIC) + HEAD.size, 0)
    old = _old_file(head)
    if old is None:
        return None  # killed before it had changed anything
    if not os.path.exists(path):
        raise TargetError(f"{journal}: what it is the journal of is gone: remove it")
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        committed = _read_commit(fd, len(head))
        if committed is None:
            if size < old.size or _marks(file, old.size) != old.marks:
                raise _another(path, journal)
            os.ftruncate(file, old.size)
            os.fsync(file)
            return "undone" if size > old.size else None
        if not _is_of(file, size, old, committed, fd):
            raise _another(path, journal)
        for offset, at, n in committed.pages:
            write_at(file, os.pread(fd, n, at), offset)
        os.ftruncate(file, committed.new_size)
        os.fsync(file)
        return "finished"
    finally:
        os.close(file)


def _another(path: str, journal: str) -> TargetError:
    return TargetError(
        f"{path} is not the file that {journal} is the journal of: another was put in its place. "
        "Remove the journal"
    )


def _is_of(file: int, size: int, old: _Old, committed: _Committed, journal: int) -> bool:
    """Whether a file is what a change was made to, or is half done: its first or its last page is
    still as it was, or as it is to be.
    """
    if size < min(old.size, committed.new_size):
        return False
    if any(mine == due for mine, due in zip(_marks(file, old.size), old.marks, strict=True)):
        return True
    begins = (0, max(old.size - PAGE_BYTES, 0))
    return any(_is_done(file, begin, old.size, committed, journal) for begin in begins)


def _is_done(file: int, begin: int, size: int, committed: _Committed, journal: int) -> bool:
    """Whether a page was to be changed, and is."""
    there = os.pread(file, min(PAGE_BYTES, size - begin), begin)
    page, touched = bytearray(there), False
    for offset, at, n in committed.pages:
        low, high = max(offset, begin), min(offset + n, begin + len(page))
        if low < high:
            touched = True
            page[low - begin : high - begin] = os.pread(journal, high - low, at + low - offset)
    return touched and bytes(page) == there


class _Old(NamedTuple):
    """The file before a change."""

    size: int
    marks: tuple[int, int]


def _old_file(head: bytes) -> _Old | None:
    if len(head) < len(MAGIC) + HEAD.size or not head.startswith(MAGIC):
        return None
    size, first, last, total = HEAD.unpack_from(head, len(MAGIC))
    return _Old(int(size), (first, last)) if total == crc32(head[:-4]) else None


def _read_commit(fd: int, at: int) -> _Committed | None:
    """What was committed; None where the journal ends before it, or is torn."""
    total = 0
    pages: list[tuple[int, int, int]] = []
    while True:
        record = os.pread(fd, PAGE.size, at)
        if record.startswith(MARK):
            data = os.pread(fd, COMMIT.size, at)
            if len(data) < COMMIT.size:
                return None
            _, new_size, count, due = COMMIT.unpack(data)
            whole = crc32(struct.pack("<I", total) + data[:-4]) == due and count == len(pages)
            return _Committed(new_size, pages) if whole else None
        if len(record) < PAGE.size:
            return None
        offset, n = PAGE.unpack(record)
        if n > PAGE_BYTES:
            return None
        data = os.pread(fd, n, at + PAGE.size)
        if len(data) < n:
            return None
        total = crc32(struct.pack("<I", total) + struct.pack("<I", crc32(record + data)))
        pages.append((offset, at + PAGE.size, n))
        at += PAGE.size + n
