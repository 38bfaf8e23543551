"""Rows read alone from a source of which some chunks must be decoded: those are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.meter import Meter
from epochal.stores.rows import Located, locate_all, read_rows_into
from epochal.stores.source import Source

__all__ = ["KeptCoded"]

Chunk = NDArray[Any]


class KeptCoded:
    """A source whose rows can all be read alone: the chunks of ``layout.coded`` are decoded when a
    row of theirs is first asked for, by whoever asks, and kept as long as this is.
    """

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source = source
        self._meter = meter
        self._lock = threading.Lock()
        self._kept: dict[int, Future[Chunk]] = {}
        self.layout = source.layout
        self._coded = self.layout.is_coded(np.arange(self.layout.n_chunks))

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks."""
        self._source.read(start, stop, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows of any chunks."""
        self.read_rows_into(rows, [out])

    def read_rows_into(self, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> None:
        """Read single rows of any chunks into several arrays."""
        chunks = self.layout.chunks_of(rows)
        coded = self._coded[chunks]
        places = np.flatnonzero(coded)
        if len(places) < len(rows):
            alone = rows
            if len(places):
                # In place of a row that is copied afterwards comes another one that was asked for:
                # so all arrays are read to in one go. That one counts once.
                alone = rows.copy()
                alone[places] = rows[np.argmin(coded)]
                again = len(places) * self.layout.row_bytes
                self._meter.count(-again, -again, 0, 0.0)
            read_rows_into(self._source, alone, outs)
        if not len(places):
            return
        first = low = 0
        for out in outs:
            high = int(np.searchsorted(places, first + len(out)))
            if low < high:
                some = places[low:high]
                self._copy(rows[some], chunks[some], some - first, out)
            first, low = first + len(out), high

    def locate_all(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[list[Located], NDArray[np.int64]] | None]:
        """Where rows that are read alone lie."""
        yield from locate_all(self._source, rows)

    def _copy(
        self,
        rows: NDArray[np.int64],
        chunks: NDArray[np.int64],
        places: NDArray[np.int64],
        out: NDArray[Any],
    ) -> None:
        """Rows of decoded chunks to their places in `out`."""
        for chunk in np.unique(chunks).tolist():
            some = chunks == chunk
            out[places[some]] = self._chunk(chunk)[rows[some] - self.layout.bounds(chunk)[0]]

    def _chunk(self, chunk: int) -> Chunk:
        """The rows of one chunk; whoever comes first decodes it."""
        with self._lock:
            future = self._kept.get(chunk)
            first = future is None
            if future is None:
                future = self._kept[chunk] = Future()
        if first:
            try:
                future.set_result(self._decoded(chunk))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _decoded(self, chunk: int) -> Chunk:
        start, stop = self.layout.bounds(chunk)
        block = np.empty((stop - start, *self.layout.row_shape), self.layout.dtype)
        self._meter.hold(block.nbytes)
        self._source.read(chunk, chunk + 1, block)
        return block
