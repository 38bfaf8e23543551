"""Transforms one after another, learnt in as few passes as the mathematics allows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.fitting import Pass, collect, first_need, learn_all, through_of
from epochal.transforms.function import RowFunction
from epochal.transforms.reading import RowsToRead
from epochal.transforms.statistics import Statistics
from epochal.transforms.transform import Transform, flat

__all__ = ["Pipeline"]


class Pipeline(Transform):
    """Stages one after another.

    A stage that learns nothing costs no pass. Where the one before is a function of each column
    alone (`Standardize`, `RemoveMean`, `RemapInterval`, `RemoveZeroColumns`), a stage learns from
    the same pass: the mean and the covariance of what comes out follow from those of what goes in.
    So ``[GlobalContrastNormalization(), Standardize(), ZCA()]`` takes one. `n_passes_` says how
    many it took.

    Parameters
    ----------
    stages
        Transforms, in order.

    Raises
    ------
    MismatchError
        A stage is no transform, or there is none.

    Examples
    --------
    >>> from epochal.transforms import RemoveMean, RemapInterval
    >>> pipe = Pipeline([RemoveMean(), RemapInterval()]).fit(np.array([[0.0], [1.0], [4.0]]))
    >>> pipe.n_passes_, pipe.transform(np.array([[2.0]])).tolist()
    (1, [[0.5]])
    """

    FITTED = ("n_passes_",)

    def __init__(self, stages: Sequence[Transform]) -> None:
        self.stages = stages

    @property
    def nan(self) -> str:  # type: ignore[override]
        """``"raise"`` where a stage refuses NaN."""
        stages = self.stages if isinstance(self.stages, list | tuple) else ()
        refusing = any(getattr(each, "nan", "") == "raise" for each in stages)
        return "raise" if refusing else "ignore"

    @property
    def of_images(self) -> bool:  # type: ignore[override]
        """Where a stage is of images, all get images."""
        return any(stage.of_images for stage in self._checked())

    @property
    def multiplies(self) -> bool:  # type: ignore[override]
        """Whether a stage does."""
        return any(stage.multiplies for stage in self._checked())

    @property
    def keeps_order(self) -> bool:  # type: ignore[override]
        """Whether all stages do."""
        return all(stage.keeps_order for stage in self._checked())

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, k: int) -> Transform:
        self._settle()
        return self.stages[k]

    def _checked(self) -> list[Transform]:
        good = isinstance(self.stages, list | tuple) and self.stages
        if not good or not all(isinstance(each, Transform) for each in self.stages):
            raise MismatchError(f"stages={self.stages!r}: give a list of transforms")
        if len({id(each) for each in self.stages}) < len(self.stages):
            raise MismatchError("a transform comes twice among the stages: give each its own")
        return list(self.stages)

    def _forget(self) -> None:
        super()._forget()
        for stage in self._checked():
            stage._forget()

    def begin(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """See `Transform`."""
        super().begin(row_shape, dtype)
        self.dtype_ = str(dtype)
        stages = self._checked()
        stages[0].begin(row_shape, dtype)

    def _run(self, rows: RowsToRead, how: Pass) -> None:
        self.n_passes_, last = collect(self._checked(), rows, how)
        if last is not None and self.n_passes_ == 1:
            self.statistics_ = last

    def learnt(self) -> tuple[str, ...]:
        """Nothing, where no stage learns."""
        return self.FITTED if any(stage.learnt() for stage in self._checked()) else ()

    def is_fitted(self) -> bool:
        """See `Transform`."""
        self._settle()
        return all(stage.is_fitted() for stage in self._checked())

    # Stages that are of more than a row: what comes before them is made first -------------------

    def _segments(self) -> list[Transform]:
        """Pipelines of stages that are of single rows, and between them those that are not."""
        made: list[Transform] = []
        for stage in self._checked():
            if stage.whole:
                made.append(stage)
            elif made and isinstance(made[-1], Pipeline):
                made[-1].stages = [*made[-1].stages, stage]
            else:
                made.append(Pipeline([stage]))
        return made

    @property
    def _has_whole(self) -> bool:
        return any(stage.whole for stage in self._checked())

    def fit(self, X: Any, y: Any = None, **how: Any) -> Self:
        """See `Transform`."""
        if not self._has_whole:
            super().fit(X, y, **how)
            return self
        self._forget()
        checkpoint, passes = how.pop("checkpoint", None), 0
        before: Transform | None = None
        for k, segment in enumerate(self._segments()):
            if before is not None:
                X = before.transform(X)
                how.pop("source", None)  # what a stage makes has one
            beside = None if checkpoint is None else f"{os.fspath(checkpoint)}.{k}"
            segment.fit(X, checkpoint=beside, **how)
            passes += getattr(segment, "n_passes_", 0)
            before = segment
        self.n_passes_ = passes
        return self

    def lazily(self, row_shape: tuple[int, ...], dtype: np.dtype) -> RowFunction:
        """See `Transform`."""
        if self._has_whole:
            raise MismatchError(
                f"{self!r} has a stage that makes rows of several, or of any: take "
                "pipeline.transform(dataset), which applies it stage by stage"
            )
        return super().lazily(row_shape, dtype)

    def transform(self, X: Any) -> Any:
        """See `Transform`."""
        if not self._has_whole:
            return super().transform(X)
        self.check_fitted()
        for segment in self._segments():
            X = segment.transform(X)
        return X

    # Of one pass, what was collected makes all stages ------------------------------------------

    def _head(self) -> int | None:
        """The first stage that learns."""
        return next((k for k, stage in enumerate(self._checked()) if stage.learnt()), None)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from some rows more, where all stages learn in one pass: see `Transform`."""
        rows = self._array(X, first=not hasattr(self, "row_shape_"))
        if not hasattr(self, "row_shape_"):
            self.begin(rows.shape[1:], rows.dtype)
        collected = self._collected()
        if collected is not None:
            collected.take(flat(_applied(self.stages[: self._head() or 0], rows)))
            self._take_later(collected)
        else:
            self.n_passes_ = 0
        return self

    def need(self) -> Statistics | None:
        """See `Transform`: what the first stage that learns collects, for all of them."""
        head = self._head()
        if head is None or self.is_fitted():
            return None
        stages = self._checked()
        _, shape, dtype = through_of(stages[:head], self.row_shape_, np.dtype(self.dtype_))
        stages[head].begin(shape, dtype)
        return first_need(stages, head, prod(shape))

    def learn(self, statistics: Statistics) -> None:
        """See `Transform`."""
        stages, head = self._checked(), self._head() or 0
        _, shape, dtype = through_of(stages[:head], self.row_shape_, np.dtype(self.dtype_))
        for stage in stages[head:]:
            stage._forget()
        stages[head].begin(shape, dtype)
        after = learn_all(stages, head, statistics, shape, dtype)
        if any(stage.learnt() for stage in stages[after:]):
            raise MismatchError(
                f"{stages[after]!r} learns in a pass of its own: partial_fit and merge are for "
                "pipelines of one pass; call fit"
            )
        self.statistics_ = statistics
        self.n_passes_ = 1

    # Applying ----------------------------------------------------------------

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._checked()

    def check_fitted(self) -> None:
        """See `Transform`."""
        self._settle()
        for stage in self._checked():
            stage.check_fitted()

    def _check_finite(self, rows: NDArray[Any]) -> None:
        """Each stage does that by itself."""

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        return _applied(self.stages, rows)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        for stage in reversed(self.stages):
            rows = stage._undo(rows)
        return rows

    def _out_shape(self, row_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._made_of(row_shape)[0]

    def _out_dtype(self, dtype: np.dtype) -> np.dtype:
        for stage in self.stages:
            dtype = stage._out_dtype(dtype)
        return dtype

    def as_it_is(self) -> Self:
        """See `Transform`."""
        made = super().as_it_is()
        made.stages = [stage.as_it_is() for stage in self.stages]
        return made

    def _factor(self, row_shape: tuple[int, ...]) -> int:
        return self._made_of(row_shape)[1]

    def _made_of(self, row_shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        functions, shape, _ = through_of(self.stages, row_shape, np.dtype(np.float32))
        return shape, prod(function.factor for function in functions)

    # Keeping ----------------------------------------------------------------

    def state(self, *, statistics: bool = False) -> dict[str, Any]:
        """See `Transform`."""
        made = super().state(statistics=statistics)
        made["params"]["stages"] = [stage.state() for stage in self._checked()]
        return made


def _applied(stages: Sequence[Transform], rows: NDArray[Any]) -> NDArray[Any]:
    """Rows through stages, one after another, on this thread."""
    for stage in stages:
        stage.check_rows(rows.shape[1:], rows.dtype)
        rows = stage.apply_to(rows)
    return rows
