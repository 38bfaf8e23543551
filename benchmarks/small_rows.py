"""Exact shuffle of 50,000,000 rows of 16 bytes in 64 MiB: the cost is order and gathering, not
decoding.

python benchmarks/small_rows.py
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

import epochal
import harness
from epochal.cli.measure import median, run_epochs

ROWS = 50_000_000
MEMORY = 64 << 20
GOAL = 2_000_000  # rows a second on two cores
BATCH_ROWS = 4096


def table(folder: Path, n_rows: int) -> Path:
    """``X`` of shape ``(n_rows, 4)``, float32 at three decimal digits' worth of bits, gzip 1, 1 MiB
    a chunk.
    """

    def block(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.round(rng.standard_normal((n, 4), np.float32) * 64) / 64

    def write(file: h5py.File) -> None:
        chunks = (min(1 << 16, n_rows), 4)
        X = file.create_dataset(
            "X", (n_rows, 4), "f4", chunks=chunks, compression="gzip", compression_opts=1
        )
        harness.write_chunks(X, block, level=1)

    return harness.made(folder / f"small-rows-{n_rows}.h5", write)


def main() -> None:
    words = harness.parser(__doc__, rows=ROWS, repeat=3)
    words.add_argument("--scratch", help="folder for scratch files [the system's]")
    arguments = words.parse_args()
    path = table(arguments.data, arguments.rows)
    with epochal.open(str(path)) as ds:
        runs = [
            run_epochs(
                lambda: ds.batches(
                    "shuffled_sequential",
                    batch_size=BATCH_ROWS,
                    seed=0,
                    memory=MEMORY,
                    scratch=arguments.scratch,
                ),
                2,
            )
            for _ in range(arguments.repeat)
        ]
    peak = max(
        (e.peak_bytes for run in runs for e in run if e.peak_bytes is not None), default=None
    )
    figures = [
        harness.Figure(
            what=f"exact shuffle of {arguments.rows:,} rows of 16 bytes, {which} epoch",
            rows_per_second=median(run[number].rows_per_second for run in runs),
            against="what is asked",
            their_rows_per_second=GOAL,
            goal=1,
            peak_bytes=peak,
            memory_bytes=MEMORY,
        )
        for number, which in enumerate(("first", "second"))
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
