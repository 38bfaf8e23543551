"""Principal components and whitening: from the covariance, or for wide rows by random
projections.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.arguments import check_nan, check_number, check_whole
from epochal.transforms.linear import eigen, orthonormal
from epochal.transforms.statistics import Covariance, Sketch, Statistics
from epochal.transforms.transform import Transform, flat

__all__ = ["PCA", "ZCA"]

Numbers = NDArray[np.float64]
RANK = 1e-12  # of the largest variance: below it a variance is rounding


class ZCA(Transform):
    """Whiten, and turn back to where the numbers were: ``(X - mean) @ W``, with ``W = V diag(1 /
    sqrt(eigenvalues)) V.T`` of the covariance plus `filter_bias` on its diagonal.

    A. J. Bell and T. J. Sejnowski, "The 'Independent Components' of Natural Scenes are Edge
    Filters", 1997; with the bias as of A. Coates, H. Lee and A. Ng (AISTATS 2011). The covariance
    is divided by the number of rows. One pass, of ``n * d ** 2`` multiplications, and one of ``d **
    3``; holds about ``40 * d ** 2`` bytes.

    Parameters
    ----------
    n_components
        Keep the directions of that many largest eigenvalues; all when None.
    n_drop_components
        Leave out those of that many smallest ones.
    filter_bias
        What is added to eigenvalues.
    nan
        ``"raise"`` where a number is NaN or infinite, or ``"ignore"`` such rows in learning.

    Raises
    ------
    MismatchError
        Fewer rows or columns than components; no variance in a direction that is divided by it.
    """

    FITTED = ("mean_", "eigenvalues_", "matrix_")
    multiplies = True

    def __init__(
        self,
        n_components: int | None = None,
        n_drop_components: int | None = None,
        filter_bias: float = 0.1,
        nan: str = "raise",
    ) -> None:
        self.n_components = n_components
        self.n_drop_components = n_drop_components
        self.filter_bias = filter_bias
        self.nan = nan

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        check_number("filter_bias", self.filter_bias, least=0)
        if self.n_components and self.n_drop_components:
            raise MismatchError("n_components and n_drop_components: give one of both")

    def need(self) -> Statistics | None:
        """See `Transform`."""
        return None if self.is_fitted() else Covariance(self.n_features_in_)

    def wants(self, n_columns: int) -> type[Statistics]:
        """See `Transform`."""
        return Covariance

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`. Costs ``d ** 3``."""
        assert isinstance(statistics, Covariance)
        n = statistics.n_columns
        kept = n - (self.n_drop_components or 0) if not self.n_components else self.n_components
        check_components(kept, n, int(statistics.count), "n_components")
        self.statistics_ = statistics
        matrix = statistics.matrix()
        matrix[np.diag_indices(n)] += self.filter_bias
        values, vectors = eigen(matrix)
        del matrix
        values, vectors = values[:kept], vectors[:kept]
        check_variances(values, "filter_bias=0.1, or fewer n_components")
        self.mean_, self.eigenvalues_ = statistics.mean, values
        scaled = vectors * (values**-0.25)[:, None]
        self.matrix_ = scaled.T @ scaled

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        centred = np.subtract(flat(rows), self.mean_, dtype=np.float64)
        made: NDArray[Any] = centred @ self.matrix_
        return made.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        made: NDArray[Any] = flat(rows).astype(np.float64) @ self._inverse() + self.mean_
        return made.astype(self._out_dtype(rows.dtype)).reshape(rows.shape)

    def _inverse(self) -> Numbers:
        """The pseudo-inverse of the matrix, made once: costs ``d ** 3``."""
        made: tuple[Numbers, Numbers] | None = getattr(self, "_undoing", None)
        if made is None or made[0] is not self.matrix_:
            # Of the directions that were kept its eigenvalues are 1 / sqrt(eigenvalues).
            values, vectors = eigen(np.array(self.matrix_, order="F"))
            kept = len(self.eigenvalues_)
            values, vectors = values[:kept], vectors[:kept]
            made = self._undoing = (self.matrix_, (vectors.T / values) @ vectors)
        return made[1]


