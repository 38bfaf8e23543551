"""Statistics as what is stored of them."""

from __future__ import annotations

from typing import Any

from epochal.transforms.statistics.base import Statistics, Tally
from epochal.transforms.statistics.covariance import Covariance, Sketch
from epochal.transforms.statistics.moments import Moments

__all__ = ["state_of", "statistics_of"]

KINDS: dict[str, type[Statistics]] = {each.KIND: each for each in (Moments, Covariance, Sketch)}


def state_of(statistics: Statistics) -> dict[str, Any]:
    """What is stored of statistics."""
    tally = statistics.tally
    return {
        "kind": statistics.KIND,
        "n_columns": statistics.n_columns,
        "tally": [tally.n_rows, tally.n_bad, list(tally.bad_rows)],
        "arrays": statistics.arrays(),
    }


def statistics_of(state: dict[str, Any]) -> Statistics:
    """What `state_of` is of."""
    arrays = state["arrays"]
    made = KINDS[state["kind"]].empty(state["n_columns"], arrays)
    n_rows, n_bad, bad_rows = state["tally"]
    made.tally = Tally(n_rows, n_bad, tuple(bad_rows))
    for name, array in arrays.items():
        setattr(made, name, array)
    return made
