"""`.npy` and `.npz`: what is read is what numpy reads, in place or as a stream."""

import io
import multiprocessing
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import epochal
from epochal.errors import ChangedError, DamageError, FormatError, UnsafeError
from epochal.stores import open_store

WRITERS = {
    "npy": lambda path, array: np.save(path.with_suffix(".npy"), array),
    "npz": lambda path, array: np.savez(path.with_suffix(".npz"), X=array),
    "compressed": lambda path, array: np.savez_compressed(path.with_suffix(".npz"), X=array),
}


def written(folder, how, array):
    WRITERS[how](folder / "X", array)
    return next(path for path in folder.iterdir() if path.suffix in (".npy", ".npz"))


def source_of(path):
    [source] = open_store(path).sources.values()
    return source


def read(source, start, stop):
    first, last = source.layout.bounds(start)[0], source.layout.bounds(stop - 1)[1]
    out = np.full((last - first, *source.layout.row_shape), 0, source.layout.dtype)
    source.read(start, stop, out)
    return first, last, out


arrays = hnp.arrays(
    st.sampled_from(["u1", "<f4", ">i8", "?", "c8", "<M8[s]", "S3", "<U2", "<f2"])
    | st.just(np.dtype([("a", "u1"), ("b", "<f8")])),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9),
)


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("fortran", [False, True])
def test_equal_to_numpy(tmp_path_factory, monkeypatch, how, fortran):
    monkeypatch.setattr("epochal.stores.memory.VIRTUAL_CHUNK_BYTES", 24)
    monkeypatch.setattr("epochal.stores.npy.SEGMENT_BYTES", 3)
    monkeypatch.setattr("epochal.stores.npz.MIN_SPACING_BYTES", 16)

    @settings(max_examples=60, deadline=None)
    @given(arrays, st.data())
    def law(array, data):
        if fortran:
            array = np.asfortranarray(array)
        path = written(tmp_path_factory.mktemp("x"), how, array)
        source = source_of(path)
        assert source.layout.shape == array.shape
        assert source.layout.dtype == array.dtype
        n = source.layout.n_chunks
        for _ in range(4 if n else 0):
            start = data.draw(st.integers(0, n - 1))
            stop = data.draw(st.integers(start + 1, n))
            first, last, out = read(source, start, stop)
            assert out.tobytes() == np.ascontiguousarray(array[first:last]).tobytes()
        if source.layout.rows_alone and len(array):
            rows = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=9)), int)
            out = np.empty((len(rows), *array.shape[1:]), array.dtype)
            source.read_rows(rows, out)
            assert out.tobytes() == array[rows].tobytes()

    law()


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_shuffled_end_to_end(tmp_path, how, order):
    X = np.random.default_rng(0).integers(0, 99, (5000, 40)).astype("u2", order=order)
    ds = epochal.open(written(tmp_path, how, X))
    [name] = ds.sources
    assert name == "X"
    batches = ds.batches("shuffled_sequential", batch_size=64, seed=1, memory="6MiB")
    got = np.concatenate([batch.X for batch in batches])
    rows = np.concatenate([batches.scheme.at(0).batch(i) for i in range(len(batches))])
    assert (got == X[rows]).all()
    assert (ds["X"][[4999, 3, 3]] == X[[4999, 3, 3]]).all()


def test_a_stream_unpacks_each_byte_once_in_order(tmp_path, monkeypatch):
    X = np.random.default_rng(0).integers(0, 9, (3000, 1000)).astype("u1")
    source = source_of(written(tmp_path, "compressed", X))
    unpacked = []
    more = epochal.stores.archive.Inflater._more

    def counting(self, read, most):
        data = more(self, read, most)
        unpacked.append(len(data))
        return data

    monkeypatch.setattr("epochal.stores.archive.Inflater._more", counting)
    for chunk in range(source.layout.n_chunks):
        read(source, chunk, chunk + 1)
    assert sum(unpacked) <= X.nbytes + 200
    unpacked.clear()
    read(source, 2, 3)  # goes on from a state that was kept, not from the front
    assert sum(unpacked) <= 2 * (1 << 20) + 1000


