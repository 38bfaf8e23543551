"""SVHN, of originals of the same form: fewer examples, each of which says its number."""

import functools
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tables
from click.testing import CliRunner
from numpy.random import RandomState

from epochal.cli import app
from epochal.datasets import SVHN, svhn_files
from epochal.datasets.svhn_making import file_of, make
from epochal.errors import (
    EpochalError,
    FileMissingError,
    FormatError,
    MismatchError,
    RowError,
    TargetError,
)
from epochal.spaces import Conv2DSpace

SIZES = {"train": 4600, "test": 130, "extra": 2300}
SETS = {"train", "test", "extra", "train_all", "splitted_train", "valid"}


def examples(name):
    """Images ``(n, 32, 32, 3)`` whose first two numbers are their own, and labels from 1."""
    n = SIZES[name]
    rng = np.random.default_rng(len(name))
    images = np.repeat(rng.integers(0, 256, (n, 4, 4, 3), "u1"), 8, axis=1).repeat(8, axis=2)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) >> 8, np.arange(n) & 255
    images[:, 0, 0, 2] = {"train": 0, "test": 1, "extra": 2}[name]
    labels = rng.permutation(np.arange(n) % 10 + 1)
    return images, labels


def write(folder, name, images=None, labels=None):
    made = examples(name)
    images, labels = made[0] if images is None else images, made[1] if labels is None else labels
    mat = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype("u1")}
    scipy.io.savemat(f"{folder}/{name}_32x32.mat", mat, do_compression=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format2")
    for name in SIZES:
        write(folder, name)
    return str(folder)


def numbers_of(images):
    """Which original each image is of, and its number in it."""
    images = images.astype(int)
    return images[:, 0, 0, 2], images[:, 0, 0, 0] * 256 + images[:, 0, 0, 1]


def expected(which):
    """The examples of a set in its order: originals one after another, then shuffled."""
    parts = {
        "train": ["train"],
        "test": ["test"],
        "extra": ["extra"],
        "train_all": ["extra", "train"],
    }
    rng = RandomState(322)
    rows = []
    if which in parts:
        rows = [(name, np.arange(SIZES[name])) for name in parts[which]]
    else:
        for name, count in (("train", 400), ("extra", 200)):
            labels, held = examples(name)[1], []
            for label in range(1, 11):
                found = np.flatnonzero(labels == label)
                rng.shuffle(found)
                held += found[:count].tolist()
            rest = sorted(set(range(SIZES[name])) - set(held))
            rows.append((name, np.array(sorted(held) if which == "valid" else rest)))
    images = np.concatenate([examples(name)[0][wanted] for name, wanted in rows])
    labels = np.concatenate([examples(name)[1][wanted] for name, wanted in rows]) - 1
    order = np.arange(len(labels))
    rng.shuffle(order)
    return images[order], labels[order]


@pytest.mark.parametrize("which", sorted(SETS))
def test_every_set(folder, which):
    images, labels = expected(which)
    with SVHN(which, folder, axes=("b", 0, 1, "c")) as ds:
        assert len(ds) == len(images)
        assert ds.X.dtype == np.float32
        assert np.array_equal(ds.get_topological_view(), images)
        assert np.array_equal(np.asarray(ds.y), labels[:, None])
        assert ds.y_labels == 10
    with tables.open_file(file_of(which, folder)) as file:
        assert np.array_equal(
            file.root.Data.X[:], images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        )
        assert file.root.Data.X.dtype == np.uint8
        assert file.root.Data.y.dtype.kind == "i"
        assert file.title == "SVHN Dataset"
    assert sorted(os.listdir(f"{folder}/h5")) == sorted(
        name for name in os.listdir(f"{folder}/h5") if name.endswith("_32x32.h5")
    )


def test_the_validation_set_is_balanced_and_no_one_is_trained_on(folder):
    with SVHN("valid", folder) as valid, SVHN("splitted_train", folder) as train:
        assert len(valid) == 6000
        assert len(train) == SIZES["train"] + SIZES["extra"] - 6000
        assert np.bincount(np.asarray(valid.y)[:, 0]).tolist() == [600] * 10
        images = [ds.get_topological_view()[:] for ds in (valid, train)]
        seen = [set(zip(*numbers_of(each), strict=True)) for each in images]
        assert len(seen[0]) == 6000
        assert not seen[0] & seen[1]


@pytest.mark.parametrize(
    ("center", "scale", "change"),
    [
        (False, False, lambda x: x),
        (True, False, lambda x: x - 127.5),
        (False, True, lambda x: x / 255),
        (True, True, lambda x: (x - 127.5) / 127.5),
    ],
)
def test_centred_and_scaled_as_it_is_read(folder, center, scale, change):
    make_once = file_of("test", folder)
    SVHN("test", folder).close()
    before = Path(make_once).read_bytes(), os.stat(make_once).st_mtime_ns
    images = change(expected("test")[0].astype("float32"))
    axes = ("c", 0, 1, "b")
    with SVHN("test", folder, center=center, scale=scale, start=10, stop=90, axes=axes) as ds:
        want = images[10:90].transpose(3, 1, 2, 0)
        assert np.allclose(ds.get_topological_view(), want, rtol=1e-6)
        space = Conv2DSpace((32, 32), 3, axes=axes)
        batches = list(ds.iterator(batch_size=33, data_specs=(space, "features")))
        assert np.allclose(np.concatenate(batches, axis=3), want, rtol=1e-6)
        ds.set_design_matrix(np.zeros((80, 3072)))
        assert not np.asarray(ds.X).any()
        with ds.get_test_set() as again:
            assert len(again) == SIZES["test"]
            assert np.allclose(
                again.get_topological_view(), images.transpose(3, 1, 2, 0), rtol=1e-6
            )
    assert (Path(make_once).read_bytes(), os.stat(make_once).st_mtime_ns) == before


class Noted:
    def apply(self, dataset, can_fit=False):
        self.can_fit = can_fit


def test_preprocessors_are_fitted_on_what_is_trained_on(folder):
    for which, due in (("train", True), ("test", False)):
        noted = Noted()
        SVHN(which, folder, preprocessor=noted).close()
        assert noted.can_fit is due


def test_version_7_3_is_the_same(folder, tmp_path):
    images, labels = examples("test")
    with h5py.File(tmp_path / "test_32x32.mat", "w", userblock_size=512) as file:
        file.create_dataset(
            "X", data=images.transpose(0, 3, 2, 1), chunks=(100, 3, 32, 32), compression="gzip"
        )
        file["y"] = labels[None].astype("f8")  # as doubles, as MATLAB would
    make("test", tmp_path)
    make("test", folder)
    with SVHN("test", tmp_path) as mine, SVHN("test", folder) as theirs:
        assert np.array_equal(mine.X, theirs.X)
        assert np.array_equal(mine.y, theirs.y)


def cut(path, part):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * part)])


