"""Piles of rows of varying length: dealt piece by piece, served row by row.

A pile is a run of positions of the order. Its rows lie in it in the order of the file, so that what
the blocks bring for it, one after another, is the pile itself: a row that one block begins and the
next one ends needs nothing done. How many items each block brings for each pile, and where in its
pile each row begins, follows from the lengths of the rows; records carry no heads.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.execute.meter import Meter
from epochal.execute.pieces import copy_pieces
from epochal.execute.pool import Pool, wait
from epochal.execute.ragged import BlockMaker, items_of
from epochal.execute.rooms import Room, Rooms, cut
from epochal.execute.scratch import ScratchFile, bytes_of
from epochal.execute.vector import scattered
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.plan.ragged import SLABS, cut_items, runs_of, touched
from epochal.plan.spool import are_long
from epochal.ragged import Block
from epochal.stores.ragged import RaggedSource

__all__ = ["KeptScratch", "RaggedSpoolFeed"]

Numbers = NDArray[np.int64]
Arrays = tuple[NDArray[Any], ...]


class _Places:
    """Where every row goes: its pile, and the first of its items there.

    Parameters
    ----------
    rows
        Of the file, at the positions that are left, each at most once.
    offsets
        Of the items of all rows of the file, ``(n_rows + 1,)``.
    ends
        Items before each of the positions, ``(len(rows) + 1,)``.
    starts
        Where piles begin in `rows`, and the end.
    """

    def __init__(self, rows: Numbers, offsets: Numbers, ends: Numbers, starts: Numbers) -> None:
        self.offsets = offsets
        self.starts = starts
        n_rows, n_piles = len(offsets) - 1, len(starts) - 1
        self.pile = np.full(n_rows, -1, dtype=np.int32)
        self.pile[rows] = np.repeat(np.arange(n_piles, dtype=np.int32), np.diff(starts))
        self.pile_items = np.diff(ends[starts])
        wanted = np.flatnonzero(self.pile >= 0)
        wanted = wanted[np.argsort(self.pile[wanted], kind="stable")]
        counts = offsets[wanted + 1] - offsets[wanted]
        first = np.cumsum(counts) - counts - ends[starts[:-1]][self.pile[wanted]]
        self.first = np.zeros(n_rows, dtype=np.int64)
        self.first[wanted] = first

    def pieces(self, first: int, last: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """The pieces of rows among the items ``[first, last)``, pile by pile and in each in the
        order of the file: pile, first item, items, place in the pile.
        """
        low = int(np.searchsorted(self.offsets[1:], first, "right"))
        high = int(np.searchsorted(self.offsets[:-1], last, "left"))
        edges = self.offsets[low : high + 1]
        begins = np.maximum(edges[:-1], first)
        counts = np.minimum(edges[1:], last) - begins
        piles = self.pile[low:high].astype(np.int64)
        places = self.first[low:high] + begins - edges[:-1]
        chosen = np.flatnonzero((piles >= 0) & (counts > 0))
        chosen = chosen[np.argsort(piles[chosen], kind="stable")]
        return piles[chosen], begins[chosen], counts[chosen], places[chosen]


class _Slab(NamedTuple):
    """A pile in memory, or on its way there, or with no `columns`, straight to its batches:
    positions ``[start, stop)``.
    """

    start: int
    stop: int
    columns: Arrays | None
    ready: Future[None] | None


class _Column:
    """One column's blocks: chunks of each, and where on scratch what they bring each pile lies."""

    def __init__(self, source: Any, places: _Places, run_items: int, piles_kept: int) -> None:
        layout = source.layout
        self.source = source
        wanted = places.pile >= 0
        begins, ends = places.offsets[:-1][wanted], places.offsets[1:][wanted]
        self.runs = list(runs_of(touched(layout, begins, ends), layout, run_items))
        n_spilled = len(places.pile_items) - piles_kept
        self.items = np.zeros((n_spilled, len(self.runs)), dtype=np.int64)
        self.at = np.zeros((n_spilled, len(self.runs)), dtype=np.int64)


@dataclass
class KeptScratch:
    """What an epoch leaves to the next: space, which is quicker to write again than new."""

    scratch: ScratchFile
    nbytes: int = 0  # of memory

    def close(self) -> None:
        """Free it."""
        self.scratch.close()


