"""Sums of neighbours, compared in one call."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.stores import checks
from epochal.stores.checks import Checks, running


def pieces_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(n) for n in sizes]


def laid_out(parts, gaps):
    """The parts in a buffer, each behind a gap, and where they begin."""
    data, starts = bytearray(), []
    for part, gap in zip(parts, gaps, strict=True):
        data += b"\xee" * gap
        starts.append(len(data))
        data += part
    return np.frombuffer(bytes(data), np.uint8).copy(), starts


def checks_of(parts):
    sums = np.array([zlib.crc32(part) for part in parts], np.uint32)
    return Checks(sums, np.array([len(part) for part in parts], np.uint32))


@given(sizes=st.lists(st.integers(0, 300), max_size=30), seed=st.integers(0, 2**32 - 1))
def test_running_sums_are_those_of_zlib(sizes, seed):
    parts = pieces_of(sizes, seed)
    sums = np.array([zlib.crc32(part) for part in parts], np.uint32)
    found = running(sums, np.array(sizes, np.int64))
    assert found.tolist() == [zlib.crc32(b"".join(parts[:k])) for k in range(len(parts) + 1)]


def test_running_sums_of_pieces_beyond_the_order_of_x():
    """16 GiB of pieces: their bits wrap around."""
    rng = np.random.default_rng(1)
    sums = rng.integers(0, 1 << 32, 40, dtype=np.uint32)
    sizes = np.full(40, (1 << 32) - 17, np.int64)
    found = running(sums, sizes)
    for k in range(40):  # a piece at a time wraps nowhere
        one = running(np.array([found[k], sums[k]]), np.array([0, sizes[k]]))
        assert one[2] == found[k + 1]


@given(data=st.data())
def test_one_flip_in_a_run_is_found_in_its_piece(data):
    sizes = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=24))
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 0, 5]), min_size=len(sizes), max_size=24))
    gaps = (gaps + [0] * len(sizes))[: len(sizes)]
    first = data.draw(st.integers(0, len(sizes) - 1))
    block = data.draw(st.sampled_from([1, 3, 8, 1 << 14]))
    parts = pieces_of(sizes)
    buffer, starts = laid_out(parts[first:], gaps[first:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "BLOCK_PIECES", block)
        watch = checks_of(parts)
        assert watch.wrong(first, buffer, starts, sizes[first:]) is None
        stored = [k for k in range(first, len(sizes)) if sizes[k]]
        if stored:
            piece = data.draw(st.sampled_from(stored))
            at = starts[piece - first] + data.draw(st.integers(0, sizes[piece] - 1))
            buffer[at] ^= 1 << data.draw(st.integers(0, 7))
            found = watch.wrong(first, buffer, starts, sizes[first:])
            assert found is not None
            assert found[0] == piece
            assert "its checksum is" in found[1]


@pytest.mark.parametrize(("gaps", "calls"), [([0] * 64, 1), ([0] * 32 + [7] + [0] * 31, 2)])
def test_a_run_takes_a_call_for_each_part_that_lies_together(monkeypatch, gaps, calls):
    parts = pieces_of([100] * 64)
    buffer, starts = laid_out(parts, gaps)
    watch = checks_of(parts)
    counted = []
    real = checks.crc32
    monkeypatch.setattr(checks, "crc32", lambda *args: counted.append(args) or real(*args))
    assert watch.wrong(0, buffer, starts, [100] * 64) is None
    assert len(counted) == calls


def test_two_pieces_that_changed_places_are_found():
    parts = pieces_of([50] * 8)
    watch = checks_of(parts)
    parts[2], parts[5] = parts[5], parts[2]
    buffer, starts = laid_out(parts, [0] * 8)
    assert watch.wrong(0, buffer, starts, [50] * 8)[0] == 2
