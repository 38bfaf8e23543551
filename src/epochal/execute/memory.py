"""Memory for large arrays that goes back to the system as soon as they are gone.

What the C library allocates may stay with the process when it is freed, in between what is still
used; a budget of the whole process cannot have that.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGE_BYTES", "fresh"]

LARGE_BYTES = 128 << 10  # smaller ones are the C library's


def fresh(n_bytes: int) -> NDArray[np.uint8]:
    """Bytes that nobody else has, ``(n_bytes,)``, with anything in them."""
    if n_bytes < LARGE_BYTES or sys.platform == "win32":
        return np.empty(n_bytes, np.uint8)
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without
            pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does: fewer faults
    return np.frombuffer(pages, np.uint8)
