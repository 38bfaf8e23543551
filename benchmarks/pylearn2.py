"""What Pylearn2's page says crashed: 4 GB written at once, SVHN made, random order of its file.

    python benchmarks/pylearn2.py          (as root, where a memory cgroup can be made)

`fill_hdf5` gets 4 GB in one call, in a memory cgroup of 512 MB, page cache included: a view of a
``.npy`` file. `SVHN` is made of originals of the true numbers of examples (73,257, 26,032 and
531,131; their images are those of the other benchmarks), each set in a process of its own. The
largest set is then shuffled with a quarter of its decoded rows in memory, against its two-pass
bound.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import contiguous
import harness
from epochal import limits, sizes
from epochal.cli.measure import median, run_epochs
from epochal.cli.output import print_json, print_table
from epochal.datasets import SVHN, DenseDesignMatrixPyTables
from epochal.datasets.svhn_making import SETS, file_of, make
from epochal.opening import open_dataset
from epochal.stores.ragged import columns_of

EXAMPLES = {"train": 73_257, "test": 26_032, "extra": 531_131}
FILL_ROWS = 4_000_000_000 // 3072
PEAK_BYTES = 400_000_000
BLOCK_ROWS = 4096


def original(path: Path, n: int) -> Path:
    """A MATLAB file of version 5, compressed, as those of the Street View House Numbers are."""
    if path.exists():
        return path
    passing = path.with_name(f".{path.name}.tmp")
    labels = np.random.default_rng(7).permutation(np.arange(n) % 10 + 1).astype(np.uint8)
    with open(passing, "wb") as file:
        file.write(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM")
        _variable(file, b"X", (32, 32, 3, n), images(n))
        _variable(file, b"y", (n, 1), iter([labels]))
    passing.rename(path)
    return path


def images(n: int) -> Iterator[np.ndarray]:
    """Examples in MATLAB's order: columns, rows and channels of one after another."""
    for start in range(0, n, BLOCK_ROWS):
        rows = harness.image_rows(np.random.default_rng((1, start)), min(BLOCK_ROWS, n - start))
        yield rows.reshape(-1, 32, 32, 3).transpose(0, 3, 2, 1)


def _variable(
    file: BinaryIO, name: bytes, shape: tuple[int, ...], data: Iterator[np.ndarray]
) -> None:
    n_bytes = int(np.prod(shape))
    padding = -n_bytes % 8
    dims = struct.pack(f"<{len(shape)}i", *shape)
    dims += b"\0" * (-len(dims) % 8)
    head = struct.pack("<IIII", 6, 8, 9, 0)  # array flags: uint8
    head += struct.pack("<II", 5, 4 * len(shape)) + dims
    head += struct.pack("<HH4s", 1, len(name), name)  # a small element
    head += struct.pack("<II", 2, n_bytes)
    squeeze = zlib.compressobj(1)
    begin = file.tell()
    file.write(struct.pack("<II", 15, 0))
    whole = len(head) + n_bytes + padding
    file.write(squeeze.compress(struct.pack("<II", 14, whole) + head))
    for block in data:
        file.write(squeeze.compress(block.tobytes()))
    file.write(squeeze.compress(b"\0" * padding) + squeeze.flush())
    end = file.tell()
    file.seek(begin)
    file.write(struct.pack("<II", 15, end - begin - 8))
    file.seek(end)


def rows_file(folder: Path, n_rows: int) -> Path:
    """Rows to be written, as ``.npy``."""
    path = folder / f"rows-{n_rows}.npy"
    if not path.exists():
        out = np.lib.format.open_memmap(path, "w+", np.uint8, (n_rows, 3072))
        for start in range(0, n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n_rows)
            out[start:stop] = harness.image_rows(np.random.default_rng((1, start)), stop - start)
    return path


def fill(source: str, out: str) -> int:
    """One call."""
    with open_dataset(source) as there:
        (data,) = there.sources.values()
        file, _ = DenseDesignMatrixPyTables.init_hdf5(out, (data.shape,), x_dtype="uint8")
        DenseDesignMatrixPyTables.fill_hdf5(file, data)
        file.close()
        return len(data)


