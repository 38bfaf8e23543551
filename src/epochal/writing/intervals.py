"""Which rows were written: half-open ranges, merged."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

__all__ = ["Intervals"]


class Intervals:
    """A set of whole numbers, kept as ranges that neither touch nor overlap.

    >>> rows = Intervals([(0, 3), (5, 8)])
    >>> rows.add(3, 5)
    >>> rows.holds(0, 8), rows.missing(10)
    (True, [(8, 10)])
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``. Takes as long as there are ranges that it joins."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def holds(self, start: int, stop: int) -> bool:
        """Whether all of ``[start, stop)`` is in."""
        if start >= stop:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._stops[at] >= stop

    def missing(self, end: int) -> list[tuple[int, int]]:
        """The ranges of ``[0, end)`` that are not in."""
        edges = [0, *(e for pair in zip(self._starts, self._stops, strict=True) for e in pair), end]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [(start, min(stop, end)) for start, stop in gaps if start < min(stop, end)]
