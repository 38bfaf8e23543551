"""The face: rows by number, views, sources and their names."""

import pickle
from itertools import chain

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal.dataset import Dataset
from epochal.errors import (
    BudgetError,
    MismatchError,
    RowError,
    SchemeError,
    SourceNameError,
)
from epochal.testing.stores import ChunkedArrays

N = 23
X = np.arange(N * 6, dtype=">i4").reshape(N, 2, 3)
Y = np.arange(N, dtype="u1")
X.flags.writeable = Y.flags.writeable = False


def chunked():
    store = ChunkedArrays({"X": (X, 5), "y": (Y, 7)})
    return Dataset(store, store.sources)


@pytest.fixture(params=["arrays", "chunked", "hdf5"])
def ds(request, tmp_path):
    if request.param == "arrays":
        yield epochal.from_arrays(X=X, y=Y)
    elif request.param == "chunked":
        yield chunked()
    else:
        with epochal.open(write(tmp_path / "a.h5", X=X, y=Y)) as opened:
            yield opened


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            rows = max(1, min(4, len(array)))
            file.create_dataset(
                name.replace("__", "/"),
                data=array,
                chunks=(rows, *array.shape[1:]),
                compression="gzip",
            )
    return path


# Rows ----------------------------------------------------------------

KEYS = [
    0,
    -1,
    N - 1,
    np.int64(3),
    slice(None),
    slice(2, 5),
    slice(-3, None),
    slice(20, 2),
    slice(0, 100),
    slice(1, 20, 3),
    slice(None, None, -1),
    slice(20, 3, -4),
    [7, 3, 3],
    [-1, 0, -N],
    [],
    np.array([], dtype=np.int64),
    np.array([2, 22, 2, 0], dtype=np.uint8),
    range(3),
    Y % 3 == 0,
    (Y % 3 == 0).tolist(),
    np.zeros(N, bool),
    ...,
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key)[:30])
@pytest.mark.parametrize("name", ["X", "y"])
def test_rows_equal_those_of_numpy(ds, name, key):
    array = {"X": X, "y": Y}[name]
    numpy_key = np.array(key, np.int64) if isinstance(key, list) and not key else key
    got, want = ds[name][key], array[numpy_key]
    assert (np.shape(got), got.dtype) == (np.shape(want), want.dtype)
    assert got.tobytes() == want.tobytes()


AXES = [
    (slice(2, 5), 0),
    (slice(None), slice(None), 1),
    (4, 1),
    (4, 1, 2),
    (-1, slice(None), 0),
    ([7, 3, 3], 1),
    (slice(0, 10, 4), ..., 2),
    (3, ...),
    (..., 0),
    (..., 1, 2),
    (...,),
    (),
    (Y > 20, 0),
    (np.array([], int), 0),
]


@pytest.mark.parametrize("key", AXES, ids=lambda key: repr(key)[:30])
def test_what_follows_a_comma_indexes_the_other_axes(ds, key):
    got, want = ds["X"][key], X[key]
    assert np.shape(got) == np.shape(want)
    assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-N, N - 1), max_size=40), st.booleans())
def test_any_rows_in_any_order(rows, of_view):
    data = chunked()
    oracle = X
    if of_view:
        data, _ = data.split(0.6, seed=4)
        oracle = data["X"][:]
    rows = [row % len(oracle) - (len(oracle) if row < 0 else 0) for row in rows]
    assert data["X"][rows].tobytes() == oracle[np.array(rows, int)].tobytes()


@pytest.mark.parametrize("key", [N, -N - 1, [0, N], [-N - 1], np.array([2**63], np.uint64)])
def test_a_row_outside_is_named(ds, key):
    with pytest.raises(RowError, match=rf"row -?\d+ of 'X': it has {N} rows"):
        ds["X"][key]
    with pytest.raises(IndexError):
        ds["X"][key]


def test_an_unsigned_row_does_not_wrap_around(ds):
    with pytest.raises(RowError):
        ds["y"][np.array([2**64 - 1], np.uint64)]


