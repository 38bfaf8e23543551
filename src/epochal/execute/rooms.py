"""Arrays of batches that rows are on their way to before anybody asks for those batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from epochal.execute.meter import Meter
from epochal.execute.recycle import Recycler
from epochal.layout import Layout

__all__ = ["Room", "Rooms", "cut", "room_at"]


class Room(NamedTuple):
    """The array of one batch, which holds the places ``[start, stop)`` of an order."""

    start: int
    stop: int
    array: NDArray[Any]


class Rooms:
    """Rooms of the batches from one on, made in order; one thread makes them and lets them go.

    Parameters
    ----------
    places
        Places of a batch by its number, half-open; they rise with the batch.
    first, n_batches
        The first batch that is to have a room, and how many batches there are.
    meter
        Counts rooms as held; None where they are no more than the batches ahead, which are
        counted from the start.
    """

    def __init__(
        self,
        places: Callable[[int], tuple[int, int]],
        first: int,
        n_batches: int,
        layout: Layout,
        recycler: Recycler,
        meter: Meter | None,
    ) -> None:
        self._places = places
        self._next, self._n_batches = first, n_batches
        self._layout = layout
        self._recycler = recycler
        self._meter = meter
        self._rooms: dict[int, Room] = {}

    def within(self, start: int, stop: int) -> list[Room]:
        """Rooms that have some of the places ``[start, stop)``, in order; made if need be."""
        while self._next < self._n_batches and self._places(self._next)[0] < stop:
            if self._places(self._next)[1] > start:
                self._make(self._next)
            self._next += 1
        return [room for room in self._rooms.values() if room.start < stop and room.stop > start]

    def _make(self, batch: int) -> None:
        start, stop = self._places(batch)
        shape = stop - start, *self._layout.row_shape
        array = self._recycler.empty(shape, self._layout.dtype)
        self._rooms[batch] = Room(start, stop, array)
        self._hold(array.nbytes)

    def _hold(self, n_bytes: int) -> None:
        if self._meter is not None:
            self._meter.hold(n_bytes)

    def get(self, batch: int) -> Room | None:
        """A batch's room, if it has one."""
        return self._rooms.get(batch)

    def skip_to(self, batch: int) -> None:
        """Make none for the batches before this one."""
        self._next = max(self._next, batch)

    def retire(self, batch: int) -> None:
        """Let go of the rooms up to this batch: they are the user's."""
        for served in [b for b in self._rooms if b <= batch]:
            self._hold(-self._rooms.pop(served).array.nbytes)

    def clear(self) -> None:
        """Let go of all."""
        self.retire(self._n_batches)


def room_at(rooms: list[Room], place: int) -> Room:
    """The room that holds a place."""
    return rooms[bisect_right(rooms, place, key=lambda room: room.stop)]


def cut(rooms: list[Room], start: int, stop: int) -> list[tuple[Room, int, int]]:
    """Places ``[start, stop)``, room by room."""
    first = bisect_right(rooms, start, key=lambda room: room.stop)
    parts = []
    for room in rooms[first:]:
        if room.start >= stop:
            break
        parts.append((room, max(start, room.start), min(stop, room.stop)))
    return parts
