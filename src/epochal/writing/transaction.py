r"""One file changed in one step, wherever the process is killed: old until it is all new.

Bytes past the file's old end are written to it at once: they are nobody's until something before
them says that they are there. Bytes before it are kept here, as pages, and go to a *redo journal*
first. A kill before the journal is whole leaves the old file, with something past its end that
`recover` cuts off; a kill after it leaves a journal from which `recover` makes the new one. The
journal is a file beside the file::

    "epochal journal 1\\n", old size, sums of the first and the last page
    below it, CRC-32 of all that                                          from the beginning
    then, appended at commit, for each run of pages: offset, length, bytes
    "commit", new size, number of runs, CRC-32 of all records              or it was not committed

It is locked by whoever writes, and removed when the change is on the disk.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from epochal.errors import TargetError
from epochal.stores.manifest import crc32
from epochal.writing.target import is_at, sync_folder, told, writing_to

__all__ = ["Transaction", "edit_bytes", "journal_of", "recover"]

MAGIC = b"epochal journal 1\n"
HEAD = struct.Struct("<QIII")  # old size, sums of its first and last page, sum of all that
RUN = struct.Struct("<QQ")  # offset, length
COMMIT = struct.Struct("<8sQQI")  # mark, new size, number of runs, sum of all records before
MARK = b"commit\0\0"
PAGE_BYTES = 4096
WAIT_SECONDS = 2.0  # for another process that mends the same file, which takes milliseconds


def journal_of(path: str) -> str:
    """The journal of a file.

    >>> journal_of("/data/x.h5")
    '/data/.x.h5.epochal-journal'
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.epochal-journal")


