"""A file that changes in one step: against an array of bytes, and after a kill at each moment."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal.errors import TargetError
from epochal.writing.journal import Journal, journal_of, recover
from epochal.writing.transaction import Transaction, edit_bytes

OLD = bytes(range(256)) * 40  # more than two pages


def begun(folder, content=OLD):
    path = str(folder / "x.bin")
    with open(path, "wb") as file:
        file.write(content)
    return path, Transaction(path)


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 14_000), st.binary(min_size=1, max_size=6000)),
        st.tuples(st.just("truncate"), st.integers(0, 14_000)),
        st.tuples(st.just("read"), st.integers(0, 14_000), st.integers(0, 9000)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("rollback")),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(0, len(OLD)))
def test_equals_an_array_of_bytes(tmp_path_factory, steps, n_old):
    folder = tmp_path_factory.mktemp("t")
    path, transaction = begun(folder, OLD[:n_old])
    now, kept = bytearray(OLD[:n_old]), bytes(OLD[:n_old])
    for step, *facts in steps:
        if step == "write":
            at, data = facts
            now.extend(bytes(max(at + len(data) - len(now), 0)))
            now[at : at + len(data)] = data
            transaction.seek(at)
            assert transaction.write(data) == len(data)
        elif step == "truncate":
            (size,) = facts
            del now[size:]
            now.extend(bytes(size - len(now)))
            transaction.truncate(size)
        elif step == "read":
            at, n = facts
            transaction.seek(at)
            assert transaction.read(n) == now[at : at + n]
        elif step == "commit":
            transaction.commit()
            kept = bytes(now)
            assert content_of(path) == kept
        else:
            transaction.rollback()
            now = bytearray(kept)
        assert transaction.seek(0, os.SEEK_END) == len(now)
        assert content_of(path)[: len(kept)] == kept
    transaction.rollback()
    transaction.close()
    assert content_of(path) == kept
    assert os.listdir(folder) == ["x.bin"]


def test_what_was_not_committed_is_cut_off(tmp_path):
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"new", 5)
    transaction.pwrite(b"behind", len(OLD))
    transaction.close()  # as a kill leaves it
    assert len(content_of(path)) > len(OLD)
    assert recover(path) == "undone"
    assert content_of(path) == OLD
    assert recover(path) is None


def test_a_reader_may_not_mend_what_is_being_written(tmp_path):
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"behind", len(OLD))
    with pytest.raises(TargetError, match="another process is writing it"):
        recover(path)
    transaction.rollback()
    transaction.close()
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_journal_of_another_file_is_not_applied(tmp_path):
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"behind", len(OLD))
    transaction.close()
    with open(path, "wb") as file:
        file.write(b"another, shorter")
    with pytest.raises(TargetError, match=r"another was put in its place. Remove"):
        recover(path)
    assert content_of(path) == b"another, shorter"


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("impostor", [b"short", bytes(40_000)])
def test_no_journal_changes_another_file(tmp_path, monkeypatch, committed, impostor):
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"new", 5)
    transaction.pwrite(b"behind", len(OLD))
    if committed:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "remove", Journal.close)
            transaction.commit()
    transaction.close()
    with open(path, "wb") as file:
        file.write(impostor)
    with pytest.raises(TargetError, match="another was put in its place"):
        recover(path)
    assert content_of(path) == impostor


def test_a_replaced_file_outlives_the_journal_of_the_old_one(tmp_path):
    """A kill while it grew, then another in its place: by `create`, and by another program."""
    path = str(tmp_path / "x.h5")
    small_file(path)
    for by_us in (True, False):
        transaction = Transaction(path)
        transaction.pwrite(bytes(500), os.path.getsize(path))
        transaction.close()
        new = np.arange(5000)
        if by_us:
            with epochal.create(path, {"X": ((), "i8")}, overwrite=True) as writer:
                writer.append(X=new)
            with epochal.open(path) as ds:
                assert np.array_equal(ds["X"][:], new)
        else:
            with h5py.File(tmp_path / "y.h5", "w") as file:
                file["X"] = new
            os.replace(tmp_path / "y.h5", path)
            with pytest.raises(TargetError, match="Remove the journal"):
                epochal.open(path)
            os.unlink(journal_of(path))
            with epochal.open(path) as ds:
                assert np.array_equal(ds["X"][:], new)


def test_a_journal_that_is_gone_when_its_lock_is_had(tmp_path, monkeypatch):
    """Another process mends the file, and a third one changes it, between open and lock."""
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"behind", len(OLD))
    transaction.close()
    real, calls = fcntl.flock, []

    def late(fd, how):
        calls.append(fd)
        if len(calls) == 1:
            assert recover(path) == "undone"
            edit_bytes(path, [(len(OLD), b"of the third")])
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert recover(path) is None
    assert content_of(path) == OLD + b"of the third"


def test_many_open_what_was_killed(tmp_path):
    """None of them fails, since it takes but a moment to mend."""
    path = str(tmp_path / "x.h5")
    small_file(path)
    for _ in range(5):
        transaction = Transaction(path)
        transaction.pwrite(bytes(500), os.path.getsize(path))
        transaction.close()
        pids = []
        for _ in range(6):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    with epochal.open(path) as ds:
                        status = len(ds) != 40
                finally:
                    os._exit(status)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 6


def test_two_that_change_one_file(tmp_path):
    path, first = begun(tmp_path)
    second = Transaction(path)
    first.pwrite(b"behind", len(OLD))
    first.commit()
    with pytest.raises(TargetError, match="has written it meanwhile"):
        second.pwrite(b"also behind", len(OLD))
    second.close()
    first.close()
    assert content_of(path) == OLD + b"behind"


def test_a_file_made_longer_is_cut_again(tmp_path):
    path, transaction = begun(tmp_path)
    transaction.truncate(20_000)
    transaction.close()
    assert recover(path) == "undone"
    assert content_of(path) == OLD


def test_a_commit_that_has_no_room_is_none(tmp_path, monkeypatch):
    path, transaction = begun(tmp_path)
    transaction.pwrite(b"new", 5)
    transaction.pwrite(b"behind", len(OLD))
    real = os.pwrite

    def full(fd, data, at):
        if bytes(data[:8]) == b"commit\0\0":
            raise OSError(28, "No space left on device")
        return real(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TargetError, match="the disk is full"):
            transaction.commit()
    transaction.rollback()
    transaction.close()
    assert content_of(path) == OLD
    assert os.listdir(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("content", [b"", b"epochal jou", b"\0" * 200])
def test_a_torn_journal_was_never_begun(tmp_path, content):
    path, transaction = begun(tmp_path)
    transaction.close()
    with open(journal_of(path), "wb") as file:
        file.write(content)
    assert recover(path) is None
    assert content_of(path) == OLD
    assert os.listdir(tmp_path) == ["x.bin"]


def test_a_limit_of_the_files_size(tmp_path):
    program = (
        "import resource, signal, sys\n"
        "from epochal.errors import TargetError\n"
        "from epochal.writing.transaction import Transaction\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path = sys.argv[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "t = Transaction(path)\n"
        "t.pwrite(b'new', 0)\n"
        "try:\n"
        "    t.pwrite(bytes(30_000), 10_240)\n"
        "    t.commit()\n"
        "except TargetError as error:\n"
        "    print(error)\n"
        "t.rollback()\n"
    )
    path, transaction = begun(tmp_path)
    transaction.close()
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    assert "the limit of a file's size is reached" in done.stdout
    assert content_of(path) == OLD
    assert os.listdir(tmp_path) == ["x.bin"]


def test_edits_of_one_step(tmp_path):
    path, transaction = begun(tmp_path)
    transaction.close()
    edit_bytes(path, [(3, b"abc"), (5000, b"def")])
    due = bytearray(OLD)
    due[3:6], due[5000:5003] = b"abc", b"def"
    assert content_of(path) == due
    assert os.listdir(tmp_path) == ["x.bin"]


# HDF5 -----------------------------------------------------------------------------------------


def small_file(path, rows=40):
    with h5py.File(path, "w") as file:
        for name in ("X", "y"):
            file.create_dataset(
                name, data=np.arange(rows), chunks=(8,), maxshape=(None,), compression="gzip"
            )


def grow(path):
    """More rows, a longer last chunk, and an attribute."""
    transaction = Transaction(path)
    with h5py.File(transaction, "r+") as file:
        for name in ("X", "y"):
            file[name].resize(100, axis=0)
            file[name][40:] = np.arange(40, 100)
            file[name].attrs["grown"] = 60
    transaction.commit()
    transaction.close()


def is_old_or_new(path):
    with h5py.File(path) as file:
        rows = {name: file[name][:].tolist() for name in ("X", "y")}
        grown = ["grown" in file[name].attrs for name in ("X", "y")]
    n = len(rows["X"])
    assert rows == {"X": list(range(n)), "y": list(range(n))}
    assert (n, grown) in [(40, [False] * 2), (100, [True] * 2)]
    return n == 100


def test_hdf5_grows_in_one_step(tmp_path):
    path = str(tmp_path / "x.h5")
    small_file(path)
    before = content_of(path)
    transaction = Transaction(path)
    with h5py.File(transaction, "r+") as file:
        file["X"].resize(100, axis=0)
        file["X"][40:] = np.arange(40, 100)
    assert content_of(path)[: len(before)] == before
    assert not is_old_or_new(path)  # what others see is what was there
    transaction.commit()
    transaction.close()
    with h5py.File(path) as file:
        assert file["X"][:].tolist() == list(range(100))


def dying_at(n, real):
    """A call that is the process's last when it comes for the n-th time."""
    left = [n]

    def call(*args, **kwargs):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("name", ["pwrite", "ftruncate", "fsync", "unlink"])
