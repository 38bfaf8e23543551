"""Design matrices, in memory and on disk: both do the same, and no file changes."""

import itertools
import os
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import tables
from numpy.random import RandomState

import epochal
from epochal.datasets import (
    DefaultViewConverter,
    DenseDesignMatrix,
    DenseDesignMatrixPyTables,
    HDF5Dataset,
    dataset_range,
    from_dataset,
)
from epochal.errors import MismatchError, RowError, SourceNameError
from epochal.spaces import CompositeSpace, Conv2DSpace, IndexSpace, VectorSpace

N, SHAPE = 300, (4, 5, 3)
DIM = 60
AXES = list(itertools.permutations(("b", 0, 1, "c")))


def rows_of(dtype="float32", n=N):
    rows = np.random.default_rng(0).integers(0, 200, (n, DIM))
    return rows.astype(dtype)


def labels_of(n=N):
    return np.random.default_rng(1).integers(0, 10, (n, 1))


def write(path, dtype="float32", n=N, **how):
    file, node = DenseDesignMatrixPyTables.init_hdf5(
        path, ((n, DIM), (n, 1)), y_dtype="int", x_dtype=dtype, chunk_rows=32, **how
    )
    DenseDesignMatrixPyTables.fill_hdf5(file, rows_of(dtype, n), labels_of(n), node)
    file.close()
    return str(path)


class Unchanged:
    """A file that is looked at again when the test is over."""

    def __init__(self, path):
        self.path, self._before = path, self._look(path)

    @staticmethod
    def _look(path):
        return Path(path).read_bytes(), os.stat(path).st_mtime_ns

    def check(self):
        assert self._look(self.path) == self._before


@pytest.fixture(params=["memory", "disk", "old form"])
def ds(request, tmp_path):
    """The same dataset, held in three ways; what was opened for reading has not changed."""
    how = {"y_labels": 10, "view_converter": DefaultViewConverter(SHAPE)}
    if request.param == "memory":
        yield DenseDesignMatrix(X=rows_of(), y=labels_of(), **how)
        return
    watched = Unchanged(write(tmp_path / "a.h5"))
    if request.param == "disk":
        made = DenseDesignMatrixPyTables.open(watched.path, **how)
    else:
        made = HDF5Dataset(watched.path, X="Data/X", y="Data/y", **how)
    with made:
        yield made
    watched.check()
    assert sorted(os.listdir(tmp_path)) == ["a.h5"]


def same(found, expected):
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


def test_what_is_there(ds):
    same(ds.get_design_matrix(), rows_of())
    same(ds.get_targets(), labels_of())
    assert ds.get_num_examples() == len(ds) == N
    assert ds.has_targets()
    same(ds.get_data()[0], rows_of())
    space, sources = ds.get_data_specs()
    assert sources == ("features", "targets")
    assert space == CompositeSpace([VectorSpace(DIM), IndexSpace(10, 1)])
    x, y = ds.get(("features", "targets"), [5, 5, 2])
    same(x, rows_of()[[5, 5, 2]])
    same(y, labels_of()[[5, 5, 2]])
    with pytest.raises(SourceNameError, match="no source 'images'"):
        ds.get(("images",), 3)
    with pytest.raises(RowError, match="300"):
        ds.get(("features",), [300])
    same(ds.get_topological_view(), rows_of().reshape(N, 3, 4, 5).transpose(0, 2, 3, 1))
    assert ds.view_shape() == ds.weights_view_shape() == list(SHAPE)
    assert ds.get_topo_batch_axis() == 0
    assert ds.X_topo_space == Conv2DSpace(SHAPE[:2], num_channels=3)


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_images_in_every_order_of_axes(ds, axes):
    ds.set_view_converter_axes(axes)
    order = [("b", "c", 0, 1).index(axis) for axis in axes]
    expected = rows_of().reshape(N, 3, 4, 5).transpose(order)
    images = ds.get_topological_view()
    same(images, expected)
    batch = [slice(None)] * 4
    batch[axes.index("b")] = slice(10, 20)
    same(images[tuple(batch)], expected[tuple(batch)])
    same(ds.get_topological_view(rows_of()[:7]), np.take(expected, range(7), axes.index("b")))
    same(ds.get_design_matrix(expected), rows_of())
    shown = rows_of()[:3].reshape(3, 3, 4, 5).transpose(0, 2, 3, 1)
    same(ds.get_weights_view(rows_of()[:3]), shown)
    space = Conv2DSpace(SHAPE[:2], num_channels=3, axes=axes)
    got = list(ds.iterator(batch_size=64, data_specs=(space, "features")))
    same(np.concatenate(got, axis=axes.index("b")), expected)
    same(ds.get_formatted_view(rows_of()[:5], space), np.take(expected, range(5), axes.index("b")))


