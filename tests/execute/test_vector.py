"""Writing pieces by one call: whatever the system takes of it at a time, all of it arrives."""

import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.errors import ScratchError
from epochal.execute import scratch
from epochal.execute.scratch import ScratchFile
from epochal.execute.vector import write_vector


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
