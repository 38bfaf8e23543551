"""Exact shuffle of 2.4 GB of contiguous float32 rows in a memory cgroup of 512 MB, page cache
included, cold.

    python benchmarks/contiguous.py          (as root, where a memory cgroup can be made)

Held against one sequential pread of the file and against 32 threads preading single rows, each in a
process of its own in the same cgroup, with the file's pages dropped beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import epochal
import harness
from epochal import sizes
from epochal.cli.measure import median, run_epochs

ROWS = 200_000
ROW_BYTES = 3072 * 4
CGROUP_BYTES = 512_000_000
RIVAL_THREADS = 32
CGROUPS = (  # root, and what the limit is called, in versions 1 and 2
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


def contiguous(folder: Path, n_rows: int) -> Path:
    """``X`` of shape ``(n_rows, 3072)``, float32, contiguous; noise."""

    def write(file: h5py.File) -> None:
        X = file.create_dataset("X", (n_rows, 3072), "f4")
        for start in range(0, n_rows, 4096):
            n = min(4096, n_rows - start)
            X[start : start + n] = np.random.default_rng(start).random((n, 3072), np.float32)

    return harness.made(folder / f"contiguous-{n_rows}.h5", write)


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """A fresh memory cgroup, v1 or v2; None where none can be made."""
    for root, limit_name in CGROUPS:
        group = root / f"epochal-benchmark-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            try:
                (group / limit_name).write_text(str(limit_bytes))
            except OSError:
                continue
            yield group
            return
        finally:
            group.rmdir()
    yield None


def in_cgroup(group: Path, kind: str, path: Path, memory: int, seconds: float) -> dict[str, Any]:
    """What a child process of one kind measured in the cgroup."""
    harness.drop_pages(path)
    words = [sys.executable, __file__, "--child", kind, "--file", str(path)]
    words += ["--memory", str(memory), "--seconds", str(seconds)]

    def join() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    run = subprocess.run(words, preexec_fn=join, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(run.stdout))


def read_in_order(path: Path, memory: int, seconds: float) -> dict[str, Any]:
    """One pread after the other, 1 MiB each."""
    buffer, offset = np.ones(1 << 20, np.uint8), 0
    descriptor = os.open(path, os.O_RDONLY)
    started = time.perf_counter()
    while n_bytes := os.preadv(descriptor, [buffer], offset):
        offset += n_bytes
    return {"rows_per_second": offset / ROW_BYTES / (time.perf_counter() - started)}


def read_single_rows(path: Path, memory: int, seconds: float) -> dict[str, Any]:
    """Rows in random order, one pread each, from 32 threads, for some seconds."""
    with h5py.File(path) as file:
        first, n_rows = file["X"].id.get_offset(), len(file["X"])
    order = np.random.default_rng(0).permutation(n_rows)
    descriptor = os.open(path, os.O_RDONLY)
    started = time.perf_counter()

    def read(rows: np.ndarray) -> int:
        buffer, n = np.ones(ROW_BYTES, np.uint8), 0
        for row in rows.tolist():
            os.preadv(descriptor, [buffer], first + row * ROW_BYTES)
            n += 1
            if time.perf_counter() - started > seconds:
                break
        return n

    with ThreadPoolExecutor(RIVAL_THREADS) as pool:
        n_rows = sum(pool.map(read, np.array_split(order, RIVAL_THREADS)))
    return {"rows_per_second": n_rows / (time.perf_counter() - started)}


def shuffle(path: Path, memory: int, seconds: float) -> dict[str, Any]:
    """Ours: one exactly shuffled epoch."""
    with epochal.open(str(path)) as ds:
        [epoch] = run_epochs(
            lambda: ds.batches(
                "shuffled_sequential",
                batch_size=harness.BATCH_ROWS,
                seed=0,
                memory=memory,
                scratch=str(path.parent),
            )
        )
    return {"rows_per_second": epoch.rows_per_second, "peak_bytes": epoch.peak_bytes}


CHILDREN: dict[str, Callable[[Path, int, float], dict[str, Any]]] = {
    "pread": read_in_order,
    "single": read_single_rows,
    "ours": shuffle,
}


def main() -> None:
    words = harness.parser(__doc__, rows=ROWS, repeat=3)
    words.add_argument("--memory", type=sizes.parse, default=320 << 20, help="ours [320MiB]")
    words.add_argument("--limit", type=sizes.parse, default=CGROUP_BYTES, help="of the cgroup")
    words.add_argument("--seconds", type=float, default=10, help="time for single rows [10]")
    words.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    words.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.child:
        child = CHILDREN[arguments.child]
        print(json.dumps(child(arguments.file, arguments.memory, arguments.seconds)))
        return
    path = contiguous(arguments.data, arguments.rows)
    with memory_cgroup(arguments.limit) as group:
        if group is None:
            print("skipped: no memory cgroup can be made here; run as root", file=sys.stderr)
            harness.show([], arguments.json)
            return
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CHILDREN}
        for _ in range(arguments.repeat):
            for kind in CHILDREN:
                found[kind].append(
                    in_cgroup(group, kind, path, arguments.memory, arguments.seconds)
                )
    _show(found, arguments)


def _show(found: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    rates = {kind: median(run["rows_per_second"] for run in runs) for kind, runs in found.items()}
    peaks = [run["peak_bytes"] for run in found["ours"] if run["peak_bytes"] is not None]
    figures = [
        harness.Figure(
            what=f"exact shuffle, contiguous, cold, cgroup of {sizes.show(arguments.limit)}",
            rows_per_second=rates["ours"],
            against=against,
            their_rows_per_second=rates[kind],
            goal=goal,
            peak_bytes=max(peaks, default=None),
            memory_bytes=arguments.memory,
        )
        for kind, against, goal in (
            ("pread", "sequential pread", 0.3),
            ("single", f"{RIVAL_THREADS} threads, single rows", 6),
        )
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
