"""The order of one epoch, in row numbers of the file.

A scheme counts the rows of what it was given: the whole dataset or a view of it (a split). An
`Order` puts the two together, so that everything below it speaks of the file's own rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.schemes.scheme import Scheme

__all__ = ["Order", "Rows"]

Rows = NDArray[np.int64]


class Order:
    """Which row of the file comes at which position of this rank's epoch.

    Parameters
    ----------
    scheme
        Says which view row comes at each position.
    selection
        Ascending file rows of the view, ``(n_view_rows,)``; None when the view is the whole file.
    """

    def __init__(self, scheme: Scheme, selection: Rows | None = None) -> None:
        self.scheme = scheme
        self.selection = selection

    @property
    def n_positions(self) -> int:
        """Rows that this rank yields in this epoch."""
        return self.scheme.n_positions

    @property
    def n_batches(self) -> int:
        """Batches that this rank yields in this epoch."""
        return len(self.scheme)

    @property
    def monotone(self) -> bool:
        """Whether rows ascend with position (a selection ascends too)."""
        return self.scheme.monotone

    @property
    def each_row_once(self) -> bool:
        """Whether the epoch is a permutation of every row of the view."""
        return (
            self.scheme.world == 1
            and self.n_positions == self.scheme.n_rows
            and not self.scheme.name.startswith("random_")
        )

    @property
    def is_uniform(self) -> bool:
        """Whether each row of the file is as likely as any other at each position."""
        uniform = ("shuffled_sequential", "random_uniform")
        return self.selection is None and self.scheme.name in uniform

    def bounds(self, batch: int) -> tuple[int, int]:
        """Positions of one batch, half-open."""
        return self.scheme.bounds(batch)

    def batch_at(self, position: int) -> int:
        """The first batch that ends behind a position."""
        batches = range(self.n_batches)
        return bisect_right(batches, position, key=lambda batch: self.bounds(batch)[1])

    def rows(self, start: int, stop: int) -> slice | Rows:
        """File rows at the positions ``[start, stop)``."""
        rows = self.scheme.rows(start, stop)
        if self.selection is None:
            return rows
        return self.selection[rows]

    def row_array(self, start: int, stop: int) -> Rows:
        """File rows at the positions ``[start, stop)``, always as an array."""
        rows = self.rows(start, stop)
        if isinstance(rows, slice):
            return np.arange(rows.start, rows.stop, dtype=np.int64)
        return rows

    def at(self, epoch: int) -> Order:
        """The same order's next or earlier epoch."""
        return Order(self.scheme.at(epoch), self.selection)

    def seeded_as(self, config: Mapping[str, Any]) -> Order:
        """The same order with the seed of a scheme's config, if nobody chose its own."""
        seed = config.get("seed")
        if seed is None or not self.scheme.seed_is_drawn:
            return self
        return Order(self.scheme.seeded(seed), self.selection)

    def view_range(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """View rows whose file rows lie in ``[start_row, stop_row)``: consecutive, since a
        selection ascends.
        """
        if self.selection is None:
            return start_row, stop_row
        low, high = np.searchsorted(self.selection, [start_row, stop_row])
        return int(low), int(high)

    def __getstate__(self) -> dict[str, Any]:
        return {"scheme": self.scheme, "selection": self.selection}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
