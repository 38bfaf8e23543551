"""Writers killed by SIGKILL: what is at their final name is whole, and a second run cleans up.

    python tests/crash/kills.py --moments 200

kills each of them at so many random moments. The tests (`test_kills.py`) do so at a few, and at
every call of the system by which a small run changes a file. Every run is a fork, so that no
interpreter has to start.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import zarr

import epochal
from epochal import schemes
from epochal.writing import target

# What changes files, of all that the writers call: HDF5's own writes come by `os.pwrite`, too.
CALLS = (
    *("pwrite", "write", "fsync", "fdatasync", "ftruncate", "truncate", "unlink", "remove"),
    *("rename", "replace", "mkdir", "rmdir", "open"),
)
FLAVOURS = {"hdf5": "out.h5", "pytables": "out.h5", "zarr": "out.zarr", "npy": "out"}
SEED = 7


@dataclass
class Size:
    """Of a run: rows, and how many at a time."""

    rows: int
    chunk_rows: int
    step: int


SMALL, LARGE = Size(60, 16, 25), Size(40_000, 512, 3000)


def rows_from(first: int, last: int) -> dict[str, np.ndarray]:
    at = np.arange(first, last)
    return {"X": (at[:, None] * 7 + np.arange(20)).astype("<i4"), "y": at}


SOURCES = {"X": ((20,), "<i4"), "y": ((), "i8")}


@dataclass
class Case:
    """Something that is killed.

    `prepare` makes what is there before; `run` is killed; `look` gives how many rows there are, and
    raises where they are wrong; `again` is the second run, after which all is there and nothing
    else.
    """

    name: str
    prepare: Callable[[Path, Size], None]
    run: Callable[[Path, Size], None]
    look: Callable[[Path, Size], None]
    again: Callable[[Path, Size], None]
    left: tuple[str, ...]


def check(path: Path, counts: tuple[int, ...], order: np.ndarray | None = None) -> int:
    """All sources have one of these numbers of rows, the right ones, as epochal reads them."""
    with epochal.open(path) as ds:
        n = len(ds)
        assert n in counts, f"{n} rows where {counts} may be"
        wanted = rows_from(0, n)
        for name, rows in wanted.items():
            due = rows if order is None else rows[order]
            assert np.array_equal(ds[name][:], due), f"{name} has wrong rows"
    assert epochal.verify(path).ok
    return n


def by_others(path: Path) -> None:
    """Other programs read it as well."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            assert len(file["X"][:]) == len(file["y"][:])
    elif path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        assert len(group["X"][:]) == len(group["y"][:])


def creating(flavour: str) -> Case:
    name = FLAVOURS[flavour]

    def run(folder: Path, size: Size, *, overwrite: bool = False) -> None:
        how = {"flavour": flavour, "chunk_rows": size.chunk_rows, "overwrite": overwrite}
        with epochal.create(folder / name, SOURCES, **how) as writer:
            for at in range(0, size.rows, size.step):
                writer.append(rows_from(at, min(at + size.step, size.rows)))

    def look(folder: Path, size: Size) -> None:
        if (folder / name).exists():
            check(folder / name, (size.rows,))
            by_others(folder / name)

    return Case(
        f"create {flavour}",
        lambda folder, size: None,
        run,
        look,
        lambda folder, size: run(folder, size, overwrite=True),
        (name,),
    )


def replacing(flavour: str) -> Case:
    """Over a file that is there: old or new."""
    case = creating(flavour)
    name = FLAVOURS[flavour]

    def prepare(folder: Path, size: Size) -> None:
        with epochal.create(folder / name, SOURCES, flavour=flavour) as writer:
            writer.append(rows_from(0, 5))

    def look(folder: Path, size: Size) -> None:
        check(folder / name, (5, size.rows))

    return Case(f"replace {flavour}", prepare, case.again, look, case.again, (name,))


def source(folder: Path, size: Size) -> None:
    """What is converted and shuffled."""
    with epochal.create(folder / "src.h5", SOURCES, chunk_rows=size.chunk_rows) as writer:
        writer.append(rows_from(0, size.rows))


def converting(verb: str, flavour: str) -> Case:
    name = FLAVOURS[flavour]

    def run(folder: Path, size: Size, **how: bool) -> None:
        act = getattr(epochal, verb)
        more = {"seed": SEED} if verb == "shuffle" else {}
        act(folder / "src.h5", folder / name, flavour=flavour, **more, **how)

    def look(folder: Path, size: Size) -> None:
        if (folder / name).exists():
            order = None
            if verb == "shuffle":
                made = schemes.make(
                    "shuffled_sequential", size.rows, batch_size=size.rows, seed=SEED, epoch=0
                )
                order = made.batch(0)
            check(folder / name, (size.rows,), order)
            by_others(folder / name)

    def again(folder: Path, size: Size) -> None:
        run(folder, size, resume=True, overwrite=True)

    return Case(f"{verb} {flavour}", source, run, look, again, ("src.h5", name))


