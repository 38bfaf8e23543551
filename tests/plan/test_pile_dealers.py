"""Dealers: every record to its pile, every pile in order, whatever is known of the order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import schemes
from epochal.plan.order import Order
from epochal.plan.piles import KeyDealer, PositionDealer, dealer_bytes

KEYED = ["shuffled_sequential", "even_shuffled_sequential"]


@st.composite
def made_orders(draw, names=schemes.NAMES):
    n_rows = draw(st.integers(1, 150))
    selection = None
    if draw(st.booleans()):
        kept = draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
        selection = np.flatnonzero([*kept[:-1], True]).astype(np.int64)
    n_view = n_rows if selection is None else len(selection)
    name = draw(st.sampled_from(names))
    extra = {"num_batches": 3} if name.startswith("random") else {}
    if name.startswith("chunkwise"):
        extra = {"chunk_rows": 5, "mix_rows": 20}
    world = draw(st.sampled_from([1, 1, 2, 3]))
    batch_size = draw(st.integers(1, max(1, n_view // world)))
    if name == "random_slice" and batch_size * world > n_view:
        world = batch_size = 1
    shard = (draw(st.integers(0, world - 1)), world)
    scheme = schemes.make(
        name, n_view, batch_size=batch_size, seed=draw(st.integers(0, 99)), shard=shard, **extra
    )
    return Order(scheme, selection), n_rows


def dealt(dealer, n_rows, block_rows):
    """Heads of each pile, as blocks of rows deal them."""
    piles = [[] for _ in range(dealer.n_piles)]
    for start in range(0, n_rows, block_rows):
        stop = min(start + block_rows, n_rows)
        deal = dealer.deal(start, stop)
        local = np.arange(stop - start) if deal.local is None else deal.local
        assert len(local) == len(deal.piles) == len(deal.heads)
        assert (deal.heads[:, 1] == local + start).all()
        for pile, head in zip(deal.piles.tolist(), deal.heads, strict=True):
            piles[pile].append(head)
    return [np.array(pile, np.uint64).reshape(-1, 2) for pile in piles]


@settings(max_examples=200, deadline=None)
@given(made_orders(), st.integers(1, 200), st.integers(1, 60), st.data())
def test_piles_by_position_in_order_are_the_order(made, pile_rows, block_rows, data):
    order, n_rows = made
    start = data.draw(st.integers(0, max(order.n_positions - 1, 0)))
    dealer = PositionDealer(order, start, pile_rows, n_rows)
    served = []
    for pile, heads in enumerate(dealt(dealer, n_rows, block_rows)):
        assert len(heads) == dealer.pile_starts[pile + 1] - dealer.pile_starts[pile]
        index = dealer.index(heads, int(dealer.pile_starts[pile]))
        assert sorted(index.tolist()) == list(range(len(heads)))
        served += heads[index, 1].tolist()
    assert served == order.row_array(start, order.n_positions).tolist()


@settings(max_examples=200, deadline=None)
@given(made_orders(names=KEYED), st.integers(1, 20), st.integers(1, 60))
def test_piles_by_key_in_order_are_the_global_order(made, n_piles, block_rows):
    order, n_rows = made
    whole = schemes.make(
        "shuffled_sequential",
        order.scheme.n_rows,
        batch_size=1,
        seed=order.scheme.seed,
    )
    dealer = KeyDealer(order, n_piles)
    served = []
    for heads in dealt(dealer, n_rows, block_rows):
        served += heads[dealer.index(heads, 0), 1].tolist()
    assert served == Order(whole, order.selection).row_array(0, whole.n_positions).tolist()
    for batch in range(order.n_batches):
        start, stop = dealer.places(batch)
        assert served[start:stop] == order.row_array(*order.bounds(batch)).tolist()


@settings(max_examples=100, deadline=None)
@given(made_orders(names=["shuffled_sequential"]), st.integers(1, 12), st.randoms())
def test_rows_in_any_order_are_dealt_as_blocks_are(made, n_piles, random):
    order, n_rows = made
    order = Order(order.scheme.shard(0, 1), order.selection)
    rows = order.row_array(0, order.n_positions)
    shuffled = rows.tolist()
    random.shuffle(shuffled)
    by_position = PositionDealer(order, 0, -(-len(rows) // n_piles), n_rows)
    for dealer in (by_position, KeyDealer(order, n_piles)):
        block = dealer.deal(0, n_rows)
        where = {
            int(head[1]): (int(head[0]), int(p)) for head, p in zip(*_parts(block), strict=True)
        }
        again = dealer.deal_rows(np.array(shuffled, np.uint64))
        assert again.local is None
        assert again.heads[:, 1].tolist() == shuffled
        assert [(int(head[0]), int(p)) for head, p in zip(*_parts(again), strict=True)] == [
            where[row] for row in shuffled
        ]


def _parts(deal):
    return deal.heads, deal.piles


def test_equal_keys_are_put_in_order_by_their_rows():
    """Never seen by chance: 64-bit keys collide once in 2**64 / n**2 shuffles."""
    order = Order(schemes.make("shuffled_sequential", 4, batch_size=1, seed=0))
    heads = np.array([[5, 3], [2**63, 0], [5, 1], [0, 2]], np.uint64)
    assert KeyDealer(order, 1).index(heads, 0).tolist() == [3, 2, 0, 1]


@pytest.mark.parametrize("n_piles", [1, 2, 3, 1000, 1 << 16])
def test_key_piles_are_monotone_in_the_key(n_piles):
    order = Order(schemes.make("shuffled_sequential", 5000, batch_size=1, seed=7))
    deal = KeyDealer(order, n_piles).deal(0, 5000)
    by_key = np.argsort(deal.heads[:, 0])
    piles = deal.piles[by_key].astype(int)
    assert (np.diff(piles) >= 0).all()
    assert piles.max() < n_piles


def test_a_position_dealer_holds_what_it_says():
    for name in ("shuffled_sequential", "random_uniform"):
        extra = {"num_batches": 30} if name == "random_uniform" else {}
        order = Order(schemes.make(name, 1000, batch_size=100, seed=0, **extra))
        dealer = PositionDealer(order, 0, 100, 1000)
        held = sum(
            value.nbytes
            for key, value in vars(dealer).items()
            if isinstance(value, np.ndarray) and key != "pile_starts"
        )
        assert 0 < held <= dealer_bytes(order, 0, 1000)
