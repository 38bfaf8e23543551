"""Design matrices on disk, with the methods of those in memory, in bounded memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from epochal.casting import keeps
from epochal.changes import ChangedSource
from epochal.dataset import Dataset
from epochal.datasets.converter import DefaultViewConverter
from epochal.datasets.design import FEATURES, TARGETS, DenseDesignMatrix
from epochal.datasets.examples import (
    Blank,
    Cast,
    OneHot,
    check_labels,
    check_numbers,
    no_nan,
)
from epochal.datasets.handle import NewFile, OpenFile, X, Y, blocks_of, rewrite
from epochal.datasets.iteration import DEFAULT_SEED, whole_number
from epochal.datasets.preprocessing import (
    converter_for,
    fitted,
    on_disk,
    prepared,
    view_on_disk,
)
from epochal.datasets.topological import ImageRows, TopologicalView
from epochal.errors import MismatchError, RowError
from epochal.execute.scratch import scratch_folder
from epochal.opening import open_dataset
from epochal.spaces.dense import AXES, Axis
from epochal.stores.mapped import MappedEdits, MappedSource, unmapped
from epochal.stores.memory import ArraySource, ArrayStore
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Assignable
from epochal.view import SourceView

__all__ = ["DenseDesignMatrixPyTables", "through"]


class DenseDesignMatrixPyTables(DenseDesignMatrix):
    """Examples on disk, in PyTables' file format or any other that `epochal.open` reads.

    `X` and `y` are views: slices of them are read when asked for. What is changed stays with this
    process, on scratch, unless the file was opened for writing (`open` with ``mode="r+"``).

    Parameters
    ----------
    X, topo_view, y
        Views of a dataset (``epochal.open(path)["X"]``), nodes of PyTables, datasets of h5py, or
        arrays. Images have their examples on the first axis.
    view_converter, axes, rng, X_labels, y_labels, preprocessor, fit_preprocessor
        See `DenseDesignMatrix`.

    Notes
    -----
    A file is made by `init_hdf5` and `fill_hdf5`::

        file, node = DenseDesignMatrixPyTables.init_hdf5("train.h5", ((n, 3072), (n, 1)))
        DenseDesignMatrixPyTables.fill_hdf5(file, X, y)  # of any size, any number of times
        file.close()  # here, and not before, train.h5 is there
        ds = DenseDesignMatrixPyTables.open("train.h5")
    """

    def __init__(
        self,
        X: Any = None,
        topo_view: Any = None,
        y: Any = None,
        view_converter: Any = None,
        axes: Sequence[Axis] = AXES,
        rng: Any = DEFAULT_SEED,
        X_labels: int | None = None,
        y_labels: int | None = None,
        preprocessor: Any = None,
        fit_preprocessor: bool = False,
    ) -> None:
        self._mine: list[Dataset] = []
        if not hasattr(self, "h5file"):
            self.h5file: OpenFile | None = None
        try:
            super().__init__(
                X=X,
                topo_view=topo_view,
                y=y,
                view_converter=view_converter,
                axes=axes,
                rng=rng,
                preprocessor=preprocessor,
                fit_preprocessor=fit_preprocessor,
                X_labels=X_labels,
                y_labels=y_labels,
            )
        except BaseException:
            for each in self._mine:
                each.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], mode: str = "c", **how: Any) -> Self:
        """The dataset in a file that has ``/Data/X``, and ``/Data/y`` where there are targets.

        Parameters
        ----------
        path
            The file.
        mode
            ``"c"``: what is changed stays with this process. ``"r+"``: it goes to the file.
        how
            Arguments of the class, such as ``view_converter`` and ``y_labels``.
        """
        file = OpenFile(path, mode)
        made = cls.__new__(cls)
        made.h5file = file
        try:
            made.__init__(X=file.X, y=file.y, **how)  # type: ignore[misc]
        except BaseException:
            file.close()
            raise
        return made

    @property
    def in_place(self) -> bool:
        """Whether changes go to the file."""
        return _in_file(self.X.source)

    def save(self, path: str | os.PathLike[str], title: str = "Pytables Dataset") -> None:
        """Write the examples as they are now to a file of PyTables' format, whole or not at all."""
        rewrite(path, {X: self.X} | ({} if self.y is None else {Y: self.y}), title)

    def owns(self, dataset: Dataset) -> None:
        """Close that one, too, when this is closed."""
        self._mine.append(dataset)

    def close(self) -> None:
        """Let go of the files."""
        if self.h5file is not None:
            self.h5file.close()
        for each in self._mine:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # What is held, and how -----------------------------------------------------------------------

    def _array(self, given: Any) -> SourceView:
        view = given if isinstance(given, SourceView) else self._opened(given)
        return _changeable(view)

    def _opened(self, given: Any) -> SourceView:
        path, name = _place_of(given)
        if path is None:
            array = np.asarray(given)
            return SourceView("array", ArraySource(array), None)
        dataset = open_dataset(path, sources=[name], mode="c")
        self._mine.append(dataset)
        view = dataset[name]
        if not isinstance(view, SourceView):
            raise MismatchError(f"{name!r} of {path} has rows of varying length: it is no matrix")
        return view

    def _set_topo(self, view: Any, axes: Sequence[Axis]) -> None:
        images = self._array(view)
        converter = DefaultViewConverter.of(images.shape, axes)
        if converter.axes[0] != "b":
            raise MismatchError(
                f"axes={converter.axes}: on disk examples have to be first, as rows of the file "
                "are; load the images, and give them to DenseDesignMatrix"
            )
        dim = converter.topo_space.get_total_dimension()
        there, back = converter.topo_view_to_design_mat, converter.design_mat_to_topo_view
        # One of its own: what the user makes of its axes says nothing of the file's.
        self.view_converter = DefaultViewConverter(converter.shape, converter.axes)
        if _in_file(images.source):
            source = MappedEdits(images.source, there, (dim,), images.dtype, inverse=back)
            self.X = SourceView("X", source, images.selection)
        else:
            self.X = _mapped("X", images, there, (dim,), images.dtype)

    def _dataset(self) -> Dataset:
        store = ArrayStore({})
        views = {FEATURES: self.X} | ({} if self.y is None else {TARGETS: self.y})
        sources: dict[str, AnySource] = {n: _stored(v.source)[0] for n, v in views.items()}
        store.sources = sources
        return Dataset(store, sources, selection=self.X.selection, measured=self._measured)

    def _preparing(self, source: str) -> tuple[Any, ...]:
        view = self.X if source == FEATURES else self.y
        assert view is not None
        return _stored(view.source)[1]

    def _check(self) -> None:
        super()._check()
        if self.y is not None and not _alike(self.X.selection, self.y.selection):
            raise MismatchError("X and y are views of other rows of their files")

    def _check_labels(self, name: str, held: Any, n: int) -> None:
        if name == "y" or len(held.shape) == 1:  # rows of many labels are looked at as they come
            for _, block in blocks_of(held):
                check_labels(name, block, n)

    def _part(self, held: Any, start: int, stop: int) -> Any:
        return held.part(start, stop)

    # Changes -------------------------------------------------------------------------------------

    def set_design_matrix(self, X: Any, start: int = 0) -> None:
        """Let the rows from `start` on be these, an array or a view; all of them may have another
        number of features, or a dtype that holds more, where they do not go to the file.

        Costs what the rows are, some MiB at a time.
        """
        rows = X if hasattr(X, "shape") and hasattr(X, "dtype") else np.asarray(X)
        if len(rows.shape) != 2:
            raise MismatchError(f"X is (n, n_features); found shape {tuple(rows.shape)}")
        check_numbers("X", rows.dtype)
        self._put_features(rows, whole_number(start, "start"), None)

    def set_topological_view(self, V: Any, axes: Sequence[Axis] = AXES, start: int = 0) -> None:
        """Let the examples from `start` on be these images."""
        images = V if hasattr(V, "shape") and hasattr(V, "dtype") else np.asarray(V)
        converter = DefaultViewConverter.of(images.shape, axes)
        if converter.axes[0] != "b" and not isinstance(images, np.ndarray):
            images = np.asarray(images)
        rows = ImageRows(images, converter)
        self._put_features(rows, whole_number(start, "start"), converter)

    def _put_features(self, rows: Any, start: int, converter: Any) -> None:
        n = self.get_num_examples()
        if start + len(rows) > n:
            raise RowError(f"rows {start} to {start + len(rows) - 1} of a dataset of {n} examples")
        fits = rows.shape[1:] == self.X.shape[1:]
        for at, block in blocks_of(rows):  # before anything is changed
            no_nan(block, "X", start + at)
            fits = fits and _holds(self.X.dtype, block)
        if not fits:
            self._widen(rows, whole=start == 0 and len(rows) == n)
        if converter is not None:
            self.view_converter = converter
        for at, block in blocks_of(rows):
            self.X[start + at : start + at + len(block)] = block

    def _widen(self, rows: Any, *, whole: bool) -> None:
        """Make room for rows of another width or dtype."""
        width, dtype = rows.shape[1:], rows.dtype
        if self.in_place:
            raise MismatchError(
                f"the file holds rows of shape {self.X.shape[1:]}, {self.X.dtype}; found "
                f"{tuple(width)}, {dtype}: open it with mode='c', and save the dataset to a new "
                "file"
            )
        if width == self.X.shape[1:]:
            dtype = np.result_type(dtype, self.X.dtype)
            self.X = _mapped("X", self.X, Cast(dtype), width, dtype)
            return
        if not whole:
            raise MismatchError(
                f"rows of shape {tuple(width)} for some of {self.get_num_examples()} examples of "
                f"shape {self.X.shape[1:]}: give all of them"
            )
        self.view_converter = None
        self.X = _mapped("X", self.X, Blank(tuple(width), dtype), tuple(width), dtype)

    def preprocess(self, transform: Any, *, can_fit: bool) -> None:
        """See `DenseDesignMatrix`: rows are transformed as they are read, and nothing is written;
        where the file is open for writing they are written to it, some MiB at a time.
        """
        images = prepared(self, transform)
        rows = view_on_disk(self.X, images)
        fitted(transform, rows, can_fit=can_fit)
        X, y, made = on_disk(rows, self.y, transform)
        if self.in_place:
            if len(X) != len(self.X):
                raise MismatchError(
                    f"{transform!r} makes {len(X)} examples of {len(self.X)}: open the file with "
                    "mode='c', and save the dataset to a new file"
                )
            self.set_design_matrix(X)
            return
        self.view_converter = converter_for(self, made.shape)
        self.X, self.y = _changeable(X), None if y is None else _changeable(y)

    def _set_one_hot(self, min_class: int, n_classes: int) -> None:
        function = OneHot(min_class, n_classes)
        self.y = _mapped("y", self.y, function, (n_classes,), np.dtype("float32"))
        self.y_labels = None

    def get_topological_view(self, mat: Any = None) -> Any:
        """Rows as images; where `mat` is None those of the file, which are read when they are
        sliced: see `TopologicalView`.
        """
        if mat is None:
            return TopologicalView(self.X, copy.copy(self._converter()))
        return super().get_topological_view(mat)

    # Files ---------------------------------------------------------------------------------------

    @staticmethod
    def init_hdf5(
        path: str | os.PathLike[str],
        shapes: Sequence[Sequence[int]],
        title: str = "Pytables Dataset",
        y_dtype: str = "float",
        **how: Any,
    ) -> tuple[NewFile, NewFile]:
        """Begin a file, to be filled by `fill_hdf5` and closed: see `NewFile`. It comes twice,
        since Pylearn2 gave a file and the node in it.
        """
        file = NewFile(path, shapes, title, y_dtype, **how)
        return file, file

    @staticmethod
    def fill_hdf5(
        file_handle: NewFile | OpenFile,
        data_x: Any,
        data_y: Any = None,
        node: Any = None,
        start: int = 0,
        batch_size: int | None = None,
    ) -> None:
        """Put rows into a file, from row `start` on: any number at once, some MiB at a time.

        Parameters
        ----------
        file_handle
            What `init_hdf5` gave, or `h5file` of a dataset that is open.
        data_x, data_y
            Arrays, or what is sliced like one.
        node, batch_size
            Not needed any more.
        start
            Number of the first row.
        """
        file_handle.fill(start, data_x, data_y)

    def resize(
        self, h5file: NewFile | OpenFile | None, start: int | None, stop: int | None
    ) -> tuple[Any, Any]:
        """Keep the rows ``[start, stop)`` alone: of a file that is being made its size, of one that
        is open for writing the file is rewritten in one step, else this dataset is restricted.
        """
        if isinstance(h5file, NewFile):
            made = h5file.resized(start, stop)
            return made, made
        if h5file is None or h5file.mode != "r+":
            n = self.get_num_examples()
            self.restrict(0 if start is None else start, n if stop is None else stop)
            return h5file, h5file
        opened = h5file.resized(start, stop)
        if h5file is self.h5file:
            self.h5file = opened
            self.X, self.y = opened.X, opened.y
        return opened, opened


