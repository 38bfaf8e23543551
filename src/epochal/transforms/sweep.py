"""All rows of a source once, in order, each block to a function on the thread that decoded it.

Batches cost copies and buffers that only orders and batch sizes need; here a block is used while it
is in the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal import sizes
from epochal.dataset import Dataset
from epochal.execute.pool import Pool
from epochal.execute.probe import threads_of
from epochal.layout import Layout
from epochal.stores.source import Source
from epochal.view import SourceView

__all__ = ["swept"]

ROWS = 1 << 17  # row numbers that are looked at at once
AHEAD = 1  # blocks under way besides one a thread


def swept(
    ds: Dataset,
    name: str,
    first: int,
    n_rows: int,
    function: Callable[[NDArray[Any]], Any],
    memory: int | str | None,
    threads: int | None,
) -> Iterator[tuple[int, Any]] | None:
    """What a function makes of each block of `n_rows` rows from row `first` on, with its number of
    rows, in order; None where that takes batches: rows are chosen one by one, blocks are no whole
    chunks, bytes come from far away, or `memory` does not hold the blocks.

    What is made of a block may be a view of it: it lasts until the next is asked for.
    """
    view = ds[name]
    if not isinstance(view, SourceView) or not ds.is_plain:
        return None
    layout, wide = view.source.layout, threads_of(threads)
    run = _run(view, layout)
    budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
    needed = (wide + AHEAD) * n_rows * layout.row_bytes + wide * layout.read_overhead_bytes
    near = layout.parallel and layout.in_flight == 1
    if run is None or n_rows % layout.chunk_rows or not near or needed > budget:
        return None
    return _blocks(view.source, range(run[0] + first, run[1], n_rows), run[1], function, wide)


def _run(view: SourceView, layout: Layout) -> tuple[int, int] | None:
    """The rows that a view shows, where those are whole chunks one after another."""
    if layout.starts is not None:
        return None
    chosen = view.selection
    if chosen is None:
        return 0, layout.n_rows
    if not len(chosen):
        return None
    start, stop = int(chosen[0]), int(chosen[-1]) + 1
    if stop - start != len(chosen) or not _ascends_by_one(chosen):
        return None
    whole = start % layout.chunk_rows == 0
    whole = whole and (stop % layout.chunk_rows == 0 or stop == layout.n_rows)
    return (start, stop) if whole else None


def _ascends_by_one(rows: NDArray[np.int64]) -> bool:
    parts = (rows[at : at + ROWS + 1] for at in range(0, len(rows), ROWS))
    return all((np.diff(part) == 1).all() for part in parts)


def _blocks(
    source: Source, starts: range, end: int, function: Callable[[NDArray[Any]], Any], threads: int
) -> Iterator[tuple[int, Any]]:
    layout = source.layout
    shape = (starts.step, *layout.row_shape)

    def made(start: int, buffer: NDArray[Any]) -> tuple[int, Any]:
        rows = buffer[: min(starts.step, end - start)]
        stop = start + len(rows)
        source.read(start // layout.chunk_rows, -(-stop // layout.chunk_rows), rows)
        return len(rows), function(rows)

    flying: deque[tuple[Future[tuple[int, Any]], NDArray[Any]]] = deque()
    free: list[NDArray[Any]] = []
    with closing(Pool(threads)) as pool:
        for start in starts:
            if len(flying) == threads + AHEAD:
                future, buffer = flying.popleft()
                yield future.result()
                free.append(buffer)
            buffer = free.pop() if free else np.empty(shape, layout.dtype)
            flying.append((pool.submit(made, start, buffer), buffer))
        while flying:
            yield flying.popleft()[0].result()
