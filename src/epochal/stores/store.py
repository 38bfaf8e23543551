"""What a store answers: the two protocols that everything above reads through.

A new format is one module that builds objects of this shape; nothing above asks which one it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.layout import Layout

__all__ = ["Other", "Source", "Store"]


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
        ``layout.rows_alone``.
        """
        ...


@dataclass(frozen=True)
class Other:
    """Something in the file that is not a source, and why."""

    name: str
    why: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    unsafe: bool = False  # refused for what it asks for, not for what it is


class Store(Protocol):
    """An open file, or what stands for one. Pickles as path and index; survives fork and spawn."""

    @property
    def name(self) -> str:
        """For people: the path, or ``"<arrays>"``."""
        ...

    @property
    def sources(self) -> Mapping[str, Source]:
        """Every array that could be a source, by its path without a leading slash, in the file's
        order.
        """
        ...

    @property
    def others(self) -> tuple[Other, ...]:
        """What cannot be a source, with the reason."""
        ...

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Attributes of groups that say something of the sources in them, by the group's path (""
        is the root): numbers, strings and small arrays. Empty where a format has none.
        """
        ...

    def close(self) -> None:
        """Give back descriptors. A closed store may not be read."""
        ...
