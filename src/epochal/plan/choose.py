"""Choosing a strategy: a pure function of order, layouts, budget and machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from epochal.errors import BudgetError
from epochal.layout import Layout, RaggedLayout
from epochal.plan.gather import plan_gather
from epochal.plan.machine import Machine
from epochal.plan.order import Order
from epochal.plan.plan import Candidate, Plan, Prediction
from epochal.plan.ragged import RAGGED_STRATEGIES, item_ends, most_items
from epochal.plan.resident import plan_resident
from epochal.plan.spool import plan_spool
from epochal.plan.task import Infeasible, Part, Task
from epochal.plan.window import plan_rescan, plan_stream
from epochal.sizes import show

__all__ = ["STRATEGIES", "choose"]

STRATEGIES = {
    "stream": plan_stream,
    "resident": plan_resident,
    "gather": plan_gather,
    "rescan": plan_rescan,
    "spool": plan_spool,
}

SMALL_TASK_BYTES = 3 << 20  # smaller batches are made several a task: a task costs some itself

EPOCHS = ("first", "second", "later")  # that a plan is chosen by


@dataclass(frozen=True)
class _Option:
    strategy: str
    parts: tuple[Part, ...]

    def sum(self, field: str, which: str) -> float:
        return float(sum(getattr(getattr(part, which), field) for part in self.parts))


def choose(
    order: Order,
    layouts: Mapping[str, Layout | RaggedLayout],
    *,
    budget_bytes: int,
    machine: Machine,
    start_batch: int = 0,
    only: Iterable[str] | None = None,
) -> Plan:
    """The cheapest plan that fits.

    Parameters
    ----------
    order
        The epoch's order.
    layouts
        Layout of each source that a batch holds, by name.
    budget_bytes
        Ceiling of everything held.
    machine
        What the machine can do.
    start_batch
        First batch wanted (a resumed epoch).
    only
        Strategies that may be chosen; all of them when None.

    Raises
    ------
    BudgetError
        When no strategy fits; it names what must be held and how much that is.
    """
    allowed = tuple(STRATEGIES if only is None else only)
    arguments = (order, layouts, machine, start_batch, _batch_bytes(order, layouts, start_batch))
    task = _task(budget_bytes, *arguments)
    options: list[_Option] = []
    candidates: list[Candidate] = []
    refusals: list[Infeasible] = []
    for strategy in STRATEGIES:
        if strategy not in allowed:
            candidates.append(Candidate(strategy, why_not="not allowed"))
            continue
        try:
            option = _Option(strategy, _parts(strategy, task))
        except Infeasible as why:
            refusals.append(why)
            candidates.append(Candidate(strategy, why_not=str(why)))
            continue
        options.append(option)
        candidates.append(_candidate(option, task))
    if not options:
        raise _budget_error(task, refusals, lambda n_bytes: _fits(n_bytes, allowed, *arguments))
    if any(option.strategy == "stream" for option in options):
        # A spool would make a decoded copy of what streams anyway: quicker epochs later, but a
        # first batch that waits for all of the file, and scratch that nobody expects of an order
        # that follows the file.
        options = [option for option in options if option.strategy != "spool"]
    best = min(options, key=lambda o: sum(_cost(o, task, which).seconds for which in EPOCHS))
    if best.strategy == "rescan" and not task.exact:
        task = replace(task, exact=True)
        best = _Option("rescan", _parts("rescan", task))
        candidates = [
            _candidate(best, task) if candidate.strategy == "rescan" else candidate
            for candidate in candidates
        ]
    return Plan(
        strategy=best.strategy,
        scheme=order.scheme.name,
        feeds=tuple(part.feed for part in best.parts),
        threads=task.threads,
        batches_ahead=task.batches_ahead,
        batch_group=task.batch_group,
        batch_bytes=task.batch_bytes,
        budget_bytes=budget_bytes,
        common_bytes=task.common_bytes,
        held=_held(best, task),
        predicted=_cost(best, task, "first"),
        second=_cost(best, task, "second"),
        later=_cost(best, task, "later"),
        candidates=tuple(candidates),
        machine=machine,
    )


def _task(
    budget_bytes: int,
    order: Order,
    layouts: Mapping[str, Layout | RaggedLayout],
    machine: Machine,
    start_batch: int,
    batch_bytes: int,
) -> Task:
    """The common share: the order, and the batches being made; what is left is the feeds'."""
    batch_rows = _batch_rows(order)
    order_bytes = order.scheme.order_bytes + (
        0 if order.selection is None else order.selection.nbytes
    )
    group = max(1, min(256, SMALL_TASK_BYTES // batch_bytes))
    ahead = group * (machine.threads + 1)
    share = max(budget_bytes // 6, 1)
    if (ahead + group + 1) * batch_bytes > share:  # one batch is the user's
        group = max(1, min(group, share // (4 * batch_bytes)))
        ahead = max(1, min(ahead, share // batch_bytes - 1 - group))
    return Task(
        order=order,
        everything=dict(layouts),
        machine=machine,
        threads=machine.threads,
        budget_bytes=budget_bytes,
        order_bytes=order_bytes,
        batch_bytes=batch_bytes,
        batch_rows=batch_rows,
        batches_ahead=ahead,
        batch_group=group,
        start=_start(order, start_batch),
        start_batch=start_batch,
    )


def _start(order: Order, start_batch: int) -> int:
    return order.bounds(start_batch)[0] if start_batch < order.n_batches else order.n_positions


def _batch_rows(order: Order) -> int:
    """Rows of the largest batch of any epoch: the short one may come first."""
    return max(min(order.scheme.batch_size, max(order.n_positions, order.scheme.n_rows)), 1)


def _batch_bytes(
    order: Order, layouts: Mapping[str, Layout | RaggedLayout], start_batch: int
) -> int:
    """Bytes of the largest batch of any epoch."""
    n_rows = _batch_rows(order)
    total = 0
    for layout in layouts.values():
        if isinstance(layout, RaggedLayout):
            ends = item_ends(order, layout, _start(order, start_batch))
            items = most_items(order, layout, ends, n_rows)
            total += items * layout.item_bytes + 8 * (n_rows + 1)
        else:
            total += n_rows * layout.row_bytes
    return max(total, n_rows)


def _parts(strategy: str, task: Task) -> tuple[Part, ...]:
    """A part a source: small sources stay resident beside a large one that is gathered, rescanned
    or spooled.
    """
    if task.left_bytes <= 0:
        raise Infeasible("the order and the batches alone do not fit", task.common_bytes)
    if strategy in ("stream", "resident"):
        return _share(strategy, task, list(task.everything), {})
    small: dict[str, Part] = {}
    share = task.left_bytes // 8
    for name in sorted(task.everything, key=lambda name: task.everything[name].decoded_bytes)[:-1]:
        try:
            part = _ask("resident", task, name, share)
        except Infeasible:
            break
        small[name] = part
        share -= part.feed.held_bytes
    return _share(strategy, task, [name for name in task.everything if name not in small], small)


def _share(strategy: str, task: Task, large: list[str], small: dict[str, Part]) -> tuple[Part, ...]:
    """Share what is left among the large sources, by their size."""
    left = task.left_bytes - sum(part.feed.held_bytes for part in small.values())
    in_all = sum(max(task.everything[name].decoded_bytes, 1) for name in large)
    parts = dict(small)
    by_size = sorted(large, key=lambda name: task.everything[name].decoded_bytes)
    for rank, name in enumerate(by_size):
        weight = max(task.everything[name].decoded_bytes, 1)
        # A small source needs a floor of its own: a chunk and a few rows, whatever its share of the
        # bytes.
        share = max(
            left * weight // in_all, min(left // (4 * (len(large) - rank)), _floor(task, name))
        )
        if rank == len(large) - 1:
            share = left
        parts[name] = _planned(strategy, task, name, share, left)
        left -= parts[name].feed.held_bytes
        in_all -= weight
    return tuple(parts[name] for name in task.everything)


def _ask(strategy: str, task: Task, name: str, share: int) -> Part:
    ragged = isinstance(task.everything[name], RaggedLayout)
    return (RAGGED_STRATEGIES if ragged else STRATEGIES)[strategy](task, name, share)


def _planned(strategy: str, task: Task, name: str, share: int, left: int) -> Part:
    """A source's part; where its share is too small for the least of it, that least."""
    try:
        return _ask(strategy, task, name, share)
    except Infeasible as why:
        least = why.needed_bytes - task.common_bytes
        if not share < least <= left:
            raise
        return _ask(strategy, task, name, least)


def _floor(task: Task, name: str) -> int:
    layout = task.everything[name]
    chunk = layout.chunk_bytes + layout.read_overhead_bytes
    return 4 * task.threads * chunk + 2 * task.batch_rows * layout.row_bytes


def _cost(option: _Option, task: Task, which: str) -> Prediction:
    """Parts added up, and what every strategy pays: handing over batches."""
    total = {
        field: int(option.sum(field, which))
        for field in ("read_bytes", "decoded_bytes", "chunks_decoded", "spilled_bytes")
    }
    by_key = option.strategy == "spool" and not task.order_is_held
    ordering = 0.0 if by_key else task.order_seconds
    n_batches = task.order.n_batches - task.start_batch
    n_rows = task.order.n_positions - task.start
    machine = task.machine
    each = machine.batch_seconds + machine.task_seconds / task.batch_group
    for part in option.parts:
        piles = part.feed.kind in ("spool", "ragged spool")
        each += machine.pile_part_seconds if piles else machine.part_seconds
    handing = n_batches * each
    cost = Prediction(
        rows=n_rows,
        held_bytes=sum(part.feed.held_bytes for part in option.parts) + task.common_bytes,
        seconds=option.sum("seconds", which) + handing,
        first_batch_seconds=option.sum("first_batch_seconds", which)
        + (machine.start_seconds if which == "first" else machine.restart_seconds)
        + ordering,
        **total,
    )
    if which == "first":
        return replace(cost, seconds=cost.seconds + ordering)
    return replace(
        cost,
        rows=task.order.n_positions,
        seconds=cost.seconds * (1 if n_batches else 0) + ordering,
    )


def _candidate(option: _Option, task: Task) -> Candidate:
    first, later = _cost(option, task, "first"), _cost(option, task, "later")
    return Candidate(option.strategy, first.seconds, later.seconds)


def _held(option: _Option, task: Task) -> tuple[tuple[str, int], ...]:
    items = [
        ("the order", task.order_bytes),
        ("batches made ahead, and the one in use", task.batches_bytes),
    ]
    items += [
        (f"{part.feed.source}: {what}", n_bytes)
        for part in option.parts
        for what, n_bytes in part.held
    ]
    return tuple(items)


def _fits(
    budget_bytes: int,
    strategies: Iterable[str],
    order: Order,
    layouts: Mapping[str, Layout | RaggedLayout],
    machine: Machine,
    start_batch: int,
    batch_bytes: int,
) -> bool:
    """Whether any of the strategies runs in such a budget."""
    task = _task(budget_bytes, order, layouts, machine, start_batch, batch_bytes)
    for strategy in strategies:
        try:
            _parts(strategy, task)
        except Infeasible:
            continue
        return True
    return False


def _budget_error(
    task: Task, refusals: list[Infeasible], fits: Callable[[int], bool]
) -> BudgetError:
    """What is held at least, and the least budget that will do: found by asking the planner."""
    least = min(
        (why for why in refusals if why.needed_bytes),
        key=lambda why: why.needed_bytes,
        default=None,
    )
    enough = task.budget_bytes
    while least is not None and enough < 1 << 60 and not fits(enough):
        enough += max(enough // 16, 1)
    if least is None or enough >= 1 << 60:
        reasons = "; ".join(sorted({str(why) for why in refusals}))
        return BudgetError(f"no strategy that is allowed can run this order: {reasons}")
    chunk, name = max(
        (layout.chunk_bytes + layout.read_overhead_bytes, name)
        for name, layout in task.everything.items()
    )
    read, give = "what is read at a time", "more memory, or smaller batches"
    if task.everything[name].kind == "chunked":
        read = "the chunk being decoded"
        give = "more memory, smaller batches, or rewrite the file with chunks of fewer rows"
    return BudgetError(
        f"memory={show(task.budget_bytes)} cannot hold a batch of {task.batch_rows} rows "
        f"({show(task.batch_bytes)}, twice: one in use, one being made) and {read} ({show(chunk)} "
        f"of {name!r}): {least}, {show(enough * 17 // 16 + 1)} needed. Give {give}."
    )
