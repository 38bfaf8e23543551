"""Orders from a `RandomState`, against the draws that Pylearn2's iterators made, written down
independently here.

Each oracle is one epoch: it takes the generator as Pylearn2's iterator did when it was made, draws
as it drew while it was iterated to its end, and returns the batches as lists of rows.
"""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from epochal import schemes
from epochal.errors import SchemeError


def chop(order, size, count):
    return [order[i : i + size] for i in range(0, len(order), size)][:count]


def shuffled(rng, n, size, count):
    order = np.arange(n)
    rng.shuffle(order)
    return chop(order.tolist(), size, count)


def batchwise(rng, n, size, count):
    numbers = list(range(count))
    rng.shuffle(numbers)
    batches = [list(range(i * size, min(n, (i + 1) * size))) for i in numbers]
    return [batch for batch in batches if batch]


def random_uniform(rng, n, size, count):
    # random_integers(low=0, high=n - 1, size=(size,)), which NumPy is about to drop, is this
    return [rng.randint(0, n - 1 + 1, size=(size,), dtype="l").tolist() for _ in range(count)]


def random_slice(rng, n, size, count):
    starts = [int(rng.randint(0, n - size + 1, dtype="l")) for _ in range(count)]
    return [list(range(start, start + size)) for start in starts]


def even_sequences(rng, lengths, size):
    rows = {
        length: [r for r, one in enumerate(lengths) if one == length] for length in set(lengths)
    }
    names = sorted(rows)

    def permute(names):
        names = rng.permutation(np.array(names, int)).tolist()
        for name in names:
            rows[name] = rng.permutation(np.array(rows[name])).tolist()
        return names

    names = permute(names)
    left = {name: list(rows[name]) for name in names}
    batches = []
    while any(left.values()):
        for name in names:
            if left[name]:
                batches.append(left[name][:size])
                left[name] = left[name][size:]
    permute(names)  # the exhausted iterator prepares itself for another round
    return batches


def batches_of(scheme):
    return [listed(scheme.batch(i)) for i in range(len(scheme))]


def listed(rows):
    return list(range(rows.start, rows.stop)) if isinstance(rows, slice) else rows.tolist()


def even(oracle):
    return lambda rng, n, size, count: [b for b in oracle(rng, n, size, count) if len(b) == size]


ORACLES = {
    "shuffled_sequential": shuffled,
    "batchwise_shuffled_sequential": batchwise,
    "random_uniform": random_uniform,
    "random_slice": random_slice,
    "even_shuffled_sequential": even(shuffled),
    "even_batchwise_shuffled_sequential": even(batchwise),
}


def counted(name, n, size):
    """How many batches Pylearn2's iterator of this kind makes of batches of a given size."""
    return n // size if name.startswith("even_") else -(-n // size)


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_every_epoch_is_pylearn2s(name, n, size, seed, drawn):
    size = min(n, size)
    count = 7 if name.startswith("random") else None
    rng = RandomState(seed)
    rng.random_sample(drawn)  # not only fresh generators
    scheme = schemes.make(name, n, batch_size=size, num_batches=count, seed=rng)
    theirs = RandomState(seed)
    theirs.random_sample(drawn)
    for epoch in range(4):
        expected = ORACLES[name](theirs, n, size, count or counted(name, n, size))
        assert batches_of(scheme.at(epoch)) == expected
    again = ORACLES[name](rng, n, size, count or counted(name, n, size))  # ours drew nothing
    assert batches_of(scheme) == again


@pytest.mark.parametrize("name", [name for name in ORACLES if "random" not in name])
@pytest.mark.parametrize("n", [1, 7, 10, 60])
@pytest.mark.parametrize("count", [1, 3, 6, 7])
def test_num_batches_alone_sets_the_size_as_in_pylearn2(name, n, count):
    is_even = name.startswith("even_")
    size = n // count if is_even else -(-n // count)
    if size == 0:
        with pytest.raises(SchemeError, match="even batches"):
            schemes.make(name, n, num_batches=count, seed=RandomState(1))
        return
    scheme = schemes.make(name, n, num_batches=count, seed=RandomState(1))
    assert scheme.batch_size == size
    assert batches_of(scheme) == ORACLES[name](RandomState(1), n, size, count)


