"""Transforms of rows: each by itself, with nothing to learn but its width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.arguments import check_nan, check_number, check_whole
from epochal.transforms.statistics import Moments, Statistics
from epochal.transforms.transform import Transform, flat

__all__ = ["GlobalContrastNormalization", "MakeUnitNorm", "OneHot"]


class MakeUnitNorm(Transform):
    """Divide each row by its Euclidean norm; a row of zeros stays.

    Examples
    --------
    >>> MakeUnitNorm().fit_transform(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        vectors = flat(rows).astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # of rows with infinity NaN is made
            vectors /= np.where(norms == 0, 1.0, norms)
        return vectors.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)


class GlobalContrastNormalization(Transform):
    """Bring each row to one contrast: ``scale * (x - mean) / sqrt(sqrt_bias + contrast)``.

    The contrast is the sum of squares, or with `use_std` the variance (divided by the number of
    numbers less one). ``sqrt_bias=10, use_std=True`` is the preprocessing of A. Coates, H. Lee and
    A. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011,
    section 3.1.

    Parameters
    ----------
    subtract_mean
        Whether each row's mean is subtracted first.
    scale
        The norm, or deviation, that rows get.
    sqrt_bias
        What is added under the root.
    use_std
        Divide by the deviation and not by the norm.
    min_divisor
        Rows with a divisor below that are not divided.

    Examples
    --------
    >>> GlobalContrastNormalization().fit_transform(np.array([[0.0, 2.0]])).round(4).tolist()
    [[-0.7071, 0.7071]]
    """

    def __init__(
        self,
        subtract_mean: bool = True,
        scale: float = 1.0,
        sqrt_bias: float = 0.0,
        use_std: bool = False,
        min_divisor: float = 1e-8,
    ) -> None:
        self.subtract_mean = subtract_mean
        self.scale = scale
        self.sqrt_bias = sqrt_bias
        self.use_std = use_std
        self.min_divisor = min_divisor

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_number("sqrt_bias", self.sqrt_bias, least=0)
        check_number("min_divisor", self.min_divisor, least=0)
        check_number("scale", self.scale, least=self.min_divisor)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        vectors = flat(rows).astype(np.float64)
        n = vectors.shape[1]
        mean = vectors.mean(axis=1, keepdims=True)
        if self.subtract_mean:
            with np.errstate(invalid="ignore"):
                vectors -= mean
        if self.use_std:
            apart = vectors if self.subtract_mean else vectors - mean
            contrast = np.einsum("ij,ij->i", apart, apart) / max(n - 1, 1)
        else:
            contrast = np.einsum("ij,ij->i", vectors, vectors)
        divisor = np.sqrt(self.sqrt_bias + contrast) / self.scale
        divisor[divisor < self.min_divisor] = 1.0
        with np.errstate(invalid="ignore"):
            vectors /= divisor[:, None]
        return vectors.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)


class OneHot(Transform):
    """Labels as rows with a one where they point: ``(n,)`` or ``(n, 1)`` to ``(n, max_labels)``.

    Parameters
    ----------
    max_labels
        How many labels there are; None learns it of the largest, in one pass.

    Raises
    ------
    MismatchError
        A label is negative, no whole number, or not below `max_labels`.

    Examples
    --------
    >>> OneHot().fit_transform(np.array([[2], [0]])).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    FITTED = ("n_labels_",)
    takes_labels = True
    extremes = True

    def __init__(self, max_labels: int | None = None, nan: str = "raise") -> None:
        self.max_labels = max_labels
        self.nan = nan

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        if row_shape not in ((), (1,)):
            raise MismatchError(f"labels are one number a row: these have the shape {row_shape}")
        if self.max_labels is not None:
            check_whole("max_labels", self.max_labels, least=1)

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Moments(1, extremes=True)

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        assert isinstance(statistics, Moments)
        self.statistics_ = statistics
        if self.max_labels is not None:
            self.n_labels_ = int(self.max_labels)
            self._check_labels(np.array([statistics.least[0], statistics.largest[0]]))
            return
        self._check_labels(np.array([statistics.least[0]]), np.inf)
        self.n_labels_ = int(statistics.largest[0]) + 1

    def _check_labels(self, labels: NDArray[Any], n: float | None = None) -> None:
        n = self.n_labels_ if n is None else n
        bad = ~((labels >= 0) & (labels < n) & (labels == np.floor(labels)))
        if bad.any():
            raise MismatchError(
                f"label {labels[bad][0]:g} is no whole number in [0, {n}): give max_labels that "
                "holds all labels"
            )

    def _out_shape(self, row_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.n_labels_,)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        labels = rows.reshape(-1)
        self._check_labels(labels)
        out = np.zeros((len(labels), self.n_labels_), self._out_dtype(rows.dtype))
        out[np.arange(len(labels)), labels.astype(np.intp)] = 1
        return out

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        labels: NDArray[Any] = flat(rows).argmax(axis=1)
        return labels.reshape(-1, *self.row_shape_)
