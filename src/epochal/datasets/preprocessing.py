"""Transforms applied to design matrices, as Pylearn2's preprocessors were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.dataset import Dataset
from epochal.datasets.converter import DefaultViewConverter
from epochal.errors import MismatchError
from epochal.spaces.dense import AXES
from epochal.stores.grouped import GroupedSource
from epochal.stores.mapped import MappedSource, repeated
from epochal.transformed import First
from epochal.view import SourceView

__all__ = [
    "ToImages",
    "ToRows",
    "converter_for",
    "fitted",
    "on_disk",
    "prepared",
    "targets_of",
    "view_on_disk",
]


@dataclass(frozen=True)
class ToImages:
    """Rows of a design matrix as images, ``(n, rows, columns, channels)``."""

    shape: tuple[int, ...]

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of rows ``(n, d)``."""
        return DefaultViewConverter(self.shape).design_mat_to_topo_view(rows)


@dataclass(frozen=True)
class ToRows:
    """What a transform made as rows of a design matrix: images channel by channel."""

    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.shape))

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of rows ``(n, *shape)``."""
        if len(self.shape) == 3:
            return DefaultViewConverter(self.shape).topo_view_to_design_mat(rows)
        return rows.reshape(len(rows), self.width)


def prepared(dataset: Any, transform: Any) -> ToImages | None:
    """What makes rows what the transform takes; None where rows are that."""
    if not transform.of_images:
        return None
    if dataset.view_converter is None:
        raise MismatchError(
            f"{transform!r} is of images, and this dataset has no topological view: make it of "
            "topo_view=, or with a view_converter"
        )
    return ToImages(tuple(dataset.view_converter.shape))


def converter_for(dataset: Any, shape: tuple[int, ...]) -> Any:
    """The view converter of rows that a transform made."""
    before = dataset.view_converter
    if len(shape) == 3:
        return DefaultViewConverter(shape, AXES if before is None else before.axes)
    return before if before is not None and np.prod(before.shape) == np.prod(shape) else None


def targets_of(y: Any, n_before: int, n_after: int) -> Any:
    """Targets of examples that were made of others: repeated, or one of several; None where they
    belong to none of them.
    """
    if y is None or n_after == n_before:
        return y
    if n_after % n_before == 0:
        return np.repeat(np.asarray(y), n_after // n_before, axis=0)
    return y[:: n_before // n_after] if n_before % n_after == 0 else None


def view_on_disk(X: SourceView, images: ToImages | None) -> SourceView:
    """Rows as what a transform takes, lazily."""
    if images is None:
        return X
    source = MappedSource(X.source, images, images.shape, X.dtype)
    return SourceView(X.name, source, X.selection)


def on_disk(
    X: SourceView, y: SourceView | None, transform: Any
) -> tuple[SourceView, SourceView | None, ToRows]:
    """Views of what a fitted transform makes of rows, and of the targets."""
    made = transform.transform(X)
    rows = ToRows(made.shape[1:])
    source = MappedSource(made.source, rows, (rows.width,), made.dtype)
    view = SourceView("X", source, made.selection)
    if y is None or not transform.keeps_order:
        return view, None, rows
    if len(view) == len(X):
        return view, y, rows
    if len(X) % len(view) == 0:
        group = len(X) // len(view)
        layout = y.source.layout
        first = GroupedSource(y.source, First(group), layout.row_shape, layout.dtype, group)
        return view, SourceView("y", first, made.selection), rows
    several = repeated("y", y.source, len(view) // len(X))
    return view, SourceView("y", several, made.selection), rows


def fitted(transform: Any, rows: Any, *, can_fit: bool) -> None:
    """Have a transform learn from rows, where it may."""
    if can_fit and transform.learnt():
        transform.fit(Dataset.of_view(rows) if isinstance(rows, SourceView) else rows)
    transform.check_fitted()