@pytest.mark.parametrize("name", [name for name in ORACLES if "random" not in name])
def test_both_end_the_epoch_early_as_in_pylearn2(name):
    rng = RandomState(8)
    scheme = schemes.make(name, 50, batch_size=7, num_batches=4, seed=RandomState(8))
    for epoch in range(3):
        assert batches_of(scheme.at(epoch)) == ORACLES[name](rng, 50, 7, 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_even_sequences_is_pylearn2s(lengths, size, seed):
    scheme = schemes.make(
        "even_sequences",
        len(lengths),
        batch_size=size,
        seed=RandomState(seed),
        lengths=np.array(lengths, int),
    )
    rng = RandomState(seed)
    for epoch in range(3):
        assert batches_of(scheme.at(epoch)) == even_sequences(rng, lengths, size)


@pytest.mark.parametrize("n", [2**31 - 1, 2**32, 2**32 + 1, 2**33])
def test_wide_draws_are_pylearn2s_too(n):
    """Where a draw needs 64 bits, one call for all batches still draws what one for each does."""
    scheme = schemes.make("random_uniform", n, batch_size=5, num_batches=9, seed=RandomState(2))
    rng = RandomState(2)
    assert batches_of(scheme) == random_uniform(rng, n, 5, 9)
    assert batches_of(scheme.at(1)) == random_uniform(rng, n, 5, 9)


@pytest.mark.skipif(
    not hasattr(RandomState, "random_integers"), reason="this NumPy has no random_integers"
)
@pytest.mark.parametrize("n", [1, 2, 1000, 2**32, 2**33])
def test_random_integers_is_randint_one_higher(n):
    ours, theirs = RandomState(3), RandomState(3)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        drawn = theirs.random_integers(low=0, high=n - 1, size=(50,))
    assert np.array_equal(ours.randint(0, n, size=50, dtype=np.int64), drawn)
    assert ours.randint(2**31) == theirs.randint(2**31)


def test_epochs_may_be_asked_for_in_any_order():
    make = schemes.make
    scheme = make("shuffled_sequential", 30, batch_size=30, seed=RandomState(4))
    ascending = [listed(scheme.at(e).batch(0)) for e in range(6)]
    for epoch in (5, 0, 3, 3, 1, 4):
        assert listed(scheme.at(epoch).batch(0)) == ascending[epoch]
    fresh = make("shuffled_sequential", 30, batch_size=30, seed=RandomState(4), epoch=5)
    assert listed(fresh.batch(0)) == ascending[5]


def test_the_generator_passed_is_not_drawn_from_and_later_draws_do_not_matter():
    rng = RandomState(5)
    before = pickle.dumps(rng.get_state())
    scheme = schemes.make("shuffled_sequential", 100, batch_size=10, seed=rng)
    first = listed(scheme.rows(0, 100))
    scheme.at(3).batch(0)
    assert pickle.dumps(rng.get_state()) == before
    rng.random_sample(1000)
    assert listed(scheme.at(1).at(0).rows(0, 100)) == first


@pytest.mark.parametrize("name", [*ORACLES, "even_sequences"])
def test_config_survives_json_and_makes_the_same_order(name):
    count = 5 if name.startswith("random") else None
    scheme = schemes.make(name, 100, batch_size=10, num_batches=count, seed=RandomState(6), epoch=2)
    config = json.loads(json.dumps(scheme.config()))
    again = schemes.make(**config)
    assert again.config() == config
    assert batches_of(again) == batches_of(scheme)
    assert batches_of(again.at(3)) == batches_of(pickle.loads(pickle.dumps(scheme)).at(3))


def test_other_generators_are_refused_by_name():
    with pytest.raises(SchemeError, match=r"RandomState over PCG64; .* are those of MT19937"):
        schemes.make("shuffled_sequential", 5, batch_size=1, seed=RandomState(np.random.PCG64(1)))
    with pytest.raises(SchemeError, match="numpy Generator; pass an integer"):
        schemes.make("shuffled_sequential", 5, batch_size=1, seed=np.random.default_rng(1))
    with pytest.raises(SchemeError, match="not an order of Pylearn2: give an integer"):
        schemes.make(
            "chunkwise_shuffled_sequential", 5, batch_size=1, chunk_rows=2, seed=RandomState(1)
        )
