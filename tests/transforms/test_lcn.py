"""Local contrast normalisation, against two-dimensional convolutions of SciPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import convolve2d

import epochal
from epochal.errors import MismatchError
from epochal.transforms import LeCunLCN, load


def images(dtype="f4", shape=(9, 10, 8, 3)):
    return (np.random.default_rng(5).random(shape) * 255).astype(dtype)


def window_of(size):
    half = size // 2
    i, j = np.mgrid[-half : half + 1, -half : half + 1]
    window = np.exp(-(i**2 + j**2) / (2 * 2.0**2))
    return window / window.sum()


def normalised(plane, size, threshold):
    """Of one channel of one image."""
    x, w = plane.astype(np.float64), window_of(size)
    v = x - convolve2d(x, w, mode="same")
    sigma = np.sqrt(convolve2d(v**2, w, mode="same"))
    c = sigma.mean()
    return v / np.maximum(np.maximum(c, sigma), threshold)


def expected_of(rows, size=7, threshold=1e-4, channels=None):
    out = rows.astype(np.float64)
    for n in range(rows.shape[0]):
        for c in range(rows.shape[3]) if channels is None else channels:
            out[n, ..., c] = normalised(rows[n, ..., c], size, threshold)
    return out


def close(made, expected):
    """Relative to the largest, as numbers cross zero."""
    return np.abs(made - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("channels", [None, [0], [2, 0]])
def test_it_is_what_the_paper_says(dtype, size, channels):
    rows = images(dtype)
    made = LeCunLCN(kernel_size=size, channels=channels).transform(rows)
    assert made.dtype == (np.float64 if dtype == "f8" else np.float32)
    assert close(made, expected_of(rows, size, channels=channels))
    if channels is not None:
        others = sorted({0, 1, 2} - set(channels))
        assert_array_equal(made[..., others], rows[..., others])


@given(
    size=st.sampled_from([3, 5, 7]),
    more=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    threshold=st.sampled_from([1e-4, 1.0, 50.0]),
    scale=st.sampled_from([1e-3, 1.0, 255.0]),
)
@settings(max_examples=40, deadline=None)
def test_of_any_size_and_contrast(size, more, threshold, scale):
    shape = (2, size + more[0], size + more[1], 2)
    rows = np.random.default_rng(more[0]).normal(size=shape) * scale
    made = LeCunLCN(kernel_size=size, threshold=threshold).transform(rows)
    assert_allclose(made, expected_of(rows, size, threshold), rtol=1e-9, atol=1e-12)


def test_without_a_channel_axis():
    rows = images()
    made = LeCunLCN().transform(rows[..., 1])
    assert_array_equal(made, LeCunLCN().transform(rows)[..., 1])


def test_a_flat_image_is_divided_by_the_threshold():
    assert_array_equal(LeCunLCN().transform(np.zeros((1, 8, 8, 1))), np.zeros((1, 8, 8, 1)))


def test_blocks_change_nothing():
    rows = images(shape=(70, 32, 32, 3))  # more than one block of them
    whole = LeCunLCN().transform(rows)
    assert close(whole[-1:], expected_of(rows[-1:]))
    cuts = np.sort(np.random.default_rng(1).integers(0, len(rows), 4))
    parts = [LeCunLCN().transform(part) for part in np.split(rows, cuts) if len(part)]
    assert_array_equal(np.concatenate(parts), whole)


def test_vectors_stay_vectors():
    rows = images()
    vectors = rows.reshape(len(rows), -1)
    made = LeCunLCN(image_shape=rows.shape[1:]).transform(vectors)
    assert made.shape == vectors.shape
    assert_array_equal(made.reshape(rows.shape), LeCunLCN().transform(rows))


@pytest.mark.parametrize("transform", [LeCunLCN(), LeCunLCN(kernel_size=5, channels=[1])], ids=repr)
def test_every_way_gives_the_same(transform, tmp_path):
    rows = images("u1")
    whole = transform.transform(rows)
    ds = epochal.from_arrays(X=rows, y=np.arange(len(rows))).transform(transform)
    assert ds["X"].shape == whole.shape
    assert_array_equal(ds["X"][:], whole)
    batches = list(ds.batches("shuffled_sequential", 4, seed=0))
    order = np.concatenate([batch.y for batch in batches])
    assert_array_equal(np.concatenate([batch.X for batch in batches]), whole[order])
    path = tmp_path / "kept.npz"
    transform.fit(rows).save(path)
    again = load(path)
    assert repr(again) == repr(transform)
    assert_array_equal(again.transform(rows), whole)


BAD = [
    (LeCunLCN(kernel_size=4), (8, 8, 3), "kernel_size=4: .*give an odd whole number from 3 on"),
    (LeCunLCN(kernel_size=1), (8, 8, 3), "kernel_size=1: .*give an odd whole number from 3 on"),
    (LeCunLCN(kernel_size=5.0), (8, 8, 3), "kernel_size=5.0: .*odd whole number"),
    (LeCunLCN(kernel_size=9), (8, 12, 3), r"kernel_size=9 is larger than the image, \(8, 12\)"),
    (LeCunLCN(threshold=0), (8, 8, 3), "threshold=0 divides by zero where an image is flat"),
    (LeCunLCN(threshold=-1), (8, 8, 3), "threshold=-1: give a number from 0 on"),
    (LeCunLCN(channels=[3]), (8, 8, 3), r"channels=\[3\]: the images have 3, counted from 0"),
    (LeCunLCN(channels=[-1]), (8, 8, 3), r"channels=\[-1\]: the images have 3"),
    (LeCunLCN(channels=[0, 0]), (8, 8, 3), r"channels=\[0, 0\]: .*each once"),
    (LeCunLCN(channels=[]), (8, 8, 3), r"channels=\[\]: the images have 3"),
    (LeCunLCN(channels=1), (8, 8, 3), "channels=1: the images have 3"),
    (LeCunLCN(), (192,), "say which images they are with image_shape="),
    (LeCunLCN((8, 8, 3)), (191,), r"image_shape=\(8, 8, 3\), 192 .*does not match the row"),
]


@pytest.mark.parametrize(("transform", "row_shape", "message"), BAD)
def test_bad_arguments_are_refused(transform, row_shape, message):
    rows = np.zeros((2, *row_shape))
    with pytest.raises(MismatchError, match=message):
        transform.transform(rows)
    with pytest.raises(MismatchError, match=message):
        transform.fit(rows)
    with pytest.raises(MismatchError, match=message):
        epochal.from_arrays(X=rows).transform(transform)
