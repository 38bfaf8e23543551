"""Stores for tests: arrays cut into chunks, and wrappers that count, slow down or tear another
store.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.layout import Layout
from epochal.stores.rows import read_into
from epochal.stores.store import AnySource, Other, Source

__all__ = ["ChunkedArrays", "CountingSource", "SlowSource", "SourceStore", "TornSource"]


class _ChunkedArray:
    """An array that can only be read in whole chunks, as if they had to be decoded; or only some
    chunks of it (`coded`), the rows of the others also alone.
    """

    def __init__(
        self, array: NDArray[Any], chunk_rows: int, coded: Sequence[int] | None = None
    ) -> None:
        self._array = array
        n_chunks = -(-len(array) // chunk_rows)
        row_bytes = array[:1].nbytes
        self.layout = Layout(
            shape=array.shape,
            dtype=array.dtype,
            chunk_rows=chunk_rows,
            piece_bytes=np.full((n_chunks, 1), max(chunk_rows * row_bytes // 2, 1), np.uint32),
            codec="pretended",
            coded=None if coded is None else np.array(coded, np.int64),
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy whole chunks."""
        rows = self._array[start * self.layout.chunk_rows : stop * self.layout.chunk_rows]
        assert out.shape == rows.shape
        assert out.flags.c_contiguous
        out[...] = rows

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Copy whole chunks into several arrays."""
        assert len(spare) >= self.layout.chunk_bytes
        at = self.layout.bounds(start)[0]
        assert at + sum(map(len, outs)) == self.layout.bounds(stop - 1)[1]
        for out in outs:
            out[...] = self._array[at : at + len(out)]
            at += len(out)
        return True

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows, if none is of a chunk that must be read whole."""
        coded = self.layout.is_coded(self.layout.chunks_of(rows))
        assert not coded.any(), "read_rows of chunks whose rows cannot be read alone"
        out[...] = self._array[rows]


class ChunkedArrays:
    """Arrays as a store of chunked sources: ``ChunkedArrays({"X": (array, chunk_rows)})``; where
    rows can be read alone but for those of some chunks, ``(array, chunk_rows, numbers)``.
    """

    name = "<chunked arrays>"
    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(
        self, arrays: Mapping[str, tuple[NDArray[Any], int] | tuple[NDArray[Any], int, list[int]]]
    ) -> None:
        self.sources: dict[str, AnySource] = {
            name: _ChunkedArray(*arguments) for name, arguments in arrays.items()
        }

    def close(self) -> None:
        """Nothing to give back."""


class SourceStore:
    """Any sources as a store: what the wrappers below need to get into a dataset."""

    name = "<sources>"
    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, sources: Mapping[str, AnySource]) -> None:
        self.sources: dict[str, AnySource] = dict(sources)

    def close(self) -> None:
        """Nothing to give back."""


class CountingSource:
    """Counts how often each chunk, and how many single rows, are read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self.layout = source.layout
        self.chunks: Counter[int] = Counter()
        self.rows = 0

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Count and read."""
        with self._lock:
            self.chunks.update(range(start, stop))
        self._source.read(start, stop, out)

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Count and read into several arrays, where the source has a way to."""
        if not read_into(self._source, start, stop, outs, spare):
            return False
        with self._lock:
            self.chunks.update(range(start, stop))
        return True

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Count and read."""
        with self._lock:
            self.rows += len(rows)
        self._source.read_rows(rows, out)


class SlowSource:
    """Waits before each read."""

    def __init__(self, source: Source, seconds: float) -> None:
        self._source = source
        self._seconds = seconds
        self.layout = source.layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Wait and read."""
        time.sleep(self._seconds)
        self._source.read(start, stop, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Wait and read."""
        time.sleep(self._seconds)
        self._source.read_rows(rows, out)


class TornSource:
    """One chunk of it does not decode."""

    def __init__(self, source: Source, torn_chunk: int) -> None:
        self._source = source
        self._torn_chunk = torn_chunk
        self.layout = replace(source.layout, rows_alone=False, coded=None)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fail if the torn chunk is among those asked for."""
        if start <= self._torn_chunk < stop:
            first, last = self.layout.bounds(self._torn_chunk)
            raise DamageError(
                f"chunk {self._torn_chunk} (rows {first} to {last}) does not decode: it is torn"
            )
        self._source.read(start, stop, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Never: its rows are in chunks."""
        raise AssertionError("read_rows on a torn source")
