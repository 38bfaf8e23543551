"""The strongest law of the project: whatever the strategy, the batches are ``oracle[rows]``."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from budgets import feasible
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from epochal import schemes
from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.plan import spool
from epochal.plan.machine import Machine, Rates
from epochal.planning import Settings
from epochal.stores.concat import ConcatSource
from epochal.stores.memory import ArraySource
from epochal.testing.stores import ChunkedArrays, CountingSource, SourceStore

EPOCHS = 3
LONG_BYTES = spool.LONG_BYTES
STRATEGIES = ("stream", "resident", "gather", "rescan", "spool")
MONOTONE = ("sequential", "even_sequential")
KEYED = ("shuffled_sequential", "even_shuffled_sequential")
ROW_SHAPES = ((), (3,), (2, 2))
DTYPES = ("u1", ">i4", "f8", np.dtype([("a", "<i2"), ("b", ">f4")]))
SIZES = st.sampled_from((1, 2, 3, 17, 64, 129)) | st.integers(1, 700)


def made_array(n_rows, row_shape, dtype, seed):
    """An array of arbitrary bytes, read-only; NaNs of every kind among its floats."""
    dtype = np.dtype(dtype)
    n_bytes = n_rows * int(np.prod(row_shape, dtype=int)) * dtype.itemsize
    data = np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8)
    array = data.view(dtype).reshape(n_rows, *row_shape)
    array.flags.writeable = False
    return array


@dataclass
class Case:
    """A dataset, an order, and how much memory: everything that a law is asked about."""

    strategy: str
    arrays: dict[str, np.ndarray]
    chunk_rows: dict[str, int]
    alone: dict[str, bool | str]
    scheme: str
    order: dict[str, Any]
    mix_bytes: int
    threads: int
    slack: float
    selection: np.ndarray | None = None
    decode_bytes_per_s: float = 300e6
    row_readers: int = 0
    cached_row_seconds: float = 0.0
    long_bytes: int = LONG_BYTES
    counting: dict[str, CountingSource] = field(default_factory=dict)
    budget_bytes: int = 0
    files: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            # Several files as one have short chunks in their midst.
            parts = [self._part(name, part) for part in np.split(array, self.files.get(name, []))]
            source = parts[0] if len(parts) == 1 else ConcatSource(parts)
            self.counting[name] = CountingSource(source)

    def _part(self, name: str, array: np.ndarray) -> Any:
        if self.alone[name] == "mostly":  # some chunks are to be read as a whole
            n_chunks = -(-len(array) // self.chunk_rows[name])
            coded = np.flatnonzero(np.random.default_rng(len(array)).random(n_chunks) < 0.3)
            arguments = (array, self.chunk_rows[name], coded)
            return ChunkedArrays({name: arguments}).sources[name]
        if self.alone[name]:
            return ArraySource(array, self.chunk_rows[name])
        return ChunkedArrays({name: (array, self.chunk_rows[name])}).sources[name]

    @property
    def n_view_rows(self) -> int:
        n_rows = len(next(iter(self.arrays.values())))
        return n_rows if self.selection is None else len(self.selection)

    def dataset(self) -> Dataset:
        store = SourceStore(self.counting)
        return Dataset(store, store.sources, selection=self.selection)

    def with_budget(self, budget_bytes: int) -> Batches:
        spool.LONG_BYTES = self.long_bytes
        made = Settings(
            budget_bytes,
            self.threads,
            None,
            (self.strategy,),
            Machine(
                threads=self.threads,
                rates=dict.fromkeys(
                    self.arrays,
                    Rates(
                        self.decode_bytes_per_s,
                        row_readers=self.row_readers,
                        cached_row_seconds=self.cached_row_seconds,
                    ),
                ),
                scratch_free_bytes=1 << 40,
            ),
        )
        return self.dataset()._batches(
            dict(self.counting), made, self.scheme, mix_bytes=self.mix_bytes, **self.order
        )

    def batches(self) -> Batches:
        """Batches by the case's strategy, in about the least memory that it runs in, times the
        slack.
        """
        least, _ = feasible(self.with_budget, 512)
        self.budget_bytes, batches = feasible(self.with_budget, int(least * self.slack))
        return batches

    def oracle(self, epoch: int) -> list[tuple[np.ndarray, ...]]:
        """Every batch of an epoch, from the plain arrays."""
        extra = {}
        if self.scheme == "chunkwise_shuffled_sequential":
            sizes = {name: array.nbytes for name, array in self.arrays.items()}
            row_bytes = sum(array.dtype.itemsize * array[0].size for array in self.arrays.values())
            extra = {
                "chunk_rows": self.chunk_rows[max(sizes, key=sizes.get)],
                "mix_rows": max(1, self.mix_bytes // row_bytes),
            }
        order = {**self.order, "epoch": epoch}
        scheme = schemes.make(self.scheme, self.n_view_rows, **order, **extra)
        view = {
            name: array if self.selection is None else array[self.selection]
            for name, array in self.arrays.items()
        }
        return [
            tuple(array[scheme.batch(i)] for array in view.values()) for i in range(len(scheme))
        ]


@st.composite
def orders(draw, names, n_rows, *, world=None):
    """A scheme's name, and arguments of `schemes.make` that it takes over so many rows."""
    name = draw(st.sampled_from(names))
    world = world or draw(st.sampled_from((1, 1, 1, 2, 3)))
    if name == "random_slice":
        world = min(world, n_rows)
    batch_size = draw(st.integers(1, max(1, min(n_rows // world, 60))))
    seed: Any = draw(st.integers(0, 2**64 - 1))
    epoch = draw(st.sampled_from((0, 1, 5)))
    if not name.startswith("chunkwise") and draw(st.integers(0, 3)) == 0:
        seed = np.random.RandomState(seed % 2**32)
    order: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "epoch": epoch}
    order["shard"] = (draw(st.integers(0, world - 1)), world)
    group = batch_size * world
    possible = n_rows // group if name.startswith("even") else -(-n_rows // group)
    if name.startswith("random"):
        order["num_batches"] = draw(st.integers(1, 12))
    elif name == "even_sequences":
        lengths = st.lists(st.integers(0, 3), min_size=n_rows, max_size=n_rows)
        order["lengths"] = draw(lengths) if n_rows < 100 else np.arange(n_rows) % 4
    elif possible and draw(st.integers(0, 2)) == 0:
        order["num_batches"] = draw(st.integers(1, possible))
        if draw(st.booleans()):
            del order["batch_size"]
    return name, order


@st.composite
def cases(draw, strategy, names=schemes.NAMES, world=None):
    spools = strategy == "spool"  # many rows, or nothing is kept in part
    n_rows = draw(SIZES | st.integers(400, 700) if spools else SIZES)
    n_sources = draw(st.sampled_from((1, 1, 2, 3)))
    if strategy == "stream":
        names = [name for name in names if name in MONOTONE]
    arrays, chunk_rows, alone, files = {}, {}, {}, {}
    for k in range(n_sources):
        name = f"s{k}"
        shape, dtype = draw(st.sampled_from(ROW_SHAPES)), draw(st.sampled_from(DTYPES))
        arrays[name] = made_array(n_rows, shape, dtype, seed=k + n_rows)
        chunk_rows[name] = draw(st.integers(1, min(n_rows + 5, 80)) | st.just(n_rows + 5))
        may = (True, "mostly") if strategy == "gather" else (True, "mostly", False, False)
        alone[name] = draw(st.sampled_from(may))
        files[name] = sorted(draw(st.lists(st.integers(0, n_rows), max_size=3)))
    selection = None
    if n_rows > 1 and draw(st.integers(0, 2)) == 0:
        kept = np.random.default_rng(n_rows).random(n_rows) < draw(st.sampled_from((0.2, 0.9)))
        kept[draw(st.integers(0, n_rows - 1))] = True
        selection = np.flatnonzero(kept)
    n_view = n_rows if selection is None else len(selection)
    scheme, order = draw(orders(names, n_view, world=world))
    return Case(
        strategy,
        arrays,
        chunk_rows,
        alone,
        scheme,
        order,
        mix_bytes=draw(st.sampled_from((1, 500, 5000))),
        threads=draw(st.integers(1, 3)),
        slack=draw(st.sampled_from((1.0, 1.2, 1.4, 1.7, 2.0) if spools else (1.0, 1.1, 3.0, 10.0))),
        selection=selection,
        row_readers=draw(st.integers(0, 1)),
        cached_row_seconds=draw(st.sampled_from((0.0, 1e-7))),
        files=files,
        long_bytes=draw(st.sampled_from((1, LONG_BYTES))),
    )


@st.composite
def keyed_cases(draw):
    """Many tiny rows in little memory: an order that is not held, so that rows go by their keys."""
    n_rows = draw(st.sampled_from((1500, 3000, 5001)))
    array = made_array(n_rows, draw(st.sampled_from(((), (4,)))), "u1", seed=n_rows)
    selection = None
    if draw(st.booleans()):
        selection = np.flatnonzero(np.random.default_rng(1).random(n_rows) < 0.8)
    n_view = n_rows if selection is None else len(selection)
    rolls = draw(st.booleans())  # all rows, and slowly decoded
    world = 1 if rolls else draw(st.sampled_from((1, 2)))
    batch_size = draw(st.sampled_from((100, 333, 1000)))
    order: dict[str, Any] = {
        "batch_size": batch_size // world,
        "seed": draw(st.integers(0, 2**64 - 1)),
        "shard": (draw(st.integers(0, world - 1)), world),
    }
    if not rolls and draw(st.booleans()):
        order["num_batches"] = draw(st.integers(1, n_view // batch_size))
    return Case(
        "spool",
        {"X": array},
        {"X": draw(st.sampled_from((7, 50, 400)))},
        {"X": False},
        draw(st.sampled_from(KEYED)),
        order,
        mix_bytes=1000,
        threads=draw(st.integers(1, 3)),
        slack=draw(st.sampled_from((1.0, 1.1, 1.4))),
        selection=selection,
        decode_bytes_per_s=1e5 if rolls else 300e6,
        long_bytes=draw(st.sampled_from((1, LONG_BYTES))),
    )


def assert_same(batch, expected, names):
    """Bit for bit, and the caller's own: fresh, writable memory."""
    assert batch._fields == tuple(names)
    assert len(batch) == len(expected)
    for got, want in zip(batch, expected, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        assert got.tobytes() == want.tobytes()
        assert got.flags.writeable
        assert got.flags.c_contiguous


def assert_epoch(case, batches, epoch):
    expected = case.oracle(epoch)
    assert batches.epoch == epoch
    assert len(batches) == len(expected)
    served = 0
    for batch, want in zip(batches, expected, strict=True):
        assert_same(batch, want, case.arrays)
        served += 1
    assert served == len(expected)
    assert batches.stats.rows == sum(len(want[0]) for want in expected)
    assert batches.stats.strategy == case.strategy or not expected


def kinds(plan):
    """What a plan does, for counting."""
    yield plan.strategy
    yield f"{len(plan.feeds)} sources"
    for feed in plan.feeds:
        if feed.kind == "spool":
            yield "by position" if feed.by_position else "by key"
            if feed.piles_kept < feed.n_piles:
                yield "spilled"
            if 0 < feed.piles_kept < feed.n_piles:
                yield "partly kept"
            if feed.piles_kept < feed.n_piles and spool.LONG_BYTES == 1:
                yield "straight"
            if feed.roll:
                yield "rolled"
            if feed.n_piles > 2:
                yield "several piles"
        elif plan.strategy in ("gather", "rescan", "spool") and feed.kind == "resident":
            yield "resident beside it"
        if feed.kind == "direct":
            yield "direct"
        if any(what.endswith("chunks that were decoded") for what, _ in plan.held):
            yield "partly decoded"
        if feed.kind == "window" and feed.window_rows:
            yield f"{feed.windows_ahead} windows ahead"


EXPECTED = {
    "stream": (),
    "resident": (),
    "gather": ("direct", "1 windows ahead", "partly decoded"),
    "rescan": ("resident beside it", "0 windows ahead", "1 windows ahead"),
    "spool": ("by position", "spilled", "partly kept", "straight", "rolled", "several piles"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_yields_the_rows_of_the_oracle(strategy):
    seen: Counter[str] = Counter()

    @settings(max_examples=150 if strategy == "spool" else 80, deadline=None)
    @given(cases(strategy))
    def law(case):
        batches = case.batches()
        seen.update(set(kinds(batches.plan)))
        event(case.scheme)
        first = batches.epoch
        for epoch in range(first, first + EPOCHS):
            assert_epoch(case, batches, epoch)
        batches.close()

    law()
    assert seen[strategy] >= 40
    assert {kind for kind in EXPECTED[strategy] if not seen[kind]} == set()


def test_spools_by_key_yield_the_rows_of_the_oracle():
    seen: Counter[str] = Counter()

    @settings(max_examples=40, deadline=None)
    @given(keyed_cases())
    def law(case):
        batches = case.batches()
        assume("by key" in kinds(batches.plan))
        seen.update(set(kinds(batches.plan)))
        for epoch in range(EPOCHS):
            assert_epoch(case, batches, epoch)
        batches.close()

    law()
    assert seen["by key"] >= 15
    assert all(seen[kind] for kind in ("spilled", "partly kept", "rolled", "several piles")), seen


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_more_is_held_than_the_budget(strategy):
    @settings(max_examples=60, deadline=None)
    @given(cases(strategy) if strategy != "spool" else cases(strategy) | keyed_cases())
    def law(case):
        batches = case.batches()
        plan = batches.plan
        assert plan.predicted.held_bytes <= case.budget_bytes
        assert plan.later.held_bytes <= case.budget_bytes
        assert sum(n_bytes for _, n_bytes in plan.held) == plan.predicted.held_bytes
        for _ in range(EPOCHS):
            for _ in batches:
                assert batches.stats.peak_bytes <= case.budget_bytes
        batches.close()

    law()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("chunk_rows", [1, 3, 50])
@pytest.mark.parametrize("batch_size", [7, 100, 400])
def test_batches_larger_than_chunks_are_held_within_the_budget(strategy, chunk_rows, batch_size):
    """Wide rows in the least memory: what is held is data, and a batch needs many chunks."""
    case = Case(
        strategy,
        {"X": made_array(400, (100,), "f8", 0)},
        {"X": chunk_rows},
        {"X": strategy == "gather"},
        "sequential" if strategy == "stream" else "shuffled_sequential",
        {"batch_size": batch_size, "seed": 3},
        mix_bytes=1000,
        threads=2,
        slack=1.0,
    )
    batches = case.batches()
    for epoch in range(EPOCHS):
        assert_epoch(case, batches, epoch)
        assert batches.stats.peak_bytes <= case.budget_bytes
    batches.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_predicted_is_what_is_counted(strategy):
    @settings(max_examples=80, deadline=None)
    @given(cases(strategy) if strategy != "spool" else cases(strategy) | keyed_cases())
    def law(case):
        batches = case.batches()
        for _ in range(EPOCHS):
            for _ in batches:
                pass
            report = batches.explain()
            predicted, measured = report.predicted, report.measured
            if not measured.rows:
                continue
            assert measured.rows == predicted.rows
            assert measured.read_bytes == predicted.read_bytes
            assert measured.decoded_bytes == predicted.decoded_bytes
            assert measured.chunks_decoded == predicted.chunks_decoded
            spooled = [feed for feed in report.plan.feeds if feed.kind == "spool"]
            pile_bytes = sum(
                feed.buffer_rows * (16 + case.counting[feed.source].layout.row_bytes)
                for feed in spooled
            )
            off = abs(measured.spilled_bytes - predicted.spilled_bytes)
            assert off <= 0.1 * predicted.spilled_bytes + pile_bytes
        batches.close()

    law()


@pytest.mark.parametrize("strategy", ["stream", "resident", "spool"])
def test_each_chunk_is_decoded_once_an_epoch(strategy):
    """Later epochs of what is kept, or rolled, decode nothing."""

    @settings(max_examples=60, deadline=None)
    @given(cases(strategy, names=("sequential", "shuffled_sequential"), world=1))
    def law(case):
        assume(case.selection is None and "num_batches" not in case.order)
        case.alone = dict.fromkeys(case.alone, False)
        case.__post_init__()
        batches = case.batches()
        feeds = {feed.source: feed for feed in batches.plan.feeds}
        iterator = iter(batches)
        for _ in range(len(batches)):
            next(iterator)
        for source in case.counting.values():
            assert set(source.chunks) == set(range(source.layout.n_chunks))
            assert set(source.chunks.values()) == {1}
            assert source.rows == 0
        assert next(iterator, None) is None
        for _ in range(EPOCHS - 1):
            for _ in batches:
                pass
        for name, source in case.counting.items():
            if feeds[name].kind == "resident" or feeds[name].roll:
                assert set(source.chunks.values()) == {1}
        batches.close()

    law()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batches_are_the_callers_own(strategy):
    """Overwriting one changes no other, now or in a later epoch."""
    n_rows, scheme = 300, "sequential" if strategy == "stream" else "shuffled_sequential"
    case = Case(
        strategy,
        {"X": made_array(n_rows, (2, 2), "f8", 0), "y": made_array(n_rows, (), "u1", 1)},
        {"X": 7, "y": 100},
        dict.fromkeys("Xy", strategy == "gather"),
        scheme,
        {"batch_size": 16, "seed": 3},
        mix_bytes=1000,
        threads=2,
        slack=1.5,
    )
    batches = case.batches()
    for epoch in range(EPOCHS):
        held = []
        for batch in batches:
            held.append(batch)
            array = held[len(held) // 2].X
            array.view(np.uint8)[...] = 0xA5
        for i, (batch, want) in enumerate(zip(held, case.oracle(epoch), strict=True)):
            assert batch.y.tobytes() == want[1].tobytes()
            if i > len(held) // 2:
                assert batch.X.tobytes() == want[0].tobytes()
        arrays = [array for batch in held for array in batch]
        assert not any(
            np.may_share_memory(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :]
        )
    batches.close()


def test_one_source_comes_as_a_tuple_of_one():
    case = Case(
        "resident",
        {"X": made_array(10, (), "f8", 0)},
        {"X": 3},
        {"X": False},
        "sequential",
        {"batch_size": 4},
        mix_bytes=1000,
        threads=1,
        slack=2.0,
    )
    with_one = list(case.batches())
    assert [len(batch) for batch in with_one] == [1, 1, 1]
    assert [len(batch.X) for batch in with_one] == [4, 4, 2]


@pytest.mark.parametrize("n_rows", [0, 1, 2])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("scheme", [n for n in schemes.NAMES if not n.startswith("random")])
def test_hardly_any_rows(n_rows, strategy, scheme):
    if strategy == "stream" and scheme not in MONOTONE:
        return
    case = Case(
        strategy,
        {"X": made_array(n_rows, (3,), ">i4", 0), "y": made_array(n_rows, (), "u1", 1)},
        {"X": 1, "y": 5},
        dict.fromkeys("Xy", strategy == "gather"),
        scheme,
        {"batch_size": 1, "seed": 1},
        mix_bytes=16,
        threads=2,
        slack=1.0,
    )
    batches = case.with_budget(8 << 20)
    for epoch in range(EPOCHS):
        assert [len(batch.y) for batch in batches] == [1] * n_rows
        if n_rows:
            assert batches.stats.strategy == strategy
        assert batches.epoch == epoch + 1
    for epoch in range(EPOCHS, 2 * EPOCHS) if n_rows else ():
        assert_epoch(case, batches, epoch)
    batches.close()


@pytest.mark.parametrize("strategy", ["resident", "rescan", "spool"])
def test_rows_without_bytes(strategy):
    """Shape ``(n_rows, 0)``: nothing to read, and still the right number of rows a batch."""
    case = Case(
        strategy,
        {"X": np.empty((50, 0)), "y": made_array(50, (), "u1", 1)},
        {"X": 7, "y": 5},
        dict.fromkeys("Xy", False),
        "shuffled_sequential",
        {"batch_size": 8, "seed": 1},
        mix_bytes=16,
        threads=2,
        slack=1.0,
    )
    batches = case.with_budget(1 << 20)
    for epoch in range(EPOCHS):
        assert_epoch(case, batches, epoch)
    batches.close()
