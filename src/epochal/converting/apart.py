"""Whether what is written lies apart from what is read, so that neither harms the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import glob
from typing import Any

from epochal.dataset import Dataset
from epochal.errors import TargetError

__all__ = ["check_apart", "check_other"]


def check_apart(dst: str | os.PathLike[str], *sources: Any) -> None:
    """Refuse a target inside of what is read, or that what is read lies in. It may be the very file
    or folder that is read: that is replaced as a whole, at the end.

    Raises
    ------
    TargetError
    """
    if not os.fspath(dst):
        return  # `Target` says what is wrong with that
    target = os.path.realpath(os.fspath(dst))
    for path in (each for source in sources for each in _paths_of(source)):
        if _inside(target, path):
            raise TargetError(
                f"{target} lies inside of {path}, which is read, and would become a part of it: "
                "give a name elsewhere"
            )
        if _inside(path, target):
            raise TargetError(
                f"{target} holds {path}, which is read, and would be replaced with all that is in "
                "it: give another name"
            )


def check_other(path: str | os.PathLike[str], what: str, others: Mapping[str, Any]) -> None:
    """Refuse a target that is also something else of the same run, or lies in it, by what that is
    called.

    Raises
    ------
    TargetError
    """
    target = os.path.realpath(os.fspath(path))
    for called, other in others.items():
        if any(_same(target, each) or _inside(target, each) for each in _paths_of(other)):
            raise TargetError(f"{what}={target} is {called}, or lies in it: give another name")


def _paths_of(source: Any) -> list[str]:
    """Files and folders of this machine that something is read from."""
    if isinstance(source, Dataset):
        source = source.store.name
    if isinstance(source, list | tuple):
        return [path for each in source for path in _paths_of(each)]
    if not isinstance(source, str | os.PathLike):
        return []
    path = os.fspath(source)
    if not path or "://" in path:
        return []
    found = [path] if os.path.lexists(path) else glob(path, recursive=True)
    return [os.path.realpath(each) for each in found or [path]]


def _inside(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip(os.sep) + os.sep)


def _same(one: str, other: str) -> bool:
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return one == other
