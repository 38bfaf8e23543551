"""Fixed-size strings that a file pads in another way than NumPy.

HDF5 has three paddings. NumPy's, and h5py's, is NULs to the end. In a *null-terminated* string what
follows the first NUL means nothing and may be anything; a *space-padded* one is filled up with
spaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK_BYTES", "Padding", "pad_with_nuls"]

BLOCK_BYTES = 1 << 18


class Padding(NamedTuple):
    """Where in an item something lies that NumPy has in another way: a string that is padded by
    ``"spaces"`` or by anything after a ``"nul"``, or PyTables' ``"timeval"``.

    A timeval is seconds in the upper and microseconds in the lower half of 64 bits; it becomes
    seconds as float64 (PyTables, ``typeconv.c``).
    """

    offset: int
    size: int
    kind: str


def pad_with_nuls(data: NDArray[np.uint8], itemsize: int, paddings: Iterable[Padding]) -> None:
    r"""Make the strings in `data`, ``(n_items * itemsize,)``, what h5py returns, in place.

    >>> data = np.frombuffer(b"ab\0xyz  ", dtype="u1").copy()
    >>> pad_with_nuls(data, 4, [Padding(0, 4, kind="nul")]); data.tobytes()
    b'ab\x00\x00yz  '
    >>> pad_with_nuls(data, 4, [Padding(0, 4, kind="spaces")]); data.tobytes()
    b'ab\x00\x00yz\x00\x00'
    """
    items = data.reshape(-1, itemsize)
    step = max(1, BLOCK_BYTES // itemsize)  # temporaries are bounded, and stay in the cache
    for first in range(0, len(items), step):
        for padding in paddings:
            text = items[first : first + step, padding.offset : padding.offset + padding.size]
            MEND[padding.kind](text)


def _clear_after_nul(text: NDArray[np.uint8]) -> None:
    ended = np.logical_or.accumulate(text == 0, axis=1)
    text[ended] = 0


def _spaces_to_nuls(text: NDArray[np.uint8]) -> None:
    trailing = np.logical_and.accumulate((text == ord(" "))[:, ::-1], axis=1)[:, ::-1]
    text[trailing] = 0


def _timeval_to_seconds(raw: NDArray[np.uint8]) -> None:
    both = np.ascontiguousarray(raw).view("<i8")
    low = (both & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    seconds = (both >> 32) + 1e-6 * low
    raw[...] = seconds.astype("<f8").view(np.uint8)


MEND = {"nul": _clear_after_nul, "spaces": _spaces_to_nuls, "timeval": _timeval_to_seconds}
