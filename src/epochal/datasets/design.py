"""Design matrices in memory, with Pylearn2's methods."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from epochal.dataset import Dataset
from epochal.datasets.converter import DefaultViewConverter
from epochal.datasets.examples import (
    OneHot,
    RowFormat,
    check_labels,
    check_numbers,
    no_nan,
    space_of,
    with_dtype_of,
)
from epochal.datasets.iteration import (
    DEFAULT_SEED,
    DatasetIterator,
    Format,
    check_rows,
    rng_of,
    whole_number,
)
from epochal.datasets.parts import (
    checked_range,
    folds,
    holdout,
    random_folds,
    random_slices,
)
from epochal.datasets.parts import train_size as train_size_of
from epochal.datasets.preprocessing import ToRows, converter_for, fitted, prepared, targets_of
from epochal.errors import MismatchError, RowError, SourceNameError
from epochal.execute.probe import Measured
from epochal.spaces import CompositeSpace, Space
from epochal.spaces.dense import AXES, Axis
from epochal.spaces.space import FLOAT
from epochal.stores.memory import ArrayStore

__all__ = ["DenseDesignMatrix"]

logger = logging.getLogger(__name__)

FEATURES, TARGETS = "features", "targets"


class DenseDesignMatrix:
    """Examples as rows of a matrix in memory, and what is to be learnt of them.

    Parameters
    ----------
    X
        The matrix, ``(n, n_features)``; labels may be ``(n,)``. Or else:
    topo_view
        Images, four axes in the order of `axes`.
    y
        Targets: labels ``(n,)``, or ``(n, n_targets)``.
    view_converter
        Between rows of `X` and images, such as `DefaultViewConverter`; made where `topo_view` is
        given.
    axes
        Order of the axes of `topo_view`: a permutation of ``("b", 0, 1, "c")``.
    rng
        Of random batches: a `RandomState`, or a seed of one.
    preprocessor, fit_preprocessor
        Applied at once, where one is given.
    X_labels, y_labels
        How many labels there are, where `X` or `y` holds labels: their space is then an
        `IndexSpace`.

    Raises
    ------
    MismatchError
        What is given does not go together; sizes are named.

    >>> ds = DenseDesignMatrix(X=np.eye(4), y=np.arange(4), y_labels=4)
    >>> next(ds.iterator("sequential", batch_size=3)).shape
    (3, 4)
    """

    def __init__(
        self,
        X: Any = None,
        topo_view: Any = None,
        y: Any = None,
        view_converter: Any = None,
        axes: Sequence[Axis] = AXES,
        rng: Any = DEFAULT_SEED,
        preprocessor: Any = None,
        fit_preprocessor: bool = False,
        X_labels: int | None = None,
        y_labels: int | None = None,
    ) -> None:
        if (X is None) == (topo_view is None):
            raise MismatchError("give X or topo_view, one of both")
        if view_converter is not None and topo_view is not None:
            raise MismatchError("topo_view makes its own view_converter: give one of both")
        self.X_labels, self.y_labels = X_labels, y_labels
        self.view_converter = view_converter
        self._measured = Measured()  # of this machine, once for all iterators
        self.y = None if y is None else self._array(y)
        if topo_view is not None:
            self._set_topo(topo_view, axes)
        else:
            self.X = self._array(X)
        self._check()
        self.rng: RandomState = rng_of(rng)
        self.preprocessor = preprocessor
        if preprocessor is not None:
            preprocessor.apply(self, can_fit=fit_preprocessor)

    # What is held, and how: the class on disk has its own ------------------------------------

    def _array(self, given: Any) -> Any:
        return np.asarray(given)

    def _set_topo(self, view: Any, axes: Sequence[Axis]) -> None:
        images = self._array(view)
        converter = DefaultViewConverter.of(images.shape, axes)
        no_nan(images, "topo_view")
        self.view_converter = converter
        self.X = converter.topo_view_to_design_mat(images)

    def _dataset(self) -> Dataset:
        """What is iterated over: sources ``features`` and ``targets``."""
        arrays = {FEATURES: self.X} | ({} if self.y is None else {TARGETS: self.y})
        store = ArrayStore(arrays)
        return Dataset(store, store.sources, measured=self._measured)

    def _check(self) -> None:
        """Refuse what does not go together."""
        shapes = {"X": self.X.shape} | ({} if self.y is None else {"y": self.y.shape})
        for name, shape in shapes.items():
            if len(shape) not in (1, 2) or (name == "X" and len(shape) == 1 and not self.X_labels):
                due = "(n, n_features)" if name == "X" else "(n,) or (n, n_targets)"
                raise MismatchError(f"{name} is {due}; found shape {tuple(shape)}")
        for name in shapes:
            check_numbers(name, getattr(self, name).dtype)
        check_rows({name: shape[0] for name, shape in shapes.items()})
        if self.X_labels is not None and self.view_converter is not None:
            raise MismatchError("X_labels with a view_converter: labels have no topological view")
        for name, n in (("X", self.X_labels), ("y", self.y_labels)):
            held = getattr(self, name)
            if n is None:
                continue
            if held is None:
                raise MismatchError(f"{name}_labels={n} without {name}")
            self._check_labels(name, held, n)
        if self.view_converter is not None and not hasattr(self.view_converter, "topo_space"):
            raise MismatchError(
                f"view_converter={self.view_converter!r}: give one such as DefaultViewConverter"
            )
        if self.view_converter is not None and self.X.ndim == 2:
            dim = self.view_converter.topo_space.get_total_dimension()
            if dim != self.X.shape[1]:
                raise MismatchError(
                    f"{self.view_converter} has images of {dim} numbers; rows of X have "
                    f"{self.X.shape[1]}"
                )

    def _check_labels(self, name: str, held: Any, n: int) -> None:
        check_labels(name, np.asarray(held), n)

    # Spaces ------------------------------------------------------------------------------------

    @property
    def X_space(self) -> Space:
        """The space of ``features``."""
        return space_of(self.X, self.X_labels)

    @property
    def X_topo_space(self) -> Space | None:
        """The space of topological views; None where there are none."""
        converter = self.view_converter
        return None if converter is None else with_dtype_of(converter.topo_space, self.X.dtype)

    @property
    def data_specs(self) -> tuple[Space, Any]:
        """Spaces and names of what there is: ``features``, and ``targets`` where there are some."""
        if self.y is None:
            return self.X_space, FEATURES
        return CompositeSpace([self.X_space, space_of(self.y, self.y_labels)]), (FEATURES, TARGETS)

    def get_data_specs(self) -> tuple[Space, Any]:
        """See `data_specs`."""
        return self.data_specs

    def get_data(self) -> Any:
        """`X`, or `X` and `y`, as they are held."""
        return self.X if self.y is None else (self.X, self.y)

    def get(self, sources: Sequence[str], indexes: Any) -> tuple[Any, ...]:
        """Examples by number (an int, a slice, a list in any order with repeats) of each source."""
        held = {FEATURES: self.X, TARGETS: self.y}
        for name in sources:
            if held.get(name) is None:
                known = [each for each, array in held.items() if array is not None]
                raise SourceNameError(f"no source {name!r}: there are {', '.join(known)}")
        try:
            return tuple(held[name][indexes] for name in sources)
        except IndexError as error:
            raise RowError(f"examples {indexes!r} of {self.get_num_examples()}: {error}") from None

    def get_num_examples(self) -> int:
        """Rows of `X`."""
        return int(self.X.shape[0])

    def __len__(self) -> int:
        return self.get_num_examples()

    def has_targets(self) -> bool:
        """Whether there is a `y`."""
        return self.y is not None

    def get_targets(self) -> Any:
        """`y`."""
        return self.y

    # Batches -----------------------------------------------------------------------------------

    def iterator(
        self,
        mode: str | None = None,
        batch_size: int | None = None,
        num_batches: int | None = None,
        rng: Any = None,
        data_specs: tuple[Space, Any] | None = None,
        return_tuple: bool = False,
        **how: Any,
    ) -> DatasetIterator:
        """Batches of one epoch; without arguments sequential, of ``features`` alone.

        Parameters
        ----------
        mode, batch_size, num_batches
            As of `Dataset.batches`.
        rng
            A `RandomState` or a seed of one; None: the dataset's own, which goes on from one
            iterator to the next.
        data_specs
            What a batch is, as a pair of a space and a source: ``features`` and ``targets``, in
            spaces that they can be formatted as.
        return_tuple
            Whether a batch of one source is a tuple, too.
        how
            ``memory``, ``scratch``, ``threads``, ``on_error``: see `Dataset.batches`.
        """
        return DatasetIterator(
            self._dataset(),
            self._formats(),
            mode=mode,
            batch_size=batch_size,
            num_batches=num_batches,
            rng=rng,
            own_rng=self.rng,
            data_specs=data_specs or (self.X_space, FEATURES),
            return_tuple=return_tuple,
            **how,
        )

    def _formats(self) -> dict[str, Format]:
        """How rows of `_dataset` become batches."""
        # A copy: what becomes of its axes later says nothing of an epoch that has begun.
        spaces = {FEATURES: (self.X_space, copy.copy(self.view_converter))}
        if self.y is not None:
            spaces[TARGETS] = (space_of(self.y, self.y_labels), None)
        return {
            name: RowFormat(space, self._preparing(name), converter)
            for name, (space, converter) in spaces.items()
        }

    def _preparing(self, source: str) -> tuple[Any, ...]:
        """Functions that rows of `_dataset` go through to be those of `X` or `y`."""
        return ()

    def random_range(self, size: int) -> tuple[int, int]:
        """Consecutive examples from a random place, drawn from the dataset's own generator."""
        n, wanted = self.get_num_examples(), whole_number(size, "batch_size", 1)
        if wanted > n:
            raise RowError(f"{wanted} examples were asked of a dataset that has {n}")
        return random_slices(n, [wanted], self.rng)[0]

    def get_batch_design(self, batch_size: int, include_labels: bool = False) -> Any:
        """Consecutive rows from a random place; with their targets, where asked."""
        chosen = slice(*self.random_range(batch_size))
        rows = self.X[chosen]
        if include_labels:
            return rows, None if self.y is None else self.y[chosen]
        return rows if rows.dtype.kind in "fc" else rows.astype(FLOAT)

    def get_batch_topo(self, batch_size: int, include_labels: bool = False) -> Any:
        """The same as images."""
        converter = self._converter()
        if include_labels:
            rows, targets = self.get_batch_design(batch_size, True)
            return converter.design_mat_to_topo_view(rows), targets
        return converter.design_mat_to_topo_view(self.get_batch_design(batch_size))

    # Parts -------------------------------------------------------------------------------------

    def split_dataset_holdout(self, train_size: int = 0, train_prop: float = 0) -> tuple[Any, Any]:
        """Rows to train on and rows held out: the first, and the rest; where fewer are trained on
        than held out, these come first, as in Pylearn2.

        Parameters
        ----------
        train_size, train_prop
            How many rows, or which part of them; one of both.
        """
        n = self.get_num_examples()
        train, valid = holdout(n, train_size_of(n, train_size, train_prop))
        return self._part(self.X, *train), self._part(self.X, *valid)

    def split_dataset_nfolds(self, nfolds: int = 0) -> list[Any]:
        """The rows in `nfolds` parts, one after another, the last maybe shorter."""
        return [self._part(self.X, *each) for each in folds(self.get_num_examples(), nfolds)]

    def bootstrap_holdout(
        self, train_size: int = 0, train_prop: float = 0, rng: Any = None
    ) -> tuple[Any, Any]:
        """Two slices of consecutive rows from random places, of the sizes that
        `split_dataset_holdout` has; they may overlap.
        """
        n = self.get_num_examples()
        size = train_size_of(n, train_size, train_prop)
        generator = self.rng if rng is None else rng_of(rng)
        train, valid = random_slices(n, [size, n - size], generator)
        return self._part(self.X, *train), self._part(self.X, *valid)

    def bootstrap_nfolds(self, nfolds: int, rng: Any = None) -> list[Any]:
        """`nfolds` slices of consecutive rows from random places, of one `nfolds`-th of the rows
        each; they may overlap.
        """
        generator = self.rng if rng is None else rng_of(rng)
        ranges = random_folds(self.get_num_examples(), nfolds, generator)
        return [self._part(self.X, *each) for each in ranges]

    def restrict(self, start: int | None, stop: int | None) -> None:
        """Keep the rows ``[start, stop)`` alone; nothing where both are None."""
        if start is None and stop is None:
            return
        kept = checked_range(start, stop, self.get_num_examples())
        self.X = self._part(self.X, *kept)
        if self.y is not None:
            self.y = self._part(self.y, *kept)

    def _part(self, held: Any, start: int, stop: int) -> Any:
        return held[start:stop]

    # Views -------------------------------------------------------------------------------------

    def _converter(self) -> Any:
        if self.view_converter is None:
            raise MismatchError(
                "this dataset has no topological view: make it of topo_view=, or with a "
                "view_converter"
            )
        return self.view_converter

    def get_topological_view(self, mat: Any = None) -> Any:
        """Rows as images; all rows where `mat` is None."""
        return self._converter().design_mat_to_topo_view(self.X if mat is None else mat)

    def get_design_matrix(self, topo: Any = None) -> Any:
        """Images as rows; `X` where `topo` is None."""
        return self.X if topo is None else self._converter().topo_view_to_design_mat(topo)

    def get_formatted_view(self, mat: Any, dspace: Space) -> Any:
        """Rows as a batch of a space."""
        return self._converter().get_formatted_batch(mat, dspace)

    def get_weights_view(self, mat: Any) -> Any:
        """Rows as images to be looked at, ``("b", 0, 1, "c")``."""
        return self._converter().design_mat_to_weights_view(mat)

    def set_topological_view(self, V: Any, axes: Sequence[Axis] = AXES) -> None:
        """Let the examples be these images; as many as there are targets."""
        images = np.asarray(V)
        converter = DefaultViewConverter.of(images.shape, axes)
        if self.y is not None:
            n = images.shape[converter.axes.index("b")]
            check_rows({"the topological view": n, "y": self.y.shape[0]})
        self._set_topo(images, axes)

    def set_design_matrix(self, X: Any) -> None:
        """Let `X` be these rows; as many as there are targets. A view converter is kept where they
        have as many numbers as before.
        """
        rows = self._array(X)
        if rows.ndim != 2:
            raise MismatchError(f"X is (n, n_features); found shape {tuple(rows.shape)}")
        check_numbers("X", rows.dtype)
        if self.y is not None:
            check_rows({"X": rows.shape[0], "y": self.y.shape[0]})
        no_nan(rows, "X")
        if rows.shape[1] != self.X.shape[-1]:
            self.view_converter = None
        self.X = rows

    def set_view_converter_axes(self, axes: Sequence[Axis]) -> None:
        """Let topological views have another order of axes."""
        self._converter().set_axes(axes)

    def get_topo_batch_axis(self) -> int:
        """Which axis of topological views counts examples."""
        return int(self._converter().axes.index("b"))

    def view_shape(self) -> Any:
        """Rows, columns and channels of an image."""
        return self._converter().view_shape()

    def weights_view_shape(self) -> Any:
        """The same of what is shown of weights."""
        return self._converter().weights_view_shape()

    def adjust_for_viewer(self, X: Any) -> NDArray[Any]:
        """Numbers in [-1, 1]: divided by the largest of them, its sign left out."""
        return _divided(np.asarray(X), np.abs(X).max(initial=0))

    def adjust_to_be_viewed_with(self, X: Any, ref: Any, per_example: Any = None) -> NDArray[Any]:
        """Numbers in [-1, 1]: divided by the largest of `ref`, and clipped."""
        if per_example is not None:
            logger.warning("per_example is not looked at")
        divided = _divided(np.asarray(X), np.abs(ref).max(initial=0))
        clipped: NDArray[Any] = np.clip(divided, -1.0, 1.0)
        return clipped

    # Targets, preprocessing, position ----------------------------------------------------------

    def convert_to_one_hot(self, min_class: int = 0) -> None:
        """Let integer labels `y`, of one column, be vectors with a one where they point, counted
        from `min_class`; as many as the largest label asks for.
        """
        if self.y is None:
            raise MismatchError("there are no labels to convert: y is None")
        self._set_one_hot(min_class, self._count_classes(min_class))

    def _count_classes(self, min_class: int) -> int:
        """How many labels there are, from the least class on. Reads `y`."""
        y = self.y
        assert y is not None
        if y.dtype.kind not in "iu" or int(np.prod(y.shape[1:])) != 1:
            raise MismatchError(
                f"labels are integers, (n,) or (n, 1); found y of shape {tuple(y.shape)}, {y.dtype}"
            )
        labels = np.asarray(y)
        if labels.size == 0:
            raise MismatchError("no labels: the dataset is empty")
        if labels.min() < min_class:
            raise MismatchError(
                f"label {labels.min()} is below min_class={min_class}: give the least label there "
                "is as min_class, if that is meant"
            )
        return int(labels.max()) - min_class + 1

    def _set_one_hot(self, min_class: int, n_classes: int) -> None:
        self.y = OneHot(min_class, n_classes)(np.asarray(self.y))
        self.y_labels = None

    def apply_preprocessor(self, preprocessor: Any, can_fit: bool = False) -> None:
        """``preprocessor.apply(self, can_fit)``."""
        preprocessor.apply(self, can_fit)

    def preprocess(self, transform: Any, *, can_fit: bool) -> None:
        """Let the examples be what a transform of `epochal.transforms` makes of them: what its
        ``apply(self, can_fit)`` does.
        """
        images = prepared(self, transform)
        rows = self.X if images is None else images(self.X)
        fitted(transform, rows, can_fit=can_fit)
        made = transform.transform(rows)
        to_rows = ToRows(made.shape[1:])
        self.view_converter = converter_for(self, to_rows.shape)
        kept = self.y if transform.keeps_order else None
        self.y = targets_of(kept, len(rows), len(made))
        self.X = to_rows(made)

    def get_stream_position(self) -> RandomState:
        """Where the generator of random batches is."""
        return copy.deepcopy(self.rng)

    def set_stream_position(self, pos: RandomState) -> None:
        """Go back to what `get_stream_position` gave."""
        self.rng = copy.deepcopy(pos)

    def restart_stream(self) -> None:
        """The generator as it is by default."""
        self.rng = rng_of(None)

    reset_RNG = restart_stream


def _divided(rows: NDArray[Any], by: Any) -> NDArray[Any]:
    divided: NDArray[Any] = rows / (by if by else 1)
    return divided
