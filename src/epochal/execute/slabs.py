"""Piles in memory: in a buffer, from which batches are gathered, or on their way straight to the
batches that want their rows.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.execute.pool import Pool
from epochal.execute.rooms import Room, Rooms, cut
from epochal.execute.spool import Records, Segment, Spool

__all__ = ["BufferedSlab", "Slab", "StraightPiles"]

WAYS = 2  # piles a thread whose ways are found at once: what that takes is what dealing took

Rows = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Addresses = NDArray[np.uint64]
ArrayRoom = Room[NDArray[Any]]


class Slab(Protocol):
    """A pile that is here or comes: the places ``[start, stop)``."""

    start: int
    stop: int

    def wait(self) -> None:
        """Wait until it is here."""
        ...

    def take(self, start: int, stop: int, out: Bytes) -> None:
        """See to it that the rows of the places ``[start, stop)`` are in `out`, ``(stop - start,
        row_bytes)``.
        """
        ...

    def rows(self, start: int, stop: int) -> Rows:
        """Their file rows."""
        ...


@dataclass(eq=False)
class BufferedSlab:
    """A pile in a buffer: its records as they came, and their order."""

    start: int
    stop: int
    records: Records
    index: Future[Rows]
    roll: Future[None] | None = None

    def wait(self) -> None:
        """Wait until it is here."""
        self.index.result()

    def take(self, start: int, stop: int, out: Bytes) -> None:
        """Copy rows out."""
        index = self.index.result()[start - self.start : stop - self.start]
        if out.shape[1]:
            data = self.records.data[: self.stop - self.start]
            np.take(data, index, axis=0, out=out, mode="clip")

    def rows(self, start: int, stop: int) -> Rows:
        """File rows, from the heads."""
        index = self.index.result()[start - self.start : stop - self.start]
        rows: Rows = self.records.heads[index, 1].view(np.int64)
        return rows


@dataclass(eq=False)
class StraightSlab:
    """A pile whose rows are read to where they are wanted: it has no buffer."""

    start: int
    stop: int
    file_rows: Future[Rows]

    def wait(self) -> None:
        """Wait until all rows are where they belong."""
        self.file_rows.result()

    def take(self, start: int, stop: int, out: Bytes) -> None:
        """Wait: `out` is one of the rooms that they are read to."""
        self.wait()

    def rows(self, start: int, stop: int) -> Rows:
        """File rows."""
        return self.file_rows.result()[start - self.start : stop - self.start]


class StraightPiles:
    """Reads piles on scratch to the arrays of the batches that their rows belong to.

    Parameters
    ----------
    starts
        Place at which each pile of the spool begins, and the end.
    rooms
        Of the batches.
    """

    def __init__(
        self,
        spool: Spool,
        starts: list[int],
        rooms: Rooms[NDArray[Any]],
        row_bytes: int,
        pool: Pool,
    ) -> None:
        self._spool, self._starts = spool, starts
        self._rooms, self._pool = rooms, pool
        self._nowhere = np.empty(row_bytes, np.uint8)
        # Of the piles to come: the pile, and where its way will be.
        self._ways: deque[tuple[int, Future[list[_Way]], int]] = deque()

    def load(self, pile: int) -> StraightSlab:
        """Start reading a pile; none that comes before the last one."""
        start, stop = self._starts[pile], self._starts[pile + 1]
        rooms = self._rooms.within(start, stop)
        while self._ways and self._ways[0][0] < pile:  # passed over
            self._ways.popleft()
        if not self._ways:
            self._find_ways(pile)
        _, ways, number = self._ways.popleft()
        addresses = _addresses(start, stop, rooms, self._nowhere)
        rows = self._pool.submit(self._read, ways, number, addresses, rooms)
        if not self._ways:
            self._find_ways(pile + 1)
        return StraightSlab(start, stop, rows)

    def _read(
        self,
        ways: Future[list[_Way]],
        number: int,
        addresses: Addresses,
        rooms: list[ArrayRoom],
    ) -> Rows:
        """Read the rows of one of some piles to their addresses, which are in `rooms`: a task holds
        what it writes to, whoever lets go of it meanwhile. Returns the file rows of its places.
        """
        segments, places, rows = ways.result()[number]
        self._spool.read_rows(segments, addresses[places])
        return rows

    def _find_ways(self, pile: int) -> None:
        """Those of the next piles, before they are needed."""
        n_piles = min(WAYS * self._pool.threads, self._spool.n_piles - pile)
        if n_piles > 0:
            starts = self._starts[pile : pile + n_piles + 1]
            ways = self._pool.submit(_ways_of, self._spool, pile, starts)
            self._ways.extend((pile + number, ways, number) for number in range(n_piles))


class _Way(NamedTuple):
    """Where a pile's records lie on scratch, and where they belong.

    Attributes
    ----------
    segments
        As `Spool.segments` has them.
    places
        Of each record, as they come in the segments, counted from the pile's first one,
        ``(n_records,)``.
    rows
        File row of each place, ``(n_records,)``.
    """

    segments: list[Segment]
    places: Rows
    rows: Rows


def _ways_of(spool: Spool, first: int, starts: list[int]) -> list[_Way]:
    """The ways of the piles from `first` on, which begin at the places `starts`, the last of which
    is an end. Several at once: each step of it may wait for the interpreter's lock.
    """
    base, counts = starts[0], np.diff(starts)
    rows = spool.dealer.rows(base, starts[-1]) if spool.from_file else None
    n_piles = len(counts)
    segments = [spool.segments(pile) for pile in range(first, first + n_piles)]
    if rows is None:
        return [
            _way_by_heads(spool, segments[i], starts[i], int(counts[i])) for i in range(n_piles)
        ]
    # Blocks of the file hold rows in order, and repeats in order of place.
    span = int(rows.max(initial=0)) + 1
    keys = rows + np.repeat(np.arange(n_piles) * span, counts)
    places = np.argsort(keys, kind=None if spool.dealer.unique else "stable")
    places -= np.repeat(np.array(starts[:-1]) - base, counts)
    cuts = (np.array(starts) - base).tolist()
    return [
        _Way(segments[i], places[low:high], rows[low:high])
        for i, (low, high) in enumerate(pairwise(cuts))
    ]


def _way_by_heads(spool: Spool, segments: list[Segment], start: int, count: int) -> _Way:
    heads = np.empty((count, 2), np.uint64)
    spool.read_heads(segments, heads)
    index = spool.dealer.index(heads, start)
    places = np.empty(count, np.int64)
    places[index] = np.arange(count)
    return _Way(segments, places, heads[index, 1].view(np.int64))


def _addresses(start: int, stop: int, rooms: list[ArrayRoom], nowhere: Bytes) -> Addresses:
    """Where in memory the row of each of the places ``[start, stop)`` goes; to `nowhere`, of one
    row's bytes, if no room wants it.
    """
    addresses = np.full(stop - start, nowhere.ctypes.data, np.uint64)
    most = max((len(room.array) for room in rooms), default=0)
    slots = np.arange(most, dtype=np.uint64) * np.uint64(len(nowhere))
    for room, low, high in cut(rooms, start, stop):
        first = np.uint64(room.array.ctypes.data)
        addresses[low - start : high - start] = first + slots[low - room.start : high - room.start]
    return addresses
