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

import epochal
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


READERS = 8
N = 600
ROWS = np.arange(N * 8, dtype="f4").reshape(N, 8)


def hdf5_gzip(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("X", data=ROWS, chunks=(50, 8), compression="gzip", shuffle=True)
    return folder / "a.h5", ("X",)


def pytables_column(folder):
    """A column of a table of PyTables, whose rows h5py writes as PyTables does."""
    table = np.zeros(N, [("number", "<i4"), ("pair", "<f4", (2,))])
    table["number"], table["pair"] = np.arange(N), ROWS[:, :2]
    with h5py.File(folder / "t.h5", "w") as file:
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_("2.1")
        made = file.create_dataset("table", data=table, chunks=(64,), compression="gzip")
        made.attrs["CLASS"] = np.bytes_("TABLE")
    return folder / "t.h5", ("table:pair",)


def numpy_file(folder):
    np.save(folder / "X.npy", ROWS)
    return folder / "X.npy", ("X",)


def zarr_sharded(folder):
    import zarr

    made = zarr.create_array(
        folder / "z", shape=ROWS.shape, dtype="f4", chunks=(20, 8), shards=(100, 8)
    )
    made[...] = ROWS
    return folder / "z", ("z",)


def files_as_one(folder):
    for k, rows in enumerate(np.split(ROWS, [100, 350])):
        with h5py.File(folder / f"part-{k}.h5", "w") as file:
            file.create_dataset("X", data=rows, chunks=(30, 8), compression="lzf")
    return folder / "part-*.h5", ("X",)


def csr_matrix(folder):
    import scipy.sparse

    matrix = scipy.sparse.random_array((N, 90), density=0.1, format="csr", rng=1)
    with h5py.File(folder / "s.h5", "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", matrix.shape
        for part in ("data", "indices", "indptr"):
            data = getattr(matrix, part)
            group.create_dataset(part, data=data, chunks=(500,), compression="gzip")
    return folder / "s.h5", ("X",)


KINDS = [hdf5_gzip, pytables_column, numpy_file, zarr_sharded, files_as_one, csr_matrix]


def digest(dataset, seed):
    """What a reader of a dataset gets: some rows of each source by number, then two epochs."""
    found = []
    rows = np.random.default_rng(seed).integers(0, N, 60)
    for name in dataset.sources:
        found.append(_bytes(dataset[name][rows]))
        found.append(_bytes(dataset[name][...]))
    batches = dataset.batches("shuffled_sequential", 64, seed=seed, memory="4MiB", threads=2)
    found += [_bytes(part) for _ in range(2) for batch in batches for part in batch]
    return found


def _bytes(rows):
    parts = rows if isinstance(rows, tuple) else (rows,)
    return [np.asarray(part).tobytes() for part in parts]


def send_digest(dataset, seed, queue):
    queue.put((seed, digest(dataset, seed)))


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def dataset(request, tmp_path):
    path, sources = request.param(tmp_path)
    with epochal.open(path, sources=sources) as ds:
        yield ds


def test_eight_threads_of_one_dataset(dataset):
    due = [digest(dataset, seed) for seed in range(READERS)]
    with ThreadPoolExecutor(READERS) as pool:
        assert list(pool.map(digest, [dataset] * READERS, range(READERS))) == due


def test_eight_forks_of_one_dataset(dataset):
    """They inherit it, open as it is; the parent goes on reading meanwhile."""
    due = [digest(dataset, seed) for seed in range(READERS)]
    assert in_processes("fork", dataset, range(READERS)) == due
    assert digest(dataset, 0) == due[0]


def in_processes(method, dataset, seeds):
    """Digests of one dataset by one process for each seed, all at once."""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [
        context.Process(target=send_digest, args=(dataset, seed, queue), daemon=True)
        for seed in seeds
    ]
    for worker in workers:
        worker.start()
    mine = digest(dataset, 0)
    found = dict(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)
    assert found[0] == mine
    return [found[seed] for seed in seeds]


def digests(datasets, seed):
    return [digest(each, seed) for each in datasets]


def test_eight_spawned_readers_of_one_dataset(tmp_path, monkeypatch):
    """They get it as a pickle, after the parent has read from it; started once for all kinds."""
    datasets = []
    for make in KINDS:
        folder = tmp_path / make.__name__
        folder.mkdir()
        path, sources = make(folder)
        datasets.append(epochal.open(path, sources=sources))
    due = [digests(datasets, seed) for seed in range(READERS)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    with multiprocessing.get_context("spawn").Pool(READERS) as pool:
        assert pool.starmap(digests, [(datasets, seed) for seed in range(READERS)], 1) == due
    for ds in datasets:
        ds.close()
