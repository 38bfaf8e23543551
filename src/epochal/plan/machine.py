"""What a machine can do, as far as a plan needs to know: measured elsewhere, frozen here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

__all__ = ["Machine", "Rates"]


@dataclass(frozen=True)
class Rates:
    """How quickly one source is read.

    ``decode_bytes_per_s`` counts decoded bytes of whole chunks on one thread, reading included;
    ``queued_row_seconds`` is one of many single rows that ``row_readers`` threads read at once (a
    device that answers late is asked for many together, by more threads than there are cores; 0:
    nobody asked), ``uncached`` past the page cache; ``take_seconds`` is one row copied from
    memory to a batch, in random order.

    ``cached_row_seconds`` is one of many single rows once the page cache has all of the file, if
    it has not, but has room for it; else 0.
    """

    decode_bytes_per_s: float = 300e6
    queued_row_seconds: float = 5e-6
    row_readers: int = 0
    uncached: bool = False
    take_seconds: float = 0.3e-6
    cached_row_seconds: float = 0.0

    def loaded(self, threads: int) -> Rates:
        """The same once the page cache has the file."""
        return replace(
            self,
            queued_row_seconds=self.cached_row_seconds,
            row_readers=threads,
            uncached=False,
            cached_row_seconds=0.0,
        )


@dataclass(frozen=True)
class Machine:
    """Threads, rates a source, and scratch.

    ``scratch_free_bytes`` is 0 where no scratch may be written. Scratch that the page cache has
    room for goes at the speed of memory, more than `cache_bytes` at that of the device. Keys are
    those of the exact shuffle, evaluated for consecutive rows (``key_seconds``) or scattered ones
    (``key_at_seconds``). A batch costs ``batch_seconds`` and each of its sources
    ``part_seconds``, or, out of piles, ``pile_part_seconds``, however short its rows are; and a
    pile ``pile_seconds``, each time it is dealt or served. Before the first batch threads start, in
    the first epoch (``start_seconds``) and in later ones (``restart_seconds``).
    """

    threads: int = 2
    rates: Mapping[str, Rates] = field(default_factory=dict)
    scratch_free_bytes: int = 0
    scratch_write_bytes_per_s: float = 1e9
    scratch_read_bytes_per_s: float = 3e9
    device_write_bytes_per_s: float = 1e9
    device_read_bytes_per_s: float = 1e9
    cache_bytes: int = 1 << 62
    scratch_why: str = ""
    key_seconds: float = 4e-9
    key_at_seconds: float = 100e-9
    record_seconds: float = 100e-9
    sort_seconds: float = 30e-9
    task_seconds: float = 60e-6
    batch_seconds: float = 15e-6
    part_seconds: float = 12e-6
    pile_part_seconds: float = 45e-6
    pile_seconds: float = 400e-6
    start_seconds: float = 4e-3
    restart_seconds: float = 1e-3

    def of(self, source: str) -> Rates:
        """Rates of one source, typical ones where nothing was measured."""
        return self.rates.get(source, Rates())

    def loaded(self, sources: Iterable[str]) -> Machine:
        """The same once the page cache has the files of some sources."""
        rates = dict(self.rates)
        for name in sources:
            rates[name] = rates[name].loaded(self.threads)
        return replace(self, rates=rates)

    def is_cached(self, n_bytes: int, budget_bytes: int) -> bool:
        """Whether the page cache has room for so much scratch beside a budget that is used up."""
        return 2 * n_bytes <= self.cache_bytes - budget_bytes

    def scratch_rates(self, n_bytes: int, budget_bytes: int) -> tuple[float, float]:
        """Bytes/s at which so much scratch is written and read, beside a budget that is used up."""
        if self.is_cached(n_bytes, budget_bytes):
            return self.scratch_write_bytes_per_s, self.scratch_read_bytes_per_s
        return self.device_write_bytes_per_s, self.device_read_bytes_per_s
