"""A file brought into the page cache, in its own order, while rows of it are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np

from epochal.stores.descriptor import Handle
from epochal.stores.rows import locate_all
from epochal.stores.source import Source

__all__ = ["can_load", "load"]

STEP_BYTES = 2 << 20  # the kernel reads no more than some megabytes of what it is told of at once
CHUNKS = 1 << 14  # looked up at a time


def can_load(source: Source) -> bool:
    """Whether this system can be told to, of the files of this source."""
    return hasattr(os, "posix_fadvise") and next(_spans(source), None) is not None


def load(source: Source, check: Callable[[], None]) -> None:
    """Have the system read all rows that lie in files as they are; `check` raises to end it.

    Returns when the last is asked for, which is about when it is there. Holds a few integers a
    chunk.
    """
    for fd, first, stop in _spans(source):
        for at in range(first, stop, STEP_BYTES):
            check()
            try:
                os.posix_fadvise(fd, at, min(STEP_BYTES, stop - at), os.POSIX_FADV_WILLNEED)
            except OSError:  # no file of the kind that a page cache is for
                return


def _spans(source: Source) -> Iterator[tuple[int, int, int]]:
    """Descriptors, and the bytes ``[first, stop)`` in which rows lie, neighbouring chunks together:
    rows of a chunk lie one after another.
    """
    layout = source.layout
    for low in range(0, layout.n_chunks, CHUNKS):
        chunks = np.arange(low, min(low + CHUNKS, layout.n_chunks))
        chunks = chunks[~layout.is_coded(chunks)]
        edges = np.array([layout.bounds(chunk) for chunk in chunks.tolist()], np.int64)
        rows = (edges.reshape(-1, 2) - (0, 1)).reshape(-1)
        for some in locate_all(source, rows) if len(rows) else ():
            if some is None:
                return
            for one in some[0]:
                if not isinstance(one.read, Handle):
                    return
                firsts, lasts = one.positions.reshape(-1, 2).T
                stops = lasts + layout.row_bytes
                cuts = np.flatnonzero(firsts[1:] != stops[:-1]) + 1
                begins, ends = firsts[[0, *cuts]], stops[[*(cuts - 1), -1]]
                for first, stop in zip(begins.tolist(), ends.tolist(), strict=True):
                    yield one.read.fd, first, stop
