"""Exact shuffle from other formats with a quarter of the decoded rows in memory.

    python benchmarks/formats.py

The images of the other benchmarks, as PyTables writes them with Blosc in its default chunks, as
Zarr with zstd in shards, as one ``.npy``, and as 20 files that are opened as one. Each first
epoch is held against its own two-pass bound: decoding every chunk and writing the decoded bytes to
scratch in order, and reading them back in order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import tables
import zarr

import epochal
import harness
from epochal import limits
from epochal.cli.measure import median, run_epochs
from epochal.stores.ragged import columns_of

FILES = 20
BLOCK_ROWS = 2000


def blocks(source: Path) -> Iterator[np.ndarray]:
    """The images in order, some at a time."""
    with epochal.open(source, sources="X") as ds:
        for batch in ds.batches("sequential", BLOCK_ROWS):
            yield batch.X


def write_pytables(complib: str) -> Callable[[Path, Path, int], None]:
    """A CArray of PyTables, level 5 with shuffle."""

    def write(source: Path, path: Path, n_rows: int) -> None:
        filters = tables.Filters(complevel=5, complib=complib, shuffle=True)
        with tables.open_file(path, "w") as file:
            X = file.create_carray("/", "X", tables.UInt8Atom(), (n_rows, 3072), filters=filters)
            at = 0
            for block in blocks(source):
                X[at : at + len(block)] = block
                at += len(block)

    return write


def write_zarr(source: Path, path: Path, n_rows: int) -> None:
    """Version 3, zstd, chunks of 100 rows in shards of 2,000."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    X = group.create_array(
        "X",
        shape=(n_rows, 3072),
        dtype="u1",
        chunks=(100, 3072),
        shards=(2000, 3072),
        compressors=zarr.codecs.ZstdCodec(level=3),
    )
    at = 0
    for block in blocks(source):
        X[at : at + len(block)] = block
        at += len(block)


def write_npy(source: Path, path: Path, n_rows: int) -> None:
    """One array, as it is."""
    X = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, 3072))
    at = 0
    for block in blocks(source):
        X[at : at + len(block)] = block
        at += len(block)
    X.flush()


def write_npys(source: Path, path: Path, n_rows: int) -> None:
    """A folder of arrays, as they are."""
    path.mkdir()
    each = -(-n_rows // FILES)
    with epochal.open(source, sources="X") as ds:
        for number, batch in enumerate(ds.batches("sequential", each)):
            np.save(path / f"part-{number:02d}.npy", batch.X)


def write_files(source: Path, path: Path, n_rows: int) -> None:
    """A folder of HDF5 files: their chunks are those of the one file."""
    path.mkdir()
    with h5py.File(source) as file:
        X, each = file["X"], -(-n_rows // FILES // 100) * 100
        for number, start in enumerate(range(0, n_rows, each)):
            rows = min(each, n_rows - start)
            chunks = (min(100, rows), 3072)
            with h5py.File(path / f"part-{number}.h5", "w") as part:
                made = part.create_dataset(
                    "X", (rows, 3072), "u1", chunks=chunks, compression="gzip"
                )
                for at in range(0, rows, chunks[0]):
                    stored = X.id.read_direct_chunk((start + at, 0))[1]
                    made.id.write_direct_chunk((at, 0), stored)


KINDS: dict[str, tuple[str, Callable[[Path, Path, int], None]]] = {
    "PyTables, zlib": ("images-{}.pytables-zlib.h5", write_pytables("zlib")),
    "PyTables, Blosc": ("images-{}.pytables.h5", write_pytables("blosc")),
    "Zarr, zstd, sharded": ("images-{}.zarr", write_zarr),
    "npy": ("images-{}.npy", write_npy),
    "20 HDF5 files": ("images-{}-parts", write_files),
    "20 npy files": ("images-{}-npys", write_npys),
}


def made(path: Path, write: Callable[[Path], None]) -> Path:
    """The file or folder at `path`, written first if it is not there; it appears whole."""
    if not path.exists():
        passing = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            write(passing)
            passing.rename(path)
        finally:
            if passing.is_dir():
                shutil.rmtree(passing)
            else:
                passing.unlink(missing_ok=True)
    return path


def figure(what: str, path: Path, repeat: int, scratch: str | None) -> harness.Figure:
    """One format's first epoch against its bound, by turns."""
    with epochal.open(path) as ds:
        (source,) = ds.stored.values()
        stored = columns_of(source)
        memory = max(sum(source.layout.decoded_bytes for source in stored) // 4, 16 << 20)

        def shuffled() -> epochal.Batches:
            return ds.batches(
                "shuffled_sequential", harness.BATCH_ROWS, seed=0, memory=memory, scratch=scratch
            )

        limits.two_pass(stored, harness.THREADS, scratch)
        run_epochs(shuffled)
        bounds, runs = [], []
        for _ in range(repeat):
            bounds.append(limits.two_pass(stored, harness.THREADS, scratch))
            runs += run_epochs(shuffled)
    peaks = [run.peak_bytes for run in runs if run.peak_bytes is not None]
    return harness.Figure(
        what=f"exact shuffle of {what}",
        rows_per_second=median(run.rows_per_second for run in runs),
        against="two-pass bound",
        their_rows_per_second=median(bound.rows_per_second for bound in bounds),
        goal=0.8,
        peak_bytes=max(peaks, default=None),
        memory_bytes=memory,
    )


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS)
    words.add_argument("--scratch", help="folder for scratch files [the system's]")
    words.add_argument("--only", help="of those formats whose name has this in it")
    arguments = words.parse_args()
    source = harness.images(arguments.data, arguments.rows)
    figures = []
    for what, (name, write) in KINDS.items():
        if arguments.only and arguments.only not in what:
            continue
        path = made(
            arguments.data / name.format(arguments.rows),
            lambda path, write=write: write(source, path, arguments.rows),
        )
        figures.append(figure(what, path, arguments.repeat, arguments.scratch))
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
