"""What reading by URL asks of a server: few requests to open, each stored byte once to read."""

from itertools import pairwise

import h5py
import numpy as np
import pytest

import epochal
from epochal.stores import open_store, remote_http
from epochal.stores.remote_cache import BLOCK_BYTES, Cached, Looked
from epochal.stores.waiting import together

N_CHUNKS = 2000
RNG = np.random.default_rng(0)

# How libhdf5 finds chunks: by a B-tree of version 1, a fixed array, an extensible array, another
# B-tree. The most requests that opening may take (those for the nodes of a B-tree of version 1 are
# under way at once), and the most of the file.
INDEXES = {
    "btree1": ({"libver": "earliest"}, {}, 40, 0.15),
    "fixed": ({"libver": "latest"}, {}, 2, 0.05),
    "extensible": ({"libver": "latest"}, {"maxshape": (None, 4096)}, 24, 0.2),
    "btree2": ({"libver": "latest"}, {"maxshape": (None, None)}, 40, 0.35),
}


@pytest.fixture(scope="module", params=INDEXES)
def chunky(request, tmp_path_factory):
    """Kind of index, and an HDF5 file of 2,000 chunks that do not compress."""
    path = tmp_path_factory.mktemp("chunky") / "a.h5"
    file_how, how, *_ = INDEXES[request.param]
    X = RNG.integers(0, 256, (N_CHUNKS, 4096), "u1")
    with h5py.File(path, "w", **file_how) as file:
        made = file.create_dataset(
            "X", X.shape, "u1", chunks=(1, 4096), compression="gzip", compression_opts=1, **how
        )
        for row in range(0, N_CHUNKS, 100):
            made[row : row + 100] = X[row : row + 100]
    return request.param, path


def measure(ds):
    """Have the first look at how quick the server is, which reads a few chunks more, over."""
    for _ in ds.batches("sequential", batch_size=100):
        pass


def asked_of(server):
    """The spans that were asked for, in order of the file."""
    return sorted((request.start, request.stop) for request in server.asked())


def test_opening_takes_few_requests_and_little_of_the_file(server, chunky):
    index, path = chunky
    server.files["/a.h5"] = path
    store = open_store(f"{server.url}/a.h5")
    *_, most_requests, most = INDEXES[index]
    assert len(server.requests) <= most_requests
    assert server.bytes_sent <= most * path.stat().st_size
    store.close()


@pytest.mark.parametrize("chunky", ["btree1"], indirect=True)
def test_nodes_of_the_index_are_fetched_at_once(server, chunky):
    """One after another they would take as many round trips."""
    _, path = chunky
    server.files["/a.h5"] = path
    server.latency = 0.02
    open_store(f"{server.url}/a.h5").close()
    assert server.most_at_once >= 8


def test_a_sequential_epoch_fetches_what_is_stored_once(server, chunky):
    _, path = chunky
    server.files["/a.h5"] = path
    with epochal.open(f"{server.url}/a.h5") as ds:
        measure(ds)
        server.asked()
        for _ in ds.batches("sequential", batch_size=100):
            pass
        stored = ds["X"].layout.stored_bytes
        assert stored <= server.bytes_sent <= 1.1 * stored
        spans = asked_of(server)
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))


def test_a_shuffled_epoch_fetches_what_is_stored_about_once(server, chunky):
    """With memory for all of it, in whatever order."""
    _, path = chunky
    server.files["/a.h5"] = path
    with epochal.open(f"{server.url}/a.h5") as ds:
        measure(ds)
        server.asked()
        for _ in ds.batches("shuffled_sequential", batch_size=100, seed=0, memory="256MiB"):
            pass
        assert server.bytes_sent <= 1.1 * ds["X"].layout.stored_bytes


def test_no_request_is_longer_than_may_be(server, chunky, monkeypatch):
    monkeypatch.setattr(remote_http.HttpReader, "request_bytes", 10_000)
    _, path = chunky
    server.files["/a.h5"] = path
    source = open_store(f"{server.url}/a.h5").sources["X"]
    server.asked()
    out = np.empty((300, 4096), "u1")
    source.read(0, 300, out)
    assert max(request.stop - request.start for request in server.requests) == 10_000
    with h5py.File(path) as file:
        assert (out == file["X"][:300]).all()


