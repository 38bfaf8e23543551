"""How the one global order is cut into batches and dealt to ranks: arithmetic on positions.

A global batch is ``batch_size * world`` consecutive positions of the global order; rank *r* takes
its *r*-th part. A short global batch of *m* rows is dealt as ``[r * m // world, (r + 1) * m //
world)``, so that every row is seen exactly once; a rank whose part is empty has one batch fewer.
Nothing here knows which rows lie at the positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from epochal.errors import SchemeError

__all__ = ["Deal", "EvenDeal", "TableDeal", "even_cut", "uneven_cut"]

Positions = NDArray[np.int64]


class Deal(ABC):
    """What one rank gets of the global order."""

    @property
    @abstractmethod
    def n_batches(self) -> int:
        """Batches of this rank."""

    @property
    @abstractmethod
    def n_positions(self) -> int:
        """Rows of this rank."""

    @property
    @abstractmethod
    def limited_positions(self) -> int:
        """Rows of all ranks together."""

    @abstractmethod
    def bounds(self, i: int) -> tuple[int, int]:
        """Rank-local positions of the rank's batch `i`, ``0 <= i < n_batches``."""

    @abstractmethod
    def group_end(self, i: int) -> int:
        """Global position at which the global batch of the rank's batch `i` ends."""

    @abstractmethod
    def is_cut(self, position: int) -> bool:
        """Whether a global batch begins at this global position, or the last one ends there."""

    def batch_after(self, position: int) -> int:
        """The rank's first batch whose global batch does not end by this global position."""
        return bisect_right(range(self.n_batches), position, key=self.group_end)

    @abstractmethod
    def global_position(self, positions: Positions) -> Positions:
        """Global positions of rank-local ones, ``(n,) -> (n,)``; ascending where those ascend."""

    @abstractmethod
    def run(self, start: int, stop: int) -> tuple[int, int] | None:
        """The global positions of ``[start, stop)`` if they are known to be consecutive."""

    @abstractmethod
    def local_count(self, positions: Positions) -> Positions:
        """How many of the rank's positions lie before each global position."""


