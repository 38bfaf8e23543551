"""MATLAB's files of version 5 as streams, against SciPy."""

import struct
import tracemalloc
import zlib
from contextlib import closing

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal.converting.inputs import open_input
from epochal.converting.inputs.mat5 import variables
from epochal.errors import FormatError, MismatchError, RowError

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def array(shape, dtype="f8"):
    numbers = np.random.default_rng(0).integers(0, 120, int(np.prod(shape)))
    half = np.asarray(0.5 if np.dtype(dtype).kind == "f" else 0, dtype)
    return (numbers.astype(dtype) + half).reshape(shape)


def whole(variable, n=3, start=0):
    blocks = list(variable.blocks(n, start))
    for block in blocks:
        assert block.dtype == variable.dtype
    empty = np.empty((*variable.shape[:-1], 0), variable.dtype)
    return np.concatenate([empty, *blocks], axis=-1)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_scipy_writes(tmp_path, dtype, compressed):
    held = {
        "long_name_of_a_variable": array((4, 5), dtype),
        "X": array((3, 4, 2, 11), dtype),
        "row": array((1, 9), dtype),
        "one": array((1, 1), dtype),
        "none": array((3, 0), dtype),
    }
    path = str(tmp_path / "a.mat")
    scipy.io.savemat(path, held, do_compression=compressed)
    found = variables(path)
    assert [(v.name, v.shape, v.kind) for v in found.values()] == scipy.io.whosmat(path)
    for name, expected in held.items():
        assert np.array_equal(whole(found[name]), expected)
        assert found[name].dtype == np.dtype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    n=st.integers(1, 7),
    start=st.integers(0, 5),
    compressed=st.booleans(),
)
def test_blocks_of_any_size_from_any_place(tmp_path_factory, shape, n, start, compressed):
    path = str(tmp_path_factory.mktemp("mat") / "a.mat")
    expected = array(shape, "i2")
    scipy.io.savemat(path, {"X": expected}, do_compression=compressed)
    start = min(start, shape[-1])
    blocks = list(variables(path)["X"].blocks(n, start))
    assert all(block.shape[-1] == n for block in blocks[:-1])
    assert np.array_equal(whole(variables(path)["X"], n, start), expected[..., start:])


def test_what_is_no_array_of_numbers_is_listed(tmp_path):
    path = str(tmp_path / "a.mat")
    cell = np.empty((1, 2), object)
    cell[:] = [["a", np.zeros(3)]]
    held = {"s": {"a": 1}, "text": "words", "c": cell, "z": np.array([[1 + 2j]]), "X": np.eye(3)}
    scipy.io.savemat(path, held | {"sparse": scipy.sparse.csc_array(np.eye(3))})
    found = variables(path)
    assert {name: found[name].dtype for name in found} == {
        **dict.fromkeys(["s", "text", "c", "z", "sparse"]),
        "X": np.dtype("f8"),
    }
    with pytest.raises(FormatError, match="'s' is a struct, no array of numbers"):
        next(found["s"].blocks(1))
    assert np.array_equal(whole(found["X"]), np.eye(3))


def element(order, code, data):
    return struct.pack(f"{order}II", code, len(data)) + data + b"\0" * (-len(data) % 8)


def made(order, kind, shape, stored_code, data, name=b"X", flags=0, small=False):
    """A file by hand."""
    head = element(order, 6, struct.pack(f"{order}II", kind | flags, 0))
    head += element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape))
    head += element(order, 1, name)
    if small:
        head += struct.pack(f"{order}I", len(data) << 16 | stored_code) + data.ljust(4, b"\0")
    else:
        head += element(order, stored_code, data)
    mark = b"IM" if order == "<" else b"MI"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    return header + element(order, 14, head)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("code", "stored"), [(2, "u1"), (3, "i2"), (9, "f8")])
def test_numbers_that_are_stored_narrower_and_in_either_byte_order(tmp_path, order, code, stored):
    numbers = np.arange(12)
    data = made(order, 6, (3, 4), code, numbers.astype(order + stored).tobytes())
    (tmp_path / "a.mat").write_bytes(data)
    found = variables(tmp_path / "a.mat")["X"]
    assert found.kind == "double"
    assert np.array_equal(whole(found), numbers.reshape(3, 4, order="F").astype("f8"))


def test_numbers_in_their_tag_and_truth_values(tmp_path):
    (tmp_path / "a.mat").write_bytes(made("<", 9, (1, 3), 2, b"\1\0\1", flags=0x200, small=True))
    found = variables(tmp_path / "a.mat")["X"]
    assert found.kind == "logical"
    assert whole(found).tolist() == [[1, 0, 1]]
    for n in (1, 2, 3):
        for start in range(4):
            assert whole(found, n, start).tolist() == [[1, 0, 1][start:]]


@pytest.mark.parametrize("compressed", [False, True])
def test_cut_off_anywhere(tmp_path, compressed):
    """What is left is right, or an error; nothing else."""
    path = tmp_path / "a.mat"
    held = {"X": array((2, 3, 4), "u1"), "y": array((1, 4), "f8")}
    scipy.io.savemat(path, held, do_compression=compressed)
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        try:
            for name, variable in variables(path).items():
                assert np.array_equal(whole(variable), held[name])
        except FormatError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("compressed", [False, True])
