"""The only threads there are.

Tasks start in the order in which they are submitted. So a task may wait for tasks submitted before
it, never for later ones: whatever is running, the oldest of it waits for nothing, and the pool
cannot lock up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from math import prod
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from epochal.errors import SchemeError
from epochal.execute.recycle import Recycler

__all__ = ["Pool", "as_bytes", "have_succeeded", "wait"]

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Some threads, temporary buffers for each of them, and memory of batches to be used again.

    Closing fails what has not started and waits for what has: tasks are short. It does not join
    the threads, which end by themselves: the collector may close a pool on any thread, even within
    the start of another, and `threading` is not re-entrant.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.closed = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="epochal")
        self.batches = Recycler()
        self._local = threading.local()
        self._running = 0
        self._idle = threading.Condition()

    def submit(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on the next free thread."""
        self.check()
        try:
            return self._executor.submit(lambda: self._run(fn, *args, **kwargs))
        except RuntimeError as error:
            if "start new thread" not in str(error):  # closed since, by another thread
                raise CancelledError from error
            raise SchemeError(
                f"threads={self.threads}: the system starts no more of them ({error}); give fewer"
            ) from error

    def check(self) -> None:
        """Raise `CancelledError` once the pool is closed: what a task left undone is no result."""
        if self.closed:
            raise CancelledError

    def _run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._idle:
            self.check()
            self._running += 1
        self._local.mine = True
        try:
            return fn(*args, **kwargs)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def temporary(self, n_bytes: int, which: str = "read") -> NDArray[np.uint8]:
        """This thread's own buffer of that name, at least so large: contents are anybody's, and
        last until the next call.
        """
        buffers: dict[str, NDArray[np.uint8]] = self._local.__dict__.setdefault("buffers", {})
        buffer = buffers.get(which)
        if buffer is None or buffer.nbytes < n_bytes:
            buffers.pop(which, None)
            buffer = None  # freed before its successor is made
            buffer = buffers[which] = np.empty(n_bytes, np.uint8)
        return buffer[:n_bytes]

    def close(self, *, wait: bool = True) -> None:
        """Stop: nothing new starts, and nothing runs any more; without `wait`, soon."""
        with self._idle:
            self.closed = True
        self.batches.clear()
        # What is queued is not cancelled but started, and fails at once: so whoever waits is told.
        self._executor.shutdown(wait=False)
        if wait and not getattr(self._local, "mine", False):
            with self._idle:
                while self._running:
                    self._idle.wait()


def wait(futures: list[Future[Any]]) -> None:
    """Wait for all, or for the first that fails: its error is raised."""
    if not all(future.done() for future in futures):
        futures_wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        if future.done():
            future.result()


def have_succeeded(futures: list[Future[Any]]) -> bool:
    """Whether all are over, and none failed."""
    return all(f.done() and not f.cancelled() and f.exception() is None for f in futures)


def as_bytes(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of C-contiguous rows, ``(n_rows, row_bytes)``, without a copy."""
    assert rows.flags.c_contiguous
    row_bytes = rows.dtype.itemsize * prod(rows.shape[1:])
    if not len(rows) or not row_bytes:
        return np.empty((len(rows), row_bytes), np.uint8)
    return rows.reshape(len(rows), -1).view(np.uint8)
