import h5py
import numpy as np
import pytest
import zarr

WHAT = [
    "raw read",
    "read + decode",
    "two-pass bound",
    "memory copy",
    "sequential",
    "exact shuffle, first epoch",
    "exact shuffle, later epochs",
]


def test_every_line_is_measured_in_one_run(run_json, digits, tmp_path):
    found = run_json(
        *("bench", digits, "--memory", "16MiB", "--repeat", 1, "--sources", "X,y"),
        *("--batch-size", 64, "--scratch", tmp_path, "--threads", 2),
    )
    assert [line["what"] for line in found["lines"]] == WHAT
    assert all(line["rows_per_second"] > 0 for line in found["lines"])
    assert found["memory_bytes"] == 16 << 20
    assert found["decoded_bytes"] == 1797 * (64 + 8)
    assert list(tmp_path.iterdir()) == []  # scratch leaves nothing


def test_ratios_are_those_of_the_rates(run_json, digits):
    lines = run_json("bench", digits, "--memory", "16MiB", "--repeat", 1, "--sources", "X")["lines"]
    rates = {line["what"]: line["rows_per_second"] for line in lines}
    held = {line["what"]: line for line in lines if line["against"]}
    assert list(held) == WHAT[4:]
    for what, line in held.items():
        assert line["ratio"] == pytest.approx(rates[what] / rates[line["against"]])


def test_the_table_has_a_line_each(run, digits):
    result = run("bench", digits, "--sources", "X,y", "--memory", "16MiB", "--repeat", 2)
    assert result.exit_code == 0
    for what in WHAT:
        assert what in result.stdout
    assert "medians of 2" in result.stdout
    assert "of two-pass bound" in result.stdout


def test_nothing_is_measured_of_a_wrong_name(run, digits):
    result = run("bench", digits, "--sources", "Z")
    assert result.exit_code == 1
    assert result.stderr.startswith("epochal: ")
    assert result.stdout == ""


@pytest.mark.parametrize("shape", [(0, 3), (20, 0), (0, 0)])
def test_rows_that_are_none_or_have_no_bytes(run_json, run, tmp_path, shape):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", shape, "f4")
    found = run_json("bench", tmp_path / "a.h5", "--repeat", 1, "--threads", 2)
    assert [line["what"] for line in found["lines"]] == WHAT
    assert all((line["ratio"] is None) == (shape[0] == 0) for line in found["lines"][4:])
    assert run("bench", tmp_path / "a.h5", "--repeat", 1).exit_code == 0


def test_rows_of_varying_length_that_are_none(run_json, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", (0,), h5py.vlen_dtype("i4"), maxshape=(None,), chunks=(5,))
    found = run_json("bench", tmp_path / "a.h5", "--repeat", 1, "--sources", "X")
    assert [line["rows_per_second"] for line in found["lines"]] == [0] * len(WHAT)


def test_folders_and_patterns(run_json, tmp_path):
    rows = np.arange(400, dtype="i4")
    zarr.create_array(tmp_path / "a.zarr", data=rows, chunks=(20,))
    for k in range(2):
        with h5py.File(tmp_path / f"h-{k}.h5", "w") as file:
            file["X"] = rows
    for target, n_rows in (("a.zarr", 400), ("h-*.h5", 800)):
        found = run_json("bench", tmp_path / target, "--repeat", 1, "--threads", 2)
        assert [line["what"] for line in found["lines"]] == WHAT
        assert found["rows"] == n_rows


def test_a_url_has_no_files(run_json, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = np.arange(100)
    found = run_json("bench", f"file://{tmp_path}/a.h5", "--repeat", 1)
    assert [line["what"] for line in found["lines"]] == WHAT[1:]
