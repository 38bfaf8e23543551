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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal import sizes
from epochal.errors import EpochalError, SchemeError, ScratchError
from epochal.execute.loading import can_load
from epochal.execute.pool import Pool, wait
from epochal.execute.scratch import ScratchFile
from epochal.execute.uncached import Uncached
from epochal.plan.machine import Machine, Rates
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.stores.rows import read_rows_into
from epochal.stores.store import Source

__all__ = ["Measured", "default_threads", "probe", "probe_source", "threads_of"]

PROBE_BYTES = 4 << 20
PROBE_SECONDS = 0.02
COPY_BYTES = 8 << 20
CACHED_ROW_SECONDS = 8e-6  # a row that takes longer than this and a copy was waited for
CACHED_BYTES_PER_S = 1.5e9
SHARED_MEMORY = 1.5  # copies that several threads make at once take so much longer
PUSHING_OUT = 1.5  # what comes to a full page cache costs so much more than what a look at it tells
LEAST_ROWS = 128  # fewer tell nothing of many that are under way at once
ROOMY = 1.25  # the page cache has room for files if there is free memory for so many times theirs
DEVICE_SECONDS = 0.05  # about as long may reads of a device take that tell how quick it is
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
    stored_bytes = sum(int(source.layout.stored_bytes) for source in sources.values())
    roomy = ROOMY * stored_bytes <= sizes.free_memory() - budget_bytes
    for name, source in sources.items():
        layout = source.layout
        fits = layout.chunk_bytes + layout.read_overhead_bytes <= budget_bytes
        if name not in measured.sources and fits:
            measured.sources[name] = _probe_any(source, threads, roomy=roomy)
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


def _probe_any(source: AnySource, threads: int, *, roomy: bool) -> Rates:
    """Rates of a source; of all columns together where there are several."""
    if not isinstance(source, RaggedSource):
        return probe_source(source, threads, roomy=roomy)
    seconds, layout = 0.0, source.layout
    for column in source.columns.values():
        seconds += column.layout.decoded_bytes / probe_source(column, threads).decode_bytes_per_s
    return Rates(
        decode_bytes_per_s=layout.decoded_bytes / max(seconds, 1e-9) or 300e6,
        take_seconds=_probe_take(layout.row_bytes) if layout.row_bytes else 0.3e-6,
    )


