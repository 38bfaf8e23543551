"""Exact shuffle of rows that all fit the budget, from the second epoch, against `numpy.take` into
fresh batches.

python benchmarks/resident.py
"""

from __future__ import annotations

import time

import epochal
import harness
from epochal import limits
from epochal.cli.measure import PeakMemory, median


def main() -> None:
    arguments = harness.parser(__doc__, rows=harness.IMAGE_ROWS, repeat=7).parse_args()
    path = harness.images(arguments.data, arguments.rows)
    with epochal.open(str(path)) as ds:
        arrays = [ds[name][:] for name in ("X", "y")]
        memory = int(1.5 * sum(array.nbytes for array in arrays)) + (64 << 20)
        meter = PeakMemory()
        batches = ds.batches(
            "shuffled_sequential", batch_size=harness.BATCH_ROWS, seed=0, memory=memory
        )
        for _ in range(2):  # the first epoch decodes, the second is the warm-up of what is measured
            _epoch(batches)
        assert batches.stats.strategy == "resident", batches.stats.strategy
        bounds, ours = [], []
        for seed in range(arguments.repeat):
            bounds.append(limits.take(arrays, harness.BATCH_ROWS, seed).rows_per_second)
            ours.append(_epoch(batches))
        peak = meter.lap()
        batches.close()
    figure = harness.Figure(
        what="exact shuffle, resident, later epochs",
        rows_per_second=median(ours),
        against="np.take into fresh batches",
        their_rows_per_second=median(bounds),
        goal=0.8,
        peak_bytes=peak,
        memory_bytes=memory,
    )
    harness.show([figure], arguments.json)


def _epoch(batches: epochal.Batches) -> float:
    """Rows a second of one epoch whose batches are dropped."""
    n_rows, started = 0, time.perf_counter()
    for batch in batches:
        n_rows += len(batch[0])
    return n_rows / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