def test_killed_at_each_of_its_calls(tmp_path, name):
    """In a fork that dies before the n-th call of one kind, for every n there is."""
    path = str(tmp_path / "x.h5")
    outcomes = []
    for n in range(200):
        small_file(path)
        pid = os.fork()
        if pid == 0:
            setattr(os, name, dying_at(n, getattr(os, name)))
            try:
                grow(path)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        recover(path)
        assert os.listdir(tmp_path) == ["x.h5"]
        outcomes.append(is_old_or_new(path))
        if os.WIFEXITED(status):
            break
    assert outcomes[-1]
    assert len(outcomes) > 1
    assert outcomes == sorted(outcomes)  # old up to some call, and new from there on


def test_errors_of_the_disk_reach_the_caller(tmp_path):
    path = str(tmp_path / "x.h5")
    small_file(path)
    before = content_of(path)
    transaction = Transaction(path)
    file = h5py.File(transaction, "r+")
    file["X"].resize(10_000, axis=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
    try:
        # Nothing of h5py raises: libhdf5 would not survive it.
        file["X"][:] = np.random.default_rng(0).integers(0, 1 << 60, 10_000)
        file.flush()
        file.close()
        with pytest.raises(TargetError, match="limit of a file's size"):
            transaction.commit()
        transaction.rollback()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    transaction.close()
    assert content_of(path) == before
    assert os.listdir(tmp_path) == ["x.h5"]
