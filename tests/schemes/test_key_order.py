import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.schemes.philox import Keys
from epochal.schemes.piles import KeyOrder, argsort_keys

SIZES = [0, 1, 2, 3, *(2**k + d for k in (2, 3, 4, 7, 10, 16) for d in (-1, 0, 1))]


class Coarse(Keys):
    """Keys of eight values, spread over the key space: nearly every row is tied with others."""

    def block(self, start, stop):
        return super().block(start, stop) & np.uint64(7 << 61)

    def at(self, rows):
        return super().at(rows) & np.uint64(7 << 61)


class LowOnly(Keys):
    """Keys that differ only in bits that the sorted words cut off."""

    def block(self, start, stop):
        return super().block(start, stop) & np.uint64(3)

    def at(self, rows):
        return super().at(rows) & np.uint64(3)


def by_definition(keys, n):
    return np.lexsort((np.arange(n), keys.block(0, n)))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("order_rows", [10**9, 100_000, 300])
def test_is_rows_sorted_by_key_and_row(n, order_rows):
    keys = Keys(n, 2)
    assert np.array_equal(KeyOrder(keys, n, order_rows).rows(0, n), by_definition(keys, n))


@pytest.mark.parametrize("kind", [Coarse, LowOnly])
@pytest.mark.parametrize("n", [1, 2, 5, 1000, 70_000])
@pytest.mark.parametrize("order_rows", [10**9, 500])
def test_ties_go_by_row(kind, n, order_rows):
    keys = kind(3, 4)
    order = KeyOrder(keys, n, order_rows)
    assert np.array_equal(order.rows(0, n), by_definition(keys, n))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 4000), st.data())
def test_piles_answer_as_the_whole_does(n, order_rows, data):
    keys = Keys(7, n)
    whole, piled = by_definition(keys, n), KeyOrder(keys, n, order_rows)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert np.array_equal(piled.rows(start, stop), whole[start:stop])
    some = np.array(sorted(data.draw(st.lists(st.integers(0, n - 1)))), np.int64)
    assert np.array_equal(piled.take(some), whole[some])
    row = data.draw(st.integers(0, n - 1))
    assert whole[piled.position_of(row)] == row


def test_piles_partition_the_rows_by_their_keys():
    keys, n = Keys(1, 1), 200_000
    order = KeyOrder(keys, n, 20_000)
    assert order.n_piles >= 10
    piles = [order.pile(j) for j in range(order.n_piles)]
    assert np.array_equal(order.pile_starts, np.cumsum([0, *map(len, piles)]))
    assert max(map(len, piles)) <= 20_000
    for j, rows in enumerate(piles):
        low, high = order.pile_range(j)
        inside = keys.at(rows)
        assert inside.min() >= low
        assert int(inside.max()) < high
    assert order.pile_range(0)[0] == 0
    assert order.pile_range(order.n_piles - 1)[1] == 2**64
    assert np.array_equal(np.sort(np.concatenate(piles)), np.arange(n))


def test_a_pile_made_twice_is_made_once_in_a_row():
    order = KeyOrder(Keys(1, 1), 10_000, 1000)
    assert order.pile(3) is order.pile(3)
    assert not order.pile(3).flags.writeable


@pytest.mark.parametrize("pile", [-1, 14])
def test_a_pile_that_is_not_there(pile):
    order = KeyOrder(Keys(1, 1), 10_000, 1000)
    with pytest.raises(IndexError, match=f"pile {pile} was asked; there are {order.n_piles}"):
        order.pile(pile)


def test_what_is_promised_to_be_held_is_held():
    n, order_rows = 500_000, 50_000
    order = KeyOrder(Keys(0, 0), n, order_rows)
    order.rows(123_456, 123_556)
    held = order._last[1].nbytes + order._starts.nbytes
    assert order._last[1].nbytes <= order.order_bytes == 8 * order_rows
    assert held < 8 * n / 5


def test_pickles_without_what_it_holds():
    order = KeyOrder(Keys(0, 0), 300_000, 10**9)
    first = order.rows(0, 100).copy()
    blob = pickle.dumps(order)
    assert len(blob) < 1000
    assert np.array_equal(pickle.loads(blob).rows(0, 100), first)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.integers(2**64 - 5, 2**64 - 1)))
def test_argsort_keys_is_a_stable_argsort(keys):
    array = np.array(keys, np.uint64)
    before = array.copy()
    assert np.array_equal(argsort_keys(array), np.argsort(array, kind="stable"))
    assert np.array_equal(array, before)
