"""Files of every format by URL: the rows, orders and processes are those of the local file."""

import multiprocessing
import os
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from operator import getitem

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse
import tables
import zarr

import epochal
from epochal.errors import FormatError
from epochal.stores import remote_answer

N_ROWS = 1200
RNG = np.random.default_rng(0)
X = RNG.integers(0, 60, (N_ROWS, 16, 16), dtype="u1")
Y = RNG.integers(0, 10, N_ROWS)


def write_hdf5(path, rows=slice(None), **how):
    chunked = {"chunks": (32, 16, 16), **how} if how else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X[rows], **chunked)
        file.create_dataset("y", data=Y[rows])


def write_gzip(path):
    write_hdf5(path, compression="gzip", shuffle=True)


def write_library(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X.astype("i4"), chunks=(32, 16, 16), scaleoffset=0)


def write_pytables(path):
    with tables.open_file(path, "w") as file:
        file.create_carray("/", "X", obj=X, filters=tables.Filters(5, "blosc"))
        file.create_array("/", "y", Y)


def write_npz(path):
    with open(path, "wb") as file:
        np.savez(file, X=X, y=Y)


def write_compressed_npz(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, X=X, y=Y)


def write_npy(path):
    with open(path, "wb") as file:
        np.save(file, X)


def write_fortran_npy(path):
    with open(path, "wb") as file:
        np.save(file, np.asfortranarray(X))