@pytest.mark.parametrize("n_bytes", [1 << 10, 4 << 20])
def test_npy_takes_one_request_to_open(server, tmp_path, n_bytes):
    """It is not searched for the signature of HDF5, which may lie anywhere."""
    np.save(tmp_path / "X.npy", np.zeros((n_bytes // 64, 64), "u1"))
    server.files["/X.npy"] = tmp_path / "X.npy"
    open_store(f"{server.url}/X.npy").close()
    assert len(server.requests) == 1


def test_an_archive_takes_few_requests_to_open(server, tmp_path):
    """Its list of members lies at its end, and is looked at for more than one format."""
    np.savez(tmp_path / "a.npz", X=np.zeros((60_000, 64), "u1"), y=np.zeros(60_000))
    server.files["/a.npz"] = tmp_path / "a.npz"
    open_store(f"{server.url}/a.npz").close()
    assert len(server.requests) <= 4
    assert server.bytes_sent < 1 << 20


def test_contiguous_rows_are_fetched_alone(server, tmp_path):
    np.save(tmp_path / "X.npy", np.arange(4_000_000, dtype="u4").reshape(-1, 4000))
    server.files["/X.npy"] = tmp_path / "X.npy"
    with epochal.open(f"{server.url}/X.npy") as ds:
        server.asked()
        assert (ds["X"][[5, 900]][:, 0] == [20_000, 3_600_000]).all()
        assert server.bytes_sent == 2 * 16_000


class Bytes:
    """Bytes as a file that notes what is asked of it."""

    name = "bytes"
    in_flight, copy_bytes = 4, 0

    def __init__(self, data):
        self.data, self.size_bytes, self.spans = data, len(data), []

    def checked(self):
        def read(parts, offset):
            at = offset
            for part in parts:
                some = self.data[at : at + len(part)]
                part[: len(some)] = some
                at += len(some)
            self.spans.append((offset, at))
            return at - offset

        return read

    def close(self):
        pass


MANY = bytes(RNG.integers(0, 256, 3_000_001, dtype="u1"))


def read(file, offset, n_bytes):
    """So many bytes from a position on, into two buffers."""
    data = bytearray(n_bytes)
    parts = [memoryview(data)[: n_bytes // 3], memoryview(data)[n_bytes // 3 :]]
    return bytes(data[: file.checked()(parts, offset)])


@pytest.mark.parametrize("held_bytes", [BLOCK_BYTES * 300, 32 << 20])
def test_a_cache_reads_what_is_there(held_bytes):
    """Whatever was read before, and however little is held."""
    cached = Cached(Bytes(MANY), MANY[:100_000], held_bytes)
    for offset, n_bytes in zip(
        RNG.integers(0, len(MANY) + 100, 300).tolist(),
        RNG.choice([1, 100, 20_000, 400_000], 300).tolist(),
        strict=True,
    ):
        assert read(cached, offset, n_bytes) == MANY[offset : offset + n_bytes]


def test_a_cache_asks_for_what_is_spread_by_small_requests():
    file = Bytes(MANY)
    cached = Cached(file)
    for offset in range(0, len(MANY), 400_000):
        read(cached, offset, 100)
    assert sum(stop - start for start, stop in file.spans) < 0.2 * len(MANY)


def test_a_cache_asks_for_what_lies_together_by_large_requests():
    file = Bytes(MANY)
    cached = Cached(file)
    for offset in range(0, len(MANY), 10_000):
        read(cached, offset, 100)
    assert len(file.spans) <= 8


def test_a_cache_holds_no_more_than_it_may():
    cached = Cached(Bytes(MANY), held_bytes=20 * BLOCK_BYTES)
    for offset in range(0, len(MANY), 50_000):
        read(cached, offset, 100)
        assert len(cached._blocks) <= 20


def test_a_cache_prefetches_neighbours_together():
    file = Bytes(MANY)
    cached = Cached(file)
    cached.prefetch([(100, 200), (50_000, 60_000), (2_000_000, 2_000_100)])
    assert len(file.spans) == 2
    read(cached, 50_000, 10_000)
    assert len(file.spans) == 2


def test_a_cache_that_was_settled_holds_nothing():
    cached = Cached(Bytes(MANY), MANY[:100_000])
    cached.settle()
    assert cached._blocks == {}
    assert read(cached, 5, 10) == MANY[5:15]


def test_what_was_looked_at_is_held_until_it_was_read():
    file = Bytes(MANY[:1000])
    looked = Looked(file, MANY[:1000])
    assert read(looked, 10, 20) == MANY[10:30]
    assert read(looked, 900, 200) == MANY[900:1000]
    assert file.spans == []
    assert read(looked, 0, 1000) == MANY[:1000]
    assert file.spans == [(0, 1000)]


def test_together_keeps_the_order():
    assert together(lambda n: n * n, range(20), 4) == [n * n for n in range(20)]


def test_together_raises_what_one_of_them_raised():
    with pytest.raises(ZeroDivisionError):
        together(lambda n: 1 // n, [1, 0, 2], 4)
