"""The strategy that deals rows into piles: its geometry and its cost.

Let a source of ``N`` records of ``r`` bytes be dealt in blocks of ``b`` bytes into piles of ``s``
bytes. A pile is then read back as one segment a block, ``b * s / (N * r)`` bytes each. Blocks and
piles are taken equal, just large enough for segments of `SEGMENT_BYTES` (so that a device that
seeks still streams), and no larger than half of the memory that is left has room for; whatever
memory remains keeps the first piles, which then are never written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt, sqrt

import numpy as np

from epochal.layout import Layout
from epochal.plan.piles import HEAD_BYTES, dealer_bytes
from epochal.plan.plan import FeedPlan, Prediction
from epochal.plan.task import Infeasible, Part, Task
from epochal.sizes import show

__all__ = ["LONG_BYTES", "are_long", "plan_spool"]

SEGMENT_BYTES = 256 << 10
MIN_BLOCK_BYTES = 256 << 10
MAX_BLOCK_BYTES = 64 << 20
MAX_PILES = 1 << 16
INDEX_BYTES = 24  # a record of a pile being served: its index, and what sorting it takes
DEAL_BYTES = 48  # a record of a block being dealt: pile, sorting, heads before and after
LONG_BYTES = 768  # what has more is written from where it lies, not sorted in a buffer first
COLD = 2.0  # a pile is larger than the caches that hold a probe's blocks
SLABS = 3  # piles held as slabs while serving: the one served, the one being read, the one after


@dataclass(frozen=True)
class _Geometry:
    block_chunks: int
    n_piles: int
    pile_rows: int
    buffer_rows: int
    slabs: int
    n_buffers: int
    buffer_bytes: int
    deal_bytes: int
    table_bytes: int


def are_long(row_bytes: int) -> bool:
    """Whether rows are better written from where they are than sorted first."""
    return row_bytes >= LONG_BYTES


def plan_spool(task: Task, name: str, share: int) -> Part:
    """Read and decode once, write what memory cannot keep, read it back in order."""
    if task.machine.scratch_free_bytes <= 0:
        raise Infeasible(task.machine.scratch_why or "no scratch may be written")
    # By position is cheaper where its table is small, and the only way for orders without keys.
    n_left, keyed = max(task.n_rows_left, 1), task.order.scheme.keys is not None
    table = dealer_bytes(task.order, task.start, task.layouts[name].n_rows)
    if not keyed:
        return _plan(task, name, share, n_left, by_position=True)
    if task.order_is_held and table <= share // 8:
        try:
            return _plan(task, name, share, n_left, by_position=True)
        except Infeasible:
            pass
    return _plan(task, name, share, max(task.order.scheme.n_rows, 1), by_position=False)


def _plan(task: Task, name: str, share: int, n_records: int, *, by_position: bool) -> Part:
    layout, machine, order = task.layouts[name], task.machine, task.order
    record_bytes = layout.row_bytes + HEAD_BYTES
    if n_records * record_bytes > machine.scratch_free_bytes:
        raise Infeasible(
            f"scratch has {show(machine.scratch_free_bytes)} free, "
            f"{show(n_records * record_bytes)} needed"
        )
    dealer = dealer_bytes(order, task.start, layout.n_rows) if by_position else 0
    if order.each_row_once and by_position:
        # While an epoch is served, the next one is dealt: its order and places are held, too.
        dealer += 4 * layout.n_rows + order.scheme.order_bytes
    room = share - dealer
    geometry = _geometry(task, layout, n_records, record_bytes, room, by_position=by_position)
    temporary = max(task.threads * (layout.read_overhead_bytes + geometry.deal_bytes), 0)
    fixed = geometry.n_buffers * geometry.buffer_bytes + temporary + geometry.table_bytes
    if fixed > room:
        raise Infeasible(
            "the buffers of blocks and piles do not fit", task.common_bytes + dealer + fixed
        )
    # Reserve for the pages that are not full: half a page a pile, and one for each thread.
    pile_bytes = geometry.pile_rows * record_bytes
    page_rows = max(1, min(max(pile_bytes // 32, 4 << 10), 1 << 20) // record_bytes)
    n_pages = (room - fixed) // (page_rows * record_bytes)
    pages_a_pile = -(-geometry.pile_rows // page_rows) + 1
    piles_kept = min(n_pages // pages_a_pile, geometry.n_piles)
    n_pages = piles_kept * pages_a_pile
    pages_bytes = n_pages * page_rows * record_bytes
    held = dealer + fixed + pages_bytes
    feed = FeedPlan(
        name,
        "spool",
        held,
        run_bytes=geometry.block_chunks * layout.chunk_bytes,
        block_chunks=geometry.block_chunks,
        n_piles=geometry.n_piles,
        pile_rows=geometry.pile_rows,
        by_position=by_position,
        buffer_rows=geometry.buffer_rows,
        slabs=geometry.slabs,
        piles_kept=piles_kept,
        n_pages=n_pages,
        page_rows=page_rows,
    )
    spilled = int(n_records * (1 - piles_kept / geometry.n_piles)) * record_bytes
    first = _first(task, name, feed, n_records, spilled, record_bytes)
    rolled = _rolled(task, name, feed, n_records, spilled)
    # A rolled epoch reads and writes scratch once and decodes nothing: later epochs do that where
    # it is quicker than dealing the file again.
    roll = order.each_row_once and rolled[1].seconds < first.seconds
    second, later = rolled if roll else (first, first)
    asks_ahead = not machine.is_cached(spilled, task.budget_bytes)
    feed = replace(feed, roll=roll, asks_ahead=asks_ahead)
    items = (
        ("places of its rows", dealer),
        ("blocks and piles", fixed),
        ("piles kept in memory", pages_bytes),
    )
    return Part(feed, first, second, later, items)


def _geometry(
    task: Task, layout: Layout, n_records: int, record_bytes: int, room: int, *, by_position: bool
) -> _Geometry:
    # Blocks and piles as large as segments ask for, within half of the room: the other half keeps
    # piles in memory.
    ideal = max(isqrt(SEGMENT_BYTES * n_records * record_bytes), MIN_BLOCK_BYTES)
    ideal_rows = min(min(ideal, MAX_BLOCK_BYTES) // record_bytes, n_records)
    left = room - task.threads * layout.read_overhead_bytes
    # A block being dealt a thread, or piles being served; and where rows are sorted, room for that.
    # Rows that go straight to their batches are there so soon that threads wait for their user: one
    # pile more keeps them busy, where it does not make piles smaller, nor leave little to be kept.
    long = are_long(layout.row_bytes)
    slabs, sorting = SLABS, 0 if long else task.threads
    record_cost = _record_cost(task, record_bytes, max(task.threads, slabs) + sorting)
    most_rows = max(left // 2 // record_cost, 1)
    if long:
        record_cost = _record_cost(task, record_bytes, max(task.threads, slabs + 1))
        if ideal_rows * record_cost <= left * 2 // 3:
            slabs, most_rows = slabs + 1, ideal_rows
    n_buffers = max(task.threads, slabs) + sorting
    target_rows = max(1, min(ideal_rows, most_rows))
    repeats = -(
        -n_records // max(layout.n_rows, 1)
    )  # records a row: more than one where rows are drawn again
    block_chunks = max(1, min(target_rows // (layout.chunk_rows * repeats), layout.n_chunks))
    block_rows = min(block_chunks * layout.chunk_rows, max(layout.n_rows, 1)) * repeats
    # A pile of a key range is binomial: eight standard deviations hold any that will ever be seen.
    slack = 0 if by_position else int(8 * sqrt(target_rows)) + 8
    pile_rows = min(max(target_rows - slack, target_rows // 8, task.batch_rows), n_records)
    n_piles = -(-n_records // pile_rows)
    if n_piles > MAX_PILES:
        raise Infeasible(
            f"more than {MAX_PILES} piles would be needed: too little memory for so many rows"
        )
    pile_rows = -(-n_records // n_piles)
    n_piles = -(-n_records // pile_rows)
    pile_most = min(pile_rows + (0 if by_position else int(8 * sqrt(pile_rows)) + 8), n_records)
    buffer_rows = max(block_rows, pile_most)
    n_blocks = -(-layout.n_chunks // block_chunks)
    table = 4 * n_piles * max(n_blocks, n_piles) + 40 * (n_blocks + n_piles)
    return _Geometry(
        block_chunks=block_chunks,
        n_piles=n_piles,
        pile_rows=pile_rows,
        buffer_rows=buffer_rows,
        slabs=slabs,
        n_buffers=n_buffers,
        buffer_bytes=buffer_rows * (record_bytes + INDEX_BYTES),
        deal_bytes=buffer_rows * DEAL_BYTES,
        table_bytes=2 * table,
    )


def _record_cost(task: Task, record_bytes: int, n_buffers: int) -> int:
    """What a record more in each buffer holds."""
    return n_buffers * (record_bytes + INDEX_BYTES) + task.threads * DEAL_BYTES


def _dealing_seconds(task: Task, name: str, n_records: int, spilled: int, n_parts: int) -> float:
    """Sorting and copying records on all threads, and writing the spilled, the slower of both; and
    what each part costs, a block or a pile, however small it is.
    """
    machine = task.machine
    cpu = n_records * (machine.record_seconds + machine.of(name).take_seconds)
    writing = spilled / machine.scratch_rates(spilled, task.budget_bytes)[0]
    return max((cpu + writing) / task.threads, writing) + n_parts * machine.pile_seconds


def _serving_seconds(
    task: Task, name: str, n_records: int, spilled: int, n_piles: int, *, straight: bool
) -> float:
    """Reading piles; `straight` to their batches, or by way of a buffer, from which rows are
    taken.
    """
    machine = task.machine
    taking = 0 if straight else machine.of(name).take_seconds
    cpu = n_records * (machine.sort_seconds + COLD * taking)
    reading = spilled / machine.scratch_rates(spilled, task.budget_bytes)[1]
    if machine.is_cached(spilled, task.budget_bytes):
        seconds = (cpu + COLD * reading) / task.threads
    else:  # a device has all of a pile asked of it at once: threads make it no quicker
        seconds = max((cpu + reading) / task.threads, reading)
    return seconds + n_piles * machine.pile_seconds


def _first(
    task: Task, name: str, feed: FeedPlan, n_records: int, spilled: int, record_bytes: int
) -> Prediction:
    layout = task.layouts[name]
    chunks = _dealt_chunks(task, layout, feed)
    decoded = int(layout.chunk_row_counts[chunks].sum()) * layout.row_bytes
    n_blocks = -(-layout.n_chunks // feed.block_chunks)
    dealing = task.decode_seconds(name, decoded)
    dealing += _dealing_seconds(task, name, n_records, spilled, n_blocks)
    if not feed.by_position:
        dealing += n_records * task.machine.key_seconds / task.threads
    straight = are_long(layout.row_bytes)
    serving = _serving_seconds(task, name, n_records, spilled, feed.n_piles, straight=straight)
    return Prediction(
        read_bytes=int(layout.chunk_stored_bytes[chunks].sum()),
        decoded_bytes=decoded,
        chunks_decoded=int(layout.chunk_pieces[chunks].sum()),
        spilled_bytes=spilled,
        seconds=dealing + serving,
        first_batch_seconds=dealing + serving / feed.n_piles,
    )


def _rolled(
    task: Task, name: str, feed: FeedPlan, n_records: int, spilled: int
) -> tuple[Prediction, Prediction]:
    """The second epoch, which deals the first one's records before it deals its own, and each later
    one, whose records were dealt already.
    """
    serving = _serving_seconds(task, name, n_records, spilled, feed.n_piles, straight=False)
    dealing = _dealing_seconds(task, name, n_records, spilled, feed.n_piles)
    if not feed.by_position:
        dealing += n_records * task.machine.key_at_seconds / task.threads
    reading = spilled / task.machine.scratch_rates(spilled, task.budget_bytes)[1]
    if task.machine.is_cached(spilled, task.budget_bytes):
        reading /= task.threads
    pile = serving / feed.n_piles
    second = Prediction(
        spilled_bytes=2 * spilled,
        seconds=reading + serving + 2 * dealing,
        first_batch_seconds=reading + dealing + pile,
    )
    later = Prediction(spilled_bytes=spilled, seconds=serving + dealing, first_batch_seconds=pile)
    return second, later


def _dealt_chunks(
    task: Task, layout: Layout, feed: FeedPlan
) -> slice | np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Chunks of the blocks that hold at least one wanted row: the others are not read."""
    order = task.order
    if order.selection is None and order.each_row_once and task.start == 0:
        return slice(0, layout.n_chunks)
    if feed.by_position:
        rows = order.row_array(task.start, order.n_positions)
    elif order.selection is not None:
        rows = order.selection
    else:
        return slice(0, layout.n_chunks)
    blocks = np.zeros(-(-layout.n_chunks // feed.block_chunks), dtype=bool)
    blocks[layout.chunks_of(rows) // feed.block_chunks] = True
    return np.flatnonzero(np.repeat(blocks, feed.block_chunks)[: layout.n_chunks])
