"""Between rows of a design matrix and images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.spaces import Conv2DSpace, Space, VectorSpace
from epochal.spaces.dense import AXES, Axis, check_axes

__all__ = ["DefaultViewConverter"]

STORED: tuple[Axis, ...] = ("b", "c", 0, 1)


class DefaultViewConverter:
    """Rows of a design matrix are images, channel by channel: their order is ``("b", "c", 0, 1)``.

    Parameters
    ----------
    shape
        Rows, columns and channels of an image.
    axes
        Order of the axes of topological views.

    >>> import numpy as np
    >>> converter = DefaultViewConverter((2, 2, 3), axes=("c", 0, 1, "b"))
    >>> converter.design_mat_to_topo_view(np.zeros((5, 12))).shape
    (3, 2, 2, 5)
    """

    def __init__(self, shape: Sequence[int], axes: Sequence[Axis] = AXES) -> None:
        if len(shape) != 3:
            raise MismatchError(f"shape={tuple(shape)}: give rows, columns and channels")
        rows, columns, channels = shape
        space = Conv2DSpace((rows, columns), num_channels=channels)  # says what is wrong with them
        self.shape = [*space.shape, space.num_channels]
        self.axes = check_axes(axes)

    @classmethod
    def of(cls, shape: Sequence[int], axes: Sequence[Axis]) -> DefaultViewConverter:
        """The one for topological views of a shape, ``axes`` saying which axis is which."""
        named = check_axes(axes)
        if len(shape) != len(named):
            raise MismatchError(
                f"a topological view has {len(named)} axes, {named}; found shape {tuple(shape)}"
            )
        return cls([shape[named.index(axis)] for axis in (0, 1, "c")], named)

    def __repr__(self) -> str:
        return f"DefaultViewConverter({tuple(self.shape)}, axes={self.axes})"

    @property
    def topo_space(self) -> Conv2DSpace:
        """The space of topological views; their dtype is that of the design matrix."""
        return self._space(self.axes)

    def _space(self, axes: tuple[Axis, ...]) -> Conv2DSpace:
        rows, columns, channels = self.shape
        return Conv2DSpace((rows, columns), num_channels=channels, axes=axes, dtype=None)

    @property
    def _vectors(self) -> VectorSpace:
        return VectorSpace(prod(self.shape), dtype=None)

    def set_axes(self, axes: Sequence[Axis]) -> None:
        """Let topological views have another order of axes."""
        self.axes = check_axes(axes)

    def view_shape(self) -> list[int]:
        """Rows, columns, channels."""
        return list(self.shape)

    weights_view_shape = view_shape

    def design_mat_to_topo_view(self, design_matrix: NDArray[Any]) -> NDArray[Any]:
        """Rows ``(n, rows * columns * channels)`` as images in the order of `axes`: a view of them
        where they are contiguous.
        """
        images: NDArray[Any] = self.get_formatted_batch(design_matrix, self.topo_space)
        return images

    def design_mat_to_weights_view(self, design_matrix: NDArray[Any]) -> NDArray[Any]:
        """The same in the order in which images are shown, ``("b", 0, 1, "c")``."""
        images: NDArray[Any] = self.get_formatted_batch(design_matrix, self._space(AXES))
        return images

    def topo_view_to_design_mat(self, topo_array: NDArray[Any]) -> NDArray[Any]:
        """Images in the order of `axes` as rows: a view of them where their order allows it."""
        stored: NDArray[Any] = self.topo_space.np_format_as(topo_array, self._space(STORED))
        return stored.reshape(len(stored), self._vectors.dim)

    def get_formatted_batch(self, batch: NDArray[Any], dspace: Space) -> Any:
        """Rows of a design matrix as a batch of a space.

        Raises
        ------
        MismatchError
            They are of another size.
        """
        self._vectors.np_validate(batch)
        if isinstance(dspace, VectorSpace):
            return self._vectors.np_format_as(batch, dspace)
        rows, columns, channels = self.shape
        images = batch.reshape(len(batch), channels, rows, columns)
        return self._space(STORED).np_format_as(images, dspace)
