"""Rows of varying length: decoded run by run of chunks, piece by piece into where they go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.aside import read_aside
from epochal.execute.meter import Meter
from epochal.execute.pieces import copy_pieces
from epochal.execute.pool import Pool, have_succeeded, wait
from epochal.execute.recycle import Recycler
from epochal.execute.rooms import Room, Rooms
from epochal.layout import RaggedLayout
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.plan.ragged import cut_windows_items, item_ends, runs_of, touched, view_rows
from epochal.ragged import Block
from epochal.stores.ragged import RaggedSource
from epochal.stores.store import Source

__all__ = [
    "BlockMaker",
    "RaggedResidentFeed",
    "RaggedStreamFeed",
    "RaggedWindowFeed",
    "Slab",
    "items_of",
    "new_block",
]

Numbers = NDArray[np.int64]


def new_block(layout: RaggedLayout, offsets: Numbers, recycler: Recycler | None = None) -> Block:
    """Room for rows that begin at `offsets`, which are the block's own from now on."""
    items, empty = int(offsets[-1]), np.empty if recycler is None else recycler.empty
    columns = tuple(
        empty((items, *column.row_shape), column.dtype) for column in layout.columns.values()
    )
    return Block(columns, offsets, layout.n_columns)


class BlockMaker:
    """Makes the arrays of batches: how long each row at each position is, is known beforehand."""

    def __init__(self, layout: RaggedLayout, order: Order, start: int, recycler: Recycler) -> None:
        self.start = start
        self.ends = item_ends(order, layout, start)
        self._layout, self._order, self._recycler = layout, order, recycler

    def make(self, batch: int) -> Block:
        """Room for the rows of a batch."""
        low, high = (position - self.start for position in self._order.bounds(batch))
        offsets = self.ends[low : high + 1] - self.ends[low]
        return new_block(self._layout, offsets, self._recycler)


def items_of(source: Source, start: int, stop: int, pool: Pool) -> tuple[NDArray[Any], int, int]:
    """Items of the chunks ``[start, stop)`` of a column in the thread's buffer; first and last."""
    layout = source.layout
    first, last = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
    return read_aside(source, start, stop, pool), first, last


class Slab:
    """Some rows in memory, in ascending order, whole: `rows` (all when None), and where each
    begins.
    """

    def __init__(self, layout: RaggedLayout, rows: Numbers | None) -> None:
        self.rows = rows
        offsets = layout.offsets
        if rows is None:
            self.begins, self.ends = offsets[:-1], offsets[1:]
        else:
            self.begins, self.ends = offsets[rows], offsets[rows + 1]
        local = np.zeros(len(self.begins) + 1, dtype=np.int64)
        np.cumsum(self.ends - self.begins, out=local[1:])
        self.block = new_block(layout, local)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.block.nbytes

    def runs(self, layout: RaggedLayout, run_items: int) -> Iterator[tuple[int, int, int]]:
        """What must be read: column and chunks, run by run."""
        for number, column in enumerate(layout.columns.values()):
            chunks = touched(column, self.begins, self.ends)
            for start, stop in runs_of(chunks, column, run_items):
                yield number, start, stop

    def put(self, column: int, items: NDArray[Any], first: int, last: int) -> None:
        """Copy what there is of the rows among the items ``[first, last)`` of a column."""
        low = int(np.searchsorted(self.ends, first, "right"))
        high = int(np.searchsorted(self.begins, last, "left"))
        begins = np.maximum(self.begins[low:high], first)
        counts = np.minimum(self.ends[low:high], last) - begins
        places = self.block.offsets[low:high] + begins - self.begins[low:high]
        copy_pieces(items, begins - first, self.block.columns[column], places, counts)

    def take(self, index: Numbers, out: Block, at: int) -> None:
        """Copy the rows at `index` to the rows of `out` from `at` on."""
        offsets = self.block.offsets
        counts = offsets[index + 1] - offsets[index]
        places = out.offsets[at : at + len(index)]
        for have, want in zip(self.block.columns, out.columns, strict=True):
            copy_pieces(have, offsets[index], want, places, counts)


class _Load:
    """A slab being read: tasks draw runs of chunks from a common list."""

    def __init__(
        self, source: RaggedSource, order: Order, start: int, stop: int, run_items: int, pool: Pool
    ) -> None:
        self.start, self.stop = start, stop
        self.slab: Slab | None = None
        self.index: Numbers | None = None
        self._source, self._order = source, order
        self._run_items, self._pool = run_items, pool
        self._columns = list(source.columns.values())
        self._runs: Iterator[tuple[int, int, int]] = iter(())
        self._lock = threading.Lock()
        self.futures: list[Future[None]] = [pool.submit(self._run) for _ in range(pool.threads)]

    def _run(self) -> None:
        while (run := self._next()) is not None:
            self._pool.check()
            column, start, stop = run
            assert self.slab is not None
            self.slab.put(column, *items_of(self._columns[column], start, stop, self._pool))

    def _next(self) -> tuple[int, int, int] | None:
        with self._lock:
            if self.slab is None:
                rows = self._order.row_array(self.start, self.stop)
                unique, self.index = np.unique(rows, return_inverse=True)
                self.slab = Slab(self._source.layout, unique)
                self._runs = self.slab.runs(self._source.layout, self._run_items)
            return next(self._runs, None)

    def take(self, low: int, high: int, out: Block, at: int) -> None:
        """Rows at the positions ``[low, high)`` of the order."""
        wait(self.futures)
        assert self.slab is not None
        assert self.index is not None
        self.slab.take(self.index[low - self.start : high - self.start], out, at)


