"""Products of columns: all of them, or with some directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.transforms.linear import add_outer, add_products, mirror
from epochal.transforms.statistics.base import Numbers, Statistics, tally_of
from epochal.transforms.statistics.moments import Moments

__all__ = ["Covariance", "Sketch"]


class _Products(Statistics):
    """The base of those that take rows whole, and have one count and the mean of each column."""

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self.count: Numbers = np.zeros(())
        self.mean: Numbers = np.zeros(n_columns)

    def _move(self, n: float, mean: Numbers) -> tuple[Numbers, float]:
        """Take in the mean of `n` rows more; its distance from what the mean was, and how much the
        square of that adds to squares about the mean.
        """
        count = self.count + n
        delta, weight = mean - self.mean, float(self.count * n / count)
        self.mean = self.mean + delta * (n / count)
        self.count = np.asarray(count)
        return delta, weight

    def piece(self, block: NDArray[Any]) -> NDArray[Any]:
        """The rows themselves: products are made on one thread, by BLAS on all cores."""
        return block

    def _finite(self, block: NDArray[Any]) -> Numbers:
        """Rows without NaN and infinity, in float64; all of them are counted."""
        tally, finite = tally_of(block)
        self.tally = self.tally.merge(tally)
        rows = block if finite is None else block[finite.all(axis=1)]
        return rows.astype(np.float64)


class Covariance(_Products):
    """Of rows: how many, their mean, and the sum of the products of distances from it.

    Holds 8 bytes times the square of the width. Rows with NaN or infinity are left out whole.

    >>> covariance = Covariance(2)
    >>> covariance.take(np.array([[0.0, 0.0], [2.0, 4.0]]))
    >>> covariance.matrix().tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """

    KIND = "covariance"
    least_rows = 1024

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self.least: Numbers = np.full(n_columns, np.inf)
        self.largest: Numbers = np.full(n_columns, -np.inf)
        # The upper triangle alone is kept up to date, in the order that BLAS writes in place. Not
        # made before it is needed: what is empty is sent to workers.
        self.products: Numbers = np.zeros((0, 0), order="F")

    def _products(self) -> Numbers:
        if not self.products.size:
            self.products = np.zeros((self.n_columns, self.n_columns), order="F")
        return self.products

    def add(self, piece: NDArray[Any]) -> None:
        """Costs ``n * n_columns ** 2`` multiplications."""
        rows = self._finite(piece)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        rows -= mean
        rest = rows.mean(axis=0)
        rows -= rest
        self.least = np.minimum(self.least, rows.min(axis=0) + mean + rest)
        self.largest = np.maximum(self.largest, rows.max(axis=0) + mean + rest)
        add_products(self._products(), rows)
        self._shift(len(rows), mean + rest)

    def _shift(self, n: float, mean: Numbers) -> None:
        """Take in the distance of another part's mean."""
        add_outer(self._products(), *self._move(n, mean))

    def merge(self, other: Covariance) -> None:
        """See `Statistics`."""
        self.check(other)
        self.tally = self.tally.merge(other.tally)
        if other.count:
            self._products()[...] += other.products
            self.least = np.minimum(self.least, other.least)
            self.largest = np.maximum(self.largest, other.largest)
            self._shift(float(other.count), other.mean)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Statistics`."""
        names = ("count", "mean", "least", "largest", "products")
        return {name: getattr(self, name) for name in names}

    def moments(self) -> Moments:
        """Those of each column."""
        made = Moments(self.n_columns, extremes=True)
        made.tally, made.mean = self.tally, self.mean.copy()
        made.count = np.full(self.n_columns, float(self.count))
        made.squares = np.maximum(np.diagonal(self._products()), 0)
        made.least, made.largest = self.least.copy(), self.largest.copy()
        return made

    def affine(self, factor: Numbers, offset: Numbers, columns: NDArray[np.intp]) -> Covariance:
        """Of these columns, times a factor, plus an offset each; factors are positive."""
        made = Covariance(len(columns))
        made.tally, made.count = self.tally, self.count
        made.mean = self.mean[columns] * factor + offset
        made.least = self.least[columns] * factor + offset
        made.largest = self.largest[columns] * factor + offset
        made.products = np.asfortranarray(self._products()[np.ix_(columns, columns)])
        made.products *= factor
        made.products *= factor[:, None]
        return made

    def matrix(self) -> Numbers:
        """The covariance ``(d, d)``, divided by the number of rows; a copy."""
        found: Numbers = self._products() / max(float(self.count), 1.0)
        mirror(found)
        return found


class Sketch(_Products):
    """Products of the covariance with some directions, for rows too wide for all of it.

    N. Halko, P. G. Martinsson and J. A. Tropp, "Finding Structure with Randomness", 2011: one step
    of the subspace iteration. Holds 16 bytes times the width and the number of directions.

    Parameters
    ----------
    directions
        ``(n_columns, n_directions)``.
    """

    KIND = "sketch"
    least_rows = 256

    def __init__(self, directions: Numbers) -> None:
        super().__init__(len(directions))
        self.directions = directions
        self.squares: Numbers = np.zeros(())
        self.products: Numbers = np.zeros(directions.shape)

    @classmethod
    def empty(cls, n_columns: int, arrays: Mapping[str, NDArray[Any]]) -> Sketch:
        """See `Statistics`."""
        return cls(arrays["directions"])

    def add(self, piece: NDArray[Any]) -> None:
        """Costs ``2 * n * n_columns * n_directions`` multiplications."""
        rows = self._finite(piece)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        rows -= mean
        self.products += rows.T @ (rows @ self.directions)
        self._shift(len(rows), mean, float(np.einsum("ij,ij->", rows, rows)))

    def _shift(self, n: float, mean: Numbers, squares: float) -> None:
        delta, weight = self._move(n, mean)
        self.products += np.outer(delta * weight, delta @ self.directions)
        self.squares = self.squares + squares + weight * (delta @ delta)

    def merge(self, other: Sketch) -> None:
        """See `Statistics`."""
        self.check(other)
        self.tally = self.tally.merge(other.tally)
        if other.count:
            self.products = self.products + other.products
            self._shift(float(other.count), other.mean, float(other.squares))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Statistics`."""
        names = ("directions", "count", "mean", "squares", "products")
        return {name: getattr(self, name) for name in names}
