"""Rows changed in the file itself: whole chunks, through a journal beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.changes import by_chunk, put_rows
from epochal.errors import MismatchError
from epochal.layout import Layout
from epochal.stores.forms import UnlikeSource
from epochal.stores.hdf5_chunked import ChunkedSource
from epochal.stores.hdf5_plain import ContiguousSource
from epochal.stores.manifest import crc32, forget_sums, read_sidecar, write_sidecar
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Store, StoreOver
from epochal.stores.zarr_store import ZarrSource
from epochal.writing import hdf5, zarr
from epochal.writing.container import Container, Progress
from epochal.writing.disk import writing_to
from epochal.writing.spec import SourceSpec
from epochal.writing.target import Lock
from epochal.writing.transaction import edit_bytes

__all__ = ["editable"]

Rows = NDArray[np.int64]
Blocks = dict[int, NDArray[Any]]  # by chunk

STEP_BYTES = 32 << 20  # decoded bytes of chunks that change in one step


def editable(path: str, reopen: Callable[[], Store]) -> StoreOver:
    """A store of this machine whose sources can be assigned to: what is assigned is in the file,
    and on the disk, when the assignment is done. No other writer gets it until it is closed.

    Parameters
    ----------
    path
        The file or folder.
    reopen
        Opens the store anew.
    """
    editor = _Editor(path, reopen)
    return StoreOver(editor.store, editor.sources, editor.close)


class _Editor:
    """What changes a file.

    Chunks change some at a time (`STEP_BYTES` decoded), each step whole or not at all: killed
    anywhere, each chunk is old or new, and the next `epochal.open` finishes or undoes the step.
    Costs a read, a compression and a write of each touched chunk, and indexing the file anew.
    """

    def __init__(self, path: str, reopen: Callable[[], Store]) -> None:
        self._path, self._reopen = path, reopen
        self._lock = Lock(path)
        try:
            self.store = reopen()
        except BaseException:
            self._lock.release()
            raise
        self.sources: dict[str, AnySource] = {
            name: source if isinstance(source, RaggedSource) else EditedSource(self, name, source)
            for name, source in self.store.sources.items()
        }

    def close(self) -> None:
        """Give back what is open, and let others write."""
        self.store.close()
        self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):  # it has none where another process writes
            self._lock.release()

    def edit(
        self, name: str, source: Source, rows: NDArray[np.int64], values: NDArray[Any]
    ) -> None:
        """Change rows of one source, and open what is there then."""
        change = self._change_of(name, source)
        wanted = list(by_chunk(source.layout, rows))
        step = max(1, STEP_BYTES // max(source.layout.chunk_bytes, 1))
        try:
            for at in range(0, len(wanted), step):
                change(
                    {c: _block(source, c, rows[m], values[m]) for c, m in wanted[at : at + step]}
                )
        finally:
            self._renew()

    def _renew(self) -> None:
        self.store.close()
        self.store = self._reopen()
        for name, source in self.sources.items():
            if isinstance(source, EditedSource):
                renewed = self.store.sources[name]
                assert not isinstance(renewed, RaggedSource)
                source.base = renewed

    def _change_of(self, name: str, source: Source) -> Callable[[Blocks], None]:
        """What changes chunks of a source; refused before anything is written."""
        opener: Callable[[str, Sequence[SourceSpec]], Container]
        match source:
            case ContiguousSource():
                return lambda blocks: _edit_in_place(name, source, blocks)
            case ChunkedSource():
                specs, progress = hdf5.specs_in(self._path, [name], grows=False)
                opener = hdf5.HDF5Container.open_to_append
            case ZarrSource():
                specs, progress = zarr.specs_in(self._path, [name])
                opener = zarr.ZarrContainer.open_to_append
            case UnlikeSource():
                raise source.error(0, source.layout.n_chunks)
            case _:
                raise MismatchError(
                    f"{self._path}: rows of {name!r} cannot be changed in place, since they are "
                    f"read through {source.layout.kind} chunks; mode='c' changes what this process "
                    "sees"
                )
        return lambda blocks: _put(opener(self._path, specs), name, blocks, progress)


def _block(source: Source, chunk: int, rows: Rows, values: NDArray[Any]) -> NDArray[Any]:
    """A chunk as it is to be."""
    first, last = source.layout.bounds(chunk)
    block = np.empty((last - first, *source.layout.row_shape), source.layout.dtype)
    source.read(chunk, chunk + 1, block)
    put_rows(block, rows - first, values)
    return block


def _put(container: Container, name: str, blocks: Blocks, progress: Progress) -> None:
    """Replace chunks of a file in one step, and their checksums with them."""
    sums = None if progress.sums is None else progress.sums[name]
    try:
        for chunk, block in blocks.items():
            stored = container.encoder(name)(block)
            container.put(name, chunk, stored)
            if sums is not None:
                sums[chunk] = crc32(stored)
        container.save(progress, final=True)
    except BaseException:
        container.abandon()
        raise


def _edit_in_place(name: str, source: ContiguousSource, blocks: Blocks) -> None:
    """Replace rows that lie one after another, and the checksums beside them: those are gone
    meanwhile, for they would be wrong.
    """
    path, layout = source.path, source.layout
    noted = read_sidecar(path)
    key = name if name in noted else next(iter(noted), name)  # one array has one, however named
    views = {chunk: block.reshape(-1).view(np.uint8) for chunk, block in blocks.items()}
    with writing_to(path):
        forget_sums(path, [key])
    row_bytes = layout.row_bytes
    edits = [(source.offset + layout.bounds(c)[0] * row_bytes, v) for c, v in views.items()]
    edit_bytes(path, edits)
    if layout.checked and key in noted:
        for chunk, view in views.items():
            noted[key].sums[chunk] = crc32(view)
        with writing_to(path):
            write_sidecar(path, noted, complete=noted.complete)


class EditedSource:
    """One source of a file that is changed in place."""

    def __init__(self, editor: _Editor, name: str, base: Source) -> None:
        self._editor, self._name, self.base = editor, name, base
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
            self._editor.edit(self._name, self.base, rows, values)
            self.version += 1
