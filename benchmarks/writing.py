"""Writing 100,000 images with gzip against h5py, and the exact shuffle of a 2.4 GB file against cp.

    python benchmarks/writing.py          (the shuffle as root, where a memory cgroup can be made)

Every run is a process of its own. Writers get the images from a ``.npy`` file, 4 MiB at a time, and
leave a file that is on the disk; h5py writes the same dataset, chunks of equally many rows and gzip
of the same level. The shuffle and cp run in a memory cgroup of 512 MB, page cache included, cold,
and bring their file to the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import contiguous
import epochal
import harness
from epochal import sizes
from epochal.cli.measure import median, run_epochs

MEMORY_BYTES = 64 << 20  # of our writer
PEAK_BYTES = 128_000_000  # of the whole process
SHUFFLE_BYTES = 320 << 20
SHUFFLE_ROWS = 200_000
BLOCK_BYTES = 4 << 20


def images(folder: Path, n_rows: int) -> Path:
    """The images of the other benchmarks as a ``.npy`` file."""
    path = folder / f"written-{n_rows}.npy"
    if not path.exists():
        epochal.convert(harness.images(folder, n_rows), path, sources=["X"])
    return path


def blocks(path: Path) -> Iterator[np.ndarray]:
    """Rows in order, some at a time, into the same memory."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        block = np.empty((max(1, BLOCK_BYTES // shape[1]), shape[1]), dtype)
        while n_bytes := file.readinto(block.reshape(-1).data):
            yield block[: n_bytes // shape[1]]


def rows_of(path: Path) -> int:
    """Rows of the file."""
    return len(np.load(path, mmap_mode="r"))


def write_ours(path: Path, out: Path, memory: int) -> int:
    """`epochal.create`."""
    n_rows = rows_of(path)
    with epochal.create(out, {"X": ((3072,), "u1")}, rows=n_rows, memory=memory) as writer:
        for block in blocks(path):
            writer.append(X=block)
    return n_rows


def write_h5py(path: Path, out: Path, memory: int) -> int:
    """The same by h5py, a run of whole chunks at a time."""
    n_rows = rows_of(path)
    chunk = ((1 << 20) // 3072, 3072)
    with h5py.File(out, "w") as file:
        X = file.create_dataset("X", (n_rows, 3072), "u1", chunks=chunk, compression="gzip")
        at, kept = 0, np.empty((0, 3072), np.uint8)
        for block in blocks(path):
            kept = np.concatenate([kept, block])
            whole = len(kept) - len(kept) % chunk[0]
            X[at : at + whole] = kept[:whole]
            at, kept = at + whole, kept[whole:]
        X[at:] = kept
    _sync(out)
    return n_rows


def shuffle_ours(path: Path, out: Path, memory: int) -> int:
    """`epochal.shuffle`, stored as it is."""
    return epochal.shuffle(
        path, out, 0, compression=None, memory=memory, scratch=str(out.parent)
    ).rows


def copy(path: Path, out: Path, memory: int) -> int:
    """``cp``."""
    subprocess.run(["cp", path, out], check=True)
    _sync(out)
    with h5py.File(path) as file:
        return len(file["X"])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


CHILDREN: dict[str, Callable[[Path, Path, int], int]] = {
    "ours": write_ours,
    "h5py": write_h5py,
    "shuffle": shuffle_ours,
    "cp": copy,
}


def child(kind: str, path: Path, out: Path, memory: int) -> dict[str, Any]:
    """Run one, and say how long it took and the most that its process held."""
    started = time.perf_counter()
    n_rows = CHILDREN[kind](path, out, memory)
    return {
        "rows_per_second": n_rows / (time.perf_counter() - started),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def run(kind: str, path: Path, out: Path, memory: int, group: Path | None) -> dict[str, Any]:
    """What a child measured, in the cgroup where there is one; its file is removed."""
    if group is not None:
        harness.drop_pages(path)

    def join() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    words = [sys.executable, __file__, "--child", kind, "--file", str(path), "--out", str(out)]
    done = subprocess.run(
        [*words, "--memory", str(memory)], preexec_fn=join, stdout=subprocess.PIPE, check=True
    )
    out.unlink()
    return dict(json.loads(done.stdout))


def compare(
    kinds: tuple[str, str], path: Path, folder: Path, memory: int, repeat: int, group: Path | None
) -> tuple[float, float, int]:
    """Median rates of the two, by turns, and the peak of the first."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(repeat):
        for kind in kinds:
            found[kind].append(run(kind, path, folder / f"out-{kind}.h5", memory, group))
    ours, theirs = (median(each["rows_per_second"] for each in found[kind]) for kind in kinds)
    return ours, theirs, max(each["peak_bytes"] for each in found[kinds[0]])


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS, repeat=3)
    words.add_argument("--shuffle-rows", type=int, help="of the file that is shuffled [200,000]")
    words.add_argument("--memory", type=sizes.parse, default=MEMORY_BYTES, help="[64MiB]")
    words.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    words.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.file, arguments.out, arguments.memory)))
        return
    folder = arguments.data / f"written-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        harness.show(list(figures(arguments, folder)), arguments.json)
    finally:
        shutil.rmtree(folder)


def figures(arguments: argparse.Namespace, folder: Path) -> Iterator[harness.Figure]:
    """Writing, and shuffling where a cgroup can be made."""
    path = images(arguments.data, arguments.rows)
    ours, theirs, peak = compare(
        ("ours", "h5py"), path, folder, arguments.memory, arguments.repeat, None
    )
    yield harness.Figure(
        what="create, gzip",
        rows_per_second=ours,
        against="h5py, gzip",
        their_rows_per_second=theirs,
        goal=1.7,
        peak_bytes=peak,
        memory_bytes=int((PEAK_BYTES - 16e6) / 1.1),  # `reached` adds this much
    )
    yield reading(arguments, folder, path, "gzip, 1 MiB a chunk", {})
    small = {"compression": "lz4", "chunk_rows": 5}  # where a call a chunk would cost most
    yield reading(arguments, folder, path, "lz4, 15 KiB a chunk", small)
    few = arguments.rows < harness.IMAGE_ROWS
    n_rows = arguments.shuffle_rows or (arguments.rows if few else SHUFFLE_ROWS)
    big = contiguous.contiguous(arguments.data, n_rows)
    with contiguous.memory_cgroup(contiguous.CGROUP_BYTES) as group:
        ours, theirs, peak = compare(
            ("shuffle", "cp"), big, folder, SHUFFLE_BYTES, arguments.repeat, group
        )
    where = "cgroup of 512 MB" if group is not None else "no cgroup"
    yield harness.Figure(
        what=f"shuffle to a file, {sizes.show(n_rows * contiguous.ROW_BYTES)}, {where}",
        rows_per_second=ours,
        against="cp",
        their_rows_per_second=theirs,
        goal=0.25,
        peak_bytes=peak,
    )


def reading(
    arguments: argparse.Namespace, folder: Path, path: Path, what: str, how: dict[str, Any]
) -> harness.Figure:
    """A sequential epoch of a file with checksums, and of the same without, by turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    peak = 0
    for checksum in rates:
        out = folder / f"sums-{checksum}.h5"
        epochal.convert(path, out, checksum=checksum, memory="256MiB", overwrite=True, **how)
    for _ in range(2 * arguments.repeat + 1):
        for checksum, found in rates.items():
            with epochal.open(folder / f"sums-{checksum}.h5") as ds:
                batches = ds.batches("sequential", harness.BATCH_ROWS, memory="64MiB")
                [epoch] = run_epochs(lambda batches=batches: batches)
            found.append(epoch.rows_per_second)
            peak = max(peak, epoch.peak_bytes or 0)
    return harness.Figure(
        what=f"sequential, {what}, each compared with its checksum",
        rows_per_second=median(rates[True]),
        against="the same without checksums",
        their_rows_per_second=median(rates[False]),
        goal=0.98,
        peak_bytes=peak,
        memory_bytes=64 << 20,
    )


if __name__ == "__main__":
    main()
