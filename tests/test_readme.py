"""What the README shows is run."""

import hashlib
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

from epochal.cli import app
from epochal.datasets import svhn_files

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("epochal ")
]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """`train.h5` of the README, in the current folder."""
    digits = load_digits()
    with h5py.File(tmp_path / "train.h5", "w") as file:
        X = digits.images.astype("u1")
        file.create_dataset("X", data=X, chunks=(100, 8, 8), compression="gzip")
        file.create_dataset("y", data=digits.target, chunks=(500,), compression="gzip")
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(tmp_path / "photos" / label / "1.jpg")
    (tmp_path / "pipeline.yaml").write_text("- Standardize\n- ZCA: {filter_bias: 0.1}\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("train")
@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_python(block, capsys):
    names: dict = {}
    exec(block, names)
    assert names["epoch"] == 2
    assert (
        names["model"].score(names["valid"]["X"][:].reshape(-1, 64), names["valid"]["y"][:]) > 0.5
    )
    assert "shuffled_sequential: resident" in capsys.readouterr().out


def originals(folder, monkeypatch):
    """Files like those of the Street View House Numbers, there already, so that none is fetched."""
    folder.mkdir()
    for name, n in {"train": 4010, "test": 10, "extra": 2010}.items():
        path = folder / f"{name}_32x32.mat"
        labels = (np.arange(n) % 10 + 1)[:, None].astype("u1")
        scipy.io.savemat(path, {"X": np.zeros((32, 32, 3, n), "u1"), "y": labels})
        checksum = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(svhn_files.FILES, name, checksum)


@pytest.mark.usefixtures("train")
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, tmp_path, monkeypatch):
    program, *words = shlex.split(command)
    if words[0] == "svhn":
        originals(tmp_path / "svhn", monkeypatch)
    result = CliRunner().invoke(app, words, prog_name=program)
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_there_is_something_to_run():
    words = "info explain bench convert shuffle transform show verify svhn demo"
    assert [command.split()[1] for command in COMMANDS] == words.split()
