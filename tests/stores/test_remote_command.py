"""URLs on the command line, and what is left once a dataset is closed."""

import gc
import io
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import epochal
from epochal import sizes
from epochal.cli import app


def hdf5():
    """The bytes of a file of 1,000 rows."""
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root.create_dataset(
            "X", data=np.zeros((1000, 64), "u1"), chunks=(100, 64), compression="gzip"
        )
        root["y"] = np.arange(1000)
    return file.getvalue()


@pytest.fixture
def url(server):
    """Where that file is."""
    server.files["/a.h5"] = hdf5()
    return f"{server.url}/a.h5"


def info(*words):
    """Run ``epochal info`` in this process."""
    return CliRunner().invoke(app, ["info", *words], prog_name="epochal")


def test_info_shows_sizes(url):
    result = info(url)
    assert result.exit_code == 0, result.output
    assert "1,000 rows" in result.stdout
    assert "1000x64" in result.stdout
    with epochal.open(url) as ds:
        assert sizes.show(ds["X"].layout.stored_bytes) in result.stdout
        assert sizes.show(ds["X"].layout.decoded_bytes) in result.stdout


def test_info_of_what_is_not_there_is_one_line(url):
    result = info(url.replace("a.h5", "none.h5"))
    assert result.exit_code in (1, 2)
    assert result.output.count("\n") == 1
    assert "none.h5: there is no such object" in result.output


def test_info_of_no_server_is_one_line():
    result = info("http://127.0.0.1:1/none.h5")
    assert result.exit_code in (1, 2)
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output
    assert "http://127.0.0.1:1/none.h5: cannot be read" in result.output


@pytest.fixture
def ours():
    """Names of threads of ours that this test began, once those that were told to end had a second
    for it.
    """
    before = set(threading.enumerate())

    def found():
        names: list[str] = []
        for _ in range(100):
            threads = set(threading.enumerate()) - before
            names = [each.name for each in threads if each.name.startswith("epochal")]
            if not names:
                break
            time.sleep(0.01)
        return names

    return found


def test_no_threads_are_left(url, ours):
    with (
        epochal.open(url) as ds,
        closing(ds.batches("shuffled_sequential", batch_size=64, seed=0)) as batches,
    ):
        assert sum(len(batch.X) for batch in batches) == 1000
    assert ours() == []


def test_no_threads_are_left_of_an_epoch_that_was_abandoned(url, ours):
    with epochal.open(url) as ds, closing(ds.batches("sequential", batch_size=64)) as batches:
        next(iter(batches))
    assert ours() == []


def test_no_threads_are_left_of_an_error(url, server, impatient, ours):
    with epochal.open(url) as ds, closing(ds.batches("sequential", batch_size=64)) as batches:
        server.faults.refuse = 10_000
        with pytest.raises(epochal.EpochalError):
            list(batches)
    assert ours() == []


def test_nothing_is_left_open(url):
    """pytest makes errors of the warnings of what is collected open."""
    ds = epochal.open(url)
    ds["X"][:3]
    del ds
    gc.collect()


def test_a_process_that_ends_says_nothing(url):
    """Sessions are open then, and nobody closed the dataset."""
    code = "import epochal, sys; ds = epochal.open(sys.argv[1]); print(len(ds['X'][:5]))"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "default", "-c", code, url],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    assert done.stdout == "5\n"
    assert "epochal" not in done.stderr
    assert "Traceback" not in done.stderr
