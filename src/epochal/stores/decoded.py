"""Sources whose stored bytes cannot be had: what they decode to is compared instead.

What libhdf5 alone can read, and what is streamed out of an archive or a compressed file, gives rows
and no chunks. `epochal.verify(record=True)` notes the checksums of those rows; here they are
compared as the rows are read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.layout import Layout
from epochal.stores.forms import form_of_source, held_to
from epochal.stores.manifest import Manifest, crc32, differs, manifests_beside
from epochal.stores.ragged import RaggedSource
from epochal.stores.rows import byte_view
from epochal.stores.source import Source
from epochal.stores.store import AnySource, SelfChecking, Store, StoreOver, missed

__all__ = ["DecodedSource", "decoded_sums", "with_decoded_sums"]


class DecodedSource:
    """A source whose chunks are compared, once decoded, with what was noted of them.

    Rows that are read alone are not checked.
    """

    def __init__(self, file: str, name: str, source: Source, manifest: Manifest) -> None:
        self._file, self._name, self._source, self.manifest = file, name, source, manifest
        layout = source.layout
        self._fits = manifest.decoded and manifest.n_pieces == layout.n_chunks
        coded = None if self._fits else layout.coded
        self.layout: Layout = replace(layout, checked=self._fits, coded=coded)

    def unchecked(self) -> Source:
        """The source itself."""
        return self._source

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)`` and compare each."""
        self._source.read(start, stop, out)
        if not self._fits:
            return
        sums = decoded_sums(self.layout, start, stop, out)
        for chunk in np.flatnonzero(sums != self.manifest.sums[start:stop]).tolist():
            first, last = self.layout.bounds(start + chunk)
            what = differs(int(sums[chunk]), int(self.manifest.sums[start + chunk]))
            raise DamageError(
                f"{self._file}: source {self._name!r}, chunk {start + chunk}, rows {first} to "
                f"{last - 1}: {what}. The file is damaged there: restore it from a copy, or leave "
                "these rows out"
            )

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        self._source.read_rows(rows, out)


def decoded_sums(layout: Layout, start: int, stop: int, rows: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32 of the rows of each of the chunks ``[start, stop)``, which `rows` are."""
    base = layout.bounds(start)[0]
    sums = np.zeros(stop - start, np.uint32)
    for k in range(stop - start) if rows.nbytes else ():
        first, last = layout.bounds(start + k)
        sums[k] = crc32(byte_view(rows[first - base : last - base]))
    return sums


def with_decoded_sums(store: Store, place: str | None = None) -> Store:
    """The store, its sources that do not check themselves with the checksums noted beside it, or
    beside the folder that it is.
    """
    noted = manifests_beside(place or store.name, near=True)
    if not noted and not noted.damaged:
        return store
    sources: dict[str, AnySource] = {}

    def watched(name: str, source: Source) -> Source:
        manifest = noted[name]
        if manifest is None or isinstance(source, SelfChecking):
            return source
        decoded = DecodedSource(store.name, name, source, manifest)
        if not manifest.decoded:  # it was noted of what another backend reads
            return decoded
        return held_to(manifest, form_of_source(source), decoded, store.name, name)

    for name, source in store.sources.items():
        if isinstance(source, RaggedSource):
            layout, columns = source.layout, source.columns
            columns = {c: watched(f"{name}/{c}", each) for c, each in columns.items()}
            sources[name] = RaggedSource(name, columns, layout.offsets, layout.n_columns)
        else:
            sources[name] = watched(name, source)
    over = StoreOver(store, sources, store.close)
    parts = [*sources, *(f"{n}/{c}" for n, s in sources.items() for c in _columns(s))]
    if len(noted) != 1 or len(sources) != 1:  # one array has one, however named
        over.others = missed(noted, parts, over.others)
    return over


def _columns(source: AnySource) -> list[str]:
    return [*source.columns] if isinstance(source, RaggedSource) else []
