"""The exact shuffle: the numbers 0 .. n-1 sorted by implicit uniform keys, in memory for one pile.

The key space is cut into equal ranges. The rows whose keys lie in one range are a *pile*; piles in
the order of their ranges, each sorted by ``(key, row)``, are the whole order. A pile is made by
generating all keys once more, block by block, and keeping those in its range: memory for one pile
and a table of counts, whatever the number of rows.

Keys and row numbers are sorted as one 64-bit word each: the range of a pile is narrow, so the upper
bits of a key within it and the row's number fit together. What bits of the key that cuts off
matters only to rows that agree in all others; those few are put in order by their whole keys
afterwards. So a pile needs 8 bytes a row while it is sorted, and is sorted in place by NumPy's
vectorised sort of integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.schemes.orders import Numbers, Order
from epochal.schemes.philox import Keys

__all__ = ["KeyOrder", "argsort_keys"]

_U64 = np.uint64
# Keys generated together: with what is derived from them they stay in the second-level cache.
_BLOCK_ROWS = 1 << 16
# Piles are cut by the upper bits of the key, so that their ranges are exact in 64-bit arithmetic.
_PILE_BITS = 32


class KeyOrder(Order):
    """``0 .. n_rows - 1`` sorted by ``(key, number)``.

    Parameters
    ----------
    keys
        The key of each number.
    n_rows
        How many numbers; up to 2**40.
    order_rows
        How many row numbers may be held, 8 bytes each. If all fit, the order is made once and kept;
        if not, it is made pile by pile, each pile by one pass over all keys (about 4 ns a key), and
        the last one is kept.

    >>> order = KeyOrder(Keys(seed=0, epoch=0), n_rows=1000, order_rows=100)
    >>> order.n_piles > 10, bool((np.sort(order.rows(0, 1000)) == np.arange(1000)).all())
    (True, True)
    """

    def __init__(self, keys: Keys, n_rows: int, order_rows: int) -> None:
        self.keys = keys
        self.n_rows = n_rows
        self.n_piles = _piles_for(n_rows, order_rows)
        self.order_bytes = 8 * (n_rows if self.n_piles == 1 else order_rows)
        self._starts: Numbers | None = None
        self._last: tuple[int, Numbers] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_starts": None, "_last": None}

    @property
    def pile_starts(self) -> Numbers:
        """Positions at which piles begin, and the end, ``(n_piles + 1,)``; one pass over keys."""
        starts = self._starts
        if starts is None:
            starts = self._starts = np.concatenate([[0], np.cumsum(self._counts())])
        return starts

    def _counts(self) -> Numbers:
        if self.n_piles == 1:
            return np.array([self.n_rows])
        counts = np.zeros(self.n_piles, np.int64)
        for _, keys in self._blocks():
            keys >>= _U64(_PILE_BITS)
            keys *= _U64(self.n_piles)
            keys >>= _U64(_PILE_BITS)
            counts += np.bincount(keys.view(np.int64), minlength=self.n_piles)
        return counts

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        for start in range(0, self.n_rows, _BLOCK_ROWS):
            yield start, self.keys.block(start, min(start + _BLOCK_ROWS, self.n_rows))

    def pile_range(self, pile: int) -> tuple[int, int]:
        """Keys of pile `pile`: those in ``[low, high)``."""
        low, high = (-(-(j << _PILE_BITS) // self.n_piles) for j in (pile, pile + 1))
        return low << (64 - _PILE_BITS), high << (64 - _PILE_BITS)

    def pile(self, pile: int) -> Numbers:
        """Rows of pile `pile` in order, read-only; the last one made is kept."""
        if not 0 <= pile < self.n_piles:
            raise IndexError(f"pile {pile} was asked; there are {self.n_piles}")
        last = self._last
        if last is not None and last[0] == pile:
            return last[1]
        last = self._last = None  # let go before the next is made: one pile at a time
        rows = self._make(pile)
        rows.flags.writeable = False
        self._last = (pile, rows)
        return rows

    def _make(self, pile: int) -> Numbers:
        low, high = self.pile_range(pile)
        starts = self.pile_starts
        packed = np.empty(int(starts[pile + 1] - starts[pile]), _U64)
        row_bits = max(1, (self.n_rows - 1).bit_length())
        shift = 64 - (high - low - 1).bit_length()
        filled = 0
        for start, keys in self._blocks():
            keys -= _U64(low)
            kept = _inside(keys, high - low)
            target = packed[filled : filled + len(kept)]
            np.take(keys, kept, out=target, mode="clip")  # "raise" would copy the output first
            target <<= _U64(shift)
            _put_low_bits(target, kept, start, row_bits)
            filled += len(kept)
        packed.sort()
        return _untie(packed, row_bits, self.keys)

    def rows(self, start: int, stop: int) -> Numbers:
        """Rows at ``[start, stop)``: a read-only view, or a copy where the order is in piles."""
        if self.n_piles == 1:
            return self.pile(0)[start:stop]
        out = np.empty(stop - start, np.int64)
        starts = self.pile_starts
        at = start
        while at < stop:
            pile = int(np.searchsorted(starts, at, side="right")) - 1
            end = min(stop, int(starts[pile + 1]))
            begin = int(starts[pile])
            out[at - start : end - start] = self.pile(pile)[at - begin : end - begin]
            at = end
        return out

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions: each pile they touch is made once."""
        if self.n_piles == 1:
            return self.pile(0)[positions]
        out = np.empty(len(positions), np.int64)
        starts = self.pile_starts
        cuts = np.searchsorted(positions, starts)
        for pile in np.flatnonzero(np.diff(cuts)).tolist():
            part = slice(cuts[pile], cuts[pile + 1])
            out[part] = self.pile(pile)[positions[part] - starts[pile]]
        return out

    def position_of(self, row: int) -> int:
        """Position of one row: one pass that counts the smaller ``(key, row)``; nothing is held."""
        own = self.keys.block(row, row + 1)[0]
        smaller = 0
        for start, keys in self._blocks():
            smaller += int(np.count_nonzero(keys < own))
            smaller += int(np.count_nonzero(keys[: max(0, row - start)] == own))
        return smaller


