"""A disk that fills up, and a limit of a file's size: a clear error, and the target as it was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epochal.errors import EpochalError

sys.path.insert(0, str(Path(__file__).parent))
import kills

SIZE = kills.Size(4000, 256, 700)
CASES = {case.name: case for case in kills.cases()}
ENDED, REFUSED = 0, 3


def outcome(work, folder):
    """Of a run in a fork: whether it ended, or was refused with an error of ours that names it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = ENDED
        except EpochalError as error:
            status = REFUSED if os.fspath(folder) in str(error) else 4
        except BaseException as error:
            sys.stderr.write(repr(error))
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


HARD = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


@pytest.mark.parametrize("name", CASES)
def test_a_limit_of_the_files_size(tmp_path, name):
    case = CASES[name]
    seen = set()
    for k, limit in enumerate((0, 100, 3000, 20_000, 60_000, 150_000, 300_000, 1 << 30)):
        place = tmp_path / str(k)
        place.mkdir()
        case.prepare(place, SIZE)
        before = sorted(os.listdir(place))

        def work(place=place, limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, HARD))
            case.run(place, SIZE)

        found = outcome(work, place)
        assert found in (ENDED, REFUSED), f"limit of {limit} bytes"
        seen.add(found)
        case.look(place, SIZE)
        if found == REFUSED:
            there = {n for n in os.listdir(place) if not n.endswith(".epochal-sums")}
            assert there == {n for n in before if not n.endswith(".epochal-sums")}
        case.again(place, SIZE)
        case.look(place, SIZE)
    assert ENDED in seen
    assert REFUSED in seen


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        made = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("name", ["create hdf5", "create zarr", "create npy", "append hdf5"])
def test_a_full_disk(small_disk, name):
    case = CASES[name]
    size = kills.Size(40_000, 256, 700)  # more than fits
    case.prepare(small_disk, kills.Size(200, 256, 700))
    (small_disk / "ballast").write_bytes(bytes(980_000))
    before = sorted(os.listdir(small_disk))
    assert outcome(lambda: case.run(small_disk, size), small_disk) == REFUSED
    assert sorted(os.listdir(small_disk)) == before
    if name.startswith("append"):
        assert kills.check(small_disk / "out.h5", (101,)) == 101
