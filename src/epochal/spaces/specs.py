"""Data specs: a space and the source it shapes, or a composite of spaces and as many sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from epochal.errors import MismatchError
from epochal.spaces.composite import CompositeSpace
from epochal.spaces.space import Space

__all__ = ["DataSpecs", "flat", "nested"]

DataSpecs = tuple[Space, Any]  # sources are a name, or tuples of names nested as the space is


def flat(specs: Any) -> list[tuple[Space, str]]:
    """Space and source of each part, from left to right.

    Raises
    ------
    MismatchError
        What it is made of does not go together.

    >>> from epochal.spaces import VectorSpace
    >>> space = CompositeSpace([VectorSpace(2), CompositeSpace([VectorSpace(1)])])
    >>> [source for _, source in flat((space, ("X", ("y",))))]
    ['X', 'y']
    """
    if not isinstance(specs, tuple | list) or len(specs) != 2 or not isinstance(specs[0], Space):
        raise MismatchError(f"data_specs={specs!r}: give a pair (space, source)")
    return list(_parts(*specs))


def _parts(space: Space, source: Any) -> Iterator[tuple[Space, str]]:
    if not isinstance(space, CompositeSpace):
        while isinstance(source, tuple | list) and len(source) == 1:
            source = source[0]
        if not isinstance(source, str):
            raise MismatchError(f"data_specs: {space} shapes one source, not {source!r}")
        yield space, source
        return
    if not isinstance(source, tuple | list) or len(source) != len(space.components):
        raise MismatchError(
            f"data_specs: {space} shapes {len(space.components)} sources, not {source!r}"
        )
    for component, name in zip(space.components, source, strict=True):
        yield from _parts(component, name)


def nested(space: Space, parts: Iterator[Any]) -> Any:
    """Parts from left to right, nested in tuples as a space is.

    >>> from epochal.spaces import VectorSpace
    >>> space = CompositeSpace([VectorSpace(2), CompositeSpace([VectorSpace(1)])])
    >>> nested(space, iter("ab"))
    ('a', ('b',))
    """
    if isinstance(space, CompositeSpace):
        return tuple(nested(each, parts) for each in space.components)
    return next(parts)
