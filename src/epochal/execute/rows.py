"""Rows by number, outside any epoch: what ``ds["X"][rows]`` reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.pool import Pool, wait
from epochal.execute.ragged import Slab, items_of, new_block
from epochal.layout import Layout
from epochal.plan.windows import Read, in_file_order, reads_of
from epochal.ragged import Block
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source

__all__ = ["read_ragged", "read_rows"]

RUN_BYTES = 2 << 20
PARALLEL_BYTES = 8 << 20


def read_rows(source: Source, rows: slice | NDArray[np.int64], threads: int) -> NDArray[Any]:
    """Rows in the order asked, repeats kept: ``(n_asked, *row_shape)``.

    Decodes each touched chunk once; holds the result and, a thread, one run of chunks. `rows` must
    lie in the source; a slice has step 1.
    """
    layout = source.layout
    ordered, places = in_file_order(rows)
    out = np.empty((len(ordered), *layout.row_shape), layout.dtype)
    if not out.size:
        return out
    reads = _reads(layout, ordered, places)
    threads = max(threads, layout.in_flight)
    few = out.nbytes < PARALLEL_BYTES and layout.in_flight == 1
    if few or threads == 1 or not layout.parallel:
        for each in reads:
            _fill(source, *each, out)
        return out
    pending = iter(list(reads))
    with closing(Pool(threads)) as pool:

        def work() -> None:
            for each in pending:  # a list's iterator hands out each item once, whoever asks
                _fill(source, *each, out)

        wait([pool.submit(work) for _ in range(threads)])
    return out


def _reads(
    layout: Layout, ordered: NDArray[np.int64], places: NDArray[np.int64] | None
) -> Iterator[tuple[Read, NDArray[np.int64] | None, bool]]:
    """Reads that bring ascending rows, the places to which each one's slots go, and whether it is
    one of rows alone: those of chunks that must be decoded are not.
    """
    parts = [(ordered, places, layout.rows_alone and places is not None)]
    if places is not None and layout.coded is not None:
        coded = layout.is_coded(layout.chunks_of(ordered))
        parts = [(ordered[~coded], places[~coded], True), (ordered[coded], places[coded], False)]
    for rows, theirs, alone in parts:
        for read in reads_of(rows, layout, run_bytes=RUN_BYTES, alone=alone):
            yield read, theirs, alone


def _fill(
    source: Source, read: Read, places: NDArray[np.int64] | None, alone: bool, out: NDArray[Any]
) -> None:
    layout = source.layout
    slots = slice(read.first_slot, read.first_slot + read.n_slots)
    if read.rows is None and places is None:
        source.read(read.start, read.stop, out[slots])
        return
    if alone:
        assert read.rows is not None
        block = np.empty((read.n_slots, *layout.row_shape), layout.dtype)
        source.read_rows(read.rows, block)
    else:
        n_rows = layout.bounds(read.stop - 1)[1] - layout.bounds(read.start)[0]
        block = np.empty((n_rows, *layout.row_shape), layout.dtype)
        source.read(read.start, read.stop, block)
        if read.rows is not None:
            block = block[read.rows]
    out[slots if places is None else places[slots]] = block


def read_ragged(source: RaggedSource, rows: NDArray[np.int64], threads: int) -> Block:
    """Rows of varying length in the order asked, repeats kept."""
    layout = source.layout
    unique, index = np.unique(rows, return_inverse=True)
    slab = Slab(layout, unique)
    columns = list(source.columns.values())
    widest = max(max(column.row_bytes for column in layout.columns.values()), 1)
    runs = slab.runs(layout, max(RUN_BYTES // widest, 1))
    few = slab.block.nbytes < PARALLEL_BYTES and layout.in_flight == 1
    alone = few or not layout.parallel
    with closing(Pool(1 if alone else max(threads, layout.in_flight))) as pool:

        def read(column: int, start: int, stop: int) -> None:
            slab.put(column, *items_of(columns[column], start, stop, pool))

        wait([pool.submit(read, *run) for run in runs])
    if len(unique) == len(rows) and bool((index[1:] > index[:-1]).all()):
        return slab.block
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.diff(slab.block.offsets)[index], out=offsets[1:])
    out = new_block(layout, offsets)
    slab.take(index, out, 0)
    return out