class PCA(Transform):
    """Coordinates along the directions of the largest variance: ``(X - mean) @ components.T``.

    The variance is divided by the number of rows, as Pylearn2's. ``solver="exact"`` takes the
    covariance: one pass, ``8 * d ** 2`` bytes. ``"randomized"`` is for rows too wide for that: N.
    Halko, P. G. Martinsson and J. A. Tropp, "Finding Structure with Randomness", 2011, algorithm
    4.4; it takes ``n_iter + 1`` passes and ``16 * d * (num_components + oversampling)`` bytes.
    Each component's largest coefficient is positive.

    Parameters
    ----------
    num_components
        How many; None keeps all.
    whiten
        Divide by the deviation along each direction.
    solver
        ``"exact"``, ``"randomized"``, or ``"auto"``: exact for rows of up to `exact_width` numbers.
    exact_width
        See `solver`: the covariance of 8,192 numbers takes 512 MiB.
    n_iter, oversampling, seed
        Of the randomized solver: passes more, directions more, and what the first are drawn from.
    nan
        See `ZCA`.

    Raises
    ------
    MismatchError
        Fewer rows or columns than components; whitening a direction without variance.

    Examples
    --------
    >>> pca = PCA(1).fit(np.array([[0.0, 0.0], [2.0, 4.0]]))
    >>> pca.components_.round(3).tolist(), pca.explained_variance_.tolist()
    ([[0.447, 0.894]], [5.0])
    """

    FITTED = ("mean_", "components_", "explained_variance_", "total_variance_")
    multiplies = True

    def __init__(
        self,
        num_components: int | None = None,
        whiten: bool = False,
        solver: str = "auto",
        exact_width: int = 8192,
        n_iter: int = 4,
        oversampling: int = 16,
        seed: int = 0,
        nan: str = "raise",
    ) -> None:
        self.num_components = num_components
        self.whiten = whiten
        self.solver = solver
        self.exact_width = exact_width
        self.n_iter = n_iter
        self.oversampling = oversampling
        self.seed = seed
        self.nan = nan

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        check_nan(self.nan)
        if self.solver not in ("auto", "exact", "randomized"):
            raise MismatchError(f"solver={self.solver!r} is not one of: auto, exact, randomized")
        for name, least in (("n_iter", 0), ("oversampling", 0), ("exact_width", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least=least)

    def _is_exact(self, n_columns: int) -> bool:
        if self.solver != "auto":
            return self.solver == "exact"
        return n_columns <= self.exact_width

    def need(self) -> Statistics | None:
        """See `Transform`."""
        if self.is_fitted():
            return None
        n = self.n_features_in_
        if self._is_exact(n):
            return Covariance(n)
        if hasattr(self, "directions_"):
            return Sketch(self.directions_)
        wanted = n if self.num_components is None else self.num_components
        check_components(wanted, n, None, "num_components")
        width = min(n, wanted + int(self.oversampling))
        rng = np.random.Generator(np.random.Philox(key=int(self.seed)))
        return Sketch(orthonormal(rng.standard_normal((n, width))))

    def wants(self, n_columns: int) -> type[Statistics] | None:
        """See `Transform`."""
        return Covariance if self._is_exact(n_columns) else None

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        n = statistics.n_columns
        wanted = n if self.num_components is None else self.num_components
        assert isinstance(statistics, Covariance | Sketch)
        count = int(statistics.count)
        if self.num_components is None:
            wanted = min(n, count)
        check_components(wanted, n, count, "num_components")
        if isinstance(statistics, Sketch):
            self._learn_some(statistics, wanted)
            return
        self.statistics_ = statistics
        matrix = statistics.matrix()
        self.total_variance_ = float(np.trace(matrix))
        values, vectors = eigen(matrix)
        self._keep(statistics.mean, values[:wanted], vectors[:wanted].copy())

    def _learn_some(self, sketch: Sketch, wanted: int) -> None:
        """One step of the subspace iteration; in the last the Rayleigh-Ritz vectors."""
        done = getattr(self, "n_done_", 0) + 1
        products = sketch.products / max(float(sketch.count), 1.0)
        if done <= self.n_iter:
            self.directions_, self.n_done_ = orthonormal(products), done
            return
        small = sketch.directions.T @ products
        values, turns = eigen(np.asfortranarray((small + small.T) / 2))
        vectors = turns @ sketch.directions.T
        signs = np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)])
        self.total_variance_ = float(sketch.squares) / max(float(sketch.count), 1.0)
        self._keep(sketch.mean, values[:wanted], (vectors * signs[:, None])[:wanted])
        for name in ("directions_", "n_done_"):
            if hasattr(self, name):
                delattr(self, name)

    def _keep(self, mean: Numbers, values: Numbers, vectors: Numbers) -> None:
        if self.whiten:
            check_variances(values, "fewer num_components")
        self.mean_, self.explained_variance_, self.components_ = mean, values, vectors

    @property
    def explained_variance_ratio(self) -> Numbers:
        """Share of each component in the variance of all, ``(num_components,)``."""
        ratio: Numbers = self.explained_variance_ / self.total_variance_
        return ratio

    def _out_shape(self, row_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (len(self.components_),)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        centred = np.subtract(flat(rows), self.mean_, dtype=np.float64)
        made: NDArray[Any] = centred @ self.components_.T
        if self.whiten:
            made /= np.sqrt(self.explained_variance_)
        return made.astype(self._out_dtype(rows.dtype))

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        made = flat(rows).astype(np.float64)
        if made.shape[1] != len(self.components_):
            raise MismatchError(
                f"rows of {made.shape[1]} numbers: there are {len(self.components_)} components"
            )
        if self.whiten:
            made *= np.sqrt(self.explained_variance_)
        back: NDArray[Any] = made @ self.components_ + self.mean_
        return back.astype(self._out_dtype(rows.dtype)).reshape(-1, *self.row_shape_)


def check_components(wanted: Any, n_columns: int, n_rows: int | None, name: str) -> None:
    """Refuse more components than there can be."""
    whole = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if not whole or not 1 <= wanted <= n_columns:
        raise MismatchError(f"{name}={wanted!r}: rows of {n_columns} numbers have 1 to {n_columns}")
    if n_rows is None:
        return
    if n_rows < 2 or (n_rows < wanted and name == "num_components"):
        raise MismatchError(f"{name}={wanted}: of {n_rows} sample(s) that many cannot be learnt")


def check_variances(values: Numbers, remedy: str) -> None:
    """Refuse to divide by variances that are none."""
    if values[-1] <= RANK * max(values[0], np.finfo(float).tiny):
        n = int((values <= RANK * values[0]).sum())
        raise MismatchError(
            f"{n} of {len(values)} directions have no variance, and whitening divides by it (fewer "
            f"rows than columns, or constant columns): give {remedy}"
        )
