"""Transforms of columns: each number by itself, with what was learnt of its column."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.arguments import check_interval, check_nan, check_number
from epochal.transforms.statistics import Moments, Statistics
from epochal.transforms.transform import Transform, flat

__all__ = ["Columns", "RemapInterval", "RemoveMean", "RemoveZeroColumns", "Standardize"]

Numbers = NDArray[np.float64]
BLOCK_ITEMS = 1 << 16  # numbers that are transformed at once: they stay in the cache
NAMED = 10  # columns that an error names


class Columns(Transform):
    """The base of those that are an affine function of each column: ``X * factor + offset``."""

    pushes: ClassVar[bool] = True

    def _affine(self) -> tuple[Any, Any]:
        """What is subtracted of rows ``(n, d)``, and what they are multiplied with then."""
        raise NotImplementedError

    def _shift(self) -> Any:
        """What is added in the end."""
        return 0.0

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        centre, factor = self._affine()
        shift = self._shift()
        vectors = flat(rows)
        out = np.empty(vectors.shape, self._out_dtype(rows.dtype))
        step = max(1, BLOCK_ITEMS // max(vectors.shape[1], 1))
        for at in range(0, len(vectors), step):
            block = np.subtract(vectors[at : at + step], centre, dtype=np.float64)
            block *= factor
            if np.any(shift):
                block += shift
            out[at : at + step] = block
        return out.reshape(rows.shape)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        centre, factor = self._affine()
        made = (flat(rows).astype(np.float64) - self._shift()) / factor + centre
        undone: NDArray[Any] = made.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)
        return undone

    def pushed(self, statistics: Statistics) -> Statistics | None:
        """See `Transform`."""
        n = statistics.n_columns
        centre, factor = (np.broadcast_to(np.asarray(each, float), n) for each in self._affine())
        offset = self._shift() - centre * factor
        made: Statistics = statistics.affine(factor, offset, np.arange(n))  # type: ignore[attr-defined]
        return made


class Standardize(Columns):
    """Subtract the mean and divide by the standard deviation: ``(X - mean) / (std_eps + std)``.

    Learns in one pass, with the mean of each column and the mean squared distance from it (not
    corrected for the number of rows), as Pylearn2's. Holds 40 bytes a column.

    Parameters
    ----------
    global_mean, global_std
        One mean, one deviation, of all numbers as one; else of each column.
    std_eps
        What is added to deviations, so that columns that hardly vary do not blow up.
    nan
        ``"raise"`` where a number is NaN or infinite, or ``"ignore"`` it: it is left out of the
        statistics, and stays what it is.

    Raises
    ------
    MismatchError
        A column is constant, and ``std_eps=0``.

    Examples
    --------
    >>> Standardize(std_eps=0).fit_transform(np.array([[0.0], [2.0], [4.0]])).ravel().round(3)
    array([-1.225,  0.   ,  1.225])
    """

    FITTED = ("mean_", "std_")

    def __init__(
        self,
        global_mean: bool = False,
        global_std: bool = False,
        std_eps: float = 1e-4,
        nan: str = "raise",
    ) -> None:
        self.global_mean = global_mean
        self.global_std = global_std
        self.std_eps = std_eps
        self.nan = nan

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        check_number("std_eps", self.std_eps, least=0)

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Moments(self.n_features_in_)

    def wants(self, n_columns: int) -> type[Statistics]:
        """See `Transform`."""
        return Moments

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        assert isinstance(statistics, Moments)
        self.statistics_ = statistics
        mean = statistics.mean
        self.mean_ = np.asarray(statistics.mean_of_all()) if self.global_mean else mean.copy()
        variance = (
            np.asarray(statistics.variance_of_all()) if self.global_std else statistics.variance()
        )
        self.std_ = np.sqrt(variance)
        # Rounding leaves something of a constant column.
        constant = self.std_ <= 1e-14 * np.abs(self.mean_)
        if self.std_eps == 0 and constant.any():
            del self.std_
            raise MismatchError(
                f"{named_columns(constant)} constant, and std_eps=0 divides by zero: give std_eps, "
                "or RemoveZeroColumns first"
            )

    def _affine(self) -> tuple[Any, Any]:
        return self.mean_, 1.0 / (self.std_eps + self.std_)


class RemoveMean(Columns):
    """Subtract the mean: of each column, of each row, or of everything.

    Parameters
    ----------
    axis
        0: that of each column, learnt in one pass. 1: that of each row, where there is nothing to
        learn. None: the mean of all numbers, learnt.
    nan
        See `Standardize`.

    Examples
    --------
    >>> RemoveMean(axis=1).fit_transform(np.array([[0.0, 2.0], [4.0, 4.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, axis: int | None = 0, nan: str = "raise") -> None:
        self.axis = axis
        self.nan = nan

    def learnt(self) -> tuple[str, ...]:
        """Nothing, where rows lose their own means."""
        return () if self.axis == 1 else ("mean_",)

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        if self.axis not in (0, 1, None):
            raise MismatchError(
                f"axis={self.axis!r}: give 0 (columns), 1 (rows) or None (everything)"
            )

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Moments(self.n_features_in_)

    def wants(self, n_columns: int) -> type[Statistics] | None:
        """See `Transform`."""
        return None if self.axis == 1 else Moments

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        assert isinstance(statistics, Moments)
        self.statistics_ = statistics
        mean = statistics.mean
        self.mean_ = mean.copy() if self.axis == 0 else np.asarray(statistics.mean_of_all())

    def _affine(self) -> tuple[Any, Any]:
        return self.mean_, 1.0

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.axis != 1:
            return super()._apply(rows)
        vectors = flat(rows).astype(np.float64)
        vectors -= vectors.mean(axis=1, keepdims=True)
        return vectors.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.axis == 1:
            raise MismatchError("RemoveMean(axis=1) cannot be undone: each row's mean is gone")
        return super()._undo(rows)

    def pushed(self, statistics: Statistics) -> Statistics | None:
        """See `Transform`."""
        return super().pushed(statistics) if self.axis != 1 else None


class RemapInterval(Columns):
    """Map an interval to another, linearly: what lies outside goes outside.

    Parameters
    ----------
    map_from
        The interval that numbers lie in; None learns the least and the largest of all, in one pass.
    map_to
        The interval that they come to lie in.
    nan
        See `Standardize`.

    Examples
    --------
    >>> RemapInterval((0, 255), (-1, 1)).fit_transform(np.array([[0, 255]], "u1")).tolist()
    [[-1.0, 1.0]]
    """

    extremes = True

    def __init__(
        self,
        map_from: tuple[float, float] | None = None,
        map_to: tuple[float, float] = (0.0, 1.0),
        nan: str = "raise",
    ) -> None:
        self.map_from = map_from
        self.map_to = map_to
        self.nan = nan

    def learnt(self) -> tuple[str, ...]:
        """Nothing, where the interval was given."""
        return () if self.map_from is not None else ("interval_",)

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        for name in ("map_from", "map_to"):
            given = getattr(self, name)
            if given is not None:
                check_interval(name, given)

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Moments(self.n_features_in_, extremes=True)

    def wants(self, n_columns: int) -> type[Statistics] | None:
        """See `Transform`."""
        return None if self.map_from is not None else Moments

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        assert isinstance(statistics, Moments)
        self.statistics_ = statistics
        least, largest = float(statistics.least.min()), float(statistics.largest.max())
        if not least < largest:
            raise MismatchError(f"all numbers are {least}: they span no interval to map from")
        self.interval_ = (least, largest)

    def _affine(self) -> tuple[Any, Any]:
        low, high = self.map_from if self.map_from is not None else self.interval_
        return low, (self.map_to[1] - self.map_to[0]) / (high - low)

    def _shift(self) -> Any:
        return float(self.map_to[0])


class RemoveZeroColumns(Transform):
    """Leave out columns that are zero in all rows, or nearly: those with a variance and a mean
    (whatever its sign) below `eps`, as Pylearn2's.

    Rows become vectors. Learns in one pass.

    Parameters
    ----------
    eps
        What variance and mean are held against.
    nan
        See `Standardize`.

    Raises
    ------
    MismatchError
        All columns are zero.

    Examples
    --------
    >>> RemoveZeroColumns().fit_transform(np.array([[0.0, 1.0], [0.0, 2.0]])).tolist()
    [[1.0], [2.0]]
    """

    FITTED = ("columns_",)
    pushes = True

    extremes = True

    def __init__(self, eps: float = 1e-8, nan: str = "raise") -> None:
        self.eps = eps
        self.nan = nan

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        check_number("eps", self.eps, least=0)

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Moments(self.n_features_in_, extremes=True)

    def wants(self, n_columns: int) -> type[Statistics]:
        """See `Transform`."""
        return Moments

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        assert isinstance(statistics, Moments)
        self.statistics_ = statistics
        zero = (statistics.variance() < self.eps) & (np.abs(statistics.mean) < self.eps)
        if self.eps == 0:
            zero = (statistics.least == 0) & (statistics.largest == 0)
        if zero.all():
            raise MismatchError(
                f"all {len(zero)} columns are zero (eps={self.eps}): none would be left"
            )
        self.columns_ = np.flatnonzero(~zero)

    def pushed(self, statistics: Statistics) -> Statistics | None:
        """See `Transform`."""
        made: Statistics = statistics.affine(  # type: ignore[attr-defined]
            np.ones(len(self.columns_)), np.zeros(len(self.columns_)), self.columns_
        )
        return made

    def _out_shape(self, row_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (len(self.columns_),)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        return flat(rows)[:, self.columns_].astype(self._out_dtype(rows.dtype), copy=False)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        if flat(rows).shape[1] != len(self.columns_):
            raise MismatchError(
                f"rows of {flat(rows).shape[1]} numbers: those that were left have "
                f"{len(self.columns_)}"
            )
        out = np.zeros((len(rows), prod(self.row_shape_)), self._out_dtype(rows.dtype))
        out[:, self.columns_] = flat(rows)
        return out.reshape(-1, *self.row_shape_)


def named_columns(which: NDArray[np.bool_]) -> str:
    """Columns in words: ``columns 3, 5 are``."""
    found = np.flatnonzero(np.atleast_1d(which))
    told = ", ".join(map(str, found[:NAMED].tolist()))
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"column {told} is" if len(found) == 1 else f"columns {told}{more} are"
