"""Many reads by one call of the system (Linux).

A row that lies alone is a read of its own. In Python that is a call, and a hand-over of the
interpreter's lock, for each row; ``io_submit(2)`` takes a list of reads, which NumPy makes. The
kernel carries them out one after another before it returns, for they go through the page cache.
What is in it already comes by ``io_uring`` with less ado (`ring.py`).
What a read brings may also be scattered over many places, as ``preadv`` does it.
Where there is no such call (other systems, or a sandbox that forbids it), none of them is done.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.stores.ring import ENTRIES, MOST_BYTES, ring_here

__all__ = ["submit", "submit_vectors", "submit_waiting"]

AT_ONCE = 256
CALL_BYTES = 64 << 20  # and no more by one call: nothing stops it
SYSTEM_CALLS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}  # io_setup, _submit, _getevents
PREAD, PREADV = 0, 7
# struct iocb and struct io_event of linux/aio_abi.h. For PREADV, `buffer` is an array of struct
# iovec, and `n_bytes` how many there are. `data` comes back with the event: here, what is wanted.
IOCB = np.dtype(
    {
        "names": ["data", "operation", "fd", "buffer", "n_bytes", "offset"],
        "formats": ["i8", "u2", "u4", "u8", "u8", "i8"],
        "offsets": [0, 16, 20, 24, 32, 40],
        "itemsize": 64,
    }
)
EVENT = np.dtype([("data", "i8"), ("iocb", "u8"), ("result", "i8"), ("more", "i8")])


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

    def room(self, n: int) -> NDArray[np.void]:
        """Room for `n` reads, at most `AT_ONCE`, to be filled before `run`."""
        return self._reads[:n]

    def run(self, n: int) -> bool:
        """Carry out the reads in `room`; False where one of them did not bring all its bytes."""
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
                events = self._events[:got]
                good = good and bool((events["result"] == events["data"]).all())
                done += got
        return good


# Queues that nobody uses, by process: a fork has none of its parent's. They last as long as it.
_idle: dict[int, deque[_Queue]] = {}


def submit(
    fd: int | NDArray[np.int64],
    offsets: NDArray[np.int64],
    addresses: NDArray[np.uint64],
    n_bytes: int,
) -> int:
    """Read `n_bytes` from each offset of a file, or of the file beside it, to the address beside
    it; how many of the first reads are known to be done. The rest is the caller's to read by other
    means, and so are its errors.

    Costs about 10 ns a read beside what the kernel does; holds some kilobytes a thread.
    """
    ring = ring_here() if n_bytes <= MOST_BYTES else None
    if ring is None:
        return submit_waiting(fd, offsets, addresses, n_bytes)
    step = max(1, min(ENTRIES, CALL_BYTES // max(n_bytes, 1)))
    for start in range(0, len(offsets), step):
        some = slice(start, start + step)
        if not ring.works:
            rest = slice(start, None)
            return start + submit_waiting(_of(fd, rest), offsets[rest], addresses[rest], n_bytes)
        whole = ring.read(_of(fd, some), offsets[some], addresses[some], n_bytes)
        if whole.all():
            continue
        left = np.flatnonzero(~whole) + start
        if submit_waiting(_of(fd, left), offsets[left], addresses[left], n_bytes) < len(left):
            return start
    return len(offsets)


def _of(fd: int | NDArray[np.int64], some: slice | NDArray[np.int64]) -> int | NDArray[np.int64]:
    return fd if isinstance(fd, int) else fd[some]


def submit_waiting(
    fd: int | NDArray[np.int64],
    offsets: NDArray[np.int64],
    addresses: NDArray[np.uint64],
    n_bytes: int,
    due: NDArray[np.int64] | None = None,
) -> int:
    """The same by the calls that wait for what is not in the page cache. `due`: how many bytes each
    read is to bring, where files end before `n_bytes`.
    """

    def fill(reads: NDArray[np.void], some: slice) -> None:
        reads["operation"], reads["fd"] = PREAD, _of(fd, some)
        reads["n_bytes"] = n_bytes
        reads["data"] = n_bytes if due is None else due[some]
        reads["offset"], reads["buffer"] = offsets[some], addresses[some]

    return _submit(len(offsets), fill)


def submit_vectors(
    fds: NDArray[np.int64],
    offsets: NDArray[np.int64],
    vectors: NDArray[np.uint64],
    counts: NDArray[np.int64],
    n_bytes: NDArray[np.int64],
) -> int:
    """Read from each offset of the file beside it to ``counts[i]`` pieces of memory, of
    ``n_bytes[i]`` bytes together, whose ``struct iovec`` are at the address ``vectors[i]``. Returns
    what `submit` does. The kernel takes 1024 pieces a read.
    """

    def fill(reads: NDArray[np.void], some: slice) -> None:
        reads["data"], reads["operation"], reads["fd"] = n_bytes[some], PREADV, fds[some]
        reads["offset"], reads["buffer"] = offsets[some], vectors[some]
        reads["n_bytes"] = counts[some]

    return _submit(len(offsets), fill)


def _submit(n: int, fill: Callable[[NDArray[np.void], slice], None]) -> int:
    """Carry out `n` reads, which `fill` writes down some at a time; how many are done for sure."""
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
        for start in range(0, n, AT_ONCE):
            stop = min(start + AT_ONCE, n)
            fill(queue.room(stop - start), slice(start, stop))
            if not queue.run(stop - start):
                break
            done = stop
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
