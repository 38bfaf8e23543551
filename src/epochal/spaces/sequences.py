"""Rows of varying length: sequences of vectors, sequences of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from epochal.errors import MismatchError
from epochal.ragged import Ragged
from epochal.spaces.dense import IndexSpace, VectorSpace
from epochal.spaces.space import FLOAT, Space, dtype_of

__all__ = ["IndexSequenceSpace", "VectorSequenceSpace"]


class _SequenceSpace(Space):
    """Sequences of items of another space. A batch is a `Ragged`, or one sequence as an array."""

    dim: int

    @property
    def item_space(self) -> VectorSpace | IndexSpace:
        """The space of the items of one sequence."""
        raise NotImplementedError

    def get_total_dimension(self) -> int:
        """Numbers of an item."""
        return self.item_space.get_total_dimension()

    def np_batch_size(self, batch: Any) -> int:
        """Sequences in a batch; one array is one sequence, as Pylearn2 has it."""
        return len(batch.offsets) - 1 if isinstance(batch, Ragged) else 1

    def get_origin_batch(self, batch_size: int) -> Ragged:
        """Sequences of no items."""
        values = self.item_space.get_origin_batch(0)
        return Ragged(values, np.zeros(batch_size + 1, np.int64))

    def np_validate(self, batch: Any) -> None:
        """See `Space`."""
        try:
            self.item_space.np_validate(batch.values if isinstance(batch, Ragged) else batch)
        except MismatchError as error:
            raise MismatchError(f"items of {self}: {error}") from None

    def _formatted(self, batch: Any, space: Space) -> Any:
        if not isinstance(space, _SequenceSpace):
            raise self._cannot(space, "sequences vary in length")
        item, theirs = self.item_space, space.item_space
        try:
            if isinstance(batch, Ragged):
                return Ragged(item._formatted(batch.values, theirs), batch.offsets)
            return item._formatted(batch, theirs)
        except MismatchError as error:
            raise self._cannot(space, str(error)) from None


@dataclass(frozen=True, init=False, eq=False)
class VectorSequenceSpace(_SequenceSpace):
    """Sequences of vectors: a batch is a `Ragged` of values ``(n_items, dim)``, or one sequence
    ``(n_items, dim)``.

    >>> words = IndexSequenceSpace(max_labels=4, dim=1)
    >>> words.np_format_as(np.array([3]), VectorSequenceSpace(4)).tolist()
    [[0.0, 0.0, 0.0, 1.0]]
    """

    dim: int
    dtype: np.dtype | None

    def __init__(self, dim: int, dtype: Any = FLOAT) -> None:
        object.__setattr__(self, "dim", VectorSpace(dim).dim)
        object.__setattr__(self, "dtype", dtype_of(dtype))

    def __str__(self) -> str:
        return f"VectorSequenceSpace(dim={self.dim})"

    @property
    def item_space(self) -> VectorSpace:
        """Vectors."""
        return VectorSpace(self.dim, dtype=self.dtype)


@dataclass(frozen=True, init=False, eq=False)
class IndexSequenceSpace(_SequenceSpace):
    """Sequences of labels: a batch is a `Ragged` of values ``(n_items, dim)``, or one sequence."""

    max_labels: int
    dim: int
    dtype: np.dtype | None

    def __init__(self, max_labels: int, dim: int, dtype: Any = "int64") -> None:
        item = IndexSpace(max_labels, dim, dtype)
        object.__setattr__(self, "max_labels", item.max_labels)
        object.__setattr__(self, "dim", item.dim)
        object.__setattr__(self, "dtype", item.dtype)

    def __str__(self) -> str:
        return f"IndexSequenceSpace(max_labels={self.max_labels}, dim={self.dim})"

    @property
    def item_space(self) -> IndexSpace:
        """Labels."""
        return IndexSpace(self.max_labels, self.dim, self.dtype)
