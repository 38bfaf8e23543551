"""Whether rows keep their values in another dtype: pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["keeps"]


def keeps(rows: NDArray[Any], dtype: np.dtype) -> bool:
    """Whether a cast loses nothing: for any values of the dtype, or for these whole numbers.

    >>> keeps(np.array([1, 255]), np.dtype("u1")), keeps(np.array([1, 256]), np.dtype("u1"))
    (True, False)
    """
    if rows.dtype.kind in "iu" and dtype.kind in "iufc":  # Python's ints come as int64
        if not rows.size:
            return True
        least, most = _whole_numbers(dtype)
        return bool(rows.min() >= least and rows.max() <= most)
    return np.can_cast(rows.dtype, dtype, "safe")


def _whole_numbers(dtype: np.dtype) -> tuple[int, int]:
    """The range in which a dtype holds every whole number.

    >>> _whole_numbers(np.dtype("i1")), _whole_numbers(np.dtype("f2"))
    ((-128, 127), (-2048, 2048))
    """
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return int(bounds.min), int(bounds.max)
    most = 2 ** (np.finfo(dtype).nmant + 1)
    return -most, most
