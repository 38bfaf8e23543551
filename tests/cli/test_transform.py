"""``epochal transform``: a pipeline as text, fitted and applied; what is wrong is one line."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import FormatError, MismatchError
from epochal.transforms import (
    ZCA,
    GlobalContrastNormalization,
    Pipeline,
    Standardize,
    from_spec,
    load,
)

SPEC = """
- GlobalContrastNormalization: {sqrt_bias: 10, use_std: true}
- Standardize
- ZCA: {filter_bias: 0.1}
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(SPEC)
    return path


def expected_of(digits, fit_on=slice(None)):
    with h5py.File(digits) as file:
        rows = file["X"][:]
    stages = [GlobalContrastNormalization(sqrt_bias=10, use_std=True), Standardize(), ZCA()]
    return Pipeline(stages).fit(rows[fit_on]).transform(rows)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_fitted_and_written(run, run_json, digits, spec, tmp_path):
    before = (digits.read_bytes(), os.stat(digits).st_mtime_ns)
    target = tmp_path / "white.h5"
    found = run_json("transform", digits, target, "--spec", spec)
    assert found == {"path": str(target), "rows": 1797, "resumed_at": 0}
    expected = expected_of(digits)
    with epochal.open(str(target)) as ds:
        assert list(ds.sources) == ["X", "weights", "y"]
        close(ds["X"][:], expected)
        with h5py.File(digits) as file:
            assert np.array_equal(ds["y"][:], file["y"][:])
    assert (digits.read_bytes(), os.stat(digits).st_mtime_ns) == before
    assert sorted(os.listdir(tmp_path)) == ["pipeline.yaml", "white.h5"]
    assert "epochal.transforms.load reads it" in " ".join(run("info", target).output.split())


def test_with_what_was_learnt_before(run, digits, spec, tmp_path):
    first, fitted = tmp_path / "a.h5", tmp_path / "fitted.npz"
    assert run("transform", digits, first, "--spec", spec, "--save-fit", fitted).exit_code == 0
    for state in (fitted, first):
        words = ("--spec", state, "--sources", "X", "--overwrite")
        assert run("transform", digits, tmp_path / "b.zarr", *words).exit_code == 0
        with epochal.open(str(tmp_path / "b.zarr")) as ds:
            assert list(ds.sources) == ["X"]
            close(ds["X"][:], expected_of(digits))
    assert repr(load(fitted)) == repr(from_spec(str(spec)))
    result = run("transform", digits, tmp_path / "c.h5", "--spec", fitted, "--fit-on", digits)
    assert result.exit_code == 1
    assert "has learnt already" in result.output


def test_the_fit_of_one_npy_file_is_saved(run, digits, spec, tmp_path):
    words = ("--spec", spec, "--sources", "X", "--save-fit", tmp_path / "fit.npz")
    result = run("transform", digits, tmp_path / "a.npy", *words)
    assert result.exit_code == 0, result.output
    with h5py.File(digits) as file:
        close(load(tmp_path / "fit.npz").transform(file["X"][:]), np.load(tmp_path / "a.npy"))


def test_fitted_on_another_file(run, digits, spec, tmp_path):
    with epochal.open(str(digits), sources=["X"]) as ds:
        ds.part(0, 1000).save(tmp_path / "train.h5")
    words = ("--spec", spec, "--fit-on", tmp_path / "train.h5")
    assert run("transform", digits, tmp_path / "a.h5", *words).exit_code == 0
    with epochal.open(str(tmp_path / "a.h5")) as ds:
        close(ds["X"][:], expected_of(digits, slice(0, 1000)))


def test_another_source(run, digits, tmp_path):
    (tmp_path / "s.yaml").write_text("stages: [Standardize: {global_mean: true}]")
    words = ("--spec", tmp_path / "s.yaml", "--source", "weights")
    assert run("transform", digits, tmp_path / "a.h5", *words).exit_code == 0
    with epochal.open(str(tmp_path / "a.h5")) as ds:
        assert abs(ds["weights"][:].mean()) < 1e-6
        assert ds["X"].dtype == np.uint8


WRONG = {
    "no file": ("none.h5", SPEC, (), "no such file"),
    "no spec": (None, None, (), "no such file"),
    "no yaml": (None, "- [", (), "is no YAML"),
    "a sentence": (None, "Standardize", (), "a pipeline is a list of stages"),
    "nothing": (None, "", (), "a pipeline is a list of stages"),
    "a number": (None, "- 3", (), "a stage is a name"),
    "two at once": (None, "- {ZCA: , PCA: }", (), "a stage is a name"),
    "unknown": (None, "- Standardise", (), "did you mean 'Standardize'?"),
    "argument": (None, "- ZCA: {filter_bia: 1}", (), "did you mean 'filter_bias'?"),
    "code": (None, "- !!python/object/apply:os.mkdir [x]", (), "is no YAML"),
    "missing": (None, "- CentralWindow", (), "window_shape"),
    "value": (None, "- Standardize: {std_eps: -1}", (), "std_eps=-1"),
    "shape": (None, "- CentralWindow: {window_shape: [20, 20]}", (), "(20, 20)"),
    "components": (None, "- PCA: {num_components: 65}", (), "num_components=65"),
    "source": (None, SPEC, ("--source", "Z"), "no source 'Z'"),
    "fit on": (None, SPEC, ("--fit-on", "none.h5"), "no such file"),
    "ragged": (None, SPEC, ("--ragged", "dense"), "--ragged"),
    "dask": (None, SPEC, ("--dask", "tcp://127.0.0.1:1"), "no scheduler answers"),
}


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_wrong_is_one_line(run, digits, tmp_path, name):
    source, text, words, why = WRONG[name]
    spec = tmp_path / "spec.yaml"
    if text is not None:
        spec.write_text(text)
    src = digits if source is None else tmp_path / source
    result = run("transform", src, tmp_path / "a.h5", "--spec", spec, *words)
    assert result.exit_code == 1, result.output
    assert why in " ".join(result.output.split())
    assert len(result.output.strip().splitlines()) == 1
    assert set(os.listdir(tmp_path)) <= {"spec.yaml"}


def test_wrong_usage(run, digits, tmp_path):
    assert run("transform", digits, tmp_path / "a.h5").exit_code == 2


@pytest.mark.parametrize("package", ["scipy", "sklearn", "distributed"])
def test_packages_that_are_missing(digits, spec, tmp_path, package):
    """Only what needs them says so; everything else goes without."""
    program = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from epochal.cli import main\n"
        "main(sys.argv[1:])\n"
    )

    def run(*words):
        line = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    for words in (("info", digits), ("convert", digits, tmp_path / "a.h5")):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    done = run("transform", digits, tmp_path / "b.h5", "--spec", spec)
    if package == "distributed":
        assert done.returncode == 0, done.stderr
        words = ("--dask", "tcp://127.0.0.1:1", "--overwrite")
        done = run("transform", digits, tmp_path / "b.h5", "--spec", spec, *words)
    extra = "dask" if package == "distributed" else "transforms"
    assert done.returncode == 1
    assert f"pip install 'epochal[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_specs_in_python():
    pipe = from_spec([{"ZCA": {"filter_bias": 0.5}}, "Standardize"])
    assert repr(pipe) == repr(Pipeline([ZCA(filter_bias=0.5), Standardize()]))
    with pytest.raises(MismatchError, match="there are CentralWindow, Downsample"):
        from_spec(["Whiten"])
    with pytest.raises(FormatError, match="is no YAML"):
        from_spec(__file__)
