"""Other file systems of fsspec, chains of them, and those that are not there."""

import io
import pickle
import sys
import warnings
import zipfile

import fsspec
import h5py
import numpy as np
import pytest
import zarr

import epochal
from epochal.errors import ChangedError, FileMissingError, FormatError
from epochal.stores import open_store, remote_system

X = np.random.default_rng(0).integers(0, 256, (3000, 100), "u1")


def npy(array=X):
    """The bytes of a NumPy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def hdf5(array=X):
    """The bytes of an HDF5 file."""
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root.create_dataset("X", data=array, chunks=(100, 100), compression="gzip")
    return file.getvalue()


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def zarr_files(folder, **how):
    """A Zarr folder as bytes by key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(folder / "a", shape=X.shape, dtype="u1", chunks=(100, 100), **how)[
            ...
        ] = X
    return {
        str(path.relative_to(folder / "a")): path.read_bytes()
        for path in (folder / "a").rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "data"), [("X.npy", npy()), ("a.h5", hdf5())])
def test_files_in_memory(memory, name, data):
    memory.pipe(f"/folder/{name}", data)
    with epochal.open(f"memory://folder/{name}") as ds:
        assert (ds["X"][...] == X).all()
        batches = ds.batches("shuffled_sequential", batch_size=64, seed=0)
        assert sum(len(batch.X) for batch in batches) == len(X)


@pytest.mark.parametrize("how", [{}, {"shards": (1000, 100)}, {"zarr_format": 2}])
def test_a_zarr_folder_in_memory(memory, tmp_path, how):
    for key, data in zarr_files(tmp_path, **how).items():
        memory.pipe(f"/a/{key}", data)
    with epochal.open("memory://a") as ds:
        assert (ds["a"][...] == X).all()


def test_a_pattern_in_memory(memory):
    for number in range(11):
        memory.pipe(f"/part-{number}.npy", npy(X[number * 10 : number * 10 + 10]))
    stores = open_store("memory://part-*.npy")
    assert stores.sources
    stores.close()


def test_an_object_in_memory_that_was_replaced(memory, monkeypatch):
    memory.pipe("/folder/X.npy", npy())
    source = open_store("memory://folder/X.npy").sources["X"]
    monkeypatch.setattr(remote_system, "RECHECK_SECONDS", -1)
    memory.pipe("/folder/X.npy", npy(X[::-1]))
    with pytest.raises(ChangedError, match=r"memory://folder/X\.npy is no longer the object"):
        source.read_rows(np.array([1]), np.empty((1, 100), "u1"))


def test_an_object_in_memory_that_is_shorter(memory):
    memory.pipe("/folder/X.npy", npy())
    source = open_store("memory://folder/X.npy").sources["X"]
    memory.pipe("/folder/X.npy", npy(X[:100]))
    with pytest.raises(ChangedError, match=r"it had \d+ bytes, now it has \d+"):
        source.read_rows(np.array([2000]), np.empty((1, 100), "u1"))


def test_a_missing_object_in_memory(memory):
    with pytest.raises(FileMissingError, match=r"memory://none\.h5: there is no such object"):
        open_store("memory://none.h5")


@pytest.mark.parametrize("name", ["X.npy", "X#1.npy", "X?.npy", "X 1.npy", "X%1.npy"])
def test_file_urls(tmp_path, name):
    (tmp_path / name).write_bytes(npy())
    (tmp_path / "X").write_bytes(b"Another one.")
    with epochal.open(f"file://{tmp_path}/{name.replace('%', '%25')}") as ds:
        [view] = ds.sources.values()
        assert (view[...] == X).all()


def test_file_urls_of_this_host(tmp_path):
    (tmp_path / "X.npy").write_bytes(npy())
    with epochal.open(f"file://localhost{tmp_path}/X.npy") as ds:
        assert len(ds) == len(X)