@pytest.mark.parametrize("how", WRITERS)
def test_eight_readers_at_once(tmp_path, how):
    X = np.arange(900_000, dtype="u4").reshape(9000, 100)
    source = source_of(written(tmp_path, how, X))
    read(source, 1, 2)

    def chunk(number):
        first, last, out = read(source, number, number + 1)
        return bool((out == X[first:last]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(chunk, [*range(source.layout.n_chunks)] * 6))
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            assert (pool.apply(read, (source, 0, 2))[2] == X[: source.layout.bounds(1)[1]]).all()
    again = pickle.loads(pickle.dumps(source))
    assert (read(again, 0, 1)[2] == read(source, 0, 1)[2]).all()


def test_zero_rows_and_zero_columns(tmp_path):
    for shape in [(0,), (0, 3), (4, 0), (3, 0, 2)]:
        np.save(tmp_path / "a.npy", np.zeros(shape, "f4"))
        assert epochal.open(tmp_path / "a.npy")["a"][...].shape == shape


def test_pickles_are_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UnsafeError, match=r"a\.npy: holds pickled Python objects"):
        open_store(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", bad=np.array([{}], object), good=np.arange(3))
    store = open_store(tmp_path / "b.npz")
    assert list(store.sources) == ["good"]
    [other] = store.others
    assert other.unsafe
    assert "pickled" in other.why


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(FormatError, match="takes 800 bytes after the header, and the file has 792"):
        open_store(path)
    path.write_bytes(whole + b"more")  # numpy reads that, too
    assert (epochal.open(path)["a"][...] == np.arange(100)).all()
    path.write_bytes(whole.replace(b"'shape': (100,)", b"'shape': (-10,)"))
    with pytest.raises(FormatError, match="its header says shape"):
        open_store(path)
    path.write_bytes(whole[:20])
    with pytest.raises(FormatError, match="cut off or damaged"):
        open_store(path)
    np.save(path, np.float32(3))
    with pytest.raises(FormatError, match="a scalar: it has no rows"):
        open_store(path)


def test_a_changed_file_is_noticed(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(10))
    ds = epochal.open(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.arange(11))
    with pytest.raises(ChangedError, match="no longer the file"):
        ds["a"][:]


def test_damage_in_a_compressed_member_is_found(tmp_path):
    path = written(tmp_path, "compressed", np.random.default_rng(0).integers(0, 9, 10**6))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    source = source_of(path)
    with pytest.raises(DamageError, match=r"source 'X', chunk \d, rows .*does not unpack"):
        read(source, 0, source.layout.n_chunks)


def archive(path, *members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members:
            file.writestr(name, data)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_archives_that_lie(tmp_path):
    path = tmp_path / "a.npz"
    archive(path, ("X.npy", npy(np.arange(1000))), ("notes.txt", b"hello"))
    store = open_store(path)
    assert list(store.sources) == ["X"]
    assert "does not end in .npy" in store.others[0].why
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")
    first = data.index(b"PK\x01\x02")
    path.write_bytes(data[: first + 42] + data[at + 42 : at + 46] + data[first + 46 :])
    with pytest.raises(
        FormatError, match=r"runs past the end|overlaps|is not where|cannot be read"
    ):
        open_store(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="its zip directory cannot be read"):
        open_store(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("X.npy", npy(np.arange(10)))
    [other] = open_store(path).others
    assert "only deflate is read" in other.why


def test_nothing_is_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1000, 1000)))
    with epochal.open(tmp_path / "a.npy") as ds:
        ds["a"][::3]
        with open("/proc/self/maps") as maps:
            assert os.fspath(tmp_path / "a.npy") not in maps.read()
