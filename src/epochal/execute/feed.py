"""What brings the rows of one source to the batches."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.ragged import Block

__all__ = ["BatchRows", "Feed", "Ticket"]

BatchRows = NDArray[Any] | Block  # what a batch's rows go to
Ticket = Any  # what `admit` hands to `gather`: each feed has its own


class Feed(Protocol):
    """Prepares rows ahead on the pool, hands them to batches, and lets go of what is served.

    All but `gather` is called on the caller's thread, with batches in order; `gather` runs on the
    pool, and may wait for what `admit` submitted.
    """

    @property
    def copies(self) -> bool:
        """Whether `gather` copies rows; else it has, but for some, only to wait for them."""
        ...

    def begin(self) -> None:
        """Do what must be done before the first batch."""
        ...

    def admit(self, batch: int, must: bool) -> Ticket | None:
        """See to it that a batch's rows come; None if memory must be let go of first, which `must`
        forbids.
        """
        ...

    def room(self, batch: int) -> BatchRows | None:
        """The array that an admitted batch's rows are on their way to; None if any will do."""
        ...

    def gather(self, ticket: Ticket, rows: NDArray[np.int64] | slice | None, out: Any) -> None:
        """Fill `out`, ``(n_batch_rows, *row_shape)`` or a `Block`, with a batch's rows."""
        ...

    def retire(self, batch: int) -> None:
        """All batches up to this one are made."""
        ...

    def leave(self) -> Any:
        """The epoch is over: what the next one may keep."""
        ...

    def salvage(self) -> Any:
        """The epoch was given up, and the pool closed: what starting it again may keep."""
        ...
