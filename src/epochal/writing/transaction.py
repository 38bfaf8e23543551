"""One file changed in one step, wherever the process is killed: old until it is all new.

Bytes past the file's old end are written to it at once: they are nobody's until something before
them says that they are there. Bytes before it are kept here, as pages, and go to a *redo journal*
first (`epochal.writing.journal`). A kill before the journal is whole leaves the old file, with
something past its end that `recover` cuts off; a kill after it leaves a journal from which
`recover` makes the new one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from epochal.errors import TargetError
from epochal.writing.disk import told, write_at, writing_to
from epochal.writing.journal import PAGE_BYTES, Journal, recover

__all__ = ["Transaction", "edit_bytes"]


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

    Raises
    ------
    TargetError
        The file cannot be written, or another process writes it.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.error: TargetError | None = None
        self._fd = -1
        self._journal: Journal | None = None
        self._at = 0
        self._pages: dict[int, bytearray] = {}
        self._redoing = False
        recover(path)
        with writing_to(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._base = self._size = os.fstat(self._fd).st_size

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
                write_at(self._fd, view, at)
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
        if self._journal is None and self._base:
            self._journal = Journal(self._path, self._fd, self._base)

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
        assert self._journal is not None
        noted = self._journal.note(self._changed())
        self._journal.commit(self._size, *noted)
        self._redoing = True  # and for `recover` to finish, whatever comes
        for offset, data in self._changed():
            write_at(self._fd, data, offset)
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self._end_journal()
        self._redoing = False

    def _changed(self) -> Iterable[tuple[int, bytes]]:
        """Pages that were written, none of it past the old or the new end."""
        limit = min(self._base, self._size)
        for number in sorted(self._pages):
            first = number * PAGE_BYTES
            if first < limit:
                yield first, bytes(self._pages[number][: limit - first])

    def _end_journal(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            journal.remove()

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
            if self._journal is not None:
                os.fsync(self._fd)
            self._end_journal()

    def close(self) -> None:
        """Give descriptors back; what was not committed is not done, but past the old end."""
        if self._fd >= 0:
            os.close(self._fd)
        if self._journal is not None:
            self._journal.close()
        self._fd, self._journal = -1, None
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


def edit_bytes(path: str, edits: Iterable[tuple[int, Any]]) -> None:
    """Replace bytes of a file in one step: all of `edits`, pairs of offset and bytes, or none."""
    recover(path)
    transaction = Transaction(path)
    try:
        for at, data in edits:
            transaction.pwrite(data, at)
        transaction.commit()
    except BaseException:
        transaction.rollback()
        raise
    finally:
        transaction.close()
