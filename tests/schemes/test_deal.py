import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.errors import SchemeError
from epochal.schemes.deal import EvenDeal, TableDeal, even_cut, uneven_cut


def dealt_by_hand(sizes, rank, world, batch_size=None):
    """Global positions of each batch of one rank, from the rule as the design states it."""
    batches, begin = [], 0
    for size in sizes:
        low, high = rank * size // world, (rank + 1) * size // world
        if high > low:
            batches.append(list(range(begin + low, begin + high)))
        begin += size
    return batches


def check(deal, batches):
    positions = [p for batch in batches for p in batch]
    n = len(positions)
    assert (deal.n_batches, deal.n_positions) == (len(batches), n)
    bounds = [deal.bounds(i) for i in range(deal.n_batches)]
    assert [stop - start for start, stop in bounds] == [len(batch) for batch in batches]
    assert [p for start, stop in bounds for p in range(start, stop)] == list(range(n))
    assert deal.global_position(np.arange(n)).tolist() == positions
    everywhere = np.arange(deal.limited_positions + 1)
    expected = [sum(p < g for p in positions) for g in everywhere.tolist()]
    assert deal.local_count(everywhere).tolist() == expected
    for start in range(n):
        for stop in range(start, n + 1):
            run = deal.run(start, stop)
            if run is not None and stop > start:
                assert list(range(*run)) == positions[start:stop]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 4), st.data())
def test_even_deal_is_the_rule(batch_size, world, full, data):
    group = batch_size * world
    short = data.draw(st.integers(0, group - 1))
    short_at = data.draw(st.integers(0, full))
    sizes = [group] * full
    if short:
        sizes.insert(short_at, short)
    for rank in range(world):
        deal = EvenDeal(batch_size, rank, world, full, short, short_at)
        assert deal.limited_positions == sum(sizes)
        check(deal, dealt_by_hand(sizes, rank, world))


@given(st.lists(st.integers(1, 6), max_size=6), st.integers(1, 4))
def test_table_deal_is_the_rule(sizes, world):
    starts = np.cumsum([0, *sizes])
    for rank in range(world):
        check(TableDeal(starts, rank, world), dealt_by_hand(sizes, rank, world))


def test_one_batch_is_one_run_of_positions():
    deal = EvenDeal.of(100, 4, 1, 3)
    for i in range(deal.n_batches):
        assert deal.run(*deal.bounds(i)) is not None


@pytest.mark.parametrize(
    ("cut", "arguments", "expected"),
    [
        (uneven_cut, (10, 3, None, 1), (3, 4)),
        (uneven_cut, (10, None, 4, 1), (3, 4)),
        (uneven_cut, (10, None, 6, 1), (2, 5)),  # rounding up leaves fewer than were asked
        (uneven_cut, (10, 3, 2, 1), (3, 2)),
        (uneven_cut, (10, 30, None, 1), (30, 1)),
        (uneven_cut, (10, 2, None, 3), (2, 2)),
        (uneven_cut, (10, None, 2, 3), (2, 2)),
        (uneven_cut, (0, 3, None, 1), (3, 0)),
        (uneven_cut, (0, None, 3, 1), (1, 0)),
        (even_cut, (10, 3, None, 1), (3, 3)),
        (even_cut, (10, None, 4, 1), (2, 4)),
        (even_cut, (10, 3, 2, 1), (3, 2)),
        (even_cut, (10, 30, None, 1), (30, 0)),
        (even_cut, (10, 2, None, 3), (2, 1)),
        (even_cut, (0, None, 3, 1), (1, 0)),
    ],
)
def test_sizes_as_pylearn2_has_them(cut, arguments, expected):
    assert cut(*arguments) == expected


def test_more_batches_than_there_are_is_an_error_that_names_the_numbers():
    with pytest.raises(SchemeError, match=r"num_batches=5 .* 10 rows give only 4 batches .*=3"):
        uneven_cut(10, 3, 5, 1)
    with pytest.raises(SchemeError, match=r"num_batches=4 .* 10 rows give only 3 even batches"):
        even_cut(10, 3, 4, 1)
    with pytest.raises(SchemeError, match=r"only 2 batches of batch_size=3 on each of 2 ranks"):
        uneven_cut(10, 3, 3, 2)
    with pytest.raises(SchemeError, match=r"at least 12 rows; there are 10: ask for at most 10"):
        even_cut(10, None, 12, 1)
    for cut in (uneven_cut, even_cut):
        with pytest.raises(SchemeError, match="neither batch_size nor num_batches"):
            cut(10, None, None, 1)
