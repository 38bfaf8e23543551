"""Rows that are read alone: by lists of reads where the system takes them, one by one elsewhere."""

import os
import threading

import h5py
import numpy as np
import pytest

from epochal.errors import DamageError, RowError
from epochal.stores import many, open_store, rows

N = 3000


@pytest.fixture(scope="module", params=[16, 700, 3072, 5000], ids="{} bytes a row".format)
def table(request, tmp_path_factory):
    """A ``.npy`` of rows of some length, and what is in it."""
    path = tmp_path_factory.mktemp("rows") / "X.npy"
    X = np.random.default_rng(0).integers(0, 256, (N, request.param), np.uint8)
    np.save(path, X)
    return path, X


def read(source, wanted):
    """By both ways: into one array, and into several."""
    out = np.empty((len(wanted), *source.layout.row_shape), source.layout.dtype)
    source.read_rows(wanted, out)
    parts = [np.zeros_like(part) for part in np.split(out, [0, len(out) // 3, len(out) // 2])]
    rows.read_rows_into(source, wanted, parts)
    assert (np.concatenate(parts) == out).all()
    return out


WANTED = {
    "far apart": np.arange(0, N, 7),
    "any order, repeats": np.random.default_rng(1).integers(0, N, 900),
    "runs and single rows": np.r_[5:60, 100, 2000:2100, 2500, 10:70],
    "many, far apart": np.random.default_rng(2).integers(0, N, 300),
    "one": np.array([N - 1]),
    "none": np.empty(0, np.int64),
}


@pytest.mark.parametrize("by", ["rings", "lists", "one by one"])
@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_rows_in_any_order(table, wanted, by, monkeypatch):
    if by != "rings":
        monkeypatch.setattr(many, "ring_here", lambda: None)
    if by == "one by one":
        monkeypatch.setattr(many, "_calls", lambda: None)
    path, X = table
    store = open_store(path)
    assert (read(store.sources["X"], wanted) == X[wanted]).all()
    store.close()


def test_a_fork_makes_lists_of_its_own(table):
    path, X = table
    source = open_store(path).sources["X"]
    wanted = WANTED["far apart"]
    assert (read(source, wanted) == X[wanted]).all()
    child = os.fork()
    if not child:
        os._exit(0 if (read(source, wanted) == X[wanted]).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_threads(table):
    path, X = table
    source = open_store(path).sources["X"]
    wrong = []

    def work(seed):
        wanted = np.random.default_rng(seed).integers(0, N, 500)
        for _ in range(20):
            if not (read(source, wanted) == X[wanted]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rows_past_the_end_of_a_file_cut_short(table, monkeypatch):
    """As when it is cut while it is read, so that no check before the read tells."""
    path, X = table
    source = open_store(path).sources["X"]
    monkeypatch.setattr(type(source._file), "_compare", lambda *_: None)
    os.truncate(path, path.stat().st_size - X.shape[1] - 1)
    wanted = np.array([1, 50, N - 1, N - 2])
    with pytest.raises(DamageError, match="the file ends"):
        read(source, wanted)
    parts = np.empty((2, 2, X.shape[1]), np.uint8)
    with pytest.raises(DamageError, match="the file ends"):
        rows.read_rows_into(source, wanted, list(parts))
    np.save(path, X)


def test_a_queue_that_the_system_does_not_give(table, monkeypatch):
    path, X = table
    calls = many._Calls(lambda *_: -1, None, None)
    monkeypatch.setattr(many, "ring_here", lambda: None)
    monkeypatch.setattr(many, "_calls", lambda: calls)
    monkeypatch.setattr(many, "_idle", {})
    source = open_store(path).sources["X"]
    wanted = WANTED["far apart"]
    assert (read(source, wanted) == X[wanted]).all()


def test_reads_that_fail_are_done_again(table, monkeypatch):
    """A read that brings less than was asked is made anew, and tells what is wrong itself."""
    path, X = table
    monkeypatch.setattr(many, "ring_here", lambda: None)
    monkeypatch.setattr(many._Queue, "run", lambda *_: False)
    source = open_store(path).sources["X"]
    wanted = WANTED["far apart"]
    assert (read(source, wanted) == X[wanted]).all()


def test_a_row_that_is_not_there(table):
    path, X = table
    source = open_store(path).sources["X"]
    with pytest.raises(RowError, match=f"asked for row {N}"):
        rows.read_rows_into(source, np.array([0, N]), list(np.empty((2, 1, X.shape[1]), np.uint8)))


def test_rows_of_several_arrays_come_by_lists(tmp_path, monkeypatch):
    """Only where they lie apart; and nothing is read a second time."""
    X = np.random.default_rng(0).integers(0, 256, (N, 2000), np.uint8)
    np.save(tmp_path / "X.npy", X)
    source = open_store(tmp_path / "X.npy").sources["X"]
    if many._calls() is None:
        pytest.skip("this system takes no lists of reads")
    monkeypatch.setattr(type(source), "read_rows", lambda *_: pytest.fail("read one by one"))
    wanted = np.random.default_rng(1).permutation(N)[:100]
    parts = [np.zeros((n, 2000), np.uint8) for n in (30, 0, 70)]
    rows.read_rows_into(source, wanted, parts)
    assert (np.concatenate(parts) == X[wanted]).all()


def test_padding_of_strings(tmp_path):
    """What HDF5 pads with blanks comes with nulls, into several arrays too."""
    text = np.array([[f"{i:03d}"] * 200 for i in range(400)], "S3")
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(5)
    kind.set_strpad(h5py.h5t.STR_SPACEPAD)
    with h5py.File(tmp_path / "text.h5", "w") as file:
        space = h5py.h5s.create_simple(text.shape)
        made = h5py.h5d.create(file.id, b"X", kind, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, text, mtype=h5py.h5t.py_create(text.dtype))
    source = open_store(tmp_path / "text.h5").sources["X"]
    wanted = np.random.default_rng(0).permutation(400)
    parts = [np.zeros((200, 200), "S5") for _ in range(2)]
    rows.read_rows_into(source, wanted, parts)
    assert (np.concatenate(parts) == text[wanted]).all()


def test_lists_are_what_is_meant():
    """Where this machine has the call, it is used."""
    if many._calls() is None:
        pytest.skip("this system takes no lists of reads")
    data = np.arange(100, dtype=np.uint8)
    with open(os.memfd_create("rows"), "wb+", buffering=0) as file:
        file.write(data.tobytes())
        out = np.zeros((2, 5), np.uint8)
        addresses = np.array([out.ctypes.data, out.ctypes.data + 5], np.uint64)
        seen = many.submit(file.fileno(), np.array([90, 10]), addresses, 5)
    assert seen == 2
    assert out.tolist() == [[90, 91, 92, 93, 94], [10, 11, 12, 13, 14]]
    assert rows.submit is many.submit


@pytest.mark.parametrize("holes", [False, True], ids=["all stored", "some not stored"])
def test_unfiltered_chunks_into_several_arrays(tmp_path, holes):
    """Of which some may not be there: their rows are the fill value."""
    X = np.random.default_rng(0).integers(0, 256, (N, 1000), np.uint8)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        made = file.create_dataset("X", X.shape, "u1", chunks=(50, 1000), fillvalue=7)
        for start in range(0, N, 50):
            if holes and start % 200 == 0:
                X[start : start + 50] = 7
            else:
                made[start : start + 50] = X[start : start + 50]
    source = open_store(tmp_path / "X.h5").sources["X"]
    assert source.layout.rows_alone
    wanted = np.random.default_rng(1).permutation(N)[:300]
    parts = [np.zeros((n, 1000), np.uint8) for n in (100, 150, 50)]
    rows.read_rows_into(source, wanted, parts)
    assert (np.concatenate(parts) == X[wanted]).all()
