"""What a store answers: the two protocols that everything above reads through.

A new format is one module that builds objects of this shape; nothing above asks which one it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from epochal.stores.manifest import Manifest
from epochal.stores.ragged import AnySource
from epochal.stores.source import Source

__all__ = [
    "KEPT_SUM",
    "TRANSFORMS",
    "AnySource",
    "Assignable",
    "Other",
    "SelfChecking",
    "Source",
    "Store",
    "StoreOver",
    "Summed",
    "kept_besides",
    "largest_group",
    "missed",
    "version_of",
]


@runtime_checkable
class Assignable(Protocol):
    """A source whose rows can be assigned to."""

    def assign(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Let these rows be `values`, ``(n, *row_shape)``; of a row that is repeated the last."""
        ...


@runtime_checkable
class Versioned(Protocol):
    """A source whose rows may come to be others: its own can be assigned to, or those that they are
    made of.
    """

    @property
    def version(self) -> int:
        """How many times that was done."""
        ...


def version_of(source: object) -> int:
    """How many times a source was assigned to; 0 of one that cannot be."""
    return source.version if isinstance(source, Versioned) else 0


@runtime_checkable
class SelfChecking(Protocol):
    """A source that compares what it reads with checksums, where there are some."""

    @property
    def manifest(self) -> Manifest | None:
        """The checksums that it was opened with."""
        ...

    def unchecked(self) -> Source:
        """The same without its checksums."""
        ...


@runtime_checkable
class Summed(SelfChecking, Protocol):
    """A source whose stored pieces can be had."""

    def stored_sums(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Of what is there now, a piece each."""
        ...


@dataclass(frozen=True)
class Other:
    """Something in the file that is not a source, and why."""

    name: str
    why: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    unsafe: bool = False  # refused for what it asks for, not for what it is
    damaged: bool = False  # it was a source, or says so, and cannot be looked at
    gone: bool = False  # it was a source when that was noted, and is none now


class Store(Protocol):
    """An open file, or what stands for one. Pickles as path and index; survives fork and spawn."""

    @property
    def name(self) -> str:
        """For people: the path, or ``"<arrays>"``."""
        ...

    @property
    def sources(self) -> Mapping[str, AnySource]:
        """Every array that could be a source, by its path without a leading slash, in the file's
        order.
        """
        ...

    @property
    def others(self) -> tuple[Other, ...]:
        """What cannot be a source, with the reason."""
        ...

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of groups that say something of the sources in them, by the group's path (""
        is the root): numbers, strings and small arrays. Empty where a format has none.
        """
        ...

    def close(self) -> None:
        """Give back descriptors. A closed store may not be read."""
        ...


# What a file keeps besides its sources: the fitted transform that made their rows, as an array of
# bytes by this name with their CRC-32 as an attribute (`epochal.stores.kept`).
TRANSFORMS = "epochal.transforms"
KEPT_SUM = "crc32"


def kept_besides(name: str, shape: tuple[int, ...]) -> Other:
    """What is told of it."""
    why = "the transform that made these rows: epochal.transforms.load reads it"
    return Other(name, why, shape, "uint8")


def missed(
    noted: Iterable[str], sources: Collection[str], others: Sequence[Other]
) -> tuple[Other, ...]:
    """The rest of a store, with what was noted as a source of it and is none."""
    gone = {name.strip("/"): name for name in noted if name not in sources}
    told = [
        replace(other, gone=True) if gone.pop(other.name.strip("/"), None) else other
        for other in others
    ]
    why = (
        "it was a source when that was noted, and is not there: removed, renamed or damaged; if "
        "another program did it on purpose, epochal verify --record notes what is there now"
    )
    return (*told, *(Other(name, why, gone=True) for name in gone.values()))


class StoreOver:
    """A store with other sources in the place of its own."""

    def __init__(
        self, store: Store, sources: Mapping[str, AnySource], close: Callable[[], None]
    ) -> None:
        self.name, self.others, self.groups = store.name, store.others, store.groups
        self.sources = sources
        self.close = close

    def __getstate__(self) -> dict[str, Any]:
        # Groups may be a view of a dict, which does not pickle.
        return {**self.__dict__, "groups": {name: dict(of) for name, of in self.groups.items()}}


def largest_group(sources: Mapping[str, AnySource]) -> dict[str, AnySource]:
    """Sources whose first axis agrees with the largest group: most sources, then most bytes."""
    groups: dict[int, dict[str, AnySource]] = {}
    for name, source in sources.items():
        groups.setdefault(source.layout.n_rows, {})[name] = source
    if not groups:
        return {}
    return max(
        groups.values(),
        key=lambda g: (len(g), sum(source.layout.decoded_bytes for source in g.values())),
    )
