"""Pieces of rows of varying length, copied from where they are to where they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["copy_pieces"]

Numbers = NDArray[np.int64]

# Below so many items a piece, an index of every item costs less than a slice for each piece.
SMALL_ITEMS = 64
INDEX_ITEMS = 1 << 16  # items indexed at a time


def copy_pieces(
    source: NDArray[Any], starts: Numbers, target: NDArray[Any], places: Numbers, counts: Numbers
) -> None:
    """Copy items ``source[starts[i] : starts[i] + counts[i]]`` to ``target[places[i] : ...]``.

    Both are C-contiguous of one dtype and item shape; `starts`, `places` and `counts` are
    ``(n_pieces,)``. Pieces that are neighbours on both sides are copied as one. Holds at most a
    megabyte beside its arguments and a few integers a piece.

    >>> out = np.zeros(5, int)
    >>> copy_pieces(np.arange(9), np.array([4, 0]), out, np.array([0, 3]), np.array([3, 2])); out
    array([4, 5, 6, 0, 1])
    """
    if not len(counts):
        return
    joined = (starts[1:] == starts[:-1] + counts[:-1]) & (places[1:] == places[:-1] + counts[:-1])
    if joined.any():
        heads = np.flatnonzero(np.r_[True, ~joined])
        counts = np.add.reduceat(counts, heads)
        starts, places = starts[heads], places[heads]
    if int(counts.sum()) > SMALL_ITEMS * len(counts):
        _copy_slices(source, starts, target, places, counts)
    elif counts.any():
        _copy_items(source, starts, target, places, counts)


def _copy_slices(
    source: NDArray[Any], starts: Numbers, target: NDArray[Any], places: Numbers, counts: Numbers
) -> None:
    item_bytes = source.dtype.itemsize * int(np.prod(source.shape[1:], dtype=np.int64))
    if not item_bytes:
        return
    # Slices of memoryviews cost half of what slices of arrays do.
    have, want = _bytes(source), _bytes(target)
    begins, ends = starts * item_bytes, (starts + counts) * item_bytes
    firsts, lasts = places * item_bytes, (places + counts) * item_bytes
    moves = zip(begins.tolist(), ends.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
    for begin, end, first, last in moves:
        want[first:last] = have[begin:end]


def _copy_items(
    source: NDArray[Any], starts: Numbers, target: NDArray[Any], places: Numbers, counts: Numbers
) -> None:
    ends = np.cumsum(counts)
    for low, high in _blocks(ends):
        some = counts[low:high]
        first = int(ends[low - 1]) if low else 0
        begins = ends[low:high] - some - first
        within = np.arange(int(ends[high - 1]) - first, dtype=np.int64)
        index = within + np.repeat(starts[low:high] - begins, some)
        if bool((places[low + 1 : high] == places[low : high - 1] + some[:-1]).all()):
            at = int(places[low])
            np.take(source, index, axis=0, out=target[at : at + len(index)], mode="clip")
        else:
            target[within + np.repeat(places[low:high] - begins, some)] = source[index]


def _blocks(ends: Numbers) -> Iterator[tuple[int, int]]:
    """Runs of pieces of about `INDEX_ITEMS` items."""
    low, done = 0, 0
    while low < len(ends):
        high = max(int(np.searchsorted(ends, done + INDEX_ITEMS, "right")), low + 1)
        yield low, high
        low, done = high, int(ends[high - 1])


def _bytes(array: NDArray[Any]) -> memoryview:
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8).data
