"""Threads that wait for a network: they last as long as a call of a store, and decode nothing.

What a store reads from afar within one call it asks for at once, whoever calls it and from whatever
thread: while a file is opened there is no engine yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["together"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(
    function: Callable[[Item], Result], items: Sequence[Item], in_flight: int
) -> list[Result]:
    """What a function returns for each item, with so many of its requests under way at once."""
    if in_flight <= 1 or len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(in_flight, len(items)), thread_name_prefix="epochal") as pool:
        return list(pool.map(function, items))
