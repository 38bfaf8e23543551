"""What all transforms are: estimators of scikit-learn that learn in passes over rows of any
number.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array, validate_data

from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.transforms.arguments import check_real
from epochal.transforms.fitting import Pass, check_finite, collect
from epochal.transforms.function import RowFunction
from epochal.transforms.kept import State, write_state
from epochal.transforms.loading import load
from epochal.transforms.reading import ArrayRows, Matrix, RowsToRead, rows_of
from epochal.transforms.statistics import Sketch, Statistics, state_of, statistics_of, tally_of
from epochal.view import SourceView

__all__ = ["Transform", "UnfittedError", "flat"]


class UnfittedError(MismatchError, NotFittedError):  # type: ignore[misc]
    """A transform that has learnt nothing yet was asked for what it would have learnt."""


class Transform(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The base of all transforms.

    `fit` takes an array ``(n, *row_shape)``, a view of a source, a dataset, or `Batches`, and
    reads it in as few passes as it needs; `partial_fit` one block; `merge` what another one learnt
    of other rows. `transform` takes the same, and gives a lazy view of what is one. Nothing is
    ever changed in a file.

    A subclass has ``_check`` (are these rows right?), ``need`` (what the next pass collects, or
    None), ``learn`` (from that), and ``_apply``; the others are there where they make sense.
    """

    FITTED: ClassVar[tuple[str, ...]] = ()  # attributes that are learnt
    pushes: ClassVar[bool] = False  # whether `pushed` gives anything
    takes_labels: ClassVar[bool] = False  # rows of a single number, ``(n,)``
    of_images: bool = False  # whether rows are images, ``(height, width, channels)``
    extremes: ClassVar[bool] = False  # whether it learns of the least and the largest numbers
    whole: ClassVar[bool] = False  # whether rows that it makes are of several, or of any
    multiplies: bool = False  # whether it multiplies matrices
    keeps_dtype: ClassVar[bool] = False  # whether it moves numbers and makes no others
    keeps_order: bool = True  # whether the rows that it makes are of the rows in their order
    nan: str = "ignore"

    # What a subclass says ----------------------------------------------------------------

    def _check(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Refuse arguments that make no sense, or not for rows of this shape."""

    def need(self) -> Statistics | None:
        """What is to be collected of all rows, empty; None once everything is learnt."""
        return None

    def learnt(self) -> tuple[str, ...]:
        """Names of attributes that it learns; none where there is nothing to learn."""
        return self.FITTED

    def wants(self, n_columns: int) -> type[Statistics] | None:
        """What it is going to collect of rows so wide; None where that is nothing, or not known."""
        return None

    def learn(self, statistics: Statistics) -> None:
        """Take what was collected."""

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of rows ``(n, *row_shape)``."""
        raise NotImplementedError

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Undo `_apply`."""
        raise MismatchError(f"{type(self).__name__} cannot be undone")

    def pushed(self, statistics: Statistics) -> Statistics | None:
        """Statistics of what it makes of rows with these; None where only reading tells."""
        return None

    def _out_shape(self, row_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the rows that it makes."""
        return row_shape

    def _out_dtype(self, dtype: np.dtype) -> np.dtype:
        """float64 stays; of everything else it makes float32, if it makes other numbers at all."""
        if self.keeps_dtype:
            return dtype
        doubles = dtype.kind == "f" and dtype.itemsize >= 8
        return np.dtype(np.float64 if doubles else np.float32)

    def _factor(self, row_shape: tuple[int, ...]) -> int:
        """Rows that it makes of one."""
        return 1

    # Learning ----------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        source: str | None = None,
        memory: int | str | None = None,
        threads: int | None = None,
        client: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Self:
        """Learn from all rows: each pass reads them once, in order.

        Parameters
        ----------
        X
            An array ``(n, *row_shape)``, a view, a dataset, or `Batches` (an epoch a pass).
        y
            Nothing.
        source
            Which source of a dataset; None: the one with the most bytes.
        memory, threads
            See `Dataset.batches`. What is learnt is the same, to the bit, however many threads
            there are, and whatever `memory` is from 64 MiB on.
        client
            A `dask.distributed.Client`: parts of the dataset are read by its workers.
        checkpoint
            A file that keeps what was learnt so far, for a run after a kill to go on with; it is
            removed at the end. It ends with the same state as a run that was not killed. Another
            fit's is refused, and one of other rows, as far as `epochal.identity` tells them apart
            (of `Batches`, as far as their repr does).
            With `client` it keeps whole passes only.
        progress
            Show a bar on a terminal.

        Raises
        ------
        MismatchError
            Rows that cannot be learnt from: none, NaN or infinity (named), or of a wrong shape.
        """
        how = Pass(memory, threads, client, checkpoint, progress)
        rows = self._opened(X, source, how)
        if rows.n_rows == 0:
            raise MismatchError(f"{rows.name} has 0 sample(s): there is nothing to learn from")
        self._forget()
        self.begin(rows.row_shape, rows.dtype)
        if isinstance(rows, ArrayRows) and not self.learnt():
            self._check_finite(rows.array)
        self._run(rows, how)
        return self

    def _run(self, rows: RowsToRead, how: Pass) -> None:
        collect([self], rows, how)

    def _opened(self, data: Any, source: str | None, how: Pass) -> RowsToRead:
        rows = rows_of(data, source, how.memory, how.threads)
        if rows is None:
            self._forget()
            return ArrayRows(self._array(data, first=True))
        return rows

    def begin(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Check the rows that are to be learnt from."""
        check_real(dtype, self)
        self._check(row_shape, dtype)
        self.row_shape_ = row_shape
        self.n_features_in_ = prod(row_shape)

    def _forget(self) -> None:
        for name in [n for n in vars(self) if n.endswith("_") and not n.startswith("__")]:
            delattr(self, name)
        self._stale = False

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from some rows more: an array ``(n, *row_shape)``.

        Raises
        ------
        MismatchError
            It takes several passes, or the rows are of another shape.
        """
        rows = self._array(X, first=not hasattr(self, "row_shape_"))
        if not hasattr(self, "row_shape_"):
            self.begin(rows.shape[1:], rows.dtype)
        collected = self._collected()
        if collected is not None:
            collected.take(flat(rows))
            self._take_later(collected)
        return self

    def _take_later(self, collected: Statistics) -> None:
        """Keep what was collected, and learn from it once that is asked for: it may cost much, and
        few rows may not be enough yet.
        """
        if isinstance(collected, Sketch):
            raise MismatchError(
                f"{self!r} takes several passes: call fit, or give solver='exact' for partial_fit "
                "and merge"
            )
        for name in self.learnt():
            self.__dict__.pop(name, None)
        self.statistics_, self._stale = collected, True

    def __getattr__(self, name: str) -> Any:
        # Only of what is not there: attributes that are learnt, after partial_fit or merge.
        if self.__dict__.get("_stale") and name in self.learnt():
            self._settle()
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _settle(self) -> None:
        """Learn from what was collected, if there is something new."""
        if self.__dict__.get("_stale"):
            self._stale = False
            try:
                check_finite(self, self.statistics_)
                self.learn(self.statistics_)
            except BaseException:
                self._stale = True  # so that it is told again, and more rows may mend it
                raise

    def _collected(self) -> Statistics | None:
        """What was collected so far, or nothing yet."""
        found: Statistics | None = self.__dict__.get("statistics_")
        if found is None and self.learnt() and self.is_fitted():
            raise MismatchError(
                f"{type(self).__name__} was loaded without its statistics: save it with "
                "statistics=True to learn more later"
            )
        return self.need() if found is None else found

    def merge(self, other: Self) -> Self:
        """Take in what another learnt of the rows that come after: the same as of all of them, to
        rounding.

        Raises
        ------
        MismatchError
            It is of another kind, of other arguments, or of rows of another width.
        """
        if type(other) is not type(self) or repr(other.get_params()) != repr(self.get_params()):
            raise MismatchError(f"{self!r} cannot be merged with {other!r}")
        theirs = other._collected()
        if not hasattr(other, "row_shape_"):
            return self
        if not hasattr(self, "row_shape_"):
            self.begin(other.row_shape_, np.dtype(np.float64))
        self._check_width(other.row_shape_)
        mine = self._collected()
        if mine is not None and theirs is not None:
            mine.merge(theirs)
            self._take_later(mine)
        return self

    # Applying ----------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Rows, transformed: of an array a new one; of a view, a dataset or `Batches` the same
        lazily.
        """
        return self._through(X)

    def inverse_transform(self, X: Any) -> Any:
        """Undo `transform`, of an array.

        Raises
        ------
        MismatchError
            It cannot be undone.
        """
        self.check_fitted()
        return self._undo(np.asarray(check_array(X, allow_nd=True, ensure_all_finite=False)))

    def _through(self, X: Any) -> Any:
        self.check_fitted()
        if isinstance(X, Dataset):
            return X.transform(self)
        if isinstance(X, SourceView):
            return Dataset.of_view(X).transform(self)[X.name]
        if isinstance(X, Batches):
            return self._of_batches(X)
        if isinstance(X, Matrix):
            return self._through(X.X)
        rows = self._array(X, first=False)
        if not len(rows):
            raise MismatchError("there are 0 sample(s): nothing to transform")
        self._check(rows.shape[1:], rows.dtype)
        return self.apply_to(rows)

    def _of_batches(self, batches: Batches) -> Iterator[Any]:
        for batch in batches:
            if not isinstance(batch, tuple):
                yield self.apply_to(batch)
                continue
            named: Any = batch
            name = max(named._fields, key=lambda each: getattr(named, each).nbytes)
            yield named._replace(**{name: self.apply_to(getattr(named, name))})

    def apply_to(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of a block of rows that are known to be of the right shape.

        Raises
        ------
        MismatchError
            A row holds NaN or infinity, and ``nan="raise"``.
        """
        self._check_finite(rows)
        return self._apply(rows)

    def _check_finite(self, rows: NDArray[Any]) -> None:
        if self.nan == "ignore" or rows.dtype.kind != "f":
            return
        tally, _ = tally_of(flat(rows))
        if tally.n_bad:
            raise MismatchError(
                f"{type(self).__name__}: {tally.n_bad} of {len(rows)} rows hold NaN or infinity: "
                f"{', '.join(map(str, tally.bad_rows))}, counted in this block. Give nan='ignore' "
                "to let them through"
            )

    def apply(self, dataset: Any, can_fit: bool = False) -> None:
        """Let a dataset of `epochal.datasets` have the transformed examples, as Pylearn2's
        preprocessors did; its file stays what it is, unless it was opened for writing.

        Parameters
        ----------
        dataset
            A `DenseDesignMatrix`, or one on disk. Images are those of its topological view.
        can_fit
            Learn from its examples first; else what was learnt before is used.

        Raises
        ------
        UnfittedError
            It has learnt nothing, and may not.
        """
        preprocess = getattr(dataset, "preprocess", None)
        if preprocess is None:
            raise MismatchError(
                f"{type(dataset).__name__} has no design matrix: of a dataset of `epochal.open` "
                "take fit(dataset) and dataset.transform(transform)"
            )
        preprocess(self, can_fit=can_fit)

    def lazily(self, row_shape: tuple[int, ...], dtype: np.dtype) -> RowFunction:
        """What a dataset applies to rows of this shape, as they are read.

        Raises
        ------
        UnfittedError, MismatchError
            It is not fitted; rows of another shape.
        """
        self.check_fitted()
        self.check_rows(row_shape, dtype)
        shape = self._out_shape(row_shape)
        factor = self._factor(row_shape)
        return RowFunction(self.as_it_is(), shape, self._out_dtype(dtype), factor)

    def as_it_is(self) -> Self:
        """A copy that does not learn with this one, without what was collected: what views of
        datasets hold, and what is sent to other processes. Arrays are shared.
        """
        made = copy.copy(self)
        made.__dict__.pop("statistics_", None)
        return made

    # Checks ----------------------------------------------------------------

    def is_fitted(self) -> bool:
        """Whether everything is learnt that it learns."""
        self._settle()
        return all(hasattr(self, name) for name in self.learnt())

    def check_fitted(self) -> None:
        """Refuse one that has not learnt.

        Raises
        ------
        UnfittedError
        """
        if not self.is_fitted():
            raise UnfittedError(
                f"{type(self).__name__} is not fitted yet: call fit(dataset) first, or load what "
                "was saved"
            )

    def check_rows(self, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Refuse rows that it cannot be applied to.

        Raises
        ------
        MismatchError
        """
        self._check_width(row_shape)
        check_real(dtype, self)
        self._check(row_shape, dtype)

    def _check_width(self, row_shape: tuple[int, ...]) -> None:
        mine = getattr(self, "row_shape_", None)
        if mine is not None and prod(row_shape) != prod(mine):
            raise MismatchError(
                f"rows of shape {row_shape}, {prod(row_shape)} numbers: {type(self).__name__} was "
                f"fitted to rows of shape {mine}, {prod(mine)} numbers"
            )

    def _array(self, X: Any, *, first: bool) -> NDArray[Any]:
        """Rows ``(n, *row_shape)`` as scikit-learn takes them."""
        how: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": False, "allow_nd": True}
        ndim = getattr(X, "ndim", 2)
        if ndim > 2 or (ndim == 1 and self.takes_labels):
            rows = np.asarray(check_array(X, ensure_min_samples=0, ensure_2d=False, **how))
        else:
            known = first or not hasattr(self, "n_features_in_")
            shapes = {"reset": known, "ensure_min_samples": 1}
            rows = np.asarray(validate_data(self, X, **shapes, **how))
        if not first:
            self._check_width(rows.shape[1:])
        return rows

    def __sklearn_is_fitted__(self) -> bool:
        return self.is_fitted()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = bool(self.learnt())
        tags.input_tags.allow_nan = getattr(self, "nan", "ignore") == "ignore"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        state.pop("_undoing", None)
        return state

    # Keeping ----------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, statistics: bool = False) -> None:
        """Write it to a ``.npz`` file of arrays and JSON, without pickle.

        Parameters
        ----------
        path
            Where; what is there is replaced in one step.
        statistics
            Keep what was collected, too, so that it can learn more and be merged after `load`. Of
            `ZCA` and `PCA` that is 8 bytes times the square of the width.
        """
        self.check_fitted()
        write_state(path, self.state(statistics=statistics))

    def state(self, *, statistics: bool = False) -> State:
        """Arguments, and what was learnt, as what `epochal.transforms.load` builds it from."""
        self._settle()
        learnt = {name: value for name, value in vars(self).items() if name.endswith("_")}
        collected = learnt.pop("statistics_", None)
        learnt.pop("feature_names_in_", None)  # objects, and only names
        return {
            "class": type(self).__name__,
            "params": {name: plain(each) for name, each in self.get_params(deep=False).items()},
            "learnt": learnt,
            "statistics": state_of(collected) if statistics and collected is not None else None,
        }

    def set_state(self, state: State) -> None:
        """Take what was learnt."""
        for name, value in state["learnt"].items():
            if not name.endswith("_"):
                raise MismatchError(f"{name!r} is nothing that is learnt")
            setattr(self, name, value)
        if state["statistics"] is not None:
            self.statistics_ = statistics_of(state["statistics"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; see `epochal.transforms.load`.

        Raises
        ------
        MismatchError
            It is of another class.
        """
        found = load(path)
        if not isinstance(found, cls):
            raise MismatchError(f"{os.fspath(path)} holds a {type(found).__name__}")
        return found


def plain(value: Any) -> Any:
    """An argument as it is stored: transforms among them as their states."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.state() if isinstance(value, Transform) else value


def flat(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows as vectors, ``(n, d)``."""
    return rows.reshape(len(rows), -1) if rows.ndim != 2 else rows
