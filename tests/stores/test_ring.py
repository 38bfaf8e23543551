"""Rings of io_uring: what is in the page cache comes, and nothing else is waited for."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from epochal.stores import many, ring

N, ROW = 5000, 600


@pytest.fixture
def mine():
    """A ring of this thread: not one that an earlier test's files made it give up."""
    ring._rings.mine = 0, None
    made = ring.ring_here()
    if made is None:
        pytest.skip("this system gives no rings")
    return made


@pytest.fixture
def file(tmp_path):
    """Rows in a file whose pages are in the page cache, and on the disk."""
    rows = np.random.default_rng(0).integers(0, 256, (N, ROW), np.uint8)
    path = tmp_path / "rows"
    path.write_bytes(rows.tobytes())
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    yield fd, rows
    os.close(fd)


def places_of(out):
    """Where each row of an array lies."""
    return np.uint64(out.ctypes.data) + np.arange(len(out), dtype=np.uint64) * np.uint64(ROW)


def read(made, fd, wanted, shift=0):
    """Rows by a ring: what came, and which of them."""
    out = np.zeros((len(wanted), ROW), np.uint8)
    return out, made.read(fd, np.asarray(wanted) * ROW + shift, places_of(out), ROW)


@pytest.mark.parametrize("flags", [ring.SINGLE_ISSUER | ring.DEFER_TASKRUN, 0])
def test_more_reads_than_there_are_places(file, mine, flags, monkeypatch):
    """Again and again, in numbers that fit no power of two."""
    if not flags:  # as a system older than these flags has it
        monkeypatch.setattr(ring, "SINGLE_ISSUER", 0)
        monkeypatch.setattr(ring, "DEFER_TASKRUN", 0)
        mine = ring.Ring()
    fd, rows = file
    rng = np.random.default_rng(1)
    for n in [1, ring.ENTRIES, 700, 3, 999, ring.ENTRIES, 5, 1023] * 3:
        wanted = rng.integers(0, N, n)
        out, whole = read(mine, fd, wanted)
        assert whole.all()
        assert (out == rows[wanted]).all()
    assert mine.works


@pytest.mark.parametrize("start", [0, 2**32 - 1024, 2**32 - 3, 2**32 - 1, 5000])
def test_places_go_round(start):
    """Counters are 32 bits, and rings have a power of two of places."""
    places = np.arange(4096)[ring._places(start, 5, 4096)]
    assert places.tolist() == [(start + k) % 2**32 % 4096 for k in range(5)]


def test_rows_that_end_early_or_go_nowhere_are_not_whole(file, mine):
    fd, rows = file
    out, whole = read(mine, fd, [0, N - 1, 7, N + 5], shift=1)
    assert whole.tolist() == [True, False, True, False]
    assert (out[2] == np.r_[rows[7, 1:], rows[8, :1]]).all()
    nowhere = np.array([1 << 40], np.uint64)  # is no memory of ours
    assert mine.read(fd, np.array([0]), nowhere, ROW).tolist() == [False]
    assert mine.read(1 << 20, np.array([0]), nowhere, ROW).tolist() == [False]
    out, whole = read(mine, fd, [4])
    assert whole.all()


def test_what_is_not_cached_comes_by_calls_that_wait(file, mine, monkeypatch):
    fd, rows = file
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    wanted = np.arange(0, N, 50)
    _, whole = read(mine, fd, wanted)
    if whole.all():
        pytest.skip("this file system keeps what it is asked to drop")
    out = np.zeros((len(wanted), ROW), np.uint8)
    done = many.submit(fd, wanted * ROW, places_of(out), ROW)
    if many._calls() is None:
        assert done == 0
    else:
        assert done == len(wanted)
        assert (out == rows[wanted]).all()
    assert mine.works


def test_a_ring_that_fails_is_given_up(file, mine, monkeypatch):
    """The system takes none of its reads: rows come by other calls, then and later."""
    fd, rows = file
    made = ring.Ring()
    monkeypatch.setattr(many, "ring_here", lambda: made if made.works else None)
    call = ring._call
    monkeypatch.setattr(
        ring, "_call", lambda number, *rest: -1 if number == 426 else call(number, *rest)
    )
    wanted = np.arange(0, 3000, 2)
    for _ in range(2):
        out = np.zeros((len(wanted), ROW), np.uint8)
        done = many.submit(fd, wanted * ROW, places_of(out), ROW)
        assert done == (len(wanted) if many._calls() else 0)
        assert (out[:done] == rows[wanted[:done]]).all()
        assert not made.works


def test_a_system_that_cannot_read_without_waiting(file, mine):
    """It says so of the first read; the ring is given up."""
    fd, _ = file
    made = ring.Ring()
    made._reads["rw_flags"] = 1 << 31  # no system knows this one
    _, whole = read(made, fd, [1, 2])
    assert not whole.any()
    assert not made.works
    assert mine.works


def test_no_rings_where_the_system_gives_none(monkeypatch):
    monkeypatch.setattr(ring, "_call", lambda *_: -1)
    with pytest.raises(OSError, match="io_uring_setup"):
        ring.Ring()
    ring._allowed.cache_clear()
    found = []
    thread = threading.Thread(target=lambda: found.append(ring.ring_here()))
    thread.start()
    thread.join()
    ring._allowed.cache_clear()
    assert found == [None]


def test_a_thread_and_a_fork_have_rings_of_their_own(file, mine):
    fd, rows = file
    found = []
    thread = threading.Thread(target=lambda: found.append(ring.ring_here()))
    thread.start()
    thread.join()
    assert found[0] is not None
    assert found[0] is not mine
    child = os.fork()
    if not child:
        theirs = ring.ring_here()
        out, whole = read(theirs, fd, [1, 2, 3])
        os._exit(0 if theirs is not mine and whole.all() and (out == rows[1:4]).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    out, whole = read(mine, fd, [5])
    assert whole.all()


def test_rings_are_given_back(mine):
    """With the thread that has them: neither descriptors nor pages are left."""

    def count():
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("io_uring")

    before = count()
    for _ in range(20):
        thread = threading.Thread(target=ring.ring_here)
        thread.start()
        thread.join()
    assert count() == before
