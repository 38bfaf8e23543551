"""`convert` and `shuffle`: any store to any flavour, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import epochal
from epochal import schemes
from epochal.cli import app
from epochal.converting import convert as convert_module
from epochal.errors import (
    BudgetError,
    DamageError,
    MismatchError,
    SourceNameError,
    TargetExistsError,
)

OUT = {"hdf5": "out.h5", "pytables": "out.h5", "zarr": "out.zarr", "npy": "out"}


def make(path, kind, n=200):
    X, y = np.arange(n * 6, dtype="f4").reshape(n, 6), np.arange(n)
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("X", data=X, chunks=(7, 6), compression="gzip")
            file["y"] = y
    elif kind == "zarr":
        group = zarr.open_group(path, mode="w", zarr_format=3)
        for name, rows in (("X", X), ("y", y)):
            group.create_array(name, data=rows, chunks=(9, *rows.shape[1:]))
    else:
        np.savez_compressed(path, X=X, y=y)
    return X, y


def content(path):
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return file.read()
    found = {}
    for folder, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), path)] = file.read()
    return found


@pytest.mark.parametrize("flavour", OUT)
@pytest.mark.parametrize("kind", ["h5", "zarr", "npz"])
def test_any_store_to_any_flavour(tmp_path, kind, flavour):
    src, dst = tmp_path / f"src.{kind}", tmp_path / OUT[flavour]
    X, y = make(src, kind)
    done = epochal.convert(src, dst, flavour=flavour, chunk_rows=16)
    assert (done.rows, done.resumed_at, done.path) == (200, 0, str(dst))
    with epochal.open(dst) as ds:
        assert np.array_equal(ds["X"][:], X)
        assert np.array_equal(ds["y"][:], y)
    assert sorted(os.listdir(tmp_path)) == sorted([src.name, dst.name])


def test_the_name_tells_the_flavour(tmp_path):
    make(tmp_path / "src.h5", "h5")
    epochal.convert(tmp_path / "src.h5", tmp_path / "X.npy", sources=["X"])
    assert np.load(tmp_path / "X.npy", mmap_mode="r").shape == (200, 6)
    epochal.convert(tmp_path / "src.h5", tmp_path / "out.zarr")
    assert zarr.open_group(tmp_path / "out.zarr", mode="r")["y"].shape == (200,)


@pytest.mark.parametrize("seed", [0, 3])
def test_shuffle_is_the_exact_permutation(tmp_path, seed):
    X, _ = make(tmp_path / "src.h5", "h5")
    epochal.shuffle(tmp_path / "src.h5", tmp_path / "out.h5", seed)
    order = schemes.make("shuffled_sequential", 200, batch_size=200, seed=seed, epoch=0).batch(0)
    with epochal.open(tmp_path / "out.h5") as ds:
        assert np.array_equal(ds["X"][:], X[order])
        assert np.array_equal(ds["y"][:], order)
    with pytest.raises(MismatchError, match=r"seed=0\.5: give a whole number"):
        epochal.shuffle(tmp_path / "src.h5", tmp_path / "again.h5", 0.5)


@pytest.fixture
def small_steps(monkeypatch):
    """Checkpoints every 64 rows, written 16 at a time."""
    monkeypatch.setattr(convert_module, "APPEND_BYTES", 16 * 32)
    monkeypatch.setattr(convert_module, "CHECKPOINT_BYTES", 64 * 32)


@pytest.mark.parametrize("verb", ["convert", "shuffle"])
@pytest.mark.parametrize("flavour", OUT)
def test_stopped_by_its_user_and_resumed(tmp_path, monkeypatch, small_steps, flavour, verb):
    make(tmp_path / "src.h5", "h5")
    run = getattr(epochal, verb)
    whole, dst = tmp_path / f"whole-{OUT[flavour]}", tmp_path / OUT[flavour]
    run(tmp_path / "src.h5", whole, flavour=flavour, chunk_rows=24)
    from epochal.writing.writer import Writer

    append = Writer.append
    calls = []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        append(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "src.h5", dst, flavour=flavour, chunk_rows=24)
    assert not dst.exists()
    with pytest.raises(MismatchError, match="what is left there is of another conversion"):
        run(tmp_path / "src.h5", dst, flavour=flavour, chunk_rows=25, resume=True)
    done = run(tmp_path / "src.h5", dst, flavour=flavour, chunk_rows=24, resume=True)
    assert done.resumed_at == 128
    assert content(dst) == content(whole)
    assert sorted(os.listdir(tmp_path)) == sorted(["src.h5", whole.name, dst.name])


@pytest.mark.parametrize("flavour", OUT)
def test_killed_and_resumed(tmp_path, flavour):
    """By SIGKILL, between checkpoints: the same bytes as a run that was not killed."""
    make(tmp_path / "src.h5", "h5", 2000)
    program = (
        "import os, signal, sys, epochal\n"
        "from epochal.converting import convert as module\n"
        "from epochal.writing.writer import Writer\n"
        "module.APPEND_BYTES, module.CHECKPOINT_BYTES = 16 * 32, 64 * 32\n"
        "append, left = Writer.append, [int(sys.argv[3])]\n"
        "def dying(self, *args, **kwargs):\n"
        "    if left[0] == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    append(self, *args, **kwargs)\n"
        "Writer.append = dying\n"
        "done = epochal.convert('src.h5', sys.argv[1], flavour=sys.argv[2], chunk_rows=24,\n"
        "                       resume=True)\n"
        "print(done.resumed_at)\n"
    )

    def run(dst, left):
        words = [sys.executable, "-c", program, dst, flavour, str(left)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    whole = run(f"whole-{OUT[flavour]}", 1 << 30)
    assert whole.stdout == "0\n", whole.stderr
    for left in (2, 30, 41):
        assert run(OUT[flavour], left).returncode == -signal.SIGKILL
        assert not (tmp_path / OUT[flavour]).exists()
    done = run(OUT[flavour], 1 << 30)
    assert int(done.stdout) > 0, done.stderr
    assert content(tmp_path / OUT[flavour]) == content(tmp_path / f"whole-{OUT[flavour]}")
    assert len(os.listdir(tmp_path)) == 3


def test_what_is_left_outlives_a_run_that_could_not_begin(tmp_path, monkeypatch, small_steps):
    make(tmp_path / "src.h5", "h5")
    from epochal.writing.writer import Writer

    append, calls = Writer.append, []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        append(self, *args, **kwargs)

    src, dst = tmp_path / "src.h5", tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            epochal.convert(src, dst)
    with pytest.raises(BudgetError):
        epochal.convert(src, dst, resume=True, memory=8000)
    assert epochal.convert(src, dst, resume=True).resumed_at == 128


def test_arguments_that_do_not_go_together(tmp_path):
    make(tmp_path / "src.h5", "h5")
    (tmp_path / "t.csv").write_text("a\n1\n")
    with epochal.open(tmp_path / "src.h5") as ds:
        for how in ({"sources": ["X"]}, {"split": "train"}):
            with pytest.raises(MismatchError, match="choose when it is opened"):
                epochal.convert(ds, tmp_path / "out.h5", **how)
    for src, how, match in [
        ("t.csv", {"ragged": "dense"}, "has no rows of varying length"),
        ("t.csv", {"split": "train"}, "names no splits"),
        ("src.h5", {"header": False}, "header: not for a file that epochal.open reads"),
        ("src.h5", {"attrs": {"a": object()}}, "'a' of object cannot be an attribute"),
        ("src.h5", {"attrs": {"a": np.zeros(9999)}}, "an attribute at most 60000: make it a"),
    ]:
        with pytest.raises(MismatchError, match=match):
            epochal.convert(tmp_path / src, tmp_path / "out.h5", **how)
    assert sorted(os.listdir(tmp_path)) == ["src.h5", "t.csv"]


def test_a_source_that_has_changed_is_not_gone_on_with(tmp_path, monkeypatch, small_steps):
    make(tmp_path / "src.h5", "h5")
    from epochal.writing.writer import Writer

    def stopping(self, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            epochal.convert(tmp_path / "src.h5", tmp_path / "out.h5")
    os.utime(tmp_path / "src.h5")
    with pytest.raises(MismatchError, match="its src was"):
        epochal.convert(tmp_path / "src.h5", tmp_path / "out.h5", resume=True)
    epochal.convert(tmp_path / "src.h5", tmp_path / "out.h5")
    assert sorted(os.listdir(tmp_path)) == ["out.h5", "src.h5"]


def test_a_source_that_is_damaged_leaves_nothing(tmp_path):
    make(tmp_path / "src.h5", "h5")
    with h5py.File(tmp_path / "src.h5") as file:
        info = file["X"].id.get_chunk_info(20)
    data = bytearray((tmp_path / "src.h5").read_bytes())
    data[info.byte_offset + 5] ^= 255
    (tmp_path / "src.h5").write_bytes(data)
    with pytest.raises(DamageError, match="rows 140 to 146"):
        epochal.convert(tmp_path / "src.h5", tmp_path / "out.h5")
    assert os.listdir(tmp_path) == ["src.h5"]


@pytest.mark.parametrize("verb", ["convert", "shuffle"])
def test_a_budget_that_is_too_small_is_told_as_it_was_given(tmp_path, verb):
    make(tmp_path / "src.h5", "h5")
    with pytest.raises(BudgetError, match=r"of memory=1\.0 KiB, reading gets 768 B and writing"):
        getattr(epochal, verb)(tmp_path / "src.h5", tmp_path / "out.h5", memory="1KiB")
    assert os.listdir(tmp_path) == ["src.h5"]


def test_over_itself(tmp_path):
    X, _ = make(tmp_path / "x.h5", "h5")
    epochal.convert(tmp_path / "x.h5", tmp_path / "x.h5", overwrite=True, compression="zstd")
    with epochal.open(tmp_path / "x.h5") as ds:
        assert np.array_equal(ds["X"][:], X)
        assert "zstd" in ds["X"].layout.codec
    assert os.listdir(tmp_path) == ["x.h5"]


def test_rows_of_varying_length(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("r", (3,), h5py.vlen_dtype("i4"))
        for k in range(3):
            file["r"][k] = np.arange(k * 2) + 1
    with pytest.raises(MismatchError, match="give ragged='dense'"):
        epochal.convert(tmp_path / "x.h5", tmp_path / "out.h5")
    with pytest.raises(MismatchError, match="sequences of values without column"):
        epochal.convert(tmp_path / "x.h5", tmp_path / "out.h5", ragged="dense")
    epochal.convert(tmp_path / "x.h5", tmp_path / "out.h5", ragged="padded")
    with epochal.open(tmp_path / "out.h5") as ds:
        assert ds["r"][:].tolist() == [[0, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 4]]
        assert ds["r_lengths"][:].tolist() == [0, 2, 4]


def test_sparse_rows(tmp_path):
    matrix = np.random.default_rng(0).integers(0, 2, (30, 9)).astype("f4")
    where = np.nonzero(matrix)
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = matrix.shape
        group["data"], group["indices"] = matrix[where], where[1]
        group["indptr"] = np.append(0, np.cumsum((matrix != 0).sum(1)))
    for verb in ("convert", "shuffle"):
        dst = tmp_path / f"{verb}.h5"
        done = run(verb, tmp_path / "x.h5ad", dst, "--ragged", "dense", "--sources", "X")
        assert done.exit_code == 0, done.output
        with epochal.open(dst) as ds:
            rows = ds["X"][:]
        if verb == "shuffle":
            rows, matrix = (np.sort(m.view("V36"), axis=0).view("f4") for m in (rows, matrix))
        assert np.array_equal(rows.reshape(30, 9), matrix.reshape(30, 9))


def test_nothing_to_write(tmp_path):
    h5py.File(tmp_path / "x.h5", "w").close()
    with pytest.raises(SourceNameError, match="holds no source: see epochal info"):
        epochal.convert(tmp_path / "x.h5", tmp_path / "out.h5")
    assert os.listdir(tmp_path) == ["x.h5"]


def test_an_open_dataset_and_its_view(tmp_path):
    make(tmp_path / "src.h5", "h5")
    with epochal.open(tmp_path / "src.h5") as ds:
        train, _ = ds.split(0.5, seed=0)
        epochal.convert(train, tmp_path / "train.h5")
        with epochal.open(tmp_path / "train.h5") as out:
            assert out["y"][:].tolist() == train["y"][:].tolist()


# The commands -------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_the_commands(tmp_path):
    X, _ = make(tmp_path / "src.h5", "h5")
    done = run("convert", tmp_path / "src.h5", tmp_path / "out.zarr", "--compression", "zstd")
    assert done.exit_code == 0, done.output
    assert "out.zarr: 200 rows" in done.output
    done = run(
        "shuffle", tmp_path / "src.h5", tmp_path / "s.h5", "--seed", "1", "--sources", "X", "--json"
    )
    assert json.loads(done.output)["rows"] == 200
    with epochal.open(tmp_path / "s.h5") as ds:
        assert sorted(ds["X"][:, 0].tolist()) == X[:, 0].tolist()
    (tmp_path / "t.csv").write_text("a,b,name\n1,2,x\n3,4,y\n")
    done = run("convert", tmp_path / "t.csv", tmp_path / "t.h5", "--stack", "X=*")
    assert done.exit_code == 0, done.output
    with epochal.open(tmp_path / "t.h5") as ds:
        assert ds["X"][:].tolist() == [[1, 2], [3, 4]]
    (tmp_path / "u.csv").write_text("1,2\n3,4\n")
    done = run("convert", tmp_path / "u.csv", tmp_path / "u.h5", "--no-header")
    assert done.exit_code == 0, done.output
    with epochal.open(tmp_path / "u.h5") as ds:
        assert ds["c1"][:].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("words", "status", "match"),
    [
        (("convert", "src.h5", "src.h5"), 1, "is there already: give overwrite=True (--overwrite)"),
        (("convert", "missing.h5", "out.h5"), 1, "there is no such file"),
        (("convert", "src.h5", "no/out.h5"), 1, "there is no folder"),
        (("convert", "src.h5", "out.h5", "--compression", "rar"), 2, "Invalid value"),
        (("convert", "src.h5", "out.npy"), 0, "200 rows"),
        (("convert", "src.h5", "out.h5", "--stack", "X"), 2, "give NAME=a,b"),
        (("convert", "src.h5", "out.h5", "--size", "3"), 2, "give HEIGHTxWIDTH"),
        (("shuffle", "src.h5", "out.h5", "--memory", "1KiB"), 1, "cannot hold"),
        (("shuffle", "src.h5", "out.h5", "--split", "train"), 1, "train"),
    ],
)
def test_wrong_words(tmp_path, monkeypatch, words, status, match):
    monkeypatch.chdir(tmp_path)
    make("src.h5", "h5")
    done = run(*words)
    assert done.exit_code == status, done.output
    assert match in done.output
    if status:
        assert os.listdir(tmp_path) == ["src.h5"]


def test_the_target_is_there(tmp_path):
    make(tmp_path / "src.h5", "h5")
    (tmp_path / "out.h5").write_text("mine")
    with pytest.raises(TargetExistsError):
        epochal.shuffle(tmp_path / "src.h5", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_text() == "mine"