class Transaction(io.RawIOBase):
    """A file that h5py may write to (its file-like objects), and that changes by `commit` alone.

    Holds the pages before the old end that were written, some kilobytes of metadata where HDF5
    grows. What h5py calls never raises, since libhdf5 would crash the process (h5py 3.16 with HDF5
    2.0): the first error is kept in `error`, nothing is written any more, and whoever calls h5py
    looks.

    Parameters
    ----------
    path
        The file; a new one where nothing is there, which needs no journal until its first `commit`.
    journal
        See `journal_of`.

    Raises
    ------
    TargetError
        The file cannot be written, or another process writes it.
    """

    def __init__(self, path: str, journal: str) -> None:
        super().__init__()
        self._path, self._journal_path = path, journal
        self.error: TargetError | None = None
        self._fd, self._journal = -1, -1
        self._at = 0
        self._pages: dict[int, bytearray] = {}
        self._redoing = False
        recover(path, journal)
        with writing_to(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._base = self._size = os.fstat(self._fd).st_size

    @property
    def overlay_bytes(self) -> int:
        """Bytes that are held until `commit`."""
        return len(self._pages) * PAGE_BYTES

    # What h5py calls ---------------------------------------------------------

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, past the end as well."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = begin + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on; the bytes that were there."""
        view = memoryview(buffer).cast("B")
        try:
            got = self.pread_into(view, self._at)
        except TargetError:
            got = len(view)
        self._at += got
        return got

    def write(self, data: Any) -> int:
        """Write at the position."""
        view = memoryview(data).cast("B")
        with suppress(TargetError):
            self.pwrite(view, self._at)
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Let the file end there, once it is committed."""
        end = self._at if size is None else size
        with suppress(TargetError), self._remembering():
            self._fill_gap(end)
            if end > self._base:
                self._begin()
            os.ftruncate(self._fd, max(end, self._base))
        self._size = end
        return end

    def flush(self) -> None:
        """Nothing is buffered here that `commit` would not write."""

    # -------------------------------------------------------------------------

    def pread_into(self, view: memoryview, at: int) -> int:
        """Fill a view from there, as the file will be; the bytes that it has for it."""
        end = min(at + len(view), self._size)
        if end <= at:
            return 0
        with self._remembering():
            got = 0
            while got < end - at and (n := os.preadv(self._fd, [view[got : end - at]], at + got)):
                got += n
            view[got : end - at] = bytes(end - at - got)
            if at < self._base and self._pages:
                for number in range(at // PAGE_BYTES, -(-end // PAGE_BYTES)):
                    page = self._pages.get(number)
                    if page is not None:
                        _copy_page(page, number, view, at, min(end, self._base))
        return end - at

    def pwrite(self, data: Any, at: int) -> None:
        """Write there: to the file past its old end, to pages before it."""
        view = memoryview(data).cast("B")
        with self._remembering():
            self._fill_gap(at)
            if at < self._base:
                n = min(len(view), self._base - at)
                self._keep(view[:n], at)
                self._size = max(self._size, at + n)
                view, at = view[n:], at + n
            if len(view):
                self._begin()
                _write_all(self._fd, view, at)
                self._size = max(self._size, at + len(view))

    def _fill_gap(self, end: int) -> None:
        """Zeros from where the file was cut, before its old end, up to there."""
        stop = min(end, self._base)
        if self._size < stop:
            self._keep(memoryview(bytes(stop - self._size)), self._size)
            self._size = stop

    def _keep(self, view: memoryview, at: int) -> None:
        """Put bytes on pages, which are read first."""
        done = 0
        while done < len(view):
            number, within = divmod(at + done, PAGE_BYTES)
            n = min(PAGE_BYTES - within, len(view) - done)
            page = self._pages.get(number)
            if page is None:
                page = bytearray(PAGE_BYTES)
                if n < PAGE_BYTES:
                    os.preadv(self._fd, [page], number * PAGE_BYTES)
                self._pages[number] = page
            page[within : within + n] = view[done : done + n]
            done += n

    def _begin(self) -> None:
        """Note the old size, before anything is written past it."""
        if self._journal >= 0 or not self._base:
            return
        self._journal = _locked(self._journal_path, self._path)
        if os.fstat(self._fd).st_size != self._base:
            raise TargetError(f"{self._path}: another process has written it meanwhile")
        os.ftruncate(self._journal, 0)
        head = MAGIC + HEAD.pack(self._base, *_marks(self._fd, self._base), 0)[:-4]
        _write_all(self._journal, head + struct.pack("<I", crc32(head)), 0)
        os.fsync(self._journal)
        sync_folder(os.path.dirname(os.path.abspath(self._path)))

    def commit(self) -> None:
        """Make the change, on the disk when this returns; what is written afterwards is another.

        Raises
        ------
        TargetError
            The disk is full, say: the file is as it was.
        """
        if self.error is not None:
            raise self.error
        with self._remembering():
            os.fsync(self._fd)
            if self._base and (self._pages or self._size != self._base):
                self._begin()
                self._redo()
            else:
                os.ftruncate(self._fd, self._size)
                os.fsync(self._fd)
            self._pages.clear()
            self._base = self._size

    def _redo(self) -> None:
        """Journal the pages, then write them where they belong."""
        at = len(MAGIC) + HEAD.size
        total, count = 0, 0
        for offset, data in self._runs():
            record = RUN.pack(offset, len(data)) + data
            total = crc32(struct.pack("<I", total) + struct.pack("<I", crc32(record)))
            _write_all(self._journal, record, at)
            at += len(record)
            count += 1
        os.fsync(self._journal)
        head = struct.pack("<8sQQ", MARK, self._size, count)
        total = crc32(struct.pack("<I", total) + head)
        self._redoing = True  # from here on it may be committed, and is for `recover` to finish
        try:
            _write_all(self._journal, head + struct.pack("<I", total), at)
            os.fsync(self._journal)
        except OSError:
            os.ftruncate(self._journal, at)
            os.fsync(self._journal)
            self._redoing = False  # it is not: so it can be undone
            raise
        for offset, data in self._runs():
            _write_all(self._fd, data, offset)
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self._end_journal()
        self._redoing = False

    def _runs(self) -> Iterable[tuple[int, bytes]]:
        """Pages that were written, none of it past the old or the new end, and some at a time."""
        limit = min(self._base, self._size)
        for number in sorted(self._pages):
            first = number * PAGE_BYTES
            if first < limit:
                yield first, bytes(self._pages[number][: limit - first])

    def _end_journal(self) -> None:
        if self._journal >= 0:
            os.unlink(self._journal_path)
            os.close(self._journal)
            self._journal = -1
            sync_folder(os.path.dirname(os.path.abspath(self._path)))

    def rollback(self) -> None:
        """Leave the file as it was at the last `commit`; one that failed as it was changing the
        file is left to `recover`, which the next to open it calls.
        """
        self._pages.clear()
        if self._fd < 0 or self._redoing:
            return
        with writing_to(self._path):
            os.ftruncate(self._fd, self._base)
            self._size = self._base
            if self._journal >= 0:
                os.fsync(self._fd)
            self._end_journal()

    def close(self) -> None:
        """Give descriptors back; what was not committed is not done, but past the old end."""
        for fd in (self._fd, self._journal):
            if fd >= 0:
                os.close(fd)
        self._fd = self._journal = -1
        super().close()

    def _remembering(self) -> _Remembering:
        return _Remembering(self)


class _Remembering:
    """A context in which the first `OSError` is kept with the transaction, told by its path."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> None:
        if self._transaction.error is not None:
            raise self._transaction.error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if not isinstance(error, TargetError):
            mine = told(self._transaction._path, error)
            mine.__cause__ = error
            error = mine
        if self._transaction.error is None:
            self._transaction.error = error
        raise error


def _copy_page(page: bytearray, number: int, view: memoryview, at: int, end: int) -> None:
    """The part of a page that lies in ``[at, end)``, to a view that begins at `at`."""
    first = number * PAGE_BYTES
    low, high = max(first, at), min(first + PAGE_BYTES, end)
    if low < high:
        view[low - at : high - at] = page[low - first : high - first]


def _write_all(fd: int, data: Any, at: int) -> None:
    view = memoryview(data).cast("B")
    while len(view):
        n = os.pwrite(fd, view, at)
        view, at = view[n:], at + n


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
    runs: list[tuple[int, int, int]]  # offset in the file, offset in the journal, length


def recover(path: str, journal: str) -> str | None:
    """Finish or undo what a killed process left: ``"finished"``, ``"undone"``, None if nothing.

    May be called again after a kill in it. Costs one ``stat`` where there is no journal.

    Raises
    ------
    TargetError
        The journal is in use, is that of another file, or the file cannot be written to.
    """
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
        sync_folder(os.path.dirname(os.path.abspath(path)))
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
        for offset, at, n in committed.runs:
            _write_all(file, os.pread(fd, n, at), offset)
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
    for offset, at, n in committed.runs:
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
    runs: list[tuple[int, int, int]] = []
    while True:
        record = os.pread(fd, RUN.size, at)
        if record.startswith(MARK):
            data = os.pread(fd, COMMIT.size, at)
            if len(data) < COMMIT.size:
                return None
            _, new_size, count, due = COMMIT.unpack(data)
            whole = crc32(struct.pack("<I", total) + data[:-4]) == due and count == len(runs)
            return _Committed(new_size, runs) if whole else None
        if len(record) < RUN.size:
            return None
        offset, n = RUN.unpack(record)
        if n > PAGE_BYTES:
            return None
        data = os.pread(fd, n, at + RUN.size)
        if len(data) < n:
            return None
        total = crc32(struct.pack("<I", total) + struct.pack("<I", crc32(record + data)))
        runs.append((offset, at + RUN.size, n))
        at += RUN.size + n


def edit_bytes(path: str, journal: str, edits: Iterable[tuple[int, Any]]) -> None:
    """Replace bytes of a file in one step: all of `edits`, pairs of offset and bytes, or none."""
    recover(path, journal)
    transaction = Transaction(path, journal)
    try:
        for at, data in edits:
            transaction.pwrite(data, at)
        transaction.commit()
    except BaseException:
        transaction.rollback()
        raise
    finally:
        transaction.close()
