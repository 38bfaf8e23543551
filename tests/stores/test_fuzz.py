"""A short run of the command that damages files, and that it tells what it is there to tell."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent

# As `fuzz.FAILURES`: importing it here would bring zarr and h5py into a test of one subprocess.
FAILURES = {"WRONG UNDER A CHECKSUM", "CRASH", "HANG", "OTHER EXCEPTION"}


def fuzzed(*arguments):
    command = [sys.executable, HERE / "fuzz.py", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


def test_no_flipped_byte_crashes_or_hides_from_a_checksum():
    status, found = fuzzed("--flips", "500", "--seed", "3")
    assert found["failures"] == []
    assert status == 0
    total = Counter(found["total"])
    assert total.total() == 500
    assert FAILURES.isdisjoint(total)
    assert total["clear error"] > 150
    assert total["right rows"] > 50
    assert total["wrong: no checksum"] > 20  # else it damages nothing
    assert len(found["kinds"]) > 90


@pytest.fixture
def specimen(tmp_path):
    import fuzz

    path = tmp_path / "made" / "a.npy"
    path.parent.mkdir()
    np.save(path, np.arange(8))
    guarded = fuzz.Span("", path.stat().st_size - 64, path.stat().st_size - 32, fuzz.GUARDED)
    due = {"a": {"": np.arange(8)}}
    return fuzz.Specimen("numbers", path, due, (guarded,))


def test_wrong_rows_are_judged_by_what_covers_the_byte(specimen):
    import fuzz

    end = specimen.path.stat().st_size
    flips = [fuzz.Flip(specimen, "", at, 1) for at in (end - 64, end - 1, 0)]
    found = [outcome for _, outcome, _ in fuzz.outcomes(flips)]
    assert found == [fuzz.GUARDED, fuzz.METADATA, fuzz.ERROR]


def test_a_lost_process_is_laid_to_its_trial(specimen, monkeypatch):
    import os
    import signal

    import fuzz

    end = specimen.path.stat().st_size
    flips = [fuzz.Flip(specimen, "", end - 1 - n, 1) for n in range(6)]

    def read(each, *, untrusted):
        if each is flips[2] and not untrusted:  # as libhdf5 might, were it not in a child
            os.kill(os.getpid(), signal.SIGKILL)
        if each is flips[4]:
            os.kill(os.getpid(), signal.SIGKILL)
        if each is flips[5]:
            raise SystemExit(3)
        return {"wrong": [], "errors": {}}

    monkeypatch.setattr(fuzz, "read_damaged", read)
    found = [outcome for _, outcome, _ in fuzz.outcomes(flips)]
    assert found == [fuzz.RIGHT, fuzz.RIGHT, fuzz.LIBRARY, fuzz.RIGHT, fuzz.CRASH, fuzz.CRASH]


def test_a_process_that_hangs_is_ended(specimen, monkeypatch):
    import time

    import fuzz

    monkeypatch.setattr(fuzz, "TRUSTED_SECONDS", 0.5)
    monkeypatch.setattr(fuzz, "UNTRUSTED_SECONDS", 0.5)
    monkeypatch.setattr(fuzz, "read_damaged", lambda each, *, untrusted: time.sleep(60))
    [(_, outcome, _)] = fuzz.outcomes([fuzz.Flip(specimen, "", 0, 1)])
    assert outcome == fuzz.HANG
