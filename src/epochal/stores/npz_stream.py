"""A deflated array read as a stream: from states of the decoder that are kept along the way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, ScratchError
from epochal.layout import Layout
from epochal.stores.archive_copy import UnpackedCopy
from epochal.stores.archive_directory import Member
from epochal.stores.archive_inflate import Inflater, held_bytes
from epochal.stores.file import File
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.npy_header import Header
from epochal.stores.rows import byte_view

__all__ = ["StreamedSource"]

MARKS = 8  # states that are kept, spread over the member
MIN_SPACING_BYTES = 1 << 20
RECENT = 2  # states where reads ended: the next ones go on from there
PATIENCE = 2  # so many times its size is unpacked in vain before a copy is made


class _Stream:
    """A member as one process unpacks it: states from which reading can go on, by position.

    One thread at a time, whoever wants what comes first: a thread that another one overtakes would
    have its part unpacked twice.
    """

    def __init__(self, file: File, member: Member) -> None:
        self.skipped_bytes = 0
        self._spacing = max(-(-member.size_bytes // MARKS), MIN_SPACING_BYTES)
        self._marks: dict[int, Inflater] = {0: Inflater(file, member)}
        self._recent: dict[int, Inflater] = {}
        self._change = threading.Condition()
        self._waiting: list[int] = []
        self._busy = False

    def read_into(self, position: int, out: memoryview) -> None:
        """Unpack what lies at a position, from the nearest state before it."""
        with self._turn(position):
            state = self._nearest(position)
            if state.position < position:
                self._keep(state.copy())  # for a thread that was overtaken nevertheless
                self.skipped_bytes += position - state.position
            while state.position < position:
                state.skip(min(position, self._next_mark(state)) - state.position)
                self._mark(state)
            done = 0
            while done < len(out):
                part = out[done : done + self._next_mark(state) - state.position]
                state.read_into(part)
                done += len(part)
                self._mark(state)
            self._keep(state)

    @contextmanager
    def _turn(self, position: int) -> Iterator[None]:
        with self._change:
            self._waiting.append(position)
            try:
                while self._busy or position > min(self._waiting):
                    self._change.wait()
                self._busy = True
            finally:
                self._waiting.remove(position)
        try:
            yield
        finally:
            with self._change:
                self._busy = False
                self._change.notify_all()

    def _nearest(self, position: int) -> Inflater:
        at = max(at for at in (*self._recent, *self._marks) if at <= position)
        recent = self._recent.pop(at, None)
        return recent if recent is not None else self._marks[at].copy()

    def _next_mark(self, state: Inflater) -> int:
        return (state.position // self._spacing + 1) * self._spacing

    def _mark(self, state: Inflater) -> None:
        if state.position % self._spacing == 0 and state.position not in self._marks:
            self._marks[state.position] = state.copy()

    def _keep(self, state: Inflater) -> None:
        self._recent[state.position] = state
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]


class StreamedSource:
    """A deflated array: unpacked from front to back, one thread at a time, straight into rows.

    Reading in order unpacks each byte once. Reading out of order goes on from the nearest of
    `MARKS` states, and unpacks what lies between; once that was `PATIENCE` times the whole, the
    member is unpacked into a temporary file, if it fits well, and read there.
    """

    def __init__(self, name: str, header: Header, file: File, member: Member) -> None:
        self._name, self._header = name, header
        self._file, self._member = file, member
        # By process: a fork must not wait for a lock that a thread holds which it does not have.
        self._streams: dict[int, _Stream] = {}
        self._copy = UnpackedCopy(file, member)
        self._use_copy = False
        self.layout = _layout(header, file, member)

    def __getstate__(self) -> tuple[str, Header, File, Member]:
        return self._name, self._header, self._file, self._member

    def __setstate__(self, state: tuple[str, Header, File, Member]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Unpack the rows of the chunks ``[start, stop)`` straight into `out`."""
        if out.nbytes == 0:
            return
        first = self.layout.bounds(start)[0]
        at = self._header.offset + first * self.layout.row_bytes
        try:
            self._read_into(at, byte_view(out).data)
        except DamageError as error:
            raise DamageError(
                f"source {self._name!r}, chunk {start}, rows {first} to {first + len(out) - 1}: "
                f"{error}"
            ) from error

    def _read_into(self, at: int, out: memoryview) -> None:
        if self._use_copy:
            try:
                self._copy.checked()([out], at)
                return
            except ScratchError:  # no room after all: it is read as before
                self._use_copy = False
        pid = os.getpid()
        stream = self._streams.get(pid)
        if stream is None:
            stream = self._streams.setdefault(pid, _Stream(self._file, self._member))
        stream.read_into(at, out)
        if stream.skipped_bytes > PATIENCE * self._member.size_bytes:
            stream.skipped_bytes = 0
            self._use_copy = self._copy.fits()

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: a row is reached by unpacking what lies before it."""
        raise NotImplementedError("rows of a compressed member are not read alone")

    def close(self) -> None:
        """Give temporary space back."""
        self._copy.close()


def _layout(header: Header, file: File, member: Member) -> Layout:
    shape, dtype = header.shape, header.dtype
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    chunk_rows = virtual_chunk_rows(row_bytes)
    # Where in the archive a row lies is known only when it was unpacked: shared out equally.
    edges = np.linspace(0, member.stored_bytes, -(-shape[0] // chunk_rows) + 1).astype(np.int64)
    pieces = np.clip(np.diff(edges), 1, np.iinfo(np.uint32).max)
    return Layout(
        shape=shape,
        dtype=dtype,
        chunk_rows=chunk_rows,
        piece_bytes=pieces.astype(np.uint32).reshape(-1, 1),
        read_overhead_bytes=held_bytes(file, MARKS + 1, RECENT + 1),
        kind="streamed",
        codec="deflate",
        parallel=False,
    )
