"""Several files as one: sources of the same name, rows one after another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.layout import Layout
from epochal.stores.ragged import RaggedSource
from epochal.stores.rows import Located, check_rows, locate, read_into
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Other, Store, largest_group

__all__ = ["ConcatSource", "ConcatStore"]

FILES_AT_ONCE = 64  # are held open by one read, whatever becomes of them meanwhile


class ConcatSource:
    """Sources one after another. Chunks are those of the parts: none reaches over a file's end."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = [part for part in parts if part.layout.n_rows] or list(parts[:1])
        layouts = [part.layout for part in self._parts]
        self._first_rows = np.cumsum([0, *(layout.n_rows for layout in layouts)])
        self._first_chunks = np.cumsum([0, *(layout.n_chunks for layout in layouts)])
        self.layout = _joined(layouts, self._first_rows)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``, file by file."""
        base = self.layout.bounds(start)[0] if start < stop else 0
        while start < stop:
            number = int(np.searchsorted(self._first_chunks, start, "right")) - 1
            first = int(self._first_chunks[number])
            end = min(stop, int(self._first_chunks[number + 1]))
            low, high = self.layout.bounds(start)[0] - base, self.layout.bounds(end - 1)[1] - base
            self._parts[number].read(start - first, end - first, out[low:high])
            start = end

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows, those of one file together."""
        rows = np.asarray(rows, dtype=np.int64)
        check_rows(rows, self.layout.n_rows, "several files as one")
        files = np.searchsorted(self._first_rows, rows, "right") - 1
        order = None if (np.diff(files) >= 0).all() else np.argsort(files, kind="stable")
        if order is not None:
            files, rows = files[order], rows[order]
        heads = np.flatnonzero(np.diff(files, prepend=-1))
        for low, high in zip(heads.tolist(), [*heads[1:].tolist(), len(rows)], strict=False):
            number = int(np.clip(files[low], 0, len(self._parts) - 1))
            wanted = rows[low:high] - self._first_rows[number]
            if order is None:
                self._parts[number].read_rows(wanted, out[low:high])
            else:
                block = np.empty((high - low, *out.shape[1:]), out.dtype)
                self._parts[number].read_rows(wanted, block)
                out[order[low:high]] = block

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Read the chunks ``[start, stop)`` into several arrays, file by file; False where a file
        has no way to.
        """
        while start < stop:
            number = int(np.searchsorted(self._first_chunks, start, "right")) - 1
            first = int(self._first_chunks[number])
            end = min(stop, int(self._first_chunks[number + 1]))
            n_rows = self.layout.bounds(end - 1)[1] - self.layout.bounds(start)[0]
            mine, outs = _cut(outs, n_rows)
            if not read_into(self._parts[number], start - first, end - first, mine, spare):
                return False
            start = end
        return True

    def locate_all(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[list[Located], NDArray[np.int64]] | None]:
        """Where single rows lie, and which of them are of some files at a time; None where a file
        cannot say.
        """
        check_rows(rows, self.layout.n_rows, "several files as one")
        order = np.argsort(rows)
        ordered = rows[order]
        ends = np.searchsorted(ordered, self._first_rows)
        touched = np.flatnonzero(np.diff(ends)).tolist()
        for first in range(0, len(touched), FILES_AT_ONCE):
            found = []
            few = touched[first : first + FILES_AT_ONCE]
            for number in few:
                theirs = ordered[ends[number] : ends[number + 1]] - self._first_rows[number]
                one = locate(self._parts[number], theirs)
                if one is None:
                    yield None
                    return
                found.append(one)
            yield found, order[ends[few[0]] : ends[few[-1] + 1]]


def _cut(
    outs: Sequence[NDArray[Any]], n_rows: int
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Room for so many rows, and the rest."""
    first, rest = [], []
    for out in outs:
        first.append(out[:n_rows])
        rest.append(out[n_rows:])
        n_rows -= len(first[-1])
    return first, rest


def _joined(layouts: Sequence[Layout], first_rows: NDArray[np.int64]) -> Layout:
    first = layouts[0]
    chunk_rows = max(layout.chunk_rows for layout in layouts)
    even = all(layout.starts is None and layout.chunk_rows == chunk_rows for layout in layouts)
    starts = None
    if not even or any(layout.n_rows % chunk_rows for layout in layouts[:-1]):
        starts = np.concatenate(
            [_edges(layout)[:-1] + at for layout, at in zip(layouts, first_rows, strict=False)]
            + [first_rows[-1:]]
        ).astype(np.int64)
    kinds = list(dict.fromkeys(layout.kind for layout in layouts))
    codecs = list(dict.fromkeys(layout.codec for layout in layouts))
    return Layout(
        shape=(int(first_rows[-1]), *first.row_shape),
        dtype=first.dtype,
        chunk_rows=chunk_rows,
        rows_alone=all(layout.rows_alone for layout in layouts),
        coded=_coded(layouts),
        piece_bytes=_pieces(layouts),
        read_overhead_bytes=max(layout.read_overhead_bytes for layout in layouts),
        kind=kinds[0] if len(kinds) == 1 else "mixed",
        codec=", ".join(codec for codec in codecs if codec),
        parallel=all(layout.parallel for layout in layouts),
        in_flight=max(layout.in_flight for layout in layouts),
        checked=all(layout.checked for layout in layouts),
        starts=starts,
    )


def _edges(layout: Layout) -> NDArray[np.int64]:
    if layout.starts is not None:
        return layout.starts
    return np.minimum(np.arange(layout.n_chunks + 1) * layout.chunk_rows, layout.n_rows)


