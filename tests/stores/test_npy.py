"""`.npy` and `.npz`: what is read is what numpy reads, in place or as a stream."""

import errno
import multiprocessing
import os
import pickle
import re
import struct
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import epochal
from epochal.cli import app
from epochal.errors import ChangedError, DamageError, FormatError, UnsafeError
from epochal.stores import open_store
from epochal.stores.npy import name_of
from epochal.stores.npy_fortran import _slabs

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
    monkeypatch.setattr("epochal.stores.npy_fortran.SEGMENT_BYTES", 3)
    monkeypatch.setattr("epochal.stores.npy_fortran.PART_BYTES", 50)
    monkeypatch.setattr("epochal.stores.npz_stream.MIN_SPACING_BYTES", 16)

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
    with pytest.raises(
        FormatError, match=r"a header of 118 bytes, of which 10 are there: .* cut off"
    ):
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


def test_nothing_is_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1000, 1000)))
    with epochal.open(tmp_path / "a.npy") as ds:
        ds["a"][::3]
        with open("/proc/self/maps") as maps:
            assert os.fspath(tmp_path / "a.npy") not in maps.read()


def test_the_page_cache_is_all_that_holds_a_file(tmp_path):
    """Reading holds the output and what the layout says."""
    for order in "CF":
        X = np.asarray(np.random.default_rng(0).integers(0, 9, (4096, 40, 50)), "u4", order=order)
        np.save(tmp_path / "a.npy", X)
        source = source_of(tmp_path / "a.npy")
        out = np.empty((source.layout.bounds(0)[1], 40, 50), "u4")
        read(source, 0, 1)
        tracemalloc.start()
        source.read(0, 1, out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= source.layout.read_overhead_bytes + 20_000
        assert (out == X[: len(out)]).all()


def described(tmp_path, header, data=b"", version=(1, 0)):
    """A file with that header, as other writers may write it."""
    length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY" + bytes(version) + length + header + data)
    return path


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version(tmp_path, version):
    array = np.arange(36, dtype="u1").view([("x", "<i2"), ("y", "<f4")]).reshape(3, 2)
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, array, version=version)
    assert (epochal.open(tmp_path / "a.npy")["a"][...] == array).all()


def test_names_beyond_latin(tmp_path):
    array = np.zeros(3, [("größe", "f4"), ("Ω", "i8")])
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        np.save(tmp_path / "a.npy", array)
    assert epochal.open(tmp_path / "a.npy")["a"].dtype == array.dtype


@pytest.mark.parametrize(
    "dtype",
    [
        "V7",
        ">U5",
        "<m8[25ms]",
        ">c16",
        np.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [3, 16]}),
        np.dtype([("a", "u1"), ("b", ">f8")], align=True),
        np.dtype([("a", "u1", (2, 3)), ("b", [("c", "<i2"), ("d", "S3")])]),
        np.dtype([(("title", "a"), "u1")]),
        np.dtype([(f"field{number}", "<f4") for number in range(700)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_dtypes(tmp_path, dtype, order):
    array = np.zeros((5, 3), dtype, order=order)
    if array.nbytes:
        raw = np.random.default_rng(0).integers(0, 99, array.nbytes).astype("u1")
        array = np.ndarray((5, 3), dtype, raw, order=order)
    if array.dtype.kind == "U" and array.nbytes:
        array[...] = "äΩx"
    np.save(tmp_path / "a.npy", array)
    expected = np.load(tmp_path / "a.npy", max_header_size=1 << 20)
    source = source_of(tmp_path / "a.npy")
    assert source.layout.dtype == expected.dtype
    items = expected.view(f"V{expected.dtype.itemsize}")  # with the padding, as it is in the file
    assert read(source, 0, source.layout.n_chunks)[2].tobytes() == items.tobytes("C")


def test_items_that_are_arrays_are_axes(tmp_path):
    header = b"{'descr': ('<i2', (2, 3)), 'fortran_order': False, 'shape': (4,), }\n"
    data = np.arange(24, dtype="<i2")
    path = described(tmp_path, header, data.tobytes())
    assert (epochal.open(path)["a"][...] == data.reshape(4, 2, 3)).all()


def test_files_of_python_2(tmp_path):
    header = b"{'descr': [('1L', '<i2')], 'fortran_order': False, 'shape': (4L, 1L), }\n"
    array = epochal.open(described(tmp_path, header, bytes(8)))["a"][...]
    assert array.shape == (4, 1)
    assert array.dtype.names == ("1L",)


HEADERS = {
    b"   ": "cannot be read",
    b"[1, 2]": "cannot be read",
    b"{'descr': '<i2', 'shape': (4,)}": "cannot be read: 'fortran_order'",
    b"{'descr': '<q9', 'fortran_order': False, 'shape': (4,)}": "cannot be read",
    b"{'descr': [[]], 'fortran_order': False, 'shape': (4,)}": "cannot be read",
    b"{'descr': [('a',)], 'fortran_order': False, 'shape': (4,)}": "cannot be read",
    b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (4,)}": "cannot be read",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': [4]}": "its header says",
    b"{'descr': '<i2', 'fortran_order': 1, 'shape': (4,)}": "its header says",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (True,)}": "its header says",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (1 << 62,)}": "cannot be read",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (%d,)}" % 2**62: "any machine",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (%d, 0)}" % 2**50: "any machine",
    b"{'descr': '<i2', 'fortran_order': False, 'shape': (%d,)}" % 2**50: "and the file has 0: it",
    b"{'descr': '<U0', 'fortran_order': False, 'shape': (4,)}": "have no bytes: nothing to read",
    b"-" * 60_000 + b"1": "cannot be read",
    b"(" * 60_000: "cannot be read",
    b"\xff" * 100: "cannot be read",
}


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[-40:])
@pytest.mark.parametrize("version", [(1, 0), (3, 0)])
def test_headers_that_are_none(tmp_path, header, version):
    with pytest.raises(FormatError, match=rf"a\.npy: .*{re.escape(HEADERS[header])}"):
        open_store(described(tmp_path, header, version=version))


