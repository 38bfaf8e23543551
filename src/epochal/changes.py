"""Rows that this process has changed: copies of their chunks on scratch, over what is stored."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError, ScratchError
from epochal.execute.scratch import open_scratch
from epochal.layout import Layout
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Store, StoreOver

__all__ = ["ChangedSource", "by_chunk", "changeable", "put_rows"]

Rows = NDArray[np.int64]


class _Forks:
    """Forks of this process since somebody asked: what was on scratch then is shared with a child,
    so it is not written over.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        """There is one more."""
        self.count += 1


@cache
def _forks() -> _Forks:
    forks = _Forks()
    os.register_at_fork(before=forks.add)
    return forks


def by_chunk(layout: Layout, rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The chunks that hold some rows, ascending, and which of `rows` lie in each, ascending."""
    chunks = layout.chunks_of(rows)
    order = np.argsort(chunks, kind="stable")
    cuts = np.flatnonzero(np.diff(chunks[order])) + 1
    for mine in np.split(order, cuts) if len(rows) else ():
        yield int(chunks[mine[0]]), mine


def put_rows(block: NDArray[Any], places: Rows, values: NDArray[Any]) -> None:
    """Assign rows of a block. NumPy leaves open which value stays at a place that is repeated: the
    last one here.
    """
    newest = len(places) - 1 - np.unique(places[::-1], return_index=True)[1]
    block[places[newest]] = values[newest]


class ChangedSource:
    """A source, and what this process has changed of it: copy on write, a chunk at a time.

    Holds 8 bytes a chunk, and two chunks while assigning; the changed chunks are on unlinked
    scratch. Reading costs what it does, and of changed chunks a read of scratch. A thread that
    reads while another assigns sees each chunk either old or new.
    """

    def __init__(self, name: str, base: Source, folder: Path) -> None:
        self._name, self._base, self._folder = name, base, folder
        self._lock = threading.RLock()
        self._slots: NDArray[np.int64] | None = None  # of each chunk; -1 where it is as stored
        self._fd = -1
        self._n_slots = 0
        self._pid, self._forks, self._shared = os.getpid(), _forks().count, 0
        self.version = 0

    def __reduce__(self) -> tuple[Any, ...]:
        if self.version:
            raise MismatchError(
                f"source {self._name!r} was changed in this process alone (mode='c'), so it cannot "
                "go to another: save the dataset with ds.save(path), and open that"
            )
        return ChangedSource, (self._name, self._base, self._folder)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._base.layout

    @property
    def base(self) -> Source:
        """The source without the changes."""
        return self._base

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks: runs that were not changed as they are stored, the others from scratch."""
        with self._lock:
            slots = None if self._slots is None else self._slots[start:stop].copy()
        if slots is None or (slots < 0).all():
            self._base.read(start, stop, out)
            return
        base = self.layout.bounds(start)[0]
        at = start
        while at < stop:
            end = at + 1
            changed = slots[at - start] >= 0
            while not changed and end < stop and slots[end - start] < 0:
                end += 1
            first, last = self.layout.bounds(at)[0], self.layout.bounds(end - 1)[1]
            rows = out[first - base : last - base]
            if changed:
                self._read_changed(at, rows)
            else:
                self._base.read(at, end, rows)
            at = end

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        rows = np.asarray(rows, np.int64)
        with self._lock:
            slots = None if self._slots is None else self._slots[self.layout.chunks_of(rows)]
        if slots is None or (slots < 0).all():
            self._base.read_rows(rows, out)
            return
        stored = slots < 0
        if stored.any():
            some = np.empty((int(stored.sum()), *out.shape[1:]), out.dtype)
            self._base.read_rows(rows[stored], some)
            out[stored] = some
        changed = np.flatnonzero(~stored)
        for chunk, mine in by_chunk(self.layout, rows[changed]):
            places = rows[changed[mine]] - self.layout.bounds(chunk)[0]
            out[changed[mine]] = self._chunk(chunk)[places]

    def assign(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """See `epochal.stores.store.Assignable`: each touched chunk is decoded once, or read from
        scratch.
        """
        if os.getpid() != self._pid:
            raise MismatchError(
                f"source {self._name!r} was opened in another process: open the file in this one "
                "to change its rows"
            )
        for chunk, mine in by_chunk(self.layout, rows):
            with self._lock:
                block = self._chunk(chunk)
                put_rows(block, rows[mine] - self.layout.bounds(chunk)[0], values[mine])
                self._store(chunk, block)
        with self._lock:
            self.version += 1

    def _chunk(self, chunk: int) -> NDArray[Any]:
        """A chunk as this process sees it, its own copy."""
        first, last = self.layout.bounds(chunk)
        block = np.empty((last - first, *self.layout.row_shape), self.layout.dtype)
        self.read(chunk, chunk + 1, block)
        return block

    def _slot_bytes(self) -> int:
        return self.layout.chunk_rows * self.layout.row_bytes

    def _read_changed(self, chunk: int, out: NDArray[Any]) -> None:
        view = out.reshape(-1).view(np.uint8).data
        with self._lock:
            assert self._slots is not None
            at = int(self._slots[chunk]) * self._slot_bytes()
            while len(view):
                n = os.preadv(self._fd, [view], at)
                if not n:
                    raise ScratchError(f"scratch in {str(self._folder)!r} was cut short")
                view, at = view[n:], at + n

    def _store(self, chunk: int, block: NDArray[Any]) -> None:
        if self._slots is None:
            self._fd = open_scratch(self._folder)
            self._slots = np.full(self.layout.n_chunks, -1, np.int64)
        if self._forks != _forks().count:  # a child sees what is there now
            self._forks, self._shared = _forks().count, self._n_slots
        slot = int(self._slots[chunk])
        if slot < self._shared:
            slot, self._n_slots = self._n_slots, self._n_slots + 1
        view, at = block.reshape(-1).view(np.uint8).data, slot * self._slot_bytes()
        try:
            while len(view):
                n = os.pwrite(self._fd, view, at)
                view, at = view[n:], at + n
        except OSError as error:
            raise ScratchError(
                f"scratch in {str(self._folder)!r} cannot hold what was changed of "
                f"{self._name!r}: {error.strerror}. The rows are as they were; name another folder "
                "with EPOCHAL_SCRATCH, or save the dataset and go on from there"
            ) from error
        self._slots[chunk] = slot


def changeable(store: Store, folder: Path) -> StoreOver:
    """A store whose sources can be assigned to, in this process alone; `folder` is for scratch."""
    sources: dict[str, AnySource] = {
        name: source if isinstance(source, RaggedSource) else ChangedSource(name, source, folder)
        for name, source in store.sources.items()
    }
    return StoreOver(store, sources, store.close)
