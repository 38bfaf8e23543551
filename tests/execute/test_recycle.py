"""Memory of batches is used again, and only once nobody looks at it."""

import gc
import threading

import h5py
import numpy as np
import pytest

import epochal
from epochal.execute.recycle import LEAST_BYTES, Recycler

ROWS, ROW_BYTES = 64, 4096
SHAPE = (ROWS, ROW_BYTES)
N_BYTES = ROWS * ROW_BYTES
assert N_BYTES >= LEAST_BYTES


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_was_let_go_of_is_used_again():
    recycler = Recycler(N_BYTES)
    first = recycler.empty(SHAPE, "u1")
    at = address(first)
    assert first.flags.writeable
    assert first.flags.c_contiguous
    assert first.flags.aligned
    del first
    again = recycler.empty((ROWS // 2, ROW_BYTES // 4), ">f8")  # as many bytes, seen otherwise
    assert (address(again), again.dtype, again.shape) == (at, ">f8", (ROWS // 2, ROW_BYTES // 4))


@pytest.mark.parametrize(
    "look",
    [
        lambda array: array[3:5],
        lambda array: array[3:5][:, ::2].T.view("i1"),
        lambda array: memoryview(array)[:2],
        lambda array: np.frombuffer(array, "i4"),
        lambda array: array.view(np.matrix),
        lambda array: np.from_dlpack(array)[1:],
        lambda array: iter(array),
    ],
    ids=["slice", "views of views", "memoryview", "frombuffer", "subclass", "dlpack", "iterator"],
)
def test_whatever_looks_at_it_keeps_it(look):
    recycler = Recycler(10 * N_BYTES)
    array = recycler.empty(SHAPE, "u1")
    at = address(array)
    view = look(array)
    del array
    gc.collect()
    others = [recycler.empty(SHAPE, "u1") for _ in range(3)]
    assert at not in [address(other) for other in others]
    del view
    gc.collect()
    assert address(recycler.empty(SHAPE, "u1")) == at


def test_no_more_lies_idle_than_is_allowed():
    recycler = Recycler(2 * N_BYTES)
    arrays = [recycler.empty(SHAPE, "u1") for _ in range(5)]
    places = {address(array) for array in arrays}
    arrays.clear()
    assert sum(len(idle) for idle in recycler._idle.values()) == 2
    assert {address(array) for idle in recycler._idle.values() for array in idle} < places
    recycler.clear()
    late = recycler.empty(SHAPE, "u1")
    del late
    assert not recycler._idle


def test_arrays_of_many_lengths_share_what_may_lie_idle():
    """Rows of varying length make batches of varying size: of those that do not fit, some go."""
    recycler = Recycler(4 * N_BYTES)

    def idle():
        return sum(memory.nbytes for some in recycler._idle.values() for memory in some)

    for _ in range(3):
        arrays = [recycler.empty((N_BYTES + k * 40_000,), "u1") for k in range(8)]
        in_use = sum(array.nbytes for array in arrays)
        arrays.clear()
        assert N_BYTES < idle() <= 4 * N_BYTES < in_use
    was = idle()
    other = recycler.empty((3 * N_BYTES,), "u1")
    assert idle() <= was - 3 * N_BYTES
    del other
    recycler.keep_idle(N_BYTES)
    assert idle() <= N_BYTES


def test_small_arrays_are_the_c_librarys():
    recycler = Recycler(10 * N_BYTES)
    assert recycler.empty((3,), "u1").flags.owndata
    assert recycler.empty((0, 5), "f8").shape == (0, 5)
    assert Recycler().empty(SHAPE, "u1").flags.owndata


def test_any_thread_may_let_go():
    recycler = Recycler(100 * N_BYTES)
    queue = [recycler.empty(SHAPE, "u1") for _ in range(50)]
    places = {address(array) for array in queue}

    def drop():
        while queue:
            try:
                queue.pop()
            except IndexError:
                return

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = [recycler.empty(SHAPE, "u1") for _ in range(50)]
    assert {address(array) for array in again} == places


@pytest.mark.parametrize("scheme", ["sequential", "shuffled_sequential"])
def test_rows_that_a_user_keeps_stay_as_they_were(tmp_path, scheme):
    rows = np.random.default_rng(0).integers(0, 256, (2000, 4096), np.uint8)
    np.save(tmp_path / "X.npy", rows)
    with epochal.open(tmp_path / "X.npy") as ds:
        batches = ds.batches(scheme, 64, seed=1, memory="4MiB")
        kept = []
        for epoch in range(3):
            for number, (X,) in enumerate(batches):
                if number % 7 == 0:
                    kept.append((X[5:7], X[5:7].copy()))  # a view: the batch itself is dropped
                X = None
            assert batches.epoch == epoch + 1
        batches.close()
    assert len(kept) > 10
    assert all((view == copy).all() for view, copy in kept)


@pytest.mark.parametrize("part", [1, 5, 20])
def test_what_is_given_up_midway_writes_to_nobodys_memory(tmp_path, part):
    """Reads that are under way hold what they write to, whoever lets go of the rest."""
    rows = np.random.default_rng(0).integers(0, 256, (3000, 3000), np.uint8)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file.create_dataset("X", data=rows, chunks=(10, 3000), compression="gzip")
    with epochal.open(tmp_path / "X.h5") as ds:
        for _ in range(8):
            batches = ds.batches("shuffled_sequential", 40, seed=2, memory="4MiB")
            batches._planner.constrain(strategies=("spool",))
            kept = [X for _, (X,) in zip(range(part), batches, strict=False)]
            copies = [X.copy() for X in kept]
            del batches
            others = [np.full(X.shape, 0x5A, np.uint8) for X in kept * 4]
            gc.collect()
            assert all((copy == X).all() for X, copy in zip(kept, copies, strict=True))
            assert all((other == 0x5A).all() for other in others)