def test_headers_of_no_length_that_is_read(tmp_path):
    with pytest.raises(FormatError, match="a header of 70000 bytes, of which 65536 are read"):
        open_store(described(tmp_path, b" " * 70_000, version=(2, 0)))
    with pytest.raises(FormatError, match=r"a\.npy: 11 bytes, less than any header"):
        open_store(described(tmp_path, b" "))
    with pytest.raises(FormatError, match="version 4; 1, 2 and 3 are read"):
        open_store(described(tmp_path, b" " * 100, version=(4, 0)))


def test_no_header_does_more_than_raise(tmp_path):
    """Any bytes of it wrong: an error of ours, or what numpy reads."""
    rng = np.random.default_rng(3)
    np.save(tmp_path / "whole.npy", np.zeros((4, 2), [("a", "<i2"), ("b", "U3")]))
    data = (tmp_path / "whole.npy").read_bytes()
    head = np.frombuffer(data[10 : data.index(b"}") + 1], "u1")
    for _ in range(500):
        wrong = bytearray(data)
        for at in rng.integers(0, len(head), rng.integers(1, 4)):
            wrong[10 + at] = rng.choice(head) if rng.integers(2) else rng.integers(32, 127)
        (tmp_path / "a.npy").write_bytes(wrong)
        try:
            array = epochal.open(tmp_path / "a.npy")["a"][...]
        except epochal.errors.EpochalError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = np.load(tmp_path / "a.npy")
        assert array.tobytes() == expected.tobytes()
        assert array.dtype == expected.dtype


def test_damage_while_reading_is_named(tmp_path, monkeypatch):
    """A device that fails, and a file that ends early behind our back."""
    np.save(tmp_path / "a.npy", np.asarray(np.ones((9, 40)), order="F"))
    monkeypatch.setattr("epochal.stores.memory.VIRTUAL_CHUNK_BYTES", 1000)
    monkeypatch.setattr("epochal.stores.npy_fortran.SEGMENT_BYTES", 8)
    source = source_of(tmp_path / "a.npy")
    whole = source._file

    class Wrong:
        name, in_flight = whole.name, 1

        def __init__(self, read):
            self.checked = lambda: read

    def failing(parts, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    source._file = Wrong(failing)
    with pytest.raises(
        DamageError, match=r"a\.npy: source 'a', chunk 1, rows 3 to 5: cannot be read: Input/out"
    ):
        read(source, 1, 2)
    source._file = Wrong(lambda parts, offset: 8)
    with pytest.raises(DamageError, match="rows 3 to 5: the file ends 640 bytes too early"):
        read(source, 1, 2)
    with pytest.raises(NotImplementedError, match="not read alone"):
        source.read_rows(np.array([1]), np.empty((1, 40)))


@given(st.lists(st.integers(1, 9), max_size=4).map(tuple), st.integers(1, 200))
def test_slabs_are_all_columns_in_order(row_shape, most):
    columns = np.arange(np.prod(row_shape, dtype=int)).reshape(row_shape[::-1])
    seen = []
    for first, n_columns, place in _slabs(row_shape, most):
        assert n_columns <= most
        assert columns[place].ravel().tolist() == [*range(first, first + n_columns)]
        seen += range(first, first + n_columns)
    assert seen == columns.ravel().tolist()


def test_files_by_url_and_without_suffix():
    assert name_of("https://host/path/X.v2.npy?token=a/b.npy", ".npy") == "X.v2"
    assert name_of("/data/labels", ".npy") == "labels"
    assert name_of("s3://bucket/.npy", ".npy") == "array"


def test_info_says_how_it_lies(tmp_path):
    np.save(tmp_path / "train X.npy", np.asfortranarray(np.ones((30, 4))))
    page = CliRunner().invoke(app, ["info", str(tmp_path / "train X.npy")])
    assert page.exit_code == 0
    assert "columns first" in page.stdout
    assert "30x4" in page.stdout


SCHEMES = ["sequential", "shuffled_sequential", "chunkwise_shuffled_sequential", "even_sequential"]


@pytest.mark.parametrize("how", WRITERS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "random_uniform"])
def test_every_order_equals_the_array(tmp_path, monkeypatch, how, order, scheme):
    monkeypatch.setattr("epochal.stores.memory.VIRTUAL_CHUNK_BYTES", 1 << 14)
    X = np.random.default_rng(0).integers(0, 1 << 40, (7001, 5, 3)).astype(">i8", order=order)
    ds = epochal.open(written(tmp_path, how, X))
    some = {"num_batches": 60} if scheme == "random_uniform" else {}
    for memory in ("3MiB", "64MiB"):
        batches = ds.batches(scheme, batch_size=100, seed=3, memory=memory, threads=2, **some)
        expected = [X[batches.scheme.at(0).batch(number)] for number in range(len(batches))]
        for batch, rows in zip(batches, expected, strict=True):
            assert np.array_equal(batch.X, rows)
