"""A plan: how each source's rows will come, what that holds, and what it should cost. Frozen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from epochal.html import preformatted
from epochal.plan.machine import Machine
from epochal.plan.page import page

__all__ = ["Candidate", "FeedPlan", "Plan", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """What an epoch costs: rows, bytes and pieces exactly; seconds and first batch by the cost
    model.
    """

    rows: int = 0
    read_bytes: int = 0
    decoded_bytes: int = 0
    chunks_decoded: int = 0
    spilled_bytes: int = 0
    held_bytes: int = 0
    seconds: float = 0.0
    first_batch_seconds: float = 0.0


@dataclass(frozen=True)
class FeedPlan:
    """How the rows of one source come.

    ``kind`` is ``"stream"`` (windows that end where chunks do) or ``"window"``, of
    ``window_rows`` positions with ``windows_ahead`` of them prepared ahead, ``"direct"`` (rows that
    are read alone, into the batches), ``"resident"``, or ``"spool"``. ``run_bytes`` bounds the
    decoded bytes of one read. ``alone``: rows are read by themselves, by ``readers`` tasks at once
    (0: one a thread), or past the page cache (``uncached``), or while that reads all of the file
    (``loads``). The spool deals blocks of
    ``block_chunks`` chunks into ``n_piles`` piles (``pile_rows`` positions each where
    ``by_position``, else equal key ranges), through buffers of ``buffer_rows`` records, keeps the
    first ``piles_kept`` of them in up to ``n_pages`` pages of ``page_rows`` records, and has up to
    ``slabs`` of them in memory while they are served.
    ``roll``: later epochs deal the records of the one before.
    ``asks_ahead``: piles come from a device, not from the page cache, so all of one is asked for
    before it is read.

    Rows of varying length come by ``"ragged stream"``, ``"ragged window"``, ``"ragged resident"``
    or ``"ragged spool"``: runs of ``run_items`` items, windows or piles of ``window_items``.
    """

    source: str
    kind: str
    held_bytes: int
    run_bytes: int = 0
    window_rows: int = 0
    windows_ahead: int = 0
    alone: bool = False
    readers: int = 0
    uncached: bool = False
    loads: bool = False
    block_chunks: int = 0
    n_piles: int = 0
    pile_rows: int = 0
    by_position: bool = False
    buffer_rows: int = 0
    slabs: int = 0
    piles_kept: int = 0
    n_pages: int = 0
    page_rows: int = 0
    roll: bool = False
    asks_ahead: bool = False
    run_items: int = 0
    window_items: int = 0


@dataclass(frozen=True)
class Candidate:
    """A strategy that was weighed: seconds of this epoch and of each later one, or why it cannot
    run.
    """

    strategy: str
    seconds: float | None = None
    later_seconds: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Plan:
    """How an epoch will run.

    Attributes
    ----------
    strategy
        ``"stream"``, ``"resident"``, ``"gather"``, ``"rescan"`` or ``"spool"``.
    feeds
        One entry a source, in the batch's order.
    batches_ahead
        Batches made before they are asked for.
    batch_bytes, budget_bytes, common_bytes, held
        The largest batch, its rows as they are stored; the ceiling; what the order and the batches
        take of it; and everything, item by item.
    predicted, second, later
        This epoch, the one after it, and each epoch after that. (A spool's records are dealt for
        the next epoch while they are served, but not in the first epoch, which may be the only
        one: the second deals them twice.)
    """

    strategy: str
    scheme: str
    feeds: tuple[FeedPlan, ...]
    threads: int
    batches_ahead: int
    batch_group: int
    batch_bytes: int
    budget_bytes: int
    common_bytes: int
    held: tuple[tuple[str, int], ...]
    predicted: Prediction
    second: Prediction
    later: Prediction
    candidates: tuple[Candidate, ...]
    machine: Machine

    @property
    def pool_threads(self) -> int:
        """Threads of the pool: more than cores where many rows are asked of a device at once, and
        one for each file that is loaded.
        """
        loading = sum(feed.loads for feed in self.feeds)
        return max(self.threads, *(feed.readers for feed in self.feeds), 1) + loading

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        facts = asdict(self)
        facts["held"] = dict(self.held)
        facts["machine"] = asdict(self.machine)
        return facts

    def __str__(self) -> str:
        return page(self)

    def _repr_html_(self) -> str:
        return preformatted(page(self))
