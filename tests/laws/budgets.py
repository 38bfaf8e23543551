"""About the least memory that something runs in."""

import re
from collections.abc import Callable

from epochal import sizes
from epochal.batches import Batches
from epochal.errors import BudgetError


def feasible(make: Callable[[int], Batches], budget_bytes: int) -> tuple[int, Batches]:
    """Batches within a budget, or within what its refusal says is needed; and the budget."""
    while True:
        batches = make(budget_bytes)
        try:
            batches.plan  # noqa: B018
        except BudgetError as error:
            named = re.findall(r"([\d.]+ (?:B|[KMG]iB)) needed", str(error))
            if not named:  # no memory would do: a mistake of the test
                raise
            budget_bytes = max(sizes.parse(named[0]), budget_bytes * 33 // 32)
            continue
        return budget_bytes, batches
