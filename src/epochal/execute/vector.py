"""Pieces of memory written or read by one call of the system, which gathers them where they lie.

To sort rows in memory before they are written, or after they are read, is a copy of all of them,
with a miss of the cache a row; ``pwritev`` and ``preadv`` copy them once, and their vector is made
by NumPy, not piece by piece in Python.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["IOV_MAX", "Vector", "left_of", "read_vector", "scattered", "vector_of", "write_vector"]

IOV_MAX = 1024

Vector = NDArray[np.uint64]
"""Address and length of each piece, ``(n_pieces, 2)``: ``struct iovec``. Good for as long as what
it points to is held.
"""


def vector_of(
    array: NDArray[np.uint8], begins: NDArray[np.int64], n_bytes: NDArray[np.int64] | int
) -> Vector:
    """The pieces ``array[begins[i] : begins[i] + n_bytes[i]]`` of bytes, those of length 0 left
    out. Holds 16 bytes a piece.
    """
    vector = np.empty((len(begins), 2), dtype=np.uint64)
    vector[:, 0] = begins
    vector[:, 0] += np.uint64(array.ctypes.data)
    vector[:, 1] = n_bytes
    return vector[vector[:, 1] > 0] if np.any(vector[:, 1] == 0) else vector


def scattered(
    ends: NDArray[np.int64], cuts: NDArray[np.int64], addresses: NDArray[np.uint64]
) -> tuple[Vector, NDArray[np.int64]]:
    """Pieces of memory for rows of varying length that lie one after another in a stream of bytes,
    which itself lies in segments.

    Parameters
    ----------
    ends
        Where each row ends in the stream, ``(n_rows,)``.
    cuts
        Where each segment ends in it, rising, ``(n_segments,)``; the last is the end of the stream.
    addresses
        Where in memory each row begins, ``(n_rows,)``.

    Returns
    -------
    The pieces, and how many of them each segment has, ``(n_segments,)``: a row that a segment ends
    and the next begins is two.

    >>> pieces, counts = scattered(np.array([5, 5, 9]), np.array([3, 9]), np.array([100, 0, 200]))
    >>> pieces.tolist(), counts.tolist()
    ([[100, 3], [103, 2], [200, 4]], [1, 2])
    """
    edges = np.union1d(ends, cuts)
    starts = np.concatenate([[0], edges[:-1]])
    lengths = edges - starts
    some = lengths > 0
    starts, lengths = starts[some], lengths[some]
    rows = np.searchsorted(ends, starts, "right")
    begins = np.concatenate([[0], ends[:-1]])[rows]
    pieces = np.empty((len(starts), 2), dtype=np.uint64)
    pieces[:, 0] = addresses[rows]
    pieces[:, 0] += (starts - begins).view(np.uint64)
    pieces[:, 1] = lengths
    reached = np.searchsorted(starts, cuts)
    return pieces, np.diff(reached, prepend=0)


def write_vector(fd: int, vector: Vector, at: int) -> int:
    """Write up to `IOV_MAX` pieces at a position; how many bytes were taken, which may be fewer
    than they have. Raises `OSError`.
    """
    return _move(_call("pwritev"), fd, vector, at)


def read_vector(fd: int, vector: Vector, at: int) -> int:
    """Fill up to `IOV_MAX` pieces from a position; how many bytes there were, which may be fewer
    than they have room for. Raises `OSError`.
    """
    return _move(_call("preadv"), fd, vector, at)


def _move(call: Callable[[int, int, int, int], int], fd: int, vector: Vector, at: int) -> int:
    assert vector.flags.c_contiguous
    assert ctypes.sizeof(ctypes.c_void_p) == vector.itemsize
    moved = call(fd, vector.ctypes.data, min(len(vector), IOV_MAX), at)
    if moved < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return moved


def left_of(vector: Vector, written: int) -> Vector:
    """What is left once so many bytes were taken.

    >>> left_of(np.array([[100, 8], [300, 4], [500, 6]], np.uint64), 9).tolist()
    [[301, 3], [500, 6]]
    """
    ends = np.cumsum(vector[:, 1])
    whole = int(np.searchsorted(ends, written, "right"))
    rest = vector[whole:]
    taken = written - (int(ends[whole - 1]) if whole else 0)
    if taken:
        rest = rest.copy()
        rest[0] += np.array([taken, 0], dtype=np.uint64)
        rest[0, 1] -= np.uint64(taken)
    return rest


@cache
def _call(name: str) -> Callable[[int, int, int, int], int]:
    """The C library's, with positions of 64 bits; it lets go of the interpreter's lock."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, f"{name}64", None) or getattr(library, name)
    call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64]
    call.restype = ctypes.c_ssize_t
    found: Callable[[int, int, int, int], int] = call
    return found
