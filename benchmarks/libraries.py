"""PyTables, h5py or a memory map? Size on disk, and rows a second of each library beside ours.

    python benchmarks/libraries.py [--seconds 5]

The images of the other benchmarks, written by each library as its users do, some rows at a time.
Each library reads its own file in order and in random order, 256 rows a batch: for each batch of
random order the rows are sorted, as a careful user does. Random order is timed for some seconds,
where an epoch would take minutes. Ours reads the very same file, exactly shuffled, with a quarter
of the decoded rows in memory. All files are in the page cache.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tables

import epochal
import harness
from epochal import sizes
from epochal.cli.measure import median, run_epochs
from epochal.cli.output import print_json, print_table
from formats import blocks, made

CHUNK_ROWS = 100


@dataclass(frozen=True)
class Kind:
    """A library with a codec: how it writes, and how it opens what is sliced."""

    library: str
    codec: str
    write: Callable[[Path, Path, int], None]
    open: Callable[[Path], Any]
    name: str


@dataclass(frozen=True)
class Found:
    """What was measured of one kind, in rows a second."""

    library: str
    codec: str
    write: float
    stored_bytes: int
    in_order: float
    random: float
    ours_in_order: float
    ours_random: float
    ours_peak_bytes: int | None


def by_tables(complib: str | None, level: int) -> Callable[[Path, Path, int], None]:
    """A CArray."""

    def write(source: Path, path: Path, n_rows: int) -> None:
        filters = tables.Filters(complevel=level, complib=complib) if complib else None
        with tables.open_file(path, "w") as file:
            chunk = (min(CHUNK_ROWS, n_rows), 3072)
            _fill(
                file.create_carray(
                    "/", "X", tables.UInt8Atom(), (n_rows, 3072), filters=filters, chunkshape=chunk
                ),
                source,
            )

    return write


def by_h5py(compression: str | None) -> Callable[[Path, Path, int], None]:
    """A chunked dataset."""

    def write(source: Path, path: Path, n_rows: int) -> None:
        with h5py.File(path, "w") as file:
            chunk = (min(CHUNK_ROWS, n_rows), 3072)
            _fill(
                file.create_dataset(
                    "X", (n_rows, 3072), "u1", chunks=chunk, compression=compression
                ),
                source,
            )

    return write


def by_memmap(source: Path, path: Path, n_rows: int) -> None:
    """A ``.npy`` file."""
    X = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, 3072))
    _fill(X, source)
    X.flush()


def _fill(X: Any, source: Path) -> None:
    at = 0
    for block in blocks(source):
        X[at : at + len(block)] = block
        at += len(block)


class Opened:
    """What is sliced, and what is to be closed."""

    def __init__(self, file: Any, X: Any) -> None:
        self.file, self.X = file, X

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


def open_tables(path: Path) -> Opened:
    """By PyTables."""
    file = tables.open_file(path)
    return Opened(file, file.root.X)


def open_h5py(path: Path) -> Opened:
    """By h5py."""
    file = h5py.File(path)
    return Opened(file, file["X"])


def open_memmap(path: Path) -> Opened:
    """By NumPy."""
    return Opened(None, np.load(path, mmap_mode="r"))


KINDS = (
    Kind("PyTables", "zlib 5", by_tables("zlib", 5), open_tables, "tables-zlib.h5"),
    Kind("PyTables", "Blosc 5 (zstd)", by_tables("blosc:zstd", 5), open_tables, "tables-zstd.h5"),
    Kind("PyTables", "Blosc 5 (LZ4)", by_tables("blosc:lz4", 5), open_tables, "tables-lz4.h5"),
    Kind("h5py", "gzip 4", by_h5py("gzip"), open_h5py, "h5py-gzip.h5"),
    Kind("h5py", "LZF", by_h5py("lzf"), open_h5py, "h5py-lzf.h5"),
    Kind("h5py", "none", by_h5py(None), open_h5py, "h5py-none.h5"),
    Kind("memory map", "none", by_memmap, open_memmap, "memmap.npy"),
)


def in_order(X: Any) -> Iterator[np.ndarray]:
    """Batches of consecutive rows, copied out."""
    for at in range(0, len(X), harness.BATCH_ROWS):
        yield np.array(X[at : at + harness.BATCH_ROWS])


def random(X: Any) -> Iterator[np.ndarray]:
    """Batches of an exact shuffle."""
    order = np.random.default_rng(0).permutation(len(X))
    for at in range(0, len(X), harness.BATCH_ROWS):
        rows = np.sort(order[at : at + harness.BATCH_ROWS])
        yield np.array(X[rows.tolist(), :])  # PyTables takes a list of rows only so


def rate(batches: Iterator[np.ndarray], seconds: float) -> float:
    """Rows a second, for some seconds or to the end."""
    n_rows, started = 0, time.perf_counter()
    for batch in batches:
        n_rows += len(batch)
        if time.perf_counter() - started > seconds:
            break
    return n_rows / (time.perf_counter() - started)


def measured(kind: Kind, arguments: argparse.Namespace) -> Found:
    """One kind, theirs and ours by turns."""
    source = harness.images(arguments.data, arguments.rows)
    path = arguments.data / f"{arguments.rows}-{kind.name}"
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    made(path, lambda passing: kind.write(source, passing, arguments.rows))
    write = arguments.rows / (time.perf_counter() - started)
    theirs: dict[str, list[float]] = {"in order": [], "random": []}
    ours: dict[str, list[Any]] = {"sequential": [], "shuffled_sequential": []}
    memory = max(arguments.rows * 3072 // 4, 16 << 20)
    with epochal.open(path) as ds, closing(kind.open(path)) as opened:
        for _ in range(arguments.repeat):
            theirs["in order"].append(rate(in_order(opened.X), arguments.seconds))
            theirs["random"].append(rate(random(opened.X), arguments.seconds))
            for scheme, runs in ours.items():
                runs += run_epochs(
                    lambda scheme=scheme: ds.batches(scheme, harness.BATCH_ROWS, memory=memory)
                )
    stored = path.stat().st_size
    path.unlink()
    peaks = [run.peak_bytes for runs in ours.values() for run in runs if run.peak_bytes]
    return Found(
        kind.library,
        kind.codec,
        write,
        stored,
        median(theirs["in order"]),
        median(theirs["random"]),
        median(run.rows_per_second for run in ours["sequential"]),
        median(run.rows_per_second for run in ours["shuffled_sequential"]),
        max(peaks, default=None),
    )


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS, repeat=3)
    words.add_argument("--seconds", type=float, default=5, help="time for each run of a peer [5]")
    arguments = words.parse_args()
    found = [measured(kind, arguments) for kind in KINDS]
    if arguments.json:
        print_json([asdict(each) for each in found])
        return
    columns = (
        *("library", "codec", "written, rows/s", "size", "in order", "random"),
        *("epochal, in order", "epochal, random", "random, ratio", "peak"),
    )
    rows = [
        (
            each.library,
            each.codec,
            f"{each.write:,.0f}",
            sizes.show(each.stored_bytes),
            f"{each.in_order:,.0f}",
            f"{each.random:,.0f}",
            f"{each.ours_in_order:,.0f}",
            f"{each.ours_random:,.0f}",
            f"{each.ours_random / each.random:.1f}",
            "" if each.ours_peak_bytes is None else sizes.show(each.ours_peak_bytes),
        )
        for each in found
    ]
    print_table(columns, rows, numbers=tuple(range(2, 10)))


if __name__ == "__main__":
    main()
