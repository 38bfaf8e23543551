"""Files of PyTables: read without it, and without running anything."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from hdf5_files import read_all, same

import epochal
from epochal.errors import SourceNameError, UnsafeError
from epochal.stores import open_store

# PyTables brings an HDF5 library of its own, which must not meet h5py's in one process.
WRITER = """
import sys
import numpy as np
import tables

N = 300

class Row(tables.IsDescription):
    number = tables.Int32Col()
    flag = tables.BoolCol()
    text = tables.StringCol(5)
    time = tables.Time64Col()
    seconds = tables.Time32Col()
    colour = tables.EnumCol(["red", "green"], "red", "uint8")
    pair = tables.Float32Col(shape=(2,))
    turn = tables.ComplexCol(16)
    turns = tables.ComplexCol(8, shape=(2,))
    class nested(tables.IsDescription):
        x = tables.Float64Col()

for lib in ("zlib", "bzip2", "blosc:lz4", "blosc:zstd", "blosc2", "lzo", None):
    name = str(lib).replace(":", "-")
    if lib and not lib.startswith("blosc") and tables.which_lib_version(lib) is None:
        continue
    for extra in ({}, {"shuffle": False}, {"fletcher32": True}, {"bitshuffle": True}):
        if "bitshuffle" in extra and not str(lib).startswith("blosc"):
            continue
        kind = "".join(extra) or "plain"
        filters = tables.Filters(5, lib, **extra) if lib else None
        with tables.open_file(f"{sys.argv[1]}/{name}-{kind}.h5", "w") as file:
            table = file.create_table("/", "table", Row, filters=filters)
            row = table.row
            for k in range(N):
                row["number"], row["flag"], row["text"] = k, k % 2, str(k)
                row["time"], row["seconds"], row["colour"] = k + 0.25, k, k % 2
                row["pair"], row["nested/x"] = [k, k + 1], k / 2
                row["turn"], row["turns"] = k - 2j, [k, 1j * k]
                row.append()
            table.flush()
            rows = np.arange(N * 4, dtype="f4").reshape(N, 4)
            file.create_carray("/", "carray", obj=rows, filters=filters)
            file.create_group("/", "group")
            earray = file.create_earray("/group", "earray", obj=rows, filters=filters)
            earray.append(rows)
            file.create_array("/", "array", rows)
            # Neither of these takes rows of varying length.
            plain = None if name == "blosc2" or kind == "fletcher32" else filters
            vlarray = file.create_vlarray("/", "vlarray", tables.Int16Atom(), filters=plain)
            for k in range(N):
                vlarray.append(np.arange(k % 7, dtype="i2") + k)
            pickles = file.create_vlarray("/", "pickles", tables.ObjectAtom(), filters=plain)
            pickles.append({"a": 1})
            file.root._v_attrs.pickled = {"not": "read"}
