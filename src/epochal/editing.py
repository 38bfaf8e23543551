"""Rows changed in the file itself: whole chunks, through a journal beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.layout import Layout
from epochal.stores.hdf5_chunked import ChunkedSource
from epochal.stores.hdf5_plain import ContiguousSource
from epochal.stores.manifest import crc32, read_sidecar, sidecar_of, write_sidecar
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Other, Store
from epochal.stores.zarr_store import ZarrSource
from epochal.writing import hdf5, zarr
from epochal.writing.container import Container
from epochal.writing.target import Lock, remove, writing_to
from epochal.writing.transaction import edit_bytes, journal_of

__all__ = ["EditedStore"]

Blocks = list[NDArray[Any]]

STEP_BYTES = 32 << 20  # decoded bytes of chunks that change in one step


class EditedStore:
    """A store of this machine whose sources can be assigned to: what is assigned is in the file,
    and on the disk, when the assignment is done.

    Chunks change some at a time (`STEP_BYTES` decoded), each step whole or not at all: killed
    anywhere, each chunk is old or new, and the next `epochal.open` finishes or undoes the step.
    Costs a read, a compression and a write of each touched chunk, and indexing the file anew.

    Parameters
    ----------
    path
        The file or folder.
    reopen
        Opens the store anew.
    """

    def __init__(self, path: str, reopen: Callable[[], Store]) -> None:
        self._path, self._reopen = path, reopen
        self._store = reopen()
        self._lock = Lock(path)
        self.sources: Mapping[str, AnySource] = {
            name: source if isinstance(source, RaggedSource) else EditedSource(self, name, source)
            for name, source in self._store.sources.items()
        }

    @property
    def name(self) -> str:
        """See `Store`."""
        return self._store.name

    @property
    def others(self) -> tuple[Other, ...]:
        """See `Store`."""
        return self._store.others

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Store`."""
        return self._store.groups

    def close(self) -> None:
        """See `Store`; others may write then."""
        self._store.close()
        self._lock.release()

    def __del__(self) -> None:
        lock = getattr(self, "_lock", None)
        if lock is not None:
            lock.release()

    def edit(
        self, name: str, source: Source, rows: NDArray[np.int64], values: NDArray[Any]
    ) -> None:
        """Change rows of one source, and open what is there then."""
        editor = self._editor(name, source)
        layout = source.layout
        chunks = layout.chunks_of(rows)
        wanted = np.unique(chunks)
        step = max(1, STEP_BYTES // max(layout.chunk_bytes, 1))
        try:
            for at in range(0, len(wanted), step):
                some = wanted[at : at + step]
                editor(some.tolist(), _blocks(source, some, chunks, rows, values))
        finally:
            self._renew()

    def _renew(self) -> None:
        self._store.close()
        self._store = self._reopen()
        for name, source in self.sources.items():
            if isinstance(source, EditedSource):
                renewed = self._store.sources[name]
                assert not isinstance(renewed, RaggedSource)
                source.base = renewed

    def _editor(self, name: str, source: Source) -> Callable[[list[int], Blocks], None]:
        """What changes chunks of a source; refused before anything is written."""
        if isinstance(source, ContiguousSource):
            return lambda chunks, blocks: _edit_in_place(name, source, chunks, blocks)
        if isinstance(source, ChunkedSource):
            specs, progress = hdf5.specs_in(self._path, [name], grows=False)
            _forget(self._path, name)

            def edit(chunks: list[int], blocks: Blocks) -> None:
                container = hdf5.HDF5Container.open_to_append(self._path, specs)
                _put(container, name, chunks, blocks, progress)

            return edit
        if isinstance(source, ZarrSource):
            specs, progress = zarr.specs_in(self._path, [name])
            _forget(self._path, name)

            def edit_zarr(chunks: list[int], blocks: Blocks) -> None:
                container = zarr.ZarrContainer.open_to_append(self._path, specs)
                _put(container, name, chunks, blocks, progress)

            return edit_zarr
        raise MismatchError(
            f"{self._path}: rows of {name!r} cannot be changed in place, since they are read "
            f"through {source.layout.kind} chunks; mode='c' changes what this process sees"
        )


def _blocks(
    source: Source,
    wanted: NDArray[np.int64],
    chunks: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
) -> Blocks:
    """The chunks as they are to be."""
    layout, made = source.layout, []
    for chunk in wanted.tolist():
        first, last = layout.bounds(chunk)
        block = np.empty((last - first, *layout.row_shape), layout.dtype)
        source.read(chunk, chunk + 1, block)
        mine = np.flatnonzero(chunks == chunk)
        places = rows[mine] - first
        newest = len(places) - 1 - np.unique(places[::-1], return_index=True)[1]
        block[places[newest]] = values[mine[newest]]
        made.append(block)
    return made


def _forget(path: str, name: str) -> None:
    """Let go of checksums beside a file that are of what is about to change."""
    noted = read_sidecar(path)
    if noted.pop(name, None) is not None:
        with writing_to(path):
            write_sidecar(path, noted)


def _put(
    container: Container, name: str, chunks: Sequence[int], blocks: Blocks, progress: Any
) -> None:
    """Replace chunks of a file in one step, and their checksums with them."""
    sums = None if progress.sums is None else progress.sums[name]
    try:
        for chunk, block in zip(chunks, blocks, strict=True):
            stored = container.encode(name, block)
            container.put(name, chunk, stored)
            if sums is not None and chunk < len(sums):
                sums[chunk] = crc32(stored)
        container.save(progress, final=True)
    except BaseException:
        container.abandon()
        raise


def _edit_in_place(
    name: str, source: ContiguousSource, chunks: Sequence[int], blocks: Blocks
) -> None:
    """Replace rows that lie one after another, and the checksums beside them: those are gone
    meanwhile, for they would be wrong.
    """
    path, layout = source.path, source.layout
    noted = read_sidecar(path)
    with writing_to(path):
        remove(sidecar_of(path))
    edits = [
        (source.offset + layout.bounds(chunk)[0] * layout.row_bytes, block.reshape(-1).view("u1"))
        for chunk, block in zip(chunks, blocks, strict=True)
    ]
    edit_bytes(path, journal_of(path), edits)
    if noted:
        key = name if name in noted else next(iter(noted))
        if layout.checked:
            for chunk, block in zip(chunks, blocks, strict=True):
                noted[key].sums[chunk] = crc32(block.reshape(-1).view("u1"))
        else:
            del noted[key]
        with writing_to(path):
            write_sidecar(path, noted)


class EditedSource:
    """One source of a file that is changed in place."""

    def __init__(self, store: EditedStore, name: str, base: Source) -> None:
        self._store, self._name, self.base = store, name, base
        self._pid = os.getpid()
        self.version = 0

    def __reduce__(self) -> tuple[Any, ...]:
        raise MismatchError(
            f"source {self._name!r} is open for writing (mode='r+'), so it cannot go to another "
            "process: open the file there, with mode='r'"
        )

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self.base.layout

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks."""
        self.base.read(start, stop, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        self.base.read_rows(rows, out)

    def assign(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Change the file."""
        if os.getpid() != self._pid:
            raise MismatchError(f"{self._name!r} was opened for writing in another process")
        if len(rows):
            self._store.edit(self._name, self.base, rows, values)
            self.version += 1
