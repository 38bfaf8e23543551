"""Iterators: Pylearn2's orders, its errors, and what it leaves of the generator."""

import numpy as np
import pytest
from numpy.random import RandomState

from epochal.datasets import DenseDesignMatrix
from epochal.errors import MismatchError, SchemeError, SourceNameError
from epochal.spaces import CompositeSpace, Conv2DSpace, IndexSpace, VectorSpace


def shuffled(rng, n, size, count):
    order = np.arange(n)
    rng.shuffle(order)
    return [order[at : at + size].tolist() for at in range(0, n, size)][:count]


def batchwise(rng, n, size, count):
    numbers = list(range(count))
    rng.shuffle(numbers)
    return [list(range(k * size, min(n, (k + 1) * size))) for k in numbers]


def uniform(rng, n, size, count):
    return [rng.randint(0, n, size=size).tolist() for _ in range(count)]


def slices(rng, n, size, count):
    starts = [int(rng.randint(0, n - size + 1)) for _ in range(count)]
    return [list(range(start, start + size)) for start in starts]


ORACLES = {
    "shuffled_sequential": shuffled,
    "batchwise_shuffled_sequential": batchwise,
    "random_uniform": uniform,
    "random_slice": slices,
}
N = 53


def dataset(n=N):
    return DenseDesignMatrix(X=np.arange(n * 2.0).reshape(n, 2), y=np.arange(n), y_labels=n)


def rows_of(iterator):
    return [(batch[:, 0] / 2).astype(int).tolist() for batch in iterator]


@pytest.mark.parametrize("mode", ORACLES)
def test_orders_are_pylearn2s_and_so_is_what_is_left_of_the_generator(mode):
    ds = dataset()
    count = 6 if mode.startswith("random") else -(-N // 10)
    theirs = RandomState(7)
    rng = RandomState(7)
    for _ in range(3):  # iterators over one generator go on where the last one stopped
        how = {"num_batches": count} if mode.startswith("random") else {}
        mine = rows_of(ds.iterator(mode, batch_size=10, rng=rng, **how))
        assert mine == ORACLES[mode](theirs, N, 10, count)
    assert rng.randint(1 << 30) == theirs.randint(1 << 30)


@pytest.mark.parametrize("rng", [7, [1, 2, 3], (17, 2, 946)])
def test_a_seed_is_one_of_a_random_state(rng):
    mine = rows_of(dataset().iterator("shuffled_sequential", batch_size=9, rng=rng))
    assert mine == shuffled(RandomState(rng), N, 9, 6)


def test_without_a_generator_it_is_the_datasets_own_which_goes_on():
    ds = dataset()
    theirs = RandomState((17, 2, 946))
    for _ in range(2):
        mine = rows_of(ds.iterator("shuffled_sequential", batch_size=9))
        assert mine == shuffled(theirs, N, 9, 6)
    place = ds.get_stream_position()
    first = rows_of(ds.iterator("shuffled_sequential", batch_size=9))
    ds.set_stream_position(place)
    assert rows_of(ds.iterator("shuffled_sequential", batch_size=9)) == first
    ds.restart_stream()
    assert ds.rng.randint(1 << 30) == RandomState((17, 2, 946)).randint(1 << 30)


@pytest.mark.parametrize(
    ("mode", "how", "sizes"),
    [
        ("sequential", {"batch_size": 10}, [10] * 5 + [3]),
        ("sequential", {"num_batches": 6}, [9] * 5 + [8]),
        ("sequential", {"batch_size": 10, "num_batches": 2}, [10, 10]),
        ("even_sequential", {"batch_size": 10}, [10] * 5),
        ("even_shuffled_sequential", {"batch_size": 10}, [10] * 5),
        ("even_batchwise_shuffled_sequential", {"batch_size": 10}, [10] * 5),
        ("random_uniform", {"batch_size": 10, "num_batches": 9}, [10] * 9),
    ],
)
def test_what_an_iterator_says_of_itself(mode, how, sizes):
    iterator = dataset().iterator(mode, **how)
    assert iterator.batch_size == sizes[0]
    assert iterator.num_batches == len(iterator) == len(sizes)
    assert iterator.num_examples == sum(sizes)
    assert iterator.uneven == (len(set(sizes)) > 1)
    assert iterator.stochastic == (mode not in ("sequential", "even_sequential"))
    assert [len(batch) for batch in iterator] == sizes
    with pytest.raises(StopIteration):  # it is used up
        iterator.next()


@pytest.mark.parametrize(
    ("mode", "how", "why"),
    [
        ("sequential", {}, "batch_size"),
        ("sequential", {"batch_size": 10, "rng": 3}, "takes no rng"),
        ("sequential", {"batch_size": 10, "num_batches": 7}, "6"),
        ("random_uniform", {"batch_size": 10}, "give both batch_size and num_batches"),
        ("random_slice", {"batch_size": 54, "num_batches": 2}, "slices of 54 rows"),
        ("shuffled", {"batch_size": 10}, "did you mean 'shuffled_sequential'"),
        ("shuffled_sequential", {"batch_size": 10, "rng": "x"}, "RandomState, or a seed"),
    ],
)
def test_impossible_requests(mode, how, why):
    with pytest.raises(SchemeError, match=why):
        dataset().iterator(mode, **how)


def test_data_specs():
    ds = dataset()
    X = VectorSpace(2, dtype="float64")
    both = CompositeSpace([IndexSpace(N, 1), CompositeSpace([X, VectorSpace(N)])])
    specs = (both, ("targets", ("features", "targets")))
    y, (x, hot) = next(ds.iterator("sequential", batch_size=4, data_specs=specs))
    assert y.tolist() == [[0], [1], [2], [3]]
    assert x.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert hot.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert next(ds.iterator(batch_size=4)).shape == (4, 2)
    [alone] = next(ds.iterator(batch_size=4, return_tuple=True))
    assert alone.shape == (4, 2)
    [labels] = next(
        ds.iterator(batch_size=4, data_specs=(CompositeSpace([IndexSpace(N, 1)]), ("targets",)))
    )
    assert labels.shape == (4, 1)


@pytest.mark.parametrize(
    ("specs", "error", "why"),
    [
        ((VectorSpace(2), "images"), SourceNameError, "no source 'images'"),
        ((VectorSpace(2), ("features", "targets")), MismatchError, "shapes one source"),
        (VectorSpace(2), MismatchError, "pair"),
        ((CompositeSpace([VectorSpace(2)]), "features"), MismatchError, "shapes 1 sources"),
        ((VectorSpace(3), "features"), MismatchError, "2 numbers, not 3"),
        ((Conv2DSpace((1, 2)), "targets"), MismatchError, "cannot be formatted"),
    ],
)
def test_data_specs_that_do_not_fit(specs, error, why):
    with pytest.raises(error, match=why):
        next(dataset().iterator(batch_size=4, data_specs=specs))
