"""What transforms learn from: stable sums; those of two parts of the data make those of the whole.

Means and sums of squares are kept about the mean, in float64, and merged pairwise: T. F. Chan,
G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.linear import add_outer, add_products, mirror

__all__ = [
    "Covariance",
    "Moments",
    "Sketch",
    "Statistics",
    "Tally",
    "state_of",
    "statistics_of",
    "tally_of",
]

Numbers = NDArray[np.float64]
NAMED = 10  # rows that an error names
BLOCK_ITEMS = 1 << 17  # numbers that are summed at once: they stay in the cache
EXACT_ROWS = 256  # rows of bytes of which float32 holds the sum of squares exactly: 2^24 / 255^2
EXACT_ITEMS = 1 << 19
LOCAL = threading.local()


def _buffer(n_bytes: int) -> NDArray[np.uint8]:
    """This thread's own, whatever is in it: fresh memory costs more than what is done in it."""
    held: NDArray[np.uint8] | None = getattr(LOCAL, "held", None)
    if held is None or held.nbytes < n_bytes:
        held = LOCAL.held = np.empty(n_bytes, np.uint8)
    return held[:n_bytes]


@dataclass(frozen=True)
class Tally:
    """How many rows there were, and which of them held NaN or infinity.

    >>> Tally(3, 1, (2,)).merge(Tally(5, 1, (0,)))
    Tally(n_rows=8, n_bad=2, bad_rows=(2, 3))
    """

    n_rows: int = 0
    n_bad: int = 0
    bad_rows: tuple[int, ...] = ()

    def merge(self, after: Tally) -> Tally:
        """Of these rows and those that come after them."""
        shifted = tuple(self.n_rows + row for row in after.bad_rows)
        return Tally(
            self.n_rows + after.n_rows,
            self.n_bad + after.n_bad,
            (*self.bad_rows, *shifted)[:NAMED],
        )


def tally_of(rows: NDArray[Any]) -> tuple[Tally, NDArray[np.bool_] | None]:
    """The tally of rows ``(n, d)``, and which numbers are finite; None where all are."""
    finite = np.isfinite(rows) if rows.dtype.kind in "fc" else None
    if finite is None or finite.all():
        return Tally(len(rows)), None
    bad = np.flatnonzero(~finite.all(axis=1))
    return Tally(len(rows), len(bad), tuple(bad[:NAMED].tolist())), finite


class Statistics(ABC):
    """What is collected in a pass over rows, in bounded memory.

    `piece` runs on the threads that read, `add` in the order of the rows on one of them. A block
    is ``(n, n_columns)``.
    """

    KIND: ClassVar[str]
    least_rows: ClassVar[int] = 1  # of a block that is worth a call

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns
        self.tally = Tally()

    @abstractmethod
    def piece(self, block: NDArray[Any]) -> Any:
        """What `add` takes of a block."""

    @abstractmethod
    def add(self, piece: Any) -> None:
        """Take a piece in."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what was collected of the rows that come after."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it is, to be stored."""

    def take(self, block: NDArray[Any]) -> None:
        """Take in a block."""
        self.add(self.piece(block))

    def check(self, other: Statistics) -> None:
        """Refuse what cannot be merged."""
        if type(self) is not type(other) or self.n_columns != other.n_columns:
            raise MismatchError(
                f"{self.KIND} of {self.n_columns} columns cannot be merged with {other.KIND} of "
                f"{other.n_columns}"
            )


