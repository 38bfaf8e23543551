"""Residents: every row of a source in memory, decoded once and kept from epoch to epoch."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.aside import read_aside
from epochal.execute.meter import Meter
from epochal.execute.pool import Pool, have_succeeded, wait
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan
from epochal.plan.resident import touched_chunks
from epochal.stores.store import Source

__all__ = ["ResidentFeed"]


class ResidentFeed:
    """Feeds batches from an array of the view's rows, ``(n_view_rows, *row_shape)``."""

    copies = True

    def __init__(
        self,
        plan: FeedPlan,
        source: Source,
        order: Order,
        pool: Pool,
        meter: Meter,
        kept: NDArray[Any] | None,
    ) -> None:
        self.plan = plan
        self._source = source
        self._order = order
        self._pool = pool
        self._meter = meter
        self._array = kept
        self._begun = kept is not None  # all reads that are needed were submitted
        self._futures: list[Future[None]] = []
        self._runs: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start loading, unless the rows were kept."""
        if self._array is not None:
            return
        layout = self._source.layout
        run_chunks = max(1, self.plan.run_bytes // max(layout.chunk_bytes, 1))
        self._runs = list(reversed(self._cut(run_chunks)))
        self._array = np.empty((self._order.scheme.n_rows, *layout.row_shape), layout.dtype)
        self._meter.hold(self._array.nbytes)
        self._futures = [self._pool.submit(self._load) for _ in range(self._pool.threads)]
        self._begun = True

    def _cut(self, run_chunks: int) -> list[tuple[int, int]]:
        """Runs of touched chunks."""
        layout = self._source.layout
        touched = touched_chunks(self._order, layout)
        if isinstance(touched, slice):
            n_chunks = layout.n_chunks
            return [(c, min(c + run_chunks, n_chunks)) for c in range(0, n_chunks, run_chunks)]
        runs: list[tuple[int, int]] = []
        for chunk in touched.tolist():
            if runs and runs[-1][1] == chunk and chunk - runs[-1][0] < run_chunks:
                runs[-1] = (runs[-1][0], chunk + 1)
            else:
                runs.append((chunk, chunk + 1))
        return runs

    def _load(self) -> None:
        while True:
            self._pool.check()
            with self._lock:
                if not self._runs:
                    return
                start, stop = self._runs.pop()
            try:
                self._read(start, stop)
            except BaseException:
                self._runs = []  # the others stop, too
                raise

    def _read(self, start: int, stop: int) -> None:
        assert self._array is not None
        layout, selection = self._source.layout, self._order.selection
        first_row, last_row = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
        if selection is None:
            self._source.read(start, stop, self._array[first_row:last_row])
            return
        low, high = self._order.view_range(first_row, last_row)
        block = read_aside(self._source, start, stop, self._pool)
        np.take(
            block, selection[low:high] - first_row, axis=0, out=self._array[low:high], mode="clip"
        )

    def admit(self, batch: int, must: bool) -> bool:
        """Always: the rows are there, or on their way."""
        return True

    def room(self, batch: int) -> NDArray[Any] | None:
        """None: rows are gathered into any array."""
        return None

    def gather(
        self, ticket: bool, rows: NDArray[np.int64] | slice | None, out: NDArray[Any]
    ) -> None:
        """Gather file rows from memory."""
        wait(self._futures)
        assert self._array is not None
        assert rows is not None
        selection = self._order.selection
        if isinstance(rows, slice):
            out[...] = self._array[rows]
            return
        if selection is not None:
            rows = np.searchsorted(selection, rows)
        np.take(self._array, rows, axis=0, out=out, mode="clip")

    def retire(self, batch: int) -> None:
        """Nothing is let go of."""

    def leave(self) -> NDArray[Any] | None:
        """The rows, if they are whole."""
        wait(self._futures)
        return self._array

    def salvage(self) -> NDArray[Any] | None:
        """The rows, if all were loaded."""
        loaded = self._begun and not self._runs and have_succeeded(self._futures)
        return self._array if loaded else None
