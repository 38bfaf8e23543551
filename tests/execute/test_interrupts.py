"""Ctrl-C anywhere: what comes next is right, whatever was going on."""

import random
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse

import epochal
from epochal.dataset import Dataset
from epochal.errors import ChangedError, ScratchError
from epochal.execute.scratch import ScratchFile
from epochal.plan.machine import Machine, Rates
from epochal.testing.stores import ChunkedArrays, CountingSource, SourceStore

N = 400
X = np.random.default_rng(0).integers(0, 255, (N, 64)).astype("u1")
SPARSE = scipy.sparse.random(N, 50, density=0.3, format="csr", random_state=0, dtype="f4")
SOURCE = str(Path(epochal.__file__).parent)
TRIALS = 18
CASES = {
    "resident": ("dense", "shuffled_sequential", "8MiB"),
    "stream": ("dense", "sequential", "8MiB"),
    "rescan": ("dense", "shuffled_sequential", "1300kB"),
    "spool": ("dense", "shuffled_sequential", "1300kB"),
    "gather": ("plain", "shuffled_sequential", "8MiB"),
    "sparse resident": ("sparse", "shuffled_sequential", "8MiB"),
    "sparse stream": ("sparse", "sequential", "8MiB"),
    "sparse spool": ("sparse", "shuffled_sequential", "2MiB"),
}


class Interrupt(KeyboardInterrupt):
    """That of the test."""


class Interrupter:
    """Raises at the `at`-th call of a function of epochal on this thread: calls are where Python
    looks for signals. Notes which calls come between epochs, or as rows begin to be read.
    """

    def __init__(self, at=0):
        self.at, self.calls, self.between = at, 0, []

    def __call__(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.calls += 1
            if self.calls == self.at:
                sys.settrace(None)
                raise Interrupt
            if not self.at and _is_between(frame):
                self.between.append(self.calls)

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


def _is_between(frame):
    for _ in range(12):
        if frame is None:
            return False
        if frame.f_code.co_name in ("_finish_epoch", "begin", "salvage"):
            return True
        frame = frame.f_back
    return False


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupts")
    for name, chunks in (("dense", (10, 64)), ("plain", None)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            compression = "gzip" if chunks else None
            file.create_dataset("X", data=X, chunks=chunks, compression=compression)
            file.create_dataset("y", data=np.arange(N), chunks=(50,) if chunks else None)
    with h5py.File(folder / "sparse.h5", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = SPARSE.shape
        for name in ("data", "indices"):
            group.create_dataset(name, data=getattr(SPARSE, name), chunks=(200,))
        group["indptr"] = SPARSE.indptr
        file["y"] = np.arange(N)
    return folder


def made(files, case):
    name, scheme, memory = CASES[case]
    ds = epochal.open(files / f"{name}.h5")
    batches = ds.batches(scheme, 37, seed=1, memory=memory, threads=2)
    batches._planner.constrain(strategies=(case.split()[-1],))
    return batches


def check(batches):
    """One epoch, against the order that it is to have."""
    order = [np.arange(N)[batches.scheme.batch(number)] for number in range(len(batches))]
    epoch, seen = batches.epoch, 0
    for rows, batch in zip(order, batches, strict=True):
        assert (batch.y == rows).all(), (epoch, seen)
        if isinstance(batch.X, np.ndarray):
            assert (X[rows] == batch.X).all(), (epoch, seen)
        else:
            wanted = SPARSE[rows]
            assert (batch.X.data == wanted.data).all(), (epoch, seen)
            assert (batch.X.indices == wanted.indices).all(), (epoch, seen)
        seen += 1
    assert seen == len(order)


def run(batches):
    for _ in range(3):
        for _ in batches:
            pass


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_comes_after_an_interrupt_is_right(files, case):
    batches = made(files, case)
    with Interrupter() as whole:
        run(batches)
    assert batches.stats.strategy == case.split()[-1]
    batches.close()
    draw = random.Random(0)
    calls = draw.choices(range(1, whole.calls + 1), k=TRIALS // 3)
    calls += draw.choices(whole.between, k=TRIALS - len(calls))
    interrupted = 0
    for at in calls:
        batches = made(files, case)
        try:
            with Interrupter(at):
                run(batches)
        except Interrupt:
            interrupted += 1
        check(batches)
        check(batches)
        batches.close()
    assert interrupted > TRIALS // 2  # other threads' doings move a few calls


def test_an_epoch_that_is_over_does_not_fail_for_the_next_one(files, tmp_path):
    """The file changes as the last batch is handed over: that is told to whoever wants more."""
    path = tmp_path / "a.h5"
    path.write_bytes((files / "dense.h5").read_bytes())
    batches = epochal.open(path).batches("sequential", 37, memory="1MiB")
    batches._planner.constrain(strategies=("stream",))
    n_rows = 0
    for batch in batches:
        n_rows += len(batch.y)
        if n_rows == N:
            path.write_bytes(path.read_bytes()[:-2000])
    assert (n_rows, batches.epoch) == (N, 1)
    with pytest.raises(ChangedError):
        list(batches)
    with pytest.raises(ChangedError):
        list(batches)


def test_scratch_that_gives_out_between_epochs_is_planned_without(files, monkeypatch):
    batches = made(files, "spool")
    slow = dict.fromkeys(("X", "y"), Rates(decode_bytes_per_s=1e6))
    machine = Machine(threads=2, rates=slow, scratch_free_bytes=1 << 40)
    batches._planner.constrain(strategies=("spool", "rescan"), machine=machine)
    assert batches.plan.strategy == "spool"
    check(batches)
    iteration = iter(batches)
    for _ in range(len(batches)):
        next(iteration)

    def full(self):
        raise ScratchError("scratch is full")

    monkeypatch.setattr(ScratchFile, "restart", full)
    assert next(iteration, None) is None  # the second epoch is over, and was dealt for the third
    assert batches.epoch == 2
    check(batches)
    assert batches.stats.strategy == "rescan"


def test_only_what_rolls_is_dealt_before_it_is_wanted():
    """A second source that is spooled from the file each epoch would deal all of it at the end of
    the last epoch that is wanted.
    """
    rows = np.arange(8000 * 64, dtype="u1").reshape(-1, 64)
    arrays = {"X": (rows, 10), "y": (rows[::-1].copy(), 10)}
    counting = {n: CountingSource(s) for n, s in ChunkedArrays(arrays).sources.items()}
    ds = Dataset(SourceStore(counting), counting)
    # To decode X costs more than to deal it again, to decode y costs nothing.
    rates = {"X": Rates(decode_bytes_per_s=1e5), "y": Rates(decode_bytes_per_s=1e12)}
    machine = Machine(threads=1, rates=rates, scratch_free_bytes=1 << 40)
    batches = ds.batches("shuffled_sequential", 40, seed=1, memory="600KiB", threads=1)
    batches._planner.constrain(strategies=("spool",), machine=machine)
    feeds = batches.plan.feeds
    assert [(feed.kind, feed.roll) for feed in feeds] == [("spool", True), ("spool", False)]
    for _ in range(3):
        iteration = iter(batches)
        for _ in range(len(batches)):
            next(iteration)
        read = sum(counting["y"].chunks.values())
        assert next(iteration, None) is None
        assert sum(counting["y"].chunks.values()) == read