def test_every_byte_flipped(tmp_path, compressed):
    """Nothing but right numbers, other numbers where they are stored as they are, and an error; and
    no memory for what is not there.
    """
    path = tmp_path / "a.mat"
    X = array((2, 3, 4), "u1")
    scipy.io.savemat(path, {"X": X}, do_compression=compressed)
    data = bytearray(path.read_bytes())
    tracemalloc.start()
    for at in range(len(data)):
        for bit in (1, 0x80):
            data[at] ^= bit
            path.write_bytes(data)
            try:
                for variable in variables(path).values():
                    if variable.dtype is not None:
                        found = whole(variable)
                        assert not compressed or np.array_equal(found.reshape(X.shape), X)
            except FormatError as error:
                assert str(path) in str(error)  # noqa: PT017
            data[at] ^= bit
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_what_is_no_file_of_version_5(tmp_path):
    path = tmp_path / "a.mat"
    newer = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"
    for data, why in [
        (b"", "no MATLAB file of version 5"),
        (b"words" * 100, "no MATLAB file of version 5"),
        (newer, "7.3, which is HDF5"),
    ]:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=why):
            variables(path)
    scipy.io.savemat(path, {"X": np.eye(3)}, format="4")
    with pytest.raises(FormatError, match="version 4"):
        variables(path)


def test_a_shape_that_lies(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(made("<", 9, (1 << 20, 1 << 20), 2, b"abcd"))
    found = variables(path)["X"]
    with pytest.raises(FormatError, match="has 4 bytes of uint8"):
        next(found.blocks(1))


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_is_that_of_a_block(tmp_path, compressed):
    path = tmp_path / "a.mat"
    X = np.random.default_rng(0).integers(0, 16, (1000, 40_000), "u1")
    scipy.io.savemat(path, {"X": X}, do_compression=compressed)
    tracemalloc.start()
    at = 0
    for block in variables(path)["X"].blocks(1000):
        assert np.array_equal(block, X[:, at : at + 1000])
        at += 1000
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert at == 40_000


def test_what_does_not_inflate_at_the_end_is_told(tmp_path):
    """The checksum of what is compressed comes last."""
    path = tmp_path / "a.mat"
    plain = made("<", 9, (2, 50), 2, bytes(range(100)))[128:]
    squeezed = bytearray(zlib.compress(plain))
    squeezed[-1] ^= 1
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    path.write_bytes(header + struct.pack("<II", 15, len(squeezed)) + squeezed)
    with pytest.raises(FormatError, match="does not inflate"):
        whole(variables(path)["X"])


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_on_the_last_axis_are_converted_in_bounded_memory(tmp_path, compressed):
    """60 MB in 16 MiB; labels beside them, as doubles that are stored as bytes."""
    X = np.random.default_rng(0).integers(0, 16, (30, 100, 20_000), "u1")
    y = np.arange(20_000.0) % 7
    scipy.io.savemat(tmp_path / "a.mat", {"X": X, "y": y[:, None]}, do_compression=compressed)
    out = tmp_path / "a.h5"
    how = {"memory": "16MiB", "chunk_rows": 256, "compression": None}
    epochal.convert(tmp_path / "a.mat", out, axis={"X": -1}, **how)
    with epochal.open(out) as ds:
        assert np.array_equal(ds["X"][:], np.moveaxis(X, -1, 0))
        assert np.array_equal(ds["y"][:], y)
    with closing(open_input(tmp_path / "a.mat", axis={"X": -1}, memory_bytes=1 << 20)) as given:
        tail = [block["X"] for block in given.blocks(19_000)]
        assert np.array_equal(np.concatenate(tail), np.moveaxis(X, -1, 0)[19_000:])


@pytest.mark.parametrize("axis", [0, -1])
def test_rows_are_of_one_dtype_whatever_their_axis(tmp_path, axis):
    held = {
        "truth": np.arange(16).reshape(4, 4) % 3 == 0,
        "z": (np.arange(16) + 2j).reshape(4, 4),
        "X": np.arange(16.0).reshape(4, 4),
    }
    scipy.io.savemat(tmp_path / "a.mat", held | {"s": scipy.sparse.csc_array(held["truth"])})
    with closing(open_input(tmp_path / "a.mat", axis=axis)) as given:
        [block] = given.blocks()
        dtypes = {name: source.dtype for name, source in given.sources.items()}
    assert dtypes == {"truth": np.uint8, "z": np.complex128, "X": np.float64}
    for name, rows in block.items():
        assert rows.dtype == dtypes[name]
        assert np.array_equal(rows, np.moveaxis(held[name], axis, 0))


def test_what_is_asked_for_and_is_not_there(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.eye(3)})
    found = variables(tmp_path / "a.mat")["X"]
    for n in (0, -1):
        with pytest.raises(MismatchError, match="ask for 1 or more"):
            next(found.blocks(n))
    for start in (-1, 4):
        with pytest.raises(RowError, match=f"has 3 rows, no row {start}"):
            next(found.blocks(1, start))


@pytest.mark.parametrize("data", [(0, 2**31 - 1, 2**31 - 1, 2**31 - 1, 3), np.array([np.nan, 1e9])])
def test_what_numpy_would_stumble_over(tmp_path, data):
    numbers = isinstance(data, np.ndarray)
    shape, stored = ((1, 2), data.tobytes()) if numbers else (data, b"")
    (tmp_path / "a.mat").write_bytes(made("<", 9, shape, 9 if numbers else 2, stored))
    with pytest.raises(FormatError, match="stored as float64" if numbers else "is of shape"):
        next(variables(tmp_path / "a.mat")["X"].blocks(2))
