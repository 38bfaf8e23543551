"""Strategies that read windows of the order: stream, gather, rescan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import INDEX_ROW_BYTES, Infeasible, Part, Task
from epochal.plan.windows import count_chunks, cut_stream, cut_windows

__all__ = [
    "BLOCK_BYTES",
    "UNCACHED_BYTES",
    "plan_gather",
    "plan_rescan",
    "plan_stream",
    "uncached_bytes",
]

STREAM_WINDOW_BYTES = 4 << 20
GATHER_WINDOW_BYTES = 128 << 20
RUN_BYTES = 1 << 20
FAR_RUN_BYTES = 4 << 20  # what is read by one call is some requests at once
GATHER_RUN_BYTES = 256 << 10
IN_FILE_ORDER = 1.0  # what a row costs in a window, whose end few readers work at, to one at random
UNCACHED_BYTES = 2 << 20
BLOCK_BYTES = 4096  # of devices: none has larger ones that must be heeded
FEW_ROWS = 1 << 14  # are counted in no time
COUNTED_ROWS = 1 << 20  # rows at a time whose chunks are looked at
EXACT_ROWS = 1 << 25  # an order longer than this is counted by expectation, not window by window


def plan_stream(task: Task, name: str, share: int) -> Part:
    """Each chunk once, in order. Holds a few windows of whole chunks."""
    layout = task.layouts[name]
    if not task.order.monotone:
        raise Infeasible("the order does not follow the file")
    # Rows come in no order but the file's, so a window's rows lie in its batches' own arrays.
    alone = layout.rows_alone and (task.order.selection is not None or task.order.scheme.world > 1)
    row_bytes = max(layout.row_bytes, 1) + (INDEX_ROW_BYTES if alone else 0)
    run_bytes = _run_bytes(task, layout, share)
    temporary = task.threads * (run_bytes + layout.read_overhead_bytes)
    least = layout.chunk_rows * row_bytes
    fixed = 2 * task.batch_rows * row_bytes  # batches that begin in one window and end in another
    windows_ahead = task.threads + 1
    room = (share - temporary - fixed) // (windows_ahead + 2)
    if room < least:
        windows_ahead = 1
        run_bytes = layout.chunk_bytes
        temporary = task.threads * (run_bytes + layout.read_overhead_bytes)
        room = (share - temporary - fixed) // 3
    if room < least:
        needed = task.common_bytes + temporary + fixed + 3 * least
        raise Infeasible("the windows of whole chunks do not fit", needed)
    window_rows = max(min(room, STREAM_WINDOW_BYTES) // row_bytes, layout.chunk_rows)
    held = temporary + fixed + (windows_ahead + 2) * window_rows * row_bytes
    feed = FeedPlan(name, "stream", held, run_bytes, window_rows, windows_ahead, alone=alone)
    cost = _cost(task, name, feed, first_rows=window_rows)
    return Part(feed, cost, cost, cost, _items(temporary, held))


def plan_gather(task: Task, name: str, share: int) -> Part:
    """Single rows: from a device that answers at once straight into the batches, else in file order
    within a window.
    """
    layout = task.layouts[name]
    if not layout.some_alone:
        raise Infeasible("rows cannot be read without decoding their chunk")
    kept = _kept(task, name)
    if 0 < task.machine.of(name).row_readers <= task.threads:
        return _plan_direct(task, name, share - kept.bytes, kept)
    share -= kept.bytes
    # Many readers where a device answers late; fewer where their buffers would be all there is.
    readers = task.machine.of(name).row_readers
    each = max(layout.row_bytes, GATHER_RUN_BYTES) + layout.read_overhead_bytes
    readers = max(task.threads, min(readers, share // (4 * each)))
    run_bytes = max(layout.row_bytes, GATHER_RUN_BYTES)
    temporary = readers * (run_bytes + layout.read_overhead_bytes)
    row_bytes = max(layout.row_bytes, 1) + INDEX_ROW_BYTES
    window_rows = min((share - temporary) // 3, GATHER_WINDOW_BYTES) // row_bytes
    least = task.batch_rows  # of any epoch: this one may have fewer rows
    if window_rows < least:
        raise Infeasible(
            "three windows of a batch do not fit",
            task.common_bytes + kept.bytes + temporary + 3 * least * row_bytes,
        )
    window_rows = min(window_rows, max(task.n_rows_left, least))
    held = temporary + 3 * window_rows * row_bytes
    items = (*_items(temporary, held), *kept.item)
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
    cost = kept.added(_cost(task, name, feed, first_rows=window_rows))
    return Part(feed, cost, cost, cost, items)


def uncached_bytes(row_bytes: int) -> int:
    """What a thread holds that reads rows past the page cache: a buffer of whole blocks."""
    return max(UNCACHED_BYTES, row_bytes + 2 * BLOCK_BYTES) + BLOCK_BYTES


def _plan_direct(task: Task, name: str, share: int, kept: _Kept) -> Part:
    layout = task.layouts[name]
    uncached = task.machine.of(name).uncached
    each = layout.read_overhead_bytes
    if uncached:
        each = max(each, uncached_bytes(layout.row_bytes))
    held = task.threads * each
    if share < held:
        needed = task.common_bytes + kept.bytes + held
        raise Infeasible("the rows being read do not fit", needed)
    feed = FeedPlan(name, "direct", held + kept.bytes, alone=True, uncached=uncached)
    cost = kept.added(_cost(task, name, feed, first_rows=task.batch_rows * task.batch_group))
    return Part(feed, cost, cost, cost, (("rows being read", held), *kept.item))


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


def plan_rescan(task: Task, name: str, share: int) -> Part:
    """Decode all touched chunks for each window: one large window, or two so that one is read
    ahead.
    """
    single = _plan_rescan(task, name, share, windows_ahead=0)
    try:
        double = _plan_rescan(task, name, share, windows_ahead=1)
    except Infeasible:
        return single
    # Reading ahead is worth a tenth more decoding: training then hides it.
    return double if double.first.seconds <= 1.1 * single.first.seconds else single


def _plan_rescan(task: Task, name: str, share: int, windows_ahead: int) -> Part:
    layout = task.layouts[name]
    run_bytes = _run_bytes(task, layout, share)
    temporary = task.threads * (run_bytes + layout.read_overhead_bytes)
    row_bytes = max(layout.row_bytes, 1) + INDEX_ROW_BYTES
    n_windows = 1 + windows_ahead
    window_rows = (share - temporary) // n_windows // row_bytes
    least = task.batch_rows  # of any epoch: this one may have fewer rows
    if window_rows < least:
        raise Infeasible(
            "a window of one batch and the chunks being decoded do not fit",
            task.common_bytes + temporary + n_windows * least * row_bytes,
        )
    window_rows = min(window_rows, max(task.n_rows_left, least))
    held = temporary + n_windows * window_rows * row_bytes
    feed = FeedPlan(name, "window", held, run_bytes, window_rows, windows_ahead)
    cost = _cost(task, name, feed, first_rows=window_rows)
    return Part(feed, cost, cost, cost, _items(temporary, held))


def _run_bytes(task: Task, layout: Layout, share: int) -> int:
    """Neighbouring chunks are read together up to this: small chunks would otherwise cost a call
    each.
    """
    near = layout.in_flight == 1
    most, part = (RUN_BYTES, 8) if near else (FAR_RUN_BYTES, 4)
    return max(layout.chunk_bytes, min(most, share // (part * task.threads)))


def _items(temporary: int, held: int) -> tuple[tuple[str, int], ...]:
    return (("chunks being decoded", temporary), ("windows", held - temporary))


def _cost(task: Task, name: str, feed: FeedPlan, first_rows: int) -> Prediction:
    layout, rates, order = task.layouts[name], task.machine.of(name), task.order
    n_rows = task.n_rows_left
    taking = n_rows * rates.take_seconds / task.threads
    part = min(first_rows, n_rows) / max(n_rows, 1)
    if feed.alone:
        n_bytes = n_rows * layout.row_bytes
        alone_seconds = n_rows * rates.queued_row_seconds
        if feed.kind == "stream":
            seconds = task.decode_seconds(name, n_bytes) + taking
        elif feed.kind == "direct":
            seconds = alone_seconds
            part *= task.threads  # one of them reads the first group of batches
        else:
            seconds = alone_seconds * IN_FILE_ORDER + taking
        return Prediction(
            read_bytes=n_bytes,
            decoded_bytes=n_bytes,
            seconds=seconds,
            first_batch_seconds=seconds * part,
        )
    read, pieces, decoded = _touched(task, layout, feed)
    seconds = task.decode_seconds(name, decoded) + 2 * taking
    if feed.kind != "stream" and not order.monotone:
        seconds += n_rows * task.machine.record_seconds
    # A window read ahead overlaps nothing before the first batch.
    cost = Prediction(
        read_bytes=read,
        decoded_bytes=decoded,
        chunks_decoded=pieces,
        seconds=seconds,
        first_batch_seconds=seconds * part,
    )
    if feed.kind == "stream":
        return replace(cost, first_batch_seconds=cost.first_batch_seconds * task.threads)
    return cost


def _touched(task: Task, layout: Layout, feed: FeedPlan) -> tuple[int, int, int]:
    """Stored bytes, pieces and decoded bytes of all windows."""
    expected = task.n_rows_left > EXACT_ROWS and not task.order.monotone
    if task.order.is_uniform and not task.exact and task.n_rows_left > FEW_ROWS:
        expected = True
    if expected:
        windows = -(-task.n_rows_left // feed.window_rows)
        per_window = 1 - (1 - 1 / max(layout.n_chunks, 1)) ** min(
            feed.window_rows, task.n_rows_left
        )
        times = windows * per_window
        return (
            int(layout.stored_bytes * times),
            int(int(layout.chunk_pieces.sum()) * times),
            int(layout.decoded_bytes * times),
        )
    if feed.kind == "stream":
        bounds = cut_stream(task.order, layout, task.start, feed.window_rows)
    else:
        bounds = cut_windows(
            task.order, task.start, feed.window_rows, whole_batches=not feed.windows_ahead
        )
    return count_chunks(task.order, layout, bounds)
