"""Published proofs of concept against libhdf5: each opens or is refused, and nothing crashes."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from corpus import (
    MARK,
    MOST_BYTES,
    MOST_SECONDS,
    files,
    opened_in,
    other_files_opened,
    read_through,
)


def test_hostile_files_are_read_or_refused():
    """In processes of their own: a crash is an end, and what each takes is its own."""
    paths = files("hostile")
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(read_through, (paths[::2], paths[1::2])))
    for half in halves:
        assert half.crashes == half.hangs == half.failures() == []
        assert half.held_bytes < MOST_BYTES
        assert half.child_bytes < MOST_BYTES
    found = [each for half in halves for each in half.found]
    assert len(found) == len(paths)
    assert all(each["seconds"] < MOST_SECONDS for each in found)
    assert all(each["library"] == 0 for each in found)
    assert sum(not each["opened"] for each in found) >= 10
    assert sum(each["opened"] for each in found) >= 30


def test_reading_opens_nothing_else(tmp_path):
    """By the system calls."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(80))
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        file.create_dataset("outside", (10,), "i8", external=[(str(secret), 0, 80)])
        file["link"] = h5py.ExternalLink("secret.bin", "/x")
        file["x"] = np.arange(10)
        layout = h5py.VirtualLayout((10,), "i8")
        layout[:] = h5py.VirtualSource(str(secret), "x", (10,))
        file.create_virtual_dataset("virtual", layout)
    paths = [tmp_path / "evil.h5", *files("hostile")[::12]]
    found = other_files_opened(paths)
    assert found == {str(path): [] for path in paths}


def test_a_trace_shows_what_was_opened():
    trace = [
        'openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3',
        f'newfstatat(AT_FDCWD, "{MARK}/data/a.h5", 0x7ffc, 0) = -1 ENOENT (No such file)',
        '12 openat(AT_FDCWD, "/data/a.h5", O_RDONLY|O_CLOEXEC) = 3',
        '12 openat(AT_FDCWD, "/data/gone", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '13 open("/etc/passwd", O_RDONLY) = 4',
        '13 openat(AT_FDCWD, "/etc/group", O_RDONLY <unfinished ...>',
    ]
    assert opened_in(trace) == {"/data/a.h5": {"/data/a.h5", "/etc/passwd", "/etc/group"}}
