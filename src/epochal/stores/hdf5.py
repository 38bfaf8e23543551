"""HDF5 files as stores: indexed once by libhdf5, then read without it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from epochal.errors import EpochalError
from epochal.stores.concat import ConcatSource
from epochal.stores.file import File
from epochal.stores.hdf5_child import index_in_child
from epochal.stores.hdf5_chunked import ChunkedSource
from epochal.stores.hdf5_facts import (
    Chunked,
    Compact,
    Contiguous,
    Facts,
    FileFacts,
    Library,
    Virtual,
    Vlen,
)
from epochal.stores.hdf5_fallback import LibrarySource
from epochal.stores.hdf5_index import index_file
from epochal.stores.hdf5_plain import CompactSource, ContiguousSource
from epochal.stores.hdf5_vlen import vlen_source
from epochal.stores.manifest import manifests_beside
from epochal.stores.part import part_of
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Other

__all__ = ["HDF5Store", "LibraryStore"]


class HDF5Store:
    """One HDF5 file. Opening walks it once, and holds 16 bytes a chunk; libhdf5 then lets go of it.

    Parameters
    ----------
    file
        The file.
    allow
        See `epochal.stores.open_store`.
    untrusted
        Index in a child process.
    """

    _raw = True

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        index = index_in_child if untrusted else index_file
        self._open(index(file, allow=tuple(allow), untrusted=untrusted, raw=self._raw))

    def _open(self, facts: FileFacts) -> None:
        self._facts = facts
        self._file = facts.file
        self._sources: dict[str, AnySource] = {}
        damaged: list[Other] = []
        noted = manifests_beside(facts.file.name, facts.file.in_flight == 1)
        for each in facts.sources:
            later = noted[each.name]  # than what is in the file
            if later is not None and isinstance(each, Chunked | Contiguous):
                each = replace(each, manifest=later)
            try:
                self._sources[each.name] = self._source(each)
            except EpochalError as error:  # of rows of varying length, whose lengths are read now
                damaged.append(Other(each.name, str(error), each.shape, str(each.dtype)))
        self._others = (*facts.others, *damaged)

    def __getstate__(self) -> FileFacts:
        return self._facts

    def __setstate__(self, facts: FileFacts) -> None:
        self._open(facts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, sources={list(self._sources)})"

    @property
    def name(self) -> str:
        """The path or URL."""
        return self._file.name

    @property
    def sources(self) -> dict[str, AnySource]:
        """Every dataset with rows that can be read, by its path."""
        return self._sources

    @property
    def others(self) -> tuple[Other, ...]:
        """The rest, with the reason."""
        return self._others

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of groups that say something of the sources in them."""
        return self._facts.groups

    def close(self) -> None:
        """Give back descriptors and the library's handles."""
        self._file.close()
        for facts in self._facts.sources:
            if isinstance(facts, Virtual):
                for part in facts.parts:
                    part.file.close()
        for source in self._sources.values():
            if isinstance(source, LibrarySource):
                source.close()

    def _source(self, facts: Facts) -> AnySource:
        if isinstance(facts, Vlen):
            references = _fixed(facts.references, self._file)
            return vlen_source(facts.name, references, facts.dtype, self._file, facts.base)
        return _fixed(facts, self._file)


def _fixed(facts: Facts, file: File) -> Source:
    """The source of rows that are all of one length."""
    match facts:
        case Chunked():
            return ChunkedSource(facts, file)
        case Contiguous():
            return ContiguousSource(facts, file)
        case Compact():
            return CompactSource(facts)
        case Library():
            return LibrarySource(facts, file)
        case Virtual():
            parts = [
                part_of(_fixed(p.facts, p.file), p.origin, p.origin + p.last - p.first)
                for p in facts.parts
            ]
            return ConcatSource(parts)
    raise AssertionError(facts)


class LibraryStore(HDF5Store):
    """The same with every chunk read by libhdf5: slow, and what the raw reader is compared with."""

    _raw = False
