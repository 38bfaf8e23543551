"""Serving piles: deal the rows, read piles back in order, and deal them again for the next epoch
while they are here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import ScratchError
from epochal.execute.meter import Meter
from epochal.execute.pool import Pool, as_bytes, wait
from epochal.execute.rooms import Rooms, array_maker
from epochal.execute.scratch import ScratchFile
from epochal.execute.slabs import BufferedSlab, Slab, StraightPiles
from epochal.execute.spool import Pages, RecordBuffers, Records, Spool
from epochal.layout import Layout
from epochal.plan.order import Order
from epochal.plan.piles import Dealer, KeyDealer, PositionDealer
from epochal.plan.plan import FeedPlan
from epochal.plan.spool import are_long
from epochal.stores.store import Source

__all__ = ["KeptSpool", "SpoolFeed"]


@dataclass
class KeptSpool:
    """What an epoch leaves to the next: its records, dealt for that one already (`rolled`) or still
    for itself.
    """

    spool: Spool
    rolled: bool
    pages: Pages
    buffers: RecordBuffers
    spare: ScratchFile | None

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        return self.pages.bytes_made + self.buffers.bytes_made

    def close(self) -> None:
        """Free the scratch."""
        for file in (self.spool.scratch, self.spare):
            if file is not None:
                file.close()


class SpoolFeed:
    """Feeds batches from piles; see `FeedPlan` and `epochal.execute.spool`."""

    def __init__(
        self,
        plan: FeedPlan,
        source: Source,
        order: Order,
        next_order: Order | None,
        start: int,
        pool: Pool,
        meter: Meter,
        scratch: Path,
        kept: KeptSpool | None,
    ) -> None:
        self.plan = plan
        self._source = source
        self._order = order
        self._next_order = next_order
        self._start = start
        self._pool = pool
        self._meter = meter
        self._folder = scratch
        self._layout: Layout = source.layout
        row_bytes = self._layout.row_bytes
        self._kept = kept
        self._pages = kept.pages if kept else Pages(plan.n_pages, plan.page_rows, row_bytes, meter)
        self._buffers = kept.buffers if kept else RecordBuffers(plan.buffer_rows, row_bytes, meter)
        self._spare = kept.spare if kept else None
        self._files = [f for f in (self._spare, kept and kept.spool.scratch) if f is not None]
        self._next: Spool | None = None
        self._slabs: deque[Slab] = deque()
        self._loaded_to = 0
        self._starts = [0]  # place at which each pile begins, and the end
        self._piles: StraightPiles | None = None  # where rows go straight to their batches
        self._whole = order.each_row_once and start == 0
        self._served_to = 0
        self._dealt = False
        self._gave_pages = False

    # Dealing ----------------------------------------------------------------

    def begin(self) -> None:
        """Deal every row, unless the last epoch did."""
        if self._kept is None:
            self._spool = self._deal_file()
        elif self._kept.rolled:
            self._spool = self._kept.spool
        else:
            self._spool = self._deal_again(self._kept.spool)
        counts = self._spool.pile_counts()
        first = self._start if self.plan.by_position else 0
        self._starts = (first + np.concatenate([[0], np.cumsum(counts)])).tolist()
        if (
            self._kept is not None
            and self._whole
            and self.plan.roll
            and self._next_order is not None
        ):
            self._next = self._new_spool(self._next_order, self._spool.n_piles)
            self._gave_pages = True
        places = self._spool.dealer.places
        make = array_maker(places, self._layout, self._pool.batches)
        self._rooms = Rooms(places, 0, self._order.n_batches, make)
        row_bytes = self._layout.row_bytes
        if self._next is None and are_long(row_bytes):
            self._piles = StraightPiles(
                self._spool, self._starts, self._rooms, row_bytes, self._pool
            )
            self._buffers.drop_idle(keep=min(self._spool.n_kept, self.plan.slabs))
        self._end = max((self._spool.dealer.places(b)[1] for b in self._last_batches()), default=0)
        self._kept = None
        self._dealt = True
        self._read_ahead()

    @property
    def copies(self) -> bool:
        """Whether rows come by way of a buffer."""
        return self._piles is None

    @property
    def rolling(self) -> bool:
        """Whether rows are dealt for the next epoch as they are served."""
        return self._next is not None

    def _last_batches(self) -> range:
        return range(max(self._order.n_batches - 1, 0), self._order.n_batches)

    def _dealer(self, order: Order) -> Dealer:
        if self.plan.by_position:
            return PositionDealer(order, self._start, self.plan.pile_rows, self._layout.n_rows)
        return KeyDealer(order, self.plan.n_piles)

    def _new_spool(self, order: Order, n_blocks: int, *, from_file: bool = False) -> Spool:
        scratch, self._spare = self._spare, None
        if scratch is None:
            scratch = ScratchFile(self._folder)
            self._files.append(scratch)
        scratch.restart()
        context = (self._pages, scratch, self._meter)
        return Spool(self.plan, self._dealer(order), n_blocks, *context, from_file=from_file)

    def _deal_file(self) -> Spool:
        n_blocks = -(-self._layout.n_chunks // self.plan.block_chunks)
        spool = self._new_spool(self._order, n_blocks, from_file=True)
        wait([self._pool.submit(self._deal_block, spool, block) for block in range(n_blocks)])
        return spool

    def _deal_block(self, spool: Spool, block: int) -> None:
        layout = self._layout
        start = block * self.plan.block_chunks
        stop = min(start + self.plan.block_chunks, layout.n_chunks)
        first_row, last_row = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
        deal = spool.dealer.deal(first_row, last_row)
        if not len(deal.piles):
            return
        block_records = self._buffers.take()
        data = block_records.data[: last_row - first_row]
        self._source.read(start, stop, as_rows(data, layout))
        sorted_ = self._sorting_room(len(deal.piles))
        spool.deal(block, deal, data, sorted_)
        self._give(block_records, sorted_)

    def _sorting_room(self, n_records: int) -> Records | None:
        """A buffer; an extra one where rows that are drawn again and again happen to lie in one
        block. None where rows need not be sorted.
        """
        if are_long(self._layout.row_bytes):
            return None
        if n_records > self._buffers.capacity:
            return Records(n_records, self._layout.row_bytes)
        return self._buffers.take()

    def _give(self, *records: Records | None) -> None:
        for one in records:
            if one is not None and len(one.heads) == self._buffers.capacity:
                self._buffers.give(one)

    def _deal_again(self, old: Spool) -> Spool:
        """Deal the last epoch's piles, in their order: no chunk is decoded again."""
        spool = self._new_spool(self._order, old.n_piles)
        counts = old.pile_counts().tolist()
        wait(
            [
                self._pool.submit(self._deal_pile, old, spool, pile, counts[pile])
                for pile in range(old.n_piles)
            ]
        )
        self._spare = old.scratch
        return spool

    def _deal_pile(self, old: Spool, spool: Spool, pile: int, count: int) -> None:
        records = self._buffers.take()
        segments = old.segments(pile)
        old.read(segments, records)
        old.read_pages(pile, sum(s[3] for s in segments), records, give_back=True)
        self._deal_records(spool, pile, records, count)
        self._give(records)

    def _deal_records(self, spool: Spool, pile: int, records: Records, count: int) -> None:
        deal = spool.dealer.deal_rows(records.heads[:count, 1])
        sorted_ = self._sorting_room(count)
        spool.deal(pile, deal, records.data[:count], sorted_)
        self._give(sorted_)

    # Serving ----------------------------------------------------------------

    def admit(self, batch: int, must: bool) -> list[tuple[Slab, int, int]] | None:
        """Piles that hold a batch, and which places of each."""
        start, stop = self._spool.dealer.places(batch)
        if start == stop:
            return []
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, stop) - 1
        self._rooms.skip_to(batch)
        if not self._slabs:
            self._loaded_to = max(self._loaded_to, first)
        while self._loaded_to <= last:
            if not must and len(self._slabs) >= self.plan.slabs:
                return None
            self._load()
        return [
            (slab, max(start, slab.start), min(stop, slab.stop))
            for slab in self._slabs
            if slab.start < stop and slab.stop > start
        ]

    def _load(self) -> None:
        """Start reading the next pile."""
        pile = self._loaded_to
        self._loaded_to += 1
        start, stop = self._starts[pile], self._starts[pile + 1]
        if self._piles is not None and pile >= self._spool.n_kept:
            self._slabs.append(self._piles.load(pile))
            self._meter.hold((stop - start) * self._layout.row_bytes)
            return
        records = self._buffers.take()
        keep_pages = self._whole and self.plan.roll and not self._gave_pages
        index = self._pool.submit(self._bring, pile, start, stop, records, give_back=not keep_pages)
        slab = BufferedSlab(start, stop, records, index)
        if self._next is not None:
            slab.roll = self._pool.submit(self._roll, self._next, pile, slab)
        self._slabs.append(slab)

    def _bring(
        self, pile: int, start: int, stop: int, records: Records, *, give_back: bool
    ) -> NDArray[np.int64]:
        """Read a pile, and put it in order: one task, for a pile is small and others come too."""
        segments = self._spool.segments(pile)
        self._spool.read(segments, records)
        n_read = sum(segment[3] for segment in segments)
        self._spool.read_pages(pile, n_read, records, give_back=give_back)
        return self._spool.dealer.index(records.heads[: stop - start], start)

    def _roll(self, following: Spool, pile: int, slab: BufferedSlab) -> None:
        slab.wait()
        self._deal_records(following, pile, slab.records, slab.stop - slab.start)

    def room(self, batch: int) -> NDArray[Any] | None:
        """The array that rows are read to, if any are; else None: they are gathered into any."""
        self._rooms.skip_to(batch + 1)
        return self._rooms.get(batch)

    def gather(self, ticket: list[tuple[Slab, int, int]], rows: Any, out: NDArray[Any]) -> None:
        """Gather a batch's rows from its piles."""
        target, at = as_bytes(out), 0
        for slab, start, stop in ticket:
            slab.take(start, stop, target[at : at + stop - start])
            at += stop - start

    def rows(self, ticket: list[tuple[Slab, int, int]]) -> NDArray[np.int64]:
        """File rows of a batch."""
        parts = [slab.rows(start, stop) for slab, start, stop in ticket]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def retire(self, batch: int) -> None:
        """Let go of piles that are served, and read on."""
        stop = self._spool.dealer.places(batch)[1]
        self._served_to = max(self._served_to, stop)
        self._rooms.retire(batch)
        while self._slabs and self._slabs[0].stop <= self._served_to:
            self._drop(self._slabs.popleft())
        self._read_ahead()

    def _read_ahead(self) -> None:
        if not self._slabs:  # a resumed epoch, or another rank's rows: piles may be passed over
            return
        while len(self._slabs) < self.plan.slabs and self._loaded_to < self._spool.n_piles:
            if self._starts[self._loaded_to] >= self._end:
                break
            self._load()

    def _drop(self, slab: Slab) -> None:
        slab.wait()
        if not isinstance(slab, BufferedSlab):
            self._meter.hold((slab.start - slab.stop) * self._layout.row_bytes)
            return
        if slab.roll is not None:
            try:
                slab.roll.result()
            except ScratchError:  # the next epoch decodes again: no reason to stop this one
                self._next = None
        if self._piles is not None and self._loaded_to >= self._spool.n_kept:
            self._buffers.drop(slab.records)
        else:
            self._buffers.give(slab.records)

    def leave(self) -> KeptSpool | None:
        """The next epoch's records if they were dealt, or this one's."""
        while self._slabs:
            self._drop(self._slabs.popleft())
        if self._next is not None and self._loaded_to == self._spool.n_piles:
            return KeptSpool(self._next, True, self._pages, self._buffers, self._spool.scratch)
        if self._reusable and self._loaded_to == self._spool.n_piles:
            return KeptSpool(self._spool, False, self._pages, self._buffers, self._spare)
        self._close()
        return None

    @property
    def _reusable(self) -> bool:
        """Whether this epoch's records are still all there."""
        return self._dealt and self._whole and self.plan.roll and not self._gave_pages

    def salvage(self) -> KeptSpool | None:
        """The records, if they are still all there: for this same epoch."""
        slabs, self._slabs = self._slabs, deque()
        if not self._reusable:
            self._close()
            return None
        self._rooms.clear()
        for slab in slabs:
            if isinstance(slab, BufferedSlab):
                self._buffers.give(slab.records)
        return KeptSpool(self._spool, True, self._pages, self._buffers, self._spare)

    def _close(self) -> None:
        """Give everything back."""
        self._meter.hold(-self._pages.bytes_made - self._buffers.bytes_made)
        for file in self._files:
            file.close()


def as_rows(data: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """Bytes of rows, ``(n_rows, row_bytes)``, as rows, without a copy."""
    shape = (len(data), *layout.row_shape)
    if not prod(shape) or not layout.row_bytes:
        return np.empty(shape, layout.dtype)
    return data.reshape(-1).view(layout.dtype).reshape(shape)
