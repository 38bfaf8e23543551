"""Where decoded chunks of one read go."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.stores.codecs import Bytes
from epochal.stores.filters import Pipeline
from epochal.stores.hdf5_facts import Chunked
from epochal.stores.rows import byte_view

__all__ = ["CutRows", "Items", "WholeRows"]


class Items:
    """Items of a dataset as bytes: they are moved as the widest integers that divide them, so that
    any dtype, padding included, is copied as it is.
    """

    def __init__(self, facts: Chunked) -> None:
        itemsize = facts.dtype.itemsize
        width = next(w for w in (8, 4, 2, 1) if itemsize % w == 0)
        self._lane = np.dtype(f"u{width}")
        self._lanes = itemsize // width
        self.fill = np.frombuffer(facts.fill, dtype=self._lane)

    def of(self, data: Bytes, *shape: int) -> NDArray[Any]:
        """A view of some bytes, ``(*shape, lanes)``."""
        return data.view(self._lane).reshape(*shape, self._lanes)


class WholeRows:
    """Chunks of whole rows go straight into the arrays that have room for their rows, which come
    one after another; a chunk that an array's end cuts, and one over the dataset's edge, go by way
    of `spare`, ``(chunk_bytes,)``, made when it is needed.
    """

    def __init__(
        self,
        facts: Chunked,
        items: Items,
        pipeline: Pipeline,
        outs: Sequence[NDArray[Any]],
        spare: Bytes | None = None,
    ) -> None:
        self._plain_edges, self._items, self._pipeline = facts.plain_edges, items, pipeline
        self._chunk_bytes = pipeline.chunk_bytes
        self._flats = [byte_view(out) for out in outs if out.nbytes]
        self._ends = list(accumulate(map(len, self._flats)))
        self._spare = spare

    def parts(self, i: int, j: int) -> list[Bytes]:
        """The bytes of the chunks ``[i, j)``, array by array."""
        low, high = i * self._chunk_bytes, min(j * self._chunk_bytes, self._ends[-1])
        k = bisect_right(self._ends, low)
        parts = []
        while low < high:
            begin = self._ends[k] - len(self._flats[k])
            end = min(high, self._ends[k])
            parts.append(self._flats[k][low - begin : end - begin])
            low, k = end, k + 1
        return parts

    def decode(self, i: int, stored: Bytes, mask: int) -> None:
        """Decode chunk `i`."""
        parts = self.parts(i, i + 1)
        if len(parts[0]) == self._chunk_bytes:
            self._pipeline.decode(stored, mask, parts[0])
            return
        if self._plain_edges and sum(map(len, parts)) < self._chunk_bytes:
            mask = -1  # stored without any filter, whatever its mask says
        if self._spare is None:
            self._spare = np.empty(self._chunk_bytes, dtype=np.uint8)
        self._pipeline.decode(stored, mask, self._spare)
        at = 0
        for part in parts:
            part[:] = self._spare[at : at + len(part)]
            at += len(part)

    def fill(self, i: int) -> None:
        """Chunk `i` is not stored: the fill value."""
        for part in self.parts(i, i + 1):
            self._items.of(part, -1)[...] = self._items.fill


class CutRows:
    """Pieces of chunks whose grid cuts rows, too: each is decoded aside, and put in its place."""

    def __init__(
        self,
        facts: Chunked,
        items: Items,
        pipeline: Pipeline,
        grid: tuple[int, ...],
        start: int,
        out: NDArray[Any],
    ) -> None:
        self._chunk, self._shape, self._grid = facts.chunk, facts.shape, grid
        self._start, self._n_rows = start, len(out)
        self._plain_edges, self._items, self._pipeline = facts.plain_edges, items, pipeline
        self._target = items.of(byte_view(out), *out.shape)
        self._aside: Bytes | None = None

    def decode(self, i: int, stored: Bytes, mask: int) -> None:
        """Decode piece `i`."""
        if self._aside is None:
            self._aside = np.empty(self._pipeline.chunk_bytes, dtype=np.uint8)
        place = self._place(i)
        size = tuple(s.stop - s.start for s in place)
        if self._plain_edges and size != self._chunk:
            mask = -1  # stored without any filter, whatever its mask says
        self._pipeline.decode(stored, mask, self._aside)
        items = self._items.of(self._aside, *self._chunk)
        self._target[place] = items[tuple(slice(0, n) for n in size)]

    def fill(self, i: int) -> None:
        """Piece `i` is not stored: the fill value."""
        self._target[self._place(i)] = self._items.fill

    def _place(self, i: int) -> tuple[slice, ...]:
        """The part of the output that piece `i` fills."""
        place: list[slice] = []
        for axis in range(len(self._chunk) - 1, 0, -1):
            i, at = divmod(i, self._grid[axis])
            first = at * self._chunk[axis]
            place.append(slice(first, min(first + self._chunk[axis], self._shape[axis])))
        first = i * self._chunk[0]
        place.append(slice(first, min(first + self._chunk[0], self._n_rows)))
        return tuple(reversed(place))