def test_relative_file_urls(tmp_path, monkeypatch):
    """As fsspec has them; of ``file://data/X.npy`` nothing is the name of a host."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/X.npy").write_bytes(npy())
    monkeypatch.chdir(tmp_path)
    with epochal.open("file://data/X.npy") as ds:
        assert len(ds) == len(X)


@pytest.fixture
def cached(server, tmp_path, monkeypatch):
    """A server without ranges, whose files are downloaded into a folder."""
    server.files |= {"/X.npy": npy(), "/a.h5": hdf5()}
    server.faults.no_ranges = True
    monkeypatch.setitem(
        fsspec.config.conf, "simplecache", {"cache_storage": str(tmp_path / "cache")}
    )
    return f"simplecache::{server.url}"


@pytest.mark.parametrize("name", ["X.npy", "a.h5"])
def test_simplecache(cached, name):
    with epochal.open(f"{cached}/{name}") as ds:
        assert (ds["X"][...] == X).all()


def test_simplecache_downloads_once(cached, server):
    with epochal.open(f"{cached}/X.npy") as ds:
        assert (ds["X"][...] == X).all()
        server.asked()
        assert (ds["X"][...] == X).all()
        assert server.bytes_sent == 0


def test_a_pickle_of_a_chain_reads_the_same(cached):
    with epochal.open(f"{cached}/X.npy") as ds:
        copy = pickle.loads(pickle.dumps(ds))
        assert (copy["X"][...] == X).all()
        copy.close()


@pytest.fixture
def archive(server):
    """The URL of a zip archive with ``X.npy``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as root:
        root.writestr("X.npy", npy())
        root.writestr("parts/a.h5", hdf5())
    server.files["/a.zip"] = file.getvalue()
    return f"{server.url}/a.zip"


@pytest.mark.parametrize("member", ["X.npy", "parts/a.h5"])
def test_a_member_of_an_archive(archive, member):
    with epochal.open(f"zip://{member}::{archive}") as ds:
        [view] = ds.sources.values()
        assert (view[...] == X).all()
        batches = ds.batches("shuffled_sequential", batch_size=64, seed=0)
        assert sum(len(rows) for (rows,) in batches) == len(X)


def test_a_missing_member_of_an_archive(archive):
    with pytest.raises(FileMissingError, match=r"zip://none\.npy::http.*: there is no such object"):
        open_store(f"zip://none.npy::{archive}")


@pytest.mark.parametrize("url", ["foo://x", "foo://x/*.h5", "simplecache::foo://x"])
def test_an_unknown_scheme_names_those_that_are_known(url):
    with pytest.raises(
        FormatError, match=r"foo://x.*: no file system is known.*https.*s3"
    ) as caught:
        open_store(url)
    assert url in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("s3://bucket/a.h5", "s3fs", "s3"), ("gs://bucket/a.h5", "gcsfs", "gs")],
)
def test_a_package_that_is_not_installed_is_named(monkeypatch, url, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})
    with pytest.raises(
        FormatError, match=rf"{url}: .*needs a package: pip install 'epochal\[{extra}\]'"
    ):
        open_store(url)


def test_without_fsspec_urls_say_what_to_install(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("epochal.stores.remote") and name != "epochal.stores.remote_cache":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(
        FormatError, match=r"not installed: pip install 'epochal\[remote\]'"
    ) as caught:
        open_store("http://me:s3cret@127.0.0.1:1/a.h5")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a.h5", "http://host/a.h5"),
        ("http://me:s3cret@host/a.h5", "http://me@host/a.h5"),
        ("https://host/a.h5?X-Amz-Signature=s3cret", "https://host/a.h5?..."),
        ("simplecache::https://host/a.h5?s3cret", "simplecache::https://host/a.h5?..."),
        ("zip://X.npy::https://me:s3cret@host/a.zip", "zip://X.npy::https://me@host/a.zip"),
    ],
)
def test_what_is_shown_of_a_url(url, shown):
    assert remote_system.shown(url) == shown
