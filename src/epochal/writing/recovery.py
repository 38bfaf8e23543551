"""What killed writers left of changes, finished or undone before anybody reads it."""

from __future__ import annotations

import os
from glob import glob
from typing import Any

from epochal.writing import npy
from epochal.writing.journal import recover
from epochal.writing.target import is_partial

__all__ = ["recover_all"]


def recover_all(target: Any) -> None:
    """Finish or undo what killed writers left of changes to files of this machine, before they are
    read. Costs some ``stat`` a file, and of a folder its listing.
    """
    if isinstance(target, list | tuple):
        for each in target:
            recover_all(each)
        return
    if not isinstance(target, str | os.PathLike):
        return
    path = os.fspath(target)
    if "://" in path:
        return
    if not os.path.exists(path):
        for each in glob(path):
            recover_all(each)
        return
    path = os.path.realpath(path)
    _recover(path)
    if os.path.isdir(path):
        for name in os.listdir(path):
            stem, journal, _ = name.partition(".epochal-journal")
            # That of a file which is still being made is its writer's own.
            if journal and stem and not is_partial(stem[1:]):
                _recover(os.path.join(path, stem[1:]))


def _recover(path: str) -> None:
    npy.recover(path)  # as Zarr's: a folder has one journal
    if not os.path.isdir(path):
        recover(path)
