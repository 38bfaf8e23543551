"""Several files as one: rows one after another, or one error that names what differs."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
import scipy.sparse
from hdf5_files import read_all
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal.errors import DamageError, FileMissingError, FormatError, MismatchError, RowError
from epochal.stores import descriptor, open_store
from epochal.stores.concat import ConcatSource
from epochal.stores.memory import ArraySource
from epochal.stores.rows import read_into, read_rows_into
from epochal.testing.stores import ChunkedArrays


def write(path, rows, first=0, chunk=7, **more):
    with h5py.File(path, "w") as file:
        X = np.arange(first * 3, (first + rows) * 3, dtype="i4").reshape(rows, 3)
        chunks = (min(chunk, rows), 3) if rows else None
        file.create_dataset("X", data=X, chunks=chunks, compression="gzip" if rows else None)
        file["y"] = np.arange(first, first + rows)
        for name, value in more.items():
            file[name] = value


@pytest.fixture
def parts(tmp_path):
    """Eleven files, some of no rows: 0 to 10 rows each."""
    first = 0
    for number in range(11):
        write(tmp_path / f"part-{number}.h5", number, first, chunk=2 + number % 3)
        first += number
    return tmp_path


def check(ds, n=55):
    assert len(ds) == n
    assert (ds["X"][...] == np.arange(n * 3).reshape(n, 3)).all()
    batches = ds.batches("shuffled_sequential", batch_size=4, seed=0, memory="1MiB")
    seen = []
    for batch in batches:
        assert (batch.X[:, 0] == batch.y * 3).all()
        seen.extend(batch.y.tolist())
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(n))


def test_a_pattern_a_list_and_a_folder(parts):
    check(epochal.open(parts / "part-*.h5"))
    check(epochal.open(str(parts / "**" / "part-*.h5")))
    check(epochal.open(parts))
    names = [parts / f"part-{number}.h5" for number in range(11)]
    check(epochal.open(names))
    assert epochal.open(names[::-1])["y"][0] == 45
    assert len(epochal.open(names[3:4])) == 3
    assert "11 files" in repr(epochal.open(names))


def test_a_folder_says_what_it_left_out(parts):
    (parts / "notes.txt").write_text("hello")
    (parts / ".hidden").write_text("hello")
    store = open_store(parts)
    assert [other.name for other in store.others] == ["notes.txt"]


def test_nothing_there(tmp_path):
    with pytest.raises(FileMissingError, match=r"part-\*\.h5: the pattern matches no file"):
        epochal.open(tmp_path / "part-*.h5")
    with pytest.raises(FormatError, match="no file was named"):
        epochal.open([])
    with pytest.raises(FormatError, match="a folder in which no file"):
        epochal.open(tmp_path)


def test_differences_are_named_in_one_error(tmp_path):
    write(tmp_path / "0.h5", 4)
    write(tmp_path / "1.h5", 4)
    with h5py.File(tmp_path / "2.h5", "w") as file:
        file["X"] = np.zeros((4, 5), "f4")
    message = r"'X' is int32 of rows \(3,\) in 0.h5, 1.h5, is float32 of rows \(5,\) in 2.h5"
    with pytest.raises(MismatchError, match=message + ".*'y' is .*missing in 2.h5"):
        epochal.open(tmp_path)


def test_what_only_some_files_have_is_listed(tmp_path):
    write(tmp_path / "0.h5", 4, extra=np.arange(9))
    write(tmp_path / "1.h5", 4)
    ds = epochal.open(tmp_path)
    assert list(ds.sources) == ["X", "y"]
    [other] = ds.others
    assert other.why == "is int64 of rows () in 0.h5, is missing in 1.h5"


def test_rows_that_would_not_belong_together(tmp_path):
    for name, rows, labels in (("0.h5", 3, 5), ("1.h5", 5, 3)):
        with h5py.File(tmp_path / name, "w") as file:
            file["X"], file["y"] = np.zeros((rows, 2)), np.zeros(labels)
    with pytest.raises(MismatchError, match="'y' has 5 rows and 'X' has 3"):
        epochal.open(tmp_path)


def test_arrays_named_for_their_files(tmp_path):
    for number in range(12):
        np.save(tmp_path / f"train_{number}.npy", np.full((2, 3), number))
    ds = epochal.open(tmp_path / "*.npy")
    assert list(ds.sources) == ["train"]
    assert ds["train"][:, 0].tolist() == np.repeat(np.arange(12), 2).tolist()


def test_sparse_files_as_one(tmp_path):
    matrices = []
    for number in range(3):
        matrix = scipy.sparse.random(20, 30, 0.2, format="csr", random_state=number)
        matrices.append(matrix)
        with h5py.File(tmp_path / f"{number}.h5ad", "w") as file:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "shape": matrix.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(matrix, part)
    whole = scipy.sparse.vstack(matrices).tocsr()
    ds = epochal.open(tmp_path)
    assert (ds["X"][[59, 0, 21]].csr() != whole[[59, 0, 21]]).nnz == 0
    batches = ds.batches("shuffled_sequential", batch_size=7, seed=1, ragged="csr")
    for number, (batch,) in enumerate(batches):
        assert (batch != whole[batches.scheme.batch(number)]).nnz == 0


def test_descriptors_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptor, "MAX_OPEN", 5)
    for number in range(20):
        np.save(tmp_path / f"a{number}.npy", np.full(3, number))
    ds = epochal.open(tmp_path)
    for _ in range(2):
        assert (ds["a"][...] == np.repeat(np.arange(20), 3)).all()
        held = [ref() for ref in descriptor._opened]
        assert sum(bool(one._open) for one in held if one is not None) <= 5


def test_carried_to_other_processes(parts):
    source = open_store(parts).sources["X"]
    expected = read_all(source)
    assert (read_all(pickle.loads(pickle.dumps(source))) == expected).all()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert (pool.apply(read_all, (source,)) == expected).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=6), st.data())
def test_equal_to_the_arrays_joined(files, data):
    arrays = [np.random.default_rng(i).integers(0, 99, (n, 2)) for i, (n, _) in enumerate(files)]
    whole = np.concatenate(arrays)
    chunked = data.draw(st.booleans())
    parts = [
        ChunkedArrays({"X": (array, chunk)}).sources["X"] if chunked else ArraySource(array, chunk)
        for array, (_, chunk) in zip(arrays, files, strict=True)
    ]
    source = ConcatSource(parts)
    layout = source.layout
    assert [layout.bounds(c) for c in range(layout.n_chunks)] == sorted(
        layout.bounds(c) for c in range(layout.n_chunks)
    )
    assert int(layout.chunk_row_counts.sum()) == len(whole)
    if len(whole):
        start = data.draw(st.integers(0, layout.n_chunks - 1))
        stop = data.draw(st.integers(start + 1, layout.n_chunks))
        first, last = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
        out = np.empty((last - first, 2), whole.dtype)
        source.read(start, stop, out)
        assert (out == whole[first:last]).all()
    if layout.rows_alone and len(whole):
        rows = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=12)), int)
        out = np.empty((len(rows), 2), whole.dtype)
        source.read_rows(rows, out)
        assert (out == whole[rows]).all()


def rows_of(source, wanted):
    """Rows by both ways: into one array, and into several."""
    out = np.empty((len(wanted), *source.layout.row_shape), source.layout.dtype)
    source.read_rows(wanted, out)
    parts = [np.zeros_like(part) for part in np.split(out, [0, len(out) // 3, len(out) // 2])]
    read_rows_into(source, wanted, parts)
    assert (np.concatenate(parts) == out).all()
    return out


@pytest.fixture(params=["npy", "h5 and npy", "holes", "padded", "partly compressed"])
def plain(request, tmp_path, monkeypatch):
    """Some files whose rows can be read alone, their rows, and which may be asked for."""
    monkeypatch.setattr("epochal.stores.concat.FILES_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (n, 800), np.uint8) for n in (30, 1, 200, 0, 77, 50, 90)]
    allowed = np.ones(sum(map(len, arrays)), bool)
    if request.param == "padded":
        arrays = [rng.integers(97, 123, (n, 800), np.uint8).view("S4") for n in (30, 1, 200, 77)]
        allowed = np.ones(sum(map(len, arrays)), bool)
    for number, array in enumerate(arrays):
        if request.param == "npy" or (request.param == "h5 and npy" and number % 2):
            (tmp_path / f"part-{number}").mkdir()
            np.save(tmp_path / f"part-{number}" / "X.npy", array)
            continue
        more = {"chunks": (min(10, len(array)), array.shape[1])} if len(array) else {}
        with h5py.File(tmp_path / f"part-{number}.h5", "w") as file:
            if request.param == "padded":
                kind = h5py.h5t.C_S1.copy()
                kind.set_size(6)
                kind.set_strpad(h5py.h5t.STR_SPACEPAD)
                space = h5py.h5s.create_simple(array.shape)
                made = h5py.h5d.create(file.id, b"X", kind, space)
                made.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
                arrays[number] = array.astype("S6")
                continue
            if request.param == "partly compressed" and len(array) > 60:
                array[30:40] = 0
                start = sum(map(len, arrays[:number]))
                allowed[start + 30 : start + 40] = False
                allowed[start + len(array) // 10 * 10 : start + len(array)] = False
                more["compression"] = "lzf"
            made = file.create_dataset("X", array.shape, array.dtype, **more)
            for at in range(0, len(array), 10):
                if request.param == "holes" and at == 20:
                    array[at : at + 10] = 0
                else:
                    made[at : at + 10] = array[at : at + 10]
    names = sorted(tmp_path.iterdir(), key=lambda path: path.name)
    names = [next(name.iterdir()) if name.is_dir() else name for name in names]
    return names, np.concatenate(arrays), np.flatnonzero(allowed)


def test_rows_of_many_files(plain):
    """In any order, with repeats, to several arrays at once."""
    names, rows, allowed = plain
    source = open_store(names).sources["X"]
    assert source.layout.some_alone
    chunks = source.layout.chunks_of(np.arange(len(rows)))
    assert np.flatnonzero(~source.layout.is_coded(chunks)).tolist() == allowed.tolist()
    for seed, n in enumerate((0, 1, 2, 50, 600)):
        wanted = np.random.default_rng(seed).choice(allowed, n)
        assert (rows_of(source, wanted) == rows[wanted]).all()
    with pytest.raises(RowError, match=f"asked for row {len(rows)}"):
        read_rows_into(source, np.array([len(rows)]), [np.empty((1, *rows.shape[1:]), rows.dtype)])


def test_chunks_of_many_files_into_several_arrays(plain):
    names, rows, _ = plain
    source = open_store(names).sources["X"]
    layout = source.layout
    rng = np.random.default_rng(0)
    for _ in range(30):
        start, stop = sorted(rng.choice(layout.n_chunks + 1, 2, replace=False).tolist())
        expected = rows[layout.bounds(start)[0] : layout.bounds(stop - 1)[1]]
        outs = np.split(np.zeros_like(expected), np.sort(rng.integers(0, len(expected), 4)))
        outs = [np.ascontiguousarray(out) for out in outs]
        spare = np.empty(max(layout.chunk_bytes, 1), np.uint8)
        assert read_into(source, start, stop, outs, spare)
        assert (np.concatenate(outs) == expected).all()


def test_a_file_of_many_that_is_cut_short(tmp_path, monkeypatch):
    """Is named, whichever way its rows are read."""
    rows = np.random.default_rng(0).integers(0, 256, (50, 700), np.uint8)
    for number in range(4):
        np.save(tmp_path / f"X-{number}.npy", rows)
    source = next(iter(open_store(tmp_path).sources.values()))
    monkeypatch.setattr(descriptor.Descriptor, "_compare", lambda *_: None)
    path = tmp_path / "X-2.npy"
    path.write_bytes(path.read_bytes()[:-900])
    outs = list(np.empty((2, 2, 700), np.uint8))
    with pytest.raises(DamageError, match=r"X-2\.npy.*the file ends"):
        read_rows_into(source, np.array([3, 149, 120, 148]), outs)
    read_rows_into(source, np.array([3, 199, 120, 70]), outs)
    assert (outs[0] == rows[[3, 49]]).all()
