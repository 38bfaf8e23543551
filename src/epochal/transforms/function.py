"""A fitted transform as what a dataset applies to its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from epochal.transforms.alone import one_blas_thread
from epochal.transforms.kept import State

if TYPE_CHECKING:
    from epochal.transforms.transform import Transform

__all__ = ["RowFunction"]


@dataclass(frozen=True)
class RowFunction:
    """A fitted transform of rows of one shape: what a dataset applies lazily.

    Parameters
    ----------
    transform
        Fitted, or with nothing to learn.
    row_shape, dtype
        Of the rows that it makes.
    factor
        Rows that it makes of each.
    group
        Rows that it makes one of.
    """

    transform: Transform
    row_shape: tuple[int, ...]
    dtype: np.dtype
    factor: int = 1
    group: int = 1

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows ``(n, ...)``, transformed; it runs on the threads that read."""
        if not self.transform.multiplies:
            return self.transform.apply_to(rows)
        with one_blas_thread():
            return self.transform.apply_to(rows)

    def state(self) -> State:
        """That of the transform."""
        return self.transform.state()
