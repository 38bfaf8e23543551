"""The strategy that keeps every row in memory."""

from __future__ import annotations

import numpy as np

from epochal.layout import Layout
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import Infeasible, Part, Task

__all__ = ["plan_resident", "touched_chunks"]

RUN_BYTES = 2 << 20
FAR_RUN_BYTES = 1 << 20


def plan_resident(task: Task, name: str, share: int) -> Part:
    """Decode the view's rows once; every epoch is then gathered from memory."""
    layout, rates, order = task.layouts[name], task.machine.of(name), task.order
    rows_bytes = order.scheme.n_rows * layout.row_bytes
    # A run decodes straight into place unless a view leaves rows out, or its chunks are wider than
    # the rows wanted.
    # From afar a small source is one run, so that it takes what one thread does.
    least = layout.chunk_bytes if layout.in_flight == 1 else FAR_RUN_BYTES
    run_bytes = max(least, layout.chunk_bytes, min(RUN_BYTES, share // (8 * task.threads)))
    n_runs = -(-layout.n_chunks // max(1, run_bytes // max(layout.chunk_bytes, 1)))
    each = layout.read_overhead_bytes + (0 if order.selection is None else run_bytes)
    temporary = (task.threads if order.selection is not None else min(task.threads, n_runs)) * each
    held = rows_bytes + temporary
    if held > share:
        raise Infeasible("the decoded rows do not fit", task.common_bytes + held)
    chunks = touched_chunks(order, layout)
    decoded = int(layout.chunk_row_counts[chunks].sum()) * layout.row_bytes
    loading = task.decode_seconds(name, decoded)
    taking = task.n_rows_left * rates.take_seconds / task.threads
    first = Prediction(
        read_bytes=int(layout.chunk_stored_bytes[chunks].sum()),
        decoded_bytes=decoded,
        chunks_decoded=int(layout.chunk_pieces[chunks].sum()),
        seconds=loading + taking,
        first_batch_seconds=loading,
    )
    later = Prediction(seconds=order.n_positions * rates.take_seconds / task.threads)
    feed = FeedPlan(name, "resident", held, run_bytes)
    return Part(
        feed,
        first,
        later,
        later,
        (("all its rows", rows_bytes), ("chunks being decoded", temporary)),
    )


def touched_chunks(
    order: Order, layout: Layout
) -> slice | np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Chunks that hold at least one row of the view."""
    if order.selection is None:
        return slice(0, layout.n_chunks)
    return np.unique(layout.chunks_of(order.selection))