def transposed(folder):
    images, labels = examples("test")
    mat = {"X": images, "y": labels[:, None].astype("u1")}
    scipy.io.savemat(f"{folder}/test_32x32.mat", mat)


@pytest.mark.parametrize(
    ("spoil", "error", "why"),
    [
        (lambda f: os.unlink(f"{f}/test_32x32.mat"), FileMissingError, "--download"),
        (lambda f: cut(f"{f}/test_32x32.mat", 0.7), FormatError, "test_32x32.mat"),
        (lambda f: cut(f"{f}/test_32x32.mat", 0), FormatError, "test_32x32.mat"),
        (transposed, FormatError, "found 130 x 32 x 32 x 3 uint8: its axes are in another order"),
        (
            lambda f: write(f, "test", labels=np.arange(130) % 10),
            FormatError,
            "labels are whole numbers from 1 to 10; found 0",
        ),
        (
            lambda f: write(f, "test", labels=np.arange(129) % 10 + 1),
            FormatError,
            "X has 130 examples, y has 129 labels",
        ),
        (
            lambda f: scipy.io.savemat(f"{f}/test_32x32.mat", {"Z": np.zeros(3)}),
            FormatError,
            "no variable 'X': there are Z",
        ),
    ],
)
def test_originals_that_are_not_what_they_should_be(tmp_path, spoil, error, why):
    write(tmp_path, "test")
    spoil(tmp_path)
    with pytest.raises(error, match=why):
        SVHN("test", tmp_path)
    assert not (tmp_path / "h5").exists() or not os.listdir(tmp_path / "h5")


