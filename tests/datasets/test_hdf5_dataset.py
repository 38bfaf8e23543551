"""`HDF5Dataset`: sources by name and alias, in spaces, of any file; nothing unpickled."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import tables

from epochal.datasets import DenseDesignMatrixPyTables, HDF5Dataset
from epochal.datasets.through_tables import pickles_in
from epochal.errors import (
    FileMissingError,
    FormatError,
    MismatchError,
    SourceNameError,
    UnsafeError,
)
from epochal.ragged import Ragged
from epochal.spaces import (
    CompositeSpace,
    Conv2DSpace,
    IndexSequenceSpace,
    IndexSpace,
    VectorSequenceSpace,
    VectorSpace,
)

N = 100
X = np.random.default_rng(0).integers(0, 200, (N, 12)).astype("float32")
IMAGES = X.reshape(N, 2, 2, 3).astype("uint8")
Y = np.random.default_rng(1).integers(0, 5, N)
WORDS = [np.arange(k % 4) for k in range(N)]
READERS = ["auto", True, False]


@pytest.fixture
def path(tmp_path):
    """A file of h5py's, that is looked at again when the test is over."""
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, chunks=(16, 12), compression="gzip")
        file.create_dataset("group/images", data=IMAGES, chunks=(16, 2, 2, 3))
        file["y"] = Y
        words = file.create_dataset("words", (N,), h5py.vlen_dtype("int64"))
        for k, word in enumerate(WORDS):
            words[k] = word
        file["short"] = Y[:7]
    before = Path(path).read_bytes(), os.stat(path).st_mtime_ns
    yield path
    assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == before


@pytest.mark.parametrize("use_h5py", READERS, ids=str)
@pytest.mark.parametrize("load_all", [False, True])
def test_sources_by_name_and_alias(path, use_h5py, load_all):
    with HDF5Dataset(
        path,
        ["X", "y"],
        [VectorSpace(12), IndexSpace(5, 1)],
        aliases=["features", None],
        load_all=load_all,
        cache_size=1 << 20,
        use_h5py=use_h5py,
    ) as ds:
        assert ds.get_num_examples() == ds.get_num_examples("features") == len(ds) == N
        for name in ("X", "features"):
            [rows] = ds.get((name,), [5, 99, 5, 0])
            assert np.array_equal(rows, X[[5, 99, 5, 0]])
            assert ds.get_data_specs(name) == (VectorSpace(12), name)
            assert np.array_equal(ds.data[name][3:7], X[3:7])
        both = CompositeSpace([VectorSpace(12), IndexSpace(5, 1)])
        assert ds.get_data_specs() == (both, ("features", "y"))
        assert ds.get_data_specs(["y"]) == (CompositeSpace([IndexSpace(5, 1)]), ("y",))
        x, y = ds.get(("X", "y"), 4)
        assert np.array_equal(x, X[4])
        assert y == Y[4]
        assert np.array_equal(ds.get(["y"], slice(10, 90, 7))[0], Y[10:90:7])
        assert np.array_equal(ds.get(("y",), (3, 1))[0], Y[[3, 1]])
        order = np.arange(N)
        np.random.RandomState(9).shuffle(order)
        batches = list(ds.iterator("shuffled_sequential", batch_size=30, rng=9))
        assert np.array_equal(np.concatenate([x for x, _ in batches]), X[order])
        assert np.array_equal(np.concatenate([y for _, y in batches]), Y[order, None])
        specs = (CompositeSpace([VectorSpace(5), VectorSpace(12)]), ("y", "X"))
        hot, x = next(ds.iterator(batch_size=N, data_specs=specs))
        assert hot.argmax(axis=1).tolist() == Y.tolist()
        assert np.array_equal(x, X)
        assert [view.shape for view in ds.get_data()] == [(N, 12), (N,)]


def test_random_access_goes_on_from_one_iterator_to_the_next(path):
    with HDF5Dataset(path, ["y"], [IndexSpace(5, 1)]) as ds:
        rng = np.random.RandomState((17, 2, 946))
        for _ in range(2):
            order = np.arange(N)
            rng.shuffle(order)
            got = np.concatenate(list(ds.iterator("shuffled_sequential", batch_size=30)))
            assert got[:, 0].tolist() == Y[order].tolist()


