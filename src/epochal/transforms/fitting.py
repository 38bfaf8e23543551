"""Learning: passes over rows, in as few as the stages allow, here or on many machines."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal import sizes
from epochal.errors import MismatchError
from epochal.progress import row_bar
from epochal.transforms.checkpoint import Checkpoint
from epochal.transforms.cluster import collected_by
from epochal.transforms.reading import RowsToRead
from epochal.transforms.statistics import Covariance, Moments, Statistics

__all__ = ["Pass", "Stage", "check_finite", "collect", "first_need", "learn_all", "through_of"]

SECONDS = 10.0  # between two checkpoints
LEAST_BYTES = 3 << 20  # of a block, whatever `memory` is
SHARE = 4  # a block is at most that part of `memory`


@dataclass(frozen=True)
class Pass:
    """How rows are read: see `Transform.fit`."""

    memory: int | str | None = None
    threads: int | None = None
    client: Any = None
    checkpoint: str | os.PathLike[str] | None = None
    progress: bool = False


class Stage(Protocol):
    """What learning asks of a transform."""

    nan: str
    pushes: bool
    extremes: bool

    def begin(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Check what is to be learnt from."""

    def need(self) -> Statistics | None:
        """What is collected next."""

    def wants(self, n_columns: int) -> type[Statistics] | None:
        """What it is going to collect of rows so wide, as far as that is known."""

    def learn(self, statistics: Statistics) -> None:
        """Take what was collected."""

    def pushed(self, statistics: Statistics) -> Statistics | None:
        """Statistics of what it makes."""

    def lazily(self, row_shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """What it makes of rows."""


@dataclass(frozen=True)
class Through:
    """Blocks through stages that have learnt, to a piece of what is collected: picklable."""

    functions: tuple[Any, ...]
    statistics: Statistics  # empty: it knows how

    def __call__(self, rows: NDArray[Any]) -> Any:
        for function in self.functions:
            rows = function(rows)
        return self.statistics.piece(rows.reshape(len(rows), -1))


def through_of(
    stages: Sequence[Stage], row_shape: tuple[int, ...], dtype: np.dtype
) -> tuple[tuple[Any, ...], tuple[int, ...], np.dtype]:
    """What blocks go through, and the shape and dtype of the rows that come out."""
    functions = []
    for stage in stages:
        function = stage.lazily(row_shape, dtype)
        functions.append(function)
        row_shape, dtype = function.row_shape, function.dtype
    return tuple(functions), row_shape, dtype


def first_need(stages: Sequence[Stage], k: int, n_columns: int) -> Statistics | None:
    """What the next pass collects for stage `k`: what it needs, or the covariance, where a later
    stage needs that and gets it of the same rows.
    """
    need = stages[k].need()
    if not isinstance(need, Moments):
        return need
    extremes = need.extremes
    for before, later in zip(stages[k:], stages[k + 1 :], strict=False):
        if not before.pushes:
            break
        if later.wants(n_columns) is Covariance:
            return Covariance(n_columns)
        extremes = extremes or later.extremes
    return Moments(n_columns, extremes=extremes)


def learn_all(
    stages: Sequence[Stage], k: int, statistics: Statistics, shape: tuple[int, ...], dtype: np.dtype
) -> int:
    """Have stages from `k` on learn from what was collected, as many as can; the number of the
    next.

    `shape` and `dtype` are those of the rows that stage `k` gets.
    """
    check_finite(stages[k], statistics)
    stages[k].learn(_fitting(stages[k], statistics))
    while stages[k].need() is None:
        left = None if statistics.tally.n_bad else stages[k].pushed(statistics)
        function = stages[k].lazily(shape, dtype)
        shape, dtype = function.row_shape, function.dtype
        k += 1
        if left is None or k == len(stages):
            break
        statistics = left
        stages[k].begin(shape, dtype)
        need = stages[k].need()
        if need is None:
            continue
        if not isinstance(need, Moments) and type(need) is not type(statistics):
            break
        stages[k].learn(_fitting(stages[k], statistics))
    return k


def _fitting(stage: Stage, statistics: Statistics) -> Statistics:
    """What a stage wants of what there is."""
    if isinstance(statistics, Covariance) and isinstance(stage.need(), Moments):
        return statistics.moments()
    return statistics


def collect(stages: Sequence[Stage], rows: RowsToRead, how: Pass) -> tuple[int, Statistics | None]:
    """Have all stages learn, pass after pass; how many passes it took, and what the last collected.

    The first is begun already.
    """
    kept = Checkpoint(how.checkpoint, stages, rows)
    k, passes = kept.k, kept.passes
    begun, found = kept.begun or not k, None
    while k < len(stages):
        functions, shape, dtype = through_of(stages[:k], rows.row_shape, rows.dtype)
        if not begun:
            stages[k].begin(shape, dtype)
        begun = True
        need = first_need(stages, k, prod(shape))
        if need is None:
            k, begun = k + 1, False
            continue
        found = _pass(rows, Through(functions, need), how, kept, passes)
        passes += 1
        mine = stages[k].need()
        if found.tally.n_bad and mine is not None and type(mine) is not type(found):
            # Whole rows were left out of the covariance, single numbers are of the moments.
            found = _pass(rows, Through(functions, mine), how, kept, passes)
            passes += 1
        at = learn_all(stages, k, found, shape, dtype)
        begun = at == k or _is_begun(stages, at)
        k = at
        kept.next_pass(k, passes, begun=begun)
    kept.done()
    return passes, found


def _is_begun(stages: Sequence[Stage], k: int) -> bool:
    return k < len(stages) and hasattr(stages[k], "row_shape_")


def check_finite(stage: Stage, statistics: Statistics) -> None:
    """Name the rows that hold what nothing can be learnt from."""
    tally = statistics.tally
    if not tally.n_rows:
        raise MismatchError("there are 0 sample(s): nothing to learn from")
    if not tally.n_bad or stage.nan == "ignore":
        return
    told = ", ".join(map(str, tally.bad_rows))
    more = " and others" if tally.n_bad > len(tally.bad_rows) else ""
    raise MismatchError(
        f"{type(stage).__name__}: {tally.n_bad} of {tally.n_rows} rows hold NaN or infinity: "
        f"{told}{more}. Give nan='ignore' to leave them out"
    )


def _pass(
    rows: RowsToRead, through: Through, how: Pass, kept: Checkpoint, number: int
) -> Statistics:
    """Collect of all rows."""
    n_rows = rows.block_rows(max(_rows_of_block(rows, through, how), through.statistics.least_rows))
    first, found = kept.resumed(deepcopy(through.statistics), n_rows)
    with row_bar(rows.n_rows, first, f"pass {number + 1}", how.progress) as advance:
        if how.client is not None:
            return collected_by(how.client, rows, through, n_rows, found, first, advance)
        _collect(rows, through, n_rows, found, first, advance, kept)
    return found


def _rows_of_block(rows: RowsToRead, through: Through, how: Pass) -> int:
    """How many rows are wanted a block. Of blocks of one size the same is collected to the bit, so
    it does not depend on the number of threads, and on `memory` only where that is little.
    """
    budget = sizes.default_memory() if how.memory is None else sizes.parse(how.memory, "memory")
    most = max(LEAST_BYTES, budget // SHARE)
    row_bytes = max(1, prod(rows.row_shape) * rows.dtype.itemsize)
    return max(1, min(through.statistics.block_bytes, most) // row_bytes)


def _collect(
    rows: RowsToRead,
    through: Through,
    n_rows: int,
    found: Statistics,
    first: int,
    advance: Any,
    kept: Checkpoint,
) -> None:
    at, last = first, time.monotonic()
    for n, piece in rows.made_of(first, n_rows, through):
        found.add(piece)
        at += n
        advance(n)
        if kept.wanted and time.monotonic() - last >= SECONDS:
            kept.save(at, n_rows, found)
            last = time.monotonic()
