"""Attributes that every flavour can keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from epochal.errors import MismatchError

__all__ = ["check_attributes"]

ATTRIBUTE_BYTES = 60_000  # an object header of old HDF5 holds 64 KiB


def check_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The same, or what is wrong with them, before a file is made.

    >>> check_attributes({"label_names": ["cat", "dog"], "scale": 0.5})["label_names"]
    ['cat', 'dog']
    """
    for name, value in attrs.items():
        array = np.asarray(value)
        if not isinstance(name, str) or not name or array.dtype.kind not in "biufcSU":
            raise MismatchError(
                f"attrs: {name!r} of {type(value).__name__} cannot be an attribute: "
                "give strings, numbers or small arrays of them"
            )
        if array.nbytes > ATTRIBUTE_BYTES:
            raise MismatchError(
                f"attrs: {name!r} takes {array.nbytes} bytes, an attribute at most "
                f"{ATTRIBUTE_BYTES}: make it a source"
            )
    return dict(attrs)
