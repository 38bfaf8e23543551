"""Cutting orders into windows and windows into reads, against the order as one list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal import schemes
from epochal.layout import Layout
from epochal.plan.order import Order
from epochal.plan.windows import count_chunks, cut_stream, cut_windows, in_file_order, window_of
from epochal.testing.stores import ChunkedArrays


def made_layout(n_rows, chunk_rows, row_bytes=1):
    array = np.zeros((n_rows, row_bytes), np.uint8)
    return ChunkedArrays({"X": (array, chunk_rows)}).sources["X"].layout


@st.composite
def made_orders(draw, names=schemes.NAMES):
    n_rows = draw(st.integers(1, 200))
    selection = None
    if draw(st.booleans()):
        kept = draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
        selection = np.flatnonzero([True, *kept[1:]]).astype(np.int64)
    n_view = n_rows if selection is None else len(selection)
    name = draw(st.sampled_from(names))
    extra = {}
    if name.startswith("random"):
        extra["num_batches"] = draw(st.integers(1, 9))
    if name.startswith("chunkwise"):
        extra = {"chunk_rows": draw(st.integers(1, 30)), "mix_rows": draw(st.integers(1, 90))}
    batch_size = draw(st.integers(1, n_view))
    scheme = schemes.make(
        name, n_view, batch_size=batch_size, seed=draw(st.integers(0, 9)), **extra
    )
    layout = made_layout(n_rows, draw(st.integers(1, n_rows + 5)))
    start = draw(st.integers(0, scheme.n_positions))
    return Order(scheme, selection), layout, start


@settings(max_examples=200, deadline=None)
@given(made_orders(), st.integers(1, 250), st.booleans())
def test_windows_partition_the_rest_of_the_order(made, window_rows, whole_batches):
    order, _, start = made
    at = start
    for low, high in cut_windows(order, start, window_rows, whole_batches=whole_batches):
        assert low == at
        assert 0 < high - low <= window_rows
        at = high
    assert at == order.n_positions


@settings(max_examples=200, deadline=None)
@given(made_orders(), st.integers(0, 60))
def test_a_window_of_a_batch_or_more_never_cuts_a_batch(made, more):
    order, _, _ = made
    ends = {order.bounds(batch)[1] for batch in range(order.n_batches)}
    window_rows = order.scheme.batch_size + more
    for _, high in cut_windows(order, 0, window_rows, whole_batches=True):
        assert high in ends


@settings(max_examples=200, deadline=None)
@given(made_orders(names=["chunkwise_shuffled_sequential"]), st.integers(1, 120))
def test_mixing_windows_are_cut_only_when_they_are_too_large(made, window_rows):
    order, _, _ = made
    ends = set(order.scheme.window_bounds().tolist())
    for low, high in cut_windows(order, 0, window_rows):
        if high not in ends:  # the mixing window that is cut begins here, and is larger than ours
            assert not any(low < end <= low + window_rows for end in ends)


@settings(max_examples=200, deadline=None)
@given(made_orders(names=["sequential", "even_sequential"]), st.integers(1, 120), st.integers(0, 3))
def test_windows_of_a_stream_share_no_chunk(made, window_rows, readers):
    order, layout, start = made
    seen, at = set(), start
    for low, high in cut_stream(order, layout, start, window_rows, readers):
        assert (low, at) == (at, low)
        chunks = set((order.row_array(low, high) // layout.chunk_rows).tolist())
        assert not chunks & seen
        seen |= chunks
        at = high
        # No longer than asked for, unless less than one chunk was.
        assert high - low <= window_rows or window_rows < layout.chunk_rows
    assert at == order.n_positions


def test_readers_of_a_stream_end_together():
    """The last windows are shorter, down to a chunk."""
    order = Order(schemes.make("sequential", 1000, batch_size=10))
    layout = Layout((1000,), np.dtype("u1"), 10)
    sizes = [high - low for low, high in cut_stream(order, layout, 0, 100, 2)]
    assert sizes[:6] == [100] * 6
    assert sizes[6:] == sorted(sizes[6:], reverse=True)
    assert sizes[-2:] == [10, 10]


@settings(max_examples=300, deadline=None)
@given(made_orders(), st.integers(1, 250), st.integers(0, 100), st.booleans())
def test_reads_bring_each_row_to_its_slot(made, window_rows, run_bytes, alone):
    """Carried out on plain arrays, a window is the order's rows; its slots are a partition."""
    order, layout, start = made
    numbers = np.arange(layout.n_rows)
    stop = min(start + window_rows, order.n_positions)
    window = window_of(order, layout, start, stop, run_bytes=run_bytes, alone=alone)
    slots = np.full(stop - start, -1)
    filled = np.zeros(stop - start, int)
    chunks = []
    for read in window.reads:
        part = slice(read.first_slot, read.first_slot + read.n_slots)
        filled[part] += 1
        if alone:
            slots[part] = numbers[read.rows]
            continue
        chunks += range(read.start, read.stop)
        low, high = layout.bounds(read.start)[0], layout.bounds(read.stop - 1)[1]
        block = numbers[low:high]
        slots[part] = block if read.rows is None else block[read.rows]
        assert read.stop - read.start == 1 or (high - low) <= max(run_bytes, layout.chunk_rows)
    assert (filled == 1).all()
    got = slots if window.index is None else slots[window.index]
    wanted = order.row_array(start, stop)
    assert got.tolist() == wanted.tolist()
    if not alone:  # each touched chunk once, in the file's order, and no other
        assert chunks == sorted(set((wanted // layout.chunk_rows).tolist()))


@settings(max_examples=200, deadline=None)
@given(made_orders(), st.integers(1, 250))
def test_chunks_are_counted_as_windows_touch_them(made, window_rows):
    order, layout, start = made
    bounds = list(cut_windows(order, start, window_rows))
    read = pieces = decoded = 0
    for low, high in bounds:
        chunks = sorted(set((order.row_array(low, high) // layout.chunk_rows).tolist()))
        read += int(layout.chunk_stored_bytes[chunks].sum())
        pieces += int(layout.chunk_pieces[chunks].sum())
        decoded += int(layout.chunk_row_counts[chunks].sum()) * layout.row_bytes
    assert count_chunks(order, layout, iter(bounds)) == (read, pieces, decoded)


@pytest.mark.parametrize("rows", [[3, 1, 2], [5, 5, 0, 5], [], [0], [2, 0, 1]])
def test_in_file_order_says_where_each_row_was(rows):
    """Also for permutations that are not their own inverses."""
    asked = np.array(rows, np.int64)
    ordered, places = in_file_order(asked)
    assert ordered.tolist() == sorted(rows)
    back = np.empty_like(asked)
    back[places] = ordered
    assert back.tolist() == rows


def test_slices_and_ascending_rows_stay_as_they_are():
    ordered, places = in_file_order(slice(2, 5))
    assert (ordered.tolist(), places) == ([2, 3, 4], None)
    rows = np.array([1, 4, 4])
    ordered, places = in_file_order(rows, ascending=True)
    assert ordered is rows
    assert places is None


def test_a_layout_counts_its_short_chunk():
    layout = Layout(shape=(7, 2), dtype=np.dtype("<f4"), chunk_rows=3)
    assert layout.chunk_row_counts.tolist() == [3, 3, 1]
    assert layout.chunk_stored_bytes.tolist() == [24, 24, 8]
    assert layout.stored_bytes == layout.decoded_bytes == 56
    assert [layout.bounds(c) for c in range(3)] == [(0, 3), (3, 6), (6, 7)]
