"""Pylearn2's own orders, from a ``numpy.random.RandomState``.

Pylearn2 made a new iterator every epoch over one generator, so epoch *k* continues the stream where
epoch *k - 1* left it. Here the generator that was passed is copied and never touched again; an
epoch's state is found by replaying the draws of those before it, from the nearest one remembered.
NumPy's global generator is never drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from epochal.errors import SchemeError

__all__ = ["Draw", "LegacySeed", "sequences", "shuffled", "uniform"]

Numbers = NDArray[np.int64]
T = TypeVar("T")
Draw = Callable[[RandomState], T]

_KIND = "MT19937"


class LegacySeed:
    """The state of a `RandomState` when it was passed, and what is known of its state at later
    epochs.

    Parameters
    ----------
    state
        A `RandomState`, or what `as_dict` returned.

    >>> rng = np.random.RandomState(3)
    >>> seed = LegacySeed(rng)
    >>> seed.order(0, shuffled(5)).tolist() == rng.permutation(5).tolist()
    True
    """

    def __init__(self, state: RandomState | Mapping[str, Any]) -> None:
        if isinstance(state, RandomState):
            state = _plain(state)
        if state.get("bit_generator") != _KIND or len(state.get("key", ())) != 624:
            raise SchemeError(
                f"seed is a RandomState over {state.get('bit_generator')}; "
                f"Pylearn2's orders are those of {_KIND}: "
                "pass numpy.random.RandomState(number), or an integer"
            )
        self._first = dict(state)
        self._near: tuple[int, dict[str, Any]] = (0, self._first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LegacySeed) and self._first == other._first

    def __hash__(self) -> int:
        return hash((self._first["pos"], *self._first["key"][:4]))

    def as_dict(self) -> dict[str, Any]:
        """The state that was passed, JSON-able: 624 integers and a position."""
        return dict(self._first)

    def order(self, epoch: int, draw: Draw[T]) -> T:
        """What `draw` makes in epoch `epoch`: it is called for each epoch since the last known."""
        known, state = self._near
        if known > epoch:
            known, state = 0, self._first
        rng = _generator(state)
        for _ in range(known, epoch):
            draw(rng)
        self._near = (epoch, _plain(rng))
        return draw(rng)


def _plain(rng: RandomState) -> dict[str, Any]:
    state: Any = rng.get_state(legacy=False)
    inner = state["state"]
    if state["bit_generator"] != _KIND:
        return {"bit_generator": state["bit_generator"]}
    return {
        "bit_generator": _KIND,
        "key": np.asarray(inner["key"]).tolist(),
        "pos": int(inner["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def _generator(state: dict[str, Any]) -> RandomState:
    rng = RandomState(0)  # an argument, so that no entropy is drawn; its state is replaced at once
    key = np.array(state["key"], np.uint32)
    rng.set_state((_KIND, key, state["pos"], state["has_gauss"], state["gauss"]))
    return rng


def shuffled(n: int) -> Draw[Numbers]:
    """The order of `n` things: one in-place shuffle of their numbers."""

    def draw(rng: RandomState) -> Numbers:
        numbers = np.arange(n, dtype=np.int64)
        rng.shuffle(numbers)
        return numbers

    return draw


def uniform(n: int, size: int) -> Draw[Numbers]:
    """`size` numbers below `n`, with replacement.

    Pylearn2 called ``random_integers(0, n - 1)`` batch by batch. ``randint(0, n)`` draws the same,
    and since each number takes whole words of the generator, one call for all batches does too.
    """

    def draw(rng: RandomState) -> Numbers:
        return rng.randint(0, n, size=size, dtype=np.int64)

    return draw


def sequences(lengths: Numbers, group: int) -> Draw[tuple[Numbers, Numbers]]:
    """Rows in batches of one length: lengths in turn, rows permuted within each.

    Pylearn2's iterator drew its permutations when it was made and once more when it was exhausted,
    so an epoch leaves the stream two draws on.
    """

    def draw(rng: RandomState) -> tuple[Numbers, Numbers]:
        names = np.unique(lengths)
        rows = {int(name): np.flatnonzero(lengths == name) for name in names}
        names = _permute(rng, names, rows)
        order = _in_turn([rows[int(name)] for name in names], group)
        _permute(rng, names, rows)
        return order

    return draw


def _permute(rng: RandomState, names: Numbers, rows: dict[int, Numbers]) -> Numbers:
    names = rng.permutation(names)
    for name in names.tolist():
        rows[name] = rng.permutation(rows[name])
    return names


def _in_turn(groups: list[Numbers], group: int) -> tuple[Numbers, Numbers]:
    """One batch of each group in turn until all are used up: rows, and bounds of batches."""
    turns = [
        (start // group, which, start)
        for which, rows in enumerate(groups)
        for start in range(0, len(rows), group)
    ]
    parts = [groups[which][start : start + group] for _, which, start in sorted(turns)]
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.int64), *parts]), starts
