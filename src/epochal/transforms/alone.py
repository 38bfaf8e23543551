"""BLAS on one thread, while several threads of ours multiply at once.

Else each of their products asks for all cores, and they wait for one another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeAlias

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

Tasks: TypeAlias = "SimpleQueue[tuple[Callable[[], None], Future[None]]]"


class _Limit:
    """What threads hold together: BLAS is limited while any does.

    threadpoolctl (from 3.8 on) lets one thread at a time have a say in how many OpenBLAS has, and
    whichever of ours leaves last need not be the one that came first. So one thread of its own
    limits, and gives back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limiter: Any = None
        self._tasks: Tasks | None = None
        self.controller: ThreadpoolController | None = None

    def acquire(self) -> None:
        """Limit, unless it is."""
        with self._lock:
            if not self._holders:
                self._run(self._begin)
            self._holders += 1

    def release(self) -> None:
        """Give back, if nobody else holds it."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._run(self._end)

    def _begin(self) -> None:
        if self._limiter is not None:
            return  # an interrupt kept whoever asked from saying so
        if self.controller is None:
            self.controller = ThreadpoolController()  # it looks through all libraries
        before = self._numbers()
        self._limiter = self.controller.limit(limits=1, user_api="blas")
        self._limiter.__enter__()
        if self._numbers() != [1] * len(before) or before == [1] * len(before):
            self._end()  # somebody else has the say, or there is nothing to give back

    def _end(self) -> None:
        if self._limiter is not None:
            self._limiter.__exit__(None, None, None)
            self._limiter = None

    def _numbers(self) -> list[int]:
        assert self.controller is not None
        found = self.controller.info()
        return [each["num_threads"] for each in found if each["user_api"] == "blas"]

    def _run(self, task: Callable[[], None]) -> None:
        """On the thread that has the say."""
        if self._tasks is None:
            self._tasks = SimpleQueue()
            name = "epochal-blas-limit"
            threading.Thread(target=_serve, args=(self._tasks,), name=name, daemon=True).start()
        done: Future[None] = Future()
        self._tasks.put((task, done))
        done.result()

    def after_fork(self) -> None:
        """In the child neither those threads are there, nor whoever held it."""
        limiter = self._limiter
        self.__init__()  # type: ignore[misc]
        if limiter is not None:
            limiter.__exit__(None, None, None)


def _serve(tasks: Tasks) -> None:
    while True:
        task, done = tasks.get()
        try:
            task()
        except BaseException as error:  # which is theirs who asked
            done.set_exception(error)
        else:
            done.set_result(None)


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
