"""`epochal.open(spaces=)`: batches in the space that is wanted."""

import pickle

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import MismatchError, SourceNameError
from epochal.spaces import (
    CompositeSpace,
    Conv2DSpace,
    IndexSequenceSpace,
    IndexSpace,
    VectorSequenceSpace,
    VectorSpace,
)

N = 40
IMAGES = np.arange(N * 24).reshape(N, 2, 4, 3).astype("u1")
Y = np.arange(N) % 7


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=(7, 2, 4, 3), compression="gzip")
        file["grey"], file["y"] = IMAGES[..., 0], Y
        file["volume"] = np.zeros((N, 2, 2, 2, 2))
        words = file.create_dataset("words", (N,), h5py.vlen_dtype("i4"))
        for k in range(N):
            words[k] = np.arange(k % 4)
    return path


@pytest.mark.parametrize(
    ("name", "space", "expected"),
    [
        (
            "images",
            Conv2DSpace((2, 4), 3, axes=("c", 0, 1, "b")),
            IMAGES.transpose(3, 1, 2, 0).astype("f4"),
        ),
        ("images", VectorSpace(24, dtype=None), IMAGES.reshape(N, 24)),
        ("images", IndexSpace(256, 24, dtype=None), IMAGES.reshape(N, 24)),
        ("grey", Conv2DSpace((2, 4), 1, dtype="u1"), IMAGES[..., :1]),
        ("y", VectorSpace(1), Y[:, None].astype("f4")),
        ("y", IndexSpace(7, 1), Y[:, None]),
    ],
)
def test_batches_are_of_the_space(path, name, space, expected):
    with epochal.open(path, sources=[name, "y"], spaces={name: space}) as ds:
        batches = [batch[0] for batch in ds.batches(batch_size=9)]
        axis = space.get_batch_axis() if isinstance(space, Conv2DSpace) else 0
        found = np.concatenate(batches, axis=axis)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        stored = {"images": IMAGES, "grey": IMAGES[..., 0], "y": Y}[name]
        assert np.array_equal(ds[name][:], stored)
        part, _ = ds.split(0.5)
        shape = next(iter(part.batches(batch_size=4)))[0].shape
        assert shape == (*batches[0].shape[:axis], 4, *batches[0].shape[axis + 1 :])
        seen = next(iter(ds.map(lambda batch: batch[0].shape).batches(batch_size=9)))
        assert seen == batches[0].shape
        again = pickle.loads(pickle.dumps(ds))
        assert np.array_equal(next(iter(again.batches(batch_size=9)))[0], batches[0])
    with epochal.open(path, sources=[name], spaces={name: space}, load_all=True) as ds:
        assert np.array_equal(next(iter(ds.batches(batch_size=9)))[0], batches[0])


def test_sequences(path):
    for space in (VectorSequenceSpace(1), IndexSequenceSpace(4, 1)):
        with epochal.open(path, sources=["words"], spaces={"words": space}) as ds:
            [words] = next(iter(ds.batches(batch_size=8)))
            assert words.values.shape == (12, 1)
            assert words.values.dtype == space.dtype


@pytest.mark.parametrize(
    ("spaces", "error", "why"),
    [
        ({"z": VectorSpace(1)}, SourceNameError, "spaces of 'z': the sources are"),
        (
            {"images": VectorSpace(25)},
            MismatchError,
            r"source 'images' has rows of shape \(2, 4, 3\), uint8: not those of VectorSpace",
        ),
        ({"images": Conv2DSpace((4, 2), 3)}, MismatchError, "another size of images"),
        ({"volume": VectorSpace(16)}, MismatchError, "neither vectors nor images"),
        ({"volume": IndexSpace(2, 16)}, MismatchError, "of integers"),
        ({"words": VectorSpace(1)}, MismatchError, "has items of shape|sequences vary in length"),
        ({"y": VectorSequenceSpace(1)}, MismatchError, "not those of VectorSequenceSpace"),
        ({"y": CompositeSpace([VectorSpace(2)])}, MismatchError, "1 numbers, not 2"),
    ],
)
def test_spaces_that_do_not_fit(path, spaces, error, why):
    name = next(iter(spaces))
    sources = [name] if name != "z" else ["y"]
    with pytest.raises(error, match=why):
        epochal.open(path, sources=sources, spaces=spaces)


def test_labels_are_looked_at(path):
    told = pytest.raises(MismatchError, match=r"label 6 is outside \[0, 6\)")
    with epochal.open(path, sources=["y"], spaces={"y": IndexSpace(6, 1)}) as ds, told:
        list(ds.batches(batch_size=9))
