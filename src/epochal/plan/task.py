"""What a strategy is asked: the order, the layouts, and the memory left for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from epochal.layout import Layout, RaggedLayout
from epochal.plan.machine import Machine
from epochal.plan.order import Order
from epochal.plan.plan import FeedPlan, Prediction

__all__ = ["EXACT_ROWS", "INDEX_ROW_BYTES", "Infeasible", "Part", "Task"]

# Beside its data, a row of a window costs its index and the arrays from which that is made (rows,
# their sorting, chunk numbers): five of 8 bytes while it is planned.
INDEX_ROW_BYTES = 48
EXACT_ROWS = 1 << 25  # an order longer than this is counted by expectation, not row by row


class Infeasible(Exception):
    """A strategy cannot run; the message says why. ``needed_bytes`` is the budget it would take, 0
    if none would do.
    """

    def __init__(self, why: str, needed_bytes: int = 0) -> None:
        super().__init__(why)
        self.needed_bytes = needed_bytes


@dataclass(frozen=True)
class Part:
    """One source's share of a plan: its feed, and what it costs, now and in later epochs."""

    feed: FeedPlan
    first: Prediction
    second: Prediction
    later: Prediction
    held: tuple[tuple[str, int], ...]

    @property
    def seconds(self) -> float:
        """Of three epochs, which is what plans are chosen by."""
        return self.first.seconds + self.second.seconds + self.later.seconds


@dataclass(frozen=True)
class Task:
    """The question that strategies answer, one source at a time.

    ``exact``: chunks that windows of a uniform order touch are counted, for the plan that runs, and
    not just expected, which is near enough to choose by.
    """

    order: Order
    everything: dict[str, Layout | RaggedLayout] = field(repr=False)
    machine: Machine
    threads: int
    budget_bytes: int
    order_bytes: int
    batch_bytes: int
    batch_rows: int
    batches_ahead: int
    batch_group: int
    start: int
    start_batch: int
    exact: bool = False

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Of the sources whose rows are all of one length."""
        return {k: v for k, v in self.everything.items() if isinstance(v, Layout)}

    def ragged(self, name: str) -> RaggedLayout:
        """Of a source whose rows differ in length."""
        layout = self.everything[name]
        assert isinstance(layout, RaggedLayout)
        return layout

    @property
    def batches_bytes(self) -> int:
        """Batches made and waiting, the group in hand, and the one that is the user's."""
        return (self.batches_ahead + self.batch_group + 1) * self.batch_bytes

    @property
    def common_bytes(self) -> int:
        """What every strategy holds."""
        return self.order_bytes + self.batches_bytes

    @property
    def left_bytes(self) -> int:
        """What is left for the feeds."""
        return self.budget_bytes - self.common_bytes

    @property
    def n_rows_left(self) -> int:
        """Positions from the start to the end of the epoch."""
        return self.order.n_positions - self.start

    @property
    def order_is_held(self) -> bool:
        """Whether the whole order is an array, and not made pile by pile."""
        return self.order.scheme.order_bytes >= 8 * self.order.n_positions

    @property
    def order_seconds(self) -> float:
        """Making the order: keys and one sort, or a pass over all keys for each of its piles."""
        n_rows, held = self.order.scheme.n_rows, self.order.scheme.order_bytes
        if not held:
            return 0.0
        if self.order_is_held:
            return n_rows * (self.machine.key_seconds + self.machine.sort_seconds)
        return n_rows * self.machine.key_seconds * -(-8 * n_rows // held)

    def decode_seconds(self, name: str, decoded_bytes: float) -> float:
        """Wall seconds to read and decode so many bytes of a source on all threads that it lets
        work.
        """
        threads = self.threads if self.everything[name].parallel else 1
        return decoded_bytes / self.machine.of(name).decode_bytes_per_s / threads
