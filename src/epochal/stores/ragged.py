"""Sources whose rows differ in length: items between offsets, of one column or of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from epochal.errors import FormatError
from epochal.layout import RaggedLayout
from epochal.stores.source import Source

__all__ = ["AnySource", "RaggedSource", "columns_of", "wrapped"]


class RaggedSource:
    """Row ``r``: the items ``[offsets[r], offsets[r + 1])`` of each column.

    Parameters
    ----------
    name
        For people.
    columns
        Sources of shape ``(n_items, *item_shape)``: ``{"values": ...}``, or ``data`` and
        ``indices`` of sparse rows.
    offsets
        From 0 to ``n_items``, not descending, ``(n_rows + 1,)``. Held: 8 bytes a row.
    n_columns
        Of sparse rows: the width of the matrix.

    Raises
    ------
    FormatError
        Where offsets descend, or do not fit the columns.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Source],
        offsets: NDArray[np.int64],
        n_columns: int | None = None,
    ) -> None:
        self.name = name
        self.columns = dict(columns)
        _check(name, self.columns, offsets)
        layouts = {column: source.layout for column, source in self.columns.items()}
        self.layout = RaggedLayout(offsets, layouts, n_columns)

    def __getstate__(self) -> tuple[str, dict[str, Source], NDArray[np.int64], int | None]:
        return self.name, self.columns, self.layout.offsets, self.layout.n_columns

    def __setstate__(
        self, state: tuple[str, dict[str, Source], NDArray[np.int64], int | None]
    ) -> None:
        self.__init__(*state)  # type: ignore[misc]


AnySource = Source | RaggedSource


def wrapped(source: AnySource, wrap: Callable[[Source], Source]) -> AnySource:
    """A source, or each column of a ragged one, wrapped."""
    if not isinstance(source, RaggedSource):
        return wrap(source)
    columns = {name: wrap(column) for name, column in source.columns.items()}
    return RaggedSource(source.name, columns, source.layout.offsets, source.layout.n_columns)


def columns_of(source: AnySource) -> list[Source]:
    """What of a source is read: itself, or its columns."""
    return list(source.columns.values()) if isinstance(source, RaggedSource) else [source]


def _check(name: str, columns: Mapping[str, Source], offsets: NDArray[np.int64]) -> None:
    if len(offsets) == 0 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise FormatError(f"{name}: offsets of its rows do not ascend from 0: the file is damaged")
    for column, source in columns.items():
        if source.layout.n_rows != offsets[-1]:
            raise FormatError(
                f"{name}: its rows end at item {offsets[-1]}, "
                f"and {column!r} has {source.layout.n_rows}"
            )