class RaggedWindowFeed:
    """Feeds batches from windows of the order: all touched chunks are decoded for each."""

    copies = True

    def __init__(
        self,
        plan: FeedPlan,
        source: RaggedSource,
        order: Order,
        start: int,
        pool: Pool,
        meter: Meter,
    ) -> None:
        self.plan = plan
        self._source, self._order = source, order
        self._pool, self._meter = pool, meter
        self._blocks = BlockMaker(source.layout, order, start, pool.batches)
        self._starts = cut_windows_items(
            order,
            self._blocks.ends,
            start,
            plan.window_items,
            whole_batches=not plan.windows_ahead,
        )
        self._next = 0
        self._loads: deque[_Load] = deque()

    def begin(self) -> None:
        """Start reading the first windows."""
        self._read_ahead()

    def admit(self, batch: int, must: bool) -> list[tuple[_Load, int, int]] | None:
        """Windows that hold a batch, and which positions of each."""
        start, stop = self._order.bounds(batch)
        while self._starts[self._next] < stop:
            if not must and len(self._loads) > self.plan.windows_ahead:
                return None
            self._load()
        return [
            (load, max(start, load.start), min(stop, load.stop))
            for load in self._loads
            if load.start < stop and load.stop > start
        ]

    def room(self, batch: int) -> Block:
        """Arrays for a batch."""
        return self._blocks.make(batch)

    def gather(self, ticket: list[tuple[_Load, int, int]], rows: Any, out: Any) -> None:
        """Copy a batch's rows from its windows."""
        at = 0
        for load, low, high in ticket:
            load.take(low, high, out, at)
            at += high - low

    def retire(self, batch: int) -> None:
        """Let go of windows that are served, and read on."""
        stop = self._order.bounds(batch)[1]
        while self._loads and self._loads[0].stop <= stop:
            load = self._loads.popleft()
            wait(load.futures)
            if load.slab is not None:
                self._meter.hold(-load.slab.block.nbytes)
        self._read_ahead()

    def leave(self) -> None:
        """Nothing is kept."""

    def salvage(self) -> None:
        """Nothing is kept."""
        self._loads.clear()

    def _read_ahead(self) -> None:
        while len(self._loads) <= self.plan.windows_ahead and self._next < len(self._starts) - 1:
            self._load()

    def _load(self) -> None:
        start, stop = self._starts[self._next : self._next + 2]
        self._next += 1
        load = _Load(self._source, self._order, start, stop, self.plan.run_items, self._pool)
        low, high = self._blocks.ends[[start - self._blocks.start, stop - self._blocks.start]]
        self._meter.hold(int(high - low) * self._source.layout.item_bytes)
        self._loads.append(load)


class RaggedResidentFeed:
    """Feeds batches from all rows of the view, decoded once and kept from epoch to epoch."""

    copies = True

    def __init__(
        self,
        plan: FeedPlan,
        source: RaggedSource,
        order: Order,
        start: int,
        pool: Pool,
        meter: Meter,
        kept: Slab | None,
    ) -> None:
        self.plan = plan
        self._source, self._order = source, order
        self._pool, self._meter = pool, meter
        self._blocks = BlockMaker(source.layout, order, start, pool.batches)
        self._columns = list(source.columns.values())
        self._slab = kept
        self._begun = kept is not None  # all reads that are needed were submitted
        self._futures: list[Future[None]] = []

    def begin(self) -> None:
        """Start loading, unless the rows were kept."""
        if self._slab is not None:
            return
        rows = view_rows(self._order)
        layout = self._source.layout
        self._slab = slab = Slab(layout, None if isinstance(rows, slice) else rows)
        self._meter.hold(slab.block.nbytes)
        self._futures = [
            self._pool.submit(self._read, run) for run in slab.runs(layout, self.plan.run_items)
        ]
        self._begun = True

    def _read(self, run: tuple[int, int, int]) -> None:
        assert self._slab is not None
        column, start, stop = run
        self._slab.put(column, *items_of(self._columns[column], start, stop, self._pool))

    def admit(self, batch: int, must: bool) -> Numbers:
        """Always: the rows are there, or on their way."""
        return self._order.row_array(*self._order.bounds(batch))

    def room(self, batch: int) -> Block:
        """Arrays for a batch."""
        return self._blocks.make(batch)

    def gather(self, ticket: Numbers, rows: Any, out: Any) -> None:
        """Copy a batch's rows from memory."""
        wait(self._futures)
        assert self._slab is not None
        index = ticket if self._slab.rows is None else np.searchsorted(self._slab.rows, ticket)
        self._slab.take(index, out, 0)

    def retire(self, batch: int) -> None:
        """Nothing is let go of."""

    def leave(self) -> Slab | None:
        """The rows."""
        wait(self._futures)
        return self._slab

    def salvage(self) -> Slab | None:
        """The rows, if all were loaded."""
        return self._slab if self._begun and have_succeeded(self._futures) else None


