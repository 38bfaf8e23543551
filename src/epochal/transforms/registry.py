"""Transforms by name: which module each is in, loaded where it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from epochal.errors import MismatchError, SourceNameError

__all__ = ["WHERE", "class_named", "look_up"]

WHERE = {
    "CentralWindow": "images",
    "Downsample": "images",
    "ExtractGridPatches": "patches",
    "ExtractPatches": "patches",
    "GlobalContrastNormalization": "rows",
    "LeCunLCN": "lcn",
    "MakeUnitNorm": "rows",
    "OneHot": "rows",
    "PCA": "whitening",
    "Pipeline": "pipeline",
    "RGB_YUV": "images",
    "ReassembleGridPatches": "patches",
    "RemapInterval": "columns",
    "RemoveMean": "columns",
    "RemoveZeroColumns": "columns",
    "Standardize": "columns",
    "YUV_RGB": "images",
    "ZCA": "whitening",
}
# What belongs to them but is none.
BESIDE = {
    "Transform": "transform",
    "UnfittedError": "transform",
    "from_spec": "spec",
    "load": "loading",
}


def look_up(name: str) -> Any:
    """A public name of `epochal.transforms`."""
    where = {**WHERE, **BESIDE}[name]
    try:
        module = import_module(f"epochal.transforms.{where}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("sklearn", "scipy", "threadpoolctl"):
            raise
        raise MismatchError(
            "epochal.transforms are estimators of scikit-learn, which is not installed: "
            "pip install 'epochal[transforms]'"
        ) from error
    return getattr(module, name)


def class_named(name: str) -> Any:
    """A transform's class.

    Raises
    ------
    SourceNameError
        There is none of that name.
    """
    if name not in WHERE:
        raise SourceNameError(f"no transform {name!r}: there are {', '.join(WHERE)}")
    return look_up(name)