def _changeable(view: SourceView) -> SourceView:
    """The same rows, which can be assigned to: in the file where it is open for that, else in this
    process alone.
    """
    if isinstance(view.source, Assignable):
        return view
    source = ChangedSource(view.name, view.source, scratch_folder(None))
    return SourceView(view.name, source, view.selection, view.axes)


def _mapped(
    name: str, view: Any, function: Any, row_shape: tuple[int, ...], dtype: np.dtype
) -> SourceView:
    """Rows of a view through a function, which can be assigned to."""
    source = MappedSource(_plain(view.source), function, row_shape, dtype)
    return _changeable(SourceView(name, source, view.selection))


def through(view: SourceView, function: Any, dtype: np.dtype) -> SourceView:
    """Rows of a view, each block of them through a function as it is read, as another dtype; which
    can be assigned to in this process.
    """
    return _mapped(view.name, view, function, view.shape[1:], dtype)


def _in_file(source: Source) -> bool:
    """Whether what is assigned goes to the file."""
    return isinstance(source, Assignable) and not isinstance(source, ChangedSource)


def _plain(source: Source) -> Source:
    """What was not changed is read as it is stored."""
    return source.base if isinstance(source, ChangedSource) and not source.version else source


def _stored(source: Source) -> tuple[Source, tuple[Any, ...]]:
    """What is read of a source, and what is done with its rows once they are in a batch."""
    return unmapped(_plain(source))


def _alike(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _holds(dtype: np.dtype, rows: NDArray[Any]) -> bool:
    """Whether rows may go into a dtype: floats are rounded, nothing else may be lost."""
    return keeps(rows, dtype) or dtype.kind == rows.dtype.kind == "f"


def _place_of(given: Any) -> tuple[str | None, str]:
    """The file and name of what another library holds open; None of anything else."""
    if hasattr(given, "_v_file") and hasattr(given, "_v_pathname"):  # PyTables
        given._v_file.flush()
        return str(given._v_file.filename), str(given._v_pathname).strip("/")
    if hasattr(given, "file") and hasattr(given, "name") and hasattr(given.file, "filename"):
        given.file.flush()
        return str(given.file.filename), str(given.name).strip("/")
    return None, ""
