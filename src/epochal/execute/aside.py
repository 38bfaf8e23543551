"""Chunks that are read aside, for some of their rows."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from epochal.execute.pool import Pool
from epochal.stores.store import Source

__all__ = ["read_aside"]


def read_aside(source: Source, start: int, stop: int, pool: Pool) -> NDArray[Any]:
    """Rows of the chunks ``[start, stop)``, in the thread's buffer: good until its next use."""
    layout = source.layout
    n_rows = layout.bounds(stop - 1)[1] - layout.bounds(start)[0]
    memory = pool.temporary(n_rows * layout.row_bytes)
    block = memory.view(layout.dtype).reshape(n_rows, *layout.row_shape)
    source.read(start, stop, block)
    return block
