"""Rows of varying length: whatever the strategy, the batches are the oracle's rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse
from budgets import feasible
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal import schemes
from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.plan import spool
from epochal.plan.machine import Machine, Rates
from epochal.planning import Settings
from epochal.stores.ragged import RaggedSource
from epochal.testing.stores import ChunkedArrays, SourceStore

STRATEGIES = ("stream", "resident", "rescan", "spool")
MONOTONE = ("sequential", "even_sequential")
RANDOM = ("random_slice", "random_uniform")  # of which rows come again: not dealt
LONG_BYTES = spool.LONG_BYTES
EPOCHS = 2


@dataclass
class Case:
    """Rows of some columns, perhaps with a plain source beside them, and an order."""

    strategy: str
    lengths: np.ndarray
    columns: dict[str, np.ndarray]
    chunk_rows: dict[str, int]
    plain: np.ndarray | None
    scheme: str
    order: dict[str, Any]
    threads: int
    slack: float
    selection: np.ndarray | None
    long_bytes: int
    budget_bytes: int = 0

    def dataset(self) -> Dataset:
        made = {name: (array, self.chunk_rows[name]) for name, array in self.columns.items()}
        n_columns = None if len(self.columns) == 1 else 1000
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)
        sources = {"X": RaggedSource("X", ChunkedArrays(made).sources, offsets, n_columns)}
        if self.plain is not None:
            sources |= ChunkedArrays({"y": (self.plain, 5)}).sources
        return Dataset(SourceStore(sources), sources, selection=self.selection)

    def batches(self) -> Batches:
        """By the case's strategy, in about the least memory that it runs in, times the slack."""
        least, _ = feasible(self.with_budget, 512)
        self.budget_bytes, batches = feasible(self.with_budget, int(least * self.slack))
        return batches

    def with_budget(self, budget_bytes: int) -> Batches:
        spool.LONG_BYTES = self.long_bytes
        ds = self.dataset()
        rates = dict.fromkeys(ds.stored, Rates(3e8))
        machine = Machine(threads=self.threads, rates=rates, scratch_free_bytes=1 << 40)
        made = Settings(budget_bytes, self.threads, None, (self.strategy,), machine)
        return ds._batches(dict(ds.stored), made, self.scheme, mix_bytes=1000, **self.order)

    def oracle(self, epoch: int) -> list[np.ndarray]:
        """File rows of every batch."""
        n = len(self.lengths) if self.selection is None else len(self.selection)
        scheme = schemes.make(self.scheme, n, **{**self.order, "epoch": epoch})
        rows = np.arange(n) if self.selection is None else self.selection
        return [rows[scheme.batch(number)] for number in range(len(scheme))]

    def assert_batch(self, batch: Any, rows: np.ndarray) -> None:
        """Bit for bit."""
        starts = np.cumsum(self.lengths) - self.lengths
        X = batch.X
        assert X.offsets.tolist() == np.concatenate([[0], np.cumsum(self.lengths[rows])]).tolist()
        items = [np.arange(starts[row], starts[row] + self.lengths[row]) for row in rows]
        items = np.concatenate([np.empty(0, np.int64), *items])
        got = (X.values,) if len(self.columns) == 1 else (X.data, X.indices)
        for have, want in zip(got, self.columns.values(), strict=True):
            due = want[items]
            assert (have.shape, have.dtype) == (due.shape, due.dtype)
            assert have.tobytes() == due.tobytes()
            assert have.flags.writeable
        if self.plain is not None:
            assert batch.y.tobytes() == self.plain[rows].tobytes()

    def assert_epoch(self, batches: Batches, first: int = 0) -> None:
        """The rest of an epoch."""
        expected = self.oracle(batches.epoch)[first:]
        served = 0
        for batch, rows in zip(batches, expected, strict=True):
            self.assert_batch(batch, rows)
            served += 1
            for array in batch.X:  # nobody else's
                if isinstance(array, np.ndarray):
                    array.reshape(-1).view(np.uint8)[...] = 0xA5
        assert served == len(expected)


