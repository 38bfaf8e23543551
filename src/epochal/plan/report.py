"""A plan and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epochal.plan.page import compare
from epochal.plan.plan import Plan, Prediction

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """A plan and what came of it; prints as one page.

    ``measured`` is None before the first batch.
    """

    plan: Plan
    predicted: Prediction
    measured: Prediction | None

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        measured = None if self.measured is None else vars(self.measured)
        return {**self.plan.as_dict(), "predicted": vars(self.predicted), "measured": measured}

    def __str__(self) -> str:
        page = str(self.plan)
        if self.measured is not None:
            page += "\n\n" + compare(self.predicted, self.measured)
        return page
