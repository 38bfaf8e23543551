"""Arrays of batches that rows are on their way to before anybody asks for those batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from numpy.typing import NDArray

from epochal.execute.meter import Meter
from epochal.execute.recycle import Recycler
from epochal.layout import Layout

__all__ = ["Room", "Rooms", "array_maker", "cut", "room_at"]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=_Sized)


class Room(NamedTuple, Generic[T]):
    """What one batch's rows go to, of the places ``[start, stop)`` of an order: an array, or a
    `Block`.
    """

    start: int
    stop: int
    array: T


class Rooms(Generic[T]):
    """Rooms of the batches from one on, made in order; one thread makes them and lets them go.

    Parameters
    ----------
    places
        Places of a batch by its number, half-open; they rise with the batch.
    first, n_batches
        The first batch that is to have a room, and how many batches there are.
    make
        What a batch's rows go to.
    meter
        Counts rooms as held; None where they are counted otherwise.
    """

    def __init__(
        self,
        places: Callable[[int], tuple[int, int]],
        first: int,
        n_batches: int,
        make: Callable[[int], T],
        meter: Meter | None = None,
    ) -> None:
        self._places = places
        self._next, self._n_batches = first, n_batches
        self._make = make
        self._meter = meter
        self._rooms: dict[int, Room[T]] = {}

    def within(self, start: int, stop: int) -> list[Room[T]]:
        """Rooms that have some of the places ``[start, stop)``, in order; made if need be."""
        while self._next < self._n_batches:
            low, high = self._places(self._next)
            if low >= stop:
                break
            if high > start:
                made = self._make(self._next)
                self._rooms[self._next] = Room(low, high, made)
                self._hold(made.nbytes)
            self._next += 1
        return [room for room in self._rooms.values() if room.start < stop and room.stop > start]

    def get(self, batch: int) -> T | None:
        """What a batch's rows go to, if it has a room."""
        room = self._rooms.get(batch)
        return None if room is None else room.array

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

    def _hold(self, n_bytes: int) -> None:
        if self._meter is not None:
            self._meter.hold(n_bytes)


def array_maker(
    places: Callable[[int], tuple[int, int]], layout: Layout, recycler: Recycler
) -> Callable[[int], NDArray[Any]]:
    """What makes the arrays of batches of a source."""

    def make(batch: int) -> NDArray[Any]:
        start, stop = places(batch)
        return recycler.empty((stop - start, *layout.row_shape), layout.dtype)

    return make


def room_at(rooms: Sequence[Room[T]], place: int) -> Room[T]:
    """The room that holds a place."""
    return rooms[bisect_right(rooms, place, key=lambda room: room.stop)]


def cut(rooms: Sequence[Room[T]], start: int, stop: int) -> list[tuple[Room[T], int, int]]:
    """Places ``[start, stop)``, room by room."""
    first = bisect_right(rooms, start, key=lambda room: room.stop)
    parts = []
    for room in rooms[first:]:
        if room.start >= stop:
            break
        parts.append((room, max(start, room.start), min(stop, room.stop)))
    return parts