def test_views_of_images_on_disk_are_sliced_like_arrays(tmp_path):
    with DenseDesignMatrixPyTables.open(
        write(tmp_path / "a.h5"), view_converter=DefaultViewConverter(SHAPE, ("c", 0, 1, "b"))
    ) as ds:
        view, whole = ds.get_topological_view(), np.asarray(ds.get_topological_view())
        assert view.shape == whole.shape == (3, 4, 5, N)
        for key in [0, (0, 1), (..., 3), (slice(None), 2, ..., slice(5, 9)), (1, ..., [7, 2]), ...]:
            same(view[key], whole[key])


@pytest.mark.parametrize(
    "mode", ["sequential", "shuffled_sequential", "batchwise_shuffled_sequential"]
)
def test_random_order_is_that_of_arrays_in_memory(ds, mode):
    rng = {} if mode == "sequential" else {"rng": 3}
    order = np.concatenate(
        list(DenseDesignMatrix(X=np.arange(N)[:, None] * 1.0).iterator(mode, 32, **rng))
    ).astype(int)[:, 0]
    specs = (CompositeSpace([VectorSpace(DIM), IndexSpace(10, 1)]), ("features", "targets"))
    batches = list(ds.iterator(mode, batch_size=32, data_specs=specs, **rng))
    same(np.concatenate([x for x, _ in batches]), rows_of()[order])
    same(np.concatenate([y for _, y in batches]), labels_of()[order])


def test_random_batches(ds):
    rng = RandomState((17, 2, 946))
    start = rng.randint(N - 20 + 1)
    same(ds.get_batch_design(20), rows_of()[start : start + 20])
    start = rng.randint(N - 9 + 1)
    x, y = ds.get_batch_topo(9, include_labels=True)
    same(x, rows_of()[start : start + 9].reshape(9, 3, 4, 5).transpose(0, 2, 3, 1))
    same(y, labels_of()[start : start + 9])
    with pytest.raises(RowError, match="301 examples were asked of a dataset that has 300"):
        ds.get_batch_design(301)


def test_parts(ds):
    train, valid = ds.split_dataset_holdout(train_size=200)
    same(train, rows_of()[:200])
    same(valid, rows_of()[200:])
    train, valid = ds.split_dataset_holdout(train_prop=0.25)  # the smaller comes last
    same(train, rows_of()[225:])
    same(valid, rows_of()[:225])
    folds = ds.split_dataset_nfolds(7)
    assert [len(fold) for fold in folds] == [43] * 6 + [42]
    same(np.concatenate(folds), rows_of())
    for fold in ds.bootstrap_nfolds(5, rng=4):
        assert fold.shape == (60, DIM)
    starts = RandomState(4).randint(0, N - 60 + 1, size=5)
    same(ds.bootstrap_nfolds(5, rng=4)[2], rows_of()[starts[2] : starts[2] + 60])
    train, valid = ds.bootstrap_holdout(train_prop=0.5, rng=1)
    assert train.shape == valid.shape == (150, DIM)
    for how in ({}, {"train_size": 10, "train_prop": 0.5}):
        with pytest.raises(MismatchError, match="give one of both"):
            ds.split_dataset_holdout(**how)
    with pytest.raises(MismatchError, match="leave some on both sides"):
        ds.split_dataset_holdout(train_size=300)
    with pytest.raises(MismatchError, match="nfolds=0"):
        ds.split_dataset_nfolds()


