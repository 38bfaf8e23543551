"""Cutting an order into windows, and a window into reads: pure arithmetic on row numbers.

A *window* is a run of positions that is in memory at once. Its rows lie in the window's buffer in
file order, so each chunk writes one consecutive run of slots; `index` says at which slot each
position's row lies. (Rows are gathered from slots by position; nothing is ever inverted twice.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from epochal.layout import Layout
from epochal.plan.order import Order, Rows

__all__ = [
    "Read",
    "Window",
    "count_chunks",
    "cut_stream",
    "cut_windows",
    "in_file_order",
    "reads_of",
    "window_of",
]


@dataclass(frozen=True, eq=False, slots=True)
class Read:
    """Chunks ``[start, stop)`` of one source, and which of their rows go to which slots.

    ``rows`` (numbers counted from the first row of chunk `start`, ascending, repeats allowed) go to
    the consecutive slots from ``first_slot`` on; None means every row of those chunks, each once.
    """

    start: int
    stop: int
    first_slot: int
    n_slots: int
    rows: Rows | None


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """Positions ``[start, stop)`` of an order: what to read, and where each position's row will
    lie.

    ``index`` is ``(stop - start,)``; None when position ``start + i`` lies in slot ``i``.
    """

    start: int
    stop: int
    reads: tuple[Read, ...]
    index: Rows | None


def cut_windows(
    order: Order, start: int, window_rows: int, *, whole_batches: bool = False
) -> Iterator[tuple[int, int]]:
    """Windows of `window_rows` positions from `start` to the end.

    A scheme's own mixing windows are not cut apart where two windows are held at once; where only
    one is, windows hold whole batches (`whole_batches`), since a batch could not wait for the next
    one.
    """
    ends = None if whole_batches else order.scheme.window_bounds()
    stop = order.n_positions
    while start < stop:
        end = min(start + window_rows, stop)
        if ends is not None and end < stop:
            # The last mixing window that ends inside; a mixing window larger than ours must be cut
            # after all.
            inside = int(np.searchsorted(ends, end, side="right")) - 1
            if inside >= 0 and ends[inside] > start:
                end = int(ends[inside])
        if whole_batches and end < stop:
            end = _batch_end(order, start, end)
        yield start, end
        start = end


def _batch_end(order: Order, start: int, end: int) -> int:
    """The last end of a batch in ``(start, end]``; `end` where no batch ends there."""
    after = bisect_right(range(order.n_batches), end, key=lambda batch: order.bounds(batch)[1])
    last = order.bounds(after - 1)[1] if after else 0
    return last if last > start else end


def cut_stream(
    order: Order, layout: Layout, start: int, window_rows: int, readers: int = 0
) -> Iterator[tuple[int, int]]:
    """Windows of about `window_rows` positions of a monotone order that share no chunk: each is
    decoded once. The last ones are shorter, so that so many readers end at about the same time.
    """
    stop = order.n_positions
    while start < stop:
        share = max((stop - start) // (2 * readers), layout.chunk_rows) if readers else window_rows
        end = min(start + min(window_rows, share), stop)
        while end < stop:
            rows = order.rows(start, min(end + 1, stop))
            cut = _last_chunk(rows, layout)
            if cut > 0:
                end = start + cut
                break
            end = min(end + max(window_rows, 1), stop)
        yield start, end
        start = end


def window_of(
    order: Order, layout: Layout, start: int, stop: int, *, run_bytes: int, alone: bool
) -> Window:
    """What must be read for the positions ``[start, stop)``; see `reads_of`."""
    rows = order.rows(start, stop)
    ordered, by_row = in_file_order(rows, ascending=order.monotone)
    index = None
    if by_row is not None:
        index = np.empty(len(by_row), dtype=np.int64)
        index[by_row] = np.arange(len(by_row), dtype=np.int64)
    reads = tuple(reads_of(ordered, layout, run_bytes=run_bytes, alone=alone))
    return Window(start, stop, reads, index)


def _last_chunk(rows: slice | Rows, layout: Layout) -> int:
    """Where, among ascending rows, those of the last one's chunk begin."""
    if isinstance(rows, slice):
        first_row = layout.bounds(layout.chunk_of(rows.stop - 1))[0]
        return int(max(0, first_row - rows.start))
    first_row = layout.bounds(layout.chunk_of(int(rows[-1])))[0]
    return int(np.searchsorted(rows, first_row))


