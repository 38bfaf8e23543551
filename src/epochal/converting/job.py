"""What a run notes of itself beside its target, so that another can go on with what it left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epochal.dataset import Dataset
from epochal.errors import FormatError, MismatchError
from epochal.identity import identity_of
from epochal.writing.disk import writing_to
from epochal.writing.target import Target, partial_of

__all__ = ["identity", "left_by", "note"]


def identity(src: Any) -> Any:
    """What tells whether a source is the one that a killed run read."""
    if isinstance(src, Dataset):
        return identity_of(src)
    if isinstance(src, str | os.PathLike):
        path = os.fspath(src)
        try:
            found = os.stat(path)
        except OSError:
            return path
        return [os.path.realpath(path), found.st_size, found.st_mtime_ns]
    return [identity(each) for each in src]


def _file_of(target: Target) -> str:
    """Where a run notes what it does, for a run that goes on with it."""
    return f"{partial_of(target.path)}-job"


def note(target: Target, job: Mapping[str, Any], step: int) -> None:
    """Note what a run does, and how many rows at a time."""
    text = json.dumps({"job": job, "step": step})
    with writing_to(target.path):
        with open(f"{_file_of(target)}-new", "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{_file_of(target)}-new", _file_of(target))


def left_by(target: Target, job: Mapping[str, Any]) -> int | None:
    """Rows at a time of the run that left something to go on with; None where nothing is left.

    Raises
    ------
    MismatchError
        It was another conversion.
    """
    if not target.leftover or not os.path.exists(_file_of(target)):
        return None
    try:
        found = json.loads(Path(_file_of(target)).read_text(encoding="utf-8"))
        theirs, step = found["job"], int(found["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{_file_of(target)} is damaged: leave out resume=True") from error
    mine = json.loads(json.dumps(job))
    for key in mine:
        if mine[key] != theirs.get(key):
            raise MismatchError(
                f"{target.path}: what is left there is of another conversion: its {key} was "
                f"{theirs.get(key)!r}, now it is {mine[key]!r}. Leave out resume=True (--resume) "
                "to begin anew"
            )
    return step
