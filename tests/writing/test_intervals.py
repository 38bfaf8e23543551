"""Ranges of rows against a set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from epochal.writing.intervals import Intervals

ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12)


@given(ranges, st.integers(0, 32), st.integers(0, 32))
def test_equals_a_set(pairs, start, stop):
    rows, oracle = Intervals(), set()
    for first, last in pairs:
        rows.add(first, last)
        oracle |= set(range(first, last))
    assert rows.holds(start, stop) == (set(range(start, stop)) <= oracle)
    missing = {row for first, last in rows.missing(stop) for row in range(first, last)}
    assert missing == set(range(stop)) - oracle


@given(ranges)
def test_ranges_are_merged(pairs):
    rows = Intervals(pairs)
    gaps = rows.missing(40)
    assert all(first < last for first, last in gaps)
    assert all(a[1] < b[0] for a, b in pairwise(gaps))