class Moments(Statistics):
    """Of each column: how many numbers, their mean, the sum of squared distances from it, and with
    `extremes` the least and the largest.

    NaN and infinity are left out. 24 to 40 bytes a column.

    >>> moments = Moments(1)
    >>> moments.take(np.array([[1.0], [3.0], [5.0]]))
    >>> float(moments.mean[0]), float(moments.variance()[0])
    (3.0, 2.6666666666666665)
    """

    KIND = "moments"

    def __init__(self, n_columns: int, *, extremes: bool = False) -> None:
        super().__init__(n_columns)
        self.count: Numbers = np.zeros(n_columns)
        self.mean: Numbers = np.zeros(n_columns)
        self.squares: Numbers = np.zeros(n_columns)
        self.least: Numbers = np.full(n_columns if extremes else 0, np.inf)
        self.largest: Numbers = np.full(n_columns if extremes else 0, -np.inf)

    @property
    def extremes(self) -> bool:
        """Whether the least and the largest are among them."""
        return len(self.least) == self.n_columns > 0

    def piece(self, block: NDArray[Any]) -> Moments:
        """See `Statistics`. About half a ns a number of bytes, 4 of float32."""
        if block.dtype.kind in "iub" and block.dtype.itemsize == 1 and len(block):
            return _moments_of_bytes(block, extremes=self.extremes)
        made = Moments(self.n_columns, extremes=self.extremes)
        step = max(1, BLOCK_ITEMS // max(self.n_columns, 1))
        step = min(step, max(len(block), 1))
        buffer = _buffer(step * self.n_columns * 8).view(np.float64).reshape(step, -1)
        for at in range(0, len(block), step):
            rows = block[at : at + step]
            made.merge(_moments_of(rows, buffer[: len(rows)], extremes=self.extremes))
        return made

    def add(self, piece: Moments) -> None:
        """See `Statistics`."""
        self.merge(piece)

    def merge(self, other: Moments) -> None:
        """See `Statistics`."""
        self.check(other)
        self.tally = self.tally.merge(other.tally)
        share, weight = self._shares(other)
        delta = other.mean - self.mean
        self.mean += delta * share
        delta *= delta
        delta *= weight
        self.squares += delta
        self.squares += other.squares
        self.count += other.count
        if self.extremes:
            np.minimum(self.least, other.least, out=self.least)
            np.maximum(self.largest, other.largest, out=self.largest)

    def _shares(self, other: Moments) -> tuple[Any, Any]:
        """What the other's count is of both, and that times one's own: a number where all columns
        count the same.
        """
        if not self.tally.n_bad and len(self.count):
            mine, theirs = float(self.count[0]), float(other.count[0])
            share = theirs / max(mine + theirs, 1.0)
            return share, mine * share
        count = self.count + other.count
        shares = np.divide(other.count, count, out=np.zeros_like(count), where=count > 0)
        return shares, self.count * shares

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Statistics`."""
        names = ("count", "mean", "squares", "least", "largest")
        return {name: getattr(self, name) for name in names}

    def affine(self, factor: Numbers, offset: Numbers, columns: NDArray[np.intp]) -> Moments:
        """Of these columns, times a factor, plus an offset each; factors are positive."""
        made = Moments(len(columns))
        made.tally, made.count = self.tally, self.count[columns].copy()
        made.mean = self.mean[columns] * factor + offset
        made.squares = self.squares[columns] * factor * factor
        if self.extremes:
            made.least = self.least[columns] * factor + offset
            made.largest = self.largest[columns] * factor + offset
        return made

    def variance(self) -> Numbers:
        """The mean squared distance from the mean, of each column; 0 of no numbers."""
        found: Numbers = self.squares / np.maximum(self.count, 1)
        return found

    def mean_of_all(self) -> float:
        """Of the numbers of all columns as one."""
        return float((self.count * self.mean).sum() / max(self.count.sum(), 1.0))

    def variance_of_all(self) -> float:
        """Of the numbers of all columns as one, about their mean."""
        apart = self.mean - self.mean_of_all()
        squares = self.squares.sum() + (self.count * apart * apart).sum()
        return float(squares / max(self.count.sum(), 1.0))


def _moments_of(block: NDArray[Any], rows: Numbers, *, extremes: bool) -> Moments:
    """In two steps, the second about the mean of the first; `rows` is what they are done in."""
    made = Moments(block.shape[1], extremes=extremes)
    rows[...] = block
    least, largest = block.min(axis=0), block.max(axis=0)
    if np.isfinite(least).all() and np.isfinite(largest).all():
        made.tally = Tally(len(rows))
        if extremes:
            made.least, made.largest = least.astype(np.float64), largest.astype(np.float64)
        made.count = np.full(block.shape[1], float(len(rows)))
        made.mean, made.squares = _about_mean(rows, made.count)
        return made
    made.tally, finite = tally_of(rows)
    assert finite is not None
    made.count = finite.sum(axis=0).astype(np.float64)
    if extremes:
        made.least = np.where(finite, rows, np.inf).min(axis=0)
        made.largest = np.where(finite, rows, -np.inf).max(axis=0)
    shares = np.maximum(made.count, 1)
    rows[~finite] = 0
    mean = np.add.reduce(rows, axis=0) / shares
    rows -= mean
    rows[~finite] = 0
    apart, made.squares = _about_mean(rows, shares, whole=False)
    made.mean = mean + apart
    return made


def _about_mean(rows: Numbers, count: Numbers, *, whole: bool = True) -> tuple[Numbers, Numbers]:
    """Mean and sum of squared distances from it; `rows` are overwritten. Not `whole`: the mean is
    nearly zero already, and some of them are left out as zeros.
    """
    mean = np.zeros(rows.shape[1])
    if whole:
        mean = np.add.reduce(rows, axis=0) / count
        rows -= mean
    # The mean is rounded: what is left of the mean of the distances goes to it.
    rest = np.add.reduce(rows, axis=0)
    np.multiply(rows, rows, out=rows)
    squares = np.maximum(np.add.reduce(rows, axis=0) - rest * rest / count, 0)
    return mean + rest / count, squares


def _moments_of_bytes(block: NDArray[Any], *, extremes: bool) -> Moments:
    """Exact: sums of whole numbers below 2^24, which float32 holds, added up in int64."""
    n, n_columns = block.shape
    made = Moments(n_columns, extremes=extremes)
    made.tally, made.count = Tally(n), np.full(n_columns, float(n))
    if extremes:
        made.least = block.min(axis=0).astype(np.float64)
        made.largest = block.max(axis=0).astype(np.float64)
    sums, squares = np.zeros(n_columns, np.int64), np.zeros(n_columns, np.int64)
    step = min(EXACT_ROWS, max(1, EXACT_ITEMS // max(n_columns, 1)))
    step = -(-n // -(-n // step))  # steps of about one size
    buffer = _buffer(step * n_columns * 4).view(np.float32).reshape(step, n_columns)
    for at in range(0, n, step):
        rows = buffer[: min(step, n - at)]
        rows[...] = block[at : at + step]
        sums += np.add.reduce(rows, axis=0).astype(np.int64)
        squares += np.einsum("ij,ij->j", rows, rows).astype(np.int64)
    made.mean = sums / n
    made.squares = (n * squares - sums * sums) / n
    return made


class Covariance(Statistics):
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
        self.count: Numbers = np.zeros(())
        self.mean: Numbers = np.zeros(n_columns)
        self.least: Numbers = np.full(n_columns, np.inf)
        self.largest: Numbers = np.full(n_columns, -np.inf)
        # The upper triangle alone is kept up to date, in the order that BLAS writes in place. Not
        # made before it is needed: what is empty is sent to workers.
        self.products: Numbers = np.zeros((0, 0), order="F")

    def _products(self) -> Numbers:
        if not self.products.size:
            self.products = np.zeros((self.n_columns, self.n_columns), order="F")
        return self.products

    def piece(self, block: NDArray[Any]) -> NDArray[Any]:
        """The rows themselves: products are made on one thread, by BLAS on all cores."""
        return block

    def add(self, piece: NDArray[Any]) -> None:
        """Costs ``n * n_columns ** 2`` multiplications."""
        tally, finite = tally_of(piece)
        self.tally = self.tally.merge(tally)
        rows = piece.astype(np.float64) if finite is None else _whole(piece, finite)
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
        count = self.count + n
        delta = mean - self.mean
        add_outer(self._products(), delta, float(self.count * n / count))
        self.mean = self.mean + delta * (n / count)
        self.count = np.asarray(count)

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


class Sketch(Statistics):
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
        self.count: Numbers = np.zeros(())
        self.mean: Numbers = np.zeros(self.n_columns)
        self.squares: Numbers = np.zeros(())
        self.products: Numbers = np.zeros(directions.shape)

    def piece(self, block: NDArray[Any]) -> NDArray[Any]:
        """The rows themselves, as `Covariance.piece`."""
        return block

    def add(self, piece: NDArray[Any]) -> None:
        """Costs ``2 * n * n_columns * n_directions`` multiplications."""
        tally, finite = tally_of(piece)
        self.tally = self.tally.merge(tally)
        rows = piece.astype(np.float64) if finite is None else _whole(piece, finite)
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        rows -= mean
        self.products += rows.T @ (rows @ self.directions)
        self._shift(len(rows), mean, float(np.einsum("ij,ij->", rows, rows)))

    def _shift(self, n: float, mean: Numbers, squares: float) -> None:
        count = self.count + n
        delta = mean - self.mean
        weight = float(self.count * n / count)
        self.products += np.outer(delta * weight, delta @ self.directions)
        self.squares = self.squares + squares + weight * (delta @ delta)
        self.mean = self.mean + delta * (n / count)
        self.count = np.asarray(count)

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


def _whole(rows: NDArray[Any], finite: NDArray[np.bool_]) -> Numbers:
    return rows[finite.all(axis=1)].astype(np.float64)


KINDS: dict[str, type[Statistics]] = {"moments": Moments, "covariance": Covariance}


def state_of(statistics: Statistics) -> dict[str, Any]:
    """What is stored of statistics."""
    tally = statistics.tally
    return {
        "kind": statistics.KIND,
        "n_columns": statistics.n_columns,
        "tally": [tally.n_rows, tally.n_bad, list(tally.bad_rows)],
        "arrays": statistics.arrays(),
    }


def statistics_of(state: dict[str, Any]) -> Statistics:
    """What `state_of` is of."""
    arrays = state["arrays"]
    made: Statistics
    if state["kind"] == Sketch.KIND:
        made = Sketch(arrays["directions"])
    else:
        made = KINDS[state["kind"]](state["n_columns"])  # which of its arrays are there, they tell
    n_rows, n_bad, bad_rows = state["tally"]
    made.tally = Tally(n_rows, n_bad, tuple(bad_rows))
    for name, array in arrays.items():
        setattr(made, name, array)
    return made
