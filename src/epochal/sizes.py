"""Sizes as people write them, and how much memory there is."""

from __future__ import annotations

import os
import re
from operator import index
from pathlib import Path

__all__ = ["default_memory", "free_memory", "parse", "show"]

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = _UNITS[_letter] = 1024**_power

DEFAULT_CEILING_BYTES = 4 << 30


def parse(size: int | str, name: str = "size") -> int:
    """Bytes of a size such as ``"512MiB"``, ``"1.5 GB"``, ``"64k"`` or a plain number.

    >>> parse("512MiB"), parse("1.5 GB"), parse("64k"), parse(12)
    (536870912, 1500000000, 65536, 12)

    Raises
    ------
    ValueError
        For what is not a positive size; `name` says which argument it was.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*", size)
        if match and match[2].lower() in _UNITS:
            size = int(float(match[1]) * _UNITS[match[2].lower()])
    try:
        n_bytes = 0 if isinstance(size, bool | str) else index(size)
    except TypeError:
        n_bytes = 0
    if n_bytes <= 0:
        raise ValueError(
            f"{name}={size!r} is not a size: give bytes or text such as '512MiB', above zero"
        )
    return n_bytes


def show(n_bytes: float) -> str:
    """A size for people, in binary units.

    >>> show(536870912), show(1536), show(12)
    ('512.0 MiB', '1.5 KiB', '12 B')
    """
    if abs(n_bytes) < 1024:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        n_bytes /= 1024
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} PiB"


def default_memory() -> int:
    """The budget when none is given: a quarter of what is free, at most 4 GiB."""
    return min(max(free_memory() // 4, 1 << 20), DEFAULT_CEILING_BYTES)


def free_memory() -> int:
    """Bytes of memory that this process may still take: of the machine, or of its control group (v1
    or v2).
    """
    free = [_machine_free(), *_cgroup_free()]
    return min(n for n in free if n is not None and n >= 0)


def _machine_free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_free() -> list[int]:
    """What each limited control group above this process has left; page cache counts as free, for
    it is given up.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    free: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            free += _group_free(folder, *names)
    return free


def _group_free(folder: Path, limit_name: str, used_name: str, cache_key: str) -> list[int]:
    try:
        limit_text = (folder / limit_name).read_text().strip()
        if limit_text == "max" or int(limit_text) >= 1 << 60:
            return []
        used = int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [max(int(limit_text) - used + int(stat.get(cache_key, 0)), 0)]
    except (OSError, ValueError):
        return []
