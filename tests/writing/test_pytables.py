"""Files that h5py writes with `epochal.writing.pytables` are PyTables' own to `tables`."""

import warnings

import h5py
import numpy as np
import pytest
import tables

import epochal
from epochal.errors import MismatchError
from epochal.writing import pytables
from epochal.writing.encode import Encoder, as_stored, chain_for
from epochal.writing.spec import Compression, SourceSpec
from epochal.writing.structures import packed

RNG = np.random.default_rng(0)
TABLE = np.dtype(
    [
        ("a", "u1"),
        ("b", "<f8"),
        ("c", "?"),
        ("s", "S3"),
        ("m", "<f4", (2,)),
        ("z", "c8"),
        ("n", [("x", "<i4"), ("t", "?")]),
    ]
)
GAPS = np.dtype({"names": TABLE.names, "formats": [TABLE[n] for n in TABLE.names]}, align=True)
DTYPES = ["u1", "i1", "<u2", ">i4", "<i8", "<u8", "<f2", ">f2", "<f4", ">f8", "?", "<c8", ">c16"]


def rows_of(dtype, n, row_shape=()):
    dtype = np.dtype(dtype)
    size = n * int(np.prod(row_shape, dtype=int)) * dtype.itemsize
    if dtype.kind == "S":
        return np.array([b"ab", b"", b"xyz"], dtype)[RNG.integers(0, 3, (n, *row_shape))]
    if dtype.names:
        made = np.zeros((n, *row_shape), dtype)
        for name in dtype.names:
            base, shape = dtype[name].base, dtype[name].shape
            made[name] = rows_of(base, n, (*row_shape, *shape))
        return made
    if dtype.kind in "?b":
        return RNG.integers(0, 2, (n, *row_shape)).astype(bool)
    if dtype.kind in "fc":
        return RNG.standard_normal((n, *row_shape)).astype(dtype)
    return np.frombuffer(RNG.bytes(size), dtype).reshape(n, *row_shape)


