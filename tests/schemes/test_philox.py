import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.schemes.philox import Keys, Stream, multiply_high, spread

words = st.integers(0, 2**64 - 1)


def numpys(seed: int, epoch: int, stream: int, n: int) -> np.ndarray:
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, 0, 0, stream], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(n)


@given(words, words, st.sampled_from(Stream), st.integers(0, 300), st.integers(0, 60))
def test_block_is_numpys_own_stream(seed, epoch, stream, start, size):
    expected = numpys(seed, epoch, stream, start + size)[start:]
    assert np.array_equal(Keys(seed, epoch, stream).block(start, start + size), expected)


@given(words, words, st.sampled_from(Stream), st.lists(st.integers(0, 2**40), max_size=50))
def test_at_equals_block_wherever_the_rows_lie(seed, epoch, stream, rows):
    keys = Keys(seed, epoch, stream)
    expected = [int(keys.block(row, row + 1)[0]) for row in rows]
    assert keys.at(rows).tolist() == expected


def test_at_equals_block_over_many_dense_and_scattered_rows():
    keys = Keys(2**64 - 1, 2**63 + 5, Stream.MIXING)
    whole = keys.block(0, 1_000_000)
    for rows in (np.arange(1000, 90_000), np.random.default_rng(5).permutation(1_000_000)):
        assert np.array_equal(keys.at(rows), whole[rows])


def test_at_leaves_its_argument_alone():
    rows = np.random.default_rng(6).integers(0, 2**39, 100)
    before = rows.copy()
    Keys(1, 2).at(rows)
    assert np.array_equal(rows, before)


def test_a_block_costs_nothing_for_the_rows_before_it():
    far = 2**40 + 3
    keys = Keys(4, 5)
    assert keys.at([far]).tolist() == keys.block(far, far + 1).tolist()


def test_no_two_pairs_of_seed_and_epoch_share_keys():
    # The ends of the range too: as floats, 2**64 - 1 and 2**64 - 2 would be one seed.
    numbers = [*range(12), 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    firsts = [Keys(s, e).block(0, 8) for s in numbers for e in numbers]
    assert len(np.unique(np.concatenate(firsts))) == 8 * len(numbers) ** 2


def test_seed_plus_one_is_not_epoch_plus_one():
    for seed, epoch in [(1, 0), (5, 5), (2**63, 2**63)]:
        ours, theirs = Keys(seed, epoch).block(0, 1000), Keys(seed - 1, epoch + 1).block(0, 1000)
        assert len(np.intersect1d(ours, theirs)) == 0


def test_no_two_streams_share_keys():
    assert len({*map(int, Stream)}) == len(Stream)
    blocks = [Keys(0, 0, stream).block(0, 1000) for stream in Stream]
    assert len(np.unique(np.concatenate(blocks))) == 1000 * len(Stream)


def test_generating_keys_lets_other_threads_run():
    """Several threads may generate blocks at once: one long call must not hold the GIL."""
    done = threading.Event()
    took = []

    def generate() -> None:
        start = time.perf_counter()
        Keys(0, 0).block(0, 20_000_000)
        took.append(time.perf_counter() - start)
        done.set()

    thread = threading.Thread(target=generate)
    thread.start()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 3, f"other threads ran {turns} times in {took[0]:.3f} s"


@given(st.lists(words, max_size=40), words)
def test_multiply_high_is_exact(a, b):
    expected = [x * b >> 64 for x in a]
    assert multiply_high(np.array(a, np.uint64), b).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 2**40])
def test_spread_reaches_both_ends_and_nothing_else(n):
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert spread(ends, n).tolist() == [0, n - 1]
