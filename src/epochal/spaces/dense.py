"""Examples of one size: vectors, images, labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.spaces.space import FLOAT, Space, cast, check_range, dtype_of, one_hot

__all__ = ["Conv2DSpace", "IndexSpace", "VectorSpace"]

Axis = str | int
AXES: tuple[Axis, ...] = ("b", 0, 1, "c")


@dataclass(frozen=True, init=False, eq=False)
class VectorSpace(Space):
    """Vectors: a batch is ``(n, dim)``; of one number each also ``(n,)``.

    Parameters
    ----------
    dim
        Numbers in a vector.
    sparse
        Whether batches are SciPy's sparse matrices (CSR when made here).
    dtype
        Of batches that are made here; None leaves it as it is.

    >>> images = Conv2DSpace((2, 2), num_channels=1)
    >>> VectorSpace(4).np_format_as(np.arange(4.0)[None], images).shape
    (1, 2, 2, 1)
    """

    dim: int
    sparse: bool
    dtype: np.dtype | None

    def __init__(self, dim: int, sparse: bool = False, dtype: Any = FLOAT) -> None:
        _set(self, dim=_size(dim, "dim"), sparse=bool(sparse), dtype=dtype_of(dtype))

    def __str__(self) -> str:
        return f"VectorSpace(dim={self.dim}{', sparse=True' if self.sparse else ''})"

    def get_total_dimension(self) -> int:
        """The size of a vector."""
        return self.dim

    def np_batch_size(self, batch: Any) -> int:
        """See `Space`."""
        return int(batch.shape[0])

    def get_origin_batch(self, batch_size: int) -> Any:
        """See `Space`."""
        zeros = np.zeros((batch_size, self.dim), self.dtype or FLOAT)
        return _as_csr(zeros) if self.sparse else zeros

    def np_validate(self, batch: Any) -> None:
        """See `Space`."""
        if self.sparse != _is_sparse(batch):
            raise self._is_not(batch, f"a {'sparse' if self.sparse else 'dense'} matrix")
        if not (_is_numbers(batch) and _fits(batch.shape, (self.dim,))):
            raise self._is_not(batch, f"(n, {self.dim})")

    def _formatted(self, batch: Any, space: Space) -> Any:
        if space.get_total_dimension() != self.dim:
            raise self._cannot(space, f"{self.dim} numbers, not {space.get_total_dimension()}")
        if isinstance(space, VectorSpace) and space.sparse and self.sparse:
            return cast(batch, space.dtype)
        dense = batch.toarray() if self.sparse else batch
        return from_vectors(self, dense.reshape(len(dense), self.dim), space)


@dataclass(frozen=True, init=False, eq=False)
class Conv2DSpace(Space):
    """Images of some channels: a batch has four axes, in any order.

    Parameters
    ----------
    shape
        Rows and columns.
    channels, num_channels
        How many (two names for one thing).
    axes
        Which axis is which: a permutation of ``("b", 0, 1, "c")``, for batch, rows, columns,
        channels.
    dtype
        As of `VectorSpace`.

    Notes
    -----
    As a vector, an image has its numbers in the order ``("b", 0, 1, "c")``, whatever `axes` are, as
    in Pylearn2: from one order to another by way of vectors is the same as directly.

    >>> space = Conv2DSpace((32, 32), num_channels=3, axes=("c", 0, 1, "b"))
    >>> space.get_origin_batch(5).shape
    (3, 32, 32, 5)
    """

    shape: tuple[int, int]
    num_channels: int
    axes: tuple[Axis, ...]
    dtype: np.dtype | None

    def __init__(
        self,
        shape: Sequence[int],
        channels: int | None = None,
        num_channels: int | None = None,
        axes: Sequence[Axis] | None = None,
        dtype: Any = FLOAT,
    ) -> None:
        if channels is not None and num_channels is not None and channels != num_channels:
            raise MismatchError(f"channels={channels}, num_channels={num_channels}: give one")
        if not isinstance(shape, Sequence | np.ndarray) or len(shape) != 2:
            raise MismatchError(f"shape={shape!r}: give two sizes, rows and columns")
        number = num_channels if channels is None else channels
        _set(
            self,
            shape=(_size(shape[0], "shape"), _size(shape[1], "shape")),
            num_channels=_size(1 if number is None else number, "num_channels"),
            axes=check_axes(AXES if axes is None else axes),
            dtype=dtype_of(dtype),
        )

    def __str__(self) -> str:
        return (
            f"Conv2DSpace(shape={self.shape}, num_channels={self.num_channels}, axes={self.axes})"
        )

    def get_batch_axis(self) -> int:
        """Which axis counts examples."""
        return self.axes.index("b")

    def get_total_dimension(self) -> int:
        """Numbers in an image."""
        return prod(self.shape) * self.num_channels

    def np_batch_size(self, batch: Any) -> int:
        """See `Space`."""
        return int(batch.shape[self.get_batch_axis()])

    def batch_shape(self, n: int) -> tuple[int, ...]:
        """The shape of a batch of `n`."""
        return tuple(size for _, size in self._sizes(n))

    def _sizes(self, n: int) -> list[tuple[Axis, int]]:
        sizes = {"b": n, 0: self.shape[0], 1: self.shape[1], "c": self.num_channels}
        return [(axis, sizes[axis]) for axis in self.axes]

    def get_origin_batch(self, batch_size: int) -> NDArray[Any]:
        """See `Space`."""
        return np.zeros(self.batch_shape(batch_size), self.dtype or FLOAT)

    def np_validate(self, batch: Any) -> None:
        """See `Space`."""
        good = _is_numbers(batch) and not _is_sparse(batch) and len(batch.shape) == 4
        if not good or tuple(batch.shape) != self.batch_shape(self.np_batch_size(batch)):
            due = ", ".join(
                "n" if a == "b" else str(s)
                for a, s in zip(self.axes, self.batch_shape(0), strict=True)
            )
            raise self._is_not(batch, f"({due}), its axes being {self.axes}")

    def _formatted(self, batch: Any, space: Space) -> Any:
        if isinstance(space, Conv2DSpace):
            if (self.shape, self.num_channels) != (space.shape, space.num_channels):
                raise self._cannot(space, "another size of images")
            turned = batch.transpose([self.axes.index(axis) for axis in space.axes])
            return cast(turned, space.dtype)
        if space.get_total_dimension() != self.get_total_dimension():
            n = self.get_total_dimension()
            raise self._cannot(space, f"{n} numbers, not {space.get_total_dimension()}")
        turned = batch.transpose([self.axes.index(axis) for axis in AXES])
        return from_vectors(self, turned.reshape(len(turned), self.get_total_dimension()), space)


@dataclass(frozen=True, init=False, eq=False)
class IndexSpace(Space):
    """Labels: a batch is ``(n, dim)`` of integers in ``[0, max_labels)``, or ``(n,)`` of one each.

    Parameters
    ----------
    max_labels
        How many labels there are.
    dim
        Labels of an example.
    dtype
        An integer dtype.

    Notes
    -----
    Formatted as a `VectorSpace` of ``max_labels * dim``, each label becomes a vector of its own
    with a one where it points; of ``max_labels``, an example is the one vector with all its ones.

    >>> IndexSpace(3, 1).np_format_as(np.array([2, 0]), VectorSpace(3)).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    max_labels: int
    dim: int
    dtype: np.dtype | None = field(default=None)

    def __init__(self, max_labels: int, dim: int, dtype: Any = "int64") -> None:
        made = dtype_of(dtype)
        if made is not None and made.kind not in "iu":
            raise MismatchError(f"dtype={dtype!r}: labels are integers")
        _set(self, max_labels=_size(max_labels, "max_labels"), dim=_size(dim, "dim"), dtype=made)

    def __str__(self) -> str:
        return f"IndexSpace(max_labels={self.max_labels}, dim={self.dim})"

    def get_total_dimension(self) -> int:
        """Labels of an example."""
        return self.dim

    def np_batch_size(self, batch: Any) -> int:
        """See `Space`."""
        return int(batch.shape[0])

    def get_origin_batch(self, batch_size: int) -> NDArray[Any]:
        """See `Space`."""
        return np.zeros((batch_size, self.dim), self.dtype or np.int64)

    def np_validate(self, batch: Any) -> None:
        """See `Space`. Values are looked at where they become vectors."""
        good = _is_numbers(batch) and not _is_sparse(batch) and batch.dtype.kind in "iu"
        if not (good and _fits(batch.shape, (self.dim,))):
            raise self._is_not(batch, f"(n, {self.dim}) of integers")

    def check_labels(self, batch: NDArray[Any]) -> None:
        """Refuse labels outside ``[0, max_labels)``."""
        check_range(batch, self.max_labels, str(self))

    def _formatted(self, batch: Any, space: Space) -> Any:
        labels = batch.reshape(len(batch), self.dim)
        if isinstance(space, IndexSpace):
            if (space.max_labels, space.dim) != (self.max_labels, self.dim):
                raise self._cannot(space)
            return cast(labels, space.dtype)
        if not isinstance(space, VectorSpace):
            raise self._cannot(space)
        if space.dim not in (self.max_labels, self.max_labels * self.dim):
            sizes = sorted({self.max_labels, self.max_labels * self.dim})
            raise self._cannot(space, f"its vectors have {' or '.join(map(str, sizes))} numbers")
        dtype = space.dtype or np.dtype(FLOAT)
        vectors = one_hot(labels, self.max_labels, dtype)
        if space.dim == self.max_labels * self.dim:
            vectors = vectors.reshape(len(labels), space.dim)
        else:
            vectors = vectors.max(axis=1)
        return _as_csr(vectors) if space.sparse else vectors