@dataclass(frozen=True)
class EvenDeal(Deal):
    """Global batches of one size, all but at most one: arithmetic, whatever their number.

    Parameters
    ----------
    batch_size, rank, world
        What one rank gets of a full global batch, which one it is, and of how many.
    full
        Number of full global batches.
    short
        Rows of the one short global batch, 0 for none.
    short_at
        How many full global batches come before it.

    >>> deal = EvenDeal(batch_size=2, rank=1, world=3, full=2, short=2, short_at=2)
    >>> [deal.bounds(i) for i in range(deal.n_batches)]
    [(0, 2), (2, 4), (4, 5)]
    >>> deal.global_position(np.arange(5)).tolist()
    [2, 3, 8, 9, 12]
    """

    batch_size: int
    rank: int
    world: int
    full: int
    short: int
    short_at: int

    @classmethod
    def of(cls, n_positions: int, batch_size: int, rank: int, world: int) -> EvenDeal:
        """Cut `n_positions`, the short global batch last."""
        full, short = divmod(n_positions, batch_size * world)
        return cls(batch_size, rank, world, full, short, full)

    @cached_property
    def _part(self) -> tuple[int, int]:
        """The rank's part of the short global batch."""
        return self.rank * self.short // self.world, (self.rank + 1) * self.short // self.world

    @cached_property
    def _part_rows(self) -> int:
        low, high = self._part
        return high - low

    @cached_property
    def n_batches(self) -> int:
        """Batches of this rank."""
        return self.full + (self._part_rows > 0)

    @cached_property
    def n_positions(self) -> int:
        """Rows of this rank."""
        return self.full * self.batch_size + self._part_rows

    @property
    def limited_positions(self) -> int:
        """Rows of all ranks together."""
        return self.full * self.batch_size * self.world + self.short

    def bounds(self, i: int) -> tuple[int, int]:
        """Rank-local positions of batch `i`."""
        if self._part_rows == 0 or i < self.short_at:
            return i * self.batch_size, (i + 1) * self.batch_size
        stop = i * self.batch_size + self._part_rows
        start = stop - (self._part_rows if i == self.short_at else self.batch_size)
        return start, stop

    def group_end(self, i: int) -> int:
        """Global position at which the global batch of batch `i` ends."""
        group = self.batch_size * self.world
        if self._part_rows == 0:  # the short global batch is not among this rank's
            return (i + 1) * group + (self.short if i >= self.short_at else 0)
        return (i + 1) * group if i < self.short_at else i * group + self.short

    def is_cut(self, position: int) -> bool:
        """Whether a global batch begins or ends there."""
        group = self.batch_size * self.world
        if position > self.short_at * group:
            position -= self.short
        return 0 <= position <= self.full * group and position % group == 0

    def global_position(self, positions: Positions) -> Positions:
        """Global positions of rank-local ones."""
        before = self.short_at * self.batch_size
        in_short = (positions >= before) & (positions < before + self._part_rows)
        after = positions >= before + self._part_rows
        full = positions - np.where(after, self._part_rows, 0)  # counting full batches only
        batch, offset = np.divmod(full, self.batch_size)
        spread = batch * (self.batch_size * self.world) + self.rank * self.batch_size + offset
        spread += np.where(after, self.short, 0)
        start = self.short_at * self.batch_size * self.world + self._part[0]
        found: Positions = np.where(in_short, positions - before + start, spread)
        return found

    def run(self, start: int, stop: int) -> tuple[int, int] | None:
        """The global positions of ``[start, stop)`` if they are known to be consecutive."""
        if self.world == 1:
            return start, stop
        if stop - start > self.batch_size:
            return None
        first, last = self.global_position(np.array([start, max(start, stop - 1)])).tolist()
        return (first, first + stop - start) if last - first == max(0, stop - start - 1) else None

    def local_count(self, positions: Positions) -> Positions:
        """How many of the rank's positions lie before each global position."""
        group = self.batch_size * self.world
        begin = self.short_at * group
        in_short = np.clip(positions - begin - self._part[0], 0, self._part_rows)
        full = positions - np.clip(positions - begin, 0, self.short)  # counting full batches only
        batch, offset = np.divmod(full, group)
        own = np.clip(offset - self.rank * self.batch_size, 0, self.batch_size)
        count: Positions = batch * self.batch_size + own + in_short
        return count


class TableDeal(Deal):
    """Global batches of any sizes, from a table of where they begin: 40 bytes a batch.

    Parameters
    ----------
    starts
        Global positions at which global batches begin, and the end, ``(n_global + 1,)``.

    >>> deal = TableDeal(np.array([0, 3, 4, 8]), rank=0, world=2)
    >>> [deal.bounds(i) for i in range(deal.n_batches)], deal.global_position(np.arange(3)).tolist()
    ([(0, 1), (1, 3)], [0, 4, 5])
    """

    def __init__(self, starts: Positions, rank: int, world: int) -> None:
        sizes = np.diff(starts)
        low = starts[:-1] + rank * sizes // world
        high = starts[:-1] + (rank + 1) * sizes // world
        kept = high > low
        self._global = low[kept]
        self._local = np.concatenate([[0], np.cumsum((high - low)[kept])]).astype(np.int64)
        self._limited = int(starts[-1])
        self._starts = starts
        self._ends = starts[1:][kept]

    @property
    def n_batches(self) -> int:
        """Batches of this rank."""
        return len(self._global)

    @property
    def n_positions(self) -> int:
        """Rows of this rank."""
        return int(self._local[-1])

    @property
    def limited_positions(self) -> int:
        """Rows of all ranks together."""
        return self._limited

    def bounds(self, i: int) -> tuple[int, int]:
        """Rank-local positions of batch `i`."""
        return int(self._local[i]), int(self._local[i + 1])

    def group_end(self, i: int) -> int:
        """Global position at which the global batch of batch `i` ends."""
        return int(self._ends[i])

    def is_cut(self, position: int) -> bool:
        """Whether a global batch begins or ends there."""
        return bool((self._starts == position).any())

    def global_position(self, positions: Positions) -> Positions:
        """Global positions of rank-local ones."""
        batch = np.searchsorted(self._local, positions, side="right") - 1
        found: Positions = self._global[batch] + (positions - self._local[batch])
        return found

    def run(self, start: int, stop: int) -> tuple[int, int] | None:
        """The global positions of ``[start, stop)`` if they are known to be consecutive."""
        if self.n_positions == self.limited_positions:
            return start, stop
        if start == stop:
            return 0, 0
        batch = int(np.searchsorted(self._local, start, side="right")) - 1
        if stop > self._local[batch + 1]:
            return None
        first = int(self._global[batch]) + start - int(self._local[batch])
        return first, first + stop - start

    def local_count(self, positions: Positions) -> Positions:
        """How many of the rank's positions lie before each global position."""
        if self.n_batches == 0:
            return np.zeros_like(positions)
        batch = np.maximum(np.searchsorted(self._global, positions, side="right") - 1, 0)
        own = np.clip(positions - self._global[batch], 0, np.diff(self._local)[batch])
        count: Positions = self._local[batch] + own
        return count


