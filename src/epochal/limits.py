"""How fast this machine can be for one very file: the bounds that every claim of speed is a ratio
to.

Each function does one thing as fast as it can be done here, on all threads, into buffers that were
touched before the clock starts, and nothing else: no order, no batches, no budget. Chunks come in
groups, so that Python's cost a call does not show, and threads draw groups from one counter, so
that none waits for another.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from epochal.execute.scratch import scratch_folder
from epochal.stores.store import Source

__all__ = ["Limit", "decode_all", "memory_copy", "raw_read", "take", "two_pass"]

# Large enough that a call into a store is cheap, small enough that the buffers stay in a core's own
# cache or near it.
GROUP_BYTES = 2 << 20
READ_BYTES = 1 << 20

Buffer = NDArray[np.uint8]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Limit:
    """What one run of one bound took.

    >>> Limit(seconds=2.0, n_bytes=4000, n_rows=100).rows_per_second
    50.0
    """

    seconds: float
    n_bytes: int
    n_rows: int

    @property
    def rows_per_second(self) -> float:
        """Rows a second."""
        return self.n_rows / max(self.seconds, 1e-9)

    @property
    def bytes_per_second(self) -> float:
        """Bytes a second."""
        return self.n_bytes / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class _Group:
    """Consecutive chunks of one source, and where their decoded bytes go in a scratch file."""

    source: Source
    start: int
    stop: int
    n_bytes: int
    offset: int

    def read(self, buffer: Buffer) -> Buffer:
        """Read and decode the group into the head of `buffer`, and return that head."""
        layout, head = self.source.layout, buffer[: self.n_bytes]
        n_rows = layout.bounds(self.stop - 1)[1] - layout.bounds(self.start)[0]
        rows = head.view(layout.dtype).reshape(n_rows, *layout.row_shape)
        self.source.read(self.start, self.stop, rows)
        return head


def raw_read(paths: Sequence[str | os.PathLike[str]], n_rows: int, threads: int) -> Limit:
    """Read whole files by `os.preadv`, in blocks, and do nothing with them."""
    blocks = [
        (Path(path), offset)
        for path in paths
        for offset in range(0, Path(path).stat().st_size, READ_BYTES)
    ]

    def read(block: tuple[Path, int], buffer: Buffer) -> int:
        path, offset = block
        # A folder may have more files than a process may have open.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.preadv(descriptor, [buffer.data], offset)
        finally:
            os.close(descriptor)

    seconds, n_bytes = _on_threads(blocks, read, READ_BYTES, threads)
    return Limit(seconds, n_bytes, n_rows)


def decode_all(sources: Sequence[Source], threads: int) -> Limit:
    """Read and decode every chunk of the sources."""
    groups = _groups(sources)
    seconds, n_bytes = _on_threads(
        groups, lambda group, buffer: group.read(buffer).nbytes, _largest(groups), threads
    )
    return Limit(seconds, n_bytes, _rows(sources))


def two_pass(
    sources: Sequence[Source], threads: int, scratch: str | os.PathLike[str] | None = None
) -> Limit:
    """Decode every chunk, write the decoded bytes to scratch in order, then read them back in
    order.

    This is the least that an external shuffle of data larger than memory has to do; it does no
    shuffling. The scratch file has no name: it is gone with its descriptor.
    """
    groups = _groups(sources)
    with tempfile.TemporaryFile(dir=scratch_folder(scratch), buffering=0) as file:
        descriptor = file.fileno()

        def spill(group: _Group, buffer: Buffer) -> int:
            return _write_all(descriptor, group.read(buffer), group.offset)

        def fetch(offset: int, buffer: Buffer) -> int:
            return os.preadv(descriptor, [buffer.data], offset)

        seconds_out, n_bytes = _on_threads(groups, spill, _largest(groups), threads)
        blocks = range(0, n_bytes, READ_BYTES)
        seconds_back, n_back = _on_threads(blocks, fetch, READ_BYTES, threads)
    assert n_back == n_bytes, (n_back, n_bytes)
    return Limit(seconds_out + seconds_back, n_bytes, _rows(sources))


def take(arrays: Sequence[NDArray[Any]], batch_size: int, seed: int = 0) -> Limit:
    """Take rows of arrays in memory in random order, batch by batch, each a fresh array."""
    n_rows = len(arrays[0])
    order = np.random.default_rng(seed).permutation(n_rows)
    started = time.perf_counter()
    for start in range(0, n_rows, batch_size):
        rows = order[start : start + batch_size]
        for array in arrays:
            np.take(array, rows, axis=0)
    seconds = time.perf_counter() - started
    return Limit(seconds, sum(array.nbytes for array in arrays), n_rows)


def memory_copy(n_bytes: int, n_rows: int, threads: int) -> Limit:
    """Copy `n_bytes` from memory to memory, in blocks that no cache holds."""
    block_bytes = 32 << 20
    blocks = [min(block_bytes, n_bytes - offset) for offset in range(0, n_bytes, block_bytes)]

    def copy(size: int, buffer: Buffer) -> int:
        np.copyto(buffer[block_bytes : block_bytes + size], buffer[:size])
        return size

    seconds, copied = _on_threads(blocks, copy, 2 * block_bytes, threads)
    return Limit(seconds, copied, n_rows)


def _groups(sources: Sequence[Source]) -> list[_Group]:
    groups: list[_Group] = []
    offset = 0
    for source in sources:
        layout = source.layout
        step = max(1, GROUP_BYTES // max(layout.chunk_bytes, 1))
        for start in range(0, layout.n_chunks, step):
            stop = min(start + step, layout.n_chunks)
            n_rows = layout.bounds(stop - 1)[1] - layout.bounds(start)[0]
            n_bytes = n_rows * layout.row_bytes
            groups.append(_Group(source, start, stop, n_bytes, offset))
            offset += n_bytes
    return groups


def _largest(groups: Sequence[_Group]) -> int:
    return max((group.n_bytes for group in groups), default=0)


def _rows(sources: Sequence[Source]) -> int:
    return max((source.layout.n_rows for source in sources), default=0)


def _on_threads(
    items: Sequence[Item], work: Callable[[Item, Buffer], int], buffer_bytes: int, threads: int
) -> tuple[float, int]:
    """Do `work` for each item, in order, on threads with one reused buffer each: seconds, and the
    sum of results.
    """
    ticket = itertools.count()
    # Writing to every page beforehand keeps page faults out of the clock.
    buffers = [np.ones(max(buffer_bytes, 1), np.uint8) for _ in range(threads)]

    def run(buffer: Buffer) -> int:
        total = 0
        while (number := next(ticket)) < len(items):
            total += work(items[number], buffer)
        return total

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        total = sum(pool.map(run, buffers))
        return time.perf_counter() - started, total


def _write_all(descriptor: int, block: Buffer, offset: int) -> int:
    view, written = block.data, 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], offset + written)
    return written
