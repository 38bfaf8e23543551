"""Is an order uniformly random? Three statistics whose law under the exact null is known.

Each takes orders as an array ``(n_orders, n_rows)``, one permutation of ``0 .. n_rows - 1`` a row,
made with different seeds or epochs, and compares them with independent, exactly uniform
permutations. Under that null each statistic's mean is *exactly* its degrees of freedom, whatever
the sizes (the covariances of permutations are in it: counts in a permutation are not independent);
its law is chi-square up to terms that vanish as orders, or rows, grow.

No statistic proves uniformity. These see what goes wrong in practice: rows that prefer places,
neighbours that stay neighbours, batches in which stored clumps survive.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cbrt, erfc, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Verdict", "batch_classes", "pairs", "pooled", "positions"]

Orders = NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """A chi-square statistic beside its law under the null.

    Attributes
    ----------
    name
        Which statistic.
    statistic
        Its value.
    degrees
        Its mean under the null, and degrees of freedom.

    >>> Verdict("a fair one", 98.0, 100).p > 0.5, Verdict("a foul one", 300.0, 100).p < 1e-15
    (True, True)
    """

    name: str
    statistic: float
    degrees: int

    @property
    def ratio(self) -> float:
        """The statistic over its mean under the null: 1.00 for a uniform order."""
        return self.statistic / self.degrees

    @property
    def z(self) -> float:
        """Standard deviations from the null, by Wilson and Hilferty's cube root (PNAS 17, 1931).

        For ten degrees of freedom or more it is right to a few percent as far as p = 1e-6, and good
        enough to tell 1e-6 from 1e-5 beyond.
        """
        width = 2 / (9 * self.degrees)
        return (cbrt(self.ratio) - (1 - width)) / sqrt(width)

    @property
    def p(self) -> float:
        """Probability of a value so far out, on either side: too even is not random either."""
        return erfc(abs(self.z) / sqrt(2))


def pooled(verdicts: list[Verdict]) -> Verdict:
    """Verdicts of independent orders as one.

    >>> pooled([Verdict("x", 3.0, 4), Verdict("x", 7.0, 6)])
    Verdict(name='x', statistic=10.0, degrees=10)
    """
    names = ", ".join(sorted({verdict.name for verdict in verdicts}))
    return Verdict(names, sum(v.statistic for v in verdicts), sum(v.degrees for v in verdicts))


def positions(orders: ArrayLike) -> Verdict:
    """Whether every row is equally often at every position.

    With ``c[r, p]`` counting how often row *r* is at position *p* in *k* orders of *n* rows,
    ``(n - 1) / k * sum((c - k / n)**2)`` has mean ``(n - 1)**2``: the covariance of a permutation
    matrix is ``1 / (n - 1)`` times the projection onto matrices whose rows and columns sum to zero.
    """
    table = _orders(orders, at_least=2)
    n_orders, n = table.shape
    cells = table * n + np.arange(n)
    counts = np.bincount(cells.ravel(), minlength=n * n)
    spread = float(np.square(counts - n_orders / n).sum())
    return Verdict("positions", (n - 1) / n_orders * spread, (n - 1) ** 2)


def pairs(orders: ArrayLike) -> Verdict:
    """Whether every ordered pair of rows is equally often adjacent.

    Adjacency counts of ordered pairs fall, under relabelling of rows, into parts that do not mix.
    What single rows do is taken out; of the rest, the symmetric part (who is beside whom) has
    variance ``2 / n`` in every direction of its ``n (n - 3) / 2`` dimensions, and the antisymmetric
    one (who comes first) ``2 (n + 1) / (n (n - 1))`` in its ``(n - 1)(n - 2) / 2``. Each is scaled
    by its own and both are added.
    """
    table = _orders(orders, at_least=4)
    n_orders, n = table.shape
    counts = np.bincount((table[:, :-1] * n + table[:, 1:]).ravel(), minlength=n * n)
    follows = counts.reshape(n, n).astype(np.float64)  # (row, next row)
    beside = _without_margins(follows + follows.T)
    first = follows - follows.T
    lead = first.sum(axis=1) / n
    first -= lead[:, None] - lead[None, :]
    # Each unordered pair is twice in a square matrix: hence the halves.
    symmetric = float(np.square(beside).sum()) / 2 / (n_orders * 2 / n)
    antisymmetric = float(np.square(first).sum()) / 2 / (n_orders * 2 * (n + 1) / (n * (n - 1)))
    degrees = n * (n - 3) // 2 + (n - 1) * (n - 2) // 2
    return Verdict("adjacent pairs", symmetric + antisymmetric, degrees)


def batch_classes(orders: ArrayLike, labels: ArrayLike, batch_size: int) -> Verdict:
    """Whether the classes of every batch scatter as those of a random draw without replacement.

    For each order the table of batches by classes; Pearson's chi-square times ``(n - 1) / n`` has
    mean ``(n_batches - 1)(n_classes - 1)`` when margins are fixed (Haldane, Biometrika 31, 1940).
    On rows sorted by class `Verdict.ratio` is how clumped batches are, 1.00 for a true shuffle.
    Orders may be of part of the rows.
    """
    table = np.atleast_2d(np.asarray(orders, np.int64))
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    n_orders, n = table.shape
    n_batches = -(-n // batch_size)
    batch = np.arange(n) // batch_size
    statistic = 0.0
    for order in table:
        cells = batch * len(names) + classes[order]
        counts = np.bincount(cells, minlength=n_batches * len(names)).reshape(n_batches, -1)
        counts = counts[:, counts.sum(axis=0) > 0]
        expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
        statistic += (n - 1) / n * float((np.square(counts - expected) / expected).sum())
    degrees = n_orders * (n_batches - 1) * (len(names) - 1)
    return Verdict("batch classes", statistic, degrees)


def _without_margins(symmetric: NDArray[np.float64]) -> NDArray[np.float64]:
    """A symmetric matrix less ``u[a] + u[b]`` off the diagonal, so that its rows sum to zero."""
    n = len(symmetric)
    sums = symmetric.sum(axis=1)
    share = (sums - sums.sum() / (2 * (n - 1))) / (n - 2)
    left: NDArray[np.float64] = symmetric - share[:, None] - share[None, :]
    np.fill_diagonal(left, 0)
    return left


def _orders(orders: ArrayLike, at_least: int) -> Orders:
    table = np.atleast_2d(np.asarray(orders, np.int64))
    n = table.shape[1]
    if n < at_least:
        raise ValueError(f"orders have {n} rows; this statistic needs at least {at_least}")
    return table
