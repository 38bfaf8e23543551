"""Memory of batches that nobody has any more, for batches to come.

The C library gives large arrays that are freed back to the system, and the next ones come back as
pages that the kernel must find and clear, one fault each: that takes as long as it does to fill
them. Here memory is used again, once no array looks at it any more.
"""

from __future__ import annotations

import weakref
from collections import deque
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from epochal.execute.memory import LARGE_BYTES, fresh

__all__ = ["Recycler"]

LEAST_BYTES = LARGE_BYTES


def _class_of(n_bytes: int) -> int:
    """Arrays of varying length have memory of a few sizes: up to an eighth too much, which nobody
    touches.

    >>> [_class_of(n) for n in (1, 8, 1000, 1024, 1025, 1200)]
    [1, 8, 1024, 1024, 1152, 1280]
    """
    step = max(1 << (max(n_bytes - 1, 1).bit_length() - 4), 1) if n_bytes > 16 else 1
    return -(-n_bytes // step) * step


class Recycler:
    """Arrays whose memory comes back when they and all views of them are gone.

    One thread asks for arrays; any thread may let go of them. What is idle is never more than
    `idle_bytes`, and never more than was in use at some time.
    """

    def __init__(self, idle_bytes: int = 0) -> None:
        self.idle_bytes = idle_bytes
        self._idle: dict[int, deque[NDArray[np.uint8]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with anything in it, which is whose it is until it is let go of."""
        dtype = np.dtype(dtype)
        n_bytes = prod(shape) * dtype.itemsize
        if not LEAST_BYTES <= n_bytes <= self.idle_bytes:
            return np.empty(shape, dtype)
        size = _class_of(n_bytes)
        try:
            memory = self._idle.setdefault(size, deque()).pop()  # the latest: perhaps in a cache
        except IndexError:
            self._let_go(self._idle_now() - size)  # what is idle and does not fit makes room
            memory = fresh(size)
        # An array that owns nothing, over a memoryview: NumPy makes it the base of all its views,
        # so it lives as long as any of them. It is what is watched.
        watched = np.frombuffer(memory.data, np.uint8, n_bytes)
        weakref.finalize(watched, self._take_back, memory).atexit = False
        return watched.view(dtype).reshape(shape)

    def _take_back(self, memory: NDArray[np.uint8]) -> None:
        """Called by whoever lets go, on any thread: no locks."""
        idle = self._idle.get(memory.nbytes)
        if idle is not None and self._idle_now() + memory.nbytes <= self.idle_bytes:
            idle.append(memory)

    def _idle_now(self) -> int:
        return sum(len(idle) * size for size, idle in list(self._idle.items()))

    def _let_go(self, keep_bytes: int) -> None:
        """Let go of idle memory until there is no more than so much of it."""
        while self._idle_now() > max(keep_bytes, 0):
            idle = max(self._idle.items(), key=lambda item: len(item[1]) * item[0])[1]
            try:
                idle.popleft()
            except IndexError:
                break

    def keep_idle(self, n_bytes: int) -> None:
        """Keep no more than so much from now on."""
        self.idle_bytes = n_bytes
        self._let_go(n_bytes)

    def clear(self) -> None:
        """Let go of what is idle; what comes back later is let go of, too."""
        self._idle = {}
        self.idle_bytes = 0
