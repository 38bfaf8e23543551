"""BLAS on one thread, while several threads of ours multiply at once.

Else each of their products asks for all cores, and they wait for one another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

LOCK = threading.Lock()
HELD: list[Any] = []  # the limit, and a mark for each thread that wants it


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # it looks through all libraries that are loaded


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS uses one thread; the last that leaves it gives it all of them back.

    It holds for the whole process: what the caller multiplies meanwhile is on one thread, too.
    """
    with LOCK:
        if not HELD:
            HELD.append(_controller().limit(limits=1, user_api="blas"))
        HELD.append(None)
    try:
        yield
    finally:
        with LOCK:
            HELD.pop()
            if len(HELD) == 1:
                HELD.pop().restore_original_limits()
