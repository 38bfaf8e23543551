"""A small HDF5 file of real digits, and ways to run the command line on it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_digits

from epochal.cli import app

ROWS = 1797


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`X` and `y` of scikit-learn's digits, gzip, 50 rows a chunk; a table and a scalar that do not
    go with them.
    """
    path = tmp_path_factory.mktemp("cli") / "digits.h5"
    found = load_digits()
    with h5py.File(path, "w") as file:
        images = found.images.astype("u1")
        file.create_dataset("X", data=images, chunks=(50, 8, 8), compression="gzip")
        file.create_dataset("y", data=found.target, chunks=(500,), compression="gzip")
        file.create_dataset("weights", data=np.linspace(0, 1, ROWS))
        file.create_dataset("meta/classes", data=np.arange(10))
        file.create_dataset("meta/version", data=3)
    return path


@pytest.fixture
def run():
    """Run the command line in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="epochal")

    return run


@pytest.fixture
def run_json(run):
    """Run a command with ``--json`` and read what it printed."""

    def run_json(*words: object) -> dict:
        result = run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run_json


@dataclass
class Process:
    """What a process left."""

    status: int
    out: str
    error: str


@pytest.fixture
def process(tmp_path):
    """Run ``python -m epochal`` in a process of its own, in an empty folder."""

    def process(*words: object, **environment: str) -> Process:
        done = subprocess.run(
            [sys.executable, "-m", "epochal", *(str(word) for word in words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        return Process(done.returncode, done.stdout, done.stderr)

    return process
