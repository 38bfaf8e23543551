"""What tells a dataset from another: for what a killed run left, and another goes on with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.layout import Layout
from epochal.stores.mapped import base_of
from epochal.stores.ragged import AnySource, columns_of
from epochal.stores.source import Source
from epochal.stores.store import SelfChecking
from epochal.transformed import sum_of, sum_of_array, sums_of_functions

if TYPE_CHECKING:
    from epochal.dataset import Dataset

__all__ = ["identity_of"]

SAMPLED = 16  # chunks of a source that are read
SAMPLED_BYTES = 16 << 20  # the largest chunk that is


def identity_of(ds: Dataset, names: Sequence[str] | None = None) -> str:
    """A string that is the same of the same rows, and another of others, as far as is cheap.

    It tells of the file (its size, and when it was changed), of the rows that are chosen, of what
    they go through, of checksums that are kept with them, and of 16 chunks of each source as they
    are stored now; of arrays in memory, of every number. A change that keeps the size, the time,
    the layout, and the sampled chunks is not seen.

    Parameters
    ----------
    ds
        Whose rows.
    names
        Of which sources; None: of all.

    Raises
    ------
    DamageError
        A sampled chunk cannot be read.
    """
    stored = ds.stored if names is None else {name: ds.stored[name] for name in names}
    selection = ds._selection
    rows = "all" if selection is None else f"{len(selection)} {sum_of_array(selection)}"
    sums = {name: _sum_of_source(each) for name, each in stored.items()}
    file = _file_of(ds.store.name)
    return f"{file} {rows} of {sums} through {sums_of_functions(stored)}"


def _file_of(name: str) -> str:
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return name  # no file of this machine
    return f"{os.path.realpath(name)} {found.st_size} {found.st_mtime_ns}"


def _sum_of_source(source: AnySource) -> int:
    total = 0
    for column in columns_of(base_of(source)):
        total = sum_of(_told(column), total)
    return total


def _told(source: Source) -> list[Any]:
    """Of a source as it is stored."""
    layout = source.layout
    told: list[Any] = [str(layout.dtype), layout.shape, layout.chunk_rows]
    if layout.piece_bytes is not None:
        told.append(layout.piece_bytes)
    if isinstance(source, SelfChecking) and source.manifest is not None:
        told.append(source.manifest.sums)
    return [*told, *(_sum_of_chunk(source, chunk) for chunk in _sampled(layout))]


def _sampled(layout: Layout) -> list[int]:
    """Chunks from the first to the last, all of what lies in memory."""
    n_chunks = layout.n_chunks
    if layout.kind == "memory" or n_chunks <= SAMPLED:
        return list(range(n_chunks))
    return [k * (n_chunks - 1) // (SAMPLED - 1) for k in range(SAMPLED)]


def _sum_of_chunk(source: Source, chunk: int) -> int:
    layout = source.layout
    if layout.chunk_bytes > SAMPLED_BYTES and layout.kind != "memory":
        return 0
    start, stop = layout.bounds(chunk)
    rows = np.empty((stop - start, *layout.row_shape), layout.dtype)
    source.read(chunk, chunk + 1, rows)
    return sum_of_array(rows)
