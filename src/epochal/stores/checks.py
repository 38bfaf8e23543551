"""Checksums of neighbouring pieces compared in one call.

A sum a piece is a call a piece, and a call that lets other threads run costs more than the sum of
some KiB: both threads wait for the interpreter's lock. So neighbours that were read together are
compared together. With ``C(k)`` the CRC-32 of the pieces before `k` one after another, the run of
pieces ``[i, j)`` is right when its sum, begun with ``C(i)``, is ``C(j)``. ``C`` follows from the
sums of the pieces, since appending `n` bytes multiplies a CRC by ``x**(8 * n)`` modulo its
polynomial (as ``crc32_combine`` of zlib does, by M. Adler). One damaged piece never passes; several
in one run pass together once in ``2**32``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.stores.codecs import Bytes
from epochal.stores.manifest import crc32, differs

__all__ = ["Checks"]

BLOCK_PIECES = 1 << 14  # whose sums are combined at once
FEW = 4  # pieces, of which each is compared by itself

POLYNOMIAL = np.uint32(0xEDB88320)  # of zlib, the highest power of x in the lowest bit
ONE = np.uint32(0x80000000)
ORDER = (1 << 32) - 1  # x to this is one: the polynomial is primitive

Words = NDArray[np.uint32]


class Checks:
    """What the pieces of one source were when they were written.

    Threads share it. Holds 4 bytes a piece more than `sums`, once pieces are read in runs.

    Parameters
    ----------
    sums
        CRC-32 of each piece, ``(n_pieces,)`` uint32.
    sizes
        Stored bytes of each piece, ``(n_pieces,)``.
    """

    def __init__(self, sums: Words, sizes: NDArray[Any]) -> None:
        self._sums, self._sizes = sums, sizes
        self._before: dict[int, Words] = {}
        self._lock = threading.Lock()

    def wrong(
        self, first: int, data: Bytes, starts: Sequence[int], sizes: Sequence[int]
    ) -> tuple[int, str] | None:
        """The first of some pieces in a row that is not what it was, and what is wrong with it.

        Parameters
        ----------
        first
            Number of the first piece.
        data
            Bytes that hold them all.
        starts, sizes
            Where in `data` each lies.
        """
        done, n = 0, len(starts)
        while done < n:
            at = first + done
            stop = min(n, done + BLOCK_PIECES - at % BLOCK_PIECES)
            if stop - done < FEW or not self._right(at, data, starts[done:stop], sizes[done:stop]):
                for k in range(done, stop):
                    what = self.wrong_piece(first + k, data[starts[k] : starts[k] + sizes[k]])
                    if what is not None:
                        return first + k, what
            done = stop
        return None

    def wrong_piece(self, piece: int, stored: Bytes, before: int = 0) -> str | None:
        """What is wrong with one piece; with its rest, where `before` is the sum of its start."""
        found, due = crc32(stored, before), int(self._sums[piece])
        return differs(found, due) if found != due else None

    def _right(self, first: int, data: Bytes, starts: Sequence[int], sizes: Sequence[int]) -> bool:
        sums = self._sums_before(first // BLOCK_PIECES)
        at = first % BLOCK_PIECES
        total = int(sums[at])
        begin = end = starts[0]
        for start, size in zip(starts, sizes, strict=True):
            if start != end:
                total = crc32(data[begin:end], total)
                begin = start
            end = start + size
        return crc32(data[begin:end], total) == int(sums[at + len(starts)])

    def _sums_before(self, block: int) -> Words:
        with self._lock:
            if block not in self._before:
                pieces = slice(block * BLOCK_PIECES, (block + 1) * BLOCK_PIECES)
                self._before[block] = running(self._sums[pieces], self._sizes[pieces])
            return self._before[block]


def running(sums: Words, sizes: NDArray[Any]) -> Words:
    """CRC-32 of the first 0, 1, ... n pieces one after another, ``(n + 1,)``.

    >>> parts = [b"one", b"", b"two"]
    >>> found = running(np.array([crc32(p) for p in parts], "u4"), np.array([3, 0, 3]))
    >>> int(found[3]) == crc32(b"onetwo")
    True
    """
    # C(k + 1) = C(k) * x**(8 n) + S(k); times x to minus all bits so far, that is a plain sum.
    bits = np.cumsum(np.asarray(sizes, np.int64) * 8) % ORDER
    scaled = np.bitwise_xor.accumulate(_times(sums, _power((ORDER - bits) % ORDER)))
    return np.concatenate([np.zeros(1, np.uint32), _times(scaled, _power(bits))])


def _times(a: Words, b: Words) -> Words:
    """The product of polynomials over GF(2), modulo that of the CRC, item by item."""
    b = b.copy()
    product = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.uint32)
    for bit in range(31, -1, -1):
        product ^= b * ((a >> np.uint32(bit)) & np.uint32(1))
        b = (b >> np.uint32(1)) ^ (POLYNOMIAL * (b & np.uint32(1)))
    return product


def _power(exponents: NDArray[np.int64]) -> Words:
    """``x**e`` for each of some `e` below `ORDER`."""
    low, high = _powers()
    return _times(low[exponents & 0xFFFF], high[exponents >> 16])


@cache
def _powers() -> tuple[Words, Words]:
    """``x**k`` and ``x**(65536 * k)`` for `k` up to 65535."""
    tables = []
    step = np.array([0x40000000], np.uint32)  # x
    for _ in range(2):
        table = np.array([ONE])
        for _ in range(16):
            table = np.concatenate([table, _times(table, step)])
            step = _times(step, step)
        tables.append(table)
    return tables[0], tables[1]
