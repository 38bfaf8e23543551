"""Implicit uniform keys: a 64-bit number for every row of every epoch, kept nowhere.

The generator is NumPy's Philox4x64-10 (Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as
easy as 1, 2, 3*, SC 2011): a keyed bijection of a 256-bit counter, so any output can be had without
those before it. ``(seed, epoch)`` are its two key words as they are, not mixed into one, so no two
pairs can share a sequence; the counter's upper word names what the numbers are for, so no two
purposes share one either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

__all__ = ["Keys", "Stream", "multiply_high", "spread"]

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10

# Rows evaluated together by `at`: a dozen temporaries of this many words stay in the second-level
# cache.
_BLOCK = 1 << 13

# Generating a key in sequence costs about 3 ns, evaluating Philox in NumPy operations about 100 ns.
# So for rows that lie this densely it is quicker to generate everything between the first and the
# last and pick.
_DENSE = 24


class Stream(IntEnum):
    """What a sequence of keys is for: the upper counter word."""

    ROWS = 0
    BATCHES = 1
    UNIFORM = 2
    SLICES = 3
    CHUNKS = 4
    MIXING = 5
    LENGTHS = 6
    LENGTH_BATCHES = 7
    SPLIT = 8


@dataclass(frozen=True)
class Keys:
    """The keys of one epoch: output number *r* of Philox4x64-10 is the key of row *r*.

    ``Keys(seed, epoch, stream)`` is the sequence
    ``numpy.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]).random_raw``.

    Parameters
    ----------
    seed, epoch
        The two key words, each in ``[0, 2**64)``.
    stream
        What the keys are for; sequences of different streams are disjoint parts of one counter
        space.

    >>> keys = Keys(seed=0, epoch=0)
    >>> bool((keys.block(5, 8) == keys.at([5, 6, 7])).all())
    True
    """

    seed: int
    epoch: int
    stream: int = Stream.ROWS

    def block(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Keys of the rows ``[start, stop)``, in time proportional to their number wherever they
        start.

        About 3 ns a key. ``random_raw`` releases the GIL while it fills its array, so blocks may be
        generated on several threads at once.
        """
        skipped = start % 4  # four outputs a counter value
        # As uint64 arrays: a list of integers on both sides of 2**63 would become float64, and
        # seeds would collide.
        key = np.array([self.seed, self.epoch], np.uint64)
        counter = np.array([start // 4, 0, 0, int(self.stream)], np.uint64)
        bits = Philox(
            key=key, counter=counter
        )  # NumPy adds one to the counter before the first four outputs
        raw: NDArray[np.uint64] = bits.random_raw(stop - start + skipped)
        return raw[skipped:]

    def at(self, rows: NDArray[np.int64] | list[int]) -> NDArray[np.uint64]:
        """Keys of any rows, ``(n,) -> (n,)``: about 100 ns each, less where rows lie close."""
        numbers = np.asarray(rows, dtype=np.int64)
        keys = np.empty(numbers.shape, np.uint64)
        for start in range(0, len(numbers), _BLOCK):
            part = numbers[start : start + _BLOCK]
            low, high = int(part.min()), int(part.max()) + 1
            if high - low <= _DENSE * len(part):
                keys[start : start + _BLOCK] = self.block(low, high)[part - low]
            else:
                keys[start : start + _BLOCK] = self._scattered(part.astype(np.uint64))
        return keys

    def _scattered(self, rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Philox4x64-10 evaluated at each row's own counter; the row's lane of the four outputs."""
        lane = rows & np.uint64(3)
        rows >>= np.uint64(2)
        rows += np.uint64(1)
        words = [rows, np.zeros_like(rows), np.zeros_like(rows), np.full_like(rows, self.stream)]
        work = [np.empty_like(rows) for _ in range(4)]
        for number in range(_ROUNDS):
            words = _round(words, self._round_key(number), work)
        return np.choose(lane.view(np.int64), words)

    def _round_key(self, number: int) -> tuple[np.uint64, np.uint64]:
        first = (self.seed + number * _WEYL[0]) % 2**64
        second = (self.epoch + number * _WEYL[1]) % 2**64
        return np.uint64(first), np.uint64(second)


def _round(
    words: list[NDArray[np.uint64]],
    key: tuple[np.uint64, np.uint64],
    work: list[NDArray[np.uint64]],
) -> list[NDArray[np.uint64]]:
    """One Philox round: two widening products, two exclusive ors. Overwrites `words`."""
    first, second, third, fourth = words
    high_first, high_third, *scratch = work
    _multiply_high_into(first, _MULTIPLIERS[0], high_first, scratch)
    _multiply_high_into(third, _MULTIPLIERS[1], high_third, scratch)
    np.multiply(first, _MULTIPLIERS[0], out=first)
    np.multiply(third, _MULTIPLIERS[1], out=third)
    second ^= high_third
    second ^= key[0]
    fourth ^= high_first
    fourth ^= key[1]
    return [second, third, fourth, first]


def _multiply_high_into(
    a: NDArray[np.uint64], b: np.uint64, out: NDArray[np.uint64], work: list[NDArray[np.uint64]]
) -> None:
    """Upper 64 bits of the 128-bit products, by halves of 32 bits (Hacker's Delight, figure 8-2).

    With ``a = a1 a0`` and ``b = b1 b0``: no sum below exceeds 64 bits, because a product of two
    halves is at most ``2**64 - 2**33 + 1``.
    """
    low, carry = work
    b_low, b_high = b & _LOW, b >> _32
    np.bitwise_and(a, _LOW, out=low)
    np.right_shift(a, _32, out=out)  # a1
    np.multiply(low, b_low, out=carry)
    carry >>= _32  # upper half of a0 * b0
    low *= b_high  # a0 * b1
    low += carry
    np.multiply(out, b_low, out=carry)  # a1 * b0
    out *= b_high  # a1 * b1
    # carry + (low & mask) fits: carry <= 2**64 - 2**33 + 1 and the masked part is below 2**32
    high = low >> _32
    low &= _LOW
    carry += low
    carry >>= _32
    out += high
    out += carry


def multiply_high(a: NDArray[np.uint64], b: int) -> NDArray[np.uint64]:
    """``(a * b) >> 64``, elementwise, exactly.

    >>> multiply_high(np.array([2**64 - 1, 2**63, 1], np.uint64), 10).tolist()
    [9, 5, 0]
    """
    out = np.empty_like(a)
    for start in range(0, len(a), _BLOCK):
        part = a[start : start + _BLOCK]
        work = [np.empty_like(part), np.empty_like(part)]
        _multiply_high_into(part, np.uint64(b), out[start : start + _BLOCK], work)
    return out


def spread(keys: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Uniform keys as uniform numbers of ``[0, n)`` by multiply-shift.

    A number's probability differs from ``1 / n`` by less than ``2**-64``: for a thousand million
    rows a relative error of ``2**-34``, which no experiment that fits a lifetime can see.
    """
    return multiply_high(keys, n).view(np.int64)
