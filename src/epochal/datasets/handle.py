"""A design matrix and its targets in a file of PyTables' format: ``/Data/X`` and ``/Data/y``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from epochal.datasets.iteration import check_rows, whole_number
from epochal.datasets.parts import checked_range
from epochal.errors import MismatchError, RowError
from epochal.opening import open_dataset
from epochal.view import SourceView
from epochal.writing.create import create

__all__ = ["BLOCK_BYTES", "NewFile", "OpenFile", "X", "Y", "blocks_of"]

X, Y = "Data/X", "Data/y"
BLOCK_BYTES = 8 << 20  # of rows that are moved at once
Y_DTYPES = {"float": "float32", "int": "int64"}


class _File:
    """What both kinds have: rows are put, some MiB at a time, and it is a context manager."""

    path: str

    def fill(self, start: int, data_x: Any, data_y: Any = None) -> None:
        """Put rows from row `start` on, any number of them.

        Parameters
        ----------
        start
            Number of the first.
        data_x, data_y
            Arrays, or what is sliced like one (a memory map, a view of a dataset). Rows of ``y``
            that are never given are zeros, as in a new file of PyTables.

        Raises
        ------
        MismatchError, RowError
            Rows of another shape, of values that the file's dtype does not hold, or too many.
        """
        first = whole_number(start, "start")
        data_x, data_y = _sliced(data_x), _sliced(data_y)
        if data_y is not None:
            check_rows({"data_x": len(data_x), "data_y": len(data_y)})
        for at, rows in blocks_of(data_x):
            targets = None if data_y is None else np.asarray(data_y[at : at + len(rows)])
            self._put(first + at, rows, targets)

    def _put(self, start: int, x: NDArray[Any], y: NDArray[Any] | None) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Nothing is left to do: files that are there have what was put on the disk."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NewFile(_File):
    """A file that is being made: it appears at its name when it is closed, whole. Where the context
    ends with an exception, or the process is killed, what was there before stays.

    Parameters
    ----------
    path
        Where; a file that is there is replaced when this one is closed.
    shapes
        Of ``X`` and of ``y``: ``((n, n_features), (n, n_targets))``; of ``X`` alone where there are
        no targets.
    title
        Of the file.
    y_dtype
        ``"float"`` (float32), ``"int"`` (int64), or a dtype.
    x_dtype, compression, how
        See `epochal.create`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shapes: Sequence[Sequence[int]],
        title: str = "Pytables Dataset",
        y_dtype: str | np.dtype = "float",
        x_dtype: Any = "float32",
        compression: str | None = "blosc",
        **how: Any,
    ) -> None:
        if isinstance(y_dtype, str):
            if y_dtype not in Y_DTYPES:
                raise MismatchError(f"y_dtype={y_dtype!r} is not one of: float, int")
            y_dtype = np.dtype(Y_DTYPES[y_dtype])
        self._shapes = [tuple(shape) for shape in shapes]
        if not 1 <= len(self._shapes) <= 2 or not all(self._shapes):
            raise MismatchError(f"shapes={shapes!r}: give those of X and y, rows first")
        named = dict(zip((X, Y), self._shapes, strict=False))
        check_rows({name: shape[0] for name, shape in named.items()})
        self.path = os.fspath(path)
        self._how = {
            **how,
            "title": title,
            "y_dtype": y_dtype,
            "x_dtype": x_dtype,
            "compression": compression,
        }
        dtypes = {X: x_dtype, Y: y_dtype}
        self._writer = create(
            path,
            {name: (shape[1:], dtypes[name]) for name, shape in named.items()},
            rows=whole_number(self._shapes[0][0], "rows of X", 1),
            compression=compression,
            overwrite=True,
            flavour="pytables",
            attrs={"TITLE": np.bytes_(title.encode())} if title else {},
            **how,
        )

    def _put(self, start: int, x: NDArray[Any], y: NDArray[Any] | None) -> None:
        specs = self._writer.specs
        rows = {X: _fitting(x, specs[X].dtype)}
        if Y in specs:
            shape = (len(x), *specs[Y].row_shape)
            given = np.zeros(shape, specs[Y].dtype) if y is None else _shaped(y, shape)
            rows[Y] = _fitting(given, specs[Y].dtype)
        elif y is not None:
            raise MismatchError(f"{self.path} was begun without targets")
        self._writer.write(start, rows)

    def resized(self, start: int | None, stop: int | None) -> NewFile:
        """The same file of as many rows, begun anew: nothing may have been put yet."""
        if self._writer.rows:
            raise MismatchError(f"{self.path} has rows already: resize it before, or closed")
        first, last = checked_range(start, stop, self._shapes[0][0])
        self.abandon()
        return NewFile(
            self.path, [(last - first, *shape[1:]) for shape in self._shapes], **self._how
        )

    def close(self) -> None:
        """Finish the file. Rows that were never put are zeros, and are warned of."""
        missing = self._writer.missing()
        if missing:
            told = ", ".join(f"{first} to {last - 1}" for first, last in missing[:3])
            warnings.warn(
                f"{self.path}: rows {told} were never filled, and are zeros", stacklevel=2
            )
        with self._writer as writer:
            for first, last in missing:
                width = (last - first, *self._shapes[0][1:])
                zeros = np.broadcast_to(np.zeros((), writer.specs[X].dtype), width)
                self.fill(first, zeros)

    def abandon(self) -> None:
        """Leave what was there before."""
        self._writer.abandon()

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.close()
        else:
            self.abandon()


