"""Sums: stable, the same whatever blocks and merges they come in, and honest about NaN."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.errors import MismatchError
from epochal.transforms.statistics import (
    Covariance,
    Moments,
    Sketch,
    Tally,
    state_of,
    statistics_of,
)

MAKE = {Moments: lambda n: Moments(n, extremes=True), Covariance: Covariance}
DTYPES = ("u1", "i1", "?", "u2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i2")


def rows_of(dtype, n=300, d=7, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(20, 9, (n, d))
    if np.dtype(dtype).kind == "b":
        return rows > 20
    low = 0 if np.dtype(dtype).kind == "u" else -50
    return np.clip(rows, low, 120).astype(dtype)


def tree(kind, parts, rng):
    """Statistics of parts, merged with neighbours in a random tree."""
    made = []
    for part in parts:
        each = kind()
        each.take(part)
        made.append(each)
    while len(made) > 1:
        k = int(rng.integers(len(made) - 1))
        made[k].merge(made.pop(k + 1))
    return made[0]


@given(
    dtype=st.sampled_from(DTYPES),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_moments_of_any_blocks_and_merges(dtype, cuts, seed):
    rows = rows_of(dtype, seed=seed)
    found = tree(
        lambda: Moments(7, extremes=True), np.split(rows, sorted(cuts)), np.random.default_rng(seed)
    )
    exact = rows.astype("f8")
    assert (found.count == 300).all()
    assert found.tally == Tally(300)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.variance(), exact.var(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.least, exact.min(axis=0))
    np.testing.assert_array_equal(found.largest, exact.max(axis=0))
    assert found.mean_of_all() == pytest.approx(exact.mean(), rel=1e-13)
    assert found.variance_of_all() == pytest.approx(exact.var(), rel=1e-12)


@given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_covariance_of_any_blocks_and_merges(cuts, seed):
    rows = rows_of("f4", seed=seed) * np.arange(1, 8, dtype="f4")
    found = tree(lambda: Covariance(7), np.split(rows, sorted(cuts)), np.random.default_rng(seed))
    exact = rows.astype("f8")
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    scale = np.abs(np.cov(exact.T, bias=True)).max()
    np.testing.assert_allclose(found.matrix(), np.cov(exact.T, bias=True), atol=1e-13 * scale)
    moments = found.moments()
    np.testing.assert_allclose(moments.variance(), exact.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.least, exact.min(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.largest, exact.max(axis=0), rtol=1e-13)


@given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_sketch_of_any_blocks_and_merges(cuts, seed):
    rows = rows_of("f4", seed=seed)
    directions = np.linalg.qr(np.random.default_rng(seed).standard_normal((7, 3)))[0]
    parts = np.split(rows, sorted(cuts))
    found = tree(lambda: Sketch(directions), parts, np.random.default_rng(seed))
    covariance = np.cov(rows.astype("f8").T, bias=True)
    np.testing.assert_allclose(found.products / 300, covariance @ directions, rtol=1e-9, atol=1e-9)
    assert float(found.squares) / 300 == pytest.approx(np.trace(covariance), rel=1e-12)


def test_a_mean_that_is_huge_beside_the_deviation():
    """1e8 in float32 has steps of 8: what is stored is what is asked for, in float64."""
    rng = np.random.default_rng(0)
    rows = (1e8 + 16 * rng.integers(-4, 5, (20_000, 3))).astype("f4")
    found = Moments(3)
    for block in np.array_split(rows, 37):
        found.take(block)
    exact = (rows.astype("f8") - 1e8).var(axis=0)
    np.testing.assert_allclose(found.variance(), exact, rtol=1e-10)
    doubles = 1e8 + rng.standard_normal((20_000, 3))
    found, covariance = Moments(3), Covariance(3)
    for block in np.array_split(doubles, 37):
        found.take(block)
        covariance.take(block)
    exact = np.std(doubles - 1e8, axis=0)
    np.testing.assert_allclose(np.sqrt(found.variance()), exact, rtol=1e-10)
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance.matrix())), exact, rtol=1e-10)


def test_sorted_rows_whose_blocks_have_other_means():
    rows = np.repeat(np.arange(8.0)[:, None] * 1e6, 100, axis=0) + rows_of("f8", 800, 1)
    found = Moments(1)
    for block in np.split(rows, 8):
        found.take(block)
    np.testing.assert_allclose(found.variance(), rows.var(axis=0), rtol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_what_is_not_finite_is_counted_named_and_left_out(bad, dtype):
    rows = rows_of(dtype)
    for row, column in ((3, 2), (3, 4), (170, 0), (299, 6)):
        rows[row, column] = bad
    known = np.ma.masked_invalid(rows.astype("f8"))
    found, covariance = Moments(7, extremes=True), Covariance(7)
    for block in np.split(rows, (1, 100, 180)):
        found.take(block)
        covariance.take(block)
    assert found.tally == covariance.tally == Tally(300, 3, (3, 170, 299))
    assert found.count.tolist() == [299, 300, 299, 300, 299, 300, 299]
    np.testing.assert_allclose(found.mean, known.mean(axis=0).data, rtol=1e-13)
    np.testing.assert_allclose(found.variance(), known.var(axis=0).data, rtol=1e-12)
    np.testing.assert_array_equal(found.largest, known.max(axis=0).data)
    whole = rows[np.isfinite(rows).all(axis=1)].astype("f8")
    np.testing.assert_allclose(covariance.matrix(), np.cov(whole.T, bias=True), atol=1e-11)


def test_no_rows_and_one():
    for kind in (Moments, Covariance):
        found = kind(2)
        found.take(np.empty((0, 2)))
        assert found.tally == Tally(0)
        found.take(np.array([[3.0, 4.0]]))
        found.merge(kind(2))
        assert found.mean.tolist() == [3.0, 4.0]
    assert found.matrix().tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_affine_statistics_are_those_of_affine_rows():
    rows = rows_of("f8")
    columns = np.array([0, 2, 5])
    factor, offset = np.array([2.0, 0.5, 3.0]), np.array([1.0, -4.0, 0.0])
    made = rows[:, columns] * factor + offset
    for kind in (Moments, Covariance):
        before, after = MAKE[kind](7), MAKE[kind](3)
        before.take(rows)
        after.take(made)
        pushed = before.affine(factor, offset, columns)
        for name, expected in after.arrays().items():
            found = pushed.arrays()[name]
            if name == "products":
                found, expected = np.triu(found), np.triu(expected)
            np.testing.assert_allclose(found, expected, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", [Moments, Covariance])
def test_stored_and_restored(kind):
    found = kind(7)
    found.take(rows_of("f4"))
    again = statistics_of(state_of(found))
    again.merge(found)
    twice = kind(7)
    twice.take(np.concatenate([rows_of("f4")] * 2))
    np.testing.assert_allclose(again.mean, twice.mean, rtol=1e-13)
    assert again.tally == Tally(600)


def test_what_cannot_be_merged():
    with pytest.raises(MismatchError, match="moments of 2 columns cannot be merged with moments"):
        Moments(2).merge(Moments(3))
    with pytest.raises(MismatchError, match="cannot be merged with covariance of 2"):
        Moments(2).merge(Covariance(2))