def probe_source(source: Source, threads: int, *, roomy: bool = False) -> Rates:
    """Decode a few chunks from all over the source, and copy some rows. `roomy`: the page cache has
    room for the file.

    A chunk that does not decode is no error here: the read that needs it will say so.
    """
    layout = source.layout
    if not layout.n_rows or not layout.row_bytes:
        return Rates()
    run_chunks = max(1, min((1 << 20) // max(layout.chunk_bytes, 1), layout.n_chunks))
    buffer = np.empty(
        (min(run_chunks * layout.chunk_rows, layout.n_rows), *layout.row_shape), layout.dtype
    )
    there: list[NDArray[np.int64]] = []
    decoded, seconds = 0, 0.0
    starts = np.linspace(0, layout.n_chunks - run_chunks, 5).astype(int)[[2, 0, 4, 1, 3]]
    if layout.kind == "streamed":  # a chunk in the middle would decode all that lies before it
        starts = np.arange(5) * run_chunks
        starts = starts[starts + run_chunks <= layout.n_chunks]
    for turn, start in enumerate(dict.fromkeys(starts.tolist())):
        first, stop = layout.bounds(start)[0], layout.bounds(start + run_chunks - 1)[1]
        rows = stop - first
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
        there.append(np.arange(first, stop))
        decoded += rows * layout.row_bytes
        seconds += took
        if seconds > PROBE_SECONDS or decoded > PROBE_BYTES:
            break
    if not decoded:
        return Rates()
    return replace(
        _probe_rows(source, threads, np.concatenate(there), roomy=roomy),
        decode_bytes_per_s=decoded / max(seconds, 1e-9),
        take_seconds=_probe_take(layout.row_bytes),
    )


def _probe_rows(source: Source, threads: int, there: NDArray[np.int64], *, roomy: bool) -> Rates:
    """What of `Rates` is of single rows: how long one of many takes, and how they are best read.
    The page cache has the rows `there`, ``(n,)``, by now.
    """
    layout = source.layout
    if not layout.some_alone:
        return Rates()
    if layout.in_flight > 1:  # each row is a request: a few tell
        seconds = _timed_rows(source, layout.in_flight, 2)
        return Rates(queued_row_seconds=seconds, row_readers=layout.in_flight)
    # The first call opens the file and touches its buffers; the quicker one counts: others use the
    # machine, too.
    few, many = (max(1, min(n, PROBE_BYTES // layout.row_bytes)) for n in (64, 1024))
    quick = min(_timed_rows(source, 1, few) for _ in range(2))
    copied = CACHED_ROW_SECONDS + layout.row_bytes / CACHED_BYTES_PER_S
    if quick <= copied or not layout.parallel:  # as many at once as a group of batches has
        quick = min(_timed_rows(source, 1, many) for _ in range(3))
        return Rates(queued_row_seconds=_together(quick, threads), row_readers=threads)
    # Of a device: many threads that wait for a row each, a few that ask it for many at once past
    # the page cache, or a few that wait, if it was no device after all.
    n_rows = max(int(DEVICE_SECONDS / quick), LEAST_ROWS)
    past = Uncached(source)
    ways: list[tuple[Source, int]] = [(source, threads), (source, MANY_READERS)]
    if past.works():
        ways.append((past, threads))
    timed = [(_timed_rows(way, n, max(1, n_rows // n)), n, way is past) for way, n in ways]
    seconds, readers, uncached = min(timed, key=lambda t: t[0] if t[2] else PUSHING_OUT * t[0])
    cached = 0.0
    if roomy and can_load(source):
        cached = _together(min(_timed_rows(source, 1, many, there) for _ in range(3)), threads)
    return Rates(
        queued_row_seconds=seconds,
        row_readers=readers,
        uncached=uncached,
        cached_row_seconds=cached,
    )


def _together(seconds: float, threads: int) -> float:
    """One of many that several threads do, by what it takes one alone: they share the memory."""
    return seconds if threads == 1 else seconds * SHARED_MEMORY / threads


def _timed_rows(
    source: Source, readers: int, rows_each: int, among: NDArray[np.int64] | None = None
) -> float:
    """Read rows from all over the source, or `among` some, other ones at each call."""
    layout = source.layout
    draw = np.random.Generator(np.random.Philox(time.perf_counter_ns()))
    at_once = max(1, min(rows_each, PROBE_BYTES // (readers * layout.row_bytes)))
    warming = at_once if readers > 1 and layout.in_flight == 1 else 0
    n_among = layout.n_rows if among is None else len(among)
    rows = draw.integers(0, n_among, (readers, warming + rows_each))
    rows = rows if among is None else among[rows]
    coded = layout.is_coded(layout.chunks_of(rows.reshape(-1))).reshape(rows.shape)
    if coded.all():
        return Rates().queued_row_seconds
    rows[coded] = rows.reshape(-1)[np.argmin(coded)]  # any that is read alone
    room = np.empty((readers, at_once, *layout.row_shape), layout.dtype)
    room.reshape(-1).view(np.uint8).fill(1)  # memory that was never touched would be timed, too

    def read(mine: NDArray[np.int64], out: NDArray[Any]) -> None:
        for first in range(0, len(mine), at_once):
            some = mine[first : first + at_once]
            read_rows_into(source, some, [out[: len(some)]])

    if readers == 1 and not isinstance(source, Uncached):
        began = time.perf_counter()
        read(rows[0], room[0])
        return (time.perf_counter() - began) / rows.size
    with closing(Pool(readers)) as pool:
        tasks = list(zip(rows, room, strict=True))
        # Threads and their buffers begin before the clock does.
        wait([pool.submit(read, mine[:warming], out) for mine, out in tasks])
        began = time.perf_counter()
        wait([pool.submit(read, mine[warming:], out) for mine, out in tasks])
        return (time.perf_counter() - began) / (readers * rows_each)


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
