"""What is kept of an HDF5 file once it was indexed: plain facts that pickle, nothing of h5py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.stores.file import File
from epochal.stores.filters import Filter
from epochal.stores.forms import form_of
from epochal.stores.manifest import Form, Manifest
from epochal.stores.store import Other
from epochal.stores.strings import Padding

__all__ = [
    "Chunked",
    "Compact",
    "Contiguous",
    "Facts",
    "FileFacts",
    "Library",
    "Part",
    "Shape",
    "Virtual",
    "Vlen",
    "form_of_facts",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """Of any source: path, shape, what a read returns, strings in an item to pad anew; its
    checksums and the form that it was written in, where they are kept with it.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    paddings: tuple[Padding, ...] = field(default=(), kw_only=True)
    manifest: Manifest | None = field(default=None, repr=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Chunked(Facts):
    """Chunks on a grid, in raster order: 16 bytes a chunk at most.

    Parameters
    ----------
    chunk
        Shape of a chunk, as many axes as `shape`.
    filters
        In the order in which they were applied.
    offsets, sizes
        Of each chunk in the file; size 0 where none is stored.
    masks
        Of the filters left out; None where none is.
    fill
        The bytes of one item where no chunk is stored.
    plain_edges
        Whether chunks that reach over the dataset's edge are stored without filters.
    """

    chunk: Shape
    filters: tuple[Filter, ...]
    offsets: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.uint32] = field(repr=False)
    masks: NDArray[np.uint32] | None = field(repr=False)
    fill: bytes
    plain_edges: bool = False


@dataclass(frozen=True, eq=False)
class Contiguous(Facts):
    """All rows in one place."""

    offset: int


@dataclass(frozen=True, eq=False)
class Compact(Facts):
    """Bytes that are here already: those of the whole source, or of one item that is everywhere."""

    data: bytes
    repeated: bool = False


@dataclass(frozen=True, eq=False)
class Library(Facts):
    """Read by libhdf5, for the reason given; `files` are those that it opens besides."""

    chunk: Shape
    why: str
    codec: str = ""
    files: tuple[File, ...] = ()


@dataclass(frozen=True, eq=False)
class Vlen(Facts):
    """Rows of varying length: `dtype` is that of an item, `references` are lengths and places in
    heaps, whose addresses count from `base`.
    """

    references: Facts
    base: int


@dataclass(frozen=True, eq=False)
class Part:
    """Rows ``[first, last)`` of a virtual dataset: those from `origin` on of one in `file`."""

    first: int
    last: int
    origin: int
    file: File
    facts: Facts


@dataclass(frozen=True, eq=False)
class Virtual(Facts):
    """Rows that lie in other datasets, part after part."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class FileFacts:
    """One file as it was when it was indexed, its sources in order, the rest, what attributes of
    groups say of them, and the text of the names that its writer noted.
    """

    file: File
    sources: tuple[Facts, ...]
    others: tuple[Other, ...]
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    noted: str | None = field(default=None, repr=False)


def form_of_facts(facts: Facts) -> Form:
    """The form of a source (`epochal.stores.forms`). Of one without rows it is not told how they
    would be stored.
    """
    more: dict[str, Any] = {}
    match facts:
        case _ if not facts.shape[0]:
            pass
        case Chunked():
            filters = [[each.id, *each.cd] for each in facts.filters]
            more = {"chunks": list(facts.chunk), "filters": filters, "fill": facts.fill.hex()}
            if facts.plain_edges:
                more["edges"] = "plain"
        case Library():
            more = {"read": "libhdf5"}
    if facts.paddings:
        more["paddings"] = [list(each) for each in facts.paddings]
    return form_of(facts.shape, facts.dtype, **more)
