"""Short runs of `kills.py`: at each call that changes a file, and at some random moments."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import kills

CASES = {case.name: case for case in kills.cases()}


@pytest.mark.parametrize("name", CASES)
def test_killed_at_each_call(tmp_path, name):
    few = name.startswith(("convert", "shuffle"))  # whose runs are long, and whose calls alike
    assert kills.at_each_call(CASES[name], tmp_path, step=3 if few else 1) > 5


@pytest.mark.parametrize("name", ["create hdf5", "convert zarr", "append hdf5", "edit hdf5"])
def test_killed_at_random_moments(tmp_path, name):
    rng = np.random.default_rng(len(name))
    kills.at_moments(CASES[name], tmp_path, 3, rng)
