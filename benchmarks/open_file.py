"""What opening a file of a million chunks costs beside libhdf5's bare walk over its index.

    python benchmarks/open_file.py [--chunks 1000000] [--json]

Both are measured in turn, in one run, on the same warm file: `chunk_iter` with a callback that
does nothing, and `epochal.stores.open_store` until the layout of the source is known. The fastest
of the rounds counts for each.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from epochal.stores import open_store

ROUNDS = 3
CHUNK_ITEMS = 4


def write(path: Path, n_chunks: int) -> None:
    """A file of tiny chunks, without filters: the index is what counts."""
    with h5py.File(path, "w") as file:
        n_items = n_chunks * CHUNK_ITEMS
        dataset = file.create_dataset("X", (n_items,), "u1", chunks=(CHUNK_ITEMS,))
        block = 1 << 20
        for start in range(0, n_items, block):
            stop = min(start + block, n_items)
            dataset[start:stop] = np.arange(start, stop).astype("u1")


def bare(path: Path) -> None:
    """The least that learning where the chunks are can cost."""
    with h5py.File(path, "r", locking=False) as file:
        file["X"].id.chunk_iter(lambda info: None)


def ours(path: Path) -> None:
    """Open, and know the layout."""
    store = open_store(path)
    assert store.sources["X"].layout.stored_bytes > 0
    store.close()


def seconds(call: Callable[[Path], None], path: Path) -> float:
    start = time.perf_counter()
    call(path)
    return time.perf_counter() - start


def index_bytes(path: Path) -> int:
    """What the open store holds: a pickle of it is its index and little else."""
    return len(pickle.dumps(open_store(path), protocol=5))


def measure(path: Path, n_chunks: int) -> dict[str, float]:
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(ROUNDS):
        times["bare"].append(seconds(bare, path))
        times["ours"].append(seconds(ours, path))
    fastest = {name: min(values) for name, values in times.items()}
    return {
        "chunks": n_chunks,
        "chunk_iter_seconds": fastest["bare"],
        "open_seconds": fastest["ours"],
        "ratio": fastest["ours"] / fastest["bare"],
        "index_bytes_per_chunk": index_bytes(path) / n_chunks,
        "file_bytes": os.path.getsize(path),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chunks.h5"
        write(path, arguments.chunks)
        found = measure(path, arguments.chunks)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{found['chunks']:,} chunks")
    print(f"  chunk_iter, empty callback  {found['chunk_iter_seconds']:8.3f} s")
    print(f"  open_store                  {found['open_seconds']:8.3f} s")
    print(f"  ratio                       {found['ratio']:8.2f}     (at most 1.50)")
    held = found["index_bytes_per_chunk"]
    print(f"  index                       {held:8.1f} bytes a chunk (at most 32)")


if __name__ == "__main__":
    main()