def _piles_for(n_rows: int, order_rows: int) -> int:
    """So many equal ranges that a pile of more than `order_rows` rows is out of the question.

    A pile's size is binomial; eight standard deviations above its mean are reached with a
    probability below 1e-14.
    """
    if n_rows <= order_rows:
        return 1
    mean = order_rows - 8 * order_rows**0.5
    return -(-n_rows // max(1, int(mean)))


def _inside(keys: NDArray[np.uint64], width: int) -> Numbers:
    """Where ``keys < width``; the width may be the whole key space."""
    if width == 2**64:
        return np.arange(len(keys))
    return np.flatnonzero(keys < _U64(width))


def _put_low_bits(words: NDArray[np.uint64], offsets: Numbers, start: int, bits: int) -> None:
    """Replace the lower `bits` of each word by its row's number, ``offset + start``."""
    words >>= _U64(bits)
    words <<= _U64(bits)
    numbers = offsets.view(_U64)
    numbers += _U64(start)
    words |= numbers


def _untie(packed: NDArray[np.uint64], row_bits: int, keys: Keys) -> Numbers:
    """Row numbers of sorted words, in place; those that agree in all key bits by whole keys."""
    tied = _tied(packed, row_bits)
    packed &= _U64((1 << row_bits) - 1)
    rows = packed.view(np.int64)
    if len(tied):
        # All tied rows together: between groups the whole keys are in order already, so one sort
        # does every group.
        numbers = rows[tied]
        rows[tied] = numbers[np.lexsort((numbers, keys.at(numbers)))]
    return rows


def _tied(packed: NDArray[np.uint64], row_bits: int) -> Numbers:
    """Places of sorted words that share all key bits with a neighbour."""
    found = [np.empty(0, np.int64)]
    bits = _U64(row_bits)
    for start in range(0, len(packed) - 1, _BLOCK_ROWS):
        head = packed[start : start + _BLOCK_ROWS + 1] >> bits
        same = np.flatnonzero(head[1:] == head[:-1])
        found += [same + start, same + (start + 1)]
    return np.unique(np.concatenate(found))


def argsort_keys(keys: NDArray[np.uint64]) -> Numbers:
    """``numpy.argsort(keys, kind="stable")``, about 5 times as quick: one sort of packed words.

    >>> argsort_keys(np.array([7, 3, 2**63, 3], np.uint64)).tolist()
    [1, 3, 0, 2]
    """
    bits = max(1, (len(keys) - 1).bit_length())
    packed = keys.copy()
    _put_low_bits(packed, np.arange(len(keys)), 0, bits)
    packed.sort()
    tied = _tied(packed, bits)
    packed &= _U64((1 << bits) - 1)
    places = packed.view(np.int64)
    if len(tied):
        numbers = places[tied]
        places[tied] = numbers[np.lexsort((numbers, keys[numbers]))]
    return places
