"""The page that explains a plan, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from epochal.sizes import show

if TYPE_CHECKING:  # plans print themselves through this page
    from epochal.plan.plan import Candidate, FeedPlan, Plan, Prediction

__all__ = ["compare", "page"]

WHAT = {
    "stream": "each chunk is read and decoded once, in order",
    "resident": "everything is decoded into memory once; later epochs read memory only",
    "gather": "single rows are read, in file order as far as that is worth while",
    "rescan": "the file is decoded once for every window of the order that fits the budget",
    "spool": "each chunk is decoded once; rows are dealt into piles, and piles served in order",
}


def page(plan: Plan) -> str:
    """Some twenty lines of text: the strategy, the budget, what will be read, and what else was
    weighed.
    """
    lines = [f"{plan.scheme}: {plan.strategy} - {WHAT[plan.strategy]}", ""]
    lines += _table(("source", "comes by"), [(feed.source, _feed(feed)) for feed in plan.feeds])
    lines += ["", f"held, of {show(plan.budget_bytes)} allowed"]
    lines += _table((), [(f"  {what}", show(n_bytes)) for what, n_bytes in plan.held if n_bytes])
    lines += [f"  in all  {show(plan.predicted.held_bytes)}", ""]
    lines += _table(("predicted", "this epoch", "the next", "each later one"), _epochs(plan))
    lines += ["", "weighed"]
    lines += _table((), [(f"  {c.strategy}", _cost(c)) for c in plan.candidates])
    return "\n".join(lines)


def compare(predicted: Prediction, measured: Prediction) -> str:
    """Predicted beside measured."""
    rows = [
        (what, a, b) for (what, a), (_, b) in zip(_facts(predicted), _facts(measured), strict=True)
    ]
    return "\n".join(_table(("", "predicted", "measured"), rows))


def _epochs(plan: Plan) -> list[tuple[str, ...]]:
    first, second, later = map(_facts, (plan.predicted, plan.second, plan.later))
    return [(what, a, b, c) for (what, a), (_, b), (_, c) in zip(first, second, later, strict=True)]


def _facts(p: Prediction) -> list[tuple[str, str]]:
    return [
        ("rows", f"{p.rows:,}"),
        ("bytes read", show(p.read_bytes)),
        ("bytes decoded", show(p.decoded_bytes)),
        ("chunks decoded", f"{p.chunks_decoded:,}"),
        ("bytes spilled", show(p.spilled_bytes)),
        ("bytes held", show(p.held_bytes)),
        ("seconds", f"{p.seconds:.3g}"),
        ("seconds to the first batch", f"{p.first_batch_seconds:.3g}"),
    ]


def _feed(feed: FeedPlan) -> str:
    if feed.kind == "resident":
        return "memory"
    if feed.kind == "ragged resident":
        return "memory"
    if feed.kind == "ragged stream":
        return f"runs of {feed.run_items:,} items"
    if feed.kind == "ragged window":
        return f"windows of {feed.window_items:,} items"
    if feed.kind == "direct":
        how = ", past the page cache" if feed.uncached else ""
        how = ", while the page cache reads all of the file" if feed.loads else how
        return f"rows alone, straight into batches{how}"
    if feed.kind in ("stream", "window"):
        unit = "rows alone" if feed.alone else "whole chunks"
        return f"windows of {feed.window_rows:,} rows, {unit}"
    return f"{feed.n_piles:,} piles, {feed.piles_kept:,} of them in memory, the rest on scratch"


def _cost(candidate: Candidate) -> str:
    if candidate.seconds is None:
        return candidate.why_not
    return f"{candidate.seconds:.3g} s, then {candidate.later_seconds:.3g} s an epoch"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    table = [head, *rows] if head else rows
    if not table:
        return []
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