@st.composite
def cases(draw, strategy):
    large = strategy == "spool" and draw(st.booleans())  # more than memory keeps
    n_rows = draw(st.integers(300, 400) if large else st.integers(1, 40) | st.integers(100, 300))
    longest = 100 if large else draw(st.sampled_from((0, 1, 4, 30)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    lengths = rng.integers(0, longest + 1, n_rows)
    lengths[rng.random(n_rows) < draw(st.sampled_from((0.0, 0.5)))] = 0
    n_items = int(lengths.sum())
    kinds = draw(
        st.sampled_from(
            (
                {"data": ("f4", ()), "indices": ("<i4", ())},
                {"data": ("f8", ()), "indices": ("<i2", ())},
                {"values": ("u1", ())},
                {"values": (">i4", (3,))},
            )
        )
    )
    columns, chunk_rows = {}, {}
    for name, (dtype, shape) in kinds.items():
        n_bytes = n_items * np.dtype(dtype).itemsize * int(np.prod(shape, dtype=int))
        data = rng.integers(0, 256, n_bytes, np.uint8)
        columns[name] = data.view(dtype).reshape(n_items, *shape)
        chunk_rows[name] = draw(st.sampled_from((1, 7, 50, 1000)))
    selection = None
    if n_rows > 1 and draw(st.integers(0, 2)) == 0:
        kept = rng.random(n_rows) < 0.7
        kept[int(rng.integers(n_rows))] = True
        selection = np.flatnonzero(kept)
    n_view = n_rows if selection is None else len(selection)
    names = [name for name in schemes.NAMES if name != "even_sequences"]
    if strategy == "stream":
        names = MONOTONE
    elif strategy == "spool":
        names = [name for name in names if name not in RANDOM]
    scheme = draw(st.sampled_from([n for n in names if not n.startswith("chunkwise")]))
    world = draw(st.sampled_from((1, 1, 2)))
    world = min(world, n_view)
    order: dict[str, Any] = {
        "batch_size": draw(st.integers(1, max(1, min(n_view // world, 10 if large else 40)))),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "shard": (draw(st.integers(0, world - 1)), world),
    }
    if scheme.startswith("random"):
        order["num_batches"] = draw(st.integers(1, 8))
    return Case(
        strategy,
        lengths,
        columns,
        chunk_rows,
        rng.integers(0, 256, (n_rows, 2), np.uint8) if draw(st.booleans()) else None,
        scheme,
        order,
        threads=draw(st.integers(1, 3)),
        # Ranks take turns at the rows that are left over: another epoch may have some more.
        slack=draw(st.sampled_from((1.0, 1.1, 1.3, 1.6, 3.0) if world == 1 else (1.5, 3.0))),
        selection=selection,
        long_bytes=draw(st.sampled_from((1, LONG_BYTES))),
    )


def kinds(case, plan):
    for feed in plan.feeds:
        yield feed.kind
        if feed.kind == "ragged spool":
            if feed.piles_kept < feed.n_piles:
                yield "straight" if case.long_bytes == 1 else "by way of a buffer"
            if 0 < feed.piles_kept < feed.n_piles:
                yield "partly kept"
        elif feed.kind == "ragged window":
            yield f"{feed.windows_ahead} ahead"


EXPECTED = {
    "stream": {"ragged stream"},
    "resident": {"ragged resident"},
    "rescan": {"ragged window", "0 ahead", "1 ahead"},
    "spool": {"ragged spool", "straight", "by way of a buffer", "partly kept"},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_yields_the_rows_of_the_oracle(strategy):
    seen: Counter[str] = Counter()

    @settings(max_examples=150 if strategy == "spool" else 80, deadline=None)
    @given(cases(strategy))
    def law(case):
        batches = case.batches()
        seen.update(set(kinds(case, batches.plan)))
        for _ in range(EPOCHS):
            case.assert_epoch(batches)
        batches.close()

    law()
    assert set(seen) >= EXPECTED[strategy], seen


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_more_is_held_than_the_budget(strategy):
    @settings(max_examples=80, deadline=None)
    @given(cases(strategy))
    def law(case):
        batches = case.batches()
        assert batches.plan.predicted.held_bytes <= case.budget_bytes
        for _ in range(EPOCHS):
            for _ in batches:
                assert batches.stats.peak_bytes <= case.budget_bytes
        batches.close()

    law()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resuming_anywhere_gives_the_rest(strategy):
    @settings(max_examples=40, deadline=None)
    @given(cases(strategy), st.floats(0, 1))
    def law(case, part):
        batches = case.batches()
        first = int(part * len(batches))
        state = batches.state_dict()
        for number, _ in enumerate(batches, 1):
            if number > first:
                break
            state = batches.state_dict()
        batches.close()
        resumed = case.with_budget(case.budget_bytes * 2)
        resumed.load_state_dict(state)
        case.assert_epoch(resumed, first)
        case.assert_epoch(resumed)
        resumed.close()

    law()


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Counts of cells, as AnnData writes them."""
    rng = np.random.default_rng(0)
    dense = rng.integers(1, 9, (500, 3000)) * (rng.random((500, 3000)) < 0.4)
    matrix = scipy.sparse.csr_matrix(dense.astype("f4"))
    folder = tmp_path_factory.mktemp("cells")
    made = anndata.AnnData(matrix)
    made.write_h5ad(folder / "cells.h5ad", compression="gzip")
    made.write_zarr(folder / "cells.zarr")
    return folder, matrix


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
@pytest.mark.parametrize("memory", ["4MiB", "6MiB", "64MiB"])
def test_cells_in_random_order(cells, name, memory):
    """Rows of some kilobytes: from scratch, partly, and from memory."""
    folder, matrix = cells
    with epochal.open(folder / name, sources="X") as ds:
        batches = ds.batches("shuffled_sequential", 16, seed=5, memory=memory, ragged="csr")
        for epoch in range(2):
            order = schemes.make("shuffled_sequential", 500, batch_size=16, seed=5, epoch=epoch)
            for number, (X,) in enumerate(batches):
                due = matrix[order.batch(number)]
                assert X.shape == due.shape
                assert (due != X).nnz == 0
        batches.close()


def test_a_row_longer_than_a_call_takes_pieces(tmp_path):
    """Two rows of which one lies in more chunks than a vector has places."""
    values = np.arange(40_000, dtype="f8")
    with h5py.File(tmp_path / "long.h5", "w") as file:
        made = file.create_dataset("X", (3,), h5py.vlen_dtype("f8"))
        for row, (start, stop) in enumerate(((0, 30_000), (30_000, 30_001), (30_001, 40_000))):
            made[row] = values[start:stop]
    with epochal.open(tmp_path / "long.h5") as ds:
        (batch,) = ds.batches("shuffled_sequential", 3, seed=0)
        rows = batch.X.rows()
    assert sorted(len(row) for row in rows) == [1, 9_999, 30_000]
    assert (np.concatenate(sorted(rows, key=lambda row: row[0])) == values).all()


def test_a_first_epoch_of_short_rows_asks_for_the_memory_of_later_ones():
    """The budget is the least in which the first epoch's one batch, of rows without items, runs."""
    case = Case(
        strategy="rescan",
        lengths=np.array([2, 2, 3, 4, 0, 0, 4, 4, 1, 1, 4, 2, 1, 4, 1, 2, 3, 2, 0, 0]),
        columns={"values": np.arange(40, dtype="u1")},
        chunk_rows={"values": 50},
        plain=np.arange(40, dtype="u1").reshape(20, 2),
        scheme="random_slice",
        order={"batch_size": 2, "seed": 0, "shard": (0, 1), "num_batches": 1},
        threads=1,
        slack=1.0,
        selection=np.array([1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 15, 17, 19]),
        long_bytes=1,
    )
    batches = case.batches()
    for _ in range(8):
        for _ in batches:
            assert batches.stats.peak_bytes <= case.budget_bytes
    batches.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("columns", [("values",), ("data", "indices")])
@pytest.mark.parametrize("lengths", [[], [0, 3]])
def test_no_rows_are_no_batches(strategy, columns, lengths):
    """Of a source that has none, and of a view that holds none."""
    lengths = np.array(lengths, np.int64)
    empty = np.zeros(int(lengths.sum()), "i4")
    selection = np.empty(0, np.int64) if len(lengths) else None
    names = [name for name in schemes.NAMES if name not in ("even_sequences", *RANDOM)]
    for name in MONOTONE if strategy == "stream" else names:
        case = Case(
            strategy,
            lengths,
            dict.fromkeys(columns, empty),
            dict.fromkeys(columns, 7),
            None,
            name,
            {"batch_size": 2, "seed": None if name in MONOTONE else 0},
            threads=2,
            slack=1.0,
            selection=selection,
            long_bytes=1,
        )
        batches = case.batches()
        assert [list(batches) for _ in range(EPOCHS)] == [[], []]
        batches.close()


@pytest.mark.parametrize("scheme", [name for name in schemes.NAMES if name not in RANDOM])
def test_a_file_without_rows(tmp_path, scheme):
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.create_dataset("X", (0,), h5py.vlen_dtype("i4"), maxshape=(None,), chunks=(5,))
    order = {"seed": None if scheme in MONOTONE else 0}
    with epochal.open(tmp_path / "none.h5", sources=["X"]) as ds:
        assert "held" in str(ds.explain(scheme, 2, **order))
        assert list(ds.batches(scheme, 2, **order)) == []
