"""Parts of a file by name: Fuel's table of splits, groups; names of axes."""

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import FormatError, MismatchError, RowError, SourceNameError

SPLIT = np.dtype(
    [
        ("split", "S5"),
        ("source", "S8"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("indices", h5py.special_dtype(ref=h5py.Reference)),
        ("available", "?"),
        ("comment", "S1"),
    ]
)


def fuel(path, records, **arrays):
    """A file as Fuel's H5PYDataset describes it."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        table = np.empty(len(records), SPLIT)
        for k, (split, source, start, stop, indices, available) in enumerate(records):
            reference = file[indices].ref if indices else h5py.Reference()
            table[k] = split, source, start, stop, reference, available, b"."
        file.attrs["split"] = table
        file[records[0][1]].dims[0].label = "batch"
        file[records[0][1]].dims[1].label = "feature"


X, Y = np.arange(60).reshape(20, 3), np.arange(20)


@pytest.fixture
def path(tmp_path):
    records = [
        (b"train", b"features", 0, 14, None, True),
        (b"train", b"targets", 0, 14, None, True),
        (b"test", b"features", 14, 20, None, True),
        (b"test", b"targets", 14, 20, None, False),
        (b"odd", b"features", 0, 0, "odd", True),
        (b"odd", b"targets", 0, 0, "odd", True),
        (b"mixed", b"features", 0, 5, None, True),
        (b"mixed", b"targets", 5, 10, None, True),
    ]
    fuel(tmp_path / "a.h5", records, features=X, targets=Y, odd=np.arange(1, 20, 2)[::-1])
    return tmp_path / "a.h5"


def test_fuels_table(path):
    train = epochal.open(path, split="train")
    assert len(train) == 14
    assert list(train.sources) == ["features", "targets"]
    assert (train["features"][:] == X[:14]).all()
    test = epochal.open(path, split="test")
    assert list(test.sources) == ["features"]  # targets are not available there
    assert (test["features"][[-1, 0]] == X[[19, 14]]).all()
    odd = epochal.open(path, split="odd")
    assert odd["targets"][:].tolist() == list(range(1, 20, 2))
    seen = [batch.targets for batch in odd.batches("shuffled_sequential", 3, seed=0)]
    assert sorted(np.concatenate(seen)) == list(range(1, 20, 2))
    assert train.splits == ("train", "test", "odd", "mixed")
    assert list(epochal.open(path, split="train", sources="targets").sources) == ["targets"]


def test_splits_that_are_not_there(path):
    with pytest.raises(SourceNameError, match=r"no split 'tran' in .*: did you mean 'train'"):
        epochal.open(path, split="tran")
    with pytest.raises(MismatchError, match="split 'mixed' has other rows of 'targets'"):
        epochal.open(path, split="mixed")


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        (np.array([3, 20]), RowError, "split 'odd' asks for row 20 of 'features', which has 20"),
        (np.array([-1, 3]), RowError, "split 'odd' asks for row -1 of 'features'"),
        (np.array([0.5]), FormatError, r"in 'odd', which has \(1,\) float64"),
        (np.zeros(21, "i4"), FormatError, r"has \(21,\) int32: at most 20 integers expected"),
        (np.zeros((2, 2), "i4"), FormatError, r"has \(2, 2\) int32"),
    ],
)
def test_row_numbers_that_cannot_be(tmp_path, numbers, error, message):
    records = [(b"odd", b"features", 0, 0, "odd", True)]
    fuel(tmp_path / "a.h5", records, features=X, odd=numbers)
    with pytest.raises(error, match=message):
        epochal.open(tmp_path / "a.h5", split="odd")


def test_a_split_past_the_end(tmp_path):
    fuel(tmp_path / "a.h5", [(b"all", b"features", 0, 1 << 60, None, True)], features=X)
    with pytest.raises(RowError, match=f"rows 0 to {1 << 60} of 'features', which has 20"):
        epochal.open(tmp_path / "a.h5", split="all")


def test_groups_are_splits(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/X"], file["train/y"] = X[:14], Y[:14]
        file["valid/X"], file["valid/y"] = X[14:], Y[14:]
    valid = epochal.open(tmp_path / "a.h5", split="valid", aliases={"labels": "y"})
    assert set(valid.sources) == {"X", "labels"}
    assert (valid["X"][:] == X[14:]).all()
    assert valid.splits == ("train", "valid")
    with pytest.raises(SourceNameError, match="there are train, valid"):
        epochal.open(tmp_path / "a.h5", split="zzz")


def test_names_of_axes(path, tmp_path):
    assert epochal.open(path)["features"].axes == ("batch", "feature")
    assert epochal.open(path)["targets"].axes == ()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["X"], file["time"], file["place"] = X, Y, np.arange(3)
        for k, name in enumerate(("time", "place")):
            file[name].make_scale()
            file["X"].dims[k].attach_scale(file[name])
    assert epochal.open(tmp_path / "b.h5")["X"].axes == ("time", "place")


def test_values_and_offsets_by_alias(tmp_path):
    values, offsets = np.arange(100), np.array([0, 10, 10, 55, 100])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("tokens/values", data=values, chunks=(7,), compression="gzip")
        file["tokens/offsets"], file["y"] = offsets, np.arange(4)
    aliases = {"tokens": ("tokens/values", "tokens/offsets")}
    ds = epochal.open(tmp_path / "a.h5", aliases=aliases)
    assert set(ds.sources) == {"tokens", "y"}
    assert [row.tolist() for row in ds["tokens"][[2, 1]].rows()] == [list(range(10, 55)), []]
    padded = next(iter(ds.batches("sequential", 4, ragged="padded"))).tokens
    assert padded.values.shape == (4, 45)
    assert padded.lengths.tolist() == [10, 0, 45, 45]
    with pytest.raises(epochal.EpochalError, match="offsets go from 0 to the number of values"):
        epochal.open(tmp_path / "a.h5", aliases={"tokens": ("tokens/values", "y")})
    with pytest.raises(MismatchError, match="without column numbers"):
        ds.batches("sequential", 4, ragged="csr")
    for batch in ds.batches("even_sequences", batch_size=2, seed=0):
        assert len(set(batch.tokens.lengths.tolist())) == 1
