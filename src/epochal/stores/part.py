"""Some consecutive rows of a source as a source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.stores.source import Source

__all__ = ["PartSource", "part_of"]


def part_of(source: Source, first: int, last: int) -> Source:
    """The rows ``[first, last)`` of a source."""
    return source if (first, last) == (0, source.layout.n_rows) else PartSource(source, first, last)


class PartSource:
    """The rows ``[first, last)`` of a source. Its chunks are the source's; those at its ends may
    be cut, and are then decoded whole, beside the rows that are asked for.
    """

    def __init__(self, source: Source, first: int, last: int) -> None:
        whole = source.layout
        assert 0 <= first < last <= whole.n_rows
        self._source, self._first = source, first
        self._chunk = whole.chunk_of(first)
        end = whole.chunk_of(last - 1) + 1
        edges = [whole.bounds(chunk)[0] for chunk in range(self._chunk, end)]
        starts = np.array([first, *edges[1:], last], dtype=np.int64) - first
        stored = whole.piece_bytes
        self.layout = replace(
            whole,
            shape=(last - first, *whole.row_shape),
            chunk_rows=int(np.diff(starts).max()),
            piece_bytes=None if stored is None else stored[self._chunk : end],
            read_overhead_bytes=whole.read_overhead_bytes + whole.chunk_bytes,
            starts=starts,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``: those that are whole into `out`."""
        at = 0
        while start < stop:
            end = start
            while end < stop and self._is_whole(end):
                end += 1
            end = max(end, start + 1)
            n_rows = self.layout.bounds(end - 1)[1] - self.layout.bounds(start)[0]
            self._read_run(start, end, out[at : at + n_rows])
            at += n_rows
            start = end

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        self._source.read_rows(np.asarray(rows, dtype=np.int64) + self._first, out)

    def _read_run(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Whole chunks, or one that is cut."""
        if self._is_whole(start):
            self._source.read(start + self._chunk, stop + self._chunk, out)
            return
        low, high = self._source.layout.bounds(start + self._chunk)
        block = np.empty((high - low, *out.shape[1:]), out.dtype)
        self._source.read(start + self._chunk, stop + self._chunk, block)
        at = self.layout.bounds(start)[0] + self._first - low
        out[...] = block[at : at + len(out)]

    def _is_whole(self, chunk: int) -> bool:
        low, high = self.layout.bounds(chunk)
        first = self._first
        return (low + first, high + first) == self._source.layout.bounds(chunk + self._chunk)
