"""Reads of what the page cache holds, many by one call of ``io_uring`` (Linux 5.6 and later).

A read costs less so than by ``io_submit``. Reads are asked not to wait (``RWF_NOWAIT``), so
that each of them is over when the call returns: no buffer is the kernel's afterwards, whatever
interrupts us. What is not in the page cache is not read. Many sandboxes forbid these calls; the
caller has others.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
from contextlib import suppress
from errno import EINVAL, EOPNOTSUPP
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENTRIES", "MOST_BYTES", "Ring", "ring_here"]

ENTRIES = 1024
SETUP, ENTER = 425, 426  # the same on all machines
# Of linux/io_uring.h. One thread submits, and completes its own reads when it asks for them.
SINGLE_ISSUER, DEFER_TASKRUN = 1 << 12, 1 << 13
SINGLE_MMAP = 1
GETEVENTS = 1
OP_READ = 22
RWF_NOWAIT = 8
SQES_OFFSET = 0x10000000
MOST_BYTES = 1 << 30
WORD = 0xFFFFFFFF
FIELDS = ("head", "tail", "mask", "entries")
PARAMS = np.dtype(
    [
        ("sq_entries", "u4"),
        ("cq_entries", "u4"),
        ("flags", "u4"),
        ("unused", "u4", 2),
        ("features", "u4"),
        ("more", "u4", 4),
        ("sq", [(name, "u4") for name in (*FIELDS, "flags", "dropped", "array", "a", "b", "c")]),
        ("cq", [(name, "u4") for name in (*FIELDS, "overflow", "cqes", "flags", "a", "b", "c")]),
    ]
)
SQE = np.dtype(
    {
        "names": ["opcode", "fd", "offset", "address", "n_bytes", "rw_flags", "data"],
        "formats": ["u1", "i4", "i8", "u8", "u4", "u4", "i8"],
        "offsets": [0, 4, 8, 16, 24, 28, 32],
        "itemsize": 64,
    }
)
CQE = np.dtype([("data", "i8"), ("result", "i4"), ("flags", "u4")])


class Ring:
    """One thread's ring, in which reads go to the kernel and their results come back. Holds
    about 100 KiB, for the kernel.

    Raises
    ------
    OSError
        The system has none, or forbids it.
    """

    def __init__(self) -> None:
        self.works = True
        params = np.zeros(1, PARAMS)
        fd = -1
        for flags in (SINGLE_ISSUER | DEFER_TASKRUN, 0):
            params["flags"] = flags
            fd = _call(SETUP, ENTRIES, params.ctypes.data)
            if fd >= 0 or ctypes.get_errno() != EINVAL:
                break
        if fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        self._fd = fd
        facts = params[0]
        if not facts["features"] & SINGLE_MMAP:
            raise OSError(EINVAL, "an io_uring of two maps")
        sq, cq = facts["sq"], facts["cq"]
        n_bytes = max(
            int(sq["array"]) + 4 * int(facts["sq_entries"]),
            int(cq["cqes"]) + CQE.itemsize * int(facts["cq_entries"]),
        )
        rings = _mapped(fd, n_bytes, 0)
        words = rings[: n_bytes // 4 * 4].view(np.uint32)
        self._reads = _mapped(fd, SQE.itemsize * int(facts["sq_entries"]), SQES_OFFSET).view(SQE)
        self._reads["opcode"], self._reads["rw_flags"] = OP_READ, RWF_NOWAIT
        self._reads["data"] = np.arange(len(self._reads))
        words[int(sq["array"]) // 4 :][: len(self._reads)] = np.arange(len(self._reads))
        self._tail = words[int(sq["tail"]) // 4 :][:1]
        self._cq_head = words[int(cq["head"]) // 4 :][:1]
        self._cq_tail = words[int(cq["tail"]) // 4 :][:1]
        at = int(cq["cqes"])
        results = rings[at : at + CQE.itemsize * int(facts["cq_entries"])].view(CQE)
        self._result_of, self._result = results["data"], results["result"]
        self._offset, self._address = self._reads["offset"], self._reads["address"]
        self._fds = self._reads["fd"]
        self._of = (-1, -1)

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)

    def read(
        self,
        fd: int | NDArray[np.int64],
        offsets: NDArray[np.int64],
        addresses: NDArray[np.uint64],
        n_bytes: int,
    ) -> NDArray[np.bool_]:
        """Read `n_bytes` from each offset of a file, or of the file beside it, to the address
        beside it, at most `ENTRIES` of them: which of them came whole, ``(n,)``.
        """
        n = len(offsets)
        assert n <= ENTRIES
        assert n_bytes <= MOST_BYTES
        tail = int(self._tail[0])
        slots = _places(tail, n, len(self._reads))
        if not isinstance(fd, int):
            self._fds[slots], self._reads["n_bytes"] = fd, n_bytes
            self._of = (-1, -1)
        elif self._of != (fd, n_bytes):
            self._fds[:], self._reads["n_bytes"] = fd, n_bytes
            self._of = (fd, n_bytes)
        self._offset[slots], self._address[slots] = offsets, addresses
        self._tail[0] = (tail + n) & WORD
        taken = _call(ENTER, self._fd, n, n, GETEVENTS, 0, 0)
        if taken != n:  # what it has not taken would be taken the next time: there is none
            self.works = False
        head = int(self._cq_head[0])
        there = (int(self._cq_tail[0]) - head) & WORD
        places = _places(head, there, len(self._result))
        results = self._result[places]
        good = results == n_bytes
        whole = good if there == n and good.all() else np.zeros(n, np.bool_)
        if whole is not good:
            whole[(self._result_of[places] - tail) % len(self._reads)] = good
        self._cq_head[0] = (head + there) & WORD
        if there and results[0] in (-EOPNOTSUPP, -EINVAL):
            self.works = False  # a file system, or a system, that cannot read without waiting
        return whole


def _places(start: int, n: int, size: int) -> slice | NDArray[np.int64]:
    """`n` places of a ring from one on, counted without end."""
    first = start % size
    if first + n <= size:
        return slice(first, first + n)
    return (first + np.arange(n)) % size


_rings = threading.local()


def ring_here() -> Ring | None:
    """This thread's ring; None where there is none that works. It goes with the thread."""
    pid, ring = getattr(_rings, "mine", (0, None))
    if pid != os.getpid():  # a fork must leave its parent's alone
        ring = None
        with suppress(OSError):
            ring = Ring() if _allowed() else None
        _rings.mine = os.getpid(), ring
    return ring if ring is not None and ring.works else None


@cache
def _allowed() -> bool:
    """Whether the system gives rings at all: it is asked once."""
    if platform.system() != "Linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    try:
        Ring()
    except OSError:
        return False
    return True


def _mapped(fd: int, n_bytes: int, offset: int) -> NDArray[np.uint8]:
    pages = mmap.mmap(fd, n_bytes, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset)
    return np.frombuffer(pages, np.uint8)


def _call(number: int, *arguments: int) -> int:
    """A system call, without the interpreter's lock."""
    return int(_function()(number, *map(ctypes.c_long, arguments)))


@cache
def _function() -> Any:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = [ctypes.c_long]
    function.restype = ctypes.c_long
    return function
