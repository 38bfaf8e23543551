"""What only libhdf5 reads: one thread at a time, a block of rows after another."""

from __future__ import annotations

import os
import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.layout import Layout
from epochal.stores.descriptor import Stamp, changed
from epochal.stores.hdf5_facts import Library
from epochal.stores.hdf5_file import load_plugins, open_quietly
from epochal.stores.memory import virtual_chunk_rows

__all__ = ["LibrarySource"]

# libhdf5's own chunk cache, per open dataset: 1 MiB up to HDF5 1.14, 8 MiB since 2.0.
CACHE_BYTES = 8 << 20


class _Handle:
    """The dataset as one process has it open."""

    def __init__(self, path: str, name: str) -> None:
        load_plugins()
        self.file = open_quietly(path)
        self.dataset = self.file[name]


class LibrarySource:
    """One dataset read through h5py. It pickles as path and name: a process opens its own."""

    def __init__(self, facts: Library, path: str, stamp: Stamp) -> None:
        self._facts, self._path, self._stamp = facts, path, stamp
        self._prepare()

    def __getstate__(self) -> tuple[Library, str, Stamp]:
        return self._facts, self._path, self._stamp

    def __setstate__(self, state: tuple[Library, str, Stamp]) -> None:
        self._facts, self._path, self._stamp = state
        self._prepare()

    def _prepare(self) -> None:
        facts = self._facts
        # By process: a fork must neither use its parent's handle nor wait for a lock that a lost
        # thread holds.
        self._handles: dict[int, _Handle] = {}
        self._locks: dict[int, threading.Lock] = {}
        row_bytes = prod(facts.shape[1:]) * facts.dtype.itemsize
        self._layout = Layout(
            shape=facts.shape,
            dtype=facts.dtype,
            chunk_rows=facts.chunk[0] if facts.chunk else virtual_chunk_rows(row_bytes),
            read_overhead_bytes=CACHE_BYTES + 2 * prod(facts.chunk) * facts.dtype.itemsize,
            kind="library",
            codec=facts.codec,
            parallel=False,
        )

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._layout

    @property
    def why(self) -> str:
        """Why it is read through the library."""
        return self._facts.why

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the rows of the chunks ``[start, stop)`` by one call of the library."""
        assert 0 <= start <= stop <= self._layout.n_chunks
        if out.nbytes == 0:
            return
        first = start * self._layout.chunk_rows
        try:
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                self._read(first, first + len(out), out)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, DamageError):
                raise
            now = Stamp.at(self._path)
            if now != self._stamp:
                raise changed(self._path, self._stamp, now) from error
            raise DamageError(
                f"{self._path}: source {self._facts.name!r}, chunk {start}, rows {first} to "
                f"{first + len(out) - 1}: libhdf5 cannot read it: {error}. "
                "Restore the file from a copy, or leave these rows out"
            ) from error

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: the library decodes a whole chunk a row."""
        raise NotImplementedError("rows of a library source are not read alone")

    def close(self) -> None:
        """Close this process's handle."""
        handle = self._handles.pop(os.getpid(), None)
        if handle is not None:
            handle.file.close()

    def _read(self, first: int, last: int, out: NDArray[Any]) -> None:
        now = Stamp.at(self._path)
        if now != self._stamp:
            raise changed(self._path, self._stamp, now)
        handle = self._handles.get(os.getpid())
        if handle is None:
            handle = self._handles[os.getpid()] = _Handle(self._path, self._facts.name)
        dataset = handle.dataset
        if dataset.dtype.shape:  # items that are arrays: h5py adds their axes by itself
            out[...] = dataset[first:last]
        else:
            dataset.read_direct(out, np.s_[first:last])
