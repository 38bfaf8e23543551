import pytest

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
