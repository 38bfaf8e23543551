"""Archives of arrays: streams go on from where they were, in bounded memory, and lies are found."""

import gc
import io
import multiprocessing
import pickle
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse
from click.testing import CliRunner
from test_archive import space

import epochal
from epochal.cli import app
from epochal.errors import ChangedError, DamageError, FormatError, ScratchError, UnsafeError
from epochal.execute.probe import probe_source
from epochal.stores import npz_stream, open_store
from epochal.stores.archive_copy import UnpackedCopy
from epochal.stores.archive_inflate import Inflater

MIB = 1 << 20


def numbers(n_rows, n_columns=1000):
    return np.random.default_rng(0).integers(0, 16, (n_rows, n_columns)).astype("u1")


def saved(path, **arrays):
    np.savez_compressed(path, **arrays)
    return open_store(path)


def read(source, start, stop):
    first, last = source.layout.bounds(start)[0], source.layout.bounds(stop - 1)[1]
    out = np.empty((last - first, *source.layout.row_shape), source.layout.dtype)
    source.read(start, stop, out)
    return out


def read_all(source):
    return [read(source, chunk, chunk + 1) for chunk in range(source.layout.n_chunks)]


def rows_of(source, start, stop):
    return slice(source.layout.bounds(start)[0], source.layout.bounds(stop - 1)[1])


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("EPOCHAL_SCRATCH", str(folder))
    return folder


@pytest.fixture
def unpacked(monkeypatch):
    """Counts what is unpacked: its sum is the number of bytes."""
    counts = []
    more = Inflater._more

    def counting(self, read, most):
        data = more(self, read, most)
        counts.append(len(data))
        return data

    monkeypatch.setattr(Inflater, "_more", counting)
    return counts


