"""Which examples a part of a dataset has: half-open ranges, pure."""

from __future__ import annotations

from typing import Any

from numpy.random import RandomState

from epochal.datasets.iteration import whole_number
from epochal.errors import MismatchError, RowError

__all__ = ["checked_range", "folds", "holdout", "random_folds", "random_slices", "train_size"]

Range = tuple[int, int]


def checked_range(start: Any, stop: Any, n: int) -> Range:
    """A range of `n` examples; None is the first, or the end.

    Raises
    ------
    RowError
        It is empty, or goes past the end.
    """
    first = 0 if start is None else whole_number(start, "start")
    last = n if stop is None else whole_number(stop, "stop")
    if not first < last <= n:
        raise RowError(f"start={start}, stop={stop} of {n} examples: give a range that holds some")
    return first, last


def train_size(n: int, size: int, proportion: float) -> int:
    """How many of `n` examples are trained on: one of both is given.

    Raises
    ------
    MismatchError
        None, or both; or none are left on a side.
    """
    if bool(size) == bool(proportion):
        raise MismatchError(f"train_size={size}, train_prop={proportion}: give one of both")
    found = round(n * proportion) if proportion else whole_number(size, "train_size", 1)
    if not 0 < found < n:
        raise MismatchError(f"{found} rows to train on of {n}: leave some on both sides")
    return found


def holdout(n: int, size: int) -> tuple[Range, Range]:
    """What is trained on, and what is held out: the larger of both comes first.

    >>> holdout(10, 8), holdout(10, 2)
    (((0, 8), (8, 10)), ((8, 10), (0, 8)))
    """
    if size < n - size:
        return (n - size, n), (0, n - size)
    return (0, size), (size, n)


def folds(n: int, nfolds: int) -> list[Range]:
    """All examples in so many parts, the last maybe shorter.

    >>> folds(7, 3)
    [(0, 3), (3, 6), (6, 7)]
    """
    size = -(-n // whole_number(nfolds, "nfolds", 1))
    return [(at, min(at + size, n)) for at in range(0, n, size)] if n else []


def random_slices(n: int, sizes: list[int], rng: RandomState) -> list[Range]:
    """Ranges of these sizes from random places."""
    starts = [int(rng.randint(n - size + 1)) for size in sizes]
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def random_folds(n: int, nfolds: int, rng: RandomState) -> list[Range]:
    """So many ranges of one `nfolds`-th of the examples each, from random places."""
    count = whole_number(nfolds, "nfolds", 1)
    return random_slices(n, [min(n, max(1, n // count))] * count, rng)
