"""Runs of an epoch, measured from outside: seconds, rows, and the process's own peak memory.

The peak is what the kernel saw (``VmHWM``), not what epochal says of itself: it is reset before the
epoch, and what the process held then is taken off.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from epochal.ragged import Ragged, SparseRows

__all__ = ["Epoch", "PeakMemory", "median", "run_epochs"]


class PeakMemory:
    """How far the process's resident memory rises above what it is now, in bytes.

    >>> meter = PeakMemory()
    >>> meter.lap() is None or meter.lap() >= 0
    True
    """

    def __init__(self) -> None:
        _collect_garbage()
        _give_back_freed_memory()
        self._works = _reset_peak()
        self._before = _status_bytes("VmRSS")

    def lap(self) -> int | None:
        """The peak since the last lap, over what was there at the start; None where the kernel
        keeps it to itself.
        """
        if not self._works:
            return None
        over = max(_status_bytes("VmHWM") - self._before, 0)
        _reset_peak()
        return over


class Iteration(Protocol):
    """What can be run: a `Batches`."""

    def __iter__(self) -> Iterator[Sequence[Any]]:
        """One epoch."""
        ...

    def close(self) -> None:
        """Stop threads, free scratch."""
        ...


@dataclass(frozen=True)
class Epoch:
    """What one epoch took when nothing was done with its batches."""

    seconds: float
    n_rows: int
    first_batch_seconds: float
    peak_bytes: int | None

    @property
    def rows_per_second(self) -> float:
        """Rows a second, from the call for the first batch to the end of the last."""
        return self.n_rows / max(self.seconds, 1e-9)


def run_epochs(make: Callable[[], Iteration], n_epochs: int = 1) -> list[Epoch]:
    """Run epochs of one iteration, drop every batch, and close it.

    The peak of each epoch counts from before the iteration was made, so that what it keeps for
    later epochs counts too.
    """
    meter = PeakMemory()
    iteration = make()
    try:
        return [_run(iteration, meter) for _ in range(n_epochs)]
    finally:
        iteration.close()


def _run(iteration: Iteration, meter: PeakMemory) -> Epoch:
    n_rows, first = 0, 0.0
    started = time.perf_counter()
    for batch in iteration:
        first = first or time.perf_counter() - started
        n_rows += _rows(batch[0])
    return Epoch(time.perf_counter() - started, n_rows, first, meter.lap())


def _rows(first: Any) -> int:
    """Rows of a batch's first source, which may be of varying length."""
    return len(first.lengths) if isinstance(first, Ragged | SparseRows) else len(first)


def median(values: Iterable[float]) -> float:
    """Median of what was measured; 0 of nothing."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5: the peak becomes what is resident now
    except OSError:
        return False
    return True


def _status_bytes(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), 0)


def _collect_garbage() -> None:
    """On another thread: Ctrl-C raises in the main one, and what a finaliser raises is ignored."""
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()


def _give_back_freed_memory() -> None:
    """Let go of pages that the allocator keeps from earlier work: they would hide as much of the
    next peak.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library: the peak is then measured a little low
