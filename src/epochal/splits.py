"""Parts of a file that it names itself: Fuel's table of splits, or groups."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from epochal.errors import FormatError, MismatchError, RowError, SourceNameError
from epochal.execute.rows import read_rows
from epochal.stores.ragged import RaggedSource
from epochal.stores.store import AnySource, Store

__all__ = ["splits_of", "take_split"]


def splits_of(store: Store) -> tuple[str, ...]:
    """Names of the parts: of the table, or of the groups that hold sources."""
    table = store.groups.get("", {}).get("split")
    if isinstance(table, Mapping):
        return tuple(table)
    return tuple(dict.fromkeys(name.split("/")[0] for name in store.sources if "/" in name))


def take_split(
    store: Store, split: str | None
) -> tuple[Mapping[str, AnySource], NDArray[np.int64] | None]:
    """The sources of a part by name, and its rows, ascending; None for all rows.

    Raises
    ------
    SourceNameError
        No such part.
    MismatchError
        The part has other rows of one source than of another.
    RowError
        The part asks for rows that a source has not.
    FormatError
        The part's row numbers are missing, or no integers.
    """
    if split is None:
        return store.sources, None
    names = splits_of(store)
    if split not in names:
        near = difflib.get_close_matches(split, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise SourceNameError(f"no split {split!r} in {store.name}: {hint}")
    table = store.groups.get("", {}).get("split")
    if not isinstance(table, Mapping):
        prefix = f"{split}/"
        inside = {n: source for n, source in store.sources.items() if n.startswith(prefix)}
        return {n.removeprefix(prefix): source for n, source in inside.items()}, None
    places = {name: place for name, place in table[split].items() if name in store.sources}
    known: dict[tuple[int, int, str], NDArray[np.int64]] = {}
    rows = {name: _rows(split, store, name, place, known) for name, place in places.items()}
    first = next(iter(rows), None)
    if first is None:
        raise SourceNameError(f"split {split!r} of {store.name} names no source that can be read")
    for name, mine in rows.items():
        if not np.array_equal(mine, rows[first]):
            raise MismatchError(
                f"split {split!r} has other rows of {name!r} than of {first!r}: "
                "open them one at a time with sources="
            )
    return {name: store.sources[name] for name in rows}, rows[first]


def _rows(
    split: str,
    store: Store,
    name: str,
    place: tuple[int, int, str],
    known: dict[tuple[int, int, str], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Row numbers of one source in a part, ascending, each once; those of `known` are not read
    again.
    """
    start, stop, path = place
    n_rows = store.sources[name].layout.n_rows
    if place not in known:
        if not path and not 0 <= start <= stop <= n_rows:
            raise RowError(
                f"split {split!r} asks for rows {start} to {stop} of {name!r}, which has {n_rows}"
            )
        known[place] = _numbers(split, store, path, n_rows) if path else np.arange(start, stop)
    rows = known[place]
    if len(rows) and (rows[0] < 0 or rows[-1] >= n_rows):
        bad = rows[0] if rows[0] < 0 else rows[-1]
        raise RowError(f"split {split!r} asks for row {bad} of {name!r}, which has {n_rows}")
    return rows


def _numbers(split: str, store: Store, path: str, n_rows: int) -> NDArray[np.int64]:
    """The row numbers that a dataset of the file lists; no more of them than there are rows."""
    source = store.sources.get(path)
    if source is None or isinstance(source, RaggedSource):
        raise FormatError(f"split {split!r} of {store.name} lists its rows in {path!r}, not found")
    layout = source.layout
    if layout.row_shape or layout.dtype.kind not in "iu" or layout.n_rows > n_rows:
        raise FormatError(
            f"split {split!r} of {store.name} lists its rows in {path!r}, which has "
            f"{(layout.n_rows, *layout.row_shape)} {layout.dtype}: "
            f"at most {n_rows} integers expected"
        )
    return np.unique(read_rows(source, slice(0, layout.n_rows), 1).astype(np.int64))
