"""Which sources of a store rows are made of, and by which names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from epochal.errors import (
    MismatchError,
    SourceNameError,
    UnsafeError,
)
from epochal.stores.columns import column_of, columns_in
from epochal.stores.ragged import RaggedSource, columns_of
from epochal.stores.sparse import pair
from epochal.stores.store import AnySource, Store, largest_group

__all__ = ["choose_sources", "names_of", "pick"]


def choose_sources(
    store: Store,
    known: Mapping[str, AnySource],
    sources: Iterable[str] | None,
    aliases: Mapping[str, str | tuple[str, str]],
) -> dict[str, AnySource]:
    """The sources that rows are made of, by the names that the caller gives them."""
    named = {alias: _aliased(alias, target, known, store) for alias, target in aliases.items()}
    if sources is not None:
        names = names_of(sources)
        chosen = {n: named[n] if n in named else pick(n, known, store) for n in names}
        new = {id(source): alias for alias, source in named.items()}
        return {new.get(id(source), name): source for name, source in chosen.items()}
    taken = {id(part) for source in named.values() for part in (source, *columns_of(source))}
    rest = {n: source for n, source in known.items() if id(source) not in taken}
    return largest_group({**named, **rest})


def names_of(sources: Iterable[str] | str) -> list[str]:
    """Names of sources, one or several.

    >>> names_of("X"), names_of(("X", "y"))
    (['X'], ['X', 'y'])

    Raises
    ------
    SourceNameError
        For what is not text.
    """
    if isinstance(sources, str):
        return [sources]
    names = list(sources) if isinstance(sources, Iterable) else [sources]
    if not all(isinstance(name, str) for name in names):
        raise SourceNameError(f"sources={sources!r}: give a name, or several")
    return names


def _aliased(
    alias: str, target: str | tuple[str, str], known: Mapping[str, AnySource], store: Store
) -> AnySource:
    if isinstance(target, str):
        return pick(target, known, store)
    try:
        values, offsets = (pick(name, known, store) for name in target)
    except (TypeError, ValueError):
        raise MismatchError(
            f"aliases={{{alias!r}: {target!r}}}: give a name, or a pair of values and offsets"
        ) from None
    if isinstance(values, RaggedSource) or isinstance(offsets, RaggedSource):
        raise MismatchError(f"{alias!r}: values and offsets are arrays of their own: {target!r}")
    return pair(alias, values, offsets)


def pick(name: str, sources: Mapping[str, AnySource], store: Store) -> AnySource:
    """A source by its name, with or without a leading slash; a column of a table by
    ``"table:column"``.
    """
    if not isinstance(name, str):
        raise SourceNameError(f"no source {name!r} in {store.name}: sources have names")
    for known in (sources, store.sources):
        for candidate in (name, name.strip("/")):
            if candidate in known:
                return known[candidate]
            table, colon, field = candidate.partition(":")
            found = known.get(table) if colon else None
            if found is not None and not isinstance(found, RaggedSource):
                column = column_of(found, field)
                if column is not None:
                    return column
    for other in store.others:
        if other.name.strip("/") == name.strip("/"):
            kind = UnsafeError if other.unsafe else SourceNameError
            raise kind(f"{name!r} of {store.name} cannot be a source: {other.why}")
    names = [*sources, *store.sources]
    for table, source in store.sources.items():
        names += [f"{table}:{column}" for column in columns_in(source.layout.dtype)]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"there are {', '.join(dict.fromkeys(names)) or 'none'}"
    )
    raise SourceNameError(f"no source {name!r} in {store.name}: {hint}")
