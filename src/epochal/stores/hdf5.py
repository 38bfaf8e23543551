"""HDF5 files as stores: indexed once by libhdf5, then read without it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from epochal.errors import EpochalError, FormatError
from epochal.stores.concat import ConcatSource
from epochal.stores.decoded import DecodedSource
from epochal.stores.file import File
from epochal.stores.forms import NAME, held_to, is_rewritten
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
    form_of_facts,
)
from epochal.stores.hdf5_fallback import LibrarySource
from epochal.stores.hdf5_index import index_file
from epochal.stores.hdf5_plain import CompactSource, ContiguousSource
from epochal.stores.hdf5_vlen import vlen_source
from epochal.stores.manifest import (
    DAMAGED,
    OUTDATED,
    SOURCES,
    Beside,
    manifests_beside,
    names_from,
)
from epochal.stores.part import part_of
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Other, SelfChecking, missed

__all__ = ["HDF5Store", "LibraryStore"]

NAMELESS = Other(
    SOURCES,
    "the names of the sources that were written are gone, so that nobody can say whether all are "
    "there; if another program did it on purpose, epochal verify --record notes what is there now",
    gone=True,
)


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
        rest = [*facts.others]
        # What is read through the library only because that was asked for has another form.
        near = self._raw and facts.file.in_flight == 1
        beside = manifests_beside(facts.file.name, near)
        # What is noted beside the file of all its sources is newer than what it says itself.
        inside = self._raw and not beside.complete
        names: list[str] = []
        try:
            names += names_from(facts.noted) if inside else ()
        except FormatError as error:
            rest.append(Other(SOURCES, str(error), damaged=True))
        for each in facts.sources:
            each = _with_manifest(each, beside, each.name in names)
            form = each.manifest.form if each.manifest is not None else None
            if form is not None and inside and each.name not in beside:
                names.append(str(form.get(NAME, each.name)))
                if facts.noted is None:  # links and attributes of a group may be lost together
                    rest += [NAMELESS] if NAMELESS not in rest else []
            try:
                self._sources[each.name] = self._source(each)
            except EpochalError as error:  # of rows of varying length, whose lengths are read now
                told = Other(each.name, str(error), each.shape, str(each.dtype), damaged=True)
                rest.append(told)
        self._others = missed(names, self._sources, rest)

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
        source = _fixed(facts, self._file)
        noted = facts.manifest
        if noted is not None and noted.damaged and not isinstance(source, SelfChecking):
            return DecodedSource(self.name, facts.name, source, noted)
        form = form_of_facts(facts)
        if is_rewritten(noted, form, source):
            return _fixed(replace(facts, manifest=OUTDATED), self._file)
        return held_to(noted, form, source, self.name, facts.name)


def _with_manifest(facts: Facts, beside: Beside, written: bool) -> Facts:
    """Facts with what is noted beside the file, which is later than what is in it; of a source that
    was `written` with checksums and has none, that they are damaged.
    """
    if facts.name in beside or beside.damaged:
        return replace(facts, manifest=beside[facts.name])
    return replace(facts, manifest=DAMAGED) if written and facts.manifest is None else facts


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
