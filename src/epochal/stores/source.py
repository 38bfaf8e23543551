"""One named array of a store: what everything above reads through.

A source may know quicker ways, which `rows.py` asks it for: ``read_into`` several arrays, and
``locate``, where rows lie in their file.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout

__all__ = ["Source"]


class Source(Protocol):
    """One named array of a store. Reads may come from many threads at once."""

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        ...

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read and decode the chunks ``[start, stop)`` into `out`, ``(rows of those chunks,
        *row_shape)``, C-contiguous.

        Equal to the same rows of the file, bit for bit. Consecutive chunks come in one call so that
        a store can read neighbours together. Raises `DamageError` naming file, source, chunk and
        rows; `ChangedError`.
        """
        ...

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows (any order, repeats allowed) into `out`; only where
        ``layout.rows_alone``, or rows of chunks that are not among ``layout.coded``.
        """
        ...