def appending(flavour: str) -> Case:
    name = FLAVOURS[flavour]

    def prepare(folder: Path, size: Size) -> None:
        how = {"flavour": flavour, "chunk_rows": size.chunk_rows}
        with epochal.create(folder / name, SOURCES, **how) as writer:
            writer.append(rows_from(0, size.rows // 2 + 1))

    def run(folder: Path, size: Size) -> None:
        with epochal.append(folder / name) as writer:
            while writer.rows < size.rows:
                stop = min(writer.rows + size.step, size.rows)
                writer.append(rows_from(writer.rows, stop))

    def look(folder: Path, size: Size) -> None:
        check(folder / name, (size.rows // 2 + 1, size.rows))
        by_others(folder / name)

    return Case(f"append {flavour}", prepare, run, look, run, (name,))


def editing(flavour: str) -> Case:
    name = FLAVOURS[flavour]

    def prepare(folder: Path, size: Size) -> None:
        how = {"flavour": flavour, "chunk_rows": size.chunk_rows}
        with epochal.create(folder / name, SOURCES, **how) as writer:
            writer.append(rows_from(0, size.rows))

    def run(folder: Path, size: Size) -> None:
        rows = rows_from(0, size.rows)
        with epochal.open(folder / name, mode="r+") as ds:
            ds["X"][:] = -rows["X"]
            ds["X"][3 : size.rows // 3] = rows["X"][3 : size.rows // 3]

    def look(folder: Path, size: Size) -> None:
        rows = rows_from(0, size.rows)["X"]
        with epochal.open(folder / name) as ds:
            found = ds["X"][:]
            chunk_rows = ds["X"].layout.chunk_rows
        assert np.array_equal(np.abs(found), rows)
        signs = np.sign(found[:, 1])
        edges = {3, size.rows // 3, *range(0, size.rows, chunk_rows)}
        changes = np.flatnonzero(np.diff(signs)) + 1
        assert set(changes.tolist()) <= edges, "a chunk is neither old nor new"
        assert epochal.verify(folder / name).ok

    return Case(f"edit {flavour}", prepare, run, look, run, (name,))


def cases() -> list[Case]:
    """Every writer, of every flavour that it has."""
    return [
        *(creating(flavour) for flavour in FLAVOURS),
        *(replacing(flavour) for flavour in FLAVOURS),
        *(converting("convert", flavour) for flavour in FLAVOURS),
        *(converting("shuffle", flavour) for flavour in ("hdf5", "npy")),
        *(appending(flavour) for flavour in FLAVOURS if flavour != "pytables"),
        *(editing(flavour) for flavour in FLAVOURS),
    ]


def counted(n: int) -> None:
    """Let this process die before the n-th call that changes a file."""
    left = [n]

    def dying(real: Callable) -> Callable:
        def call(*args, **kwargs):
            changes = real is not os_open or (len(args) > 1 and args[1] & os.O_CREAT)
            if changes:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return real(*args, **kwargs)

        return call

    os_open = os.open
    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
    target._renameat2 = dying(target._renameat2)


def forked(work: Callable[[], None]) -> int:
    """Run in a fork; its process number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        work()
        os._exit(0)
    finally:
        os._exit(1)


def ended(pid: int) -> bool:
    """Wait; whether it came to its end by itself, and well."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, "the run failed by itself"
    return True


def after_a_kill(case: Case, folder: Path, size: Size) -> None:
    """What is there is right; a second run makes it whole and leaves nothing else."""
    case.look(folder, size)
    case.again(folder, size)
    case.look(folder, size)
    there = {name for name in os.listdir(folder) if not name.endswith(".epochal-sums")}
    assert there == set(case.left), f"left over: {there - set(case.left)}"


def at_each_call(case: Case, folder: Path, *, step: int = 1) -> int:
    """Kill small runs before their first, second, ... call; how many there were."""
    for n in range(0, 100_000, step):
        place = folder / str(n)
        place.mkdir()
        case.prepare(place, SMALL)

        def work(place: Path = place, n: int = n) -> None:
            counted(n)
            case.run(place, SMALL)

        done = ended(forked(work))
        after_a_kill(case, place, SMALL)
        shutil.rmtree(place)
        if done:
            return n
    raise AssertionError("it never came to its end")


def whole_run(case: Case, folder: Path) -> float:
    """How long a run takes that is not killed."""
    place = folder / "whole"
    place.mkdir()
    case.prepare(place, LARGE)
    began = time.perf_counter()
    assert ended(forked(lambda: case.run(place, LARGE)))
    seconds = time.perf_counter() - began
    shutil.rmtree(place)
    return seconds


def at_moments(case: Case, folder: Path, moments: int, rng: np.random.Generator) -> int:
    """Kill larger runs at random moments, until so many were still running; how many were begun."""
    seconds = min(whole_run(case, folder) for _ in range(3))
    killed, n = 0, 0
    while killed < moments:
        n += 1
        place = folder / str(n)
        place.mkdir()
        case.prepare(place, LARGE)
        pid = forked(lambda place=place: case.run(place, LARGE))
        time.sleep(float(rng.random()) * seconds)
        os.kill(pid, signal.SIGKILL)
        killed += not ended(pid)
        after_a_kill(case, place, LARGE)
        shutil.rmtree(place)
    return n


def told(moments: int, only: str) -> Iterator[str]:
    """Kill all, and say so."""
    rng = np.random.default_rng(0)
    for case in cases():
        if only in case.name:
            with tempfile.TemporaryDirectory() as folder:
                begun = at_moments(case, Path(folder), moments, rng)
                yield f"{case.name}: {moments} of {begun} runs killed, 0 wrong, 0 left over"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--moments", type=int, default=200, help="kills of each [200]")
    words.add_argument("--only", default="", help="cases whose name has this")
    arguments = words.parse_args()
    for line in told(arguments.moments, arguments.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