"""
N = 300
ROWS = np.arange(N * 4, dtype="f4").reshape(N, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pytables")
    subprocess.run([sys.executable, "-W", "ignore", "-c", WRITER, folder], check=True)
    return folder


def test_every_kind_by_every_library(folder):
    paths = sorted(folder.iterdir())
    assert len(paths) >= 15
    for path in paths:
        store = open_store(path)
        sources = store.sources
        assert all(source.layout.kind != "library" for source in sources.values()), path
        for name in ("carray", "array"):
            assert (read_all(sources[name]) == ROWS).all(), path
        assert (read_all(sources["group/earray"]) == np.concatenate([ROWS, ROWS])).all()
        table = read_all(sources["table"])
        k = np.arange(N)
        assert (table["number"] == k).all()
        assert (table["flag"] == k % 2).all()
        assert (table["text"] == k.astype("S5")).all()
        assert (table["time"] == k + 0.25).all()
        assert (table["seconds"] == k).all()
        assert (table["pair"] == np.stack([k, k + 1], 1)).all()
        assert table["turn"].dtype == "c16"
        assert table["turns"].dtype == "c8"
        assert (table["turn"] == k - 2j).all()
        assert (table["turns"] == np.stack([k, 1j * k], 1)).all()
        assert (table["nested"]["x"] == k / 2).all()
        ragged = epochal.open(path, sources="vlarray")["vlarray"][...]
        assert (np.diff(ragged.offsets) == k % 7).all()
        assert all((row == np.arange(n % 7) + n).all() for n, row in enumerate(ragged.rows()))


def test_columns_are_sources(folder):
    path = folder / "blosc-zstd-plain.h5"
    names = ("table:number", "/table:pair", "table:nested/x")
    ds = epochal.open(path, sources=names)
    assert ds["table:number"][[7, 3]].tolist() == [7, 3]
    for number, pair, x in ds.batches("shuffled_sequential", 32, seed=0, memory="4MiB"):
        assert (pair == np.stack([number, number + 1], 1)).all()
        assert (x == number / 2).all()
    batch = next(iter(ds.batches("sequential", 4)))
    assert batch._fields == ("number", "pair", "x")
    assert epochal.open(path, sources="table")["table:text"][11] == b"11"
    with pytest.raises(SourceNameError, match="did you mean 'table:number'"):
        epochal.open(path, sources="table:numbr")


def test_pickles_are_refused_by_name(folder):
    path = folder / "zlib-plain.h5"
    with pytest.raises(UnsafeError, match="its rows are pickled Python objects, which are never"):
        epochal.open(path, sources="pickles")


def test_a_pickled_attribute_runs_nothing(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "a.h5"
    payload = f"cposix\nsystem\n(Vtouch {marker}\ntR.".encode()
    with h5py.File(path, "w") as file:
        file.attrs["CLASS"] = np.bytes_("GROUP")
        file.attrs["evil"] = np.bytes_(payload)
        file["X"] = np.arange(10)
        file["X"].attrs["evil"] = np.bytes_(payload)
    with epochal.open(path) as ds:
        assert (ds["X"][:] == np.arange(10)).all()
        list(ds.batches("shuffled_sequential", 3, seed=0))
    assert not marker.exists()


@pytest.mark.parametrize("seed", range(6))
def test_vlen_numbers_are_what_h5py_reads(tmp_path, seed):
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(0, 400))
    dtype = np.dtype(rng.choice(["u1", "<i2", ">f4", "<f8", "<c8"]))
    large = int(rng.choice([3, 50, 9000]))
    rows = [rng.integers(0, 99, int(n)).astype(dtype) for n in rng.integers(0, large, n_rows)]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=512 if seed % 2 else 0) as file:
        how = {"chunks": (17,), "compression": "gzip"} if seed % 3 and n_rows else {}
        made = file.create_dataset("v", (n_rows,), h5py.vlen_dtype(dtype), **how)
        for k in rng.permutation(n_rows):
            if len(rows[k]) or rng.integers(2):
                made[k] = rows[k]
    ds = epochal.open(path)
    got = ds["v"][...]
    assert got.values.dtype == dtype
    assert all(same(a, b) for a, b in zip(got.rows(), rows, strict=False))
    assert len(got.offsets) == n_rows + 1
    if n_rows > 20:
        batches = ds.batches("shuffled_sequential", 16, seed=0, memory="16MiB")
        for number, (batch,) in enumerate(batches):
            for a, b in zip(batch.rows(), batches.scheme.batch(number), strict=True):
                assert same(a, rows[b])


def test_damaged_heaps_are_named(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("v", (50,), h5py.vlen_dtype("i4"))
        for k in range(50):
            made[k] = np.arange(k)
        at = made.id.get_offset()
    data = bytearray(path.read_bytes())
    for byte, what in ((4, "no heap|outside the file"), (12, "are not in its heap")):
        wrong = data.copy()
        wrong[at + 30 * 16 + byte] ^= 0x40
        path.write_bytes(wrong)
        with pytest.raises(epochal.EpochalError, match=f"source 'v', rows .*({what})"):
            epochal.open(path)["v"][:]
    wrong = data.copy()
    wrong[at + 30 * 16 + 3] ^= 0x40  # its length
    path.write_bytes(wrong)
    [other] = epochal.open(path).others
    assert "more than the file has room for" in other.why