def _coded(layouts: Sequence[Layout]) -> NDArray[np.int64] | None:
    """Chunks that must be decoded, where rows of all others can be read alone."""
    if all(layout.rows_alone for layout in layouts):
        return None
    if not all(layout.some_alone for layout in layouts):
        return None
    firsts = np.cumsum([0, *(layout.n_chunks for layout in layouts)])
    return np.concatenate(
        [
            layout.coded + at
            for layout, at in zip(layouts, firsts, strict=False)
            if layout.coded is not None
        ]
    )


def _pieces(layouts: Sequence[Layout]) -> NDArray[np.uint32] | None:
    """Stored bytes of all pieces; chunks of fewer pieces get some of no bytes."""
    if all(layout.piece_bytes is None for layout in layouts):
        return None
    parts = []
    for layout in layouts:
        stored = layout.piece_bytes
        if stored is None:
            stored = layout.chunk_stored_bytes.astype(np.uint32).reshape(-1, 1)
        parts.append(stored)
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


class ConcatStore:
    """Stores one after another.

    A source is what all of them have by that name, with one dtype and one shape of a row.

    Raises
    ------
    MismatchError
        Where the files' main sources differ, in one error that names each; where two sources have
        as many rows in all but not in each file, so that their rows would not belong together.
    """

    def __init__(self, name: str, stores: Sequence[Store], others: Sequence[Other] = ()) -> None:
        self._stores = list(stores)
        self.name = f"{name} ({len(stores)} files)" if "files" not in name else name
        named = [_renamed(store, stores) for store in stores]
        self.sources: dict[str, AnySource] = {}
        main = set(largest_group(named[0]))
        wrong: list[str] = []
        more = list(others)
        for source in dict.fromkeys(key for each in named for key in each):
            why = self._difference(source, named)
            if not why:
                self.sources[source] = _concatenated(source, [each[source] for each in named])
            elif source in main:
                wrong.append(f"{source!r} {why}")
            else:
                more.append(Other(source, why))
        if wrong:
            raise MismatchError(
                f"{self.name}: the files are not of one kind: {'; '.join(wrong)}. Open those that "
                "belong together, or name the sources that do with sources="
            )
        self._check_rows(named)
        known: dict[str, Other] = {}
        for store in stores:
            for other in store.others:
                bad = other.damaged or other.gone
                if bad or other.name not in known:
                    known[other.name] = other
        self.others = (*more, *known.values())

    def _difference(self, source: str, named: Sequence[Mapping[str, AnySource]]) -> str:
        """How a source differs among the files; empty where it does not."""
        kinds: dict[str, list[str]] = {}
        for store, sources in zip(self._stores, named, strict=True):
            kinds.setdefault(_kind(sources.get(source)), []).append(os.path.basename(store.name))
        if len(kinds) == 1:
            return ""
        return ", ".join(f"is {kind} in {_some(files)}" for kind, files in kinds.items())

    def _check_rows(self, named: Sequence[Mapping[str, AnySource]]) -> None:
        """Rows of one file belong together: sources must agree in each file, not only in all."""
        counts: dict[int, tuple[str, list[int]]] = {}
        for source in self.sources:
            rows = [each[source].layout.n_rows for each in named]
            first, theirs = counts.setdefault(sum(rows), (source, rows))
            for store, mine, other in zip(self._stores, rows, theirs, strict=True):
                if mine != other:
                    raise MismatchError(
                        f"{store.name}: {source!r} has {mine} rows and {first!r} has {other}, "
                        "though they agree over all files: their rows would not belong together"
                    )

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Those of the first file, but what counts its rows."""
        groups = self._stores[0].groups
        return {
            path: {k: v for k, v in group.items() if k not in ("split", "shape")}
            for path, group in groups.items()
        }

    def close(self) -> None:
        """Close all."""
        for store in self._stores:
            store.close()


def _renamed(store: Store, stores: Sequence[Store]) -> Mapping[str, AnySource]:
    """Sources by name. Where each file holds one array and is named for it (``X-0.npy``,
    ``X-1.npy``), the name is what the files' names have in common.
    """
    if any(len(each.sources) != 1 for each in stores):
        return store.sources
    names = [next(iter(each.sources)) for each in stores]
    if len(set(names)) == 1:
        return store.sources
    common = re.sub(r"[\W\d_]+$", "", _beginning(names)) or "array"
    return {common: next(iter(store.sources.values()))}


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    same = (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def _kind(source: AnySource | None) -> str:
    if source is None:
        return "missing"
    layout = source.layout
    if isinstance(source, RaggedSource):
        width = "" if layout.shape[1:] == () else f" of {layout.shape[1]} columns"
        return f"{layout.kind} {layout.dtype}{width}"
    byte_order = " (big-endian)" if layout.dtype.byteorder == ">" else ""
    return f"{layout.dtype}{byte_order} of rows {layout.shape[1:]}"


def _some(files: Sequence[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(files[:3]) + more


def _concatenated(name: str, parts: Sequence[AnySource]) -> AnySource:
    ragged = [part for part in parts if isinstance(part, RaggedSource)]
    if len(ragged) != len(parts):
        return ConcatSource([part for part in parts if not isinstance(part, RaggedSource)])
    columns: dict[str, Source] = {
        column: ConcatSource([part.columns[column] for part in ragged])
        for column in ragged[0].columns
    }
    ends = np.cumsum([0, *(part.layout.offsets[-1] for part in ragged)])
    offsets = np.concatenate(
        [part.layout.offsets[:-1] + at for part, at in zip(ragged, ends, strict=False)]
        + [ends[-1:]]
    )
    return RaggedSource(name, columns, offsets.astype(np.int64), ragged[0].layout.n_columns)
