"""Sizes as people write them, and memory as machines and control groups tell it."""

from pathlib import Path

import pytest

from epochal import sizes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("512MiB", 512 << 20),
        ("1.5 GB", 1_500_000_000),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        (" 2 g ", 2 << 30),
        (".5kib", 512),
        ("3.", 3),
        ("12b", 12),
        ("12", 12),
        (12, 12),
        ("1TiB", 1 << 40),
        ("1pb", 10**15),
    ],
)
def test_sizes_are_read_as_people_write_them(text, n_bytes):
    assert sizes.parse(text) == n_bytes


@pytest.mark.parametrize(
    "wrong", ["", "MiB", "12 apples", "-1", "1e9", "0", 0, -5, True, None, 1.5, "0.5", "1 2", "٣"]
)
def test_what_is_no_size_is_refused_by_name(wrong):
    if wrong == "٣":  # an Arabic digit is a digit to Python: read, or refused, never a crash
        assert sizes.parse(wrong) == 3
        return
    with pytest.raises(ValueError, match=r"memory=.* is not a size: give bytes or text"):
        sizes.parse(wrong, "memory")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (512 << 20, "512.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5.0 PiB"),
        (5000 << 50, "5000.0 PiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_are_shown_in_binary_units(n_bytes, text):
    assert sizes.show(n_bytes) == text


@pytest.mark.parametrize("n_bytes", [1, 1000, 1023, 1024, 10**6, 2**31 + 7, 10**13])
def test_what_is_shown_is_read_again(n_bytes):
    assert sizes.parse(sizes.show(n_bytes)) == pytest.approx(n_bytes, rel=0.06)


@pytest.mark.parametrize(
    ("free", "budget"), [(4 << 30, 1 << 30), (1 << 40, 4 << 30), (1000, 1 << 20), (0, 1 << 20)]
)
def test_the_default_is_a_quarter_of_what_is_free_within_bounds(monkeypatch, free, budget):
    monkeypatch.setattr(sizes, "free_memory", lambda: free)
    assert sizes.default_memory() == budget


def test_this_machine_has_some_memory_free():
    assert 1 << 20 < sizes.free_memory() < 1 << 50


class FakeSystem:
    """``/proc`` and ``/sys/fs/cgroup`` as files in memory."""

    def __init__(self, files):
        self.files = {path: "\n".join(lines) + "\n" for path, lines in files.items()}

    def read_text(self, path, *args, **kwargs):
        try:
            return self.files[str(path)]
        except KeyError:
            raise FileNotFoundError(path) from None


def fake(monkeypatch, **files):
    names = {
        "meminfo": "/proc/meminfo",
        "cgroup": "/proc/self/cgroup",
    }
    system = FakeSystem({names.get(name, name): lines for name, lines in files.items()})
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: system.read_text(self, *a, **k))


MEMINFO = ["MemTotal:  8000000 kB", "MemFree:  100 kB", "MemAvailable:   4000000 kB"]


def group(folder, limit, used, cache, names):
    return {
        f"{folder}/{names[0]}": [str(limit)],
        f"{folder}/{names[1]}": [str(used)],
        f"{folder}/memory.stat": ["anon 5", f"{names[2]} {cache}", "file 7"],
    }


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def test_a_machine_without_groups(monkeypatch):
    fake(monkeypatch, meminfo=MEMINFO)
    assert sizes.free_memory() == 4_000_000 * 1024


def test_a_machine_that_tells_nothing_of_free_memory(monkeypatch):
    fake(monkeypatch)
    assert sizes.free_memory() > 1 << 20


def test_a_group_of_version_2(monkeypatch):
    """Page cache that can be given up counts as free."""
    files = group("/sys/fs/cgroup/job", 1 << 20, 900 << 10, 200 << 10, V2)
    fake(monkeypatch, meminfo=MEMINFO, cgroup=["0::/job"], **files)
    assert sizes.free_memory() == (1 << 20) - (900 << 10) + (200 << 10)


def test_the_tightest_of_nested_groups_counts(monkeypatch):
    files = group("/sys/fs/cgroup/a/b", "max", 1000, 0, V2)
    files |= group("/sys/fs/cgroup/a", 50_000, 20_000, 0, V2)
    fake(monkeypatch, meminfo=MEMINFO, cgroup=["0::/a/b"], **files)
    assert sizes.free_memory() == 30_000


def test_a_group_of_version_1(monkeypatch):
    files = group("/sys/fs/cgroup/memory/job", 70_000, 30_000, 10_000, V1)
    lines = ["12:cpu,cpuacct:/job", "5:memory:/job", "1:name=systemd:/x"]
    fake(monkeypatch, meminfo=MEMINFO, cgroup=lines, **files)
    assert sizes.free_memory() == 50_000


def test_a_group_without_a_limit_is_none(monkeypatch):
    files = group("/sys/fs/cgroup/memory/job", 0x7FFFFFFFFFFFF000, 30_000, 10_000, V1)
    fake(monkeypatch, meminfo=MEMINFO, cgroup=["5:memory:/job"], **files)
    assert sizes.free_memory() == 4_000_000 * 1024


def test_a_group_over_its_limit_has_nothing_left(monkeypatch):
    files = group("/sys/fs/cgroup/job", 1000, 5000, 0, V2)
    fake(monkeypatch, meminfo=MEMINFO, cgroup=["0::/job"], **files)
    assert sizes.free_memory() == 0


def test_a_group_seen_from_inside_a_container(monkeypatch):
    """Its path is not below the mount, and the limit is at the root of what is mounted."""
    files = group("/sys/fs/cgroup", 90_000, 10_000, 0, V2)
    fake(monkeypatch, meminfo=MEMINFO, cgroup=["0::/"], **files)
    assert sizes.free_memory() == 80_000