def uneven_cut(
    n_rows: int, batch_size: int | None, num_batches: int | None, world: int
) -> tuple[int, int]:
    """``(batch_size, n_global)`` of a kind whose last batch may be short, as Pylearn2 has it.

    >>> uneven_cut(10, 4, None, 1), uneven_cut(10, None, 3, 1), uneven_cut(10, 2, None, 2)
    ((4, 3), (4, 3), (2, 3))
    """
    if batch_size is None and num_batches is None:
        raise SchemeError("neither batch_size nor num_batches is given: give one of them, or both")
    if batch_size is None:
        assert num_batches is not None
        batch_size = max(1, -(-n_rows // (num_batches * world)))
        return batch_size, min(num_batches, -(-n_rows // (batch_size * world)))
    possible = -(-n_rows // (batch_size * world))
    _check_possible(n_rows, batch_size, num_batches, world, possible, "batches")
    return batch_size, possible if num_batches is None else num_batches


def even_cut(
    n_rows: int, batch_size: int | None, num_batches: int | None, world: int
) -> tuple[int, int]:
    """``(batch_size, n_global)`` of a kind whose batches all have one size, as Pylearn2 has it.

    >>> even_cut(10, 4, None, 1), even_cut(10, None, 3, 1), even_cut(3, 4, None, 1)
    ((4, 2), (3, 3), (4, 0))
    """
    if batch_size is None and num_batches is None:
        raise SchemeError("neither batch_size nor num_batches is given: give one of them, or both")
    if batch_size is None:
        assert num_batches is not None
        batch_size = n_rows // (num_batches * world)
        if batch_size == 0 and n_rows > 0:
            raise SchemeError(
                f"num_batches={num_batches} even batches for {world} rank(s) need at least "
                f"{num_batches * world} rows; there are {n_rows}: "
                f"ask for at most {n_rows // world} batches"
            )
        return max(1, batch_size), num_batches if n_rows else 0
    possible = n_rows // (batch_size * world)
    _check_possible(n_rows, batch_size, num_batches, world, possible, "even batches")
    return batch_size, possible if num_batches is None else num_batches


def _check_possible(
    n_rows: int, batch_size: int, num_batches: int | None, world: int, possible: int, what: str
) -> None:
    if num_batches is None or num_batches <= possible:
        return
    ranks = f" on each of {world} ranks" if world > 1 else ""
    raise SchemeError(
        f"num_batches={num_batches} was asked; {n_rows} rows give only {possible} {what} of "
        f"batch_size={batch_size}{ranks}: ask for at most {possible}, or smaller batches"
    )
