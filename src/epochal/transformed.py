"""Sources of which one goes through a transform, and what tells such sources apart."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from epochal.stores.grouped import GroupedSource, group_selection
from epochal.stores.manifest import crc32
from epochal.stores.mapped import MappedSource, repeated, steps_of
from epochal.stores.rows import byte_view
from epochal.stores.store import AnySource

__all__ = [
    "AppliesToRows",
    "HasState",
    "chosen",
    "states_of",
    "sum_of",
    "sum_of_array",
    "sums_of_functions",
    "transformed",
]

Selection = NDArray[np.int64]


@runtime_checkable
class HasState(Protocol):
    """A function of rows that can be stored."""

    def state(self) -> Any:
        """What it is built of again."""
        ...


class AppliesToRows(Protocol):
    """What `Dataset.transform` takes: see `epochal.transforms.Transform`."""

    def lazily(self, row_shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A picklable function of rows, with `row_shape`, `dtype`, `factor` and `group` of what it
        makes.
        """
        ...


def transformed(sources: Mapping[str, Any], name: str, function: Any) -> dict[str, AnySource]:
    """The sources, one of them through a function as its rows are read; where that makes several
    rows of one, all others repeat theirs, where it makes one of several they have the first of
    theirs.
    """
    made = dict(sources)
    source, factor, group = sources[name], function.factor, function.group
    if group != 1:
        for other, each in sources.items():
            how: Any = function if other == name else First(group)
            shape = function.row_shape if other == name else each.layout.row_shape
            dtype = function.dtype if other == name else each.layout.dtype
            made[other] = GroupedSource(each, how, shape, dtype, group)
        return made
    made[name] = MappedSource(source, function, function.row_shape, function.dtype, factor)
    if factor != 1:
        made |= {n: repeated(n, each, factor) for n, each in sources.items() if n != name}
    return made


@dataclass(frozen=True)
class First:
    """The first of so many rows each."""

    group: int

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of rows ``(n * group, ...)``."""
        return rows[:: self.group]


def chosen(selection: Selection | None, function: Any) -> Selection | None:
    """Which rows are chosen of what a function makes of rows that were chosen."""
    factor = function.factor
    if function.group != 1:
        return group_selection(selection, function.group)
    if selection is None or factor == 1:
        return selection
    rows: Selection = (selection[:, None] * factor + np.arange(factor)).reshape(-1)
    return rows


def states_of(sources: Mapping[str, AnySource]) -> dict[str, list[Any]]:
    """States of the transforms that rows go through as they are read, by source."""
    found = {}
    for name, source in sources.items():
        states = [each.state() for each in steps_of(source) if isinstance(each, HasState)]
        if states:
            found[name] = states
    return found


def sums_of_functions(sources: Mapping[str, AnySource]) -> dict[str, list[int]]:
    """What tells apart the functions that rows go through, by source."""
    through = {}
    for name, source in sources.items():
        told = [each.state() if isinstance(each, HasState) else each for each in steps_of(source)]
        through[name] = [sum_of(each) for each in told]
    return through


def sum_of_array(array: NDArray[Any], before: int = 0) -> int:
    """CRC-32 of an array's dtype, shape and numbers, behind what has the sum `before`."""
    told = crc32(f"{array.dtype} {array.shape}".encode(), before)
    return crc32(byte_view(np.ascontiguousarray(array)), told)


def sum_of(value: Any, total: int = 0) -> int:
    """CRC-32 of what something is: of states the same for what was loaded and what was saved."""
    if isinstance(value, np.ndarray):
        return sum_of_array(value, total)
    if isinstance(value, dict):
        value = [each for item in value.items() for each in item]
    if isinstance(value, list | tuple):
        for each in value:
            total = sum_of(each, total)
        return crc32(b"]", total)
    if isinstance(value, str | int | float | None):
        return crc32(repr(value).encode(), total)
    return crc32(pickle.dumps(value), total)