@pytest.mark.parametrize(
    "key", ["a", 1.5, [0.5], None, True, [True, False], np.zeros((2, 2), int), [[1]], {}]
)
def test_what_names_no_rows_is_refused(ds, key):
    with pytest.raises(RowError, match=rf"rows of 'X' are an int, a slice, a mask of {N}"):
        ds["X"][key]


def test_what_is_read_is_yours(ds):
    for key in (3, slice(2, 9), [1, 2], slice(None)):
        rows = ds["X"][key]
        assert rows.flags.writeable
        rows.view()[...] = 7
        assert ds["X"][key].tobytes() == X[key].tobytes()


def test_a_view_of_a_source_tells_what_it_is(ds):
    view = ds["X"]
    assert (view.shape, view.dtype, len(view), view.name) == ((N, 2, 3), X.dtype, N, "X")
    assert repr(view) == f"<'X': ({N}, 2, 3) >i4>"
    train, _ = ds.split(0.5)
    assert train["X"].shape == (len(train), 2, 3)


# Views ----------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.sampled_from([None, 0, 1, 2**63]), st.data())
def test_parts_are_disjoint_and_cover(n_rows, seed, data):
    cuts = data.draw(st.lists(st.floats(0.01, 0.33), min_size=1, max_size=3))
    ds = epochal.from_arrays(X=np.arange(n_rows))
    parts = ds.split(*cuts, seed=seed)
    assert len(parts) == len(cuts) + 1
    rows = [part["X"][:].tolist() for part in parts]
    assert sorted(chain(*rows)) == list(range(n_rows))
    assert all(part == sorted(part) for part in rows)  # read in the file's order
    for part, cut in zip(rows, cuts, strict=False):
        assert abs(len(part) - cut * n_rows) <= 1
    if seed is None:
        assert list(chain(*rows)) == list(range(n_rows))
    assert [part["X"][:].tolist() for part in ds.split(*cuts, seed=seed)] == rows


def test_another_seed_is_another_split():
    ds = epochal.from_arrays(X=np.arange(100))
    parts = {tuple(ds.split(0.5, seed=seed)[0]["X"][:]) for seed in range(20)}
    assert len(parts) == 20


def test_parts_of_parts(ds):
    train, test = ds.split(0.7, seed=1)
    inner, valid = train.split(0.5, seed=2)
    rows = [part["y"][:].tolist() for part in (inner, valid, test)]
    assert sorted(chain(*rows)) == Y.tolist()
    assert sorted(rows[0] + rows[1]) == train["y"][:].tolist()
    for batch in inner.batches("shuffled_sequential", batch_size=3, seed=0):
        assert set(batch.y.tolist()) <= set(rows[0])
        assert batch.X.tobytes() == X[batch.y].tobytes()


@pytest.mark.parametrize(
    "fractions", [(), (0,), (1,), (1.5,), (0.5, 0.6), (-0.1,), (float("nan"),)]
)
def test_fractions_that_make_no_parts(ds, fractions):
    with pytest.raises(
        MismatchError, match="give fractions between 0 and 1, of 1 together or less"
    ):
        ds.split(*fractions)


def test_functions_are_applied_in_turn(ds):
    def double(batch):
        return batch._replace(X=batch.X.astype("i8") * 2)

    mapped = ds.map(double).map(lambda batch: (batch.X.sum(), batch.y))
    for batch, (total, y) in zip(
        ds.batches("shuffled_sequential", 4, seed=1),
        mapped.batches("shuffled_sequential", 4, seed=1),
        strict=True,
    ):
        assert total == 2 * batch.X.astype("i8").sum()
        assert y.tolist() == batch.y.tolist()
    assert mapped["X"][0].tobytes() == X[0].tobytes()
    part, _ = mapped.split(0.5)
    assert isinstance(next(iter(part.batches(batch_size=2)))[0], np.int64)


# Sources ----------------------------------------------------------------


