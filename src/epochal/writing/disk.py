"""Bytes and names on their way to a disk, and what stands in the way, in words."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

from epochal.errors import TargetError, TargetExistsError

__all__ = ["final_of", "is_at", "remove", "sync", "told", "write_at", "writing_to"]

PARTIAL = re.compile(r"((?:.*/)?)\.([^/]+)\.epochal-partial", re.DOTALL)
NOT_KNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota of it is used up",
    errno.EFBIG: "the limit of a file's size is reached",
}


def final_of(path: str) -> str:
    """The target of what is made at a path (`epochal.writing.target.partial_of`); of another, that.

    >>> final_of("/data/.out.zarr.epochal-partial/X"), final_of("/data/out.h5")
    ('/data/out.zarr', '/data/out.h5')
    """
    found = PARTIAL.match(path)
    return path if found is None else found[1] + found[2]


def told(path: str, error: OSError) -> TargetError:
    """What stood in the way of writing `path`, in words."""
    path = final_of(path)
    why = FULL.get(error.errno or 0)
    if why:
        return TargetError(
            f"{path}: cannot be written: {why}. Nothing is at that name but what was there before: "
            "make room, or write elsewhere"
        )
    return TargetError(f"{path}: cannot be written: {error.strerror or error}")


class writing_to:
    """A context in which an `OSError` is one about writing that path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, TargetError | TargetExistsError):
            raise told(self._path, error) from error


def write_at(fd: int, data: Any, offset: int) -> None:
    """All of some bytes, from `offset` on."""
    view = memoryview(data).cast("B")
    while len(view):
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


def remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def sync(path: str) -> None:
    """Bring a file to the disk, or the names in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network file systems know none of a folder.
        if error.errno not in NOT_KNOWN or not os.path.isdir(path):
            raise
    finally:
        os.close(fd)


def is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one at a path."""
    mine = os.fstat(fd)
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
