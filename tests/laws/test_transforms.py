"""A fit does not depend on how rows come: blocks, merges, orders; only on which they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

import epochal
from epochal.transforms import (
    PCA,
    ZCA,
    GlobalContrastNormalization,
    Pipeline,
    RemapInterval,
    RemoveMean,
    RemoveZeroColumns,
    Standardize,
)

N, D = 200, 6
LEARNING = {
    "standardize": Standardize(),
    "of all": Standardize(global_mean=True, global_std=True),
    "mean": RemoveMean(),
    "interval": RemapInterval(),
    "zero columns": RemoveZeroColumns(),
    "zca": ZCA(),
    "pca": PCA(3),
    "pipeline": Pipeline([GlobalContrastNormalization(), Standardize(), ZCA()]),
}


def rows_of(seed, dtype):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) * 20 + 100
    return np.clip(mixed, 0, 255).astype(dtype)


def learnt(transform):
    transform.check_fitted()  # what partial_fit and merge left to be learnt is learnt
    stages = getattr(transform, "stages", [transform])
    return [np.asarray(getattr(each, name)) for each in stages for name in each.learnt()]


def same(found, expected, rtol=1e-10):
    for mine, theirs in zip(learnt(found), learnt(expected), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("name", list(LEARNING))
@given(
    seed=st.integers(0, 20),
    dtype=st.sampled_from(["u1", "f4", "f8", "i2"]),
    cuts=st.lists(st.integers(0, N), max_size=5).map(sorted),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_blocks_merges_and_orders(name, seed, dtype, cuts, data):
    rows = rows_of(seed, dtype)
    whole = clone(LEARNING[name]).fit(rows)
    order = np.random.default_rng(seed).permutation(N)
    parts = [part for part in np.split(rows[order], cuts) if len(part)]
    made = [clone(LEARNING[name]).partial_fit(part) for part in parts]
    while len(made) > 1:  # in any tree, neighbours or not
        k = data.draw(st.integers(0, len(made) - 1))
        other = made.pop(k)
        made[data.draw(st.integers(0, len(made) - 1))].merge(other)
    same(made[0], whole)


@pytest.mark.parametrize("name", list(LEARNING))
@given(
    seed=st.integers(0, 20),
    chunk_rows=st.integers(1, 70),
    threads=st.integers(1, 3),
    memory=st.sampled_from(["1MiB", "64MiB"]),
)
@settings(max_examples=8, deadline=None)
def test_layouts_threads_and_memory(name, seed, chunk_rows, threads, memory):
    rows = rows_of(seed, "f4")
    store = epochal.from_arrays(X=rows)
    store.stored["X"].layout = type(store.stored["X"].layout)(
        (N, D), rows.dtype, chunk_rows, rows_alone=True, kind="memory"
    )
    same(
        clone(LEARNING[name]).fit(store, memory=memory, threads=threads),
        clone(LEARNING[name]).fit(rows),
    )