def test_restrict(ds):
    ds.restrict(None, None)
    assert len(ds) == N
    ds.restrict(100, 250)
    ds.restrict(10, 60)
    same(ds.X, rows_of()[110:160])
    same(ds.y, labels_of()[110:160])
    same(np.concatenate(list(ds.iterator(batch_size=7))), rows_of()[110:160])
    with pytest.raises(RowError, match="start=10, stop=51 of 50 examples"):
        ds.restrict(10, 51)
    part = dataset_range(ds, 5, 10)
    same(part.X, rows_of()[115:120])
    same(part.get_topological_view(), ds.get_topological_view(rows_of()[115:120]))
    some = from_dataset(ds, 8)
    assert Counter(map(bytes, some.X)) <= Counter(map(bytes, rows_of()))


def test_one_hot(ds):
    ds.convert_to_one_hot()
    expected = np.eye(10, dtype="float32")[labels_of()[:, 0]]
    same(ds.y, expected)
    assert ds.data_specs[0].components[1] == VectorSpace(10)
    hot = list(ds.iterator(batch_size=50, data_specs=(VectorSpace(10), "targets")))
    same(np.concatenate(hot), expected)
    with pytest.raises(MismatchError, match="labels are integers"):
        ds.convert_to_one_hot()


def test_one_hot_from_another_class_on(ds):
    with pytest.raises(MismatchError, match="label 0 is below min_class=3"):
        ds.convert_to_one_hot(3)
    ds.convert_to_one_hot(-2)
    assert ds.y.shape == (N, 12)
    assert np.asarray(ds.y).argmax(axis=1).tolist() == (labels_of()[:, 0] + 2).tolist()


def test_changes_are_seen_by_this_process(ds):
    ds.set_design_matrix(rows_of() * 2)
    same(ds.X, rows_of() * 2)
    same(np.concatenate(list(ds.iterator(batch_size=33))), rows_of() * 2)
    images = np.arange(N * DIM, dtype="float32").reshape(N, *SHAPE)
    ds.set_topological_view(images)
    same(ds.get_topological_view(), images)
    turned = images.transpose(3, 1, 2, 0)
    ds.set_topological_view(turned, axes=("c", 0, 1, "b"))
    same(ds.get_topological_view(), turned)
    ds.set_view_converter_axes(("b", 0, 1, "c"))
    same(ds.get_topological_view(), images)
    ds.set_design_matrix(np.ones((N, 7)))  # of another width and dtype
    same(ds.X, np.ones((N, 7)))
    assert ds.view_converter is None
    with pytest.raises(MismatchError, match="no topological view"):
        ds.get_topological_view()


def test_changes_that_make_no_sense(ds):
    with pytest.raises(MismatchError, match=r"X is \(n, n_features\); found shape \(300,\)"):
        ds.set_design_matrix(np.zeros(N))
    bad = rows_of()
    bad[123, 45] = np.nan
    with pytest.raises(MismatchError, match=r"NaN, first at \(123, 45\)"):
        ds.set_design_matrix(bad)
    same(ds.X, rows_of())
    with pytest.raises(MismatchError, match="axes"):
        ds.set_topological_view(np.zeros((N, 4, 5)))


class Doubled:
    """A preprocessor as users of Pylearn2 wrote them."""

    def apply(self, dataset, can_fit=False):
        self.can_fit = can_fit
        dataset.set_design_matrix(np.asarray(dataset.get_design_matrix()) * 2.5)


def test_preprocessors(ds):
    mine = Doubled()
    ds.apply_preprocessor(mine, can_fit=True)
    assert mine.can_fit
    same(ds.X, rows_of() * np.float32(2.5))


