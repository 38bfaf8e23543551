"""Writing and reading pieces by one call: whatever the system takes at a time, all arrives."""

import ctypes
import errno
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.errors import ScratchError
from epochal.execute import scratch
from epochal.execute.scratch import ScratchFile
from epochal.execute.vector import read_vector, write_vector
from epochal.stores import many


@pytest.fixture
def file(tmp_path):
    made = ScratchFile(tmp_path)
    yield made
    made.close()


def content(file, at, n_bytes):
    out = np.empty(n_bytes, np.uint8)
    file.read(out, at)
    return out.tobytes()


DATA = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)


@pytest.mark.parametrize("n_pieces", [0, 1, 1023, 1024, 1025, 5000])
def test_any_number_of_pieces(file, n_pieces):
    rng = np.random.default_rng(n_pieces)
    begins = rng.integers(0, 99_000, n_pieces)
    sizes = rng.integers(0, 900, n_pieces)
    head = np.arange(10, dtype=">u4")
    file.append([head])
    at = file.append_pieces([head, head[:0]], DATA, begins, sizes)
    due = b"".join(DATA[b : b + n].tobytes() for b, n in zip(begins, sizes, strict=True))
    assert at == 40
    assert content(file, at, 40 + len(due)) == head.tobytes() + due
    assert file.append([head]) == at + 40 + len(due)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(0, 3))
def test_short_writes_go_on(tmp_path_factory, steps, interrupted):
    """The system may take less than it was given, at any byte, or be interrupted."""
    left = iter(steps)
    failures = iter(range(interrupted))

    def some(fd, vector, at):
        if next(failures, None) is not None:
            raise InterruptedError
        n_bytes = next(left, 1 << 30)
        ends = np.cumsum(vector[:, 1]).astype(np.int64)
        n = int(np.searchsorted(ends, n_bytes, "left")) + 1
        short = vector[:n].copy()
        short[-1, 1] -= np.uint64(max(int(ends[n - 1 if n <= len(ends) else -1]) - n_bytes, 0))
        return write_vector(fd, short, at)

    file = ScratchFile(tmp_path_factory.getbasetemp())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scratch, "write_vector", some)
        begins = np.arange(0, 3000, 100)
        at = file.append_pieces([DATA[:7]], DATA, begins, 60)
    due = DATA[:7].tobytes() + b"".join(DATA[b : b + 60].tobytes() for b in begins)
    assert content(file, at, len(due)) == due
    file.close()


def targets_in(arrays, sizes):
    """A vector of pieces of some arrays, each of which has room at its begin."""
    return np.array([[a.ctypes.data, n] for a, n in zip(arrays, sizes, strict=True)], np.uint64)


@pytest.mark.parametrize("listed", [True, False], ids=["by lists", "one by one"])
@pytest.mark.parametrize("counts", [[1], [3, 1, 40], [1024, 2], [1500, 1, 2500]])
def test_pieces_are_scattered_to_where_they_belong(file, counts, listed, monkeypatch):
    if not listed:
        monkeypatch.setattr(many, "_calls", lambda: None)
    rng = np.random.default_rng(len(counts))
    sizes = rng.integers(1, 60, sum(counts))
    arrays = [np.zeros(60, np.uint8) for _ in sizes]
    begins = np.cumsum([0, *counts])
    due, at = [], []
    for first, last in pairwise(begins.tolist()):
        file.append([DATA[:13]])
        at.append(file.append([DATA[: sizes[first:last].sum()]]))
        cuts = np.cumsum(sizes[first:last])[:-1]
        due += np.split(DATA[: sizes[first:last].sum()], cuts)
    file.read_pieces(np.array(at), np.array(counts), targets_in(arrays, sizes))
    for array, size, want in zip(arrays, sizes, due, strict=True):
        assert array[:size].tobytes() == want.tobytes()
        assert not array[size:].any()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(0, 3))
def test_short_reads_go_on(tmp_path_factory, steps, interrupted):
    """The system may bring less than there was room for, at any byte, or be interrupted."""
    left, failures = iter(steps), iter(range(interrupted))

    def some(fd, vector, at):
        if next(failures, None) is not None:
            raise InterruptedError
        n_bytes = next(left, 1 << 30)
        out = np.empty(min(n_bytes, int(vector[:, 1].sum())), np.uint8)
        n_read = read_vector(fd, np.array([[out.ctypes.data, out.nbytes]], np.uint64), at)
        done = 0
        for address, size in vector.tolist():
            part = out[done : min(done + size, n_read)]
            ctypes.memmove(address, part.ctypes.data, part.nbytes)
            done += part.nbytes
        return n_read

    file = ScratchFile(tmp_path_factory.getbasetemp())
    at = file.append([DATA])
    arrays = [np.zeros(60, np.uint8) for _ in range(30)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(many, "_calls", lambda: None)
        monkeypatch.setattr(scratch, "read_vector", some)
        pieces = targets_in(arrays, [60] * 30)
        file.read_pieces(np.array([at]), np.array([30]), pieces)
    assert np.concatenate(arrays).tobytes() == DATA[: 60 * 30].tobytes()
    file.close()


@pytest.mark.parametrize("listed", [True, False], ids=["by lists", "one by one"])
def test_scratch_that_was_cut_short_is_a_clear_error(file, listed, monkeypatch):
    if not listed:
        monkeypatch.setattr(many, "_calls", lambda: None)
    at = file.append([DATA[:100]])
    array = np.zeros(200, np.uint8)
    with pytest.raises(ScratchError, match="ends at 100 B: it was cut short"):
        file.read_pieces(np.array([at]), np.array([1]), targets_in([array], [200]))


def test_a_full_device_is_a_clear_error(file, monkeypatch):
    def full(fd, vector, at):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch, "write_vector", full)
    with pytest.raises(ScratchError, match="is full after 0 B: free some space"):
        file.append([DATA])


def test_what_the_system_refuses_is_an_error(file):
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_vector(-1, np.array([[DATA.ctypes.data, 1]], np.uint64), 0)
