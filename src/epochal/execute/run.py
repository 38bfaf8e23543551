"""One epoch in progress: feeds prepared ahead, batches made on the pool, handed over in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.execute.ahead import Ahead
from epochal.execute.coded import KeptCoded
from epochal.execute.direct import DirectFeed
from epochal.execute.feed import BatchRows, Feed, Ticket
from epochal.execute.meter import Meter
from epochal.execute.piles import KeptSpool, SpoolFeed
from epochal.execute.pool import Pool
from epochal.execute.ragged import RaggedResidentFeed, RaggedStreamFeed, RaggedWindowFeed
from epochal.execute.ragged_spool import KeptScratch, RaggedSpoolFeed
from epochal.execute.resident import ResidentFeed
from epochal.execute.skip import Ledger
from epochal.execute.stream import StreamFeed
from epochal.execute.uncached import Uncached
from epochal.execute.window import WindowFeed
from epochal.layout import Layout, RaggedLayout
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan, Plan, Prediction
from epochal.stores.ragged import AnySource, RaggedSource

__all__ = ["Run", "discard"]

Arrays = tuple[BatchRows, ...]
KEEPS_NOTHING = {"stream", "window", "direct", "ragged stream", "ragged window"}
SMALL_PART = 16  # the caller's thread copies no more than this part of a batch: a sixteenth


class _Made(NamedTuple):
    """A batch that is being made: where its rows come from, and the arrays they go to."""

    batch: int
    tickets: list[Ticket]
    rows: slice | NDArray[np.int64] | None
    arrays: Arrays


class _Done(NamedTuple):
    """A batch that was made, and what is held for it beyond what was planned."""

    batch: Any
    more_bytes: int


class _Failed(NamedTuple):
    """What stands for a batch that could not be made."""

    error: BaseException


class Run:
    """Makes the batches of one epoch, from `start_batch` on.

    Parameters
    ----------
    plan, order, next_order
        What to do; the order of this epoch, and of the next one, which a spool may deal for.
    sources
        By name, in the batch's order.
    finish, finish_is_cheap
        Applied to each batch's arrays, on the pool unless it is cheap.
    kept
        What the last epoch's `leave` returned.
    warm
        Whether the pool's threads run already.
    ledger
        Rows to leave out of batches, where any are to be.
    """

    def __init__(
        self,
        plan: Plan,
        order: Order,
        next_order: Order | None,
        sources: Mapping[str, AnySource],
        *,
        pool: Pool,
        meter: Meter,
        scratch: Path | None,
        finish: Callable[[Arrays], Any],
        finish_is_cheap: bool,
        kept: Mapping[str, Any],
        start_batch: int = 0,
        warm: bool = False,
        ledger: Ledger | None = None,
    ) -> None:
        self.plan = plan
        self.meter = meter
        self.predicted = _predicted(plan, kept, warm=warm and not start_batch)
        self._order = order
        self._pool = pool
        self._finish = finish
        self._ledger = ledger
        past = {feed.source for feed in plan.feeds if feed.uncached}
        self._sources = meter.wrap(
            {name: _uncached(one) if name in past else one for name, one in sources.items()}
        )
        self._batch = self._submitted = start_batch
        self._waiting: deque[Callable[[], list[_Done | _Failed]]] = deque()
        self._ready: deque[_Done | _Failed] = deque()
        self._ahead = Ahead(plan, as_stored=finish_is_cheap)
        self._more_bytes = 0  # of the batch that is the user's
        self._began: float | None = None
        start = order.bounds(start_batch)[0] if start_batch < order.n_batches else order.n_positions
        context = (order, next_order, start, pool, meter, scratch, plan.batch_group)
        self._feeds: list[Feed] = [
            _feed(feed, self._sources[feed.source], kept.get(feed.source), *context)
            for feed in plan.feeds
        ]
        self._row_feed = next((feed for feed in self._feeds if isinstance(feed, SpoolFeed)), None)
        self._rows_wanted = any(isinstance(feed, ResidentFeed) for feed in self._feeds)
        self._finish_is_cheap = finish_is_cheap
        self._waits_only = False
        self._primed = False
        # Feeds make their first arrays as they begin; what a pile has is known after that.
        pool.batches.keep_idle(plan.common_bytes)

    def prime(self) -> None:
        """Start preparing the first batches."""
        if not self._primed:
            self._primed = True
            # Small sources first: their few reads would wait behind those of a large one.
            sizes = [source.layout.decoded_bytes for source in self._sources.values()]
            for place in np.argsort(sizes, kind="stable"):
                self._feeds[place].begin()
            # Tasks that wait for reads would keep threads from reading: the caller's thread makes
            # batches of which next to nothing is left to be copied.
            copied = sum(size for feed, size in zip(self._feeds, sizes, strict=True) if feed.copies)
            self._waits_only = self._finish_is_cheap and SMALL_PART * copied <= sum(sizes)
            self._pool.batches.keep_idle(self.plan.common_bytes + self._pile_bytes())

    def _pile_bytes(self) -> int:
        """What comes straight to its batches in one go, a pile or a run: so much memory of batches
        comes free before the next one is read.
        """
        n_bytes = 0
        for feed, made, source in zip(
            self.plan.feeds, self._feeds, self._sources.values(), strict=True
        ):
            if not made.copies:
                layout = source.layout
                items = layout.item_bytes if isinstance(layout, RaggedLayout) else 0
                n_bytes += feed.run_bytes + feed.window_items * items
        return n_bytes

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Any:
        began = time.perf_counter()
        if self._began is None:
            self._began = began
        self.prime()
        if not self._ready:
            self._fetch()
        made = self._ready.popleft()
        if isinstance(made, _Failed):
            raise made.error
        if made.more_bytes or self._more_bytes:
            self.meter.hold(-self._more_bytes)
            self._more_bytes = made.more_bytes
        now = time.perf_counter()
        stats = self.meter.stats
        if not stats.rows:
            stats.first_batch_seconds = now - self._began
        start, stop = self._order.bounds(self._batch)
        stats.rows += stop - start
        stats.seconds_waited += now - began
        stats.seconds = now - self._began
        self._batch += 1
        return made.batch

    def _fetch(self) -> None:
        """Wait for the next group of batches."""
        if self._batch > 0:
            for feed in self._feeds:
                feed.retire(self._batch - 1)
        self._submit()
        if not self._waiting:
            raise StopIteration
        most = self._ahead.most
        self._ready.extend(self._waiting.popleft()())
        if self._ahead.most > most:  # the first batch tells, and the next ones need not wait
            self._submit()

    def _submit(self) -> None:
        """Submit batches up to the number ahead, as far as their rows can be held; the next one in
        any case.
        """
        ahead = min(self.plan.batches_ahead, self._ahead.most)
        limit = min(self._batch + ahead, self._order.n_batches)
        while self._submitted < limit or self._submitted == self._batch < self._order.n_batches:
            group: list[_Made] = []
            most = min(self.plan.batch_group, self._ahead.most)
            while len(group) < most and self._submitted < self._order.n_batches:
                must = self._submitted == self._batch
                tickets = self._admit(self._submitted, must)
                if tickets is None:
                    break
                group.append(
                    _Made(self._submitted, tickets, self._rows(self._submitted), self._room())
                )
                self._submitted += 1
            if not group:
                return
            self._waiting.append(self._submit_group(group))

    def _submit_group(self, group: list[_Made]) -> Callable[[], list[_Done | _Failed]]:
        """What will bring the batches of a group: a task, or, where nothing is left to do but to
        wait for reads, the caller's own thread.
        """
        if self._waits_only:
            return lambda: self._make(group)
        return self._pool.submit(self._make, group).result

    def _admit(self, batch: int, must: bool) -> list[Ticket] | None:
        tickets: list[Ticket] = []
        for feed in self._feeds:
            ticket = feed.admit(batch, must)
            if ticket is None:
                return None
            tickets.append(ticket)
        return tickets

    def _rows(self, batch: int) -> slice | NDArray[np.int64] | None:
        """File rows of a batch, where somebody wants them and no spool carries them with it."""
        if self._row_feed is not None or not self._rows_wanted:
            return None
        return self._order.rows(*self._order.bounds(batch))

    def _room(self) -> Arrays:
        """Arrays for the batch that is submitted next.

        They are made on the caller's thread, where they are let go of, too: the C library keeps
        memory that was freed for the thread that asked for it, and many threads would each keep
        some.
        """
        start, stop = self._order.bounds(self._submitted)
        arrays: list[BatchRows] = []
        for feed, source in zip(self._feeds, self._sources.values(), strict=True):
            room = feed.room(self._submitted)
            if room is None:
                layout = source.layout
                assert isinstance(layout, Layout)
                room = self._pool.batches.empty((stop - start, *layout.row_shape), layout.dtype)
            arrays.append(room)
        return tuple(arrays)

    def _make(self, group: list[_Made]) -> list[_Done | _Failed]:
        """The batches of a group, up to one that fails: its error comes in its place."""
        made: list[_Done | _Failed] = []
        for one in group:
            try:
                batch = self._finish(self._gather(one))
                more_bytes = self._ahead.see(batch)
                if more_bytes:
                    self.meter.hold(more_bytes)
                made.append(_Done(batch, more_bytes))
            except BaseException as error:
                made.append(_Failed(error))
                break
        return made

    def _gather(self, one: _Made) -> Arrays:
        rows = one.rows
        if self._row_feed is not None and self._rows_wanted:
            rows = self._row_feed.rows(one.tickets[self._feeds.index(self._row_feed)])
        for feed, ticket, out in zip(self._feeds, one.tickets, one.arrays, strict=True):
            feed.gather(ticket, rows, out)
        return self._without_skipped(one) if self._ledger else one.arrays

    def _without_skipped(self, one: _Made) -> Arrays:
        """A batch without the rows that some source could not read."""
        assert self._ledger is not None
        if self._row_feed is not None:
            rows = self._row_feed.rows(one.tickets[self._feeds.index(self._row_feed)])
        else:
            rows = self._order.row_array(*self._order.bounds(one.batch))
        keep = self._ledger.good(rows)
        if keep.all():
            return one.arrays
        self.meter.skip(len(keep) - int(keep.sum()), self._ledger.entries())
        return tuple(array[keep] for array in one.arrays)

    def salvage(self) -> dict[str, Any]:
        """After the run was stopped midway: what starting it again may keep, by source."""
        return {
            feed.source: kept
            for feed, made in zip(self.plan.feeds, self._feeds, strict=True)
            if (kept := made.salvage()) is not None
        }

    @property
    def begins_at_once(self) -> bool:
        """Whether the next epoch can begin without dealing all rows of a source first: this one has
        dealt them for it, or none are dealt at all.
        """
        return all(
            isinstance(made, SpoolFeed) and made.rolling
            for feed, made in zip(self.plan.feeds, self._feeds, strict=True)
            if feed.kind in ("spool", "ragged spool")
        )

    def leave(self) -> dict[str, Any]:
        """After the last batch: what the next epoch may keep, by source."""
        if self._order.n_batches:
            for feed in self._feeds:
                feed.retire(self._order.n_batches - 1)
        left = {
            feed.source: made.leave()
            for feed, made in zip(self.plan.feeds, self._feeds, strict=True)
        }
        return {source: kept for source, kept in left.items() if kept is not None}


def discard(kept: Mapping[str, Any]) -> None:
    """Let go of what was kept: scratch is freed at once."""
    for one in kept.values():
        if isinstance(one, KeptSpool | KeptScratch):
            one.close()


def _predicted(plan: Plan, kept: Mapping[str, Any], *, warm: bool) -> Prediction:
    """What the plan says of an epoch that starts with what was kept, and maybe with threads."""
    if any(isinstance(one, KeptSpool) and not one.rolled for one in kept.values()):
        return plan.second
    if kept or (warm and all(feed.kind in KEEPS_NOTHING for feed in plan.feeds)):
        return plan.later
    return plan.predicted


def _feed(
    plan: FeedPlan,
    source: AnySource,
    kept: Any,
    order: Order,
    next_order: Order | None,
    start: int,
    pool: Pool,
    meter: Meter,
    scratch: Path | None,
    group: int,
) -> Feed:
    if isinstance(source, RaggedSource):
        return _ragged_feed(plan, source, kept, order, start, pool, meter, scratch)
    if plan.alone and source.layout.coded is not None:
        source = KeptCoded(source, meter)
    if plan.kind == "resident":
        return ResidentFeed(plan, source, order, pool, meter, kept)
    if plan.kind == "direct":
        return DirectFeed(plan, source, order, group, pool)
    if plan.kind == "stream":
        return StreamFeed(plan, source, order, start, pool, meter)
    if plan.kind == "spool":
        assert scratch is not None
        return SpoolFeed(plan, source, order, next_order, start, pool, meter, scratch, kept)
    return WindowFeed(plan, source, order, start, pool, meter)


def _uncached(source: AnySource) -> AnySource:
    """Its rows are read past the page cache."""
    assert not isinstance(source, RaggedSource)
    return Uncached(source)


def _ragged_feed(
    plan: FeedPlan,
    source: RaggedSource,
    kept: Any,
    order: Order,
    start: int,
    pool: Pool,
    meter: Meter,
    scratch: Path | None,
) -> Feed:
    if plan.kind == "ragged resident":
        return RaggedResidentFeed(plan, source, order, start, pool, meter, kept)
    if plan.kind == "ragged stream":
        return RaggedStreamFeed(plan, source, order, start, pool, meter)
    if plan.kind == "ragged spool":
        assert scratch is not None
        return RaggedSpoolFeed(plan, source, order, start, pool, meter, scratch, kept)
    return RaggedWindowFeed(plan, source, order, start, pool, meter)
