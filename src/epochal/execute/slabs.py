"""Piles in memory: in a buffer, from which batches are gathered, or on their way straight to the
batches that want their rows.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.execute.rooms import Room, cut
from epochal.execute.spool import Records, Segment, Spool

__all__ = [
    "BufferedSlab",
    "Slab",
    "StraightSlab",
    "Way",
    "addresses_of",
    "read_straight",
    "ways_of",
]

Rows = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Addresses = NDArray[np.uint64]


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


class Way(NamedTuple):
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


def ways_of(spool: Spool, first: int, starts: list[int]) -> list[Way]:
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
        Way(segments[i], places[low:high], rows[low:high])
        for i, (low, high) in enumerate(pairwise(cuts))
    ]


def _way_by_heads(spool: Spool, segments: list[Segment], start: int, count: int) -> Way:
    heads = np.empty((count, 2), np.uint64)
    spool.read_heads(segments, heads)
    index = spool.dealer.index(heads, start)
    places = np.empty(count, np.int64)
    places[index] = np.arange(count)
    return Way(segments, places, heads[index, 1].view(np.int64))


def addresses_of(
    start: int, stop: int, rooms: list[Room[NDArray[Any]]], nowhere: Bytes
) -> NDArray[np.uint64]:
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


def read_straight(spool: Spool, ways: Future[list[Way]], number: int, addresses: Addresses) -> Rows:
    """Read the rows of one of some piles from scratch to their addresses; returns the file rows of
    its places.
    """
    segments, places, rows = ways.result()[number]
    spool.read_rows(segments, addresses[places])
    return rows
