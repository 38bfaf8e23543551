import json

import h5py
import numpy as np
import pytest

import epochal


def test_the_page_is_the_plans_own(run, digits):
    result = run("explain", digits, "--batch-size", 32, "--memory", "16MiB", "--sources", "X,y")
    assert result.exit_code == 0
    first = result.stdout.splitlines()[0]
    assert first.startswith("shuffled_sequential: resident")


def test_json_is_the_plan_of_the_same_arguments(run_json, digits):
    found = run_json(
        *("explain", digits, "--scheme", "sequential", "--batch-size", 32, "--memory", "16MiB"),
        *("--sources", "y", "--seed", 7, "--shard", "1/3", "--threads", 1),
    )
    with epochal.open(digits) as ds:
        plan = ds.explain(
            *("sequential", 32), sources=("y",), seed=7, shard=(1, 3), threads=1, memory="16MiB"
        )
    assert found["scheme"] == "sequential"
    assert found["threads"] == 1
    assert [feed["source"] for feed in found["feeds"]] == ["y"]
    for exact in ("rows", "read_bytes", "decoded_bytes", "chunks_decoded"):
        assert found["predicted"][exact] == plan.as_dict()["predicted"][exact]


def test_less_memory_is_another_strategy(run_json, tmp_path):
    # 8 MiB decoded, which 32 MiB hold and 2 MiB do not.
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        rows = np.zeros((8192, 1024), "u1")
        file.create_dataset("X", data=rows, chunks=(64, 1024), compression="gzip")
    words = ("explain", path, "--batch-size", 64, "--scratch", tmp_path)
    plenty = run_json(*words, "--memory", "32MiB")
    little = run_json(*words, "--memory", "2MiB")
    assert plenty["strategy"] == "resident"
    assert little["strategy"] in ("spool", "rescan")
    assert little["predicted"]["held_bytes"] <= 2 << 20


@pytest.mark.parametrize("scheme", ["chunkwise_shuffled_sequential", "even_sequences"])
def test_names_of_schemes_are_checked_before_the_file(run, scheme, tmp_path):
    # The file is missing, so a name that is known fails by that, with 1; an unknown one is wrong
    # usage.
    known = run("explain", tmp_path / "none.h5", "--scheme", scheme)
    unknown = run("explain", tmp_path / "none.h5", "--scheme", scheme[:-1])
    assert (known.exit_code, unknown.exit_code) == (1, 2)
    assert scheme in unknown.stderr


def test_json_of_a_plan_is_one_document(process, digits):
    done = process("explain", digits, "--json")
    assert done.status == 0
    assert json.loads(done.out)["strategy"] == "resident"
