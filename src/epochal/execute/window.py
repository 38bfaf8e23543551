"""Windows: read what a run of positions needs into one buffer, ahead of the batches."""

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
from epochal.execute.pool import Pool, wait
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.plan.windows import Read, Window, cut_windows, window_of
from epochal.stores.store import Source

__all__ = ["WindowFeed"]


class _Load:
    """One window being read: its buffer, and the tasks that fill it from a common list of reads."""

    def __init__(self, feed: WindowFeed, start: int, stop: int, buffer: NDArray[Any]) -> None:
        self.start, self.stop = start, stop
        self.buffer = buffer
        self.window: Window | None = None
        self._feed = feed
        self._reads: Iterator[Read] = iter(())
        self._lock = threading.Lock()
        n_tasks = feed.plan.readers or feed.pool.threads
        self.futures: list[Future[None]] = [feed.pool.submit(self._run) for _ in range(n_tasks)]

    def _run(self) -> None:
        while (read := self._next()) is not None:
            self._feed.pool.check()
            self._feed.fill(read, self.buffer)

    def _next(self) -> Read | None:
        """The next read; whoever comes first plans the window."""
        with self._lock:
            if self.window is None:
                self.window = self._feed.window(self.start, self.stop)
                self._reads = iter(self.window.reads)
            return next(self._reads, None)

    def take(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Rows at the positions ``[start, stop)`` of the order, which lie in this window."""
        wait(self.futures)
        assert self.window is not None
        low, high = start - self.start, stop - self.start
        if self.window.index is None:
            out[...] = self.buffer[low:high]
        else:
            np.take(self.buffer, self.window.index[low:high], axis=0, out=out, mode="clip")


class WindowFeed:
    """Feeds batches from windows of the order; see `FeedPlan`."""

    copies = True

    def __init__(
        self, plan: FeedPlan, source: Source, order: Order, start: int, pool: Pool, meter: Meter
    ) -> None:
        self.plan = plan
        self.pool = pool
        self._source = source
        self._order = order
        self._meter = meter
        self._loads: deque[_Load] = deque()
        self._free: list[NDArray[Any]] = []
        self._loaded_to = start
        self._bounds = cut_windows(
            order, start, plan.window_rows, whole_batches=not plan.windows_ahead
        )

    def begin(self) -> None:
        """Start reading the first windows."""
        self._read_ahead()

    def admit(self, batch: int, must: bool) -> list[tuple[_Load, int, int]] | None:
        """Windows that hold a batch, and which positions of each."""
        start, stop = self._order.bounds(batch)
        while self._loaded_to < stop:
            if not must and len(self._loads) > self.plan.windows_ahead:
                return None
            self._load()
        return [
            (load, max(start, load.start), min(stop, load.stop))
            for load in self._loads
            if load.start < stop and load.stop > start
        ]

    def room(self, batch: int) -> NDArray[Any] | None:
        """None: rows are gathered into any array."""
        return None

    def gather(self, ticket: list[tuple[_Load, int, int]], rows: Any, out: NDArray[Any]) -> None:
        """Copy a batch's rows from its windows."""
        at = 0
        for load, start, stop in ticket:
            load.take(start, stop, out[at : at + stop - start])
            at += stop - start

    def retire(self, batch: int) -> None:
        """Let go of windows that are served, and read on."""
        stop = self._order.bounds(batch)[1]
        while self._loads and self._loads[0].stop <= stop:
            load = self._loads.popleft()
            wait(load.futures)
            self._free.append(load.buffer)
        self._read_ahead()

    def leave(self) -> None:
        """Nothing is kept: the next epoch has other windows."""
        for buffer in self._free:
            self._meter.hold(-buffer.nbytes)
        self._free.clear()

    def salvage(self) -> None:
        """Nothing; and windows no longer refer to this feed, nor it to them."""
        self._loads.clear()

    def _read_ahead(self) -> None:
        while (
            len(self._loads) <= self.plan.windows_ahead
            and self._loaded_to < self._order.n_positions
        ):
            self._load()

    def _load(self) -> None:
        start, stop = next(self._bounds)
        layout = self._source.layout
        buffer = self._free.pop() if self._free else None
        if buffer is None or len(buffer) < stop - start:
            n_rows = max(stop - start, min(self.plan.window_rows, self._order.n_positions))
            buffer = np.empty((n_rows, *layout.row_shape), layout.dtype)
            self._meter.hold(buffer.nbytes)
        self._loads.append(_Load(self, start, stop, buffer))
        self._loaded_to = stop

    def window(self, start: int, stop: int) -> Window:
        """Plan one window."""
        return window_of(
            self._order,
            self._source.layout,
            start,
            stop,
            run_bytes=self.plan.run_bytes,
            alone=self.plan.alone,
        )

    def fill(self, read: Read, buffer: NDArray[Any]) -> None:
        """Carry out one read."""
        slots = buffer[read.first_slot : read.first_slot + read.n_slots]
        if self.plan.alone:
            assert read.rows is not None
            self._source.read_rows(read.rows, slots)
        elif read.rows is None:
            self._source.read(read.start, read.stop, slots)
        else:
            block = read_aside(self._source, read.start, read.stop, self.pool)
            np.take(block, read.rows, axis=0, out=slots, mode="clip")