def test_in_order_each_byte_is_unpacked_once(tmp_path, unpacked):
    X = numbers(9000)
    source = saved(tmp_path / "a.npz", X=X).sources["X"]
    assert sum(unpacked) <= 4096  # opening looks at the header only
    unpacked.clear()
    for chunk in range(source.layout.n_chunks):
        assert (read(source, chunk, chunk + 1) == X[rows_of(source, chunk, chunk + 1)]).all()
    assert sum(unpacked) == X.nbytes + 128
    unpacked.clear()
    last = source.layout.n_chunks - 2
    read(source, last, last + 1)  # goes on from a state that was kept, not from the front
    assert sum(unpacked) < (npz_stream.MIN_SPACING_BYTES * 9 // 8) * 2


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_do_not_overtake_each_other(tmp_path, unpacked, threads):
    X = numbers(12_000)
    store = saved(tmp_path / "a.npz", X=X)
    unpacked.clear()
    with epochal.open(tmp_path / "a.npz") as ds:
        batches = ds.batches("sequential", 500, memory="64MiB", threads=threads)
        assert batches.plan is not None
        unpacked.clear()
        for number, batch in enumerate(batches):
            assert np.array_equal(batch.X, X[number * 500 : number * 500 + 500])
    assert sum(unpacked) <= 1.2 * X.nbytes
    store.close()


def test_whoever_is_first_in_the_file_goes_first(tmp_path, unpacked):
    """Eight threads wait for a ninth; then each goes on where the one before it ended."""
    X = numbers(12_000)
    source = saved(tmp_path / "a.npz", X=X).sources["X"]
    read(source, 0, 1)
    [stream] = source._streams.values()
    unpacked.clear()
    with ThreadPoolExecutor(8) as pool:
        with stream._turn(0):
            results = [
                pool.submit(read, source, chunk, chunk + 1) for chunk in (8, 3, 5, 1, 7, 2, 6, 4)
            ]
            while len(stream._waiting) < 8:
                time.sleep(0.001)
        for chunk, result in zip((8, 3, 5, 1, 7, 2, 6, 4), results, strict=True):
            assert (result.result() == X[rows_of(source, chunk, chunk + 1)]).all()
    assert sum(unpacked) == 8 * source.layout.chunk_bytes


def test_probing_does_not_unpack_what_lies_before_the_middle(tmp_path, unpacked):
    source = saved(tmp_path / "a.npz", X=numbers(15_000)).sources["X"]
    unpacked.clear()
    rates = probe_source(source, 2)
    assert sum(unpacked) <= 6 * MIB
    assert rates.decode_bytes_per_s > 0


def test_memory_is_what_the_layout_says(tmp_path):
    """States, blocks and all, after reading all over the array."""
    X = np.zeros((40_000, 1000), "u1")  # a block of it unpacks to a thousand times as much
    X[::7, ::3] = numbers(40_000, 1000)[::7, ::3]
    source = saved(tmp_path / "a.npz", X=X).sources["X"]
    out = np.empty((source.layout.chunk_rows, 1000), "u1")
    tracemalloc.start()
    for chunk in np.random.default_rng(0).permutation(source.layout.n_chunks - 1)[:20]:
        source.read(int(chunk), int(chunk) + 1, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # What zlib itself holds is not traced.
    assert peak <= source.layout.read_overhead_bytes
    [stream] = source._streams.values()
    held = len(stream._marks) + len(stream._recent)
    assert held <= npz_stream.MARKS + 1 + npz_stream.RECENT
    assert source.layout.read_overhead_bytes < 2 * MIB


def test_out_of_order_a_copy_is_made_in_the_end(tmp_path, scratch, unpacked):
    X = numbers(12_000)
    store = saved(tmp_path / "a.npz", X=X)
    source = store.sources["X"]
    unpacked.clear()
    for _ in range(6):
        for chunk in reversed(range(source.layout.n_chunks)):
            assert (read(source, chunk, chunk + 1) == X[rows_of(source, chunk, chunk + 1)]).all()
    assert sum(unpacked) < 7 * X.nbytes
    assert space(scratch) == X.nbytes + 128
    unpacked.clear()
    assert (read(source, 0, source.layout.n_chunks) == X).all()
    assert not unpacked
    with open(tmp_path / "a.npz", "ab") as file:
        file.write(b"more")
    with pytest.raises(ChangedError):
        read(source, 0, 1)
    store.close()
    assert space(scratch) == 0
    with pytest.raises(FormatError, match="was closed"):
        read(source, 0, 1)


@pytest.mark.parametrize("fits", [False, True])
def test_out_of_order_without_room(tmp_path, scratch, monkeypatch, fits):
    """No copy where it would take more than half of what is free, or fails after all."""
    X = numbers(5000)
    source = saved(tmp_path / "a.npz", X=X).sources["X"]
    monkeypatch.setattr(UnpackedCopy, "fits", lambda self: fits)

    def failing(fd, data, at):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", failing)
    for chunk in [4, 3, 2, 1, 0] * 6:
        assert (read(source, chunk, chunk + 1) == X[rows_of(source, chunk, chunk + 1)]).all()
    assert space(scratch) == 0


def test_columns_first_is_unpacked_once(tmp_path, scratch, unpacked):
    X = np.asarray(numbers(6000), order="F")
    store = saved(tmp_path / "a.npz", X=X, y=np.asfortranarray(np.arange(6000)))
    assert store.sources["y"].layout.kind == "streamed"  # one column is in order
    layout = store.sources["X"].layout
    assert (layout.codec, layout.rows_alone) == ("deflate, columns first", False)
    assert space(scratch) == 0
    unpacked.clear()
    source = store.sources["X"]
    for chunk in range(layout.n_chunks):
        assert (read(source, chunk, chunk + 1) == X[rows_of(source, chunk, chunk + 1)]).all()
    assert sum(unpacked) == X.nbytes + 128
    assert space(scratch) == X.nbytes + 128
    again = pickle.loads(pickle.dumps(store))
    store.close()
    assert space(scratch) == 0
    assert (read(again.sources["X"], 0, 1) == X[rows_of(source, 0, 1)]).all()
    del again
    gc.collect()
    assert space(scratch) == 0


def test_columns_first_without_room(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_SCRATCH", str(tmp_path / "nowhere"))
    store = saved(tmp_path / "a.npz", X=np.asarray(numbers(60), order="F"))
    with pytest.raises(ScratchError, match=r"cannot be unpacked into .*nowhere'.*EPOCHAL_SCRATCH"):
        read(store.sources["X"], 0, 1)


def test_a_pickle_asks_for_no_file(tmp_path):
    X = numbers(3000)
    store = saved(tmp_path / "a.npz", X=X, F=np.asfortranarray(X))
    read(store.sources["X"], 1, 2)
    data = pickle.dumps(store)
    assert len(data) < 10_000
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    copy = pickle.loads(data)
    with pytest.raises(FileNotFoundError):
        read(copy.sources["X"], 0, 1)
    (tmp_path / "b.npz").rename(tmp_path / "a.npz")
    assert (read(copy.sources["X"], 0, 3) == X).all()


def test_a_fork_does_not_wait_for_the_threads_of_its_parent(tmp_path):
    X = numbers(3000)
    source = saved(tmp_path / "a.npz", X=X).sources["X"]
    read(source, 0, 1)
    [stream] = source._streams.values()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with stream._turn(0):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads: that is the test
        child = multiprocessing.get_context("fork").Process(target=read, args=(source, 1, 2))
        child.start()
    child.join(30)
    leave.set()
    thread.join()
    assert child.exitcode == 0


def test_arrays_without_items(tmp_path):
    store = saved(tmp_path / "a.npz", none=np.zeros((0, 3)), wide=np.zeros((5, 0)), one=np.zeros(1))
    assert {name: source.layout.shape for name, source in store.sources.items()} == {
        "none": (0, 3),
        "wide": (5, 0),
        "one": (1,),
    }
    assert read(store.sources["wide"], 0, 1).shape == (5, 0)


def test_what_is_no_source_is_listed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, bad=np.array([{}], object), good=np.arange(3), scalar=np.float64(1))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", b"hello")
        archive.writestr("sub/x.npy", b"not an array")
        archive.writestr("packed.npy", npy(np.arange(4)), zipfile.ZIP_BZIP2)
        archive.writestr("empty.npy", b"", zipfile.ZIP_DEFLATED)
    store = open_store(path)
    assert list(store.sources) == ["good"]
    others = {other.name: other for other in store.others}
    assert others["bad"].unsafe
    assert "holds pickled Python objects" in others["bad"].why
    assert others["scalar"].why.endswith("a scalar: it has no rows")
    assert "does not end in .npy" in others["notes.txt"].why
    assert "it begins with b'not an'" in others["sub/x"].why
    assert "only deflate is read" in others["packed"].why
    assert "not a .npy file" in others["empty"].why
    page = CliRunner().invoke(app, ["info", str(path)])
    assert page.exit_code == 0
    assert "pickled" in " ".join(page.stdout.split())


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_archives_without_arrays_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", b"hello")
    with pytest.raises(FormatError, match="it looks like a zip archive without arrays"):
        open_store(tmp_path / "a.zip")
    np.savez(tmp_path / "b.npz")
    with pytest.raises(FormatError, match="it looks like an empty zip archive"):
        open_store(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("../X.npy", npy(np.arange(3)))
    with pytest.raises(UnsafeError, match="a place outside of the archive"):
        open_store(tmp_path / "c.npz")


def test_damage_is_found_where_it_is(tmp_path):
    X = numbers(6000)
    saved(tmp_path / "a.npz", X=X)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 16
    (tmp_path / "a.npz").write_bytes(data)
    source = open_store(tmp_path / "a.npz").sources["X"]
    assert (read(source, 0, 1) == X[rows_of(source, 0, 1)]).all()
    with pytest.raises(
        DamageError,
        match=r"source 'X', chunk \d, rows \d+ to \d+: .*a\.npz/X\.npy: does not unpack: .*Restore",
    ):
        read_all(source)
    assert (read(source, 0, 1) == X[rows_of(source, 0, 1)]).all()  # that one is still right


@pytest.mark.parametrize("field", ["central", "both"])
def test_a_wrong_checksum_is_found_at_the_end(tmp_path, field):
    X = numbers(3000)
    saved(tmp_path / "a.npz", X=X)
    data = (tmp_path / "a.npz").read_bytes()
    wrong = struct.pack("<I", 12345)
    right = struct.pack("<I", zlib.crc32(npy(X)))
    assert data.count(right) == 2
    data = data.replace(right, wrong) if field == "both" else wrong.join(data.rsplit(right, 1))
    (tmp_path / "a.npz").write_bytes(data)
    source = open_store(tmp_path / "a.npz").sources["X"]
    read(source, 0, 2)
    with pytest.raises(DamageError, match=r"source 'X', chunk 2, .*its checksum is not"):
        read(source, 2, 3)


def test_what_follows_the_rows_would_hide_a_wrong_checksum(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", npy(np.arange(100)) + b"more")
        archive.writestr("Y.npy", npy(np.arange(100)))
    store = open_store(tmp_path / "a.npz")
    assert list(store.sources) == ["Y"]
    assert "ends after 928 of 932 bytes: damaged" in store.others[0].why


def test_bombs_are_refused_or_bounded(tmp_path):
    """Headers that declare more than there is, and members that unpack to less or more."""
    path = tmp_path / "a.npz"
    huge = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
    head = (huge % 2**50).ljust(127) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", head + bytes(1000))
    [other] = open_store(path).others
    assert f"takes {2**50} bytes after the header, and the file has 1000" in other.why
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 24
    path.write_bytes(data[:at] + struct.pack("<I", 1 << 31) + data[at + 4 :])
    with pytest.raises(FormatError, match="more than deflate can hold"):
        open_store(path)
    # A hundred megabytes of zeros are what they are: read in bounded memory.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", (huge % (100 * MIB)).ljust(127) + b"\n" + bytes(100 * MIB))
    source = open_store(path).sources["X"]
    out = np.ones(source.layout.chunk_rows, "u1")
    tracemalloc.start()
    for chunk in range(source.layout.n_chunks):
        source.read(chunk, chunk + 1, out)
        assert not out.any()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MIB


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_matrices_that_scipy_saved(tmp_path, compressed, kind):
    matrix = scipy.sparse.random(500, 40, 0.1, "csr", "f4", random_state=0)
    scipy.sparse.save_npz(tmp_path / "train.npz", kind(matrix), compressed=compressed)
    with epochal.open(tmp_path / "train.npz") as ds:
        assert list(ds.sources) == ["train"]
        assert ds["train"].shape == (500, 40)
        dense = matrix.toarray()
        for number, batch in enumerate(ds.batches("sequential", 64)):
            rows = slice(number * 64, number * 64 + 64)
            assert np.array_equal(batch.train.dense(), dense[rows])


def test_matrices_by_columns_and_archives_that_only_look_alike(tmp_path):
    matrix = scipy.sparse.random(50, 40, 0.1, "csc", "f4", random_state=0)
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix)
    [other] = [other for other in open_store(tmp_path / "a.npz").others if other.name == "a"]
    assert "stored by columns" in other.why
    scipy.sparse.save_npz(tmp_path / "b.npz", matrix.tocoo())
    assert set(open_store(tmp_path / "b.npz").sources) == {"row", "col", "data", "shape"}
    parts = {"data": np.ones(3), "indices": np.arange(3), "indptr": np.array([0, 3])}
    for other in ({}, {"format": np.arange(3)}, {"format": np.bytes_(b"bsr")}):
        np.savez(tmp_path / "c.npz", **parts, **other, shape=[1, 3])
        assert {"data", "indices", "indptr"} <= set(open_store(tmp_path / "c.npz").sources)


def test_labels_beside_a_matrix(tmp_path):
    matrix = scipy.sparse.random(500, 40, 0.1, "csr", "f4", random_state=0)
    np.savez(
        tmp_path / "a.npz",
        data=matrix.data,
        indices=matrix.indices,
        indptr=matrix.indptr,
        shape=matrix.shape,
        format=b"csr",
        y=np.arange(500),
    )
    assert list(open_store(tmp_path / "a.npz").sources) == ["a", "y"]


def test_opening_imports_no_other_library(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X=np.arange(5))
    code = f"""
import sys, epochal
assert epochal.open({str(tmp_path / "a.npz")!r})["X"][:].tolist() == [0, 1, 2, 3, 4]
print(sorted({{"h5py", "scipy", "zipfile"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
