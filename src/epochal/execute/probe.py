"""A look at the machine, some tens of milliseconds long: how quickly it decodes, copies and writes
scratch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from epochal import sizes
from epochal.errors import EpochalError, SchemeError, ScratchError
from epochal.execute.pool import Pool, wait
from epochal.execute.scratch import ScratchFile
from epochal.plan.machine import Machine, Rates
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.stores.rows import read_rows_into
from epochal.stores.store import Source

__all__ = ["Measured", "default_threads", "probe", "probe_source", "threads_of"]

PROBE_BYTES = 4 << 20
PROBE_SECONDS = 0.02
COPY_BYTES = 8 << 20
SLOW_ROW_SECONDS = 40e-6  # a row that takes longer was waited for, not copied,
SLOW_BYTES_PER_S = 1e9  # and than it takes to copy a large one
MANY_READERS = 32
SCRATCH_BLOCKS = 16


def default_threads() -> int:
    """As many as this process may run on."""
    return len(os.sched_getaffinity(0))


def threads_of(threads: int | None) -> int:
    """As many as were asked for; None: see `default_threads`."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SchemeError(f"threads={threads!r}: give a whole number from 1")
    return threads


@dataclass
class Measured:
    """What was measured so far, each thing once: sources by name, scratch folders by path.

    Scratch rates are bytes/s: written, read, written to the device, read from it.
    """

    sources: dict[str, Rates] = field(default_factory=dict)
    scratch: dict[Path, tuple[float, float, float, float]] = field(default_factory=dict)


def probe(
    sources: Mapping[str, AnySource],
    threads: int,
    folder: Path | None,
    measured: Measured,
    budget_bytes: int,
) -> Machine:
    """Measure what was not measured yet: sources, and the scratch folder (None for no scratch). A
    source of which one chunk is more than the budget is not read: no plan will read it.
    """
    for name, source in sources.items():
        layout = source.layout
        fits = layout.chunk_bytes + layout.read_overhead_bytes <= budget_bytes
        if name not in measured.sources and fits:
            measured.sources[name] = _probe_any(source, threads)
    rates = {name: measured.sources.get(name, Rates()) for name in sources}
    machine = Machine(threads=threads, rates=rates)
    if folder is None:
        return replace(machine, scratch_why="no scratch is allowed")
    try:
        if folder not in measured.scratch:
            measured.scratch[folder] = _probe_scratch(folder)
        stat = os.statvfs(folder)
    except ScratchError as error:
        return replace(machine, scratch_why=str(error))
    except OSError as error:
        return replace(machine, scratch_why=f"scratch in {str(folder)!r}: {error.strerror}")
    written, read, device_written, device_read = measured.scratch[folder]
    return replace(
        machine,
        scratch_free_bytes=stat.f_bavail * stat.f_frsize,
        scratch_write_bytes_per_s=written,
        scratch_read_bytes_per_s=read,
        device_write_bytes_per_s=device_written,
        device_read_bytes_per_s=device_read,
        cache_bytes=sizes.free_memory(),
    )


def _probe_any(source: AnySource, threads: int) -> Rates:
    """Rates of a source; of all columns together where there are several."""
    if not isinstance(source, RaggedSource):
        return probe_source(source, threads)
    seconds, layout = 0.0, source.layout
    for column in source.columns.values():
        seconds += column.layout.decoded_bytes / probe_source(column, threads).decode_bytes_per_s
    return Rates(
        decode_bytes_per_s=layout.decoded_bytes / max(seconds, 1e-9) or 300e6,
        take_seconds=_probe_take(layout.row_bytes) if layout.row_bytes else 0.3e-6,
    )


