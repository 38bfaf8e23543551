"""A source whose rows are a function of another's: a view, of which nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.stores.grouped import GroupedSource
from epochal.stores.patches import PatchSource
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Assignable, version_of

__all__ = ["Chain", "MappedEdits", "MappedSource", "base_of", "repeated", "steps_of", "unmapped"]

Function = Callable[[NDArray[Any]], NDArray[Any]]


class MappedSource:
    """Rows of a source, each block of them through a function as it is read.

    Parameters
    ----------
    source
        What is stored.
    function
        Of blocks ``(n, *row_shape)`` of any `n`, row by row alike; to be picklable, a module's.
    row_shape, dtype
        Of the rows that it makes.
    factor
        Rows that it makes of each, one after another.
    """

    def __init__(
        self,
        source: Source,
        function: Function,
        row_shape: tuple[int, ...],
        dtype: np.dtype,
        factor: int = 1,
    ) -> None:
        self.source, self.function, self.factor = source, function, factor
        stored = source.layout
        self.layout = replace(
            stored,
            shape=(stored.n_rows * factor, *row_shape),
            dtype=dtype,
            chunk_rows=stored.chunk_rows * factor,
            starts=None if stored.starts is None else stored.starts * factor,
            # Stored bytes of chunks that are none of the file's own would be taken for the rows'.
            piece_bytes=_piece_bytes(source),
            read_overhead_bytes=stored.read_overhead_bytes + stored.chunk_bytes,
        )

    @property
    def version(self) -> int:
        """How many times what is stored was assigned to."""
        return version_of(self.source)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``."""
        stored = self.source.layout
        n_rows = len(out) // self.factor
        rows = np.empty((n_rows, *stored.row_shape), stored.dtype)
        self.source.read(start, stop, rows)
        out[...] = self.function(rows)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        if self.factor == 1:
            out[...] = self._of_rows(rows)
            return
        of, which = np.unique(rows // self.factor, return_inverse=True)
        out[...] = self._of_rows(of)[which * self.factor + rows % self.factor]

    def _of_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """What the function makes of single rows that are stored."""
        stored = self.source.layout
        read = np.empty((len(rows), *stored.row_shape), stored.dtype)
        self.source.read_rows(rows, read)
        return self.function(read)


class MappedEdits(MappedSource):
    """The same of a source whose rows can be assigned to, by the function that undoes the other."""

    def __init__(self, *mapped: Any, inverse: Function) -> None:
        super().__init__(*mapped)
        self._inverse = inverse

    def assign(self, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Let these rows be `values`."""
        assert isinstance(self.source, Assignable)
        self.source.assign(rows, np.ascontiguousarray(self._inverse(values)))


def _piece_bytes(source: Source) -> NDArray[np.uint32] | None:
    layout = source.layout
    if layout.piece_bytes is not None:
        return layout.piece_bytes
    starts = layout.starts
    if starts is None:
        starts = np.append(np.arange(layout.n_chunks) * layout.chunk_rows, layout.n_rows)
    return (np.diff(starts) * layout.row_bytes).astype(np.uint32).reshape(-1, 1)


@dataclass(frozen=True)
class Chain:
    """Functions one after another."""

    functions: tuple[Callable[[Any], Any], ...]

    def __call__(self, rows: Any) -> Any:
        """Of what the first takes."""
        for function in self.functions:
            rows = function(rows)
        return rows


@dataclass(frozen=True)
class _Repeat:
    """Each row so many times."""

    factor: int

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Of rows ``(n, *row_shape)``."""
        return np.repeat(rows, self.factor, axis=0)


def repeated(name: str, source: AnySource, factor: int) -> MappedSource:
    """Each row of a source so many times, one after another."""
    if isinstance(source, RaggedSource):
        raise MismatchError(
            f"rows of {name!r} vary in length: they cannot be repeated; leave them out"
        )
    layout = source.layout
    return MappedSource(source, _Repeat(factor), layout.row_shape, layout.dtype, factor)


def unmapped(source: Any) -> tuple[Any, tuple[Function, ...]]:
    """What is stored of a source, and the functions that its rows go through, in order."""
    functions: tuple[Function, ...] = ()
    while isinstance(source, MappedSource) and source.factor == 1:
        functions = (source.function, *functions)
        source = source.source
    return source, functions


def steps_of(source: Any) -> tuple[Any, ...]:
    """All that makes rows of a source of what is stored, in order: functions, and where patches are
    cut.
    """
    steps: tuple[Any, ...] = ()
    while isinstance(source, MappedSource | PatchSource | GroupedSource):
        step = source.places if isinstance(source, PatchSource) else source.function
        steps, source = (step, *steps), source.source
    return steps


def base_of(source: Any) -> Any:
    """What is stored of a source, whatever its rows go through."""
    while isinstance(source, MappedSource | PatchSource | GroupedSource):
        source = source.source
    return source
