"""Objects of S3, from a server on loopback."""

import io
import multiprocessing
import os
import sys
import warnings
from operator import getitem

import boto3
import fsspec
import h5py
import numpy as np
import pytest
import s3fs
import zarr
from moto.server import ThreadedMotoServer

import epochal
from epochal.errors import ChangedError, FileMissingError, FormatError
from epochal.stores import open_store, remote_s3

X = np.random.default_rng(0).integers(0, 256, (3000, 100), "u1")
KEYS = {"key": "me", "secret": "s3cret"}


@pytest.fixture(scope="module")
def endpoint():
    """The address of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(endpoint):
    """A client of it, and an empty bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEYS["key"],
        aws_secret_access_key=KEYS["secret"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    yield client
    client.close()


def hang_up():
    """Close what s3fs keeps for whoever comes next: nobody does."""
    for system in list(s3fs.S3FileSystem._cache.values()):
        if system._s3 is not None:
            s3fs.S3FileSystem.close_session(system.loop, system._s3)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def put(client, endpoint, monkeypatch, impatient):
    """Put an object, and get its URL; fsspec's configuration says where the server is."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint, **KEYS})

    def put(key, data):
        client.put_object(Bucket="bucket", Key=key, Body=data)
        return f"s3://bucket/{key}"

    hang_up()
    yield put
    for each in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=each["Key"])
    hang_up()


def hdf5(array=X, **how):
    """The bytes of an HDF5 file."""
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root.create_dataset("X", data=array, chunks=(100, array.shape[1]), **how)
    return file.getvalue()


def npy(array):
    """The bytes of a NumPy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def put_zarr(put, folder, **how):
    """A Zarr folder, put key by key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            folder / "a", shape=X.shape, dtype=X.dtype, chunks=(500, 100), **how
        )
        array[...] = X
    for path in (folder / "a").rglob("*"):
        if path.is_file():
            put(f"a.zarr/{path.relative_to(folder / 'a')}", path.read_bytes())
    return "s3://bucket/a.zarr"


@pytest.mark.parametrize("scheme", ["sequential", "shuffled_sequential"])
def test_hdf5(put, tmp_path, scheme):
    data = hdf5(compression="gzip")
    (tmp_path / "a.h5").write_bytes(data)
    with epochal.open(put("a.h5", data)) as there, epochal.open(tmp_path / "a.h5") as here:
        epochs = [ds.batches(scheme, batch_size=128, seed=2) for ds in (here, there)]
        for ours, theirs in zip(*epochs, strict=True):
            assert (ours.X == theirs.X).all()


def test_npy(put):
    with epochal.open(put("X.npy", npy(X))) as ds:
        assert (ds["X"][...] == X).all()


@pytest.mark.parametrize("how", [{}, {"shards": (1500, 100)}, {"zarr_format": 2}])
def test_a_zarr_folder(put, tmp_path, how):
    with epochal.open(put_zarr(put, tmp_path, **how)) as ds:
        [name] = ds.sources
        assert (ds[name][...] == X).all()


def test_a_pattern(put):
    for number in range(3):
        put(f"parts/part-{number}.h5", hdf5(X[number * 100 : number * 100 + 100]))
    put("parts/notes.txt", b"Nothing to read.")
    with epochal.open("s3://bucket/parts/part-*.h5") as ds:
        assert (ds["X"][...] == X[:300]).all()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder(put, slash):
    for number in range(2):
        put(f"parts/part-{number}.npy", hdf5(X[number * 100 : number * 100 + 100]))
    with epochal.open("s3://bucket/parts" + slash) as ds:
        assert (ds["X"][...] == X[:200]).all()


def test_a_bucket_is_a_folder(put):
    put("a.h5", hdf5())
    with epochal.open("s3://bucket") as ds:
        assert (ds["X"][...] == X).all()


@pytest.mark.parametrize("change", [b"?", b"more"])
def test_an_object_that_was_replaced(put, change):
    data = npy(X)
    with epochal.open(put("X.npy", data)) as ds:
        assert (ds["X"][:5] == X[:5]).all()
        put("X.npy", data[:-1] + change)
        with pytest.raises(
            ChangedError, match=r"s3://bucket/X\.npy is no longer the object that was opened"
        ):
            ds["X"][:5]


def test_an_object_that_was_deleted(put, client):
    with epochal.open(put("X.npy", npy(X))) as ds:
        client.delete_object(Bucket="bucket", Key="X.npy")
        with pytest.raises(FileNotFoundError, match=r"s3://bucket/X\.npy: there is no such object"):
            ds["X"][:5]


@pytest.mark.parametrize("url", ["s3://bucket/none.h5", "s3://nowhere/a.h5", "s3://nowhere"])
def test_a_missing_object(put, url):
    with pytest.raises(FileMissingError, match=rf"{url}: there is no such object"):
        open_store(url)


def test_a_pattern_that_nothing_matches(put):
    with pytest.raises(FileMissingError, match="the pattern matches nothing"):
        open_store("s3://bucket/none-*.h5")


def test_an_empty_object(put):
    with pytest.raises(FormatError, match=r"the file is empty \(0 bytes\)"):
        open_store(put("a.h5", b""))


def test_no_credentials(put, endpoint, monkeypatch):
    url = put("a.h5", hdf5())
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
    hang_up()
    with pytest.raises(FormatError, match=r"a\.h5: may not be read .*redentials.*anon"):
        open_store(url)


def test_a_server_that_is_not_there(put, monkeypatch):
    monkeypatch.setattr(remote_s3, "TIMEOUT_SECONDS", 5)
    none = {"endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    monkeypatch.setitem(fsspec.config.conf, "s3", {**none, **KEYS})
    hang_up()
    with pytest.raises(FormatError, match=r"s3://bucket/a\.h5: cannot be read"):
        open_store("s3://bucket/a.h5")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(put, endpoint, monkeypatch, method):
    """A new process takes its configuration from the environment."""
    url = put("a.h5", hdf5(compression="gzip"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("FSSPEC_S3_KEY", KEYS["key"])
    monkeypatch.setenv("FSSPEC_S3_SECRET", KEYS["secret"])
    with epochal.open(url) as ds, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        view = ds["X"]
        assert (view[...] == X).all()
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert (pool.apply(getitem, (view, slice(None))) == X).all()


def test_the_endpoint_of_the_environment(put, endpoint, monkeypatch):
    url = put("a.h5", hdf5())
    monkeypatch.setitem(fsspec.config.conf, "s3", dict(KEYS))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    hang_up()
    with epochal.open(url) as ds:
        assert (ds["X"][:5] == X[:5]).all()
