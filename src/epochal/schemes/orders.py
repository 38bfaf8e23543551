"""Global orders: which row lies at a position, before batches are cut or dealt to ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from epochal.schemes.philox import Keys, spread

__all__ = [
    "ArrayOrder",
    "BatchOrder",
    "Order",
    "Rows",
    "SliceOrder",
    "StraightOrder",
    "UniformOrder",
]

Numbers = NDArray[np.int64]
Rows = slice | Numbers


class Order(ABC):
    """Row numbers by global position."""

    order_bytes: int = 0

    @abstractmethod
    def rows(self, start: int, stop: int) -> Rows:
        """Rows at the consecutive positions ``[start, stop)``."""

    @abstractmethod
    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions, ``(n,) -> (n,)``."""


class StraightOrder(Order):
    """Row *p* at position *p*."""

    def rows(self, start: int, stop: int) -> slice:
        """Rows at the positions ``[start, stop)``: themselves."""
        return slice(start, stop)

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions: themselves."""
        return positions


class ArrayOrder(Order):
    """An order held as one array, made when it is first asked for.

    Parameters
    ----------
    make
        Makes the array; called again after unpickling. Two threads may both call it: that costs
        time, nothing else.
    order_bytes
        Size of the array.
    """

    def __init__(self, make: Callable[[], Numbers], order_bytes: int) -> None:
        self._make = make
        self._array: Numbers | None = None
        self.order_bytes = order_bytes

    def whole(self) -> Numbers:
        """The array, read-only: views of it are handed out."""
        array = self._array
        if array is None:
            array = self._make()
            array.flags.writeable = False
            self._array = array
        return array

    def rows(self, start: int, stop: int) -> Numbers:
        """Rows at the positions ``[start, stop)``: a read-only view."""
        return self.whole()[start:stop]

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions."""
        return self.whole()[positions]


class BatchOrder(Order):
    """Runs of `group` consecutive rows in the order of their numbers; rows ascend within each.

    Parameters
    ----------
    batches
        The order of run numbers.
    group
        Rows of a run.
    short, short_at, n_short
        Rows of the one short run (0 for none), and its place in the order.
    """

    def __init__(self, batches: Order, group: int, short: int, short_at: int) -> None:
        self._batches = batches
        self._group = group
        self._short = short
        self._short_at = short_at
        self.order_bytes = batches.order_bytes

    def _place(self, position: int) -> tuple[int, int]:
        """Place in the order of the run that holds a position, and the offset in it."""
        place, offset = self.places(np.array([position]))
        return int(place[0]), int(offset[0])

    def places(self, positions: Numbers) -> tuple[Numbers, Numbers]:
        """Places in the order of the runs that hold the positions, and the offsets in them."""
        begin = self._short_at * self._group
        inside = np.clip(positions - begin, 0, self._short)
        after = positions >= begin + self._short
        place, offset = np.divmod(positions - np.where(after, inside, 0), self._group)
        if self._short:
            place = place + after
        return place, offset

    def rows(self, start: int, stop: int) -> Rows:
        """Rows at the positions ``[start, stop)``; a slice if they lie in one run."""
        if start == stop:
            return slice(0, 0)
        first, offset = self._place(start)
        last, _ = self._place(stop - 1)
        if first == last:
            row = int(self._batches.take(np.array([first]))[0]) * self._group + offset
            return slice(row, row + stop - start)
        return self.take(np.arange(start, stop))

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions."""
        place, offset = self.places(positions)
        return take_repeated(self._batches, place) * self._group + offset


class UniformOrder(Order):
    """Rows drawn uniformly with replacement: position *p* has the row that output *p* names."""

    def __init__(self, keys: Keys, n_rows: int) -> None:
        self._keys = keys
        self._n_rows = n_rows

    def rows(self, start: int, stop: int) -> Numbers:
        """Rows at the positions ``[start, stop)``."""
        return spread(self._keys.block(start, stop), self._n_rows)

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions."""
        return spread(self._keys.at(positions), self._n_rows)


class SliceOrder(Order):
    """Slices of `group` rows that begin where `starts` says."""

    def __init__(self, starts: Order, group: int) -> None:
        self._starts = starts
        self._group = group
        self.order_bytes = starts.order_bytes

    def rows(self, start: int, stop: int) -> Rows:
        """Rows at the positions ``[start, stop)``; a slice if they lie in one."""
        if start == stop:
            return slice(0, 0)
        number, offset = divmod(start, self._group)
        if (stop - 1) // self._group != number:
            return self.take(np.arange(start, stop))
        row = int(self._starts.take(np.array([number]))[0]) + offset
        return slice(row, row + stop - start)

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions."""
        number, offset = np.divmod(positions, self._group)
        return take_repeated(self._starts, number) + offset


def take_repeated(order: Order, positions: Numbers) -> Numbers:
    """``order.take`` of ascending positions of which many are equal: each is asked for once."""
    distinct, back = np.unique(positions, return_inverse=True)
    return order.take(distinct)[back]
