"""Strategies that read windows of the order: stream and rescan."""

from __future__ import annotations

from dataclasses import replace

from epochal.layout import Layout
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import EXACT_ROWS, INDEX_ROW_BYTES, Infeasible, Part, Task
from epochal.plan.windows import count_chunks, cut_stream, cut_windows

__all__ = ["plan_rescan", "plan_stream"]

STREAM_WINDOW_BYTES = 4 << 20
RUN_BYTES = 1 << 20
FAR_RUN_BYTES = 4 << 20  # what is read by one call is some requests at once
FEW_ROWS = 1 << 14  # are counted in no time


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
        seconds = task.decode_seconds(name, n_bytes) + taking
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
