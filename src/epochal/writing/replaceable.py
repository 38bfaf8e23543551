"""Which folders may be replaced: those that epochal or Zarr could have written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from epochal.errors import FormatError, TargetExistsError
from epochal.stores.manifest import sidecar_of
from epochal.stores.npy_folder import DOCUMENT, facts_in
from epochal.stores.store import TRANSFORMS

__all__ = ["check_replaceable"]

ZARR = ("zarr.json", ".zgroup", ".zarray")  # at the root of what Zarr writes
OURS = ".epochal-"  # begins the names of what a writer leaves in a folder while it changes it


def check_replaceable(path: str) -> None:
    """Refuse a folder that holds more than a writer put there; anything else passes. Costs a
    listing of a folder of ``.npy`` files.

    Raises
    ------
    TargetExistsError
        The folder at `path`, which is real, is another one, or the one this process works in.
    """
    if not os.path.isdir(path):
        return
    with suppress(FileNotFoundError):  # the folder that this process works in may be gone
        if f"{os.getcwd()}{os.sep}".startswith(path.rstrip(os.sep) + os.sep):
            raise TargetExistsError(
                f"{path} is the folder that this process works in, or above it, and is not "
                "replaced: give the name of a file"
            )
    if any(os.path.isfile(os.path.join(path, mark)) for mark in ZARR):
        return
    found = next(_others_in(path), None)
    if found is not None:
        raise TargetExistsError(
            f"{path} is a folder that epochal did not write: {found}. Such a folder is never "
            "replaced: give another name, or remove it yourself"
        )


def _others_in(path: str) -> Iterator[str]:
    """What tells that a folder is none of ``.npy`` files by epochal."""
    try:
        files = facts_in(Path(path, DOCUMENT).read_bytes(), path).files.values()
    except (OSError, FormatError):
        yield f"it has no {DOCUMENT} that names its files"
        return
    ours = {os.path.normpath(each) for file in files for each in (file, sidecar_of(file))}
    ours |= {DOCUMENT, TRANSFORMS}
    for folder, _, names in os.walk(path):
        for name in names:
            key = os.path.relpath(os.path.join(folder, name), path)
            if key not in ours and not name.startswith(OURS):
                yield f"{key!r} is in it"
