"""BLAS on one thread, while several threads of ours multiply at once.

Else each of their products asks for all cores, and they wait for one another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


class _Limit:
    """What threads hold together: BLAS is limited while any does.

    threadpoolctl (from 3.8 on) lets one thread at a time have a say in how many OpenBLAS has, and
    whichever of ours leaves last need not be the one that came first. So a thread of its own
    limits, waits, and gives back: it lives as long as the limit does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limiter: Any = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._controller: ThreadpoolController | None = None

    def acquire(self) -> None:
        """Limit, unless it is."""
        with self._lock:
            if self._thread is None:
                limited, self._over = threading.Event(), threading.Event()
                arguments, name = (limited, self._over), "epochal-blas-limit"
                self._thread = threading.Thread(
                    target=self._hold, args=arguments, name=name, daemon=True
                )
                self._thread.start()
                limited.wait()
            self._holders += 1

    def release(self) -> None:
        """Give back, if nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if not self._holders and self._thread is not None:
                self._over.set()
                self._thread.join()
                self._thread = None

    def _hold(self, limited: threading.Event, over: threading.Event) -> None:
        try:
            self._begin()
        finally:
            limited.set()
        over.wait()
        self._end()

    def _begin(self) -> None:
        if self._controller is None:
            self._controller = ThreadpoolController()  # it looks through all libraries
        before = self._numbers()
        self._limiter = self._controller.limit(limits=1, user_api="blas")
        self._limiter.__enter__()
        if self._numbers() != [1] * len(before) or before == [1] * len(before):
            self._end()  # somebody else has the say, or there is nothing to give back

    def _end(self) -> None:
        if self._limiter is not None:
            self._limiter.__exit__(None, None, None)
            self._limiter = None

    def _numbers(self) -> list[int]:
        assert self._controller is not None
        found = self._controller.info()
        return [each["num_threads"] for each in found if each["user_api"] == "blas"]

    def after_fork(self) -> None:
        """In the child neither that thread is there, nor whoever held it."""
        limiter = self._limiter
        self.__init__()  # type: ignore[misc]
        if limiter is not None:
            limiter.__exit__(None, None, None)


LIMIT = _Limit()
os.register_at_fork(after_in_child=LIMIT.after_fork)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS uses one thread; the last that leaves it gives it all of them back.

    It holds for the whole process: what the caller multiplies meanwhile is on one thread, too.
    Where another library has limited BLAS already, that stands.
    """
    LIMIT.acquire()
    try:
        yield
    finally:
        LIMIT.release()