def from_vectors(mine: Space, vectors: NDArray[Any], space: Space) -> Any:
    """Vectors ``(n, dim)`` of a space as a batch of another one of as many numbers."""
    if isinstance(space, VectorSpace):
        made = cast(vectors, space.dtype)
        return _as_csr(made) if space.sparse else made
    if isinstance(space, Conv2DSpace):
        images = vectors.reshape(len(vectors), *space.shape, space.num_channels)
        return cast(images.transpose([AXES.index(axis) for axis in space.axes]), space.dtype)
    components = getattr(space, "components", None)
    if components is None:
        raise mine._cannot(space)
    parts, at = [], 0
    for each in components:
        end = at + each.get_total_dimension()
        parts.append(from_vectors(mine, vectors[:, at:end], each))
        at = end
    return tuple(parts)


def check_axes(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """A permutation of ``("b", 0, 1, "c")``.

    Raises
    ------
    MismatchError
        It is none.
    """
    found = tuple(axes) if isinstance(axes, Iterable) else axes
    if not isinstance(found, tuple) or sorted(map(str, found)) != ["0", "1", "b", "c"]:
        raise MismatchError(f"axes={found}: give 'b', 0, 1 and 'c' in some order")
    return tuple(axis if axis in ("b", "c") else int(axis) for axis in found)


def _set(space: Space, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(space, name, value)


def _size(given: Any, name: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise MismatchError(f"{name}={given!r}: give a whole number from 1 on")
    return int(given)


def _fits(shape: tuple[int, ...], row: tuple[int, ...]) -> bool:
    return tuple(shape[1:]) == row or (row == (1,) and len(shape) == 1)


def _is_numbers(batch: Any) -> bool:
    return hasattr(batch, "shape") and hasattr(batch, "dtype") and batch.dtype.kind in "biufc"


def _is_sparse(batch: Any) -> bool:
    return hasattr(batch, "toarray") and hasattr(batch, "nnz")


def _as_csr(dense: NDArray[Any]) -> Any:
    try:
        return import_module("scipy.sparse").csr_array(dense)
    except ImportError as error:
        raise MismatchError("sparse batches are SciPy's: pip install scipy") from error
    except ValueError as error:
        raise MismatchError(f"a batch of {dense.dtype} cannot be sparse: {error}") from None
