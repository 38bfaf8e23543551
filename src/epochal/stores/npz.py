"""Archives of arrays: ``.npz``. Stored members are read in place, compressed ones as a stream."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError, UnsafeError
from epochal.layout import Layout
from epochal.stores.archive import (
    DEFLATED,
    STORED,
    Inflater,
    Member,
    UnpackedCopy,
    members,
    open_member,
    packed,
)
from epochal.stores.file import File
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.npy import (
    MAX_HEADER_BYTES,
    FortranSource,
    check_rows_fit,
    read_header,
    source_in,
)
from epochal.stores.rows import byte_view
from epochal.stores.source import Source
from epochal.stores.store import Other

__all__ = ["NpzStore", "StreamedSource"]

MARKS = 16  # states of the decoder that are kept, spread over the member
MARK_BYTES = 48 << 10  # of each
MIN_SPACING_BYTES = 1 << 20
RECENT = 4


class _Stream:
    """A member as one process unpacks it: states from which reading can go on, by position."""

    def __init__(self, file: File, member: Member) -> None:
        self.lock = threading.Lock()
        self._spacing = max(member.size_bytes // MARKS, MIN_SPACING_BYTES)
        self._marks: dict[int, Inflater] = {0: Inflater(file, member)}
        self._recent: dict[int, Inflater] = {}

    def read_into(self, position: int, out: memoryview) -> None:
        """Unpack what lies at a position, from the nearest state before it."""
        state = self._nearest(position)
        step = self._spacing
        while state.position < position:
            self._skip(state, min(position, (state.position // step + 1) * step))
        done = 0
        while done < len(out):
            n_bytes = min(len(out) - done, (state.position // step + 1) * step - state.position)
            state.read_into(out[done : done + n_bytes])
            done += n_bytes
            self._mark(state)
        self._keep(state)

    def _nearest(self, position: int) -> Inflater:
        before = [at for at in (*self._recent, *self._marks) if at <= position]
        at = max(before)
        recent = self._recent.pop(at, None)
        return recent if recent is not None else self._marks[at].copy()

    def _skip(self, state: Inflater, position: int) -> None:
        """Go on to a position. Whoever wanted what lies between comes later: a thread that was
        overtaken by another.
        """
        self._keep(state.copy())
        state.skip(position - state.position)
        self._mark(state)

    def _mark(self, state: Inflater) -> None:
        if state.position % self._spacing == 0 and state.position not in self._marks:
            self._marks[state.position] = state.copy()

    def _keep(self, state: Inflater) -> None:
        self._recent[state.position] = state
        while len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]


class StreamedSource:
    """A deflated array: unpacked from front to back, one thread at a time.

    Some states of the decoder are kept, so that a read goes on from the nearest one before it;
    reading in order unpacks each byte once.
    """

    def __init__(self, name: str, file: File, member: Member) -> None:
        self._name, self._file, self._member = name, file, member
        self._prepare()

    def __getstate__(self) -> tuple[str, File, Member]:
        return self._name, self._file, self._member

    def __setstate__(self, state: tuple[str, File, Member]) -> None:
        self._name, self._file, self._member = state
        self._prepare()

    def _prepare(self) -> None:
        # By process: a fork must not wait for a lock that a lost thread holds.
        self._streams: dict[int, _Stream] = {}
        head = bytearray(min(self._member.size_bytes, MAX_HEADER_BYTES + 12))
        if head:
            Inflater(self._file, self._member).read_into(memoryview(head))
        self.header = read_header(bytes(head), self._file.name)
        check_rows_fit(self.header, self._member.size_bytes, self._file.name)
        shape, dtype = self.header.shape, self.header.dtype
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        chunk_rows = virtual_chunk_rows(row_bytes)
        n_chunks = -(-shape[0] // chunk_rows)
        # Where in the archive a row lies is known only when it was unpacked: shared out equally.
        edges = np.linspace(0, self._member.stored_bytes, n_chunks + 1).astype(np.int64)
        self.layout = Layout(
            shape=shape,
            dtype=dtype,
            chunk_rows=chunk_rows,
            piece_bytes=np.diff(edges).astype(np.uint32).reshape(-1, 1),
            read_overhead_bytes=(MARKS + RECENT) * MARK_BYTES,
            kind="streamed",
            codec="deflate",
            parallel=False,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Unpack the rows of the chunks ``[start, stop)`` straight into `out`."""
        if out.nbytes == 0:
            return
        first = self.layout.bounds(start)[0]
        stream = self._streams.get(os.getpid())
        if stream is None:
            made = _Stream(self._file, self._member)
            stream = self._streams.setdefault(os.getpid(), made)
        at = self.header.offset + first * self.layout.row_bytes
        try:
            with stream.lock:
                stream.read_into(at, byte_view(out).data)
        except DamageError as error:
            raise DamageError(
                f"source {self._name!r}, chunk {start}, rows {first} to {first + len(out) - 1}: "
                f"{error}"
            ) from error

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: a row is reached by unpacking what lies before it."""
        raise NotImplementedError("rows of a compressed member are not read alone")


class NpzStore:
    """One ``.npz`` file: a source for each member ``NAME.npy`` that has rows."""

    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._file = file
        self.name = file.name
        self.sources: dict[str, Any] = {}
        others: list[Other] = []
        for member in members(file).values():
            name = member.name.removesuffix(".npy")
            if name == member.name:
                others.append(Other(name, "not an array: its name does not end in .npy"))
                continue
            try:
                self.sources[name] = _source(file, member, name)
            except EpochalError as error:
                unsafe = isinstance(error, UnsafeError)
                others.append(Other(name, str(error), unsafe=unsafe))
        self.others = tuple(others)

    def close(self) -> None:
        """Give back the descriptor."""
        self._file.close()


def _source(file: File, member: Member, name: str) -> Source:
    if member.method == STORED:
        return source_in(open_member(file, member), name)
    if member.method != DEFLATED:
        open_member(file, member)  # says what is wrong
    inside = packed(file, member)
    streamed = StreamedSource(name, inside, member)
    if streamed.header.fortran and len(streamed.layout.row_shape):
        return FortranSource(name, streamed.header, UnpackedCopy(inside, member))
    return streamed
