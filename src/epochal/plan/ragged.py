"""Strategies for rows of varying length: the same five names, counted in items.

Positions of an order are weighed by the items of their rows; windows and piles are runs of
positions of about so many items. What a chunk holds goes to several of them, and a row may begin in
one chunk and end in another, so what is moved are *pieces* of rows; where each goes is known before
anything is read, since all lengths are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from math import isqrt, sqrt

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout, RaggedLayout
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import Infeasible, Part, Task
from epochal.sizes import show

__all__ = [
    "RAGGED_STRATEGIES",
    "SLABS",
    "batch_items",
    "cut_items",
    "cut_windows_items",
    "item_ends",
    "most_items",
    "runs_of",
    "touched",
    "view_rows",
]

Numbers = NDArray[np.int64]

POSITION_BYTES = 24  # of each position left: its row, where its items end, and a temporary
PLACE_BYTES = 40  # of each row of the file that is dealt: pile, place, and what finding them takes
RUN_BYTES = 1 << 20
SEGMENT_BYTES = 256 << 10
MAX_BLOCK_BYTES = 64 << 20
MAX_PILES = 1 << 16
SLABS = 3  # piles in memory while serving: the one served, the one being read, the one after
SLICE_SECONDS = 0.5e-6  # what copying one piece costs beside its bytes


def item_ends(order: Order, layout: RaggedLayout, start: int) -> Numbers:
    """Items before each position from `start` on, and in all, ``(n_positions - start + 1,)``."""
    rows = order.row_array(start, order.n_positions)
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(layout.offsets[rows + 1] - layout.offsets[rows], out=ends[1:])
    return ends


def view_rows(order: Order) -> slice | Numbers:
    """File rows that the view holds, ascending."""
    return slice(0, order.scheme.n_rows) if order.selection is None else order.selection


def batch_items(ends: Numbers, batch_rows: int) -> int:
    """The most items of `batch_rows` consecutive positions.

    >>> batch_items(np.array([0, 3, 4, 9, 10]), 2)
    6
    """
    if len(ends) <= batch_rows:
        return int(ends[-1])
    return int((ends[batch_rows:] - ends[:-batch_rows]).max())


def most_items(order: Order, layout: RaggedLayout, ends: Numbers, batch_rows: int) -> int:
    """Items of the largest batch of this epoch, and of any other as far as can be said: a plan must
    hold for all of them.

    That of consecutive rows is known; that of rows drawn at random is at most that of the longest
    ones, and all but surely within six standard deviations of their mean.
    """
    lengths = layout.lengths[view_rows(order)]
    if not len(lengths):
        return 0
    m = min(batch_rows, len(lengths))
    together = np.concatenate([[0], np.cumsum(lengths)])
    most = max(batch_items(ends, batch_rows), batch_items(together, m))
    if order.monotone:
        return most
    longest = int(np.partition(lengths, len(lengths) - m)[-m:].sum())
    if order.scheme.name == "random_uniform":  # which may draw the longest row again and again
        longest = m * int(lengths.max())
    likely = m * lengths.mean() + 6 * sqrt(m) * lengths.std() + lengths.max()
    return max(most, min(longest, int(likely)))


def cut_items(ends: Numbers, items: int) -> Numbers:
    """Where windows of about `items` items begin, and the end: each holds at most so many, or one
    row.

    >>> cut_items(np.array([0, 3, 4, 9, 10]), 5).tolist()
    [0, 2, 3, 4]
    """
    n = len(ends) - 1
    starts = [0]
    while starts[-1] < n:
        low = starts[-1]
        high = int(np.searchsorted(ends, ends[low] + max(items, 1), "right")) - 1
        starts.append(min(max(high, low + 1), n))
    return np.array(starts, dtype=np.int64)


def cut_windows_items(
    order: Order, ends: Numbers, start: int, items: int, *, whole_batches: bool
) -> list[int]:
    """Positions at which windows begin, and the end. Where only one is held at once they hold whole
    batches: a batch could not wait for the next window.
    """
    if not whole_batches:
        return [start + int(at) for at in cut_items(ends, items)]
    starts = [start]
    first = bisect_right(range(order.n_batches), start, key=lambda b: order.bounds(b)[1])
    for batch in range(first, order.n_batches):
        low, high = order.bounds(batch)
        if low > starts[-1] and ends[high - start] - ends[starts[-1] - start] > items:
            starts.append(low)
    return [*starts, order.n_positions] if starts[-1] < order.n_positions else starts


def touched(layout: Layout, begins: Numbers, ends: Numbers) -> NDArray[np.bool_]:
    """Which chunks of a column hold any of the items ``[begins[i], ends[i])``, ``(n_chunks,)``."""
    some = ends > begins
    change = np.zeros(layout.n_chunks + 1, dtype=np.int64)
    if some.any():
        np.add.at(change, layout.chunks_of(begins[some]), 1)
        np.add.at(change, layout.chunks_of(ends[some] - 1) + 1, -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)


def runs_of(chunks: NDArray[np.bool_], layout: Layout, run_items: int) -> Iterator[tuple[int, int]]:
    """Runs of marked neighbours, each of at most `run_items` items or one chunk."""
    numbers = np.flatnonzero(chunks)
    i = 0
    while i < len(numbers):
        first = int(numbers[i])
        end = layout.bounds(first)[0] + run_items
        j = i + 1
        while j < len(numbers) and numbers[j] == numbers[j - 1] + 1:
            if layout.bounds(int(numbers[j]))[1] > end:
                break
            j += 1
        yield first, int(numbers[j - 1]) + 1
        i = j


class _Question:
    """What the strategies ask of one source's rows at the positions that are left."""

    def __init__(self, task: Task, name: str) -> None:
        self.task, self.name = task, name
        self.layout = task.ragged(name)
        self.ends = item_ends(task.order, self.layout, task.start)
        self.item_bytes = max(self.layout.item_bytes, 1)
        self.overhead = max(c.read_overhead_bytes for c in self.layout.columns.values())
        self.positions_bytes = POSITION_BYTES * task.n_rows_left

    @cached_property
    def most_items(self) -> int:
        """Items of the largest batch of any epoch."""
        return most_items(self.task.order, self.layout, self.ends, self.task.batch_rows)

    @property
    def items(self) -> int:
        """Items at all positions that are left."""
        return int(self.ends[-1])

    @cached_property
    def view_items(self) -> int:
        """Items of all rows of the view: no epoch has more, but of rows that are drawn again."""
        return int(self.layout.lengths[view_rows(self.task.order)].sum())

    @property
    def widest(self) -> int:
        """Items of the longest row."""
        return int(np.diff(self.ends).max(initial=0))

    def run_items(self, run_bytes: int) -> int:
        """Items of a run of chunks: about so many bytes of the widest column, or one chunk."""
        columns = self.layout.columns.values()
        widest = max(max(c.row_bytes for c in columns), 1)
        return max(run_bytes // widest, max(min(c.chunk_rows, c.n_rows) for c in columns), 1)

    def run_bytes(self, run_items: int) -> int:
        """What decoding one run holds."""
        columns = self.layout.columns.values()
        return run_items * max(c.row_bytes for c in columns) + self.overhead

    def once(self) -> tuple[int, int, int]:
        """Stored bytes, pieces and decoded bytes of each touched chunk, once."""
        order = self.task.order
        rows = order.row_array(self.task.start, order.n_positions)
        return self.reading(rows)

    def reading(self, rows: Numbers) -> tuple[int, int, int]:
        """The same of the chunks that some rows touch."""
        read = pieces = decoded = 0
        begins, ends = self.layout.offsets[rows], self.layout.offsets[rows + 1]
        for column in self.layout.columns.values():
            chunks = touched(column, begins, ends)
            read += int(column.chunk_stored_bytes[chunks].sum())
            pieces += int(column.chunk_pieces[chunks].sum())
            decoded += int(column.chunk_row_counts[chunks].sum()) * column.row_bytes
        return read, pieces, decoded

    def copying(self, n_rows: int, items: int) -> float:
        """Seconds of copying rows once."""
        each = self.task.machine.of(self.name).take_seconds / max(self.layout.row_bytes, 1)
        pieces = n_rows * len(self.layout.columns) * SLICE_SECONDS
        return pieces + items * self.item_bytes * each / self.task.threads

    def infeasible(self, why: str, held: int) -> Infeasible:
        return Infeasible(why, self.task.common_bytes + held)


def _stream(task: Task, name: str, share: int) -> Part:
    """Each touched chunk once, in order, into the arrays of the batches."""
    if not task.order.monotone:
        raise Infeasible("the order does not follow the file")
    q = _Question(task, name)
    ahead = task.threads + 1
    fixed = 2 * q.most_items * q.item_bytes + q.positions_bytes
    for run_bytes in (RUN_BYTES, RUN_BYTES // 8, 1):
        run_items = q.run_items(run_bytes)
        temporary = task.threads * q.run_bytes(run_items)
        held = fixed + temporary + (ahead + 2) * run_items * q.item_bytes
        if held <= share:
            break
    else:
        raise q.infeasible("the chunks being decoded and their rows do not fit", held)
    feed = FeedPlan(name, "ragged stream", held, run_items=run_items, windows_ahead=ahead)
    read, pieces, decoded = q.once()
    seconds = task.decode_seconds(name, decoded) + q.copying(task.n_rows_left, q.items)
    part = min(1.0, ahead * run_items / max(q.items, 1))
    cost = Prediction(
        read_bytes=read,
        decoded_bytes=decoded,
        chunks_decoded=pieces,
        seconds=seconds,
        first_batch_seconds=seconds * part,
    )
    items = (("chunks being decoded", temporary), ("rows on their way", held - temporary))
    return Part(feed, cost, cost, cost, items)


def _resident(task: Task, name: str, share: int) -> Part:
    """Decode the view's rows once; every epoch is then copied from memory."""
    q = _Question(task, name)
    rows = view_rows(task.order)
    n_rows = task.order.scheme.n_rows
    begins, ends = q.layout.offsets[:-1][rows], q.layout.offsets[1:][rows]
    kept = int((ends - begins).sum()) * q.item_bytes + 8 * (n_rows + 1)
    run_items = q.run_items(min(RUN_BYTES, share // (8 * task.threads)))
    temporary = task.threads * q.run_bytes(run_items) + q.positions_bytes
    held = kept + temporary
    if held > share:
        raise q.infeasible("the decoded rows do not fit", held)
    chosen = np.arange(n_rows, dtype=np.int64) if isinstance(rows, slice) else rows
    read, pieces, decoded = q.reading(chosen)
    loading = task.decode_seconds(name, decoded) + q.copying(n_rows, 0)
    taking = q.copying(task.n_rows_left, q.items)
    first = Prediction(
        read_bytes=read,
        decoded_bytes=decoded,
        chunks_decoded=pieces,
        seconds=loading + taking,
        first_batch_seconds=loading,
    )
    later = Prediction(seconds=q.copying(task.order.n_positions, q.items))
    feed = FeedPlan(name, "ragged resident", held, run_items=run_items)
    return Part(
        feed, first, later, later, (("all its rows", kept), ("chunks being decoded", temporary))
    )


def _gather(task: Task, name: str, share: int) -> Part:
    """Not offered: rows of varying length are dealt from whole runs of chunks instead."""
    raise Infeasible("rows of varying length are not read one by one")


def _rescan(task: Task, name: str, share: int) -> Part:
    """Decode all touched chunks for each window: one large window, or two so that one is read
    ahead.
    """
    single = _windows(task, name, share, ahead=0)
    try:
        double = _windows(task, name, share, ahead=1)
    except Infeasible:
        return single
    return double if double.first.seconds <= 1.1 * single.first.seconds else single


def _windows(task: Task, name: str, share: int, *, ahead: int) -> Part:
    q = _Question(task, name)
    run_items = q.run_items(min(RUN_BYTES, share // (8 * task.threads)))
    temporary = task.threads * q.run_bytes(run_items) + q.positions_bytes
    n_windows = 1 + ahead
    least = q.most_items
    # A row of a window also has its number, place and index: as much as at a position.
    # That is of all rows of the view: any epoch's windows are to fit where this one's do.
    lengths = q.layout.lengths[view_rows(task.order)]
    each_bytes = q.item_bytes + -(-2 * POSITION_BYTES * len(lengths) // max(int(lengths.sum()), 1))
    window_items = (share - temporary) // n_windows // each_bytes
    if window_items < max(least, 1):
        raise q.infeasible(
            "a window of one batch and the chunks being decoded do not fit",
            temporary + n_windows * max(least, 1) * each_bytes,
        )
    window_items = min(window_items, max(q.items, least, 1))
    held = temporary + n_windows * window_items * each_bytes
    feed = FeedPlan(
        name,
        "ragged window",
        held,
        run_items=run_items,
        window_items=window_items,
        windows_ahead=ahead,
    )
    order, read, pieces, decoded = task.order, 0, 0, 0
    starts = cut_windows_items(order, q.ends, task.start, window_items, whole_batches=not ahead)
    for low, high in pairwise(starts):
        some = q.reading(order.row_array(low, high))
        read, pieces, decoded = read + some[0], pieces + some[1], decoded + some[2]
    seconds = task.decode_seconds(name, decoded) + 2 * q.copying(task.n_rows_left, q.items)
    cost = Prediction(
        read_bytes=read,
        decoded_bytes=decoded,
        chunks_decoded=pieces,
        seconds=seconds,
        first_batch_seconds=seconds / max(len(starts) - 1, 1),
    )
    items = (("chunks being decoded", temporary), ("windows", held - temporary))
    return Part(feed, cost, cost, cost, items)


def _spool(task: Task, name: str, share: int) -> Part:
    """Decode once, write what memory cannot keep, read it back in order.

    Blocks and piles are just large enough for segments of `SEGMENT_BYTES`, as in
    `epochal.plan.spool`; piles that memory has room for are not written.
    """
    machine, order = task.machine, task.order
    if machine.scratch_free_bytes <= 0:
        raise Infeasible(machine.scratch_why or "no scratch may be written")
    if order.scheme.name.startswith("random_"):
        raise Infeasible("rows that come more than once are not dealt")
    q = _Question(task, name)
    n_bytes = q.items * q.item_bytes
    if n_bytes > machine.scratch_free_bytes:
        raise Infeasible(
            f"scratch has {show(machine.scratch_free_bytes)} free, {show(n_bytes)} needed"
        )
    places = q.positions_bytes + PLACE_BYTES * q.layout.n_rows
    room = share - places
    # Of each block a thread holds what it decodes and the same sorted; piles are as large.
    buffers = SLABS + 2 * task.threads
    ideal = max(isqrt(SEGMENT_BYTES * max(n_bytes, 1)), SEGMENT_BYTES)
    block_bytes = max(min(ideal, MAX_BLOCK_BYTES, room // (2 * buffers)), 1)
    run_items = q.run_items(block_bytes)
    pile_items = max(block_bytes // q.item_bytes, q.most_items, 1)
    starts = cut_items(q.ends, pile_items)
    n_piles = len(starts) - 1
    if n_piles > MAX_PILES:
        raise Infeasible(f"more than {MAX_PILES} piles would be needed: too little memory")
    pile_bytes = np.diff(q.ends[starts]) * q.item_bytes
    blocks = sum(-(-c.n_rows // run_items) + 1 for c in q.layout.columns.values())
    # Piles of other epochs may be fuller, and some more.
    table = 16 * blocks * (n_piles + n_piles // 8 + 2)
    temporary = task.threads * 2 * q.run_bytes(run_items) + table
    slabs = SLABS * min(pile_items, q.view_items) * q.item_bytes
    fixed = temporary + slabs
    if fixed > room:
        raise q.infeasible("the buffers of blocks and piles do not fit", places + fixed)
    piles_kept = int(np.searchsorted(np.cumsum(pile_bytes), room - fixed, "right"))
    kept = int(pile_bytes[:piles_kept].sum())
    feed = FeedPlan(
        name,
        "ragged spool",
        places + fixed + kept,
        run_items=run_items,
        window_items=pile_items,
        n_piles=n_piles,
        piles_kept=piles_kept,
    )
    cost = _spool_cost(q, feed, spilled=n_bytes - kept)
    items = (
        ("places of its rows", places),
        ("blocks and piles", fixed),
        ("piles kept in memory", kept),
    )
    return Part(feed, cost, cost, cost, items)


def _spool_cost(q: _Question, feed: FeedPlan, spilled: int) -> Prediction:
    task, machine = q.task, q.task.machine
    read, pieces, decoded = q.once()
    wrote, back = machine.scratch_rates(spilled, task.budget_bytes)
    copying = q.copying(task.n_rows_left, q.items)
    writing = spilled / wrote
    dealing = max(task.decode_seconds(feed.source, decoded) + writing / task.threads, writing)
    serving = spilled / back / task.threads + copying
    return Prediction(
        read_bytes=read,
        decoded_bytes=decoded,
        chunks_decoded=pieces,
        spilled_bytes=spilled,
        seconds=dealing + copying + serving,
        first_batch_seconds=dealing + copying + serving / max(feed.n_piles, 1),
    )


RAGGED_STRATEGIES = {
    "stream": _stream,
    "resident": _resident,
    "gather": _gather,
    "rescan": _rescan,
    "spool": _spool,
}
