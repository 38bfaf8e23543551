"""Transforms from what was saved of them."""

from __future__ import annotations

import os
import zipfile
from typing import Any

from epochal.errors import EpochalError, FileMissingError, FormatError, SourceNameError
from epochal.stores.kept import kept_in
from epochal.transforms.kept import State, from_bytes, read_state
from epochal.transforms.registry import class_named

__all__ = ["load", "made_of"]


def load(path: str | os.PathLike[str], source: str | None = None) -> Any:
    """A fitted transform: from what `Transform.save` wrote, or the one that made the rows of a file
    (HDF5, a Zarr folder) which `Dataset.save` or `epochal.convert` wrote. Nothing in it is run.

    Parameters
    ----------
    path
        The file.
    source
        Which source's, where a file has several that were transformed.

    Raises
    ------
    FileMissingError, FormatError
        Nothing is there, or nothing that was transformed.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        raise FileMissingError(f"{name}: there is no such file")
    kept = kept_in(name)
    if kept is None and not zipfile.is_zipfile(name):
        raise FormatError(
            f"{name} holds no transform: give what Transform.save wrote, or a file of transformed "
            "rows"
        )
    state = read_state(path) if kept is None else from_bytes(kept, name)
    if "sources" not in state:
        return made_of(state, name)
    found = state["sources"]
    if (source is None and len(found) > 1) or (source is not None and source not in found):
        raise SourceNameError(f"source={source!r}: {name} has transforms of {', '.join(found)}")
    states = found[source] if source is not None else next(iter(found.values()))
    made = [made_of(each, name) for each in states]
    return made[0] if len(made) == 1 else class_named("Pipeline")(made)


def made_of(state: State, name: str) -> Any:
    """A transform of a state; `name` is that of the file.

    Raises
    ------
    FormatError
        It is no state of one.
    """
    try:
        params = {key: _param(value, name) for key, value in state["params"].items()}
        made = class_named(state["class"])(**params)
        made.set_state(state)
    except (EpochalError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{name} holds no state of a transform: {error}") from error
    return made


def _param(value: Any, name: str) -> Any:
    """An argument: stages of a pipeline are states of their own."""
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return [made_of(each, name) for each in value]
    return value
