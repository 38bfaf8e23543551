"""Sparse matrices whose column numbers are not those of columns."""

import pickle

import h5py
import numpy as np
import pytest
import zarr

import epochal
from epochal.errors import DamageError, DamageWarning, SourceNameError
from epochal.stores import open_store

DATA = np.arange(1.0, 6.0)
OFFSETS = [0, 2, 2, 5]
SHAPE = (3, 4)
TOLD = r"source 'X/indices', chunk \d, rows \d to \d: row 2 of the matrix has column"


def write_hdf5(path, indices, **how):
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": SHAPE})
        group["data"], group["indptr"] = DATA, OFFSETS
        group.create_dataset("indices", data=indices, **how)


def write_zarr(path, indices):
    group = zarr.open_group(path, mode="w", zarr_format=2).create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": SHAPE})
    for name, array in (("data", DATA), ("indptr", np.array(OFFSETS)), ("indices", indices)):
        group.create_array(name, data=array, chunks=(2,))


def chunked(path, indices):
    write_hdf5(path, indices, chunks=(2,), compression="gzip")


WRITERS = [write_hdf5, chunked, write_zarr]
WRONG = [("<i4", 9), ("<i4", -1), (">i8", 4), ("<i8", -(2**62)), ("u1", 255), ("<u8", 2**63)]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("dtype", "wrong"), WRONG)
@pytest.mark.parametrize("form", ["csr", "dense", "offsets"])
def test_a_column_that_the_matrix_does_not_have(tmp_path, write, dtype, wrong, form):
    write(tmp_path / "a", np.array([3, 1, wrong, 0, 2], dtype))
    ds = epochal.open(tmp_path / "a", sources="X")
    for scheme in ("sequential", "shuffled_sequential"):
        seed = None if scheme == "sequential" else 0
        with pytest.raises(DamageError, match=f"{tmp_path / 'a'}: {TOLD} {wrong}, of 4"):
            list(ds.batches(scheme, 3, seed=seed, ragged=form))
    with pytest.raises(DamageError, match=TOLD):
        ds["X"][:]


@pytest.mark.parametrize("write", WRITERS)
def test_rows_that_are_sound_come_all_the_same(tmp_path, write):
    write(tmp_path / "a", np.array([3, 1, 9, 0, 2], "<i4"))
    batches = epochal.open(tmp_path / "a").batches("sequential", 3, ragged="dense", on_error="skip")
    with pytest.warns(DamageWarning, match=TOLD):
        found = np.concatenate([batch.X for batch in batches])
    assert found.tolist() == [[0, 2, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "i1", "<u8", "u1"])
def test_columns_from_the_first_to_the_last(tmp_path, dtype):
    chunked(tmp_path / "a", np.array([3, 0, 1, 2, 3], dtype))
    store = pickle.loads(pickle.dumps(open_store(tmp_path / "a")))
    assert store.sources["X"].columns["indices"].layout.dtype == dtype
    with epochal.open(tmp_path / "a") as ds:
        assert ds["X"][[2, 0]].csr().toarray().tolist() == [[0, 3, 4, 5], [2, 0, 0, 1]]


def test_verifying_finds_it_and_checksums_are_still_compared(tmp_path):
    chunked(tmp_path / "a.h5", np.array([3, 1, 9, 0, 2], "<i4"))
    (bad,) = epochal.verify(tmp_path / "a.h5").bad
    assert (bad.source, bad.chunk) == ("X/indices", 1)
    assert bad.why == "row 2 of the matrix has column 9, of 4"
    chunked(tmp_path / "b.h5", np.array([3, 1, 0, 0, 2], "<i4"))
    epochal.verify(tmp_path / "b.h5", record=True)
    against = {each.source: each.against for each in epochal.verify(tmp_path / "b.h5").sources}
    assert against["X/indices"] == "checksums"


def test_numbers_that_are_not_whole_are_refused(tmp_path):
    write_hdf5(tmp_path / "a.h5", np.array([3, 1, 1.5, 0, 2]))
    with pytest.raises(SourceNameError, match=r"numbers of columns are whole.*found float64"):
        epochal.open(tmp_path / "a.h5", sources="X")
