"""Batches that functions make larger than their rows."""

import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

import epochal
from epochal.execute.ahead import Ahead, bytes_of
from epochal.ragged import Ragged

MIB = 1 << 20


def ahead_of(*, as_stored=False):
    """Five batches of a megabyte were planned to be made ahead, and three at a time."""
    plan = SimpleNamespace(batches_ahead=5, batch_group=3, batch_bytes=MIB)
    return Ahead(plan, as_stored=as_stored)


def test_one_until_it_is_known():
    ahead = ahead_of()
    assert ahead.most == 1
    ahead.see(np.zeros(MIB, "u1"))
    assert ahead.most == 8


@pytest.mark.parametrize(
    ("n_bytes", "most", "more"),
    [
        (0, 8, 0),
        (1, 8, 0),
        (MIB, 8, 0),
        (2 * MIB, 3, MIB),
        (3 * MIB, 2, 2 * MIB),
        (90 * MIB, 1, 89 * MIB),
    ],
)
def test_as_many_as_there_was_room_for(n_bytes, most, more):
    """Nine of a megabyte: those on their way, and the one in use."""
    ahead = ahead_of()
    assert ahead.see([np.zeros(n_bytes, "u1")]) == more
    assert ahead.most == most
    assert (most + 1) * max(n_bytes, MIB) <= 9 * MIB or most == 1
    ahead.see(np.zeros(1, "u1"))  # the largest one counts
    assert ahead.most == most


def test_rows_as_they_are_stored_need_not_be_seen():
    ahead = ahead_of(as_stored=True)
    assert ahead.most == 8
    assert ahead.see(np.zeros(90 * MIB, "u1")) == 0
    assert ahead.most == 8


def test_bytes_of_whatever_functions_make():
    X = np.zeros((10, 8))
    assert bytes_of(X) == 640
    assert bytes_of({"a": X, "b": (X, [X, None, "text", 3])}) == 3 * 640
    assert bytes_of(Ragged(np.zeros(5), np.zeros(2, "i8"))) == 40 + 16
    sparse = scipy.sparse.csr_array(np.eye(4))
    assert bytes_of(sparse) == sparse.data.nbytes + sparse.indices.nbytes + sparse.indptr.nbytes
    assert bytes_of(None) == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_few_are_held_of_batches_that_grow(threads):
    rows = np.arange(400 * 2048, dtype="u1").reshape(400, 2048)
    alive, most, lock = 0, 0, threading.Lock()

    def gone():
        nonlocal alive
        with lock:
            alive -= 1

    def grow(batch):
        nonlocal alive, most
        made = batch.X.astype("f8")
        weakref.finalize(made, gone)
        with lock:
            alive += 1
            most = max(most, alive)
        return (made,)

    ds = epochal.from_arrays(X=rows).map(grow)
    batches = ds.batches("shuffled_sequential", 10, seed=0, memory="4MiB", threads=threads)
    plan = batches.plan
    assert plan.batches_ahead + plan.batch_group > 4
    for epoch in range(2):
        order = batches.scheme.at(epoch).rows(0, 400)
        got = []
        for (X,) in batches:
            got.append(X.astype("u1"))
            del X  # or it would be one more
        assert (np.concatenate(got) == rows[order]).all()
    # What was planned holds one of eight times the size: one in use, one on its way.
    room = (plan.batches_ahead + plan.batch_group + 1) * plan.batch_bytes
    assert most <= max(3, room // (10 * 2048 * 8))
    assert batches.stats.peak_bytes >= plan.predicted.held_bytes + 7 * 10 * 2048


def test_a_function_that_makes_less_changes_nothing():
    ds = epochal.from_arrays(X=np.zeros((400, 100))).map(lambda batch: len(batch.X))
    batches = ds.batches("sequential", 10, memory="1MiB")
    assert list(batches) == [10] * 40
    assert batches.stats.peak_bytes <= batches.plan.predicted.held_bytes
