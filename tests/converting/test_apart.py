"""What is written neither lies in what is read, nor holds it."""

from __future__ import annotations

import os

import numpy as np
import pytest

import epochal
from epochal.errors import TargetError, TargetExistsError

X = np.arange(12, dtype="i4").reshape(6, 2)


def make(path, flavour):
    with epochal.create(path, {"X": ((2,), "i4"), "y": ((), "i4")}, flavour=flavour) as writer:
        writer.append(X=X, y=X[:, 0])
    return path


VERBS = {"convert": epochal.convert, "shuffle": epochal.shuffle}


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize(("flavour", "inside"), [("zarr", "X"), ("npy", "X.npy"), ("npy", "new")])
def test_a_target_in_the_source(tmp_path, verb, flavour, inside):
    source = make(tmp_path / "a", flavour)
    with pytest.raises(TargetError, match=r"lies inside of .* which is read"):
        VERBS[verb](source, source / inside, overwrite=True)
    with epochal.open(source) as ds:
        assert np.array_equal(ds["X"][:], X)
        with pytest.raises(TargetError, match="lies inside of"):
            ds.save(source / inside, overwrite=True)
    assert inside != "new" or not (source / inside).exists()


def test_a_source_in_the_target(tmp_path):
    source = make(tmp_path / "a.zarr", "zarr")
    with pytest.raises(TargetError, match=r"a\.zarr holds .*X, which is read"):
        epochal.convert(source / "X", source, overwrite=True)
    with epochal.open(source) as ds:
        assert np.array_equal(ds["X"][:], X)


def test_among_several_sources(tmp_path):
    make(tmp_path / "a-0.zarr", "zarr")
    make(tmp_path / "a-1.zarr", "zarr")
    for src in (str(tmp_path / "a-*.zarr"), [tmp_path / "a-0.zarr", tmp_path / "a-1.zarr"]):
        with pytest.raises(TargetError, match=r"lies inside of .*a-1\.zarr"):
            epochal.convert(src, tmp_path / "a-1.zarr" / "new")


def test_a_folder_over_itself(tmp_path):
    for flavour in ("zarr", "npy"):
        source = make(tmp_path / flavour, flavour)
        epochal.convert(source, source, flavour=flavour, chunk_rows=2, overwrite=True)
        with epochal.open(source) as ds:
            assert np.array_equal(ds["X"][:], X)
    assert sorted(os.listdir(tmp_path)) == ["npy", "zarr"]


@pytest.mark.parametrize("target", ["", "."])
def test_where_it_works_is_not_replaced(tmp_path, monkeypatch, target):
    make(tmp_path / "a.h5", "hdf5")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TargetError, TargetExistsError), match=r"is no name|holds .*, which is"):
        epochal.convert("a.h5", target, overwrite=True)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_beside_the_source_is_apart_from_it(tmp_path):
    source = make(tmp_path / "a", "npy")
    epochal.convert(source, tmp_path / "a.h5")
    epochal.convert(source / "X.npy", tmp_path / "ab")
    assert sorted(os.listdir(tmp_path)) == ["a", "a.h5", "ab"]
