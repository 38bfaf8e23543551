"""Stores in threads, forks and other processes; files that change under them."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hdf5_files import read_all, read_chunks, read_rows

from epochal.errors import ChangedError, FileMissingError, FormatError, RowError
from epochal.stores import open_store

N_ROWS = 2000


def expected(name):
    return np.arange(N_ROWS * 8, dtype="f4").reshape(N_ROWS, 8) + ord(name[0])


@pytest.fixture
def path(tmp_path):
    """One dataset of each kind of source."""
    path = tmp_path / "kinds.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "chunked", data=expected("chunked"), chunks=(50, 8), compression="gzip", shuffle=True
        )
        file.create_dataset("pieces", data=expected("pieces"), chunks=(50, 3), compression="lzf")
        file.create_dataset("apart", data=expected("apart"), chunks=(50, 8))
        file.create_dataset("linear", data=expected("linear"))
        file.create_dataset(
            "library", data=expected("library").astype("i4"), chunks=(50, 8), scaleoffset=0
        )
    return path


def check(store):
    for name, source in store.sources.items():
        assert (read_all(source) == expected(name)).all(), name
    return True


def test_a_pickle_reads_the_same(path):
    store = open_store(path)
    check(store)
    copy = pickle.loads(pickle.dumps(store))
    store.close()
    check(copy)
    source = pickle.loads(pickle.dumps(copy.sources["chunked"]))
    copy.close()
    assert (read_all(source) == expected("chunked")).all()


def test_eight_threads(path):
    """Each reads parts of every source, again and again."""
    store = open_store(path)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            name = str(rng.choice(list(store.sources)))
            source, start = store.sources[name], int(rng.integers(40))
            chunk = source.layout.chunk_rows
            stop = min(start + 1 + int(rng.integers(3)), source.layout.n_chunks)
            start = min(start, stop)
            rows = slice(start * chunk, stop * chunk)
            assert (read_chunks(source, start, stop) == expected(name)[rows]).all()
            if source.layout.rows_alone:
                some = rng.integers(0, N_ROWS, 50)
                assert (read_rows(source, some) == expected(name)[some]).all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    store.close()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes(path, method, monkeypatch):
    """Workers of every start method, after the parent has read; a fork inherits what is open."""
    store = open_store(path)
    check(store)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(check, [store] * 4) == [True] * 4
    check(store)
    store.close()


def test_a_bare_fork_reads_what_its_parent_opened(path):
    """No pickle between them; the parent reads meanwhile, so a shared position would show."""
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
import warnings
from test_processes import check
from epochal.stores import open_store
store = open_store(sys.argv[2])
check(store)
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            check(store)
        os._exit(0)
    children.append(pid)
for _ in range(5):
    check(store)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""
    subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__), path], check=True, timeout=60
    )


def touch(path):
    later = time.time_ns() + 10_000_000_000
    os.utime(path, ns=(later, later))


NAMES = ["chunked", "pieces", "apart", "linear", "library"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_written_to_is_noticed(path, name):
    store = open_store(path)
    source = store.sources[name]
    read_chunks(source, 0, 1)
    touch(path)
    with pytest.raises(
        ChangedError,
        match=r"kinds\.h5 is no longer the file .*: it was written to\. .*Open it again",
    ):
        read_chunks(source, 0, 1)
    if source.layout.rows_alone:
        with pytest.raises(ChangedError, match="it was written to"):
            read_rows(source, [1])
    store.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_grew_is_noticed(path, name):
    source = open_store(path).sources[name]
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(ChangedError, match=r"it had \d+ bytes, now it has \d+"):
        read_chunks(source, 0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_another_file_in_its_place_is_noticed(path, tmp_path, name):
    store = open_store(path)
    content = path.read_bytes()
    (tmp_path / "other").write_bytes(content)
    os.replace(tmp_path / "other", path)
    copy = pickle.loads(pickle.dumps(store.sources[name]))
    with pytest.raises(ChangedError, match="another file was put in its place"):
        read_chunks(copy, 0, 1)


def test_a_file_deleted_before_it_is_reopened(path):
    copy = pickle.loads(pickle.dumps(open_store(path)))
    path.unlink()
    with pytest.raises(FileMissingError, match="there is no such file"):
        read_chunks(copy.sources["chunked"], 0, 1)


def test_a_closed_store_is_not_read(path):
    store = open_store(path)
    read_all(store.sources["chunked"])
    store.close()
    store.close()
    with pytest.raises(FormatError, match="a store that was closed; open the file again"):
        read_chunks(store.sources["chunked"], 0, 1)


def test_no_descriptor_is_left_behind(path):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        store = open_store(path)
        check(store)
        store.close()
        check(open_store(path))
    del store
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("name", ["apart", "linear"])
@pytest.mark.parametrize("row", [-1, N_ROWS])
def test_rows_that_are_not_there(path, name, row):
    source = open_store(path).sources[name]
    with pytest.raises(
        RowError, match=rf"asked for row {row} of '{name}', which has rows 0 to {N_ROWS - 1}"
    ):
        read_rows(source, [0, row])