def test_sources_are_named(ds):
    assert list(ds.sources) == ["X", "y"]
    assert len(ds) == N
    assert "X" in ds
    assert "z" not in ds
    batch = next(iter(ds.batches(batch_size=4)))
    assert batch._fields == ("X", "y")
    one = next(iter(ds.batches(batch_size=4, sources="y")))
    assert (one._fields, one.y.tolist()) == (("y",), [0, 1, 2, 3])
    turned = next(iter(ds.batches(batch_size=4, sources=("y", "X"))))
    assert turned._fields == ("y", "X")


def test_a_name_almost_right(ds):
    with pytest.raises(SourceNameError, match=r"no source 'x' in .*: (did you mean|there are)"):
        ds["x"]
    with pytest.raises(SourceNameError, match="names none"):
        ds.batches(batch_size=1, sources=())
    with pytest.raises(KeyError):
        ds.batches(batch_size=1, sources=("X", "z"))


def test_a_wrong_name_is_answered_with_the_nearest():
    ds = epochal.from_arrays(images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(SourceNameError, match=r"no source 'lables' in .*: did you mean 'labels'"):
        ds["lables"]
    with pytest.raises(SourceNameError, match="there are images, labels"):
        ds["qqq"]


def test_sources_of_unequal_length():
    with pytest.raises(MismatchError, match=r"equally many rows: X has 3, y has 4"):
        epochal.from_arrays(X=np.zeros(3), y=np.zeros(4))


def test_fields_are_identifiers():
    names = ["train/X", "class", "1st", "_private", "a b"]
    ds = epochal.from_arrays({name: np.arange(2) for name in names})
    batch = next(iter(ds.batches(batch_size=2)))
    assert batch._fields == ("X", "source_1", "source_2", "source_3", "source_4")
    both = epochal.from_arrays({"train/X": np.arange(2), "test/X": np.arange(2)})
    assert next(iter(both.batches(batch_size=2)))._fields == ("train_X", "test_X")
    same = epochal.from_arrays({"a/b": np.arange(2), "a_b": np.arange(2), "x/b": np.arange(2)})
    assert len(set(next(iter(same.batches(batch_size=2)))._fields)) == 3


def test_a_dataset_shows_its_sources(ds):
    lines = repr(ds).splitlines()
    assert lines[0].startswith("<epochal.Dataset ")
    assert lines[0].endswith(f": {N} rows>")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["X", "y"]
    assert all("stored" in line and "decoded" in line for line in lines[1:])


def test_arrays_that_are_no_rows():
    with pytest.raises(epochal.EpochalError, match="has no rows: it is a scalar"):
        epochal.from_arrays(X=np.array(3))
    with pytest.raises(epochal.EpochalError, match="Python objects"):
        epochal.from_arrays(X=np.array([None, 2]))


def test_no_sources_at_all():
    ds = epochal.from_arrays()
    assert (len(ds), ds.sources) == (0, {})
    with pytest.raises(SourceNameError, match="holds no source"):
        ds.batches(batch_size=1)


# Batches that cannot be ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({}, SchemeError, "neither batch_size nor num_batches is given"),
        ({"batch_size": 0}, SchemeError, "batch_size"),
        ({"batch_size": -3}, SchemeError, "batch_size"),
        ({"batch_size": 2.5}, SchemeError, "batch_size"),
        ({"batch_size": True}, SchemeError, "batch_size"),
        ({"batch_size": 2, "num_batches": 99}, SchemeError, "num_batches=99 was asked; 23 rows"),
        ({"batch_size": 2, "scheme": "shuffled"}, SchemeError, "there is no scheme 'shuffled'"),
        ({"batch_size": 2, "scheme": "sequentia"}, SchemeError, "did you mean 'sequential'"),
        ({"batch_size": 2, "scheme": "random_uniform"}, SchemeError, "give both"),
        ({"batch_size": 2, "shard": (2, 2)}, SchemeError, "rank"),
        ({"batch_size": 2, "epoch": -1}, SchemeError, "epoch"),
        ({"batch_size": 2, "scheme": "random_slice", "seed": 1.5}, SchemeError, "seed"),
        ({"batch_size": 2, "threads": 0}, SchemeError, "threads=0"),
        ({"batch_size": 2, "memory": "lots"}, ValueError, "memory='lots' is not a size"),
        ({"batch_size": 2, "memory": 0}, ValueError, "memory=0 is not a size"),
    ],
    ids=str,
)
def test_orders_that_cannot_be_made(ds, arguments, error, told):
    with pytest.raises(error, match=told):
        ds.batches(**arguments)
    with pytest.raises(error, match=told):
        ds.explain(**arguments)


