"""Many small reads by one call of the system (Linux).

A row that lies alone is a read of its own. In Python that is a call, and a hand-over of the
interpreter's lock, for each row; ``io_submit(2)`` takes a list of reads, which NumPy makes. The
kernel carries them out one after another before it returns, for they go through the page cache.
Where there is no such call (other systems, or a sandbox that forbids it), none of them is done.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["submit"]

AT_ONCE = 128
SYSTEM_CALLS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}  # io_setup, _submit, _getevents
# struct iocb and struct io_event of linux/aio_abi.h, of which 0 is the operation "pread".
IOCB = np.dtype(
    {
        "names": ["operation", "fd", "buffer", "n_bytes", "offset"],
        "formats": ["u2", "u4", "u8", "u8", "i8"],
        "offsets": [16, 20, 24, 32, 40],
        "itemsize": 64,
    }
)
EVENT = np.dtype([("data", "u8"), ("iocb", "u8"), ("result", "i8"), ("more", "i8")])


class _Calls(NamedTuple):
    setup: Any
    submit: Any
    events: Any


class _Queue:
    """A context of the kernel's, and room for as many reads as it takes. One thread at a time."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        context = ctypes.c_ulong(0)
        self.works = calls.setup(AT_ONCE, ctypes.byref(context)) == 0
        self._context = context.value
        self._reads = np.zeros(AT_ONCE, IOCB)
        self._pointers = self._reads.ctypes.data + 64 * np.arange(AT_ONCE, dtype=np.uint64)
        self._events = np.zeros(AT_ONCE, EVENT)

    def run(
        self, fd: int, offsets: NDArray[np.int64], addresses: NDArray[np.uint64], n_bytes: int
    ) -> bool:
        """Carry out up to `AT_ONCE` reads; False where one of them did not bring all its bytes."""
        n = len(offsets)
        reads = self._reads[:n]
        reads["fd"], reads["n_bytes"] = fd, n_bytes
        reads["offset"], reads["buffer"] = offsets, addresses
        taken = 0
        while taken < n:
            pointers = self._pointers.ctypes.data + 8 * taken
            got = self._calls.submit(self._context, n - taken, pointers)
            if got <= 0:
                break
            taken += got
        done, good = 0, taken == n
        while done < taken:  # buffers are the kernel's until each read was heard of
            got = self._calls.events(
                self._context, taken - done, taken - done, self._events.ctypes.data, None
            )
            if got > 0:
                good = good and bool((self._events["result"][:got] == n_bytes).all())
                done += got
        return good


# Queues that nobody uses, by process: a fork has none of its parent's. They last as long as it.
_idle: dict[int, deque[_Queue]] = {}


def submit(fd: int, offsets: NDArray[np.int64], addresses: NDArray[np.uint64], n_bytes: int) -> int:
    """Read `n_bytes` from each offset to the address beside it; how many of the first reads are
    known to be done. The rest is the caller's to read by other means, and so are its errors.

    Costs about 10 ns a read beside what the kernel does; holds some kilobytes a thread.
    """
    calls = _calls()
    if calls is None:
        return 0
    idle = _idle.setdefault(os.getpid(), deque())
    try:
        queue = idle.pop()
    except IndexError:
        queue = _Queue(calls)
    done = 0
    if queue.works:
        for start in range(0, len(offsets), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            if not queue.run(fd, offsets[some], addresses[some], n_bytes):
                break
            done = min(start + AT_ONCE, len(offsets))
        idle.append(queue)
    return done


@cache
def _calls() -> _Calls | None:
    numbers = SYSTEM_CALLS.get(platform.machine()) if platform.system() == "Linux" else None
    if numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    pointer, long, context = ctypes.c_void_p, ctypes.c_long, ctypes.c_ulong
    setup, submit, events = numbers
    return _Calls(
        _call(setup, [long, pointer]),
        _call(submit, [context, long, pointer]),
        _call(events, [context, long, long, pointer, pointer]),
    )


def _call(number: int, kinds: list[Any]) -> Any:
    """A system call as a function, which lets go of the interpreter's lock."""
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes, function.restype = [ctypes.c_long, *kinds], ctypes.c_long
    return lambda *arguments: function(number, *arguments)
