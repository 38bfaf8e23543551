"""What `explain()` predicts beside what is measured, for every strategy, in a first and a later
epoch.

    python benchmarks/explain.py

Bytes read and chunks decoded are to be exact; seconds, and seconds to the first batch, within a
factor of two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import epochal
import harness
from epochal.cli.output import print_json, print_table

ROWS = 50_000
FACTOR = 2


@dataclass(frozen=True)
class Case:
    """A file and arguments for which a strategy is to be chosen."""

    strategy: str
    path: Path
    scheme: str
    memory_share: float
    scratch: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """One epoch: predicted and measured."""

    strategy: str
    epoch: str
    read_bytes: tuple[int, int]
    chunks_decoded: tuple[int, int]
    seconds: tuple[float, float]
    first_batch_seconds: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether what is to be exact is."""
        pairs = (self.read_bytes, self.chunks_decoded)
        return all(predicted == measured for predicted, measured in pairs)

    @property
    def near(self) -> bool:
        """Whether seconds are within the factor."""
        pairs = (self.seconds, self.first_batch_seconds)
        return all(1 / FACTOR <= ratio(pair) <= FACTOR for pair in pairs)


def ratio(pair: tuple[float, float]) -> float:
    """Measured over predicted."""
    return pair[1] / max(pair[0], 1e-9)


def plain(folder: Path, n_rows: int) -> Path:
    """The same shape without chunks."""

    def write(file: h5py.File) -> None:
        X = file.create_dataset("X", (n_rows, 3072), "u1")
        for start in range(0, n_rows, 8192):
            n = min(8192, n_rows - start)
            X[start : start + n] = np.random.default_rng(start).integers(0, 256, (n, 3072), "u1")

    return harness.made(folder / f"plain-{n_rows}.h5", write)


def cases(folder: Path, n_rows: int) -> Iterator[Case]:
    """One for each strategy."""
    chunked = harness.images(folder, n_rows)
    yield Case("stream", chunked, "sequential", 0.5)
    yield Case("resident", chunked, "shuffled_sequential", 1.5)
    yield Case("spool", chunked, "shuffled_sequential", 0.25)
    yield Case("rescan", chunked, "shuffled_sequential", 0.5, scratch=False)
    yield Case("gather", plain(folder, n_rows), "shuffled_sequential", 0.25)


def compare(case: Case) -> list[Comparison]:
    """Run a case for two epochs."""
    with epochal.open(str(case.path)) as ds:
        decoded_bytes = sum(view.layout.decoded_bytes for view in ds.sources.values())
        batches = ds.batches(
            case.scheme,
            batch_size=harness.BATCH_ROWS,
            seed=0,
            memory=max(int(case.memory_share * decoded_bytes), 48 << 20),
            scratch=case.scratch,
        )
        # A strategy that users would not get: each is measured.
        batches._planner.constrain(strategies=(case.strategy,))
        found = []
        for epoch in ("first", "later"):
            for _ in batches:
                pass
            found.append(_comparison(epoch, batches.explain()))
        batches.close()
    return found


def _comparison(epoch: str, report: Any) -> Comparison:
    told, seen = report.predicted, report.measured
    return Comparison(
        report.plan.strategy,
        epoch,
        (told.read_bytes, seen.read_bytes),
        (told.chunks_decoded, seen.chunks_decoded),
        (told.seconds, seen.seconds),
        (told.first_batch_seconds, seen.first_batch_seconds),
    )


def _row(asked: str, found: Comparison) -> tuple[str, ...]:
    return (
        asked,
        found.strategy,
        found.epoch,
        *(f"{n:,}" for pair in (found.read_bytes, found.chunks_decoded) for n in pair),
        "yes" if found.exact else "NO",
        *(f"{n:.3g}" for n in found.seconds),
        f"{ratio(found.seconds):.2f}",
        *(f"{n:.3g}" for n in found.first_batch_seconds),
        f"{ratio(found.first_batch_seconds):.2f}",
        "yes" if found.near else "NO",
    )


COLUMNS = ("asked", "ran", "epoch", "read", "was", "chunks", "was", "exact")
COLUMNS += ("seconds", "was", "ratio", "first batch", "was", "ratio", "within 2x")


def main() -> None:
    words = harness.parser(__doc__, rows=ROWS, repeat=3)
    words.add_argument("--only", help=argparse.SUPPRESS)
    arguments = words.parse_args()
    found = [
        (case.strategy, comparison)
        for case in cases(arguments.data, arguments.rows)
        if arguments.only in (None, case.strategy)
        for _ in range(arguments.repeat)
        for comparison in compare(case)
    ]
    if arguments.json:
        print_json([{"asked": asked, **asdict(comparison)} for asked, comparison in found])
    else:
        print_table(COLUMNS, [_row(*each) for each in found], numbers=range(3, len(COLUMNS)))
    if not all(comparison.exact for _, comparison in found):
        sys.exit("explain is not exact")


if __name__ == "__main__":
    main()
