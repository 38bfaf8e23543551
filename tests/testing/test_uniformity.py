import itertools

import numpy as np
import pytest

from epochal.testing.uniformity import Verdict, batch_classes, pairs, pooled, positions


def uniform(n_orders, n, seed):
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(n), (n_orders, 1)), axis=1)


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_the_mean_over_all_permutations_is_the_degrees_of_freedom(n):
    every = np.array(list(itertools.permutations(range(n))))
    labels = np.array([0, 0, 1, 2, 2, 2, 0])[:n]
    for statistic in (positions, pairs, lambda order: batch_classes(order, labels, 2)):
        verdicts = [statistic(order) for order in every]
        total = sum(verdict.statistic for verdict in verdicts)
        assert total / len(every) == pytest.approx(verdicts[0].degrees)


def test_scatter_under_the_null_is_as_claimed():
    """z over independent trials has mean 0 and deviation 1, so that p means what it says."""
    labels = np.repeat(np.arange(10), 60)
    z = {
        "positions": [positions(uniform(300, 12, s)).z for s in range(300)],
        "pairs": [pairs(uniform(300, 12, s)).z for s in range(300)],
        "classes": [batch_classes(uniform(2, 600, s), labels, 50).z for s in range(300)],
    }
    for values in z.values():
        assert abs(np.mean(values)) < 5 / 300**0.5
        assert 0.8 < np.std(values) < 1.2


@pytest.mark.parametrize(("degrees", "p"), [(1, 0.05), (10, 1e-3), (100, 1e-6), (10_000, 1e-6)])
def test_p_is_near_the_exact_tail(degrees, p):
    stats = pytest.importorskip("scipy.stats")
    for tail in (stats.chi2.isf(p / 2, degrees), stats.chi2.ppf(p / 2, degrees)):
        if degrees > 1:
            assert Verdict("", tail, degrees).p == pytest.approx(p, rel=0.5)


def test_each_statistic_sees_its_own_fault():
    rng = np.random.default_rng(0)
    swapped = uniform(2000, 10, 1)
    swapped[:, 0] = np.where(rng.random(2000) < 0.1, 0, swapped[:, 0])  # row 0 likes position 0
    assert positions(swapped).p < 1e-6
    rolled = np.array([np.roll(np.arange(10), s) for s in rng.integers(0, 10, 2000)])
    assert positions(rolled).p > 1e-6
    assert pairs(rolled).p < 1e-6
    backward = np.where(rng.random((2000, 1)) < 0.5, rolled, rolled[:, ::-1])
    assert pairs(backward).p < 1e-6
    labels = np.repeat(np.arange(10), 100)
    assert batch_classes(np.arange(1000), labels, 50).ratio > 10
    dealt = np.arange(1000).reshape(10, 100).T.ravel()  # every batch has its exact share
    assert batch_classes(dealt, labels, 50).p < 1e-6


def test_pooled_adds():
    one, other = positions(uniform(50, 8, 1)), positions(uniform(50, 8, 2))
    both = pooled([one, other])
    assert both.degrees == 98
    assert both.statistic == pytest.approx(one.statistic + other.statistic)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="orders have 1 rows; this statistic needs at least 2"):
        positions([[0]])
    with pytest.raises(ValueError, match="orders have 3 rows; this statistic needs at least 4"):
        pairs([[0, 1, 2]])
