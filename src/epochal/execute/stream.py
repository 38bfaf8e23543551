"""Streams: chunks in file order, decoded straight into the batches that their rows belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.execute.aside import read_aside
from epochal.execute.meter import Meter
from epochal.execute.pool import Pool, wait
from epochal.execute.rooms import Room, Rooms, array_maker, cut, room_at
from epochal.layout import Layout
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.plan.windows import Read, cut_stream, in_file_order, reads_of
from epochal.stores.rows import read_into
from epochal.stores.store import Source

__all__ = ["StreamFeed"]

ArrayRoom = Room[NDArray[Any]]
LEAST_PART_BYTES = 4096  # smaller parts of batches are copied from a block


class _Load(NamedTuple):
    """A run of whole chunks being read: the positions ``[start, stop)``."""

    start: int
    stop: int
    future: Future[None]


class StreamFeed:
    """Feeds batches of an order that follows the file; see `FeedPlan`.

    Each task reads some chunks straight into the arrays of the batches that they belong to; a chunk
    that a batch's end cuts is decoded aside and copied, and with it its neighbours where the source
    reads into one array at a time.
    """

    copies = False

    def __init__(
        self,
        plan: FeedPlan,
        source: Source,
        order: Order,
        start: int,
        pool: Pool,
        meter: Meter,
    ) -> None:
        self.plan = plan
        self._source = source
        self._order = order
        self._pool = pool
        self._bounds = cut_stream(order, source.layout, start, plan.window_rows, pool.threads)
        self._loads: deque[_Load] = deque()
        self._loaded_to = start
        make = array_maker(order.bounds, source.layout, pool.batches)
        self._rooms = Rooms(order.bounds, order.batch_at(start), order.n_batches, make, meter)

    def begin(self) -> None:
        """Start reading."""
        self._read_ahead()

    def admit(self, batch: int, must: bool) -> list[Future[None]] | None:
        """The reads that a batch waits for."""
        start, stop = self._order.bounds(batch)
        while self._loaded_to < stop:
            if not must and len(self._loads) > self.plan.windows_ahead:
                return None
            self._load()
        return [load.future for load in self._loads if load.start < stop and load.stop > start]

    def room(self, batch: int) -> NDArray[Any]:
        """The array that the reads of an admitted batch fill."""
        array = self._rooms.get(batch)
        assert array is not None
        return array

    def gather(self, ticket: list[Future[None]], rows: Any, out: NDArray[Any]) -> None:
        """Wait for the reads; there is nothing to copy."""
        wait(ticket)

    def retire(self, batch: int) -> None:
        """Let go of what is served, and read on."""
        stop = self._order.bounds(batch)[1]
        while self._loads and self._loads[0].stop <= stop:
            self._loads.popleft()
        self._rooms.retire(batch)
        self._read_ahead()

    def leave(self) -> None:
        """Nothing is kept."""

    def salvage(self) -> None:
        """Nothing is kept."""
        self._loads.clear()
        self._rooms.clear()

    def _read_ahead(self) -> None:
        while (
            len(self._loads) <= self.plan.windows_ahead
            and self._loaded_to < self._order.n_positions
        ):
            self._load()

    def _load(self) -> None:
        start, stop = next(self._bounds)
        rooms = self._rooms.within(start, stop)
        self._loads.append(_Load(start, stop, self._pool.submit(self._read, start, stop, rooms)))
        self._loaded_to = stop

    def _read(self, start: int, stop: int, rooms: list[ArrayRoom]) -> None:
        rows = self._order.rows(start, stop)
        whole = None if self.plan.alone else _whole_chunks(rows, self._source.layout)
        reads = [whole] if whole is not None else self._planned(rows)
        for read in reads:
            self._pool.check()
            at = start + read.first_slot
            if self.plan.alone:
                self._read_alone(read, at, rooms)
            elif read.rows is None:
                self._read_whole(read, at, rooms)
            else:
                block = read_aside(self._source, read.start, read.stop, self._pool)
                self._put(block, at, read.rows, rooms)

    def _planned(self, rows: slice | NDArray[np.int64]) -> Iterator[Read]:
        """Reads of rows that do not fill their chunks."""
        ordered, _ = in_file_order(rows, ascending=True)
        run_bytes, alone = self.plan.run_bytes, self.plan.alone
        return reads_of(ordered, self._source.layout, run_bytes=run_bytes, alone=alone)

    def _read_alone(self, read: Read, at: int, rooms: list[ArrayRoom]) -> None:
        assert read.rows is not None
        for room, low, high in cut(rooms, at, at + read.n_slots):
            rows = read.rows[low - at : high - at]
            self._source.read_rows(rows, room.array[low - room.start : high - room.start])

    def _read_whole(self, read: Read, at: int, rooms: list[ArrayRoom]) -> None:
        """Chunks of which every row is wanted."""
        layout = self._source.layout
        run_chunks = max(1, self.plan.run_bytes // max(layout.chunk_bytes, 1))
        base = layout.bounds(read.start)[0] - at  # file row of position 0
        chunk = read.start
        while chunk < read.stop:
            self._pool.check()
            last = min(chunk + run_chunks, read.stop)
            if not self._read_into(chunk, last, base, rooms):
                last = self._read_one(chunk, read.stop, run_chunks, base, rooms)
            chunk = last

    def _read_into(self, chunk: int, last: int, base: int, rooms: list[ArrayRoom]) -> bool:
        """Read the chunks ``[chunk, last)`` into the arrays of all batches that have rows of them;
        False where the source has no way to, or it would be many small pieces.
        """
        layout = self._source.layout
        first, stop = layout.bounds(chunk)[0], layout.bounds(last - 1)[1]
        parts = [
            room.array[low - room.start : high - room.start]
            for room, low, high in cut(rooms, first - base, stop - base)
        ]
        if (stop - first) * layout.row_bytes < LEAST_PART_BYTES * len(parts):
            return False
        spare = self._pool.temporary(layout.chunk_bytes)
        return read_into(self._source, chunk, last, parts, spare)

    def _read_one(
        self, chunk: int, stop: int, run_chunks: int, base: int, rooms: list[ArrayRoom]
    ) -> int:
        """Read some of the chunks ``[chunk, stop)``, up to which is the result: straight into a
        batch's array where many end in it, else by way of a block that stays in the cache (a call
        for each chunk would cost more). From afar, what is read together counts for more than a
        copy.
        """
        layout = self._source.layout
        few = 2 if layout.in_flight == 1 else run_chunks
        first = layout.bounds(chunk)[0]
        room = room_at(rooms, first - base)
        end = base + room.stop  # file row at which the batch ends
        last = layout.n_chunks if end >= layout.n_rows else layout.chunk_of(end)
        last = min(last, stop)
        if last - chunk >= min(few, run_chunks, stop - chunk):
            n_rows = layout.bounds(last - 1)[1] - first
            low = first - base - room.start
            self._source.read(chunk, last, room.array[low : low + n_rows])
        else:
            last = min(chunk + run_chunks, stop)
            block = read_aside(self._source, chunk, last, self._pool)
            self._put(block, first - base, None, rooms)
        return last

    @staticmethod
    def _put(
        block: NDArray[Any],
        at: int,
        rows: NDArray[np.int64] | None,
        rooms: list[ArrayRoom],
    ) -> None:
        """Copy a block, or some rows of it, to the positions from `at` on."""
        n_rows = len(block) if rows is None else len(rows)
        for room, low, high in cut(rooms, at, at + n_rows):
            out = room.array[low - room.start : high - room.start]
            if rows is None:
                out[...] = block[low - at : high - at]
            else:
                np.take(block, rows[low - at : high - at], axis=0, out=out, mode="clip")


def _whole_chunks(rows: slice | NDArray[np.int64], layout: Layout) -> Read | None:
    """One read of consecutive rows that fill their chunks; None for others."""
    if not isinstance(rows, slice) or rows.start == rows.stop:
        return None
    start, stop = layout.chunk_of(rows.start), layout.chunk_of(rows.stop - 1) + 1
    if layout.bounds(start)[0] < rows.start or layout.bounds(stop - 1)[1] > rows.stop:
        return None
    return Read(start, stop, 0, rows.stop - rows.start, None)