def test_images_and_sequences(path):
    spaces = [Conv2DSpace((2, 2), 3), IndexSequenceSpace(4, 1)]
    with HDF5Dataset(path, ["group/images", "words"], spaces, aliases=["images", None]) as ds:
        turned = Conv2DSpace((2, 2), 3, axes=("c", 0, 1, "b"))
        want = CompositeSpace([turned, VectorSequenceSpace(4)]), ("images", "words")
        images, words = next(ds.iterator(batch_size=6, data_specs=want))
        assert np.array_equal(images, IMAGES[:6].transpose(3, 1, 2, 0))
        assert isinstance(words, Ragged)
        assert words.offsets.tolist() == [0, 0, 1, 3, 6, 6, 7]
        assert words.values.argmax(axis=1).tolist() == np.concatenate(WORDS[:6]).tolist()
        lengths = [
            np.diff(words.offsets)
            for _, words in ds.iterator("even_sequences", batch_size=8, rng=1)
        ]
        assert all(len(set(each.tolist())) == 1 for each in lengths)
        assert sum(map(len, lengths)) == N


@pytest.mark.parametrize(
    ("how", "error", "why"),
    [
        ({"sources": ["Z"], "spaces": [VectorSpace(12)]}, SourceNameError, "no source 'Z'"),
        ({"sources": "X", "spaces": [VectorSpace(12)]}, MismatchError, "list of names"),
        ({"sources": ["X"], "spaces": []}, MismatchError, "list of 1 spaces"),
        ({"sources": ["X", "X"], "spaces": [VectorSpace(12)] * 2}, MismatchError, "each once"),
        (
            {"sources": ["X"], "spaces": [VectorSpace(13)]},
            MismatchError,
            r"source 'X' has rows of shape \(12,\), float32: not those of VectorSpace\(dim=13\)",
        ),
        ({"sources": ["X"], "spaces": [IndexSpace(5, 12)]}, MismatchError, "float32: not those"),
        ({"sources": ["X"], "spaces": [VectorSequenceSpace(12)]}, MismatchError, "of one length"),
        ({"sources": ["words"], "spaces": [VectorSpace(1)]}, MismatchError, "varying length"),
        (
            {"sources": ["group/images"], "spaces": [Conv2DSpace((2, 2), 4)]},
            MismatchError,
            r"rows of shape \(2, 2, 3\), uint8: not those of .* 16 numbers",
        ),
        (
            {"sources": ["X"], "spaces": [VectorSpace(12)], "aliases": ["X"]},
            MismatchError,
            "alias 'X' is used twice",
        ),
        (
            {
                "sources": ["X", "y"],
                "spaces": [VectorSpace(12), IndexSpace(5, 1)],
                "aliases": ["a", "a"],
            },
            MismatchError,
            "alias 'a' is used twice",
        ),
        ({"sources": ["X"], "spaces": [VectorSpace(12)], "aliases": []}, MismatchError, "give 1"),
        (
            {"sources": ["X", "short"], "spaces": [VectorSpace(12), IndexSpace(5, 1)]},
            MismatchError,
            "X has 100, short has 7",
        ),
        ({"sources": ["X"], "spaces": [VectorSpace(12)], "use_h5py": 1}, MismatchError, "use_h5py"),
        ({"sources": ["X"], "spaces": [VectorSpace(12)], "X": "X"}, MismatchError, "both forms"),
        ({"X": "Z"}, SourceNameError, "no source 'Z'"),
        ({}, MismatchError, "sources=None"),
    ],
)
def test_what_does_not_go_together(path, how, error, why):
    with pytest.raises(error, match=why):
        HDF5Dataset(path, **how)


def test_what_is_asked_of_it(path):
    with HDF5Dataset(path, ["X"], [VectorSpace(12)]) as ds:
        with pytest.raises(SourceNameError, match=r"no source 'y' .*'X'"):
            ds.get(("y",), 0)
        with pytest.raises(MismatchError, match="tuple of names"):
            ds.get("X", 0)
        with pytest.raises(IndexError, match="row 100 of 'X'"):
            ds.get(("X",), [100])
        with pytest.raises(SourceNameError, match="no source 'y'"):
            ds.get_data_specs("y")
        with pytest.raises(SourceNameError, match="no source 'y'"):
            ds.iterator(batch_size=3, data_specs=(VectorSpace(1), "y"))
    with pytest.raises(FileMissingError):
        HDF5Dataset("/nowhere.h5", ["X"], [VectorSpace(12)])


@pytest.mark.parametrize("use_h5py", READERS, ids=str)
@pytest.mark.parametrize("load_all", [False, True])
def test_the_old_form(path, use_h5py, load_all):
    how = {"load_all": load_all, "use_h5py": use_h5py}
    with HDF5Dataset(path, X="X", y="y", y_labels=5, **how) as ds:
        assert isinstance(ds, DenseDesignMatrixPyTables)
        assert np.array_equal(ds.X[3:5], X[3:5])
        ds.X[3] = 0  # in this process
        assert not next(ds.iterator(batch_size=5))[3].any()
    with HDF5Dataset(path, topo_view="group/images", y="y", **how) as ds:
        assert np.array_equal(ds.get_topological_view(), IMAGES)
        assert np.array_equal(ds.X, IMAGES.transpose(0, 3, 1, 2).reshape(N, 12))
    with pytest.raises(MismatchError, match="label 4 is outside"):
        HDF5Dataset(path, X="X", y="y", y_labels=4, **how)


