"""Exact shuffle of a cold `.npy` of 1.2 GB that the budget does not hold, but the page cache does.

    python benchmarks/cold.py

The first epoch is held against one sequential pread of the file, its pages dropped beforehand, too;
later ones against `numpy.memmap`, whose rows the page cache has, indexed batch by batch.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import numpy as np

import epochal
import harness
from epochal import sizes
from epochal.cli.measure import median, run_epochs

ROWS = 400_000
ROW_SHAPE = (32, 32, 3)
MEMORY_BYTES = 300 << 20


def plain(folder: Path, n_rows: int) -> Path:
    """Noise, ``(n_rows, 32, 32, 3)``, uint8."""
    path = folder / f"plain-{n_rows}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with epochal.create(path, {"X": (ROW_SHAPE, "u1")}, rows=n_rows) as writer:
            for start in range(0, n_rows, 10_000):
                shape = (min(10_000, n_rows - start), *ROW_SHAPE)
                writer.append(X=np.random.default_rng(start).integers(0, 256, shape, np.uint8))
    return path


def read_in_order(path: Path, n_rows: int) -> float:
    """Rows a second of one pread after the other, 1 MiB each."""
    buffer, offset = np.ones(1 << 20, np.uint8), 0
    descriptor = os.open(path, os.O_RDONLY)
    started = time.perf_counter()
    while n_bytes := os.preadv(descriptor, [buffer], offset):
        offset += n_bytes
    seconds = time.perf_counter() - started
    os.close(descriptor)
    return n_rows / seconds


def index_memmap(path: Path, seed: int) -> float:
    """Rows a second of batches in random order."""
    rows = np.load(path, mmap_mode="r")
    order = np.random.default_rng(seed).permutation(len(rows))
    started = time.perf_counter()
    for start in range(0, len(rows), harness.BATCH_ROWS):
        rows[order[start : start + harness.BATCH_ROWS]]
    return len(rows) / (time.perf_counter() - started)


def main() -> None:
    arguments = harness.parser(__doc__, rows=ROWS).parse_args()
    path = plain(arguments.data, arguments.rows)
    if sizes.free_memory() < 2 * path.stat().st_size + MEMORY_BYTES:
        raise SystemExit(f"there is no memory for {path} in the page cache: give fewer --rows")
    in_order, memmap, first, later = [], [], [], []
    for seed in range(arguments.repeat):
        harness.drop_pages(path)
        in_order.append(read_in_order(path, arguments.rows))
        harness.drop_pages(path)
        with epochal.open(str(path)) as ds:
            epochs = run_epochs(
                partial(
                    ds.batches,
                    "shuffled_sequential",
                    harness.BATCH_ROWS,
                    seed=seed,
                    memory=MEMORY_BYTES,
                ),
                3,
            )
        first.append(epochs[0])
        later += epochs[1:]
        memmap.append(index_memmap(path, seed))
    figures = [
        harness.Figure(
            what=f"exact shuffle of a cold npy, {what}",
            rows_per_second=median(epoch.rows_per_second for epoch in epochs),
            against=against,
            their_rows_per_second=median(theirs),
            peak_bytes=max(
                (e.peak_bytes for e in epochs if e.peak_bytes is not None), default=None
            ),
            memory_bytes=MEMORY_BYTES,
        )
        for what, epochs, against, theirs in (
            ("first epoch", first, "sequential pread, cold", in_order),
            ("later epochs", later, "numpy.memmap, batch by batch, warm", memmap),
        )
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
