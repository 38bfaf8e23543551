"""Pylearn2's form, ``preprocessor.apply(dataset, can_fit=True)``, in memory and on disk."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from epochal.datasets import (
    DefaultViewConverter,
    DenseDesignMatrix,
    DenseDesignMatrixPyTables,
    HDF5Dataset,
)
from epochal.errors import MismatchError
from epochal.transforms import (
    PCA,
    RGB_YUV,
    ZCA,
    CentralWindow,
    ExtractGridPatches,
    ExtractPatches,
    GlobalContrastNormalization,
    LeCunLCN,
    Pipeline,
    ReassembleGridPatches,
    RemoveZeroColumns,
    Standardize,
    UnfittedError,
)

N, SHAPE = 120, (8, 8, 3)


def images(dtype="float32"):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (N, *SHAPE)).astype(dtype)
    rows.flags.writeable = False
    return rows


def labels():
    return np.arange(N)[:, None] % 10


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        file["Data/X"] = images().transpose(0, 3, 1, 2).reshape(N, -1)
        file["Data/y"] = labels()
    return path


@pytest.fixture(params=["memory", "disk"])
def opened(request, path):
    """Makes a dataset; what is on disk is compared when it is done."""
    before, held = (path.read_bytes(), os.stat(path).st_mtime_ns), []

    def make(n=N):
        if request.param == "memory":
            return DenseDesignMatrix(topo_view=images()[:n], y=labels()[:n])
        made = DenseDesignMatrixPyTables.open(path, view_converter=DefaultViewConverter(SHAPE))
        held.append(made)
        made.restrict(0, n)
        return made

    yield make
    for each in held:
        each.close()
    assert (path.read_bytes(), os.stat(path).st_mtime_ns) == before


def close(found, expected, rtol=1e-5):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


COLUMNS = [
    Standardize(),
    GlobalContrastNormalization(sqrt_bias=10, use_std=True),
    ZCA(),
    Pipeline([GlobalContrastNormalization(), Standardize(), ZCA()]),
]
IMAGES = [RGB_YUV(), LeCunLCN(kernel_size=3), CentralWindow((4, 6))]


@pytest.mark.parametrize("transform", COLUMNS, ids=repr)
def test_design_matrices(opened, transform):
    ds = opened()
    before = np.asarray(ds.X)
    ds.apply_preprocessor(transform, can_fit=True)
    close(np.asarray(ds.X), transform.transform(before))
    assert ds.get_topological_view()[3:5].shape == (2, *SHAPE)
    batches = np.concatenate(list(ds.iterator(batch_size=50)))
    close(batches, transform.transform(before))
    test = opened(30)
    transform.apply(test)  # with what was learnt of the others
    close(np.asarray(test.X), transform.transform(before[:30]))


@pytest.mark.parametrize("transform", IMAGES, ids=repr)
def test_images(opened, transform):
    ds = opened()
    transform.apply(ds, can_fit=True)
    expected = transform.transform(images())
    close(np.asarray(ds.get_topological_view()), expected)
    assert ds.view_converter.shape == list(expected.shape[1:])
    close(np.asarray(ds.X), expected.transpose(0, 3, 1, 2).reshape(N, -1))
    assert np.array_equal(np.asarray(ds.y), labels())


def test_rows_of_another_width_have_no_images(opened):
    for transform in (PCA(5), RemoveZeroColumns()):
        ds = opened()
        before = np.asarray(ds.X)
        transform.apply(ds, can_fit=True)
        close(np.asarray(ds.X), transform.transform(before))
        assert (ds.view_converter is None) == (ds.X.shape[1] != 192)


def test_patches_along_a_grid_and_back(opened):
    ds = opened()
    ExtractGridPatches((4, 4), (4, 4)).apply(ds)
    assert ds.get_num_examples() == 4 * N
    assert np.array_equal(np.asarray(ds.y), np.repeat(labels(), 4, axis=0))
    first = np.asarray(ds.get_topological_view()[0:4])
    close(first[1], images()[0, :4, 4:])
    X = np.concatenate(list(ds.iterator(mode="shuffled_sequential", batch_size=64)))
    assert X.shape == (4 * N, 48)
    ReassembleGridPatches((8, 8), (4, 4)).apply(ds)
    close(np.asarray(ds.get_topological_view()), images())
    assert np.array_equal(np.asarray(ds.y), labels())
    assert len(np.concatenate(list(ds.iterator(batch_size=50)))) == N


def test_patches_from_random_places(opened):
    ds, transform = opened(), ExtractPatches((3, 3), 500, seed=4)
    transform.apply(ds)
    close(np.asarray(ds.get_topological_view()), transform.transform(images()))
    assert ds.y is None
    same = opened()
    ExtractPatches((3, 3), N, seed=4).apply(same)  # as many as there were images
    assert same.y is None


def test_the_pipeline_of_pylearn2s_tutorial(opened):
    """Patches, contrast, whitening: learnt on the training set, of which then patches are left."""
    ds = opened()
    pipe = Pipeline([ExtractPatches((4, 4), 800), GlobalContrastNormalization(), ZCA()])
    pipe.apply(ds, can_fit=True)
    assert ds.get_num_examples() == 800
    assert pipe.n_passes_ == 1
    made = np.asarray(ds.get_design_matrix())
    patches = pipe[0].transform(images())
    close(made.reshape(800, 3, 4, 4), pipe.transform(images()).transpose(0, 3, 1, 2))
    expected = pipe[2].transform(pipe[1].transform(patches))
    close(np.asarray(ds.get_topological_view()), expected)
    assert np.abs(np.cov(made.T) - np.eye(48)).mean() < 0.1


def test_what_may_not_learn(opened):
    ds = opened()
    before = np.asarray(ds.X)
    for transform in (Standardize(), Pipeline([GlobalContrastNormalization(), ZCA()])):
        with pytest.raises(UnfittedError, match="is not fitted yet"):
            transform.apply(ds)
        assert np.array_equal(np.asarray(ds.X), before)


def test_images_of_what_has_none():
    ds = DenseDesignMatrix(X=np.zeros((4, 12)))
    with pytest.raises(MismatchError, match="has no topological view"):
        RGB_YUV().apply(ds)
    with pytest.raises(MismatchError, match="ndarray has no design matrix"):
        Standardize().apply(np.zeros((4, 12)))


def test_as_an_argument(path):
    transform = Standardize()
    ds = DenseDesignMatrix(X=images().reshape(N, -1), preprocessor=transform, fit_preprocessor=True)
    close(ds.X, transform.transform(images().reshape(N, -1)))


def test_a_file_that_is_open_for_writing_is_written(path):
    with DenseDesignMatrixPyTables.open(path, mode="r+") as ds:
        before = np.asarray(ds.X)
        transform = Standardize()
        transform.apply(ds, can_fit=True)
        assert ds.in_place
    with h5py.File(path) as file:
        close(file["Data/X"][:], transform.transform(before))
    data = Path(path).read_bytes()
    with (
        DenseDesignMatrixPyTables.open(path, mode="r+") as ds,
        pytest.raises(MismatchError, match="open it with mode='c'"),
    ):
        PCA(3).apply(ds, can_fit=True)
    assert Path(path).read_bytes() == data


def test_saved_as_it_is_then(path, tmp_path):
    with DenseDesignMatrixPyTables.open(path) as ds:
        Standardize().apply(ds, can_fit=True)
        expected = np.asarray(ds.X)
        ds.save(tmp_path / "made.h5")
    with DenseDesignMatrixPyTables.open(tmp_path / "made.h5") as ds:
        assert np.array_equal(np.asarray(ds.X), expected)


def test_datasets_of_sources(path):
    with HDF5Dataset(str(path), X="Data/X", y="Data/y") as ds:
        transform = Standardize()
        transform.apply(ds, can_fit=True)
        close(np.asarray(ds.X), transform.transform(images().transpose(0, 3, 1, 2).reshape(N, -1)))