def test_too_little_memory_is_said_before_the_first_batch(ds):
    with pytest.raises(BudgetError, match="memory=100 B cannot hold a batch of 2 rows"):
        next(iter(ds.batches(batch_size=2, memory=100)))
    with pytest.raises(BudgetError, match="memory=100 B cannot hold a batch of 2 rows"):
        ds.explain(batch_size=2, memory=100)


# Files ----------------------------------------------------------------


def test_the_largest_group_of_datasets_is_the_default(tmp_path):
    path = write(
        tmp_path / "a.h5",
        train__X=X,
        train__y=Y,
        test__X=np.zeros((50, 9)),
        mean=np.zeros(3),
    )
    with epochal.open(path) as ds:
        assert list(ds.sources) == ["train/X", "train/y"]
        why = {other.name: other.why for other in ds.others}
        assert why == {
            "mean": "it has 3 rows, not 23; name it with sources= to use it",
            "test/X": "it has 50 rows, not 23; name it with sources= to use it",
        }
        train, _ = ds.split(0.5)
        assert {other.name: other.why for other in train.others} == why
    with epochal.open(path, sources=["test/X"]) as ds:
        assert (len(ds), list(ds.sources)) == (50, ["test/X"])
        assert {o.name for o in ds.others} == {"mean", "train/X", "train/y"}
    with epochal.open(path, sources=["/train/y"]) as ds:
        assert ds["/train/y"][3] == 3


def test_equally_many_datasets_are_decided_by_bytes(tmp_path):
    path = write(tmp_path / "a.h5", few=np.zeros((4, 1000)), many=np.zeros(100))
    with epochal.open(path) as ds:
        assert list(ds.sources) == ["few"]


def test_sources_may_be_called_by_other_names(tmp_path):
    path = write(tmp_path / "a.h5", train__X=X, train__y=Y, z=Y)
    with epochal.open(path, aliases={"images": "train/X"}) as ds:
        assert list(ds.sources) == ["images", "train/y", "z"]
        assert ds["images"][2].tobytes() == X[2].tobytes()
    with epochal.open(path, sources=["images", "z"], aliases={"images": "train/X"}) as ds:
        assert next(iter(ds.batches(batch_size=2)))._fields == ("images", "z")
    with pytest.raises(SourceNameError, match="no source 'train/Q'"):
        epochal.open(path, aliases={"images": "train/Q"})
    with pytest.raises(SourceNameError, match="no source 'nothing'"):
        epochal.open(path, sources=["nothing"])


def test_named_sources_of_unequal_length(tmp_path):
    path = write(tmp_path / "a.h5", X=X, y=Y, z=np.zeros(50))
    with pytest.raises(MismatchError, match=r"X has 23, z has 50"):
        epochal.open(path, sources=["X", "z"])
    with epochal.open(path) as ds, pytest.raises(MismatchError, match=r"X has 23, z has 50"):
        ds.batches(batch_size=10, sources=("X", "z"))


def test_a_source_beside_the_dataset_is_not_read_through_a_view_of_it(tmp_path):
    path = write(tmp_path / "a.h5", X=X, y=Y, z=np.arange(50))
    with epochal.open(path) as ds:
        train, _ = ds.split(0.5)
        with pytest.raises(MismatchError, match="z has 50"):
            train["z"]


