"""The strategy that reads single rows: gather."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import EXACT_ROWS, INDEX_ROW_BYTES, Infeasible, Part, Task

__all__ = ["BLOCK_BYTES", "UNCACHED_BYTES", "plan_gather", "uncached_bytes"]

WINDOW_BYTES = 128 << 20
RUN_BYTES = 256 << 10
UNCACHED_BYTES = 2 << 20
BLOCK_BYTES = 4096  # of devices: none has larger ones that must be heeded
UNPAUSED = 1.5  # what is asked for all at once comes so much quicker than run by run
SHARED = 5  # so many times what it takes else, a row waits for a device that loads the file
COUNTED_ROWS = 1 << 20  # rows at a time whose chunks are looked at


def plan_gather(task: Task, name: str, share: int) -> Part:
    """Single rows: from a device that answers at once straight into the batches, else in file order
    within a window; or from the page cache, which is told to read all of the file meanwhile, where
    it has room for that.
    """
    layout, rates = task.layouts[name], task.machine.of(name)
    if not layout.some_alone:
        raise Infeasible("rows cannot be read without decoding their chunk")
    kept = _kept(task, name)
    share -= kept.bytes
    at_once = 0 < rates.row_readers <= task.threads
    ways = [_plan_direct if at_once else _plan_windows]
    if rates.cached_row_seconds:
        ways.append(_plan_loaded)
    parts: list[Part] = []
    for way in ways:
        try:
            parts.append(way(task, name, share, kept))
        except Infeasible as why:
            refusal = why
    if not parts:
        raise refusal
    return min(parts, key=lambda part: part.seconds)


def uncached_bytes(row_bytes: int) -> int:
    """What a thread holds that reads rows past the page cache: a buffer of whole blocks."""
    return max(UNCACHED_BYTES, row_bytes + 2 * BLOCK_BYTES) + BLOCK_BYTES


def _plan_windows(task: Task, name: str, share: int, kept: _Kept) -> Part:
    layout, rates = task.layouts[name], task.machine.of(name)
    # Many readers where a device answers late; fewer where their buffers would be all there is.
    run_bytes = max(layout.row_bytes, RUN_BYTES)
    each = run_bytes + layout.read_overhead_bytes
    readers = max(task.threads, min(rates.row_readers, share // (4 * each)))
    temporary = readers * each
    row_bytes = max(layout.row_bytes, 1) + INDEX_ROW_BYTES
    window_rows = min((share - temporary) // 3, WINDOW_BYTES) // row_bytes
    least = task.batch_rows  # of any epoch: this one may have fewer rows
    if window_rows < least:
        raise Infeasible(
            "three windows of a batch do not fit",
            task.common_bytes + kept.bytes + temporary + 3 * least * row_bytes,
        )
    window_rows = min(window_rows, max(task.n_rows_left, least))
    held = temporary + 3 * window_rows * row_bytes
    feed = FeedPlan(
        name,
        "window",
        held + kept.bytes,
        run_bytes,
        window_rows,
        windows_ahead=1,
        alone=True,
        readers=readers,
    )
    copying = task.n_rows_left * rates.take_seconds / task.threads
    seconds = task.n_rows_left * rates.queued_row_seconds + copying
    cost = kept.added(_cost(task, name, seconds, window_rows))
    items = (("rows being read", temporary), ("windows", held - temporary), *kept.item)
    return Part(feed, cost, cost, cost, items)


def _plan_direct(task: Task, name: str, share: int, kept: _Kept) -> Part:
    layout, rates = task.layouts[name], task.machine.of(name)
    each = layout.read_overhead_bytes
    if rates.uncached:
        each = max(each, uncached_bytes(layout.row_bytes))
    held = task.threads * each
    if share < held:
        needed = task.common_bytes + kept.bytes + held
        raise Infeasible("the rows being read do not fit", needed)
    feed = FeedPlan(name, "direct", held + kept.bytes, alone=True, uncached=rates.uncached)
    seconds = task.n_rows_left * rates.queued_row_seconds
    # One thread reads the first group of batches.
    cost = _cost(task, name, seconds, task.batch_rows * task.batch_group * task.threads)
    cost = kept.added(cost)
    return Part(feed, cost, cost, cost, (("rows being read", held), *kept.item))


def _plan_loaded(task: Task, name: str, share: int, kept: _Kept) -> Part:
    """The same, and the page cache has all of the file soon: this epoch waits for that."""
    rates = task.machine.of(name)
    loading = int(task.layouts[name].stored_bytes) / (UNPAUSED * rates.decode_bytes_per_s)
    part = _plan_direct(replace(task, machine=task.machine.loaded([name])), name, share, kept)
    first_rows = min(task.batch_rows * task.batch_group * task.threads, task.n_rows_left)
    first_batch_seconds = min(SHARED * first_rows * rates.queued_row_seconds, loading)
    seconds = part.first.seconds + loading
    first = replace(part.first, seconds=seconds, first_batch_seconds=first_batch_seconds)
    return replace(part, feed=replace(part.feed, loads=True), first=first)


def _cost(task: Task, name: str, seconds: float, first_rows: int) -> Prediction:
    n_rows = task.n_rows_left
    n_bytes = n_rows * task.layouts[name].row_bytes
    part = min(first_rows, n_rows) / max(n_rows, 1)
    return Prediction(
        read_bytes=n_bytes,
        decoded_bytes=n_bytes,
        seconds=seconds,
        first_batch_seconds=seconds * part,
    )


@dataclass(frozen=True)
class _Kept:
    """Chunks that are decoded for rows that are read alone elsewhere, and kept: what they hold in
    any epoch; and of this one, the bytes of the rows that come out of them, and what decoding them
    takes.
    """

    bytes: int = 0
    row_bytes: int = 0
    cost: Prediction = field(default_factory=Prediction)

    @property
    def item(self) -> tuple[tuple[str, int], ...]:
        """Of the page of a plan."""
        return (("chunks that were decoded", self.bytes),) if self.bytes else ()

    def added(self, cost: Prediction) -> Prediction:
        """The cost of all rows read alone, made theirs: they are decoded all over the epoch."""
        seconds = cost.seconds + self.cost.seconds
        return replace(
            cost,
            read_bytes=cost.read_bytes + self.cost.read_bytes - self.row_bytes,
            decoded_bytes=cost.decoded_bytes + self.cost.decoded_bytes - self.row_bytes,
            chunks_decoded=cost.chunks_decoded + self.cost.chunks_decoded,
            seconds=seconds,
            first_batch_seconds=cost.first_batch_seconds * seconds / max(cost.seconds, 1e-9),
        )


def _kept(task: Task, name: str) -> _Kept:
    layout, order = task.layouts[name], task.order
    coded = layout.coded
    if coded is None or not len(coded):
        return _Kept()
    if order.selection is not None:
        coded = coded[_counted(layout, coded, [order.selection]) > 0]
    chunk_bytes = layout.chunk_row_counts * layout.row_bytes
    held = int(chunk_bytes[coded].sum())
    times = layout.chunk_row_counts[coded]
    if task.start or not order.each_row_once or order.selection is not None:
        ends = range(task.start, min(order.n_positions, task.start + EXACT_ROWS), COUNTED_ROWS)
        parts = (order.row_array(at, min(at + COUNTED_ROWS, order.n_positions)) for at in ends)
        times = _counted(layout, coded, parts)
        coded, times = coded[times > 0], times[times > 0]
    decoded = int(chunk_bytes[coded].sum())
    cost = Prediction(
        read_bytes=int(layout.chunk_stored_bytes[coded].sum()),
        decoded_bytes=decoded,
        chunks_decoded=int(layout.chunk_pieces[coded].sum()),
        seconds=task.decode_seconds(name, decoded),
    )
    return _Kept(held, int(times.sum()) * layout.row_bytes, cost)


def _counted(
    layout: Layout, chunks: NDArray[np.int64], parts: Iterable[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """How many of some rows each of some chunks has, ``(n_chunks,)``."""
    times = np.zeros(layout.n_chunks, dtype=np.int64)
    for rows in parts:
        times += np.bincount(layout.chunks_of(rows), minlength=layout.n_chunks)
    return times[chunks]