class RaggedStreamFeed:
    """Feeds batches of an order that follows the file: runs of chunks, each decoded once, straight
    to the arrays of the batches that their rows belong to.
    """

    copies = False

    def __init__(
        self,
        plan: FeedPlan,
        source: RaggedSource,
        order: Order,
        start: int,
        pool: Pool,
        meter: Meter,
    ) -> None:
        self.plan = plan
        self._source, self._order = source, order
        self._pool, self._meter = pool, meter
        self._start = start
        layout = source.layout
        make = BlockMaker(layout, order, start, pool.batches).make
        self._rooms = Rooms(order.bounds, order.batch_at(start), order.n_batches, make, meter)
        rows = order.row_array(start, order.n_positions)
        self._begins, self._ends = layout.offsets[rows], layout.offsets[rows + 1]
        self._columns = list(source.columns.values())
        self._runs = [self._runs_of(column.layout) for column in self._columns]
        self._reached = [0] * len(self._columns)  # items read, of each column
        self._loads: deque[tuple[int, int, Future[None]]] = deque()  # first and last item

    def _runs_of(self, layout: Any) -> Iterator[tuple[int, int]]:
        return runs_of(touched(layout, self._begins, self._ends), layout, self.plan.run_items)

    def begin(self) -> None:
        """Start reading."""
        self._read_ahead()

    def admit(self, batch: int, must: bool) -> list[Future[None]] | None:
        """The reads that a batch waits for."""
        start, stop = (position - self._start for position in self._order.bounds(batch))
        self._rooms.within(0, stop + self._start)
        # Rows without items are asked for nothing.
        first = int(self._begins[start:stop].min(initial=1 << 62))
        last = int(self._ends[start:stop].max(initial=0))
        while first < last and min(self._reached) < last:
            if not must and len(self._loads) > self._ahead:
                return None
            if not self._load():
                break
        return [future for low, high, future in self._loads if low < last and high > first]

    def room(self, batch: int) -> Block:
        """The arrays that the reads of an admitted batch fill."""
        block = self._rooms.get(batch)
        assert block is not None
        return block

    def gather(self, ticket: list[Future[None]], rows: Any, out: Any) -> None:
        """Wait for the reads; there is nothing to copy."""
        wait(ticket)

    def retire(self, batch: int) -> None:
        """Let go of what is served, and read on."""
        stop = self._order.bounds(batch)[1] - self._start
        done = int(self._begins[stop]) if stop < len(self._begins) else 1 << 62
        self._loads = deque(load for load in self._loads if load[1] > done or not load[2].done())
        self._rooms.retire(batch)
        self._read_ahead()

    def leave(self) -> None:
        """Nothing is kept."""

    def salvage(self) -> None:
        """Nothing is kept."""
        self._loads.clear()
        self._rooms.clear()

    @property
    def _ahead(self) -> int:
        return self.plan.windows_ahead * len(self._columns)

    def _read_ahead(self) -> None:
        while len(self._loads) <= self._ahead and self._load():
            pass

    def _load(self) -> bool:
        """Start on the next run of the column that is behind; False when all are read."""
        number = int(np.argmin(self._reached))
        column = self._columns[number]
        run = next(self._runs[number], None)
        if run is None:
            self._reached[number] = 1 << 62
            return min(self._reached) < 1 << 62 and self._load()
        first, last = column.layout.bounds(run[0])[0], column.layout.bounds(run[1] - 1)[1]
        low = int(np.searchsorted(self._ends, first, "right"))
        high = int(np.searchsorted(self._begins, last, "left"))
        # All of them up to there are made: one may have nothing but rows without items.
        rooms = [
            room
            for room in self._rooms.within(0, high + self._start)
            if room.stop > low + self._start
        ]
        future = self._pool.submit(self._read, number, run, rooms)
        self._loads.append((first, last, future))
        self._reached[number] = last
        return True

    def _read(self, number: int, run: tuple[int, int], rooms: list[Room[Block]]) -> None:
        items, first, last = items_of(self._columns[number], *run, self._pool)
        for room in rooms:
            low, high = room.start - self._start, room.stop - self._start
            begins = np.clip(self._begins[low:high], first, last)
            ends = np.clip(self._ends[low:high], first, last)
            places = room.array.offsets[:-1] + begins - self._begins[low:high]
            some = ends > begins
            copy_pieces(
                items,
                begins[some] - first,
                room.array.columns[number],
                places[some],
                (ends - begins)[some],
            )