def test_to_be_looked_at(ds):
    rows = np.array([[-4.0, 2.0]])
    assert ds.adjust_for_viewer(rows).tolist() == [[-1.0, 0.5]]
    assert ds.adjust_for_viewer(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]
    assert ds.adjust_to_be_viewed_with(rows, np.array([2.0])).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "X or topo_view"),
        ({"X": np.zeros((3, 2)), "topo_view": np.zeros((3, 2, 2, 1))}, "X or topo_view"),
        ({"X": np.zeros(3)}, r"X is \(n, n_features\); found shape \(3,\)"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(4)}, "X has 3, y has 4"),
        ({"X": np.zeros((3, 2)), "y": np.array([0, 1, 5]), "y_labels": 5}, "label 5 is outside"),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "y_labels": 5}, "not whole numbers"),
        ({"X": np.zeros((3, 2)), "y_labels": 5}, "y_labels=5 without y"),
        ({"X": np.array([["a", "b"]])}, "X holds numbers; found <U1"),
        ({"X": np.array([[object()]])}, "holds (numbers|Python objects)"),
        ({"X": np.zeros((3, 2)), "view_converter": 5}, "view_converter=5"),
        ({"topo_view": np.zeros((3, 2, 2))}, "4 axes"),
        ({"topo_view": np.zeros((3, 2, 2, 1)), "axes": ("b", 0, 1, 1)}, "in some order"),
        (
            {"X": np.zeros((3, 5)), "view_converter": DefaultViewConverter((2, 2, 1))},
            "images of 4 numbers; rows of X have 5",
        ),
    ],
)
@pytest.mark.parametrize("kind", [DenseDesignMatrix, DenseDesignMatrixPyTables])
def test_what_does_not_go_together(kind, given, why):
    with pytest.raises(MismatchError, match=why):
        kind(**given)


def test_labels_as_features_are_looked_at():
    X = np.array([[0, 1], [2, -1]])
    with pytest.raises(MismatchError, match=r"label -1 is outside \[0, 3\)"):
        DenseDesignMatrix(X=X, X_labels=3)
    ds = DenseDesignMatrixPyTables(X=X, X_labels=3)  # on disk as they come
    with pytest.raises(MismatchError, match="label -1 is outside"):
        next(ds.iterator(batch_size=2))


@pytest.mark.parametrize("kind", [DenseDesignMatrix, DenseDesignMatrixPyTables])
def test_labels_as_features(kind):
    ds = kind(X=np.arange(12).reshape(6, 2), X_labels=12)
    assert ds.X_space == IndexSpace(12, 2)
    got = next(ds.iterator(batch_size=2, data_specs=(VectorSpace(24), "features")))
    assert np.flatnonzero(got).tolist() == [0, 13, 26, 39]


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_tables_reads_what_is_made(tmp_path, dtype):
    path = write(tmp_path / "a.h5", dtype, title="Digits")
    with tables.open_file(path) as file:
        assert file.title == "Digits"
        assert isinstance(file.root.Data.X, tables.CArray)
        same(file.root.Data.X[:], rows_of(dtype))
        same(file.root.Data.y[:], labels_of())
        assert file.root.Data.y.dtype == np.int64
    assert epochal.verify(path).ok


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "a.h5"
    write(path)
    before = path.read_bytes()
    file, _ = DenseDesignMatrixPyTables.init_hdf5(path, ((N, DIM), (N, 1)))
    DenseDesignMatrixPyTables.fill_hdf5(file, rows_of()[:100])
    assert path.read_bytes() == before
    file.abandon()
    assert path.read_bytes() == before

    def fills_and_stops():
        with file.__class__(path, ((N, DIM),)) as again:
            again.fill(0, rows_of())
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fills_and_stops()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.h5"]


def test_rows_that_nobody_filled_are_zeros_and_warned_of(tmp_path):
    file, _ = DenseDesignMatrixPyTables.init_hdf5(tmp_path / "a.h5", ((N, DIM), (N, 2)))
    DenseDesignMatrixPyTables.fill_hdf5(file, rows_of()[:100], start=50)
    with pytest.warns(UserWarning, match="rows 0 to 49, 150 to 299 were never filled"):
        file.close()
    with tables.open_file(tmp_path / "a.h5") as there:
        expected = np.zeros((N, DIM), "float32")
        expected[50:150] = rows_of()[:100]
        same(there.root.Data.X[:], expected)
        same(there.root.Data.y[:], np.zeros((N, 2)))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"shapes": ((N, DIM), (N + 1, 1))}, "Data/X has 300, Data/y has 301"),
        ({"shapes": ((N, DIM), (N, 1)), "y_dtype": "bool"}, "y_dtype='bool'"),
        ({"shapes": ()}, "rows first"),
        ({"shapes": ((0, DIM),)}, "rows of X=0"),
    ],
)
def test_files_that_cannot_be_made(tmp_path, how, why):
    with pytest.raises(MismatchError, match=why):
        DenseDesignMatrixPyTables.init_hdf5(tmp_path / "a.h5", **how)
    assert not os.listdir(tmp_path)