def in_file_order(rows: slice | Rows, *, ascending: bool = False) -> tuple[Rows, Rows | None]:
    """Rows in ascending order, and at which place of `rows` each was; None where the order did not
    change.
    """
    if isinstance(rows, slice):
        return np.arange(rows.start, rows.stop, dtype=np.int64), None
    if ascending:
        return rows, None
    by_row = np.argsort(rows, kind="stable")
    return rows[by_row], by_row


def reads_of(ordered: Rows, layout: Layout, *, run_bytes: int, alone: bool) -> Iterator[Read]:
    """Reads that bring ascending rows to the slots ``0, 1, ...``.

    Neighbouring touched chunks are put together up to `run_bytes` of decoded rows a read. With
    `alone`, rows are read by themselves: a read then names rows of the file, and its chunk numbers
    do not matter.
    """
    return (_alone_reads if alone else _chunk_reads)(ordered, layout, run_bytes)


def _alone_reads(ordered: Rows, layout: Layout, run_bytes: int) -> Iterator[Read]:
    step = max(1, run_bytes // max(layout.row_bytes, 1))
    for first in range(0, len(ordered), step):
        rows = ordered[first : first + step]
        yield Read(0, 0, first, len(rows), rows)


def _chunk_reads(ordered: Rows, layout: Layout, run_bytes: int) -> Iterator[Read]:
    chunks = layout.chunks_of(ordered)
    heads = np.flatnonzero(np.r_[True, chunks[1:] != chunks[:-1]]) if len(chunks) else chunks
    touched = chunks[heads]
    slots = np.r_[heads, len(ordered)]
    run_chunks = max(1, run_bytes // max(layout.chunk_bytes, 1))
    # A run ends where the next touched chunk is not the neighbour, or where the run is long enough.
    jumps = np.flatnonzero(np.r_[True, np.diff(touched) != 1, True]) if len(touched) else touched
    for low, high in zip(jumps[:-1].tolist(), jumps[1:].tolist(), strict=True):
        for first in range(low, high, run_chunks):
            last = min(first + run_chunks, high)
            start, stop = int(touched[first]), int(touched[last - 1]) + 1
            slot, end = int(slots[first]), int(slots[last])
            base = layout.bounds(start)[0]
            rows = ordered[slot:end] - base
            n_run_rows = layout.bounds(stop - 1)[1] - base
            whole = end - slot == n_run_rows and bool((np.diff(rows) == 1).all())
            yield Read(start, stop, slot, end - slot, None if whole else rows)


def count_chunks(
    order: Order, layout: Layout, bounds: Iterator[tuple[int, int]]
) -> tuple[int, int, int]:
    """Stored bytes read, pieces decoded and bytes decoded, over all windows: exact."""
    times = np.zeros(layout.n_chunks, dtype=np.int64)
    for start, stop in bounds:
        rows = order.rows(start, stop)
        if isinstance(rows, slice):
            if rows.stop > rows.start:
                first, last = layout.chunk_of(rows.start), layout.chunk_of(rows.stop - 1)
                times[first : last + 1] += 1
        else:
            times[_distinct(layout.chunks_of(rows), layout.n_chunks)] += 1
    read = int((times * layout.chunk_stored_bytes).sum())
    decoded = int((times * layout.chunk_row_counts).sum()) * layout.row_bytes
    return read, int((times * layout.chunk_pieces).sum()), decoded


def _distinct(chunks: Rows, n_chunks: int) -> Rows:
    """The distinct chunk numbers, by marking where that is cheaper than sorting."""
    if len(chunks) * 8 < n_chunks:
        return np.unique(chunks)
    touched = np.zeros(n_chunks, dtype=bool)
    touched[chunks] = True
    return np.flatnonzero(touched)
