"""Rows that are read alone, straight into the batches that ask for them: nothing is held."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

from numpy.typing import NDArray

from epochal.execute import loading
from epochal.execute.pool import Pool
from epochal.execute.rooms import Rooms, array_maker
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.stores.rows import read_rows_into
from epochal.stores.source import Source

__all__ = ["DirectFeed"]


class _Load(NamedTuple):
    """The batches ``[first, stop)`` being read."""

    first: int
    stop: int
    future: Future[None]


class DirectFeed:
    """Feeds batches of any order from a device that answers at once: one read for a group of
    batches, of its rows in file order.
    """

    copies = False

    def __init__(
        self, plan: FeedPlan, source: Source, order: Order, group: int, pool: Pool
    ) -> None:
        self._plan = plan
        self._source = source
        self._order = order
        self._group = group
        self._pool = pool
        make = array_maker(order.bounds, source.layout, pool.batches)
        self._rooms = Rooms(order.bounds, 0, order.n_batches, make)
        self._loads: deque[_Load] = deque()

    def begin(self) -> None:
        """Rows are read when a batch is asked for; only the page cache may read on."""
        if self._plan.loads:
            self._pool.submit(loading.load, self._source, self._pool.check)

    def admit(self, batch: int, must: bool) -> Future[None]:
        """The read of the group that a batch is in."""
        for load in self._loads:
            if load.first <= batch < load.stop:
                return load.future
        self._rooms.skip_to(batch)
        return self._load(batch)

    def _load(self, first: int) -> Future[None]:
        last = min(first + self._group, self._order.n_batches) - 1
        start, stop = self._order.bounds(first)[0], self._order.bounds(last)[1]
        arrays = [room.array for room in self._rooms.within(start, stop)]
        future = self._pool.submit(self._read, start, stop, arrays)
        self._loads.append(_Load(first, last + 1, future))
        return future

    def _read(self, start: int, stop: int, arrays: list[NDArray[Any]]) -> None:
        rows = self._order.row_array(start, stop)
        read_rows_into(self._source, rows, arrays)

    def room(self, batch: int) -> NDArray[Any] | None:
        """The array that a batch's rows are read to."""
        return self._rooms.get(batch)

    def gather(self, ticket: Future[None], rows: Any, out: NDArray[Any]) -> None:
        """Wait for the read; there is nothing to copy."""
        ticket.result()

    def retire(self, batch: int) -> None:
        """Let go of what is served."""
        self._rooms.retire(batch)
        while self._loads and self._loads[0].stop <= batch + 1:
            self._loads.popleft()

    def leave(self) -> None:
        """Nothing is kept."""

    def salvage(self) -> None:
        """Nothing is kept."""
        self._loads.clear()
        self._rooms.clear()