def probe_source(source: Source, threads: int) -> Rates:
    """Decode a few chunks from all over the source, and copy some rows.

    A chunk that does not decode is no error here: the read that needs it will say so.
    """
    layout = source.layout
    if not layout.n_rows or not layout.row_bytes:
        return Rates()
    run_chunks = max(1, min((1 << 20) // max(layout.chunk_bytes, 1), layout.n_chunks))
    buffer = np.empty(
        (min(run_chunks * layout.chunk_rows, layout.n_rows), *layout.row_shape), layout.dtype
    )
    decoded, seconds = 0, 0.0
    starts = np.linspace(0, layout.n_chunks - run_chunks, 5).astype(int)[[2, 0, 4, 1, 3]]
    if layout.kind == "streamed":  # a chunk in the middle would decode all that lies before it
        starts = np.arange(5) * run_chunks
        starts = starts[starts + run_chunks <= layout.n_chunks]
    for turn, start in enumerate(dict.fromkeys(starts.tolist())):
        rows = layout.bounds(start + run_chunks - 1)[1] - layout.bounds(start)[0]
        began = time.perf_counter()
        try:
            source.read(start, start + run_chunks, buffer[:rows])
        except EpochalError:
            continue
        took = time.perf_counter() - began
        if turn == 0 and took < PROBE_SECONDS:
            began = time.perf_counter()  # the first read also opens the file and touches the buffer
            source.read(start, start + run_chunks, buffer[:rows])
            took = time.perf_counter() - began
        decoded += rows * layout.row_bytes
        seconds += took
        if seconds > PROBE_SECONDS or decoded > PROBE_BYTES:
            break
    if not decoded:
        return Rates()
    queued, readers = _probe_rows(source, threads)
    return Rates(
        decode_bytes_per_s=decoded / max(seconds, 1e-9),
        queued_row_seconds=queued,
        row_readers=readers,
        take_seconds=_probe_take(layout.row_bytes),
    )


def _probe_rows(source: Source, threads: int) -> tuple[float, int]:
    """Seconds of one of many rows read at once, and by how many threads that is best done."""
    layout = source.layout
    if not layout.some_alone:
        return Rates().queued_row_seconds, 0
    if layout.in_flight > 1:  # each row is a request: a few tell
        return _timed_rows(source, layout.in_flight, 2), layout.in_flight
    # The first call opens the file and touches its buffers; a device that is slow is slow again.
    copied = SLOW_ROW_SECONDS + layout.row_bytes / SLOW_BYTES_PER_S
    few, many = (max(1, min(n, PROBE_BYTES // layout.row_bytes)) for n in (32, 1024))
    if layout.parallel and all(_timed_rows(source, 1, few) > copied for _ in range(2)):
        each = max(1, min(16, PROBE_BYTES // (MANY_READERS * layout.row_bytes)))
        return _timed_rows(source, MANY_READERS, each), MANY_READERS
    # As many at once as a group of batches has; the quickest call: others use the machine, too.
    return min(_timed_rows(source, 1, many) for _ in range(3)) / threads, threads


def _timed_rows(source: Source, readers: int, rows_each: int) -> float:
    """Read rows from all over the source, other ones at each call."""
    layout = source.layout
    draw = np.random.Generator(np.random.Philox(time.perf_counter_ns()))
    rows = draw.integers(0, layout.n_rows, (readers, rows_each))
    coded = layout.is_coded(layout.chunks_of(rows.reshape(-1))).reshape(rows.shape)
    if coded.all():
        return Rates().queued_row_seconds
    rows[coded] = rows.reshape(-1)[np.argmin(coded)]  # any that is read alone
    room = np.empty((*rows.shape, *layout.row_shape), layout.dtype)
    room.reshape(-1).view(np.uint8).fill(1)  # memory that was never touched would be timed, too
    if readers == 1:
        began = time.perf_counter()
        read_rows_into(source, rows[0], [room[0]])
        return (time.perf_counter() - began) / rows.size
    with closing(Pool(readers)) as pool:
        began = time.perf_counter()
        wait([pool.submit(source.read_rows, *each) for each in zip(rows, room, strict=True)])
        return (time.perf_counter() - began) / rows.size


def _probe_take(row_bytes: int) -> float:
    """One row of so many bytes, gathered in random order from a buffer larger than the caches near
    a core.
    """
    n_rows = max(2, min(COPY_BYTES // row_bytes, 1 << 17))
    table = np.zeros((n_rows, min(row_bytes, COPY_BYTES)), np.uint8)
    index = np.random.default_rng(0).permutation(n_rows)[: max(1, n_rows // 4)]
    out = np.empty((len(index), table.shape[1]), np.uint8)
    best = np.inf
    for _ in range(2):
        began = time.perf_counter()
        np.take(table, index, axis=0, out=out, mode="clip")
        best = min(best, (time.perf_counter() - began) / len(index))
    return float(best) * row_bytes / table.shape[1]


def _probe_scratch(folder: Path) -> tuple[float, float, float, float]:
    """Write and read some megabytes: once as the page cache takes them, twice to the device, of
    which the quicker counts: others use it, too.
    """
    file = ScratchFile(folder)
    wrote, read = _timed(_write, file), _timed(_read, file)
    flushed, read_again = np.inf, np.inf
    for turn in range(2):
        if turn:
            file.restart()
            _write(file)
        flushed = min(flushed, _timed(ScratchFile.flush, file))
        read_again = min(read_again, _timed(_read, file))
    file.close()
    n_bytes = SCRATCH_BLOCKS << 20
    return n_bytes / wrote, n_bytes / read, n_bytes / (wrote + flushed), n_bytes / read_again


def _timed(step: Callable[[ScratchFile], None], file: ScratchFile) -> float:
    began = time.perf_counter()
    step(file)
    return time.perf_counter() - began


def _write(file: ScratchFile) -> None:
    block = np.zeros(1 << 20, np.uint8)
    for _ in range(SCRATCH_BLOCKS):
        file.append([block])


def _read(file: ScratchFile) -> None:
    """As a pile is read: all of it asked for, then each part waited for."""
    block = np.empty(1 << 20, np.uint8)
    file.advise(0, SCRATCH_BLOCKS << 20)
    for at in range(SCRATCH_BLOCKS):
        file.read(block, at << 20)
