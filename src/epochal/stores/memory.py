"""Arrays in memory as a store: for tests, for small data, and as the oracle's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import FormatError
from epochal.layout import Layout
from epochal.stores.store import AnySource, Other

__all__ = ["ArraySource", "ArrayStore", "virtual_chunk_rows"]

VIRTUAL_CHUNK_BYTES = 1 << 20


def virtual_chunk_rows(row_bytes: int) -> int:
    """Rows of about 1 MiB, for sources that no chunk grid cuts: large enough to hide the cost of a
    call.
    """
    return max(1, VIRTUAL_CHUNK_BYTES // max(row_bytes, 1))


class ArraySource:
    """One ndarray ``(n_rows, *row_shape)`` as a source."""

    def __init__(self, array: NDArray[Any], chunk_rows: int | None = None) -> None:
        self.array = array
        row_bytes = array[:1].nbytes if len(array) else array.dtype.itemsize
        self.layout = Layout(
            shape=array.shape,
            dtype=array.dtype,
            chunk_rows=chunk_rows or virtual_chunk_rows(row_bytes),
            rows_alone=True,
            kind="memory",
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy the rows of the chunks ``[start, stop)``."""
        out[...] = self.array[start * self.layout.chunk_rows : stop * self.layout.chunk_rows]

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy single rows."""
        np.take(self.array, rows, axis=0, out=out, mode="clip")


class ArrayStore:
    """Named arrays as a store."""

    name = "<arrays>"
    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            if array.ndim == 0:
                raise FormatError(f"array {name!r} has no rows: it is a scalar; give it an axis")
            if array.dtype.hasobject:
                raise FormatError(
                    f"array {name!r} holds Python objects: give it a fixed-size dtype"
                )
        self.sources: dict[str, AnySource] = {
            name: ArraySource(array) for name, array in arrays.items()
        }

    def close(self) -> None:
        """Nothing to give back."""
