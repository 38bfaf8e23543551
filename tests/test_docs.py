"""The pages: their code runs."""

import re
import subprocess
import sys
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from epochal.cli import app
from epochal.errors import DamageWarning

DOCS = Path(__file__).parent.parent / "docs"


def code(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_adding_a_store_as_the_page_says(tmp_path):
    """Its store passes the laws, in a process of its own: it is registered for all."""
    (tmp_path / "raw_store.py").write_text(code("add-a-store.md")[0])
    test = "from raw_store import *\n" + code("add-a-store.md")[1]
    (tmp_path / "test_raw.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_raw.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout
    assert len((DOCS / "add-a-store.md").read_text().splitlines()) < 60


def make_files(folder):
    """The files that `files.md` opens."""
    X, y = np.arange(240, dtype="f4").reshape(60, 4), np.arange(60)
    for number, rows in ((2, slice(0, 40)), (10, slice(40, 60))):
        with h5py.File(folder / f"part-{number}.h5", "w") as file:
            file["X"], file["y"] = X[rows], y[rows]
    with h5py.File(folder / "fuel.h5", "w") as file:
        file["train/features"] = X
        file["train/features"].dims[0].label = "batch"
    with h5py.File(folder / "cells.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = (100, 7)
        group["data"], group["indices"] = np.ones(300, "f4"), np.tile([0, 3, 6], 100)
        group["indptr"] = np.arange(0, 301, 3)
    with h5py.File(folder / "text.h5", "w") as file:
        file["ids"], file["starts"] = np.arange(90), np.append(np.arange(0, 90, 3), 90)
    with fsspec.open("memory://bucket/train.h5", "wb") as file:
        file.write((folder / "part-2.h5").read_bytes())
    with h5py.File(folder / "damaged.h5", "w") as file:
        stored = file.create_dataset("X", data=X, chunks=(20, 4), compression="gzip")
        place = stored.id.get_chunk_info(1).byte_offset
    data = bytearray((folder / "damaged.h5").read_bytes())
    data[place + 9] ^= 255
    (folder / "damaged.h5").write_bytes(data)


def test_which_files_it_reads(tmp_path, monkeypatch, capsys):
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    parts, ragged, remote, damaged = code("files.md")
    exec(parts, names)
    assert names["ds"]["images"].axes[0] == "batch"
    exec(ragged, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "(64, 7) 192"
    assert lines[2] == "(8, 3) [3 3 3 3 3 3 3 3]"
    exec(remote, names)
    assert len(names["ds"]) == 40
    with pytest.warns(DamageWarning, match="rows 20 to 39"):
        exec(damaged, names)
    assert capsys.readouterr().out.split() == ["40"]


def test_writing_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made, grown, converted, verified, changed = code("writing.md")
    names: dict = {}
    exec(made, names)
    with h5py.File("out.h5") as file:
        assert file["X"].shape == (500, 3072)
    exec(grown, names)
    exec(converted, names)
    assert np.load("X.npy", mmap_mode="r").shape == (507, 3072)
    exec(verified, names)
    assert capsys.readouterr().out == "True [] ()\n"
    exec(changed, names)
    with h5py.File("out.h5") as file, h5py.File("changed.h5") as other:
        assert file["y"][:5].tolist() == [9] * 5
        assert other["y"][[3, 7]].tolist() == [1, 2]
        assert not other["X"][10:20].any()


def test_coming_from_pylearn2(tmp_path, monkeypatch, capsys):
    """Every block of the page runs, one after another."""
    monkeypatch.chdir(tmp_path)
    exec("\n".join(code("from-pylearn2.md")), {"__name__": "__page__"})
    said = capsys.readouterr().out
    assert "(1000, 3072)" in said
    assert "(3, 32, 32, 232) (232, 10)" in said
    assert (tmp_path / "halved.h5").exists()


def test_preprocessing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with h5py.File("train.h5", "w") as file:
        file["X"], file["y"] = rng.integers(0, 256, (600, 8, 8, 3), "u1"), np.arange(600)
    names: dict = {}
    for block in code("transforms.md"):
        exec(block, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 pass"
    assert lines[1].startswith("(600, 8, 8, 3) float32")
    assert lines[2] == "(10000, 108)"
    assert repr(names["again"]) == repr(names["pipe"])
    whole = names["Standardize"]().fit(names["ds"])
    assert np.allclose(names["first"].mean_, whole.mean_, rtol=1e-12)
    spec = re.findall(r"```yaml\n(.*?)```", (DOCS / "transforms.md").read_text(), re.DOTALL)[0]
    (tmp_path / "pipeline.yaml").write_text(spec)
    (tmp_path / "test.h5").write_bytes((tmp_path / "train.h5").read_bytes())
    (tmp_path / "white.h5").unlink()
    for line in re.findall(
        r"^epochal (.*?)(?:  #.*)?$", (DOCS / "transforms.md").read_text(), re.M
    ):
        assert CliRunner().invoke(app, line.split()).exit_code == 0, line
