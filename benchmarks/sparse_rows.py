"""Exact shuffle of a sparse matrix shaped like single-cell counts, a quarter of it in memory.

    python benchmarks/sparse_rows.py

The file is as AnnData writes it: `X` is CSR, 200,000 x 20,000, 5 % full, float32 and int32, gzip,
in the chunks that h5py guesses. The first epoch is held against decoding every chunk, writing the
decoded bytes to scratch in order and reading them back in order, and against AnnData's own indexing
of rows in random order, in backed mode, of which some batches are timed.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import anndata
import h5py
import numpy as np

import epochal
import harness
from epochal import limits
from epochal.cli.measure import median, run_epochs
from epochal.stores.ragged import columns_of

GENES = 20_000
FULL = 0.05
BLOCK_ROWS = 2_000


def cells(folder: Path, n_rows: int) -> Path:
    """The matrix, and an empty `obs` and `var`, as ``.h5ad``."""
    return harness.made(folder / f"cells-{n_rows}.h5ad", lambda file: _write(file, n_rows))


def _write(file: h5py.File, n_rows: int) -> None:
    lengths = np.random.default_rng(0).integers(GENES // 40, GENES * 3 // 40 + 1, n_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    X = file.create_group("X")
    X.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    X.attrs["shape"] = (n_rows, GENES)
    X["indptr"] = offsets
    n_items = int(offsets[-1])
    for number, (name, dtype) in enumerate((("data", "f4"), ("indices", "i4"))):
        made = X.create_dataset(
            name, (n_items,), dtype, chunks=True, maxshape=(None,), compression="gzip"
        )
        _fill(made, (block[number] for block in _blocks(lengths)))
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for axis, n in (("obs", n_rows), ("var", GENES)):
        frame = file.create_group(axis)
        frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
        frame.attrs.update({"_index": "_index", "column-order": np.array([], "S1")})
        names = frame.create_dataset("_index", data=[str(k) for k in range(n)])
        names.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    for group in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        made = file.create_group(group)
        made.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _blocks(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Counts, mostly small, and ascending distinct genes, of some rows at a time."""
    for start in range(0, len(lengths), BLOCK_ROWS):
        rng = np.random.default_rng((1, start))
        some = lengths[start : start + BLOCK_ROWS]
        counts = rng.geometric(0.6, int(some.sum())).astype("f4")
        rows = [np.flatnonzero(rng.random(GENES, np.float32) < n / GENES)[:n] for n in some]
        rows = [row if len(row) == n else np.arange(n) for row, n in zip(rows, some, strict=True)]
        yield counts, np.concatenate(rows).astype("i4")


def _fill(dataset: h5py.Dataset, blocks: Iterator[np.ndarray]) -> None:
    """Write chunks that are compressed on all threads."""
    chunk = dataset.chunks[0]
    rest, at = np.empty(0, dataset.dtype), 0
    with ThreadPoolExecutor(harness.THREADS) as pool:
        for block in blocks:
            rest = np.concatenate([rest, block])
            whole = len(rest) // chunk
            parts: Sequence[np.ndarray] = np.split(rest[: whole * chunk], whole) if whole else []
            for stored in pool.map(lambda part: zlib.compress(part.tobytes(), 4), parts):
                dataset.id.write_direct_chunk((at,), stored)
                at += chunk
            rest = rest[whole * chunk :]
    if len(rest):
        last = np.zeros(chunk, dataset.dtype)
        last[: len(rest)] = rest
        dataset.id.write_direct_chunk((at,), zlib.compress(last.tobytes(), 4))


def their_seconds_a_row(path: Path, batches: int) -> float:
    """AnnData's backed mode, rows in random order, batch by batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backed = anndata.read_h5ad(path, backed="r")
        order = np.random.default_rng(0).permutation(backed.n_obs)
        started = time.perf_counter()
        for start in range(0, batches * harness.BATCH_ROWS, harness.BATCH_ROWS):
            backed.X[np.sort(order[start : start + harness.BATCH_ROWS])]
        seconds = time.perf_counter() - started
        backed.file.close()
    return seconds / (batches * harness.BATCH_ROWS)


def main() -> None:
    words = harness.parser(__doc__, rows=200_000, repeat=3)
    words.add_argument("--scratch", help="folder for scratch files [the system's]")
    words.add_argument("--their-batches", type=int, default=4, help="batches of AnnData's [4]")
    arguments = words.parse_args()
    path = cells(arguments.data, arguments.rows)
    with epochal.open(path, sources="X") as ds:
        stored = columns_of(ds.stored["X"])
        memory = max(sum(source.layout.decoded_bytes for source in stored) // 4, 16 << 20)

        def shuffled() -> epochal.Batches:
            return ds.batches(
                "shuffled_sequential",
                batch_size=harness.BATCH_ROWS,
                seed=0,
                memory=memory,
                scratch=arguments.scratch,
            )

        def bound() -> limits.Limit:
            found = limits.two_pass(stored, harness.THREADS, arguments.scratch)
            return replace(found, n_rows=len(ds))

        bound()
        bounds, runs = [], []
        for _ in range(arguments.repeat):
            bounds.append(bound())
            runs += run_epochs(shuffled)
    theirs = 1 / their_seconds_a_row(path, arguments.their_batches)
    ours = median(run.rows_per_second for run in runs)
    peak = max((run.peak_bytes for run in runs if run.peak_bytes is not None), default=None)
    figures = [
        harness.Figure(
            what="exact shuffle of sparse rows",
            rows_per_second=ours,
            against=against,
            their_rows_per_second=rate,
            goal=goal,
            peak_bytes=peak,
            memory_bytes=memory,
        )
        for against, rate, goal in (
            ("two-pass bound", median(b.rows_per_second for b in bounds), 0.7),
            ("AnnData backed, rows in random order", theirs, 20),
        )
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
