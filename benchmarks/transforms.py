"""Fits of transforms: against decoding the file once, and against NumPy on the array in memory.

    python benchmarks/transforms.py

`Standardize` is fitted to the compressed images; `ZCA` to float32 rows of the same width, in a
process of its own whose whole peak is shown, against ``np.cov`` and ``eigh`` of the array in
memory (which needs several times its bytes). The last line writes a transformed file with two Dask
workers of one thread each, against one. ``--only accuracy`` says how right a deviation is of
numbers far from zero.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.linalg

import epochal
import harness
from epochal import limits
from epochal.cli.measure import PeakMemory, median
from epochal.cli.output import print_json, say
from epochal.transforms import ZCA, Pipeline, Standardize

ZCA_BYTES = 600_000_000
ZCA_MEMORY = "96MiB"
SECONDS_GOAL = 1 / 1.3
WIDTH = 3072


def floats(folder: Path, n_rows: int, width: int) -> Path:
    """``X`` of shape ``(n_rows, 3072)``, float32, contiguous: the images of the other
    benchmarks.
    """
    path = folder / f"floats-{n_rows}x{width}.h5"

    def write(file: h5py.File) -> None:
        X = file.create_dataset("X", (n_rows, width), "f4")
        for start in range(0, n_rows, 4096):
            stop = min(start + 4096, n_rows)
            rng = np.random.default_rng((1, start))
            rows = harness.image_rows(rng, stop - start)[:, :width]
            X[start:stop] = rows.astype(np.float32)

    return harness.made(path, write)


def zca(path: str) -> None:
    """Ours."""
    with epochal.open(path) as ds:
        ZCA().fit(ds, memory=ZCA_MEMORY)


def cov(path: str) -> Callable[[], None]:
    """NumPy's and SciPy's, once the array is there."""
    with h5py.File(path) as file:
        X = file["X"][:]

    def run() -> None:
        values, vectors = scipy.linalg.eigh(np.cov(X, rowvar=False) + 0.1 * np.eye(X.shape[1]))
        (vectors / np.sqrt(values)) @ vectors.T

    return run


def child(kind: str, path: str) -> dict[str, float]:
    """Run one, and say how long it took and the most that its process held."""
    run = cov(path) if kind == "cov" else lambda: zca(path)
    started = time.perf_counter()
    run()
    return {
        "seconds": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_child(kind: str, path: Path) -> dict[str, float]:
    """The same in a process of its own."""
    words = [sys.executable, __file__, "--child", kind, str(path)]
    return dict(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout))


def standardize(arguments: argparse.Namespace) -> harness.Figure:
    """A fit against decoding all chunks, by turns."""
    with epochal.open(str(harness.images(arguments.data, arguments.rows)), sources=["X"]) as ds:
        stored = list(ds.stored.values())
        memory = max(stored[0].layout.decoded_bytes // 4, 16 << 20)

        def fit() -> float:
            started = time.perf_counter()
            Standardize().fit(ds, memory=memory)
            return len(ds) / (time.perf_counter() - started)

        limits.decode_all(stored, harness.THREADS)
        fit()
        bounds, rates, peaks = [], [], []
        for _ in range(arguments.repeat):
            bounds.append(limits.decode_all(stored, harness.THREADS).rows_per_second)
            meter = PeakMemory()
            rates.append(fit())
            peaks.append(meter.lap())
        return harness.Figure(
            what="Standardize, fit",
            rows_per_second=median(rates),
            against="read + decode, all cores",
            their_rows_per_second=median(bounds),
            goal=0.8,
            peak_bytes=max((each for each in peaks if each is not None), default=None),
            memory_bytes=memory,
        )


def whitening(arguments: argparse.Namespace) -> harness.Figure:
    """A fit of `ZCA`, by turns with NumPy's."""
    path = floats(arguments.data, arguments.rows, arguments.width)
    ours, theirs = [], []
    for _ in range(max(1, arguments.repeat // 2)):
        theirs.append(in_child("cov", path))
        ours.append(in_child("zca", path))
    return harness.Figure(
        what="ZCA, fit, float32",
        rows_per_second=arguments.rows / median(each["seconds"] for each in ours),
        against="np.cov + eigh in memory",
        their_rows_per_second=arguments.rows / median(each["seconds"] for each in theirs),
        goal=SECONDS_GOAL,
        peak_bytes=int(max(each["peak_bytes"] for each in ours)),
        memory_bytes=ZCA_BYTES,
    )


def on_dask(arguments: argparse.Namespace) -> harness.Figure:
    """A transformed copy of the compressed images, by two workers and by one."""
    from distributed import Client, LocalCluster

    path = harness.images(arguments.data, arguments.rows)
    target = arguments.data / "transformed.h5"
    rates: dict[int, list[float]] = {1: [], 2: []}
    with epochal.open(str(path), sources=["X"]) as ds:
        pipe = Pipeline([Standardize()]).fit(ds)
        for n_workers in rates:
            how = {"threads_per_worker": 1, "processes": True, "dashboard_address": None}
            with LocalCluster(n_workers=n_workers, **how) as cluster, Client(cluster) as client:
                for _ in range(max(1, arguments.repeat // 2) + 1):
                    started = time.perf_counter()
                    epochal.convert(ds.transform(pipe), target, overwrite=True, client=client)
                    rates[n_workers].append(len(ds) / (time.perf_counter() - started))
    target.unlink()
    return harness.Figure(
        what="convert, transformed, 2 Dask workers",
        rows_per_second=median(rates[2][1:]),
        against="1 worker",
        their_rows_per_second=median(rates[1][1:]),
        goal=1.5,
    )


def accuracy(arguments: argparse.Namespace) -> None:
    """How wrong the deviation of float32 numbers about 1e8 is, 100 times as many as other rows,
    against NumPy's in float64 about the mean.
    """
    rng = np.random.default_rng(0)
    numbers = (1e8 + rng.standard_normal((100 * arguments.rows, 1))).astype(np.float32)
    found = Standardize().fit(epochal.from_arrays(X=numbers)).std_[0]
    wrong_by = float(abs(found / np.std(numbers.astype(np.float64) - 1e8) - 1))
    if arguments.json:
        print_json([{"numbers": len(numbers), "wrong_by": wrong_by, "goal": 1e-6}])
    else:
        say(f"std of {len(numbers):,} numbers about 1e8: wrong by {wrong_by:.1e}, at most 1e-06")


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS)
    words.add_argument("--width", type=int, default=WIDTH, help=f"of ZCA's rows [{WIDTH}]")
    words.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    words.add_argument("--only", choices=("standardize", "zca", "dask", "accuracy"))
    arguments = words.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child)))
        return
    if arguments.only == "accuracy":
        accuracy(arguments)
        return
    parts = {"standardize": standardize, "zca": whitening, "dask": on_dask}
    chosen = [arguments.only] if arguments.only else list(parts)
    harness.show([parts[each](arguments) for each in chosen], arguments.json)


if __name__ == "__main__":
    main()
