"""Rows read past the page cache (``O_DIRECT``): many at once, from the device itself.

Of a file that memory does not hold, a row comes into the page cache to be copied once, and to push
another one out. That costs the kernel several times what the row does, the more where memory is
nearly full, and a call of the system waits for each row in turn. Past the page cache, the device
has all rows of a call to answer at once, and they go by way of a small buffer: what is read so
begins and ends at the device's blocks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.pool import Pool
from epochal.plan.gather import BLOCK_BYTES, UNCACHED_BYTES
from epochal.stores.descriptor import Handle
from epochal.stores.file import Read
from epochal.stores.many import submit_waiting
from epochal.stores.rows import Located, byte_view, locate_all, read_rows_into
from epochal.stores.source import Source

__all__ = ["Uncached"]

BLOCKS = (512, BLOCK_BYTES)
MOST_WAYS = 128  # files that are held open


class _Way(Handle):
    """A descriptor past the page cache, the bytes of a block, and of the file."""

    __slots__ = ("block_bytes", "size_bytes")

    def __init__(self, fd: int, block_bytes: int) -> None:
        super().__init__(fd)
        self.block_bytes = block_bytes
        self.size_bytes = os.fstat(fd).st_size


class Uncached:
    """A source whose single rows are read past the page cache, where that can be done."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.layout = source.layout
        self._ways: dict[int, tuple[Read, _Way | None]] = {}
        self._buffers = threading.local()

    def works(self) -> bool:
        """Whether it reads past the page cache at all: a row tells."""
        chunks = np.flatnonzero(~self.layout.is_coded(np.arange(self.layout.n_chunks)))
        if not len(chunks):
            return False
        row = np.array([self.layout.bounds(int(chunks[0]))[0]])
        room = np.empty((1, *self.layout.row_shape), self.layout.dtype)
        with closing(Pool(1)) as pool:
            return pool.submit(self.read_uncached, row, [room]).result()

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks."""
        self._source.read(start, stop, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        self.read_rows_into(rows, [out])

    def read_rows_into(self, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> None:
        """Read single rows into several arrays: past the page cache, or else as the source does."""
        if not self.read_uncached(rows, outs):
            read_rows_into(self._source, rows, outs)

    def read_uncached(self, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> bool:
        """The same, or False where it cannot be done: what is in the arrays is anybody's then.

        Not on the main thread, where Ctrl-C might let go of memory that reads are under way to.
        """
        if threading.current_thread() is threading.main_thread():
            return False
        targets = _Targets(outs, self.layout.row_bytes)
        for some in locate_all(self._source, rows):
            if some is None or not self._read_some(*some, targets):
                return False
        return True

    def _read_some(
        self, found: list[Located], places: NDArray[np.int64], targets: _Targets
    ) -> bool:
        """Rows of some files to their places."""
        ways = [self._way(one.read) for one in found]
        there = [way for way in ways if way is not None]
        if len(there) < len(ways):
            return False
        row_bytes, block = self.layout.row_bytes, max(way.block_bytes for way in there)
        counts = [len(one.positions) for one in found]
        fds, sizes = (
            np.repeat(np.array(each, np.int64), counts)
            for each in zip(*((way.fd, way.size_bytes) for way in there), strict=True)
        )
        positions = np.concatenate([one.positions for one in found])
        shifts = positions % block
        span = -(-(int(shifts.max(initial=0)) + row_bytes) // block) * block
        step = max(1, UNCACHED_BYTES // span)
        buffer = self._buffer(min(step, len(positions)) * span)
        for low in range(0, len(positions), step):
            some = slice(low, min(low + step, len(positions)))
            slots = span * np.arange(some.stop - low)
            addresses = slots.astype(np.uint64) + np.uint64(buffer.ctypes.data)
            starts = positions[some] - shifts[some]
            due = np.minimum(span, sizes[some] - starts)
            if (due < shifts[some] + row_bytes).any():  # a file that ends too early
                return False
            if submit_waiting(fds[some], starts, addresses, span, due) < len(slots):
                return False
            targets.put(buffer.data, shifts[some] + slots, places[some])
        return True

    def _way(self, read: Read) -> _Way | None:
        """Past the page cache to the file that is read so; None where there is no way."""
        known = self._ways.get(id(read))
        if known is None or known[0] is not read:
            if len(self._ways) >= MOST_WAYS:
                self._ways = {}  # whoever reads by one has it
            known = self._ways[id(read)] = read, _opened(read)
        return known[1]

    def _buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        """This thread's own, at a block's beginning."""
        memory: NDArray[np.uint8] | None = getattr(self._buffers, "memory", None)
        if memory is None or len(memory) < n_bytes + BLOCK_BYTES:
            memory = self._buffers.memory = None  # freed before its successor is made
            memory = self._buffers.memory = np.empty(n_bytes + BLOCK_BYTES, np.uint8)
        first = -memory.ctypes.data % BLOCK_BYTES
        return memory[first : first + n_bytes]


class _Targets:
    """Arrays that have room for some rows, one after another."""

    def __init__(self, outs: Sequence[NDArray[Any]], row_bytes: int) -> None:
        self._row_bytes = row_bytes
        outs = [out for out in outs if len(out)]
        self._outs = [byte_view(out).data for out in outs]
        self._firsts = np.cumsum([0, *map(len, outs)])

    def put(self, rows: memoryview, begins: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Rows that begin so far into `rows`, to their places."""
        owners = np.searchsorted(self._firsts, places, "right") - 1
        slots = (places - self._firsts[owners]) * self._row_bytes
        n_bytes = self._row_bytes
        moves = zip(begins.tolist(), owners.tolist(), slots.tolist(), strict=True)
        for begin, owner, slot in moves:  # with no copy between them, which memory would be for
            self._outs[owner][slot : slot + n_bytes] = rows[begin : begin + n_bytes]


def _opened(read: Read) -> _Way | None:
    """The same file again; None where it, or the system, has no such way."""
    if not isinstance(read, Handle) or not hasattr(os, "O_DIRECT"):
        return None
    memory = np.empty(3 * BLOCK_BYTES, np.uint8)
    first = -memory.ctypes.data % BLOCK_BYTES
    for block in BLOCKS:
        try:
            fd = os.open(f"/proc/self/fd/{read.fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            return None
        way = _Way(fd, block)
        # From the second block on: whatever may begin at the first one, may there.
        try:
            os.preadv(fd, [memory[first : first + block].data], block)
        except OSError:
            continue
        return way
    return None
