import json
import os

import h5py
import numpy as np
import pytest

from epochal.cli.demo import digits as demo_digits
from epochal.cli.demo.digits import HELD_OUT, TRAIN, compose, digits_file

ORDERS = ["sequential", "batchwise_shuffled_sequential", "shuffled_sequential"]


def nothing(n: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small file of the demo."""
    return digits_file(tmp_path_factory.mktemp("demo"), 1200, 200, nothing)


def test_images_are_sorted_by_class_and_compressed(file):
    with h5py.File(file) as opened:
        X, y = (opened[name] for name in TRAIN)
        assert X.shape == (1200, 32, 32, 3)
        assert X.dtype == np.uint8
        assert X.chunks == (100, 32, 32, 3)
        assert X.compression == "gzip"
        assert X.id.get_storage_size() < 0.7 * X.nbytes
        np.testing.assert_array_equal(y[:], np.repeat(np.arange(10), 120))
        held_out = opened[HELD_OUT[1]][:]
        np.testing.assert_array_equal(np.bincount(held_out), np.full(10, 20))
        assert all(image.std() > 5 for image in X[::100])


def test_no_source_digit_is_in_both_parts(tmp_path, monkeypatch):
    seen = []

    def watched(images, labels, n_rows, rng):
        seen.append({image.tobytes() for image in images})
        yield compose(images[:n_rows], rng), 0

    monkeypatch.setattr(demo_digits, "_blocks", watched)
    digits_file(tmp_path, 100, 50, nothing)
    train, held_out = seen
    assert len(train) > 1000
    assert len(held_out) > 300
    assert not train & held_out


def test_each_image_holds_its_digit():
    # A full digit is ink everywhere, an empty one nowhere: the two differ from each other, and in
    # most of a digit's area.
    full, empty = (
        compose(np.full((50, 8, 8), ink, np.float32), np.random.default_rng(0)).astype(int)
        for ink in (1, 0)
    )
    inked = (np.abs(full - empty).max(axis=3) > 16).sum(axis=(1, 2))
    assert inked.min() >= 15**2  # 8 pixels at the least scale, less the fading border
    assert inked.max() <= 32**2


def test_a_whole_file_is_used_again(file):
    before = file.stat()
    assert digits_file(file.parent, 1200, 200, nothing) == file
    assert file.stat() == before


def test_a_torn_file_is_written_again(tmp_path):
    path = tmp_path / "digits-1000.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert digits_file(tmp_path, 1000, 100, nothing) == path
    with h5py.File(path) as opened:
        assert len(opened["X"]) == 1000
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing(tmp_path):
    def stop(n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digits_file(tmp_path, 1000, 100, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_three_orders(process, tmp_path):
    words = ("demo", "--rows", 1000, "--epochs", 1, "--memory", "16MiB")
    first = process(*words)
    assert first.status == 0, first.error
    for order in ORDERS:
        assert any(line.startswith(order) for line in first.out.splitlines())
    assert "not a source" in first.out  # what `info` says
    assert "weighed" in first.out  # what `explain` says
    assert "h5py" in first.out
    assert first.error == ""  # no bar where there is no terminal
    assert [path.name for path in (tmp_path / "demo-data").iterdir()] == ["digits-1000.h5"]


def test_a_file_of_ones_own(process, digits):
    words = ("--file", digits, "--source", "X", "--target", "y", "--epochs", 2, "--memory", "8MiB")
    done = process("demo", *words, "--batch-size", 64, "--json")
    assert done.status == 0, done.error
    found = json.loads(done.out)
    assert [result["order"] for result in found["orders"]] == ORDERS
    assert found["rows"] + found["held_out_rows"] == 1797
    assert found["classes"] == 10
    assert found["memory_bytes"] == 8 << 20
    assert found["h5py_rows_per_second"] > 0
    exact = found["orders"][2]
    assert len(exact["accuracy"]) == 2
    assert exact["accuracy"][-1] > 0.5  # ten classes; two epochs of real digits


@pytest.mark.parametrize(
    ("target", "why"),
    [("X", "one integer a row"), ("weights", "one integer a row"), ("same", "1 different value")],
)
def test_what_cannot_be_a_target(run, digits, tmp_path, target, why):
    path = tmp_path / "targets.h5"
    path.write_bytes(digits.read_bytes())
    with h5py.File(path, "a") as file:
        file["same"] = np.zeros(1797, "i4")
    result = run("demo", "--file", path, "--target", target, "--memory", "8MiB")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"epochal: source {target!r} cannot be the target")
    assert why in result.stderr


def test_without_scikit_learn_it_says_what_to_install(process, tmp_path):
    blocked = tmp_path / "blocked"
    (blocked / "sklearn").mkdir(parents=True)
    (blocked / "sklearn" / "__init__.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join(filter(None, (str(blocked), os.environ.get("PYTHONPATH"))))
    done = process("demo", "--rows", 1000, PYTHONPATH=path)
    assert done.status == 1
    assert done.error == (
        "epochal: epochal demo needs scikit-learn, for its digits: pip install 'epochal[demo]'\n"
    )