class OpenFile(_File):
    """A file that is there.

    Parameters
    ----------
    path
        Of PyTables' format, or of any writer that has ``Data/X``, and ``Data/y`` where there are
        targets.
    mode
        ``"c"`` keeps what is changed to this process, ``"r+"`` changes the file.
    """

    def __init__(self, path: str | os.PathLike[str], mode: str = "c") -> None:
        if mode not in ("c", "r+"):
            raise MismatchError(f"mode={mode!r} is not one of: 'c', 'r+'")
        self.path, self.mode = os.fspath(path), mode
        self.dataset = open_dataset(path, mode=mode)

    @property
    def X(self) -> SourceView:
        """The matrix."""
        return self._view(X)

    @property
    def y(self) -> SourceView | None:
        """The targets."""
        return self._view(Y) if Y in self.dataset.store.sources else None

    def _view(self, name: str) -> SourceView:
        view = self.dataset[name]
        if not isinstance(view, SourceView):
            raise MismatchError(f"{name} of {self.path} has rows of varying length")
        return view

    def _put(self, start: int, x: NDArray[Any], y: NDArray[Any] | None) -> None:
        if start + len(x) > len(self.X):
            raise RowError(f"rows {start} to {start + len(x) - 1} of a file of {len(self.X)}")
        self.X[start : start + len(x)] = _fitting(x, self.X.dtype)
        if y is not None:
            if self.y is None:
                raise MismatchError(f"{self.path} has no targets")
            shape = (len(x), *self.y.shape[1:])
            self.y[start : start + len(x)] = _fitting(_shaped(y, shape), self.y.dtype)

    def resized(self, start: int | None, stop: int | None) -> OpenFile:
        """The file of the rows ``[start, stop)`` alone, rewritten in one step, and opened again."""
        if self.mode != "r+":
            raise MismatchError(f"{self.path} is open for reading: open it with mode='r+'")
        first, last = checked_range(start, stop, len(self.X))
        store = self.dataset.store
        others = [*(n for n in store.sources if n not in (X, Y)), *(o.name for o in store.others)]
        if others:
            raise MismatchError(
                f"{self.path} holds {', '.join(others[:3])} besides {X} and {Y}, which would be "
                "lost as it is rewritten: restrict the dataset, and save it to a new file"
            )
        self.close()  # what is open for writing nobody may replace
        with OpenFile(self.path) as there:
            views = {X: there.X} | ({} if there.y is None else {Y: there.y})
            parts = {name: view.part(first, last) for name, view in views.items()}
            rewrite(self.path, parts, str(there.dataset.store.groups.get("", {}).get("TITLE", "")))
        return OpenFile(self.path, self.mode)

    def close(self) -> None:
        """Let go of the file."""
        self.dataset.close()


def rewrite(path: str | os.PathLike[str], views: Mapping[str, Any], title: str = "") -> None:
    """Make a file of these rows; it may be the very one that they come from."""
    shapes = [view.shape for view in views.values()]
    y_dtype = views[Y].dtype if Y in views else "float"
    with NewFile(path, shapes, title, y_dtype, views[X].dtype) as made:
        made.fill(0, views[X], views.get(Y))


def blocks_of(rows: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of an array, or of whatever is sliced like one, some MiB at a time, with the number of
    the first.
    """
    row_bytes = max(1, int(np.prod(rows.shape[1:])) * rows.dtype.itemsize)
    step = max(1, BLOCK_BYTES // row_bytes)
    for at in range(0, len(rows), step):
        yield at, np.asarray(rows[at : at + step])


def _sliced(rows: Any) -> Any:
    """What is sliced as it is; lists as arrays."""
    whole = rows is None or (hasattr(rows, "shape") and hasattr(rows, "dtype"))
    return rows if whole else np.asarray(rows)


def _shaped(y: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Targets ``(n,)`` as ``(n, 1)``, or the other way round."""
    return y.reshape(shape) if y.size == np.prod(shape) and y.ndim <= 2 else y


def _fitting(rows: NDArray[Any], dtype: np.dtype) -> NDArray[Any]:
    """Floats of another width are rounded, as Pylearn2 did; else nothing may be lost."""
    return rows.astype(dtype, copy=False) if rows.dtype.kind == dtype.kind == "f" else rows