def write(path, sources, *, fixed, compression=None):
    """As the container of HDF5 does, in short."""
    with h5py.File(path, "w", libver="earliest") as file:
        for name, rows in sources.items():
            how = Compression(compression, shuffle=compression is not None)
            spec = SourceSpec(name, rows.shape[1:], rows.dtype, 4, how)
            pytables.check(spec)
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_chunk((4, *spec.row_shape))
            chain = chain_for(how, rows.dtype.itemsize, spec.chunk_bytes)
            for each in chain:
                creation.set_filter(each.id, h5py.h5z.FLAG_OPTIONAL, each.cd)
            most = len(rows) if fixed and rows.dtype.names is None else h5py.h5s.UNLIMITED
            space = h5py.h5s.create_simple(rows.shape, (most, *spec.row_shape))
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            kind = pytables.file_type(spec.dtype)
            made = h5py.h5d.create(file.id, name.encode(), kind, space, creation, lcpl=links)
            for chunk in range(-(-len(rows) // 4)):
                part = as_stored(rows[4 * chunk : 4 * chunk + 4], 4)
                stored, _ = Encoder(chain)(part)
                origin = (4 * chunk,) + (0,) * len(spec.row_shape)
                made.write_direct_chunk(origin, bytes(stored), 0)
            told = pytables.source_attributes(spec, len(rows), fixed=fixed)
            pytables.set_attributes(h5py.Dataset(made), told)
            pytables.set_attributes(file[name].parent, pytables.group_attributes())
        pytables.set_attributes(file, pytables.root_attributes("mine"))


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("dtype", [*DTYPES, "S3"])
def test_arrays_are_read_by_pytables(tmp_path, dtype, fixed):
    path = tmp_path / "a.h5"
    X, y = rows_of(dtype, 10, (3,)), rows_of(dtype, 10)
    write(path, {"X": X, "train/y": y}, fixed=fixed, compression="gzip")
    with tables.open_file(str(path), "r") as file:
        assert file.root._v_title == "mine"
        assert file.format_version == "2.1"
        for node, rows in ((file.root.X, X), (file.root.train.y, y)):
            assert type(node) is (tables.CArray if fixed else tables.EArray)
            assert node.title == ""
            assert node.shape == rows.shape
            assert node.chunkshape == (4, *rows.shape[1:])
            assert node.atom.dtype == rows.dtype.newbyteorder("=")
            assert node.filters.complib == "zlib"
            assert node.filters.shuffle or rows.dtype.itemsize == 1
            assert np.array_equal(node[:], rows)
            assert (node.extdim == 0) is not fixed


def test_pytables_appends_to_what_can_grow(tmp_path):
    path = tmp_path / "a.h5"
    X, t = rows_of("?", 10, (3,)), rows_of(TABLE, 10)
    write(path, {"X": X, "t": t}, fixed=False, compression="gzip")
    with tables.open_file(str(path), "a") as file:
        file.root.X.append(X[:5])
        file.root.t.append(t[:5])
    with tables.open_file(str(path), "r") as file:
        assert np.array_equal(file.root.X[:], np.concatenate([X, X[:5]]))
        assert np.array_equal(file.root.t[:], np.concatenate([t, t[:5]]))


@pytest.mark.parametrize("compression", [None, "gzip", "blosc", "blosc2"])
def test_filters_that_pytables_brings_along(tmp_path, compression):
    path = tmp_path / "a.h5"
    X = np.arange(4000, dtype="<i4").reshape(10, 400)
    t = rows_of(TABLE, 10)
    write(path, {"X": X, "t": t}, fixed=True, compression=compression)
    with tables.open_file(str(path), "r") as file:
        assert np.array_equal(file.root.X[:], X)
        assert np.array_equal(file.root.t[:], t)
        assert np.array_equal(file.root.X[3:9, 7], X[3:9, 7])
        known = {None: None, "gzip": "zlib", "blosc": "blosc:zstd", "blosc2": "blosc2:zstd"}
        assert file.root.X.filters.complib == known[compression]


def test_structures_are_tables(tmp_path):
    path = tmp_path / "a.h5"
    t = rows_of(TABLE, 10)
    write(path, {"t": t, "packed": t.astype(packed(GAPS))}, fixed=True)
    with tables.open_file(str(path), "r") as file:
        for node in (file.root.t, file.root.packed):
            assert type(node) is tables.Table
            assert node.nrows == 10
            assert node.colnames == [*TABLE.names]
            for name in TABLE.names:
                assert np.array_equal(node.col(name), t[name])
            assert [row["a"] for row in node.where("c")] == t["a"][t["c"]].tolist()


@pytest.mark.parametrize("fixed", [True, False])
def test_no_rows(tmp_path, fixed):
    path = tmp_path / "a.h5"
    write(path, {"X": rows_of("f4", 0, (3,)), "t": rows_of(TABLE, 0)}, fixed=False)
    with tables.open_file(str(path), "a") as file:
        assert type(file.root.X) is tables.EArray
        file.root.X.append(np.ones((2, 3), "f4"))
        assert file.root.t.nrows == 0
    spec = SourceSpec("X", (), np.dtype("f4"), 4)
    assert pytables.source_attributes(spec, 0, fixed=fixed)["CLASS"] == b"EARRAY"


def kind_of(node, name):
    made = h5py.h5a.open(node.id, name.encode())
    kind = made.get_type()
    text = kind.get_class() == h5py.h5t.STRING
    shape = made.get_space().get_simple_extent_type(), made.shape
    return kind.get_class(), kind.get_size(), shape, text and kind.is_variable_str()


def test_attributes_are_of_the_types_that_pytables_writes(tmp_path):
    X, t = rows_of("f4", 10, (3,)), rows_of(TABLE, 10)
    with tables.open_file(str(tmp_path / "theirs.h5"), "w", title="mine") as file:
        file.create_earray("/g", "X", obj=X, createparents=True)
        file.create_table("/", "t", obj=t)
        file.create_carray("/", "c", obj=X)
    write(tmp_path / "ours.h5", {"g/X": X, "t": t}, fixed=False)
    write(tmp_path / "fixed.h5", {"c": X}, fixed=True)
    theirs, ours, fixed = (h5py.File(tmp_path / f"{n}.h5") for n in ("theirs", "ours", "fixed"))
    with theirs, ours, fixed:
        for name, file in (("/", ours), ("g", ours), ("g/X", ours), ("t", ours), ("c", fixed)):
            assert set(file[name].attrs) == set(theirs[name].attrs)
            for each in theirs[name].attrs:
                assert kind_of(file[name], each) == kind_of(theirs[name], each), (name, each)
                if "TITLE" not in each:
                    assert file[name].attrs[each] == theirs[name].attrs[each]


def test_truth_values_are_bit_fields_to_everybody(tmp_path):
    path = tmp_path / "a.h5"
    y = rows_of("?", 10)
    write(path, {"y": y}, fixed=True)
    with epochal.open(path) as ds:
        assert np.array_equal(ds["y"][:].astype(bool), y)


def test_an_odd_name_is_read_without_a_warning(tmp_path):
    path = tmp_path / "a.h5"
    write(path, {"two words": rows_of("u1", 10)}, fixed=True)
    with tables.open_file(str(path), "r") as file:
        assert file.get_node("/two words").nrows == 10


def test_attributes_can_be_set_anew(tmp_path):
    path = tmp_path / "a.h5"
    t = rows_of(TABLE, 10)
    write(path, {"t": t}, fixed=False)
    with h5py.File(path, "r+") as file:
        file["t"].resize(6, axis=0)
        pytables.set_attributes(file["t"], {"NROWS": np.int64(6)})
        pytables.set_attributes(file, pytables.root_attributes("another"))
    with tables.open_file(str(path), "r") as file:
        assert file.root.t.nrows == 6
        assert file.title == "another"


@pytest.mark.parametrize(
    ("dtype", "row_shape", "compression", "match"),
    [
        ("f4", (), "zstd", "compression='zstd' is not read by PyTables: give 'gzip'"),
        ("f4", (), "lz4", "compression='lz4' is not read by PyTables"),
        ("U3", (), None, "no form in PyTables: give their UTF-8 bytes"),
        ("M8[s]", (), None, r"no form in PyTables: give the numbers: rows.astype\('int64'\)"),
        ("V4", (), None, "no form in PyTables: give numbers"),
        ([("a", "u1"), ("when", "M8[s]")], (), None, r"\(field 'when'\): datetime64\[s\] has no"),
        ([("a", "u1")], (2,), None, "tables of one structure a row alone"),
    ],
)
def test_what_pytables_has_no_form_for(dtype, row_shape, compression, match):
    spec = SourceSpec("X", row_shape, np.dtype(dtype), 4, Compression(compression))
    with pytest.raises(MismatchError, match=match):
        pytables.check(spec)


def test_no_warnings_at_all(tmp_path):
    write(tmp_path / "a.h5", {"X": rows_of("f2", 10), "t": rows_of(TABLE, 10)}, fixed=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tables.open_file(str(tmp_path / "a.h5"), "r") as file:
            for node in file.walk_nodes():
                assert not isinstance(node, tables.UnImplemented | tables.Unknown)
                assert str(node)
