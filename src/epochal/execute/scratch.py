"""Scratch space: files that have no name, so that whatever kills this process leaves nothing
behind.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import ScratchError
from epochal.execute.vector import IOV_MAX, Vector, left_of, read_vector, vector_of, write_vector
from epochal.sizes import show
from epochal.stores.many import submit_vectors

__all__ = ["ScratchFile", "open_scratch", "scratch_folder"]

FILE_BITS = 44  # of 16 TiB
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Buffer = NDArray[Any]
NO_NUMBERS = np.empty(0, np.int64)
ZERO = np.zeros(1, np.int64)


def scratch_folder(scratch: str | os.PathLike[str] | None) -> Path:
    """Where scratch goes: the argument, `EPOCHAL_SCRATCH`, `TMPDIR`, ``/var/tmp`` (on disk where
    ``/tmp`` is often memory), or what Python takes for temporary files.
    """
    for folder in (scratch, os.environ.get("EPOCHAL_SCRATCH"), os.environ.get("TMPDIR")):
        if folder:
            return Path(folder)
    if os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


class ScratchFile:
    """Unlinked space that only grows, and is written over from its start when it is taken again.

    It is a file for each thread that writes at the same time: file systems let one writer at a time
    into a file. A place is the number of the file above `FILE_BITS` bits of offset. Blocks of a
    file that was written before are quick to write again; so an iteration keeps its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fds: list[int] = []
        self._ends: list[int] = []
        self._idle: deque[int] = deque()  # numbers of files that nobody writes to
        self._lock = threading.Lock()
        self._idle.append(self._another())

    def _another(self) -> int:
        """The number of a new file."""
        fd = open_scratch(self.folder)
        with self._lock:
            self._fds.append(fd)
            self._ends.append(0)
            return len(self._fds) - 1

    def restart(self) -> None:
        """Forget what is there; space is kept."""
        self._ends = [0] * len(self._fds)

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write buffers one after another; returns where."""
        return self.append_pieces(buffers, None)

    def append_pieces(
        self,
        buffers: Sequence[Buffer],
        source: NDArray[np.uint8] | None,
        begins: NDArray[np.int64] = NO_NUMBERS,
        n_bytes: NDArray[np.int64] | int = 0,
    ) -> int:
        """Write buffers, and behind them the pieces ``source[begins[i] : begins[i] + n_bytes[i]]``
        of bytes as they lie there; returns where.
        """
        parts = [vector_of(bytes_of(buffer), ZERO, buffer.nbytes) for buffer in buffers]
        if source is not None:
            parts.append(vector_of(source, begins, n_bytes))
        vector = np.concatenate(parts)
        try:
            number = self._idle.pop()
        except IndexError:
            number = self._another()
        try:
            at = self._ends[number]
            self._write(self._fds[number], vector, at)
            self._ends[number] = at + int(vector[:, 1].sum())
        finally:
            self._idle.append(number)
        return number << FILE_BITS | at

    def _write(self, fd: int, vector: Vector, at: int) -> None:
        while len(vector):
            try:
                written = write_vector(fd, vector, at)
            except InterruptedError:
                continue
            except OSError as error:
                raise self._error(error) from error
            at += written
            vector = left_of(vector, written)

    def _error(self, error: OSError) -> ScratchError:
        if error.errno in FULL:
            return ScratchError(
                f"scratch in {str(self.folder)!r} is full after {show(sum(self._ends))}: free some "
                "space, name another folder with scratch=, or give more memory="
            )
        return ScratchError(f"scratch in {str(self.folder)!r} cannot be written: {error}")

    def read(self, buffer: Buffer, at: int) -> None:
        """Fill a buffer from there."""
        view = buffer.data.cast("B")
        fd, at = self._place(at)
        while len(view):
            try:
                n_read = os.preadv(fd, [view], at)
            except OSError as error:
                raise self._unreadable(error) from error
            self._check_there(n_read, at)
            view = view[n_read:]
            at += n_read

    def read_pieces(self, at: NDArray[np.int64], counts: NDArray[np.int64], pieces: Vector) -> None:
        """From each place, fill the next ``counts[i]`` pieces of memory, one after another: all in
        one call of the system, where it has one.
        """
        ends = np.cumsum(counts)
        starts = ends - counts
        n_bytes = np.add.reduceat(pieces[:, 1].view(np.int64), starts)
        fds, offsets = np.array(self._fds)[at >> FILE_BITS], at & ((1 << FILE_BITS) - 1)
        done = 0
        if counts.max(initial=0) <= IOV_MAX:
            vectors = pieces.ctypes.data + pieces.strides[0] * starts.view(np.uint64)
            done = submit_vectors(fds, offsets, vectors, counts, n_bytes)
        for fd, offset, start, end in zip(
            fds[done:].tolist(),
            offsets[done:].tolist(),
            starts[done:].tolist(),
            ends[done:].tolist(),
            strict=True,
        ):
            self._read_pieces(fd, pieces[start:end], offset)

    def _read_pieces(self, fd: int, vector: Vector, at: int) -> None:
        while len(vector):
            try:
                n_read = read_vector(fd, vector, at)
            except InterruptedError:
                continue
            except OSError as error:
                raise self._unreadable(error) from error
            self._check_there(n_read, at)
            vector = left_of(vector, n_read)
            at += n_read

    def _place(self, at: int) -> tuple[int, int]:
        """Which file, and where in it."""
        return self._fds[at >> FILE_BITS], at & ((1 << FILE_BITS) - 1)

    def _unreadable(self, error: OSError) -> ScratchError:
        return ScratchError(f"scratch in {str(self.folder)!r} cannot be read: {error}")

    def _check_there(self, n_read: int, at: int) -> None:
        if n_read == 0:
            raise ScratchError(
                f"scratch in {str(self.folder)!r} ends at {show(at)}: it was cut short"
            )

    def advise(self, at: int, n_bytes: int) -> None:
        """Let the system begin to read what `read` will ask for: many such at once keep a disk
        busy that one read after another does not.
        """
        fd, at = self._place(at)
        os.posix_fadvise(fd, at, n_bytes, os.POSIX_FADV_WILLNEED)

    def flush(self) -> None:
        """Put everything on the device, and out of the page cache."""
        for fd in self._fds:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the space back."""
        for number, fd in enumerate(self._fds):
            self._fds[number] = -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a C-contiguous array, without a copy."""
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)


def open_scratch(folder: Path) -> int:
    """A nameless file; where the file system has no such thing, a named one that is unlinked at
    once.
    """
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        pass
    try:
        fd, name = tempfile.mkstemp(prefix=".epochal-", dir=folder)
        os.unlink(name)
    except OSError as error:
        raise ScratchError(
            f"scratch in {str(folder)!r} cannot be written: {error.strerror}; "
            f"name another folder with scratch="
        ) from error
    return fd
