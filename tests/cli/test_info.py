import h5py
import numpy as np
import pytest

import epochal


def columns(page: str) -> dict[str, list[str]]:
    """What stands behind the first word of each line."""
    lines = [line.split() for line in page.splitlines() if line.strip()]
    return {first: rest for first, *rest in lines}


def test_every_source_has_its_line(run, digits):
    result = run("info", digits)
    assert result.exit_code == 0
    lines = columns(result.stdout)
    assert lines["X"][:4] == ["1797x8x8", "uint8", "chunked", "gzip(4)"]
    assert lines["X"][-1] == "50"
    assert lines["weights"][:4] == ["1797", "float64", "contiguous", "none"]


def test_what_is_not_a_source_has_its_reason(run, digits):
    result = run("info", digits)
    lines = columns(result.stdout)
    assert "10 rows, not 1797" in " ".join(lines["meta/classes"])
    assert lines["meta/version"]


def test_json_has_the_facts_of_the_layout(run_json, digits):
    found = run_json("info", digits)
    with epochal.open(digits) as ds:
        layout = ds["X"].layout
        assert found["rows"] == len(ds)
    [X] = [source for source in found["sources"] if source["name"] == "X"]
    assert {
        "name": "X",
        "shape": [1797, 8, 8],
        "dtype": "uint8",
        "kind": "chunked",
        "codec": "gzip(4)",
        "stored_bytes": layout.stored_bytes,
        "decoded_bytes": 1797 * 64,
        "chunk_rows": 50,
        "n_chunks": 36,
        "parallel": True,
    } == X
    assert {other["name"] for other in found["others"]} == {"meta/classes", "meta/version"}


def test_untrusted_finds_the_same(run_json, digits):
    assert run_json("info", digits, "--untrusted") == run_json("info", digits)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_the_output_cannot_show(process, tmp_path, encoding):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["\xe9"] = np.arange(3)
        file[b"\xff"] = np.arange(3)
    done = process("info", "a.h5", PYTHONIOENCODING=f"{encoding}:strict", PYTHONUTF8="0")
    assert (done.status, done.error) == (0, "")
    assert ("\\xe9" if encoding == "ascii" else "\xe9") in done.out
    assert "\\udcff" in done.out
