"""Pipelines as text: YAML, or the lists and dicts that it stands for."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from epochal.errors import FileMissingError, FormatError, MismatchError
from epochal.transforms.pipeline import Pipeline
from epochal.transforms.registry import WHERE, class_named
from epochal.transforms.transform import Transform

__all__ = ["from_spec"]


def from_spec(spec: Any) -> Pipeline:
    """A pipeline that has learnt nothing yet.

    Parameters
    ----------
    spec
        A list of stages: a name, or a name with its arguments. Or the path of a YAML file with
        such a list, by itself or under ``stages:``.

    Raises
    ------
    FileMissingError, FormatError
        No such file, or no YAML.
    MismatchError
        No transform of that name, or an argument that it does not take.

    Examples
    --------
    >>> from_spec([{"RemapInterval": {"map_from": [0, 255]}}, "RemoveMean"])
    Pipeline(stages=[RemapInterval(map_from=[0, 255]), RemoveMean()])
    """
    if isinstance(spec, str | os.PathLike):
        spec = _read(spec)
    if isinstance(spec, Mapping) and set(spec) == {"stages"}:
        spec = spec["stages"]
    if not isinstance(spec, list) or not spec:
        raise MismatchError(
            f"a pipeline is a list of stages, such as [{{'Standardize': {{}}}}, 'ZCA']: found "
            f"{spec!r}"
        )
    return Pipeline([_stage(each) for each in spec])


def _read(path: str | os.PathLike[str]) -> Any:
    yaml = _yaml()
    name = os.fspath(path)
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileMissingError(f"{name}: there is no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{name} is no YAML: {' '.join(str(error).split())}") from None


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError:
        raise MismatchError(
            "pipelines are read by PyYAML, which is not installed: "
            "pip install 'epochal[transforms]'"
        ) from None


def _stage(given: Any) -> Transform:
    name: Any = given
    arguments: Any = {}
    if isinstance(given, Mapping) and len(given) == 1:
        name, arguments = next(iter(given.items()))
        arguments = {} if arguments is None else arguments
    if not isinstance(name, str) or not isinstance(arguments, Mapping) or name == "Pipeline":
        raise MismatchError(
            f"a stage is a name, or a name with its arguments ({{'ZCA': {{'filter_bias': 0.1}}}}): "
            f"found {given!r}"
        )
    if name not in WHERE:
        raise MismatchError(
            f"no transform {name!r}{_like(name, WHERE)}: there are "
            f"{', '.join(each for each in WHERE if each != 'Pipeline')}"
        )
    kind = class_named(name)
    known = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]
    for argument in arguments:
        if argument not in known:
            raise MismatchError(
                f"{name} takes no {argument!r}{_like(str(argument), known)}: its arguments are "
                f"{', '.join(known) or 'none'}"
            )
    try:
        made: Transform = kind(**arguments)
    except TypeError as error:
        raise MismatchError(f"{name}: {error}") from None
    return made


def _like(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
