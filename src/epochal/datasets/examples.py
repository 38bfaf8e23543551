"""What design matrices in memory and on disk ask of their rows: spaces, labels, ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.spaces import IndexSpace, Space, VectorSpace
from epochal.spaces.space import FLOAT, check_range, one_hot

__all__ = [
    "Blank",
    "Cast",
    "OneHot",
    "RowFormat",
    "check_labels",
    "check_numbers",
    "no_nan",
    "space_of",
    "with_dtype_of",
]


class OneHot:
    """Labels ``(n,)`` or ``(n, 1)`` as vectors ``(n, n_classes)``, a function of blocks."""

    def __init__(self, min_class: int, n_classes: int) -> None:
        self._min_class, self._n_classes = min_class, n_classes

    def __call__(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The vectors of a block."""
        flat = labels.reshape(len(labels)).astype(np.int64) - self._min_class
        return one_hot(flat, self._n_classes, np.dtype(FLOAT))


class Cast:
    """Rows as another dtype, a function of blocks."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A block of them."""
        return rows.astype(self._dtype)


class Blank:
    """Zeros in the place of rows that are about to be replaced."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """As many as there were."""
        return np.zeros((len(rows), *self._shape), self._dtype)


class RowFormat:
    """Rows as they are stored, as a batch of a space.

    Parameters
    ----------
    space
        The one that rows are of.
    functions
        That they go through first.
    converter
        Where rows are images too: what makes batches of them.
    """

    def __init__(
        self, space: Space, functions: tuple[Any, ...] = (), converter: Any = None
    ) -> None:
        self._functions, self._space, self._converter = functions, space, converter

    def __call__(self, rows: Any, space: Space) -> Any:
        """The batch."""
        for function in self._functions:
            rows = function(rows)
        if isinstance(self._space, IndexSpace):
            self._space.check_labels(rows)
        if self._converter is not None:
            return self._converter.get_formatted_batch(rows, space)
        return self._space.np_format_as(rows, space)


def check_labels(name: str, labels: NDArray[Any], n: int) -> None:
    """Refuse labels outside ``[0, n)``."""
    if labels.dtype.kind not in "iu":
        raise MismatchError(f"{name}_labels={n}: {name} holds {labels.dtype}, not whole numbers")
    check_range(labels, n, f"{name}_labels={n}")


def check_numbers(name: str, dtype: np.dtype) -> None:
    """Refuse what is no number."""
    if dtype.kind not in "biufc":
        raise MismatchError(f"{name} holds numbers; found {dtype}")


def no_nan(rows: NDArray[Any], name: str, first_row: int = 0) -> None:
    """Refuse rows that are not numbers."""
    if rows.dtype.kind in "fc" and np.isnan(rows).any():
        row, *rest = (int(k) for k in np.argwhere(np.isnan(rows))[0])
        where = (row + first_row, *rest)
        raise MismatchError(f"{name} holds NaN, first at {where}: examples are numbers")


def space_of(held: Any, labels: int | None) -> Space:
    """The space of rows ``(n,)`` or ``(n, dim)``: of so many labels, or of vectors."""
    dim = int(held.shape[-1]) if len(held.shape) > 1 else 1
    if labels is not None:
        return IndexSpace(max_labels=labels, dim=dim)
    return VectorSpace(dim, dtype=held.dtype if held.dtype.kind in "fc" else FLOAT)


def with_dtype_of(space: Any, dtype: np.dtype) -> Space:
    """A space of images whose batches have a dtype; of whole numbers the usual float."""
    made: Space = type(space)(
        space.shape,
        num_channels=space.num_channels,
        axes=space.axes,
        dtype=dtype if dtype.kind in "fc" else FLOAT,
    )
    return made
