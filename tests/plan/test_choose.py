"""Choosing a strategy: pure, within the budget, and with an answer to "why not that one"."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import schemes, sizes
from epochal.errors import BudgetError
from epochal.layout import Layout
from epochal.plan.choose import STRATEGIES, choose
from epochal.plan.machine import Machine, Rates
from epochal.plan.order import Order
from epochal.plan.windows import count_chunks, cut_windows

ROOMY = Machine(threads=2, scratch_free_bytes=1 << 40)


def made_layout(n_rows=100_000, chunk_rows=100, row_bytes=100, *, alone=False, overhead=0):
    n_chunks = -(-n_rows // chunk_rows)
    return Layout(
        shape=(n_rows, row_bytes),
        dtype=np.dtype("u1"),
        chunk_rows=chunk_rows,
        rows_alone=alone,
        piece_bytes=None if alone else np.full((n_chunks, 1), chunk_rows * row_bytes // 2, "u4"),
        read_overhead_bytes=overhead,
    )


def made_order(name="shuffled_sequential", n_rows=100_000, batch_size=50, **more):
    return Order(schemes.make(name, n_rows, batch_size=batch_size, **{"seed": 0, **more}))


def planned(budget_bytes, order=None, machine=ROOMY, **layouts):
    layouts = layouts or {"X": made_layout()}
    return choose(order or made_order(), layouts, budget_bytes=budget_bytes, machine=machine)


def only(strategy, budget_bytes, order, layouts, machine=ROOMY):
    return choose(order, layouts, budget_bytes=budget_bytes, machine=machine, only=(strategy,))


def test_the_same_question_has_the_same_answer():
    first = planned(3_000_000, X=made_layout(), y=made_layout(row_bytes=1))
    assert first == planned(3_000_000, X=made_layout(), y=made_layout(row_bytes=1))


@pytest.mark.parametrize(
    ("name", "budget_bytes", "expected"),
    [
        ("sequential", 2_000_000, "stream"),
        ("sequential", 20_000_000, "resident"),
        ("shuffled_sequential", 20_000_000, "resident"),
        ("shuffled_sequential", 3_000_000, "rescan"),  # piles would be small, and many
    ],
)
def test_the_cheapest_that_fits_is_chosen(name, budget_bytes, expected):
    assert planned(budget_bytes, made_order(name)).strategy == expected


def test_rows_of_a_large_file_are_spooled():
    plan = planned(30_000_000, X=made_layout(row_bytes=1000))
    assert plan.strategy == "spool"
    assert plan.predicted.spilled_bytes > 60_000_000


def test_without_scratch_the_file_is_scanned_again():
    machine = Machine(scratch_why="no scratch is allowed")
    plan = planned(4_000_000, machine=machine)
    assert plan.strategy == "rescan"
    assert {c.strategy: c.why_not for c in plan.candidates}["spool"] == "no scratch is allowed"


def test_too_little_scratch_is_none():
    plan = planned(4_000_000, machine=Machine(scratch_free_bytes=1000))
    assert plan.strategy == "rescan"
    why = {c.strategy: c.why_not for c in plan.candidates}["spool"]
    assert why == "scratch has 1000 B free, 11.1 MiB needed"


def test_rows_that_can_be_read_alone_are_gathered_where_that_is_quick():
    rates = {"X": Rates(decode_bytes_per_s=1e6, queued_row_seconds=1e-7)}
    layout = made_layout(n_rows=200_000, alone=True)
    plan = planned(6 << 20, made_order(n_rows=200_000), Machine(rates=rates), X=layout)
    assert plan.strategy == "gather"
    assert plan.predicted.read_bytes == layout.decoded_bytes
    assert plan.predicted.chunks_decoded == 0


@pytest.mark.parametrize("budget_bytes", [1_500_000, 3_000_000, 1 << 30])
@pytest.mark.parametrize("name", ["sequential", "shuffled_sequential", "random_uniform"])
def test_every_strategy_is_listed_with_its_cost_or_why_not(name, budget_bytes):
    more = {"num_batches": 100} if name == "random_uniform" else {}
    plan = planned(budget_bytes, made_order(name, **more))
    assert [c.strategy for c in plan.candidates] == list(STRATEGIES)
    for candidate in plan.candidates:
        assert (candidate.seconds is None) == bool(candidate.why_not)
        assert (candidate.seconds is None) == (candidate.later_seconds is None)
    chosen = next(c for c in plan.candidates if c.strategy == plan.strategy)
    assert chosen.seconds == plan.predicted.seconds


@pytest.mark.parametrize("name", ["sequential", "shuffled_sequential"])
@pytest.mark.parametrize("budget_bytes", [3_000_000, 1 << 30])
def test_a_plan_prints_and_turns_into_json(name, budget_bytes):
    plan = planned(budget_bytes, made_order(name), X=made_layout(), y=made_layout(row_bytes=1))
    facts = json.loads(json.dumps(plan.as_dict()))
    assert facts["strategy"] == plan.strategy
    assert facts["predicted"]["rows"] == 100_000
    assert [feed["source"] for feed in facts["feeds"]] == ["X", "y"]
    assert sum(facts["held"].values()) == facts["predicted"]["held_bytes"] <= budget_bytes
    page = str(plan)
    assert page.startswith(f"{name}: {plan.strategy} - ")
    assert sizes.show(budget_bytes) in page
    assert all(strategy in page for strategy in STRATEGIES)
    assert max(map(len, page.splitlines())) < 120


@st.composite
def questions(draw):
    n_rows = draw(st.integers(1, 3000))
    threads = draw(st.integers(1, 4))
    layouts = {
        f"s{k}": made_layout(
            n_rows,
            draw(st.integers(1, n_rows + 3)),
            draw(st.integers(1, 50)),
            alone=draw(st.booleans()),
            overhead=draw(st.integers(0, 500)),
        )
        for k in range(draw(st.integers(1, 3)))
    }
    name = draw(st.sampled_from(schemes.NAMES))
    batch_size = draw(st.integers(1, min(n_rows, 300)))
    more = {}
    if name.startswith("random"):
        more["num_batches"] = draw(st.integers(1, 20))
    if name.startswith("chunkwise"):
        more = {"chunk_rows": draw(st.integers(1, 60)), "mix_rows": draw(st.integers(1, 500))}
    order = made_order(name, n_rows, batch_size, **more)
    return order, layouts, Machine(threads=threads, scratch_free_bytes=1 << 40)


@settings(max_examples=200, deadline=None)
@given(questions(), st.sampled_from(list(STRATEGIES)), st.integers(9, 24), st.data())
def test_what_is_held_is_within_the_budget(question, strategy, log_bytes, data):
    order, layouts, machine = question
    budget_bytes = data.draw(st.integers(1 << log_bytes, 2 << log_bytes))
    start = data.draw(st.integers(0, max(order.n_batches - 1, 0)))
    try:
        plan = choose(
            order,
            layouts,
            budget_bytes=budget_bytes,
            machine=machine,
            only=(strategy,),
            start_batch=start,
        )
    except BudgetError:
        return
    assert plan.predicted.held_bytes <= budget_bytes
    assert sum(n_bytes for _, n_bytes in plan.held) == plan.predicted.held_bytes
    assert all(n_bytes >= 0 for _, n_bytes in plan.held)
    assert [feed.source for feed in plan.feeds] == list(layouts)
    assert plan.batches_ahead >= 1
    assert plan.batch_group >= 1


@settings(max_examples=50, deadline=None)
@given(questions(), st.sampled_from(list(STRATEGIES)))
def test_more_memory_never_makes_a_strategy_infeasible(question, strategy):
    order, layouts, machine = question
    fitted = None
    budget_bytes = 1000
    while budget_bytes < 1 << 24:
        try:
            only(strategy, budget_bytes, order, layouts, machine)
            fitted = fitted or budget_bytes
        except BudgetError:
            assert fitted is None, f"{fitted} bytes are enough, and {budget_bytes} are not"
        budget_bytes = budget_bytes * 4 // 3


def test_more_memory_does_not_move_a_spool_from_keys_to_places_that_do_not_fit():
    layouts = {"X": made_layout(3000, 7, 1)}
    order = made_order(n_rows=3000, batch_size=1000)
    for budget_bytes in range(500_000, 700_000, 2_500):
        assert only("spool", budget_bytes, order, layouts).strategy == "spool"


def named_bytes(error):
    """What a `BudgetError` says is needed, not less than was meant: the text is rounded."""
    number, unit = re.search(r"([\d.]+) (B|[KMG]iB) needed", str(error)).groups()
    step = 0 if unit == "B" else 0.05
    return sizes.parse(f"{float(number) + step:.3f}{unit}")


@settings(max_examples=100, deadline=None)
@given(questions(), st.sampled_from([*STRATEGIES, None]), st.integers(1, 5000))
def test_the_memory_that_a_refusal_names_is_enough(question, strategy, budget_bytes):
    order, layouts, machine = question
    allowed = None if strategy is None else (strategy,)
    try:
        choose(order, layouts, budget_bytes=budget_bytes, machine=machine, only=allowed)
    except BudgetError as error:
        if "needed" not in str(error):
            return
        needed = named_bytes(error)
        assert needed > budget_bytes
        choose(order, layouts, budget_bytes=needed, machine=machine, only=allowed)


def test_a_refusal_names_the_batch_and_the_chunk():
    with pytest.raises(BudgetError, match=r"^memory=10\.0 KiB cannot hold a batch of 50 rows"):
        planned(10 << 10)
    with pytest.raises(BudgetError, match=r"chunk being decoded \(9\.8 KiB of 'X'\).* needed"):
        planned(10 << 10, X=made_layout(), y=made_layout(row_bytes=1))
    with pytest.raises(BudgetError, match=r"Give more memory, smaller batches, or rewrite"):
        planned(10 << 10)


def test_a_refusal_says_nothing_of_chunks_where_there_are_none():
    layout = replace(made_layout(alone=True), kind="contiguous")
    with pytest.raises(
        BudgetError, match=r"what is read at a time .* needed. Give [^.]*batches\.$"
    ):
        planned(10 << 10, X=layout)


def test_a_refusal_that_no_memory_would_lift_says_why():
    with pytest.raises(BudgetError, match="does not follow the file"):
        only("stream", 1 << 30, made_order(), {"X": made_layout()})
    with pytest.raises(BudgetError, match="without decoding their chunk"):
        only("gather", 1 << 30, made_order(), {"X": made_layout()})


def test_a_short_batch_that_comes_first_does_not_size_the_plan():
    """The next epoch of the same order must fit where this one did."""
    layouts = {"X": made_layout(1001, 10, 100)}
    order = made_order("batchwise_shuffled_sequential", 1001, 100)
    shorts = [e for e in range(100) if order.at(e).bounds(0) == (0, 1)]
    assert shorts
    usual = only("rescan", 1 << 20, order.at(shorts[0] + 1), layouts)
    first = only("rescan", 1 << 20, order.at(shorts[0]), layouts)
    assert dict(first.held) == dict(usual.held)


@pytest.mark.parametrize("strategy", ["resident", "rescan"])
def test_an_epoch_of_the_short_batch_alone_does_not_size_the_plan(strategy):
    """With so many batches, and no more: one epoch has the short batch, the next has not."""
    layouts = {"X": made_layout(1001, 10, 100)}
    order = made_order("batchwise_shuffled_sequential", 1001, 100, num_batches=1)
    short = next(e for e in range(200) if order.at(e).n_positions == 1)
    usual = next(e for e in range(200) if order.at(e).n_positions == 100)
    budget_bytes = 1000
    while budget_bytes < 1 << 20:
        try:
            only(strategy, budget_bytes, order.at(short), layouts)
        except BudgetError:
            budget_bytes = budget_bytes * 21 // 20
        else:
            break
    assert only(strategy, budget_bytes, order.at(usual), layouts).strategy == strategy


def test_small_sources_stay_resident_beside_a_large_one():
    small = made_layout(row_bytes=1)
    large = made_layout(row_bytes=1000)
    plan = planned(30_000_000, X=large, y=small)
    assert [feed.kind for feed in plan.feeds] == ["spool", "resident"]
    assert plan.predicted.read_bytes == large.stored_bytes + small.stored_bytes


def test_a_larger_budget_spills_less():
    spilled = []
    for megabytes in (3, 4, 6, 9, 13, 20, 60):
        plan = only("spool", megabytes * 1_000_000, made_order(), {"X": made_layout()})
        spilled.append(plan.predicted.spilled_bytes)
    assert spilled == sorted(spilled, reverse=True)
    assert spilled[0] > 8_000_000
    assert spilled[-1] == 0


def test_what_a_scan_touches_is_counted_for_the_plan_that_runs():
    """However many rows: what is expected is only what strategies are chosen by."""
    order, layout = made_order(), made_layout()
    plan = planned(3_000_000, order, Machine(scratch_why="no scratch"))
    (feed,) = plan.feeds
    assert plan.strategy == "rescan"
    windows = cut_windows(order, 0, feed.window_rows, whole_batches=not feed.windows_ahead)
    read, pieces, decoded = count_chunks(order, layout, windows)
    predicted = plan.predicted
    assert (predicted.read_bytes, predicted.chunks_decoded) == (read, pieces)
    assert predicted.decoded_bytes == decoded
