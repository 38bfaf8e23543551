"""Exit status and messages: what a shell and a person get when something is wrong."""

import signal
import subprocess
import sys
import time

import pytest

from epochal import errors
from epochal.cli import commands

COMMANDS = ("info", "explain", "bench")


def test_help_names_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    for command in (*COMMANDS, "demo"):
        assert f"  {command} " in result.stdout
        page = run(command, "--help")
        assert page.exit_code == 0
        assert "--json" in page.stdout


def test_version(run):
    assert run("--version").stdout.split() == ["epochal", __import__("epochal").__version__]


def broken(tmp_path, digits, how):
    path = tmp_path / f"{how}.h5"
    whole = digits.read_bytes()
    content = {
        "empty": b"",
        "text": b"a,b\n1,2\n" * 100,
        "truncated": whole[: len(whole) // 2],
        "folder": None,
    }
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes(content[how])
    return path


@pytest.mark.parametrize("command", [*COMMANDS, "demo --file"])
@pytest.mark.parametrize("how", ["missing", "empty", "text", "truncated", "folder"])
def test_a_bad_file_is_one_line_and_status_1(run, tmp_path, digits, command, how):
    path = broken(tmp_path, digits, how)
    result = run(*command.split(), path)
    assert result.exit_code == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("epochal: ")
    assert path.name in line


def test_a_bad_file_shows_no_traceback(process, tmp_path):
    done = process("info", "none.h5")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith("epochal: none.h5: ")
    assert done.error.count("\n") == 1


@pytest.mark.parametrize("command", ["explain", "bench"])
def test_a_wrong_source_has_a_suggestion(run, digits, command):
    result = run(command, digits, "--sources", "X,weihgts")
    assert result.exit_code == 1
    assert "did you mean 'weights'?" in result.stderr


def test_a_budget_that_cannot_hold_a_batch(run, digits):
    result = run("explain", digits, "--memory", "1KiB")
    assert result.exit_code == 1
    assert result.stderr.startswith("epochal: memory=1.0 KiB cannot hold a batch of 256 rows")


def test_sources_of_unequal_length(run, digits):
    result = run("explain", digits, "--sources", "X,meta/classes")
    assert result.exit_code == 1
    assert "1797" in result.stderr
    assert "10" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("info",),
        ("info", "FILE", "--no-such-option"),
        ("explain", "FILE", "--batch-size", "0"),
        ("explain", "FILE", "--batch-size", "some"),
        ("explain", "FILE", "--memory", "12 parsecs"),
        ("explain", "FILE", "--memory", "0"),
        ("explain", "FILE", "--shard", "2/2"),
        ("explain", "FILE", "--shard", "one"),
        ("explain", "FILE", "--threads", "0"),
        ("bench", "FILE", "--repeat", "0"),
        ("demo", "--rows", "10"),
        ("demo", "--epochs", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(run, digits, words):
    result = run(*(digits if word == "FILE" else word for word in words))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: epochal")


def test_only_what_is_raised_on_purpose_becomes_a_line(run, digits, monkeypatch):
    def fail(error):
        def invoke(self, ctx):
            raise error

        monkeypatch.setattr(commands.click.Group, "invoke", invoke)
        return run("info", digits)

    damaged = fail(errors.DamageError("chunk 3 of X\n(rows 100 to 200) does not decode"))
    assert damaged.exit_code == 1
    assert damaged.stderr == "epochal: chunk 3 of X (rows 100 to 200) does not decode\n"
    assert fail(KeyboardInterrupt()).exit_code == 130
    ours = fail(ZeroDivisionError("a mistake of ours"))
    assert isinstance(ours.exception, ZeroDivisionError)  # a bug keeps its traceback


def test_ctrl_c_is_quiet_and_130(digits, tmp_path):
    words = [sys.executable, "-m", "epochal", "bench", digits, "--repeat", "100000"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        time.sleep(2)  # until it is measuring; sooner is an interruption too
        process.send_signal(signal.SIGINT)
        try:
            out, error = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert (out, error) == (b"", b"")
    assert list(tmp_path.iterdir()) == []
