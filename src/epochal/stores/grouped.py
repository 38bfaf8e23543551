"""A source whose rows are made of several consecutive rows of another each: a view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.stores.source import Source
from epochal.stores.store import version_of

__all__ = ["GroupedSource", "group_selection"]


class GroupedSource:
    """Row ``j`` is a function of the rows ``[j * group, (j + 1) * group)`` of a source.

    Its chunks hold the groups that begin in about one chunk of the source, which is decoded once,
    or twice where a group goes past its end.

    Parameters
    ----------
    source
        What is stored; of a multiple of `group` rows.
    function
        Of blocks ``(n * group, *stored_row_shape)`` to ``(n, *row_shape)``.
    row_shape, dtype
        Of the rows that it makes.
    group
        Rows that one is made of.
    """

    def __init__(
        self,
        source: Source,
        function: Callable[[NDArray[Any]], NDArray[Any]],
        row_shape: tuple[int, ...],
        dtype: np.dtype,
        group: int,
    ) -> None:
        stored = source.layout
        if stored.n_rows % group:
            raise MismatchError(
                f"{stored.n_rows} rows are no whole groups of {group}: {stored.n_rows % group} are "
                "left"
            )
        self.source, self.function, self.group = source, function, group
        chunk_rows = max(1, -(-stored.chunk_rows // group))
        n_rows = stored.n_rows // group
        sizes = np.diff(np.append(np.arange(0, n_rows, chunk_rows), n_rows))
        self.layout = replace(
            stored,
            shape=(n_rows, *row_shape),
            dtype=dtype,
            chunk_rows=chunk_rows,
            starts=None,
            rows_alone=False,
            piece_bytes=(sizes * group * stored.row_bytes).astype(np.uint32).reshape(-1, 1),
            read_overhead_bytes=stored.read_overhead_bytes
            + 2 * stored.chunk_bytes
            + chunk_rows * group * stored.row_bytes,
        )

    @property
    def version(self) -> int:
        """How many times what is stored was assigned to."""
        return version_of(self.source)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``."""
        first = self.layout.bounds(start)[0]
        stored = self.source.layout
        rows, end = first * self.group, (first + len(out)) * self.group
        begin = stored.chunk_of(rows)
        last = stored.chunk_of(end - 1)
        base = stored.bounds(begin)[0]
        block = np.empty((stored.bounds(last)[1] - base, *stored.row_shape), stored.dtype)
        self.source.read(begin, last + 1, block)
        out[...] = self.function(block[rows - base : end - base])

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered."""
        raise NotImplementedError("rows are made chunk by chunk")


def group_selection(selection: NDArray[np.int64] | None, group: int) -> NDArray[np.int64] | None:
    """Which groups are chosen, where whole groups of rows are.

    Raises
    ------
    MismatchError
        Some rows of a group were left out, or come in another order.
    """
    if selection is None or group == 1:
        return selection
    left = len(selection) % group
    groups = selection[: len(selection) - left].reshape(-1, group)
    if left or (groups != groups[:, :1] // group * group + np.arange(group)).any():
        raise MismatchError(
            f"the rows that were chosen are not those of whole groups of {group}, in order: choose "
            "after the rows were put together"
        )
    found: NDArray[np.int64] = groups[:, 0] // group
    return found