class RaggedSpoolFeed:
    """Feeds batches from piles; each epoch deals the file again."""

    def __init__(
        self,
        plan: FeedPlan,
        source: RaggedSource,
        order: Order,
        start: int,
        pool: Pool,
        meter: Meter,
        folder: Path,
        kept: KeptScratch | None = None,
    ) -> None:
        self.plan = plan
        self._layout = source.layout
        self._order, self._start = order, start
        self._pool, self._meter, self._folder = pool, meter, folder
        self._blocks = BlockMaker(source.layout, order, start, pool.batches)
        self._sources = list(source.columns.values())
        self._scratch: ScratchFile | None = kept.scratch if kept else None
        self._kept: list[Arrays] = []
        places, first = order.bounds, order.batch_at(start)
        self._rooms = Rooms(places, first, order.n_batches, self._blocks.make)
        self._slabs: deque[_Slab] = deque()
        self._free: list[Arrays] = []
        self._straight = False
        self._held = 0
        self._next = 0

    # Dealing ----------------------------------------------------------------

    def begin(self) -> None:
        """Deal every row."""
        ends = self._blocks.ends
        starts = cut_items(ends, self.plan.window_items)
        rows = self._order.row_array(self._start, self._order.n_positions)
        self._places = places = _Places(rows, self._layout.offsets, ends, starts)
        self._starts = (self._start + starts).tolist()
        kept = min(self.plan.piles_kept, len(starts) - 1)
        self._n_kept = kept
        narrowest = min(source.layout.row_bytes for source in self._sources)
        self._straight = are_long(int(ends[-1]) * narrowest // max(len(rows), 1))
        self._kept = [self._arrays(int(n)) for n in places.pile_items[:kept]]
        self._hold(int(places.pile_items[:kept].sum()) * self._layout.item_bytes)
        self._columns = [
            _Column(source, places, self.plan.run_items, kept) for source in self._sources
        ]
        if kept < len(starts) - 1:
            self._scratch = self._scratch or ScratchFile(self._folder)
            self._scratch.restart()
        wait(
            [
                self._pool.submit(self._deal, number, block)
                for number, column in enumerate(self._columns)
                for block in range(len(column.runs))
            ]
        )
        self._read_ahead()

    @property
    def copies(self) -> bool:
        """Whether rows come by way of a buffer."""
        return not self._straight

    def _arrays(self, items: int) -> Arrays:
        return tuple(
            np.empty((items, *column.row_shape), column.dtype)
            for column in self._layout.columns.values()
        )

    def _hold(self, n_bytes: int) -> None:
        self._held += n_bytes
        self._meter.hold(n_bytes)

    def _deal(self, number: int, block: int) -> None:
        self._pool.check()
        column = self._columns[number]
        items, first, last = items_of(column.source, *column.runs[block], self._pool)
        piles, begins, counts, places = self._places.pieces(first, last)
        begins -= first
        spilled = int(np.searchsorted(piles, self._n_kept))
        heads = _heads(piles[:spilled])
        for low, high in pairwise([*heads.tolist(), spilled]):
            some = slice(low, high)
            target = self._kept[int(piles[low])][number]
            copy_pieces(items, begins[some], target, places[some], counts[some])
        if spilled < len(piles):
            some = slice(spilled, None)
            self._spill(column, block, items, piles[some], begins[some], counts[some])

    def _spill(
        self,
        column: _Column,
        block: int,
        items: NDArray[Any],
        piles: Numbers,
        begins: Numbers,
        counts: Numbers,
    ) -> None:
        """Write what a block brings for the piles that are not kept, pile after pile."""
        assert self._scratch is not None
        ends = np.cumsum(counts)
        item_bytes = items.nbytes // len(items)
        if are_long(int(ends[-1]) * item_bytes // len(counts)):
            pieces = bytes_of(items), begins * item_bytes, counts * item_bytes
            at = self._scratch.append_pieces([], *pieces)
        else:
            shape = (int(ends[-1]), *items.shape[1:])
            packed = self._pool.temporary(int(ends[-1]) * item_bytes, "sorted")
            packed = packed.view(items.dtype).reshape(shape)
            copy_pieces(items, begins, packed, ends - counts, counts)
            at = self._scratch.append([packed])
        heads = _heads(piles)
        self._meter.spill(int(ends[-1]) * item_bytes)
        here = piles[heads] - self._n_kept
        column.items[here, block] = np.add.reduceat(counts, heads)
        column.at[here, block] = at + (ends - counts)[heads] * item_bytes

    # Serving ----------------------------------------------------------------

    def admit(self, batch: int, must: bool) -> list[tuple[_Slab, int, int]] | None:
        """Piles that hold a batch, and which positions of each."""
        start, stop = self._order.bounds(batch)
        while self._starts[self._next] < stop:
            if not must and self._n_read >= SLABS:
                return None
            self._load()
        return [
            (slab, max(start, slab.start), min(stop, slab.stop))
            for slab in self._slabs
            if slab.start < stop and slab.stop > start
        ]

    def _read_ahead(self) -> None:
        while self._n_read < SLABS and self._next < len(self._starts) - 1:
            self._load()

    @property
    def _n_read(self) -> int:
        """Piles that were or are read: those that were kept need no room of their own."""
        return sum(slab.ready is not None for slab in self._slabs)

    def _load(self) -> None:
        """Start reading the next pile, unless it is here."""
        pile = self._next
        self._next += 1
        start, stop = self._starts[pile : pile + 2]
        if pile < self._n_kept:
            self._slabs.append(_Slab(start, stop, self._kept[pile], None))
            self._kept[pile] = ()
            return
        if self._straight:
            rooms = self._rooms.within(start, stop)
            ready = self._pool.submit(self._bring_straight, pile, start, stop, rooms)
            self._hold(int(self._places.pile_items[pile]) * self._layout.item_bytes)
            self._slabs.append(_Slab(start, stop, None, ready))
            return
        columns = self._free.pop() if self._free else self._spare()
        ready = self._pool.submit(self._bring, pile, columns)
        self._slabs.append(_Slab(start, stop, columns, ready))

    def _spare(self) -> Arrays:
        most = int(self._places.pile_items[self._n_kept :].max())
        self._hold(most * self._layout.item_bytes)
        return self._arrays(most)

    def _bring(self, pile: int, columns: Arrays) -> None:
        """Read a pile: the segments that blocks wrote for it are its items in order."""
        assert self._scratch is not None
        for column, array in zip(self._columns, columns, strict=True):
            counts, at = column.items[pile - self._n_kept], column.at[pile - self._n_kept]
            first = 0
            for block in np.flatnonzero(counts).tolist():
                self._pool.check()
                last = first + int(counts[block])
                self._scratch.read(array[first:last], int(at[block]))
                first = last

    def _bring_straight(self, pile: int, start: int, stop: int, rooms: list[Room[Block]]) -> None:
        """Read a pile's rows to their batches."""
        assert self._scratch is not None
        rows = self._order.row_array(start, stop)
        by_row = np.argsort(rows)
        offsets = self._layout.offsets
        ends = np.cumsum((offsets[rows + 1] - offsets[rows])[by_row])
        for number, column in enumerate(self._columns):
            self._pool.check()
            row_bytes = column.source.layout.row_bytes
            items, at = column.items[pile - self._n_kept], column.at[pile - self._n_kept]
            blocks = np.flatnonzero(items)
            addresses = _addresses(rooms, start, stop, number, row_bytes)[by_row]
            cuts = np.cumsum(items[blocks]) * row_bytes
            pieces, counts = scattered(ends * row_bytes, cuts, addresses)
            self._scratch.read_pieces(at[blocks], counts, pieces)

    def room(self, batch: int) -> Block:
        """Arrays for a batch: those that rows are read to, if any are."""
        self._rooms.skip_to(batch + 1)
        block = self._rooms.get(batch)
        return self._blocks.make(batch) if block is None else block

    def gather(self, ticket: list[tuple[_Slab, int, int]], rows: Any, out: Any) -> None:
        """Copy a batch's rows from its piles."""
        place = 0
        for slab, low, high in ticket:
            if slab.ready is not None:
                slab.ready.result()
            if slab.columns is None:
                place += high - low
                continue
            chosen = self._order.row_array(low, high)
            begins = self._places.first[chosen]
            places = out.offsets[place : place + len(chosen)]
            counts = np.diff(out.offsets[place : place + len(chosen) + 1])
            for have, want in zip(slab.columns, out.columns, strict=True):
                copy_pieces(have, begins, want, places, counts)
            place += len(chosen)

    def retire(self, batch: int) -> None:
        """Let go of piles that are served, and read on."""
        self._rooms.retire(batch)
        stop = self._order.bounds(batch)[1]
        while self._slabs and self._slabs[0].stop <= stop:
            slab = self._slabs.popleft()
            if slab.ready is None or slab.columns is None:
                pile = bisect_right(self._starts, slab.start) - 1
                self._hold(-int(self._places.pile_items[pile]) * self._layout.item_bytes)
            else:
                slab.ready.result()
                self._free.append(slab.columns)
        self._read_ahead()

    def leave(self) -> KeptScratch | None:
        """The scratch, to be written again: the next epoch deals the file anew."""
        scratch, self._scratch = self._scratch, None
        self._close()
        return None if scratch is None else KeptScratch(scratch)

    def salvage(self) -> None:
        """Nothing is kept."""
        self._close()

    def _close(self) -> None:
        self._slabs.clear()
        self._rooms.clear()
        self._free, self._kept = [], []
        self._hold(-self._held)
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _addresses(
    rooms: list[Room[Block]], start: int, stop: int, number: int, row_bytes: int
) -> NDArray[np.uint64]:
    """Where in memory a column's items of the row at each of the positions ``[start, stop)``
    begin.
    """
    addresses = np.zeros(stop - start, dtype=np.uint64)
    for room, low, high in cut(rooms, start, stop):
        first = room.array.offsets[low - room.start : high - room.start] * row_bytes
        base = room.array.columns[number].ctypes.data
        addresses[low - start : high - start] = first.view(np.uint64) + np.uint64(base)
    return addresses


def _heads(piles: Numbers) -> Numbers:
    """Where in sorted numbers each one comes first."""
    return np.flatnonzero(np.diff(piles, prepend=-1))