def write_zarr(path, zarr_format=3, consolidated=False, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata are in no specification
        root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        root.create_array("X", shape=X.shape, dtype=X.dtype, chunks=(50, 16, 16), **how)[...] = X
        root.create_array("y", shape=Y.shape, dtype=Y.dtype, chunks=(500,))[...] = Y
        if consolidated:
            zarr.consolidate_metadata(path, zarr_format=zarr_format)


def write_zarr_2(path):
    write_zarr(path, 2)


def write_sharded_zarr(path):
    write_zarr(path, shards=(400, 16, 16))


def write_consolidated_zarr(path):
    write_zarr(path, consolidated=True)


def write_zarr_zip(path):
    with zarr.storage.ZipStore(path, mode="w") as store:
        write_zarr(store)


def write_h5ad(path):
    counts = scipy.sparse.random(500, 300, 0.05, "csr", np.float32, random_state=0)
    anndata.AnnData(counts).write_h5ad(path, compression="gzip")


def write_folder(path):
    path.mkdir()
    for number in range(11):
        rows = slice(number * 100, number * 100 + 100)
        write_hdf5(path / f"part-{number}.h5", rows, compression="gzip")


WRITERS = {
    "gzip.h5": write_gzip,
    "contiguous.h5": write_hdf5,
    "library.h5": write_library,
    "tables.h5": write_pytables,
    "X.npy": write_npy,
    "fortran.npy": write_fortran_npy,
    "stored.npz": write_npz,
    "deflated.npz": write_compressed_npz,
    "a.zarr.zip": write_zarr_zip,
    "a2.zarr": write_zarr_2,
    "a3.zarr": write_zarr,
    "sharded.zarr": write_sharded_zarr,
    "consolidated.zarr": write_consolidated_zarr,
    "cells.h5ad": write_h5ad,
    "parts": write_folder,
}


def serve(server, folder):
    """Everything in a folder, by its path there."""
    for path in folder.rglob("*"):
        if path.is_file():
            server.files[f"/{path.relative_to(folder)}"] = path


@pytest.fixture(params=WRITERS)
def both(request, tmp_path, server):
    """A path and the URL of the same."""
    path = tmp_path / request.param
    WRITERS[request.param](path)
    serve(server, tmp_path)
    return path, f"{server.url}/{request.param}"


def arrays_of(batch):
    """All arrays of a batch, those of rows of varying length among them."""
    for each in batch:
        yield from (np.asarray(a) for a in (each if isinstance(each, tuple) else (each,)))


def bytes_of(ds, scheme):
    """Every batch of an epoch, bit for bit."""
    batches = ds.batches(scheme, batch_size=64, seed=1)
    return [[(a.dtype, a.shape, a.tobytes()) for a in arrays_of(batch)] for batch in batches]


def rows_of(ds):
    """The first rows of each source and the last, by number."""
    rows = [0, 1, len(ds) - 1]
    found = {name: view[rows] for name, view in ds.sources.items()}
    return {
        name: [np.asarray(a).tobytes() for a in (rows if isinstance(rows, tuple) else (rows,))]
        for name, rows in found.items()
    }


def test_rows_are_those_of_the_local_file(both):
    path, url = both
    with epochal.open(path) as here, epochal.open(url) as there:
        assert list(there.sources) == list(here.sources)
        assert rows_of(there) == rows_of(here)


@pytest.mark.parametrize("scheme", ["sequential", "shuffled_sequential"])
def test_batches_are_those_of_the_local_file(both, scheme):
    path, url = both
    with epochal.open(path) as here, epochal.open(url) as there:
        assert bytes_of(there, scheme) == bytes_of(here, scheme)


def test_a_pickle_reads_the_same(both):
    _, url = both
    with epochal.open(url) as ds:
        expected = rows_of(ds)
        copy = pickle.loads(pickle.dumps(ds))
    assert rows_of(copy) == expected
    copy.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("name", ["gzip.h5", "library.h5", "sharded.zarr"])
def test_other_processes_read_the_same(tmp_path, server, monkeypatch, name, method):
    """After a read in the parent, whose connections and threads no fork may use."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    WRITERS[name](tmp_path / name)
    serve(server, tmp_path)
    with epochal.open(f"{server.url}/{name}") as ds, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        view = ds["X"]
        assert (view[...] == X).all()
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert (pool.apply(getitem, (view, slice(None))) == X).all()
        assert (view[...] == X).all()


@pytest.mark.parametrize("name", ["gzip.h5", "a3.zarr"])
def test_untrusted_reads_the_same(tmp_path, server, name):
    WRITERS[name](tmp_path / name)
    serve(server, tmp_path)
    with (
        epochal.open(tmp_path / name) as here,
        epochal.open(f"{server.url}/{name}", untrusted=True) as there,
    ):
        assert rows_of(there) == rows_of(here)


@pytest.mark.parametrize("name", ["gzip.h5", "library.h5", "deflated.npz", "sharded.zarr"])
def test_eight_threads_read_one_dataset(tmp_path, server, name):
    WRITERS[name](tmp_path / name)
    serve(server, tmp_path)
    with epochal.open(f"{server.url}/{name}") as ds, ThreadPoolExecutor(8) as pool:
        expected = rows_of(ds)
        assert list(pool.map(rows_of, [ds] * 16)) == [expected] * 16


@pytest.fixture
def parts(tmp_path, server):
    """The URL of a folder of files, 100 rows each."""
    write_folder(tmp_path / "parts")
    serve(server, tmp_path)
    return f"{server.url}/parts"


def test_a_list_of_urls_is_one_dataset_in_its_order(parts):
    with epochal.open([f"{parts}/part-{number}.h5" for number in (3, 0)]) as ds:
        assert (ds["X"][...] == np.concatenate([X[300:400], X[:100]])).all()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_one_dataset_in_natural_order(parts, slash):
    with epochal.open(parts + slash) as ds:
        assert (ds["y"][...] == Y[:1100]).all()


def test_a_pattern_is_one_dataset_in_natural_order(parts):
    with epochal.open(f"{parts}/part-*.h5") as ds:
        assert (ds["y"][...] == Y[:1100]).all()


def test_a_pattern_that_nothing_matches(parts):
    with pytest.raises(FileNotFoundError, match=r"none-\*\.h5: the pattern matches nothing"):
        epochal.open(f"{parts}/none-*.h5")


def test_what_is_no_data_in_a_folder_is_listed_with_the_reason(parts, server):
    server.files["/parts/README"] = b"Nothing to read." * 10
    with epochal.open(parts) as ds:
        assert len(ds) == 1100
        [other] = ds.others
        assert other.name == "README"
        assert "not a file of any format" in other.why


def test_links_of_a_page_to_itself_are_not_followed(parts, server):
    """Apache's pages have them, to be sorted otherwise."""
    server.faults.more_links = ("?C=N;O=D", "?C=M;O=A", "#top", "/")
    with epochal.open(parts) as ds:
        assert len(ds) == 1100
        assert ds.others == ()


@pytest.mark.parametrize("name", ["a2.zarr", "a3.zarr"])
def test_zarr_of_a_server_that_lists_nothing(tmp_path, server, name):
    WRITERS[name](tmp_path / name)
    serve(server, tmp_path)
    server.faults.lists = False
    with pytest.raises(FormatError, match=r"server does not list what is in it.* zip archive"):
        epochal.open(f"{server.url}/{name}")


def test_consolidated_zarr_of_a_server_that_lists_nothing(tmp_path, server):
    """What is in it is known then, but not which chunks."""
    write_consolidated_zarr(tmp_path / "a")
    serve(server, tmp_path)
    server.faults.lists = False
    with epochal.open(f"{server.url}/a") as ds:
        assert list(ds.sources) == []
        assert [other.name for other in ds.others] == ["X", "y"]
        assert all("server does not list" in other.why for other in ds.others)


def test_zarr_zip_needs_no_listing(tmp_path, server):
    write_zarr_zip(tmp_path / "a.zip")
    serve(server, tmp_path)
    server.faults.lists = False
    with epochal.open(f"{server.url}/a.zip") as ds:
        assert (ds["X"][...] == X).all()


def test_zarr_of_which_nothing_is_stored(tmp_path, server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(tmp_path / "a", shape=(30, 2), chunks=(5, 2), dtype="i4", fill_value=7)
    serve(server, tmp_path)
    with epochal.open(f"{server.url}/a") as ds:
        assert (ds["a"][...] == 7).all()


def test_a_signed_url_names_the_source_as_the_file_is(tmp_path, server):
    write_npy(tmp_path / "X.npy")
    serve(server, tmp_path)
    with epochal.open(f"{server.url}/X.npy?signature=s3cret") as ds:
        assert list(ds.sources) == ["X"]
        assert "s3cret" not in repr(ds)


def test_a_file_smaller_than_the_first_look(server):
    server.files["/a.npy"] = npy_bytes(np.arange(5))
    with epochal.open(f"{server.url}/a.npy") as ds:
        assert (ds["a"][...] == np.arange(5)).all()


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_file_as_long_as_the_first_look(server, extra):
    n_bytes = remote_answer.HEAD_BYTES + extra - 128
    array = RNG.integers(0, 256, n_bytes, dtype="u1")
    server.files["/a.npy"] = npy_bytes(array)
    with epochal.open(f"{server.url}/a.npy") as ds:
        assert (ds["a"][...] == array).all()


def npy_bytes(array):
    """An array as NumPy saves it."""
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()