def test_what_does_not_fit_the_file(tmp_path):
    file, _ = DenseDesignMatrixPyTables.init_hdf5(tmp_path / "a.h5", ((N, DIM),), x_dtype="uint8")
    fill = DenseDesignMatrixPyTables.fill_hdf5
    with file:
        fill(file, rows_of("uint8"))
        fill(file, rows_of("uint8")[:2].tolist())
        with pytest.raises(MismatchError, match="without targets"):
            fill(file, rows_of("uint8")[:3], labels_of()[:3])
        with pytest.raises(MismatchError, match="data_x has 3, data_y has 4"):
            fill(file, rows_of("uint8")[:3], labels_of()[:4])
        with pytest.raises(MismatchError, match="cannot hold"):
            fill(file, rows_of("float32"))
        with pytest.raises(MismatchError, match="59"):
            fill(file, rows_of("uint8")[:, :59])
        with pytest.raises(RowError, match="rows=300"):
            fill(file, rows_of("uint8"), start=1)
    with DenseDesignMatrixPyTables.open(tmp_path / "a.h5") as ds:
        same(ds.X, rows_of("uint8"))
        assert ds.y is None


def test_changes_go_to_a_file_that_is_open_for_writing(tmp_path):
    path = write(tmp_path / "a.h5")
    with DenseDesignMatrixPyTables.open(path, mode="r+") as ds:
        ds.set_design_matrix(np.full((7, DIM), 3.0), start=11)
        DenseDesignMatrixPyTables.fill_hdf5(ds.h5file, rows_of()[:2], [[8], [9]], start=40)
        with pytest.raises(MismatchError, match="open it with mode='c', and save"):
            ds.set_design_matrix(np.zeros((N, 5), "float32"))
        with pytest.raises(RowError, match="rows 299 to 300 of a dataset of 300"):
            ds.set_design_matrix(np.zeros((2, DIM), "float32"), start=299)
    expected = rows_of()
    expected[11:18], expected[40:42] = 3, rows_of()[:2]
    with tables.open_file(path) as file:
        same(file.root.Data.X[:], expected)
        assert file.root.Data.y[39:43].tolist() == [labels_of()[39], [8], [9], labels_of()[42]]


def test_images_in_a_file_that_is_open_for_writing(tmp_path):
    path = str(tmp_path / "a.h5")
    images = rows_of().reshape(N, *SHAPE)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(32, *SHAPE))
    with epochal.open(path, mode="r+") as there:
        ds = DenseDesignMatrixPyTables(topo_view=there["images"])
        assert ds.in_place
        ds.set_topological_view(np.zeros((3, *SHAPE), "float32"), start=2)
    images[2:5] = 0
    with h5py.File(path) as file:
        same(file["images"][:], images)


def test_axes_of_images_on_disk_may_change(tmp_path):
    """They are those of the views, not those of the file."""
    path = str(tmp_path / "a.h5")
    images = rows_of().reshape(N, *SHAPE)
    with h5py.File(path, "w") as file:
        file["images"] = images
    with HDF5Dataset(path, topo_view="images") as ds:
        before = np.asarray(ds.X)
        ds.set_view_converter_axes(("c", 0, 1, "b"))
        same(ds.X, before)
        same(ds.get_topological_view(), images.transpose(3, 1, 2, 0))
        same(np.concatenate(list(ds.iterator(batch_size=77))), before)


def test_whole_numbers_go_into_floats_that_hold_them(tmp_path):
    with DenseDesignMatrixPyTables.open(write(tmp_path / "a.h5")) as ds:
        ds.set_design_matrix(rows_of("int64"))
        assert ds.X.dtype == np.float32
        ds.set_design_matrix(np.full((1, DIM), (1 << 30) + 1), start=5)
        assert ds.X.dtype == np.float64
        assert ds.X[5, 0] == (1 << 30) + 1


