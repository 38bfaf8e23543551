"""What the benchmarks share: their files, their figures and how those are shown.

Every figure is a ratio to a bound or a peer measured in the same process, by turns with ours, so
that a slow moment of the machine falls on both; medians of several runs; the process's own peak
memory over what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from epochal import sizes
from epochal.cli.output import print_json, print_table

THREADS = len(os.sched_getaffinity(0))
DATA = Path(__file__).parent / "data"
IMAGE_ROWS = 100_000
BATCH_ROWS = 256
LABELS = 10


@dataclass(frozen=True)
class Figure:
    """One line of the table: our rate, what it is held against, and the memory that took.

    ``ratio`` is ours over theirs and is to reach ``goal``; ``peak_bytes`` is to stay within a tenth
    and 16 MB above ``memory_bytes``. What has no such bound leaves it None.
    """

    what: str
    rows_per_second: float
    against: str = ""
    their_rows_per_second: float | None = None
    goal: float | None = None
    peak_bytes: int | None = None
    memory_bytes: int | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        theirs = self.their_rows_per_second
        return self.rows_per_second / theirs if theirs else None

    @property
    def reached(self) -> bool:
        """Whether ratio and peak are what they should be."""
        fast = self.goal is None or (self.ratio or 0) >= self.goal
        if self.peak_bytes is None or self.memory_bytes is None:
            return fast
        return fast and self.peak_bytes <= self.memory_bytes * 1.1 + 16e6


def parser(doc: str | None, *, rows: int, repeat: int = 5) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    words = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    words.add_argument("--rows", type=int, default=rows, help=f"rows of the file [{rows:,}]")
    words.add_argument("--repeat", type=int, default=repeat, help=f"runs of each [{repeat}]")
    words.add_argument("--data", type=Path, default=DATA, help="folder for the files")
    words.add_argument("--json", action="store_true", help="print JSON")
    return words


def show(figures: Sequence[Figure], as_json: bool) -> None:
    """Print the figures, as JSON or as a table."""
    if as_json:
        print_json([asdict(figure) for figure in figures])
        return
    columns = ("what", "rows/s", "against", "its rows/s", "ratio", "at least", "peak", "memory", "")
    print_table(columns, [cells(figure) for figure in figures], numbers=(1, 3, 4, 5, 6, 7))


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the cells of a table."""
    theirs, ratio = figure.their_rows_per_second, figure.ratio
    return (
        figure.what,
        f"{figure.rows_per_second:,.0f}",
        figure.against,
        "" if theirs is None else f"{theirs:,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if figure.goal is None else f"{figure.goal:g}",
        "" if figure.peak_bytes is None else sizes.show(figure.peak_bytes),
        "" if figure.memory_bytes is None else sizes.show(figure.memory_bytes),
        "yes" if figure.reached else "NO",
    )


def figures_of(text: str) -> list[Figure]:
    """Figures from what a benchmark printed as JSON."""
    return [Figure(**facts) for facts in json.loads(text)]


def images(folder: Path, n_rows: int = IMAGE_ROWS) -> Path:
    """``X`` of shape ``(n_rows, 3072)``, uint8, gzip 4, 100 rows a chunk, and ``y``, int64, gzip.

    A row is a 32x32 colour image: a smooth random field (5x5 random colours, bilinear) with the
    noise of a camera, kept at five bits a colour. It compresses to 0.56, about as photographs at
    that depth do.
    """
    path = folder / f"images-{n_rows}.h5"

    def write(file: h5py.File) -> None:
        chunks = (min(100, n_rows), 3072)
        X = file.create_dataset("X", (n_rows, 3072), "u1", chunks=chunks, compression="gzip")
        write_chunks(X, lambda rng, n: image_rows(rng, n))
        y = np.random.default_rng(0).integers(0, LABELS, n_rows)
        file.create_dataset("y", data=y, chunks=(min(8192, n_rows),), compression="gzip")

    return made(path, write)


def made(path: Path, write: Callable[[h5py.File], None]) -> Path:
    """The file at `path`, written first if it is not there; it appears whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        passing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with h5py.File(passing, "w") as file:
                write(file)
            passing.replace(path)
        finally:
            passing.unlink(missing_ok=True)
    return path


def drop_pages(path: Path) -> None:
    """Make the file cold: its pages leave the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write_chunks(
    dataset: h5py.Dataset, block: Callable[[np.random.Generator, int], np.ndarray], level: int = 4
) -> None:
    """Fill a gzip dataset with a block of rows a chunk, compressed on all threads."""
    chunk_rows, n_rows = dataset.chunks[0], len(dataset)

    def compress(start: int) -> tuple[int, bytes]:
        rows = block(np.random.default_rng((1, start)), min(chunk_rows, n_rows - start))
        whole = np.zeros(dataset.chunks, dataset.dtype)
        whole[: len(rows)] = rows
        return start, zlib.compress(whole.tobytes(), level)

    def written(starts: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[tuple[int, bytes]]:
        for group in range(0, len(starts), 256):  # no more than this many in memory
            yield from pool.map(compress, starts[group : group + 256])

    with ThreadPoolExecutor(THREADS) as pool:
        for start, stored in written(range(0, n_rows, chunk_rows), pool):
            dataset.id.write_direct_chunk((start,) + (0,) * (dataset.ndim - 1), stored)


def image_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Some of the images, ``(n, 3072)``."""
    at = np.linspace(0, 4, 32, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(5, dtype=np.float32)))  # (32, 5)
    field = weights @ rng.random((n, 3, 5, 5), np.float32) @ weights.T  # (n, colour, height, width)
    pixels = 240 * field.transpose(0, 2, 3, 1) + rng.integers(0, 8, (n, 32, 32, 3), np.uint8)
    return pixels.astype(np.uint8).reshape(n, -1) // 8 * 8
