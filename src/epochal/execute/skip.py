"""Rows that cannot be read, left out: ``on_error="skip"``.

A chunk that does not decode becomes zeros, and its rows go into a ledger; whoever makes a batch
takes the rows of the ledger out of all its arrays. So no strategy knows of damage, and where
nothing is damaged nothing is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.stores.rows import Located, locate_all, read_into, read_rows_into
from epochal.stores.source import Source

__all__ = ["Ledger", "Skipped", "skipping"]


class Skipped(NamedTuple):
    """Rows ``[first_row, stop_row)`` of the file that a source could not read, and why."""

    source: str
    first_row: int
    stop_row: int
    why: str


class Ledger:
    """Rows of the file that are left out: shared by threads, kept from epoch to epoch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, int, int], Skipped] = {}
        self._starts = self._stops = np.empty(0, np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return Ledger, ()  # another process finds the damage by itself

    def add(self, skipped: Skipped) -> None:
        """Leave rows out from now on."""
        with self._lock:
            self._found[skipped[:3]] = skipped
            spans = sorted((s.first_row, s.stop_row) for s in self._found.values())
            starts = np.array([first for first, _ in spans], np.int64)
            stops = np.maximum.accumulate(np.array([stop for _, stop in spans], np.int64))
            self._starts, self._stops = starts, stops

    def entries(self) -> list[Skipped]:
        """What was found so far, by source and row."""
        with self._lock:
            return [self._found[key] for key in sorted(self._found)]

    def __bool__(self) -> bool:
        return bool(len(self._starts))

    def good(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows are not left out, ``(n_rows,)``."""
        with self._lock:
            starts, stops = self._starts, self._stops
        before = np.searchsorted(starts, rows, side="right") - 1
        return (before < 0) | (rows >= stops[before])


def skipping(name: str, source: AnySource, ledger: Ledger) -> AnySource:
    """The source, reading zeros where it is damaged, and telling the ledger of it."""
    if not isinstance(source, RaggedSource):
        return _SkippingSource(name, source, ledger, _themselves)
    offsets = source.layout.offsets
    columns: dict[str, Source] = {
        column: _SkippingSource(name, one, ledger, _RowsOfItems(offsets))
        for column, one in source.columns.items()
    }
    return RaggedSource(source.name, columns, offsets, source.layout.n_columns)


def _themselves(first: int, stop: int) -> tuple[int, int]:
    return first, stop


class _RowsOfItems:
    """The rows that have any of the items ``[first, stop)``."""

    def __init__(self, offsets: NDArray[np.int64]) -> None:
        self._offsets = offsets

    def __call__(self, first: int, stop: int) -> tuple[int, int]:
        low = np.searchsorted(self._offsets[1:], first, "right")
        high = np.searchsorted(self._offsets[:-1], stop, "left")
        return int(low), int(high)


class _SkippingSource:
    """A source whose damage is told to a ledger."""

    def __init__(
        self,
        name: str,
        source: Source,
        ledger: Ledger,
        rows_of: Callable[[int, int], tuple[int, int]],
    ) -> None:
        self._name, self._source, self._ledger = name, source, ledger
        self._rows_of = rows_of
        self.layout = source.layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks; again one by one if any of them is damaged, and that row by row where rows
        can be read alone: what is left out is the same, however it was read. But a checksum that
        does not fit is that of a whole chunk.
        """
        try:
            self._source.read(start, stop, out)
            return
        except DamageError as error:
            if stop - start == 1:
                bounds = self.layout.bounds(start)
                if not self.layout.checked and not self.layout.is_coded(np.array([start])).any():
                    self.read_rows(np.arange(*bounds), out)
                else:
                    self._leave_out(*bounds, out, error)
                return
        base = self.layout.bounds(start)[0]
        for chunk in range(start, stop):
            first, last = self.layout.bounds(chunk)
            self.read(chunk, chunk + 1, out[first - base : last - base])

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows; again one by one if any of them is damaged."""
        try:
            self._source.read_rows(rows, out)
            return
        except DamageError as error:
            if len(rows) == 1:
                self._leave_out(int(rows[0]), int(rows[0]) + 1, out, error)
                return
        for k in range(len(rows)):
            self.read_rows(rows[k : k + 1], out[k : k + 1])

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Read chunks into several arrays, if the source has a way to; where any is damaged, there
        is none, and `read` tells of it.
        """
        try:
            return read_into(self._source, start, stop, outs, spare)
        except DamageError:
            return False

    def read_rows_into(self, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> None:
        """Read single rows into several arrays; again array by array if any of them is damaged."""
        try:
            read_rows_into(self._source, rows, outs)
        except DamageError:
            first = 0
            for out in outs:
                self.read_rows(rows[first : first + len(out)], out)
                first += len(out)

    def locate_all(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[list[Located], NDArray[np.int64]] | None]:
        """Where single rows lie: for whoever asks here again if he cannot read them there."""
        try:
            yield from locate_all(self._source, rows)
        except DamageError:
            yield None

    def _leave_out(self, first: int, stop: int, out: NDArray[Any], error: DamageError) -> None:
        out[...] = np.zeros((), out.dtype)
        self._ledger.add(Skipped(self._name, *self._rows_of(first, stop), str(error)))
