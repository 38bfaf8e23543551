"""Arguments of transforms: what is wrong with one, in words."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from epochal.errors import MismatchError

__all__ = [
    "check_fits",
    "check_interval",
    "check_nan",
    "check_number",
    "check_real",
    "check_whole",
    "whole_numbers",
]

Shape = tuple[int, ...]


def check_real(dtype: np.dtype, transform: Any) -> None:
    """Refuse rows of what are no real numbers."""
    if dtype.kind not in "biuf":
        raise MismatchError(f"rows of {dtype}: {type(transform).__name__} takes real numbers")


def check_nan(nan: Any) -> None:
    """Refuse what is no way to treat NaN."""
    if nan not in ("raise", "ignore"):
        raise MismatchError(f"nan={nan!r} is not one of: raise, ignore")


def check_number(name: str, value: Any, *, least: float) -> None:
    """Refuse an argument that is no number, or below the least."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not least <= value < np.inf:
        raise MismatchError(f"{name}={value!r}: give a number from {least} on")


def check_interval(name: str, given: Any) -> None:
    """Refuse what are no two ascending numbers."""
    try:
        low, high = (float(each) for each in given)
    except (TypeError, ValueError):
        raise MismatchError(f"{name}={given!r}: give two numbers, the lower first") from None
    if not -np.inf < low < high < np.inf:
        raise MismatchError(f"{name}={given!r}: give two numbers, the lower first")


def check_whole(name: str, value: Any, *, least: int) -> None:
    """Refuse an argument that is no whole number from the least on, of 64 bits."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value < 1 << 64:
        raise MismatchError(f"{name}={value!r}: give a whole number from {least} on, below 2**64")


def whole_numbers(name: str, given: Any, *, axes: Sequence[int]) -> Shape:
    """An argument that is a whole number from 1 on for each axis.

    Raises
    ------
    MismatchError
        It is something else, or for other than `axes` axes.

    Examples
    --------
    >>> whole_numbers("patch_shape", [3, np.int64(4)], axes=(1, 2, 3))
    (3, 4)
    """
    try:
        made = tuple(index(each) for each in given if not isinstance(each, bool))
        good = len(made) == len(given) and len(made) in axes and min(made) >= 1
    except (TypeError, ValueError):
        good = False
    if not good:
        many = ", ".join(map(str, axes[:-1])) + " or " if len(axes) > 1 else ""
        raise MismatchError(
            f"{name}={given!r}: give whole numbers from 1 on, one an axis: {many}{axes[-1]} of them"
        )
    return made


def check_fits(name: str, window: Shape, image: Shape) -> None:
    """Refuse what is larger than the images it is laid over.

    Raises
    ------
    MismatchError
    """
    spatial = image[: len(window)]
    if any(w > size for w, size in zip(window, spatial, strict=True)):
        raise MismatchError(
            f"{name}={window} is larger than the image, {spatial} pixels: give at most that along "
            "each axis"
        )
