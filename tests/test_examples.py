"""The examples run, on a small file of their kind."""

import subprocess
import sys
from pathlib import Path

import h5py
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_whiten_and_train(tmp_path):
    digits = load_digits()
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file.create_dataset("X", data=digits.images.astype("u1"), chunks=(100, 8, 8))
        file["y"] = digits.target
    words = [EXAMPLES / "whiten_and_train.py", "train.h5", "--components", "30"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *epochs = done.stdout.splitlines()
    assert first.startswith("fitted in 1 pass")
    assert float(epochs[-1].split()[2].rstrip("%")) > 85


def test_every_example_is_run():
    assert [path.name for path in EXAMPLES.glob("*.py")] == ["whiten_and_train.py"]
