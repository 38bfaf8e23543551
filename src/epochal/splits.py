"""Parts of a file that it names itself: Fuel's table of splits, or groups."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError, RowError, SourceNameError
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
    rows = {name: _rows(place) for name, place in places.items()}
    first = next(iter(rows), None)
    if first is None:
        raise SourceNameError(f"split {split!r} of {store.name} names no source that can be read")
    for name, mine in rows.items():
        if not np.array_equal(mine, rows[first]):
            raise MismatchError(
                f"split {split!r} has other rows of {name!r} than of {first!r}: "
                "open them one at a time with sources="
            )
        n_rows = store.sources[name].layout.n_rows
        if len(mine) and (mine[0] < 0 or mine[-1] >= n_rows):
            raise RowError(
                f"split {split!r} asks for row {mine[-1]} of {name!r}, which has {n_rows}"
            )
    return {name: store.sources[name] for name in rows}, rows[first]


def _rows(place: tuple[int, int, NDArray[np.int64] | None]) -> NDArray[np.int64]:
    start, stop, rows = place
    return np.arange(start, stop, dtype=np.int64) if rows is None else np.unique(rows)