def svhn(which: str, folder: str) -> int:
    """A set."""
    make(which, folder)
    with SVHN(which, folder) as ds:
        return len(ds)


CHILDREN: dict[str, Callable[[str, str], int]] = {"fill": fill, "svhn": svhn}


def run(kind: str, first: str, second: str, group: Path | None = None) -> dict[str, Any]:
    """What a child measured."""

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    words = [sys.executable, __file__, "--child", kind, first, second]
    done = subprocess.run(words, preexec_fn=join, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def child(kind: str, first: str, second: str) -> dict[str, Any]:
    """Run one, and say how long it took and the most that its process held."""
    started = time.perf_counter()
    n_rows = CHILDREN[kind](first, second)
    return {
        "rows": n_rows,
        "seconds": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def shuffled(path: Path, repeat: int) -> dict[str, Any]:
    """The exact shuffle of a file of PyTables against its two-pass bound, by turns."""
    with open_dataset(path, sources=["Data/X"]) as ds:
        stored = columns_of(*ds.stored.values())
        memory = max(stored[0].layout.decoded_bytes // 4, 16 << 20)

        def batches() -> Any:
            return ds.batches("shuffled_sequential", harness.BATCH_ROWS, seed=0, memory=memory)

        limits.two_pass(stored, harness.THREADS, None)
        run_epochs(batches)
        bounds, runs = [], []
        for _ in range(repeat):
            bounds.append(limits.two_pass(stored, harness.THREADS, None).rows_per_second)
            runs += run_epochs(batches)
    rate = median(each.rows_per_second for each in runs)
    return {
        "rows": len(ds),
        "rows_per_second": rate,
        "ratio": rate / median(bounds),
        "peak_bytes": max((each.peak_bytes for each in runs if each.peak_bytes), default=None),
        "memory_bytes": memory,
    }


def main() -> None:
    words = harness.parser(__doc__, rows=FILL_ROWS, repeat=3)
    words.add_argument("--part", type=float, default=1, help="of SVHN's examples [1]")
    words.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child)))
        return
    folder = arguments.data / f"svhn-{arguments.part:g}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in EXAMPLES.items():
        original(folder / f"{name}_32x32.mat", max(4500, round(n * arguments.part)))
    out = folder / "filled.h5"
    source = rows_file(folder, arguments.rows)
    found = {}
    with contiguous.memory_cgroup(contiguous.CGROUP_BYTES) as group:
        found[f"fill_hdf5, {sizes.show(arguments.rows * 3072)}, one call"] = {
            **run("fill", str(source), str(out), group),
            "goal_bytes": 512_000_000 if group else None,
        }
    out.unlink()
    for which in SETS:
        Path(file_of(which, folder)).unlink(missing_ok=True)
        found[f"SVHN {which}"] = {**run("svhn", which, str(folder)), "goal_bytes": PEAK_BYTES}
    order = shuffled(Path(file_of("train_all", folder)), arguments.repeat)
    if arguments.json:
        print_json({**found, "exact shuffle of SVHN train_all": order})
        return
    rows = [
        (
            what,
            f"{each['rows']:,}",
            f"{each['seconds']:.1f}",
            sizes.show(each["peak_bytes"]),
            sizes.show(each["goal_bytes"]) if each["goal_bytes"] else "no cgroup",
        )
        for what, each in found.items()
    ]
    columns = ("what", "rows", "seconds", "peak of the process", "at most")
    print_table(columns, rows, numbers=(1, 2, 3, 4))
    print(
        f"exact shuffle of SVHN train_all: {order['rows_per_second']:,.0f} rows/s, "
        f"{order['ratio']:.2f} of its two-pass bound (at least 0.8), "
        f"peak {sizes.show(order['peak_bytes'] or 0)} of {sizes.show(order['memory_bytes'])}"
    )


if __name__ == "__main__":
    main()
