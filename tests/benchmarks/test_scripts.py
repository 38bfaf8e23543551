"""Every benchmark runs, tiny and un-timed: what it measures here says nothing, that it measures
does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Where the benchmarks keep their files."""
    return tmp_path_factory.mktemp("data")


def figures(data: Path, script: str, *words: str) -> list[dict]:
    """What a benchmark prints as JSON."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{script}.py", "--json", "--data", data, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "EPOCHAL_SCRATCH": str(data)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def held_against(found: list[dict]) -> list[str]:
    assert all(figure["rows_per_second"] > 0 for figure in found)
    assert all(figure["their_rows_per_second"] > 0 for figure in found)
    return [figure["against"] for figure in found]


@pytest.mark.parametrize(
    ("script", "against"),
    [
        ("sequential", ["read + decode, all cores"] * 2),
        ("shuffle", ["two-pass bound", "read + decode, all cores"]),
        ("resident", ["np.take into fresh batches"]),
        ("small_rows", ["what is asked"] * 2),
        ("formats", ["two-pass bound"] * 6),
        ("writing", ["h5py, gzip", *["the same without checksums"] * 2, "cp"]),
        ("sparse_rows", ["two-pass bound", "AnnData backed, rows in random order"]),
        ("remote", ["download of the file"] * 2),
    ],
)
def test_a_figure_is_held_against_its_bound(data, script, against):
    found = figures(data, script, "--rows", "2000", "--repeat", "1")
    assert held_against(found) == against
    assert all(figure["peak_bytes"] is not None for figure in found)


def test_peers(data):
    pytest.importorskip("torch", reason="the peer is not installed")
    found = figures(data, "peers", "--rows", "2000", "--repeat", "1", "--seconds", "0.2")
    assert held_against(found) == [
        "h5py, sorted fancy indexing",
        "torch DataLoader, 2 workers, by row",
        "torch DataLoader, 2 workers, by batch",
    ]


def test_contiguous_in_a_cgroup(data):
    words = ("--rows", "3000", "--repeat", "1", "--seconds", "0.2", "--memory", "32MiB")
    found = figures(data, "contiguous", *words)
    if not found:
        pytest.skip("no memory cgroup can be made here")
    assert held_against(found) == ["sequential pread", "32 threads, single rows"]


def test_explain_is_compared_for_every_strategy(data):
    found = figures(data, "explain", "--rows", "20000", "--repeat", "1")
    strategies = ["stream", "resident", "spool", "rescan", "gather"]
    assert [each["asked"] for each in found] == [name for name in strategies for _ in range(2)]
    assert all(each["asked"] == each["strategy"] for each in found)
    for each in found:
        assert each["read_bytes"][0] == each["read_bytes"][1]
        assert each["chunks_decoded"][0] == each["chunks_decoded"][1]


def test_all_makes_the_table(data):
    done = subprocess.run(
        [sys.executable, "-c", HALF_OF_ALL, "--rows", "2000", "--repeat", "1", "--data", data],
        capture_output=True,
        text=True,
        cwd=SCRIPTS,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| what | rows/s | against |"), done.stderr
    assert [line.count("|") for line in lines] == [lines[0].count("|")] * 5
    assert lines[2].endswith("`benchmarks/sequential.py` |")
    # Two thousand rows reach nothing, and that is said.
    assert done.returncode in (0, 1)
    assert (done.returncode == 1) == ("not reached" in done.stderr)


HALF_OF_ALL = """
import runpy, sys
sys.path.insert(0, "")
all = runpy.run_path("all.py")
all["main"].__globals__["SCRIPTS"] = ("sequential", "resident")
all["main"]()
"""


def test_libraries_beside_ours(data):
    found = figures(data, "libraries", "--rows", "2000", "--repeat", "1", "--seconds", "0.1")
    assert [each["library"] for each in found] == ["PyTables"] * 3 + ["h5py"] * 3 + ["memory map"]
    for each in found:
        assert min(each["write"], each["in_order"], each["random"], each["ours_random"]) > 0


def test_fits(data):
    words = ("--rows", "2000", "--repeat", "1", "--only")
    (found,) = figures(data, "transforms", *words, "standardize")
    assert found["against"] == "read + decode, all cores"
    assert min(found["rows_per_second"], found["their_rows_per_second"]) > 0
    (right,) = figures(data, "transforms", *words, "accuracy")
    assert right["numbers"] == 200_000
    assert right["wrong_by"] <= right["goal"]


def test_fits_of_many_numbers_and_processes(data):
    for part, against in (("zca", "np.cov + eigh in memory"), ("dask", "1 worker")):
        words = ("--rows", "300", "--repeat", "1", "--width", "64", "--only", part)
        (found,) = figures(data, "transforms", *words)
        assert found["against"] == against
        assert min(found["rows_per_second"], found["their_rows_per_second"]) > 0


def test_what_crashed_in_pylearn2(data):
    found = figures(data, "pylearn2", "--part", "0.02", "--rows", "2000", "--repeat", "1")
    sets = ["train", "test", "extra", "train_all", "splitted_train", "valid"]
    assert sorted(found) == sorted(
        ["fill_hdf5, 5.9 MiB, one call", "exact shuffle of SVHN train_all"]
        + [f"SVHN {which}" for which in sets]
    )
    for each in found.values():
        assert min(each["rows"], each["peak_bytes"]) > 0
    assert found["exact shuffle of SVHN train_all"]["ratio"] > 0
