"""``epochal show``: pixels where they belong; what is wrong is one line, and draws nothing."""

import os

import h5py
import matplotlib.image
import numpy as np
import pytest

from epochal.cli import pictures
from epochal.transforms import PCA, ZCA, Pipeline, Standardize

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], "u1")


@pytest.fixture
def flats(tmp_path):
    """Four images of one colour each."""
    path = tmp_path / "flats.h5"
    with h5py.File(path, "w") as file:
        file["X"] = np.broadcast_to(COLOURS[:, None, None], (4, 8, 8, 3)).copy()
        file["first"] = file["X"][:].transpose(0, 3, 1, 2)
        file["vectors"] = file["X"][:].reshape(4, -1).astype("f4") - 100
        file["y"] = np.arange(4)
    return path


@pytest.fixture
def fitted(digits, tmp_path):
    with h5py.File(digits) as file:
        pipe = Pipeline([Standardize(), ZCA()]).fit(file["X"][:])
    pipe.save(tmp_path / "fitted.npz")
    return tmp_path / "fitted.npz"


def colours_in(path):
    pixels = matplotlib.image.imread(path)[..., :3]
    height, width = pixels.shape[:2]
    flat = pixels.reshape(-1, 3)
    found = []
    for colour in COLOURS / 255:
        here = np.flatnonzero(np.abs(flat - colour).max(axis=1) < 0.02)
        assert len(here) > 0.02 * len(flat), colour
        rows, columns = np.divmod(here, width)
        found.append((rows.mean() > height / 2, columns.mean() > width / 2))
    return found


@pytest.mark.parametrize("source", ["X", "first"])
def test_images_are_where_they_belong(run, flats, tmp_path, source):
    target = tmp_path / "grid.png"
    result = run("show", flats, "--source", source, "--rows", "4", "-o", target)
    assert result.exit_code == 0, result.output
    quarters = [(False, False), (False, True), (True, False), (True, True)]
    assert colours_in(target) == quarters


def test_vectors_that_are_images(run, flats, tmp_path):
    words = ("--source", "vectors", "--shape", "8,8,3", "-o", tmp_path / "grid.png")
    assert run("show", flats, *words).exit_code == 0
    assert len(colours_in(tmp_path / "grid.png")) == 4


def test_tiles_and_scales():
    images = np.arange(5.0)[:, None, None] * np.ones((5, 2, 3))
    sheet = pictures.tiled(pictures.scaled(images))
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert sheet[0, 0] == 0
    assert sheet[0, 4] == pytest.approx(0.25, abs=0.01)
    assert sheet[3, 4] == 1
    assert (pictures.scaled(np.full((2, 2, 2), 7.0)) == 0.5).all()
    odd = pictures.scaled(np.array([[[np.nan, np.inf, -np.inf, 1.0, 2.0]]]))
    assert np.isfinite(odd).all()
    assert pictures.scaled(np.array([[[0, 255]]], "u1")).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("kind", ["grid", "histogram", "filters", "spectrum"])
@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_every_kind(run_json, digits, fitted, tmp_path, kind, suffix):
    before = (digits.read_bytes(), os.stat(digits).st_mtime_ns)
    target = tmp_path / f"picture.{suffix}"
    words = ("show", digits, "--spec", fitted, "--kind", kind, "-o", target)
    found = run_json(*words)
    assert found == {"path": str(target), "kind": kind, "source": "X", "rows": 64}
    assert target.read_bytes()[:4] in (b"\x89PNG", b"%PDF", b"<?xm")
    assert (digits.read_bytes(), os.stat(digits).st_mtime_ns) == before


def test_a_spectrum_of_rows_and_one_of_pca(run, digits, tmp_path):
    assert run("show", digits, "--kind", "spectrum", "-o", tmp_path / "a.png").exit_code == 0
    with h5py.File(digits) as file:
        PCA(10).fit(file["X"][:]).save(tmp_path / "pca.npz")
    for kind in ("spectrum", "filters"):
        words = ("--kind", kind, "--spec", tmp_path / "pca.npz", "-o", tmp_path / f"{kind}.png")
        assert run("show", digits, *words).exit_code == 0


def test_a_spectrum_of_what_is_not_finite(run, tmp_path):
    rows = np.random.default_rng(0).normal(size=(20, 4))
    rows[3, 2] = np.nan
    with h5py.File(tmp_path / "nan.h5", "w") as file:
        file["X"] = rows
    result = run("show", tmp_path / "nan.h5", "--kind", "spectrum", "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "'X': rows with NaN or infinity have no spectrum" in " ".join(result.output.split())
    assert os.listdir(tmp_path) == ["nan.h5"]


def test_rows_at_random_are_those_of_the_seed(run, digits, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--seed", seed, "--rows", 9, "-o", tmp_path / f"{name}.png")
        assert run("show", digits, *words).exit_code == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_pictures_are_not_replaced_unless_asked(run, flats, tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"mine")
    result = run("show", flats, "-o", target)
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert target.read_bytes() == b"mine"
    assert run("show", flats, "--overwrite", "--source", "X", "-o", target).exit_code == 0
    assert target.read_bytes()[:4] == b"\x89PNG"


WRONG = {
    "suffix": (("-o", "a.gif"), 1, "one of .png, .pdf, .svg"),
    "no images": (("--source", "y", "-o", "a.png"), 1, "are no images: say what they are"),
    "vectors": (("--source", "vectors", "-o", "a.png"), 1, "rows of shape (192,) are no images"),
    "shape": (
        ("--source", "vectors", "--shape", "8,8", "-o", "a.png"),
        1,
        "--shape 8,8 has 64 numbers, rows of shape (192,) have 192",
    ),
    "no shape": (("--shape", "8x8", "-o", "a.png"), 2, "give H,W or H,W,C"),
    "source": (("--source", "Z", "-o", "a.png"), 1, "no source 'Z'"),
    "filters": (("--source", "X", "--kind", "filters", "-o", "a.png"), 1, "with --spec"),
    "spec": (("--spec", "none.npz", "-o", "a.png"), 1, "there is no such file"),
    "folder": (("--source", "X", "-o", "none/a.png"), 1, "cannot be written"),
    "output": ((), 2, "--output"),
    "rows": (("--rows", "0", "-o", "a.png"), 2, "--rows"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_told(run, flats, tmp_path, monkeypatch, name):
    words, status, why = WRONG[name]
    monkeypatch.chdir(tmp_path)
    result = run("show", flats, *words)
    assert result.exit_code == status, result.output
    assert why in " ".join(result.output.replace("│", "").split())
    assert os.listdir(tmp_path) == ["flats.h5"]


def test_widths_that_differ(run, flats, fitted, tmp_path):
    result = run("show", flats, "--source", "X", "--spec", fitted, "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "fitted to rows of shape (8, 8)" in result.output
    assert sorted(os.listdir(tmp_path)) == ["fitted.npz", "flats.h5"]
