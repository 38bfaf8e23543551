"""Law: the exact shuffle passes tests against the exact null that two common stand-ins fail.

The certificate is one list of verdicts for any way to make orders; the same list is applied to
ours, to index ciphers of four rounds and to a shuffle buffer. Seeds are 0, 1, 2, ...; none was
chosen by its outcome, and being fixed they cannot flake.
"""

import numpy as np
import pytest

from epochal import schemes
from epochal.testing.uniformity import batch_classes, pairs, positions

SMALL = [6, 7, 8, 9, 16, 17, 32, 33, 64]
SMALL_ORDERS = 3000
LARGE, LARGE_ORDERS, N_CLASSES, BATCH_SIZE = 200_000, 3, 100, 256
SUSPECT = 1e-6


def certificate(orders, n_small=SMALL_ORDERS):
    """``orders(n_rows, n_orders) -> (n_orders, n_rows)`` under every statistic."""
    verdicts = {}
    for n in SMALL:
        made = orders(n, n_small)
        assert np.array_equal(np.sort(made, axis=1), np.tile(np.arange(n), (len(made), 1)))
        verdicts["positions", n] = positions(made)
        verdicts["pairs", n] = pairs(made)
    sorted_by_class = np.arange(LARGE) * N_CLASSES // LARGE
    large = orders(LARGE, LARGE_ORDERS)
    verdicts["batches", LARGE] = batch_classes(large, sorted_by_class, BATCH_SIZE)
    return verdicts


def failed(verdicts):
    return {name for name, verdict in verdicts.items() if verdict.p < SUSPECT}


def by_epochs(n, n_orders):
    scheme = schemes.make("shuffled_sequential", n, batch_size=n, seed=0)
    return np.stack([scheme.at(epoch).rows(0, n) for epoch in range(n_orders)])


def by_seeds(n, n_orders):
    made = (schemes.make("shuffled_sequential", n, batch_size=n, seed=s) for s in range(n_orders))
    return np.stack([scheme.rows(0, n) for scheme in made])


def in_piles(n, n_orders):
    scheme = schemes.make("shuffled_sequential", n, batch_size=n, seed=1).holding(max(3, n // 5))
    return np.stack([scheme.at(epoch).rows(0, n) for epoch in range(n_orders)])


def hashed(half, key):
    """A round function that mixes well (murmur3's finaliser, shortened)."""
    half = (half ^ key) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)
    half ^= half >> np.uint64(15)
    half = half * np.uint64(0x85EBCA77) & np.uint64(0xFFFFFFFF)
    return half ^ half >> np.uint64(13)


def multiplied(half, key):
    """A round function as cheap as those of published loaders."""
    return half * (key | np.uint64(1)) + (key >> np.uint64(16)) >> np.uint64(1)


def cipher(round_function):
    """Index cipher: four Feistel rounds, walking cycles until the index is in range."""

    def orders(n, n_orders):
        half = np.uint64(((n - 1).bit_length() + 1) // 2)
        low = np.uint64((1 << int(half)) - 1)
        keys = np.random.default_rng(0).integers(0, 2**32, (4, n_orders, 1), dtype=np.uint64)

        def once(index):
            left, right = index >> half, index & low
            for key in keys:
                left, right = right, left ^ (round_function(right, key) & low)
            return left << half | right

        index = once(np.tile(np.arange(n, dtype=np.uint64), (n_orders, 1)))
        while (outside := index >= n).any():
            index = np.where(outside, once(index), index)
        return index.astype(np.int64)

    return orders


def buffered(n, n_orders):
    """A shuffle buffer of 16,384 rows over the stored order, as stream loaders have it."""
    size = min(n, 16_384)
    made = np.empty((n_orders, n), np.int64)
    for order, rng in zip(made, map(np.random.default_rng, range(n_orders)), strict=True):
        buffer = np.arange(size)
        slots = rng.integers(0, size, n - size)
        for i, slot in enumerate(slots.tolist()):
            order[i] = buffer[slot]
            buffer[slot] = size + i
        order[n - size :] = rng.permutation(buffer)
    return made


@pytest.mark.parametrize("orders", [by_epochs, by_seeds])
def test_the_exact_shuffle_passes(orders):
    verdicts = certificate(orders)
    assert not failed(verdicts), {name: verdicts[name] for name in failed(verdicts)}


def test_the_exact_shuffle_in_piles_passes():
    assert not failed(certificate(in_piles, n_small=300))


@pytest.mark.parametrize("round_function", [hashed, multiplied])
def test_an_index_cipher_of_four_rounds_fails(round_function):
    found = failed(certificate(cipher(round_function)))
    assert {("pairs", 8), ("pairs", 16), ("pairs", 64)} <= found
    assert ("positions", 6) in found


def test_a_shuffle_buffer_fails():
    verdicts = certificate(buffered)
    assert failed(verdicts) == {("batches", LARGE)}
    assert verdicts["batches", LARGE].ratio > 10


def test_batches_and_chunks_in_random_order_fail():
    """What the approximate kinds cost is seen too, and is the smaller the more they mix."""
    labels = np.arange(LARGE) * N_CLASSES // LARGE

    def ratio(name, **extra):
        scheme = schemes.make(name, LARGE, batch_size=BATCH_SIZE, seed=0, **extra)
        rows = np.arange(LARGE)[scheme.rows(0, LARGE)]
        return batch_classes(rows, labels, BATCH_SIZE).ratio

    batchwise = ratio("batchwise_shuffled_sequential")
    one = ratio("chunkwise_shuffled_sequential", chunk_rows=512, mix_rows=512)
    many = ratio("chunkwise_shuffled_sequential", chunk_rows=512, mix_rows=16_384)
    exact = ratio("shuffled_sequential")
    assert batchwise > one > many > 4 * exact
    assert exact == pytest.approx(1, abs=0.03)
