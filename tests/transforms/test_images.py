"""Colours, downsampling and windows, against plain loops in float64."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import epochal
from epochal.errors import MismatchError
from epochal.transforms import RGB_YUV, YUV_RGB, CentralWindow, Downsample, load

RNG = np.random.default_rng(7)
COLOURS = RNG.integers(0, 256, (23, 6, 5, 3)).astype(np.uint8)
TRANSFORMS = [RGB_YUV(), YUV_RGB(), Downsample((2, 3)), CentralWindow((3, 2))]


def images(dtype=np.float32, shape=(23, 6, 5, 3)):
    return (np.random.default_rng(3).normal(size=shape) * 50).astype(dtype)


def yuv_of(rgb):
    rgb = rgb.astype(np.float64)
    out = np.empty(rgb.shape)
    for place in np.ndindex(*rgb.shape[:-1]):
        r, g, b = rgb[place]
        out[place] = (
            0.299 * r + 0.587 * g + 0.114 * b,
            -0.14713 * r - 0.28886 * g + 0.436 * b,
            0.615 * r - 0.51499 * g - 0.10001 * b,
        )
    return out


def means_of(rows, factors):
    """Of images (n, height, width[, channels])."""
    f, g = factors
    h, w = rows.shape[1] // f, rows.shape[2] // g
    out = np.empty((len(rows), h, w, *rows.shape[3:]))
    for i in range(h):
        for j in range(w):
            block = rows[:, i * f : (i + 1) * f, j * g : (j + 1) * g].astype(np.float64)
            out[:, i, j] = block.mean(axis=(1, 2))
    return out


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i2"])
def test_rgb_to_yuv(dtype):
    rows = images(dtype) if dtype != "u1" else COLOURS
    made = RGB_YUV().transform(rows)
    assert made.dtype == (np.float64 if dtype == "f8" else np.float32)
    assert_allclose(made, yuv_of(rows), rtol=1e-6, atol=1e-6)


def test_colours_there_and_back():
    rows = images(np.float64)
    assert_allclose(YUV_RGB().transform(RGB_YUV().transform(rows)), rows, rtol=1e-12, atol=1e-11)
    for transform in (RGB_YUV(), YUV_RGB()):
        made = transform.fit(rows).transform(rows)
        assert_allclose(transform.inverse_transform(made), rows, rtol=1e-12, atol=1e-11)


def test_colours_of_float32_come_back():
    rows = images()
    transform = RGB_YUV()
    back = transform.inverse_transform(transform.transform(rows))
    assert back.dtype == np.float32
    assert_allclose(back, rows, rtol=1e-5, atol=1e-4)


def test_grey_has_luma_alone():
    grey = np.full((1, 2, 2, 3), 0.5)
    assert_allclose(RGB_YUV().transform(grey)[0, 0, 0], [0.5, 0, 0], atol=1e-5)


@given(
    n=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.sampled_from([(), (1,), (3,)]),
    dtype=st.sampled_from(["u1", "f4", "f8", "?"]),
)
@settings(max_examples=60, deadline=None)
def test_downsample_is_the_mean_of_blocks(n, size, factors, channels, dtype):
    rows = images("f8", (n, *size, *channels)).astype(dtype)
    transform = Downsample(factors)
    if factors[0] > size[0] or factors[1] > size[1]:
        with pytest.raises(MismatchError, match=r"sampling_factor=.* is larger than the image"):
            transform.transform(rows)
        return
    made = transform.transform(rows)
    assert_allclose(made, means_of(rows, factors), rtol=1e-6, atol=1e-5)
    assert made.shape[1:] == transform._out_shape(rows.shape[1:])


def test_downsample_of_volumes():
    rows = images("f4", (4, 4, 6, 5, 2))
    made = Downsample((2, 3, 2)).transform(rows)
    expected = rows[:, :, :, :4].astype("f8").reshape(4, 2, 2, 2, 3, 2, 2, 2).mean(axis=(2, 4, 6))
    assert_allclose(made, expected, rtol=1e-6, atol=1e-5)
    without = Downsample((2, 3, 2)).transform(rows[..., 0])
    assert_array_equal(without, made[..., 0])


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from(["u1", "f4", "i8", ">i2"]),
)
@settings(max_examples=60, deadline=None)
def test_the_window_is_in_the_middle(size, window, channels, dtype):
    rows = images("f8", (3, *size, *channels)).astype(dtype)
    if window[0] > size[0] or window[1] > size[1]:
        with pytest.raises(MismatchError, match=r"window_shape=.* is larger than the image"):
            CentralWindow(window).transform(rows)
        return
    made = CentralWindow(window).transform(rows)
    top, left = (size[0] - window[0]) // 2, (size[1] - window[1]) // 2
    assert_array_equal(made, rows[:, top : top + window[0], left : left + window[1]])
    assert made.dtype == rows.dtype
    assert not np.shares_memory(made, rows)


def test_vectors_are_images_of_a_shape():
    rows = images()
    vectors, shape = rows.reshape(len(rows), -1), rows.shape[1:]
    for kind, given_ in ((RGB_YUV, ()), (YUV_RGB, ())):
        of_vectors = kind(*given_, image_shape=shape)
        made = of_vectors.transform(vectors)
        assert made.shape == vectors.shape
        assert_array_equal(made.reshape(rows.shape), kind().transform(rows))
        assert_allclose(of_vectors.inverse_transform(made), vectors, rtol=1e-5, atol=1e-4)
    for kind, given_ in ((Downsample, (2, 2)), (CentralWindow, (3, 3))):
        made = kind(given_, image_shape=list(shape)).fit(vectors).transform(vectors)
        assert_array_equal(made, kind(given_).transform(rows))
        assert_array_equal(kind(given_, image_shape=shape).transform(rows), made)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_every_way_gives_the_same(transform, dtype, tmp_path):
    rows = images("f8").astype(dtype)
    whole = transform.transform(rows)
    cuts = np.sort(np.random.default_rng(1).integers(0, len(rows), 4))
    parts = [transform.transform(part) for part in np.split(rows, cuts) if len(part)]
    assert_array_equal(np.concatenate(parts), whole)

    ds = epochal.from_arrays(X=rows, y=np.arange(len(rows))).transform(transform)
    assert ds["X"].shape == whole.shape
    assert ds["X"].dtype == whole.dtype
    assert_array_equal(ds["X"][:], whole)
    batches = list(ds.batches("shuffled_sequential", 5, seed=0))
    order = np.concatenate([batch.y for batch in batches])
    assert_array_equal(np.concatenate([batch.X for batch in batches]), whole[order])

    path = tmp_path / "kept.npz"
    transform.fit(rows)
    transform.save(path)
    again = load(path)
    assert repr(again) == repr(transform)
    assert_array_equal(again.transform(rows), whole)


def test_nan_stays_in_its_pixel():
    rows = images()
    rows[0, 0, 0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = RGB_YUV().transform(rows)
    assert np.isnan(made).sum() == 3
    assert np.isnan(Downsample((2, 2)).transform(rows)).sum() == 1


BAD = [
    (RGB_YUV(), (4, 4, 4), r"images of shape \(4, 4, 4\): RGB has three channels"),
    (YUV_RGB(), (4, 4, 1), r"images of shape \(4, 4, 1\): YUV has three channels"),
    (RGB_YUV(), (4, 3), r"images of shape \(4, 3\): RGB has three channels"),
    (RGB_YUV(), (12,), r"vectors of 12 numbers: say which images .*image_shape=\(height"),
    (RGB_YUV((2, 2, 3)), (13,), r"image_shape=\(2, 2, 3\), 12 .*does not match the row.*\(13,\)"),
    (RGB_YUV((2, 2, 3)), (2, 3, 2), r"an image shape that does not match the row.*\(2, 3, 2\)"),
    (RGB_YUV((2, 2.5, 3)), (15,), r"image_shape=\(2, 2.5, 3\): give whole numbers from 1 on"),
    (RGB_YUV(3), (15,), "image_shape=3: give whole numbers from 1 on"),
    (RGB_YUV(), (2, 2, 2, 3), r"rows of shape \(2, 2, 2, 3\) are no images \(height, width\)"),
    (Downsample((2,)), (4, 4), r"sampling_factor=\(2,\): give whole numbers from 1 on"),
    (Downsample((0, 2)), (4, 4), r"sampling_factor=\(0, 2\): give whole numbers from 1 on"),
    (Downsample((1.5, 2)), (4, 4), "give whole numbers from 1 on, one an axis: 2 or 3 of"),
    (Downsample((True, 2)), (4, 4), "give whole numbers from 1 on, one an axis: 2 or 3 of"),
    (Downsample(2), (4, 4), "sampling_factor=2: give whole numbers from 1 on"),
    (Downsample((5, 2)), (4, 4), r"sampling_factor=\(5, 2\) is larger than the image, \(4, 4\)"),
    (Downsample((2, 2, 2)), (4, 4), r"rows of shape \(4, 4\) are no images \(depth"),
    (CentralWindow((5, 2)), (4, 4, 3), r"window_shape=\(5, 2\) is larger than the image, \(4, 4\)"),
    (CentralWindow((-1, 2)), (4, 4, 3), r"window_shape=\(-1, 2\): give whole numbers from 1 on"),
    (CentralWindow((2, 2)), (16,), "say which images they are with image_shape="),
]


@pytest.mark.parametrize(("transform", "row_shape", "message"), BAD)
def test_bad_arguments_are_refused(transform, row_shape, message):
    rows = np.zeros((3, *row_shape))
    with pytest.raises(MismatchError, match=message):
        transform.transform(rows)
    with pytest.raises(MismatchError, match=message):
        transform.fit(rows)
    with pytest.raises(MismatchError, match=message):
        epochal.from_arrays(X=rows).transform(transform)


def test_what_loses_pixels_cannot_be_undone():
    with pytest.raises(MismatchError, match="Downsample cannot be undone"):
        Downsample((2, 2)).inverse_transform(np.zeros((1, 2, 2)))
