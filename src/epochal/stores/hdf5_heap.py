"""HDF5's global heaps, read without libhdf5: where the items of rows of varying length lie.

A *collection* is a header and small objects one after another, each with a number of its own: the
signature ``GCOL``, a version, and its size; then, of each object, its number, its length, and its
bytes padded to a multiple of eight (HDF5 File Format Specification 3.0, section III.E). Usually it
has 4 KiB, with the items of several rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from epochal.stores.file import Read

__all__ = ["HELD_BYTES", "Heaps"]

COLLECTION = struct.Struct("<4sB3xQ")
OBJECT = struct.Struct("<H6xQ")
USUAL_BYTES = 4096  # of a collection: what is read of one before its size is known
SPAN_BYTES = 1 << 18  # neighbouring collections are read in one call up to this
GAP_BYTES = 1 << 15
WHOLE_BYTES = 1 << 18  # a larger one is read object by object
MAX_OBJECTS = 1 << 16  # their numbers have 16 bits
LIST_BYTES = 1 << 19  # places of objects of one collection: those in 64 KiB, libhdf5's most
HELD_BYTES = SPAN_BYTES + WHOLE_BYTES + LIST_BYTES

Places = dict[int, tuple[int, int]]
NOWHERE = (0, -1)


class Heaps:
    """The collections of one file, for one call of a source: holds `HELD_BYTES` at most but for
    what a damaged or very odd one makes of its list of objects.

    Parameters
    ----------
    read
        What reads the file.
    base
        Where in it addresses count from.
    file_bytes
        Its size: nothing is asked of it past that.
    """

    def __init__(self, read: Read, base: int, file_bytes: int) -> None:
        self._read, self._base, self._file_bytes = read, base, file_bytes
        self._start, self._span = 0, memoryview(b"")

    def copy(
        self,
        addresses: Sequence[int],
        numbers: Sequence[int],
        sizes: Sequence[int],
        places: Sequence[int],
        target: memoryview,
    ) -> int | None:
        """Copy object ``numbers[i]`` of the collection at ``addresses[i]``, which has ``sizes[i]``
        bytes, to ``target[places[i]:]``.

        Addresses ascend, so that each collection is read once. Returns the first `i` whose object
        is not in its collection, None where all are. Raises ValueError where there is no
        collection, or it is damaged; OSError.
        """
        n, i = len(addresses), 0
        loaded = 0
        while i < n:
            address = addresses[i]
            end = i + 1
            while end < n and addresses[end] == address:
                end += 1
            if i >= loaded:
                loaded = self._load(addresses, i)
            wrong = self._copy_of(
                address + self._base, numbers[i:end], sizes[i:end], places[i:end], target
            )
            if wrong is not None:
                return i + wrong
            i = end
        return None

    def _load(self, addresses: Sequence[int], i: int) -> int:
        """Read the collection of `i` and those that follow closely; where the next one begins."""
        first = last = addresses[i]
        n = len(addresses)
        i += 1
        while i < n:
            here = addresses[i]
            if here - last > GAP_BYTES or here - first > SPAN_BYTES - USUAL_BYTES:
                break
            last = here
            i += 1
        self._start = first + self._base
        stop = min(last + self._base + USUAL_BYTES, self._file_bytes)
        self._span = self._bytes(self._start, max(stop - self._start, COLLECTION.size))
        return i

    def _copy_of(
        self,
        at: int,
        numbers: Sequence[int],
        sizes: Sequence[int],
        places: Sequence[int],
        target: memoryview,
    ) -> int | None:
        """Copy objects of the collection at `at`, of which at least the head is in the span."""
        data, inside = self._span, at - self._start
        if inside + COLLECTION.size > len(data):
            raise ValueError(f"its heap at {at} lies outside the file")
        magic, version, size = COLLECTION.unpack_from(data, inside)
        if magic != b"GCOL" or version != 1 or not 0 < size <= self._file_bytes - at:
            raise ValueError(f"there is no heap at {at}")
        if size > WHOLE_BYTES:
            return self._copy_far(self._far(at, size), numbers, sizes, places, target)
        if inside + size > len(data):
            data, inside = self._bytes(at, size), 0
        objects = _objects(data, inside, size, at)
        for i, (number, n_bytes, to) in enumerate(zip(numbers, sizes, places, strict=True)):
            where, stored = objects.get(number, NOWHERE)
            if stored != n_bytes:
                return i
            target[to : to + n_bytes] = data[where : where + n_bytes]
        return None

    def _copy_far(
        self,
        objects: Places,
        numbers: Sequence[int],
        sizes: Sequence[int],
        places: Sequence[int],
        target: memoryview,
    ) -> int | None:
        """Copy objects from where they lie in the file."""
        for i, (number, n_bytes, to) in enumerate(zip(numbers, sizes, places, strict=True)):
            where, stored = objects.get(number, NOWHERE)
            if stored != n_bytes:
                return i
            self._into(where, target[to : to + n_bytes])
        return None

    def _far(self, at: int, size: int) -> Places:
        """Objects of a large collection, by their places in the file: a read for each."""
        found: Places = {}
        end, place = at + size, at + COLLECTION.size
        while place + OBJECT.size <= end:
            number, n_bytes = OBJECT.unpack(self._bytes(place, OBJECT.size))
            if not number:  # the free space, which is the last
                break
            place += OBJECT.size
            _check(n_bytes, end - place, at, found)
            found[number] = place, n_bytes
            place += n_bytes + 7 & ~7
        return found

    def _bytes(self, at: int, n_bytes: int) -> memoryview:
        if at < 0 or at + n_bytes > self._file_bytes:
            raise ValueError(f"its heap at {at} lies outside the file")
        out = np.empty(n_bytes, np.uint8).data
        self._into(at, out)
        return out

    def _into(self, at: int, out: memoryview) -> None:
        if len(out) and self._read([out], at) < len(out):
            raise ValueError("the file ends too early")


def _objects(data: memoryview, at: int, size: int, name: int) -> Places:
    """Objects of the collection in ``data[at : at + size]``, by their places in `data`."""
    found: Places = {}
    head, unpack = OBJECT.size, OBJECT.unpack_from
    end, place = at + size, at + COLLECTION.size
    while place + head <= end:
        number, n_bytes = unpack(data, place)
        if not number:  # the free space, which is the last
            break
        place += head
        if n_bytes > end - place:
            _check(n_bytes, end - place, name, found)
        found[number] = place, n_bytes
        place += n_bytes + 7 & ~7
    return found


def _check(n_bytes: int, room: int, at: int, found: Places) -> None:
    if n_bytes > room:
        raise ValueError(f"an object of {n_bytes} bytes runs past its heap at {at}")
    if len(found) >= MAX_OBJECTS:
        raise ValueError(f"its heap at {at} has more objects than there are numbers")
