"""How many threads read: those that decode, or more where most of them wait for a network."""

from __future__ import annotations

from collections.abc import Mapping

from epochal.layout import Layout, RaggedLayout

__all__ = ["readers"]

BUDGET_PART = 4  # what is being read and decoded takes this part of the budget at most


def readers(layouts: Mapping[str, Layout | RaggedLayout], threads: int, budget_bytes: int) -> int:
    """Threads for sources of which a read keeps a thread waiting: at least `threads`.

    >>> import numpy as np
    >>> near, far = (Layout((9,), np.dtype("u1"), 3, in_flight=n) for n in (1, 16))
    >>> readers({"X": near}, 2, 1 << 20), readers({"X": far}, 2, 1 << 20)
    (2, 4)
    """
    far = [layout for layout in layouts.values() if layout.in_flight > 1 and layout.parallel]
    if not far:
        return threads
    each = max(layout.chunk_bytes + layout.read_overhead_bytes for layout in far)
    in_flight = max(layout.in_flight for layout in far)
    most = min(2 * threads, in_flight)  # while as many wait as decode
    return max(threads, min(most, budget_bytes // BUDGET_PART // max(each, 1)))