# Through PyTables itself --------------------------------------------------------------------------


class Opens:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace):
        self._trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self._trace,)


@pytest.mark.parametrize("where", ["root", "group", "array"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("broken", [False, True])
def test_a_pickle_in_a_file_is_never_loaded(tmp_path, where, protocol, broken):
    path, trace = str(tmp_path / "a.h5"), tmp_path / "trace"
    with tables.open_file(path, "w") as file:
        file.create_carray("/group", "X", obj=X, createparents=True)
    text = pickle.dumps(Opens(trace), protocol)
    if broken:  # it calls, and breaks off then
        text = text[:-1] + b"\xff."
    with h5py.File(path, "r+") as file:
        node = {"root": file, "group": file["group"], "array": file["group/X"]}[where]
        node.attrs["note"] = np.bytes_(text)
    found = list(pickles_in(path))
    assert len(found) == 1
    assert found[0].endswith(".note")
    with pytest.raises(UnsafeError, match=r"\.note may be a pickle.*use_h5py='auto'"):
        HDF5Dataset(path, ["group/X"], [VectorSpace(12)], use_h5py=False)
    with HDF5Dataset(path, ["group/X"], [VectorSpace(12)]) as ds:
        assert np.array_equal(ds.get(("group/X",), slice(None))[0], X)
    assert not trace.exists()


@pytest.mark.parametrize("number", [b"I0x10\n", b"I0x10\0 unknown\n", b"L0x10L\n"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_pickle_that_pickletools_cannot_read(tmp_path, number, shape):
    """The unpickler takes numbers in bases that pickletools does not."""
    path, trace = str(tmp_path / "a.h5"), tmp_path / "trace"
    text = number + b"0cposix\nmkdir\n(V" + str(trace).encode() + b"\ntR."
    with tables.open_file(path, "w") as file:
        file.create_carray("/", "X", obj=X)
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = np.full(shape, text) if shape else np.bytes_(text)
    assert list(pickles_in(path)) == ["/.note"]
    with pytest.raises(UnsafeError, match=r"/\.note may be a pickle"):
        HDF5Dataset(path, ["X"], [VectorSpace(12)], use_h5py=False)
    assert not trace.exists()


def test_text_that_asks_for_a_table_of_a_gigabyte(tmp_path):
    path = str(tmp_path / "a.h5")
    with tables.open_file(path, "w") as file:
        file.create_carray("/", "X", obj=X)
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = np.bytes_(b"Nr. 1234.")
    assert list(pickles_in(path)) == ["/.note"]


TEXTS = ["Data values.", "", ".", "cos.", "A title, with a full stop.", "Größe.\nZweite Zeile."]


@pytest.mark.parametrize("text", [*TEXTS, "Two\nlines."])
def test_text_is_no_pickle(tmp_path, text):
    path = str(tmp_path / "a.h5")
    with tables.open_file(path, "w", title=text) as file:
        node = file.create_carray("/", "X", obj=X, title=text)
        node.attrs.note = text
    assert not list(pickles_in(path))
    with HDF5Dataset(path, ["X"], [VectorSpace(12)], use_h5py=False) as ds:
        assert np.array_equal(ds.get(("X",), slice(None))[0], X)


def test_rows_that_are_pickles(tmp_path):
    path = str(tmp_path / "a.h5")
    with tables.open_file(path, "w") as file:
        file.create_carray("/", "X", obj=X)
        rows = file.create_vlarray("/", "objects", tables.ObjectAtom())
        rows.append({"a": 1})
    for use_h5py in READERS:
        with pytest.raises((UnsafeError, SourceNameError, MismatchError)):
            HDF5Dataset(path, ["objects"], [VectorSpace(1)], use_h5py=use_h5py)


def test_pytables_reads_what_others_wrote_or_says_why_not(path, tmp_path):
    with pytest.raises(SourceNameError, match="no array with rows"):
        HDF5Dataset(path, ["group"], [VectorSpace(12)], use_h5py=False)
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with pytest.raises(FormatError):
        HDF5Dataset(str(tmp_path / "text.h5"), ["X"], [VectorSpace(12)], use_h5py=False)
