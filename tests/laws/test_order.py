"""Laws of every scheme: partition, shards, ranges, epochs, against the order as one list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import schemes

ONCE = [  # every row exactly once an epoch
    "sequential",
    "shuffled_sequential",
    "batchwise_shuffled_sequential",
    "even_sequences",
    "chunkwise_shuffled_sequential",
]
EVEN = ["even_sequential", "even_shuffled_sequential", "even_batchwise_shuffled_sequential"]
SIZES = [0, 1, 2, 3, *(2**k + d for k in (2, 3, 5, 8, 12, 16) for d in (-1, 0, 1))]


def listed(rows):
    return list(range(rows.start, rows.stop)) if isinstance(rows, slice) else rows.tolist()


def order(scheme):
    return listed(scheme.rows(0, scheme.n_positions))


def batches(scheme):
    return [listed(scheme.batch(i)) for i in range(len(scheme))]


@st.composite
def made(draw, names=schemes.NAMES, world=1):
    name = draw(st.sampled_from(names))
    n = draw(st.integers(1, 150))
    batch_size = draw(st.integers(1, max(1, n // world)))
    seed = draw(st.integers(0, 2**64 - 1))
    if not name.startswith("chunkwise") and draw(st.booleans()):
        seed = np.random.RandomState(seed % 2**32)
    extra = {}
    if name.startswith("random"):
        extra["num_batches"] = draw(st.integers(1, 9))
        batch_size = max(1, min(batch_size, n // world))
        if name == "random_slice" and batch_size * world > n:
            n = batch_size * world
    elif name != "even_sequences" and draw(st.booleans()):
        group = batch_size * world
        possible = n // group if name.startswith("even") else -(-n // group)
        if possible:
            extra["num_batches"] = draw(st.integers(1, possible))
    if name == "even_sequences":
        extra["lengths"] = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    if name.startswith("chunkwise"):
        extra["chunk_rows"] = draw(st.integers(1, 40))
        extra["mix_rows"] = draw(st.integers(1, 100))
    epoch = draw(st.integers(0, 5) | st.integers(0, 2**64 - 1))
    if not isinstance(seed, int):
        epoch %= 6
    return schemes.make(name, n, batch_size=batch_size, seed=seed, epoch=epoch, **extra)


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("n", SIZES)
def test_every_row_once(name, n):
    """Also where published index ciphers are no bijections: at ``2**(2m) + 1`` and tiny sizes."""
    extra = {"chunk_rows": 10} if name.startswith("chunkwise") else {}
    scheme = schemes.make(name, n, batch_size=max(1, n // 7), seed=1, epoch=n, **extra)
    assert sorted(order(scheme)) == list(range(n))


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize("n", SIZES)
def test_even_kinds_see_no_row_twice_and_only_whole_batches(name, n):
    size = n // 7 + 1
    scheme = schemes.make(name, n, batch_size=size, seed=1)
    assert {len(batch) for batch in batches(scheme)} <= {size}
    assert len(order(scheme)) == len(set(order(scheme))) == n // size * size


@settings(max_examples=300, deadline=None)
@given(made(), st.data())
def test_ranges_are_pieces_of_one_order(scheme, data):
    whole = order(scheme)
    assert len(whole) == scheme.n_positions
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert listed(scheme.rows(start, stop)) == whole[start:stop]
    bounds = [scheme.bounds(i) for i in range(len(scheme))]
    assert [p for a, b in bounds for p in range(a, b)] == list(range(len(whole)))
    for i, (a, b) in enumerate(bounds):
        assert 0 < b - a <= scheme.batch_size
        assert listed(scheme.batch(i)) == whole[a:b]


@settings(max_examples=200, deadline=None)
@given(made())
def test_rows_are_rows_and_int64(scheme):
    rows = scheme.rows(0, scheme.n_positions)
    if not isinstance(rows, slice):
        assert rows.dtype == np.int64
    assert all(0 <= row < scheme.n_rows for row in order(scheme))
    ascending = order(scheme) == sorted(order(scheme))
    assert ascending or not scheme.monotone


@settings(max_examples=200, deadline=None)
@given(made(), st.integers(0, 5))
def test_at_is_make_with_that_epoch(scheme, epoch):
    config = scheme.config()
    if config["lengths"] is not None:
        config["lengths"] = scheme._request.lengths
    direct = schemes.make(**{**config, "epoch": epoch})
    assert order(scheme.at(epoch)) == order(direct)
    assert batches(scheme.at(epoch).at(scheme.epoch)) == batches(scheme)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 5), st.data())
def test_shards_partition_each_global_batch_of_the_order_that_one_rank_sees(world, data):
    scheme = data.draw(made(world=world))
    single = schemes.make(
        **{
            **scheme.config(),
            "lengths": scheme._request.lengths,
            "batch_size": scheme.batch_size * world,
        }
    )
    ranks = [scheme.shard(rank, world) for rank in range(world)]
    parts = [iter(batches(rank)) for rank in ranks]
    for group in batches(single):
        m = len(group)
        for rank in range(world):
            part = group[rank * m // world : (rank + 1) * m // world]
            if part:
                assert next(parts[rank]) == part
    assert all(next(rest, None) is None for rest in parts)
    whole = order(single)
    for rank in ranks:
        positions = rank.global_position(np.arange(rank.n_positions))
        assert [whole[p] for p in positions] == order(rank)
        assert rank.limited_positions == len(whole)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.data())
def test_ranges_across_batches_on_any_rank(world, data):
    scheme = data.draw(made(world=world)).shard(data.draw(st.integers(0, world - 1)), world)
    whole = [row for batch in batches(scheme) for row in batch]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert listed(scheme.rows(start, stop)) == whole[start:stop]


@pytest.mark.parametrize(
    "name", ["shuffled_sequential", "random_uniform", "chunkwise_shuffled_sequential"]
)
def test_the_order_is_the_same_for_any_world(name):
    extra = {"chunk_rows": 9, "mix_rows": 40} if name.startswith("chunkwise") else {}
    extra |= {"num_batches": 1} if name.startswith("random") else {}
    orders = []
    for world in (1, 2, 3, 5):
        ranks = [
            schemes.make(name, 300, batch_size=60 // world, seed=3, shard=(r, world), **extra)
            for r in range(world)
        ]
        seen = np.empty(ranks[0].limited_positions, np.int64)
        for rank in ranks:
            seen[rank.global_position(np.arange(rank.n_positions))] = order(rank)
        orders.append(seen.tolist())
    assert orders[1:] == orders[:-1]


def test_no_two_epochs_or_seeds_share_an_order():
    numbers = [0, 1, 2, 3, 2**32, 2**63, 2**64 - 2, 2**64 - 1]
    seen = {
        tuple(order(schemes.make("shuffled_sequential", 50, batch_size=50, seed=s, epoch=e)))
        for s in numbers
        for e in numbers
    }
    assert len(seen) == len(numbers) ** 2


def test_rows_left_out_by_an_even_shuffle_are_others_each_epoch():
    scheme = schemes.make("even_shuffled_sequential", 20, batch_size=6, seed=0)
    left = [set(range(20)) - set(order(scheme.at(e))) for e in range(200)]
    assert set.union(*left) == set(range(20))


def test_the_short_batch_is_not_always_last():
    scheme = schemes.make("batchwise_shuffled_sequential", 20, batch_size=6, seed=0)
    places = {[len(b) for b in batches(scheme.at(e))].index(2) for e in range(60)}
    assert places == {0, 1, 2, 3}


def test_fewer_batches_are_a_random_choice():
    scheme = schemes.make("batchwise_shuffled_sequential", 20, batch_size=6, num_batches=2, seed=0)
    assert set().union(*(order(scheme.at(e)) for e in range(40))) == set(range(20))


@settings(max_examples=150, deadline=None)
@given(made(names=["even_sequences"]))
def test_every_batch_of_sequences_has_one_length(scheme):
    lengths = scheme._request.lengths
    for batch in batches(scheme):
        assert len({int(lengths[row]) for row in batch}) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.data())
def test_windows_hold_whole_chunks_and_end_where_they_say(world, data):
    """Between two bounds lie the rows of few whole chunks, whatever the rank sees of them."""
    scheme = data.draw(made(names=["chunkwise_shuffled_sequential"], world=world))
    config = scheme.config()
    chunk, window_chunks = config["chunk_rows"], max(1, config["mix_rows"] // config["chunk_rows"])
    owner = {}
    for rank in (scheme.shard(r, world) for r in range(world)):
        bounds = rank.window_bounds()
        assert bounds.tolist() == sorted(set(bounds.tolist()))
        assert (bounds.tolist() or [0])[-1] == rank.n_positions
        rows, start = order(rank), 0
        for stop in bounds.tolist():
            chunks = {row // chunk for row in rows[start:stop]}
            assert 1 <= len(chunks) <= window_chunks
            first = int(rank.global_position(np.array([start]))[0])
            for number in chunks:
                owner.setdefault(number, set()).add((rank.rank, start))
            assert first >= start
            start = stop
    for rank in range(world):
        assert all(len([o for o in owners if o[0] == rank]) <= 1 for owners in owner.values())
