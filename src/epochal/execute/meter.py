"""What an iteration did: counters that wrap the reads, so that the data path counts nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.execute.skip import Skipped
from epochal.stores.ragged import AnySource, wrapped
from epochal.stores.rows import Located, locate_all, read_into, read_rows_into
from epochal.stores.store import Source

__all__ = ["Meter", "MeteredSource", "Stats"]


@dataclass
class Stats:
    """What was done so far, in the epoch that runs or ran last.

    Attributes
    ----------
    rows
        Rows handed over.
    bytes_read, bytes_decoded
        Stored bytes read from the files, and what they decoded to.
    chunks_decoded
        Stored pieces that were decoded.
    bytes_spilled
        Written to scratch.
    seconds_waited
        That the caller waited for batches.
    seconds_decoding
        Of reading and decoding, added up over threads.
    peak_bytes
        The most that was held under the budget at once.
    seconds, first_batch_seconds
        From the first request to the last batch, and to the first.
    strategy
        The strategy that ran.
    rows_skipped, skipped
        Rows left out of batches since they cannot be read (``on_error="skip"``), and which ones of
        the file those are: source, first row, the row after the last, why.
    """

    rows: int = 0
    bytes_read: int = 0
    bytes_decoded: int = 0
    chunks_decoded: int = 0
    bytes_spilled: int = 0
    seconds_waited: float = 0.0
    seconds_decoding: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0
    first_batch_seconds: float = 0.0
    strategy: str = ""
    rows_skipped: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class Meter:
    """Counts for one epoch: shared by its threads."""

    def __init__(self, strategy: str = "", held_bytes: int = 0) -> None:
        self._held = held_bytes
        self.stats = Stats(strategy=strategy, peak_bytes=held_bytes)
        self._lock = threading.Lock()

    def hold(self, n_bytes: int) -> None:
        """Count bytes as held; negative to let go."""
        with self._lock:
            self._held += n_bytes
            self.stats.peak_bytes = max(self.stats.peak_bytes, self._held)

    def spill(self, n_bytes: int) -> None:
        """Count bytes written to scratch."""
        with self._lock:
            self.stats.bytes_spilled += n_bytes

    def skip(self, n_rows: int, skipped: list[Skipped]) -> None:
        """Count rows left out of a batch."""
        with self._lock:
            self.stats.rows_skipped += n_rows
            self.stats.rows -= n_rows
            self.stats.skipped = skipped

    def count(self, read: int, decoded: int, chunks: int, seconds: float) -> None:
        """Count one read."""
        with self._lock:
            self.stats.bytes_read += read
            self.stats.bytes_decoded += decoded
            self.stats.chunks_decoded += chunks
            self.stats.seconds_decoding += seconds

    def wrap(self, sources: Mapping[str, AnySource]) -> dict[str, AnySource]:
        """The same sources, counted."""
        return {
            name: wrapped(source, lambda one: MeteredSource(one, self))
            for name, source in sources.items()
        }


class MeteredSource:
    """A source whose reads are counted and timed."""

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source = source
        self._meter = meter
        self.layout = source.layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks, counted."""
        began = time.perf_counter()
        self._source.read(start, stop, out)
        seconds = time.perf_counter() - began
        stored, pieces = self.layout.costs(start, stop)
        self._meter.count(stored, out.nbytes, pieces, seconds)

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Read chunks into several arrays, counted, if the source has a way to."""
        began = time.perf_counter()
        if not read_into(self._source, start, stop, outs, spare):
            return False
        seconds = time.perf_counter() - began
        stored, pieces = self.layout.costs(start, stop)
        self._meter.count(stored, sum(out.nbytes for out in outs), pieces, seconds)
        return True

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows, counted."""
        began = time.perf_counter()
        self._source.read_rows(rows, out)
        self._meter.count(out.nbytes, out.nbytes, 0, time.perf_counter() - began)

    def read_rows_into(self, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> None:
        """Read single rows into several arrays, counted."""
        began = time.perf_counter()
        read_rows_into(self._source, rows, outs)
        n_bytes = sum(out.nbytes for out in outs)
        self._meter.count(n_bytes, n_bytes, 0, time.perf_counter() - began)

    def locate_all(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[list[Located], NDArray[np.int64]] | None]:
        """Where single rows lie: nothing is read, nor counted."""
        yield from locate_all(self._source, rows)