def test_resize(tmp_path):
    path = write(tmp_path / "a.h5", title="Digits")
    watched = Unchanged(path)
    with DenseDesignMatrixPyTables.open(path) as ds:  # open for reading: this process's view
        ds.resize(ds.h5file, 10, 20)
        same(ds.X, rows_of()[10:20])
    watched.check()
    with DenseDesignMatrixPyTables.open(path, mode="r+") as ds:
        file, node = ds.resize(ds.h5file, 100, None)
        assert file is node is ds.h5file
        same(ds.X, rows_of()[100:])
    with tables.open_file(path) as file:
        assert file.title == "Digits"
        same(file.root.Data.X[:], rows_of()[100:])
        same(file.root.Data.y[:], labels_of()[100:])
    new, _ = ds.init_hdf5(tmp_path / "b.h5", ((N, DIM), (N, 1)))
    new, _ = ds.resize(new, 0, 50)
    ds.fill_hdf5(new, rows_of()[:50], labels_of()[:50].astype(float))
    with pytest.raises(MismatchError, match="has rows already"):
        ds.resize(new, 0, 10)
    new.close()
    with tables.open_file(tmp_path / "b.h5") as file:
        same(file.root.Data.X[:], rows_of()[:50])


@pytest.mark.parametrize("kind", ["source", "other"])
def test_resize_loses_nothing_else(tmp_path, kind):
    path = Path(write(tmp_path / "a.h5"))
    with h5py.File(path, "r+") as file:
        file["more"] = np.arange(N) if kind == "source" else np.arange(3)
    before = path.read_bytes()
    with DenseDesignMatrixPyTables.open(path, mode="r+") as ds:
        with pytest.raises(MismatchError, match="holds more besides Data/X and Data/y"):
            ds.resize(ds.h5file, 0, 50)
        with pytest.raises(RowError, match="start=50, stop=50"):
            ds.resize(ds.h5file, 50, 50)
        same(ds.X, rows_of())  # it is still open
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64"])
def test_targets_keep_their_dtype(tmp_path, dtype):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["Data/X"], file["Data/y"] = rows_of(), labels_of().astype(dtype)
    with DenseDesignMatrixPyTables.open(path, mode="r+") as ds:
        ds.save(tmp_path / "b.h5")
        ds.resize(ds.h5file, 5, 105)
    for made, rows in ((path, slice(5, 105)), (tmp_path / "b.h5", slice(None))):
        with tables.open_file(made) as file:
            assert file.root.Data.y.dtype == dtype
            same(file.root.Data.y[:], labels_of()[rows])


def test_saved_as_it_is_now(tmp_path):
    with DenseDesignMatrixPyTables.open(write(tmp_path / "a.h5", "uint8")) as ds:
        ds.set_design_matrix(rows_of("float64") / 7)
        ds.convert_to_one_hot()
        ds.restrict(5, 200)
        ds.save(tmp_path / "b.h5")
    with tables.open_file(tmp_path / "b.h5") as file:
        same(file.root.Data.X[:], rows_of("float64")[5:200] / 7)
        same(file.root.Data.y[:], np.eye(10, dtype="float32")[labels_of()[5:200, 0]])


def test_nodes_of_other_libraries(tmp_path):
    path = write(tmp_path / "a.h5")
    with tables.open_file(path) as file:
        data = file.root.Data
        with DenseDesignMatrixPyTables(X=data.X, y=data.y) as ds:
            same(ds.X, rows_of())
    with h5py.File(path) as file, DenseDesignMatrixPyTables(X=file["Data/X"]) as ds:
        same(np.concatenate(list(ds.iterator(batch_size=100))), rows_of())
    with pytest.raises(MismatchError, match="examples have to be first"):
        DenseDesignMatrixPyTables(topo_view=np.zeros((3, 2, 2, N)), axes=("c", 0, 1, "b"))


def test_assigned_to_directly(tmp_path):
    watched = Unchanged(write(tmp_path / "a.h5"))
    with DenseDesignMatrixPyTables.open(watched.path) as ds:
        ds.X[3:5] = 0
        ds.y[7] = 9
        same(ds.X[2:6], np.concatenate([rows_of()[2:3], np.zeros((2, DIM)), rows_of()[5:6]]))
        batch = next(ds.iterator(batch_size=10))
        assert not batch[3:5].any()
        assert ds.y[7].tolist() == [9]
    watched.check()
