"""Rows that are read alone, straight into the batches that ask for them: nothing is held."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.plan.order import Order
from epochal.stores.source import Source

__all__ = ["DirectFeed"]


class DirectFeed:
    """Feeds batches of any order from a device that answers at once: one read a batch, of its rows
    in file order.
    """

    def __init__(self, source: Source, order: Order) -> None:
        self._source = source
        self._order = order

    def begin(self) -> None:
        """Nothing: rows are read when a batch is made."""

    def admit(self, batch: int, must: bool) -> int:
        """The batch itself."""
        return batch

    def room(self, batch: int) -> NDArray[Any] | None:
        """None: rows are read into any array."""
        return None

    def gather(self, ticket: int, rows: Any, out: NDArray[Any]) -> None:
        """Read a batch's rows."""
        wanted = self._order.rows(*self._order.bounds(ticket))
        if isinstance(wanted, slice):
            wanted = np.arange(wanted.start, wanted.stop)
        self._source.read_rows(wanted, out)

    def retire(self, batch: int) -> None:
        """Nothing is held."""

    def leave(self) -> None:
        """Nothing is kept."""

    def salvage(self) -> None:
        """Nothing is kept."""
