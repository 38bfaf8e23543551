"""What design matrices in memory and on disk ask of their rows: spaces, labels, ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.datasets.iteration import whole_number
from epochal.errors import MismatchError, RowError
from epochal.spaces import IndexSpace, Space, VectorSpace
from epochal.spaces.space import FLOAT, one_hot

__all__ = [
    "OneHot",
    "RowFormat",
    "check_labels",
    "checked_range",
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


class RowFormat:
    """Rows as they are stored, as a batch of a space."""

    def __init__(self, functions: tuple[Any, ...], space: Space, converter: Any) -> None:
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
    if labels.size and (labels.min() < 0 or labels.max() >= n):
        found = labels.min() if labels.min() < 0 else labels.max()
        raise MismatchError(f"{name} holds label {found}, outside [0, {n}): {name}_labels={n}")


def checked_range(start: Any, stop: Any, n: int) -> tuple[int, int]:
    """Half-open range of examples.

    Raises
    ------
    RowError
        It is empty, or goes past the end.
    """
    first = 0 if start is None else whole_number(start, "start")
    last = n if stop is None else whole_number(stop, "stop")
    if not first < last <= n:
        raise RowError(f"start={start}, stop={stop} of {n} examples: give a range that holds some")
    return first, last


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
