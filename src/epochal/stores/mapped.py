"""A source whose rows are a function of another's: a view, of which nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.stores.source import Source
from epochal.stores.store import Assignable, version_of

__all__ = ["MappedEdits", "MappedSource", "unmapped"]

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
    """

    def __init__(
        self,
        source: Source,
        function: Function,
        row_shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        self.source, self.function = source, function
        stored = source.layout
        self.layout = replace(
            stored,
            shape=(stored.n_rows, *row_shape),
            dtype=dtype,
            # Stored bytes of chunks that are none of the file's own would be taken for the rows'.
            piece_bytes=_piece_bytes(source),
            read_overhead_bytes=stored.read_overhead_bytes + stored.chunk_bytes,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``."""
        stored = self.source.layout
        rows = np.empty((len(out), *stored.row_shape), stored.dtype)
        self.source.read(start, stop, rows)
        out[...] = self.function(rows)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        stored = self.source.layout
        read = np.empty((len(out), *stored.row_shape), stored.dtype)
        self.source.read_rows(rows, read)
        out[...] = self.function(read)


class MappedEdits(MappedSource):
    """The same of a source whose rows can be assigned to, by the function that undoes the other."""

    def __init__(self, *mapped: Any, inverse: Function) -> None:
        super().__init__(*mapped)
        self._inverse = inverse

    @property
    def version(self) -> int:
        """How many times it was assigned to."""
        return version_of(self.source)

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


def unmapped(source: Source) -> tuple[Source, tuple[Function, ...]]:
    """What is stored of a source, and the functions that its rows go through, in order."""
    functions: tuple[Function, ...] = ()
    while isinstance(source, MappedSource):
        functions = (source.function, *functions)
        source = source.source
    return source, functions
