"""Several spaces together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epochal.errors import MismatchError
from epochal.spaces.dense import Conv2DSpace, VectorSpace, from_vectors
from epochal.spaces.space import Space

__all__ = ["CompositeSpace"]


@dataclass(frozen=True, init=False, eq=False)
class CompositeSpace(Space):
    """A tuple of spaces: a batch is a tuple, a batch of each. They may be composite themselves.

    >>> both = CompositeSpace([VectorSpace(3), VectorSpace(1)])
    >>> both.np_format_as((np.zeros((2, 3)), np.zeros(2)), VectorSpace(4)).shape
    (2, 4)
    """

    components: tuple[Space, ...]

    def __init__(self, components: Sequence[Space]) -> None:
        if not isinstance(components, Iterable):
            raise MismatchError(f"components={components!r}: give a sequence of spaces")
        made = tuple(components)
        for k, each in enumerate(made):
            if not isinstance(each, Space):
                raise MismatchError(f"component {k} is {each!r}: give spaces")
        object.__setattr__(self, "components", made)

    def __str__(self) -> str:
        return f"CompositeSpace({', '.join(map(str, self.components))})"

    def get_total_dimension(self) -> int:
        """Of all components."""
        return sum(each.get_total_dimension() for each in self.components)

    def restrict(self, subset: Sequence[int]) -> Space:
        """Some of the components; one of them alone is itself."""
        chosen = [self.components[k] for k in subset]
        return chosen[0] if len(chosen) == 1 else CompositeSpace(chosen)

    def np_batch_size(self, batch: Any) -> int:
        """See `Space`."""
        pairs = zip(self.components, batch, strict=True)
        sizes = {s.np_batch_size(b) for s, b in pairs if s.get_total_dimension()}
        if len(sizes) > 1:
            raise MismatchError(f"parts of a batch of {self} have {sorted(sizes)} examples")
        return sizes.pop() if sizes else 0

    def get_origin_batch(self, batch_size: int) -> tuple[Any, ...]:
        """See `Space`."""
        return tuple(each.get_origin_batch(batch_size) for each in self.components)

    def np_validate(self, batch: Any) -> None:
        """See `Space`."""
        if not isinstance(batch, tuple | list) or len(batch) != len(self.components):
            raise self._is_not(batch, f"a tuple of {len(self.components)}")
        for each, part in zip(self.components, batch, strict=True):
            each.np_validate(part)
        self.np_batch_size(batch)

    def _formatted(self, batch: Any, space: Space) -> Any:
        if isinstance(space, CompositeSpace):
            if len(space.components) != len(self.components):
                raise self._cannot(
                    space, f"{len(self.components)} parts, not {len(space.components)}"
                )
            parts = zip(self.components, batch, space.components, strict=True)
            return tuple(mine._formatted(part, theirs) for mine, part, theirs in parts)
        if not isinstance(space, VectorSpace | Conv2DSpace):
            raise self._cannot(space)
        n, dim = self.get_total_dimension(), space.get_total_dimension()
        if n != dim:
            raise self._cannot(space, f"{n} numbers, not {dim}")
        vectors = [
            each._formatted(part, VectorSpace(each.get_total_dimension(), dtype=space.dtype))
            for each, part in zip(self.components, batch, strict=True)
            if each.get_total_dimension()
        ]
        return from_vectors(self, np.concatenate(vectors, axis=1), space)