def test_load_all_needs_the_file_no_longer(tmp_path):
    path = write(tmp_path / "a.h5", X=X, y=Y)
    ds = epochal.open(path, load_all=True)
    path.unlink()
    assert ds["X"][:].tobytes() == X.tobytes()
    assert {b.X.tobytes() for b in ds.batches(batch_size=N)} == {X.tobytes()}


def test_a_mode_that_is_none_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", X=X)
    with pytest.raises(MismatchError, match="mode='w' is not one of: 'r', 'c', 'r\\+'"):
        epochal.open(path, mode="w")


def test_views_are_sliced_without_reading_and_go_to_numpy_whole(tmp_path):
    with epochal.open(write(tmp_path / "a.h5", X=X)) as ds:
        view = ds["X"]
        assert (view.ndim, view.size) == (X.ndim, X.size)
        assert np.array_equal(np.asarray(view), X)
        assert np.asarray(view, "f8").dtype == np.float64
        with pytest.raises(ValueError, match="cannot but be copied"):
            np.asarray(view, copy=False)
        part = view.part(3, -2).part(1, 1000)
        assert np.array_equal(part, X[4:-2])
        assert np.array_equal(part[[0, -1]], X[[4, -3]])
        assert len(view.part(5, 2)) == 0


def test_a_dataset_in_a_pickle_reads_the_same_rows(ds):
    train, _ = ds.split(0.5, seed=3)
    for data in (ds, train):
        copy = pickle.loads(pickle.dumps(data))
        assert copy["X"][:].tobytes() == data["X"][:].tobytes()
        assert [b.y.tolist() for b in copy.batches("shuffled_sequential", 5, seed=1)] == [
            b.y.tolist() for b in data.batches("shuffled_sequential", 5, seed=1)
        ]
        copy.close()


def test_nothing_is_written_to_a_file(tmp_path):
    path = write(tmp_path / "a.h5", X=X, y=Y)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with epochal.open(path) as ds:
        for _ in ds.batches("shuffled_sequential", 3, seed=0):
            pass
        ds["X"][:]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_numpys_own_generator_is_left_alone(ds):
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    ds.split(0.5)
    for _ in ds.batches("shuffled_sequential", 3):
        pass
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_fractions_of_all_rows_are_all_parts():
    ds = epochal.from_arrays(X=np.arange(10))
    parts, same = ds.split(0.8, 0.2), ds.split(0.8)
    assert [len(part) for part in parts] == [8, 2]
    assert [part["X"][:].tolist() for part in parts] == [part["X"][:].tolist() for part in same]
    assert [len(part) for part in ds.split(0.1, 0.2, 0.7)] == [1, 2, 7]


@pytest.mark.parametrize("seed", [1.5, "7", True, -1, 2**64, np.random.default_rng(0)])
def test_a_seed_of_a_split_is_a_whole_number(seed):
    ds = epochal.from_arrays(X=np.arange(10))
    with pytest.raises(SchemeError, match=r"seed=.* was given"):
        ds.split(0.5, seed=seed)
    assert len(ds.split(0.5, seed=np.int64(3))[0]) == 5


@pytest.mark.parametrize("names", [3, [3], ["X", None], b"X"])
def test_names_of_sources_are_text(names):
    ds = epochal.from_arrays(X=np.arange(10))
    with pytest.raises(SourceNameError, match="give a name, or several"):
        ds.batches("sequential", 2, sources=names)
    with pytest.raises(SourceNameError, match="sources have names"):
        ds[3]


def test_arguments_of_batches_are_looked_at_at_once():
    ds = epochal.from_arrays(X=np.arange(10))
    for wrong in ({"scratch": 3}, {"scratch": b"/tmp"}):
        with pytest.raises(MismatchError, match="give a folder, False for none, or None"):
            ds.batches("sequential", 2, **wrong)
    with pytest.raises(MismatchError, match="ragged='bla' is not one of"):
        ds.batches("sequential", 2, ragged="bla")
    assert ds.batches("sequential", 2, memory=np.int64(10**6)).plan.budget_bytes == 10**6
