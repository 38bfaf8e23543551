"""What only libhdf5 reads: one thread at a time, a block of rows after another."""

from __future__ import annotations

import os
import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import ChangedError, DamageError
from epochal.layout import Layout
from epochal.stores.descriptor import Descriptor
from epochal.stores.file import File
from epochal.stores.hdf5_facts import Library, form_of_facts
from epochal.stores.hdf5_file import check_unchanged, load_plugins, open_far, open_quietly
from epochal.stores.manifest import Form
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.remote_cache import Cached
from epochal.stores.remote_hdf5 import SeekableFile

__all__ = ["LibrarySource"]

# libhdf5's own chunk cache, per open dataset: 1 MiB up to HDF5 1.14, 8 MiB since 2.0.
CACHE_BYTES = 8 << 20
FAR_CACHE_BYTES = 8 << 20  # what is kept of a file that is not local


class _Handle:
    """The dataset as one process has it open."""

    def __init__(self, file: File, name: str) -> None:
        load_plugins()
        self.far: SeekableFile | None = None
        if isinstance(file, Descriptor):
            self.file = open_quietly(file.path)
        else:
            self.far = SeekableFile(Cached(file, held_bytes=FAR_CACHE_BYTES))
            self.file = open_far(self.far, file.name)
        self.dataset = self.file[name]


class LibrarySource:
    """One dataset read through h5py. It pickles as file and name: a process opens its own."""

    def __init__(self, facts: Library, file: File) -> None:
        self._facts, self._file = facts, file
        self._prepare()

    def __getstate__(self) -> tuple[Library, File]:
        return self._facts, self._file

    def __setstate__(self, state: tuple[Library, File]) -> None:
        self._facts, self._file = state
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
            read_overhead_bytes=CACHE_BYTES
            + (FAR_CACHE_BYTES + self._file.copy_bytes if self._file.copy_bytes else 0)
            + 2 * prod(facts.chunk) * facts.dtype.itemsize,
            kind="library",
            codec=facts.codec,
            parallel=False,
        )

    @property
    def form(self) -> Form:
        """What its rows are decoded by, as far as that is known outside the library."""
        return form_of_facts(self._facts)

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
            if isinstance(error, ChangedError | DamageError):
                raise
            self._check_reading()
            raise DamageError(
                f"{self._file.name}: source {self._facts.name!r}, chunk {start}, rows {first} to "
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

    def _check_reading(self) -> None:
        """Raise what is wrong with the file's being read, rather than with what is in it. What
        libhdf5 holds then is worth nothing.
        """
        self._check_files()
        handle = self._handles.get(os.getpid())
        if handle is not None and handle.far is not None and handle.far.failure is not None:
            self.close()
            handle.far.check()

    def _check_files(self) -> None:
        for file in (self._file, *self._facts.files):
            check_unchanged(file)

    def _read(self, first: int, last: int, out: NDArray[Any]) -> None:
        self._check_files()
        handle = self._handles.get(os.getpid())
        if handle is None:
            handle = self._handles[os.getpid()] = _Handle(self._file, self._facts.name)
        dataset = handle.dataset
        if dataset.dtype.shape:  # items that are arrays: h5py adds their axes by itself
            out[...] = dataset[first:last]
        else:
            dataset.read_direct(out, np.s_[first:last])
