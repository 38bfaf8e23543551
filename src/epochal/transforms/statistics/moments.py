"""Means, sums of squares about them, and extremes, of each column."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.transforms.statistics.base import Numbers, Statistics, Tally, tally_of

__all__ = ["Moments"]

BLOCK_ITEMS = 1 << 17  # numbers that are summed at once: they stay in the cache
EXACT_ROWS = 256  # rows of bytes of which float32 holds the sum of squares exactly: 2^24 / 255^2
EXACT_ITEMS = 1 << 19
LOCAL = threading.local()


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
    # What is done once a block are many small steps, for which threads wait for the interpreter.
    block_bytes = 16 << 20

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


def _buffer(n_bytes: int) -> NDArray[np.uint8]:
    """This thread's own, whatever is in it: fresh memory costs more than what is done in it."""
    held: NDArray[np.uint8] | None = getattr(LOCAL, "held", None)
    if held is None or held.nbytes < n_bytes:
        held = LOCAL.held = np.empty(n_bytes, np.uint8)
    return held[:n_bytes]
