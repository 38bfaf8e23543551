"""Images of a design matrix, and rows of images, where they do not fit in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import RowError
from epochal.view import SourceView

__all__ = ["ImageRows", "TopologicalView"]


class TopologicalView:
    """Images of a design matrix on disk: what is sliced of them is read then.

    The first index that is not a slice of everything should be of the examples, wherever their axis
    is: others are read whole.
    """

    def __init__(self, rows: SourceView, converter: Any) -> None:
        self._rows, self._converter = rows, converter
        self.shape = converter.topo_space.batch_shape(len(rows))
        self.dtype, self.ndim = rows.dtype, 4

    def __len__(self) -> int:
        return int(self.shape[0])

    def __repr__(self) -> str:
        return f"<images {self.shape} {self.dtype}, axes {self._converter.axes}>"

    def __getitem__(self, key: Any) -> Any:
        keys = list(key) if isinstance(key, tuple) else [key]
        at = next((k for k, each in enumerate(keys) if each is Ellipsis), len(keys))
        keys[at : at + 1] = [slice(None)] * (4 - len(keys) + (at < len(keys)))
        if len(keys) > 4:
            raise RowError(f"images have 4 axes, {self._converter.axes}; {len(keys)} were indexed")
        batch = self._converter.axes.index("b")
        wanted = keys[batch]
        single = isinstance(wanted, int | np.integer)
        rows = self._rows[[wanted] if single else wanted]
        images = self._converter.design_mat_to_topo_view(rows)
        # A list of examples stays one, so that NumPy puts its axis where it would.
        listed = slice(None) if isinstance(wanted, slice) else np.arange(len(rows))
        keys[batch] = 0 if single else listed
        return images[tuple(keys)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("images lie in a file: they cannot but be copied")
        images: NDArray[Any] = self[:]
        return images if dtype is None else images.astype(dtype, copy=False)


class ImageRows:
    """Images that are sliced like a design matrix."""

    def __init__(self, images: Any, converter: Any) -> None:
        self._images, self._converter = images, converter
        self._axis = converter.axes.index("b")
        self.shape = (images.shape[self._axis], converter.topo_space.get_total_dimension())
        self.dtype = images.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Any:
        key = (*[slice(None)] * self._axis, rows)
        return self._converter.topo_view_to_design_mat(np.asarray(self._images[key]))
