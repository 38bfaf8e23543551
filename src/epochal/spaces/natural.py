"""Rows as they are stored, as batches of a space that somebody wants."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from epochal.errors import MismatchError
from epochal.ragged import Ragged
from epochal.spaces.dense import Conv2DSpace, IndexSpace, VectorSpace
from epochal.spaces.sequences import IndexSequenceSpace, VectorSequenceSpace
from epochal.spaces.space import Space

__all__ = ["Shaping"]


class Shaping:
    """Makes batches of a space of rows of one shape.

    Rows of up to one axis are vectors; of two, images of one channel; of three, images with their
    channels last. Rows of varying length are sequences of such vectors.

    Parameters
    ----------
    name
        Of the source, for people.
    row_shape, dtype
        Of its rows; where they vary in length, of their items.
    space
        What is wanted.
    ragged
        Whether rows vary in length.

    Raises
    ------
    MismatchError
        Rows are none of that space: sizes are named.

    >>> Shaping("X", (2, 2), np.dtype("u1"), VectorSpace(4))(np.ones((5, 2, 2), "u1")).shape
    (5, 4)
    """

    def __init__(
        self,
        name: str,
        row_shape: tuple[int, ...],
        dtype: np.dtype,
        space: Space,
        ragged: bool = False,
    ) -> None:
        self._name, self._space, self._ragged = name, space, ragged
        self._shape = (*row_shape, 1) if len(row_shape) == 2 else row_shape
        if isinstance(space, IndexSpace):
            self._shape = (prod(row_shape),)
        try:
            self._own = _own(self._shape, space, ragged)
            none = np.empty((0, *row_shape), dtype)
            self(Ragged(none, np.zeros(1, np.int64)) if ragged else none)
        except MismatchError as error:
            what = "items" if ragged else "rows"
            raise MismatchError(
                f"source {name!r} has {what} of shape {row_shape}, {dtype}: not those of {space} "
                f"({error})"
            ) from None

    def __call__(self, rows: Any) -> Any:
        """A batch."""
        if not self._ragged:
            rows = rows.reshape(len(rows), *self._shape)
        if isinstance(self._space, IndexSpace):
            self._space.check_labels(rows)
        return self._own.np_format_as(rows, self._space)


def _own(row_shape: tuple[int, ...], space: Space, ragged: bool) -> Space:
    """The space that rows are of as they are."""
    dim = prod(row_shape)
    if ragged:
        if isinstance(space, IndexSequenceSpace):
            return IndexSequenceSpace(space.max_labels, dim, dtype=None)
        return VectorSequenceSpace(dim, dtype=None)
    if isinstance(space, IndexSpace):
        return IndexSpace(space.max_labels, dim, dtype=None)
    if len(row_shape) == 3:
        return Conv2DSpace(row_shape[:2], num_channels=row_shape[2], dtype=None)
    if len(row_shape) > 1:
        raise MismatchError(f"rows of {len(row_shape)} axes are neither vectors nor images")
    return VectorSpace(dim, dtype=None)
