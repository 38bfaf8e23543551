"""Exact shuffle against h5py's sorted fancy indexing and a torch DataLoader over h5py with two
workers.

    python benchmarks/peers.py [--seconds 10]

An epoch of a peer would take minutes, so each is timed for some seconds of whole batches; the
DataLoader's clock starts when its workers have handed over their first batches.
"""

from __future__ import annotations

import time
from typing import Any

import h5py
import numpy as np

import epochal
import harness
from epochal.cli.demo.rival import fancy_indexing
from epochal.cli.measure import median, run_epochs


class Rows:
    """A torch map-style dataset over h5py: opened in each worker, read a row at a time."""

    def __init__(self, path: str, n_rows: int) -> None:
        self.path, self.n_rows = path, n_rows
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        file = self._open()
        return file["X"][row], int(file["y"][row])

    def _open(self) -> h5py.File:
        if self.file is None:
            self.file = h5py.File(self.path)
        return self.file


class RowsByBatch(Rows):
    """The same, read a batch at a time: what a careful user writes."""

    def __getitems__(self, rows: list[int]) -> list[tuple[np.ndarray, int]]:
        file, rows = self._open(), sorted(rows)
        return list(zip(file["X"][rows], file["y"][rows].tolist(), strict=True))


def data_loader(rows: Rows, seconds: float) -> float:
    """Rows a second of a shuffling DataLoader."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        rows, batch_size=harness.BATCH_ROWS, shuffle=True, num_workers=2, prefetch_factor=2
    )
    batches = iter(loader)
    for _ in range(min(2, len(loader) - 1)):
        next(batches)
    n_rows, started = 0, time.perf_counter()
    for images, _ in batches:
        n_rows += len(images)
        if time.perf_counter() - started > seconds:
            break
    return n_rows / (time.perf_counter() - started)


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS, repeat=3)
    words.add_argument("--seconds", type=float, default=10, help="time for each peer [10]")
    arguments = words.parse_args()
    path = str(harness.images(arguments.data, arguments.rows))
    with epochal.open(path) as ds:
        decoded_bytes = sum(view.layout.decoded_bytes for view in ds.sources.values())
        memory = max(decoded_bytes // 4, 16 << 20)
        runs = [
            run_epochs(
                lambda: ds.batches(
                    "shuffled_sequential", batch_size=harness.BATCH_ROWS, seed=0, memory=memory
                )
            )[0]
            for _ in range(arguments.repeat)
        ]
    peers = {
        "h5py, sorted fancy indexing": fancy_indexing(
            path, ("X", "y"), harness.BATCH_ROWS, arguments.seconds
        ),
        "torch DataLoader, 2 workers, by row": data_loader(
            Rows(path, arguments.rows), arguments.seconds
        ),
        "torch DataLoader, 2 workers, by batch": data_loader(
            RowsByBatch(path, arguments.rows), arguments.seconds
        ),
    }
    figures = [
        harness.Figure(
            what="exact shuffle, first epoch",
            rows_per_second=median(epoch.rows_per_second for epoch in runs),
            against=peer,
            their_rows_per_second=rate,
            goal=50,
            peak_bytes=max((e.peak_bytes for e in runs if e.peak_bytes is not None), default=None),
            memory_bytes=memory,
        )
        for peer, rate in peers.items()
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