def test_too_few_examples_to_hold_out(tmp_path):
    write(tmp_path, "train", *(part[:100] for part in examples("train")))
    write(tmp_path, "extra")
    with pytest.raises(FormatError, match="400 of each are held out"):
        SVHN("valid", tmp_path)


def test_what_is_asked_for(folder, monkeypatch):
    with pytest.raises(MismatchError, match="which_set='all' is not one of"):
        SVHN("all", folder)
    with pytest.raises(RowError, match="stop=131 of 130"):
        SVHN("test", folder, stop=131)
    monkeypatch.delenv("PYLEARN2_DATA_PATH", raising=False)
    with pytest.raises(FileMissingError, match="PYLEARN2_DATA_PATH is not set"):
        SVHN("test")
    root = Path(folder).parent
    (root / "SVHN").mkdir(exist_ok=True)
    (root / "SVHN" / "format2").symlink_to(folder)
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(root))
    SVHN("test").close()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 0.5])
def test_killed_while_it_is_made(tmp_path, seconds):
    """What is there after a kill is whole, or not at its name; and the next one cleans up."""
    write(tmp_path, "train")
    code = (
        "import sys; from epochal.datasets.svhn_making import make; print('begun', flush=True); "
        "make('train', sys.argv[1])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "begun\n"
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
    child.stdout.close()
    images, labels = expected("train")
    with SVHN("train", tmp_path) as ds:
        assert np.array_equal(ds.get_topological_view(), images)
        assert np.array_equal(np.asarray(ds.y)[:, 0], labels)
    assert os.listdir(tmp_path / "h5") == ["train_32x32.h5"]


# Command and download -------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, ["svhn", *map(str, words)])


def test_the_command(tmp_path):
    write(tmp_path, "test")
    done = run("--path", tmp_path, "--set", "test", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["test"] == {"path": file_of("test", tmp_path), "made": True}
    done = run("--path", tmp_path, "--set", "test")
    assert "was there" in done.output
    assert "made" in run("--path", tmp_path, "--set", "test", "--overwrite").output
    failed = run("--path", tmp_path)
    assert failed.exit_code == 1
    assert "train_32x32.mat: the originals are not there" in failed.output
    assert run("--path", tmp_path, "--set", "all").exit_code == 2


@pytest.fixture
def server(folder):
    """The originals on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_downloads_are_compared_with_their_checksums(folder, server, tmp_path, monkeypatch):
    failed = run("--path", tmp_path, "--set", "test", "--download", "--url", server)
    assert failed.exit_code == 1
    assert "test_32x32.mat was not fetched" in failed.output
    assert "hash" in failed.output
    assert not list(tmp_path.glob("*.mat"))
    data = Path(f"{folder}/test_32x32.mat").read_bytes()
    monkeypatch.setitem(svhn_files.FILES, "test", hashlib.md5(data).hexdigest())
    done = run("--path", tmp_path, "--set", "test", "--download", "--url", server)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "test_32x32.mat").read_bytes() == data
    with SVHN("test", tmp_path) as ds:
        assert len(ds) == SIZES["test"]


def test_a_server_that_does_not_answer(tmp_path):
    with pytest.raises(TargetError, match="was not fetched"):
        svhn_files.download(tmp_path, ["test"], "http://127.0.0.1:9/")
    assert not list(tmp_path.glob("*.mat"))


def test_errors_are_of_the_tree():
    with pytest.raises(EpochalError):
        make("nothing", "/nowhere")
