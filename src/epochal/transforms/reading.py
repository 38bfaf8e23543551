"""What transforms read: an array, a view of a source, a dataset, or batches; block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.identity import identity_of
from epochal.transformed import sum_of_array
from epochal.transforms.sweep import swept
from epochal.view import RaggedView, SourceView

__all__ = ["ArrayRows", "BatchRows", "DatasetRows", "Matrix", "RowsToRead", "rows_of"]

Function = Callable[[NDArray[Any]], Any]


@runtime_checkable
class Matrix(Protocol):
    """A dataset of Pylearn2's kind."""

    X: Any

    def get_design_matrix(self, topo: Any = None) -> Any:
        """Its examples, one a row."""
        ...


class RowsToRead(Protocol):
    """Rows, once or several times, from the first to the last."""

    @property
    def name(self) -> str:
        """What is read."""
        ...

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a row."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers."""
        ...

    @property
    def n_rows(self) -> int | None:
        """How many; None where only reading tells."""
        ...

    def identity(self) -> str:
        """What tells these rows from others, as far as is cheap."""
        ...

    def block_rows(self, wanted: int) -> int:
        """Rows of the blocks that come where so many are wanted."""
        ...

    def made_of(self, first: int, n_rows: int, function: Function) -> Iterator[tuple[int, Any]]:
        """What the function makes of each block of `n_rows` rows from row `first` on, with its
        number of rows, in order; it lasts until the next is asked for.
        """
        ...


@dataclass(frozen=True)
class ArrayRows:
    """An array."""

    array: NDArray[Any]
    name: str = "an array"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Of its numbers."""
        return self.array.dtype

    @property
    def n_rows(self) -> int:
        """Its rows."""
        return len(self.array)

    def identity(self) -> str:
        """See `RowsToRead`: of all its numbers."""
        return f"{self.name} {sum_of_array(self.array)}"

    def block_rows(self, wanted: int) -> int:
        """See `RowsToRead`."""
        return wanted

    def made_of(self, first: int, n_rows: int, function: Function) -> Iterator[tuple[int, Any]]:
        """See `RowsToRead`."""
        for at in range(first, len(self.array), n_rows):
            block = self.array[at : at + n_rows]
            yield len(block), function(block)


@dataclass(frozen=True)
class DatasetRows:
    """A source of a dataset. Functions run on the threads that read."""

    dataset: Dataset
    source: str
    memory: int | str | None = None
    threads: int | None = None

    @property
    def name(self) -> str:
        """Which."""
        return f"{self.source} of {self.dataset.store.name}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self._view.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Of its numbers."""
        return self._view.dtype

    @property
    def n_rows(self) -> int:
        """Of the dataset."""
        return len(self.dataset)

    @property
    def _view(self) -> SourceView:
        view = self.dataset[self.source]
        if isinstance(view, RaggedView):
            raise MismatchError(f"rows of {self.name} vary in length: no transform takes them")
        return view

    def identity(self) -> str:
        """See `RowsToRead`."""
        return f"{self.source} of {identity_of(self.dataset, [self.source])}"

    def part(self, start: int, stop: int) -> DatasetRows:
        """The rows ``[start, stop)``."""
        return replace(self, dataset=self.dataset.part(start, stop))

    def block_rows(self, wanted: int) -> int:
        """See `RowsToRead`: whole chunks, which are decoded straight into the block."""
        chunk_rows = self._view.layout.chunk_rows
        return wanted - wanted % chunk_rows if chunk_rows < wanted else wanted

    def made_of(self, first: int, n_rows: int, function: Function) -> Iterator[tuple[int, Any]]:
        """See `RowsToRead`."""
        how: dict[str, Any] = {"memory": self.memory, "threads": self.threads}
        blocks = swept(self.dataset, self.source, first, n_rows, function, **how)
        if blocks is not None:
            yield from blocks
            return
        mapped = self.dataset.map(_OfFirst(function))
        batches = mapped.batches("sequential", n_rows, sources=[self.source], **how)
        if first:
            batches.load_state_dict({**batches.state_dict(), "row": first})
        yield from batches


@dataclass(frozen=True)
class _OfFirst:
    """A function of the only source of a batch."""

    function: Function

    def __call__(self, batch: tuple[NDArray[Any]]) -> tuple[int, Any]:
        rows = batch[0] if isinstance(batch, tuple) else batch
        return len(rows), self.function(rows)


class BatchRows:
    """Batches: an epoch of them each time."""

    def __init__(self, batches: Batches, source: str | None) -> None:
        first = next(iter(_peeked(batches)), None)
        if first is None:
            raise MismatchError("batches of no rows: there is nothing to learn from")
        self._batches = batches
        self._which = _which(batches, source)
        rows = np.asarray(first[self._which] if isinstance(first, tuple) else first)
        self.name = "batches"
        self.row_shape, self.dtype = rows.shape[1:], rows.dtype
        self.n_rows: int | None = batches.scheme.n_positions

    def identity(self) -> str:
        """See `RowsToRead`."""
        return repr(self._batches)

    def block_rows(self, wanted: int) -> int:
        """See `RowsToRead`."""
        return int(self._batches.scheme.batch_size)

    def made_of(self, first: int, n_rows: int, function: Function) -> Iterator[tuple[int, Any]]:
        """See `RowsToRead`."""
        if first:
            state = self._batches.state_dict()
            self._batches.load_state_dict({**state, "row": first})
        for batch in self._batches:
            rows = np.asarray(batch[self._which] if isinstance(batch, tuple) else batch)
            yield len(rows), function(rows)


def _peeked(batches: Batches) -> Iterator[Any]:
    """The first batch; the position stays."""
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        iterator.close()  # type: ignore[attr-defined]


def _which(batches: Batches, source: str | None) -> int:
    names = list(batches.state_dict()["sources"])
    if source is None and len(names) > 1:
        raise MismatchError(
            f"batches of {', '.join(names)}: say with source= which of them, or ask for batches of "
            "one with sources="
        )
    if source is not None and source not in names:
        raise MismatchError(f"source={source!r}: the batches are of {', '.join(names)}")
    return names.index(source) if source is not None else 0


def rows_of(
    data: Any, source: str | None, memory: int | str | None, threads: int | None
) -> RowsToRead | None:
    """What is read of something; None of what has to be made an array first.

    Of a dataset of several sources it is the one that is named, else the one with the most bytes.
    """
    if isinstance(data, Matrix):
        data = data.X
    if isinstance(data, Dataset):
        return DatasetRows(data, data.largest if source is None else source, memory, threads)
    if isinstance(data, str | os.PathLike):
        raise MismatchError(
            f"{os.fspath(data)!r} is a path: give epochal.open({os.fspath(data)!r})"
        )
    if isinstance(data, RaggedView):
        raise MismatchError(f"rows of {data.name!r} vary in length: no transform takes them")
    if isinstance(data, SourceView):
        return DatasetRows(Dataset.of_view(data), data.name, memory, threads)
    if isinstance(data, Batches):
        return BatchRows(data, source)
    if source is not None:
        raise MismatchError(f"source={source!r}: an array has no sources")
    return None
