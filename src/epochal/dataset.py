"""The face: named sources, views of their rows, batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.random import RandomState

from epochal import schemes, sizes
from epochal.batches import Batches
from epochal.choosing import names_of, pick
from epochal.errors import (
    MismatchError,
    SourceNameError,
)
from epochal.execute.probe import Measured, threads_of
from epochal.finish import Finish
from epochal.html import table
from epochal.layout import Layout, RaggedLayout
from epochal.plan.plan import Plan
from epochal.planning import Settings
from epochal.ragged import FORMS, check_form
from epochal.schemes.piles import KeyOrder
from epochal.schemes.scheme import checked_int
from epochal.splits import splits_of
from epochal.stores.mapped import Chain, unmapped
from epochal.stores.memory import ArraySource, ArrayStore
from epochal.stores.ragged import RaggedSource
from epochal.stores.store import AnySource, Other, Store
from epochal.transformed import (
    AppliesToRows,
    chosen,
    states_of,
    transformed,
)
from epochal.view import RaggedView, Selection, SourceView

__all__ = ["Dataset"]

MIX_BYTES = 64 << 20
SAVE_BYTES = 4 << 20


class Dataset:
    """Named sources of equally many rows, read where they lie.

    Made by `epochal.open`, `epochal.from_arrays`, or from another dataset by `split` and `map`.
    Nothing is written to the files but by assignment, where they were opened with ``mode="r+"``.
    Pickles as paths and indexes; a copy in another process
    opens them by itself.
    """

    def __init__(
        self,
        store: Store,
        sources: Mapping[str, AnySource],
        *,
        selection: Selection | None = None,
        functions: tuple[Callable[[Any], Any], ...] = (),
        shapings: Mapping[str, Callable[[Any], Any]] | None = None,
        measured: Measured | None = None,
    ) -> None:
        lengths = {name: source.layout.n_rows for name, source in sources.items()}
        if len(set(lengths.values())) > 1:
            raise _unequal(lengths)
        self.store = store
        self._sources = dict(sources)
        self._selection = selection
        self._functions = functions
        self._shapings = dict(shapings or {})
        self._measured = measured or Measured()

    def __len__(self) -> int:
        if self._selection is not None:
            return len(self._selection)
        return self._n_file_rows

    @property
    def sources(self) -> dict[str, SourceView | RaggedView]:
        """The sources by name, in order."""
        return {name: self[name] for name in self._sources}

    @property
    def stored(self) -> dict[str, AnySource]:
        """What the sources are read from, by name: all rows of the file, whatever the view."""
        return dict(self._sources)

    @property
    def others(self) -> tuple[Other, ...]:
        """What else the file holds, and why it is not a source here."""
        mine = {id(source) for source in self._sources.values()}
        return self.store.others + tuple(
            Other(
                name,
                _why_other(source, self._n_file_rows, self._sources),
                source.layout.shape,
                str(source.layout.dtype),
            )
            for name, source in self.store.sources.items()
            if id(source) not in mine
        )

    def __getitem__(self, name: str) -> SourceView | RaggedView:
        source = self._source(name)
        if isinstance(source, RaggedSource):
            return RaggedView(name, source, self._selection)
        return SourceView(name, source, self._selection, self._axes(source))

    def _axes(self, source: AnySource) -> tuple[str, ...]:
        path = next((n for n, each in self.store.sources.items() if each is source), "")
        names = self.store.groups.get(path, {}).get("dimension_names", ())
        return tuple(str(name) for name in names)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names that `epochal.open` takes for ``split=``: those of the file's own table (Fuel's
        ``split`` attribute), else its groups.
        """
        return splits_of(self.store)

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def _source(self, name: str) -> AnySource:
        source = pick(name, self._sources, self.store)
        first = next(iter(self._sources), name)
        if source.layout.n_rows != self._n_file_rows:
            raise _unequal({first: self._n_file_rows, name: source.layout.n_rows})
        return source

    @property
    def _n_file_rows(self) -> int:
        return next((source.layout.n_rows for source in self._sources.values()), 0)

    def __repr__(self) -> str:
        head = f"<epochal.Dataset {self.store.name}: {len(self):,} rows>"
        rows = []
        for name, view in self.sources.items():
            layout = view.layout
            codec = f", {layout.codec}" if layout.codec else ""
            size = sizes.show(layout.decoded_bytes)
            stored = sizes.show(layout.stored_bytes)
            chunks = ""
            if isinstance(layout, RaggedLayout):
                chunks = f", {layout.offsets[-1]:,} items"
            elif layout.kind == "chunked":
                chunks = f", {layout.chunk_rows} rows a chunk"
            rows.append(
                f"  {name}: {view.shape} {view.dtype}, {layout.kind}{codec}{chunks}, "
                f"{stored} stored, {size} decoded"
            )
        return "\n".join([head, *rows])

    def _repr_html_(self) -> str:
        columns = ("source", "shape", "dtype", "layout", "codec", "stored", "decoded")
        rows = [
            (
                name,
                " × ".join(map(str, view.shape)),
                str(view.dtype),
                view.layout.kind,
                view.layout.codec,
                sizes.show(view.layout.stored_bytes),
                sizes.show(view.layout.decoded_bytes),
            )
            for name, view in self.sources.items()
        ]
        return table(f"epochal.Dataset {self.store.name}: {len(self):,} rows", columns, rows)

    def batches(
        self,
        scheme: str = "sequential",
        batch_size: int | None = None,
        num_batches: int | None = None,
        *,
        sources: Sequence[str] | str | None = None,
        seed: int | RandomState | None = None,
        epoch: int = 0,
        memory: int | str | None = None,
        scratch: str | os.PathLike[str] | bool | None = None,
        threads: int | None = None,
        shard: tuple[int, int] = (0, 1),
        progress: bool = False,
        ragged: str = "offsets",
        on_error: str = "raise",
    ) -> Batches:
        """Mini-batches of named tuples of arrays, ``(batch_size, *row_shape)`` each; the arrays are
        yours to keep and to change. (They may be views of memory that is used again once neither
        they nor any view of them is left.)

        Parameters
        ----------
        scheme
            One of `epochal.schemes.NAMES`.
        batch_size, num_batches
            Rows that one rank gets at a time; global batches of an epoch. One of them may be left
            out but for random schemes.
        sources
            Names, in the order of the tuple; all when None.
        seed, epoch
            What the order is a function of. None draws a seed, which `state_dict` keeps. A
            `numpy.random.RandomState` gives Pylearn2's order.
        memory
            Ceiling for everything that is held, in bytes or as ``"512MiB"``. None: a quarter of
            what is free, at most 4 GiB. It changes no order, but that of
            ``chunkwise_shuffled_sequential``, which mixes rows within it.
        scratch
            Folder for what does not fit; False forbids it. None: `EPOCHAL_SCRATCH`, `TMPDIR` or
            ``/var/tmp``.
        threads
            Threads that read and decode; None: one a core that this process may use, and more
            where they wait for a network, as far as `memory` goes.
        shard
            ``(rank, world)``: which part of each global batch.
        progress
            Show a bar on a terminal.
        ragged
            How rows of varying length come: ``"offsets"`` (a tuple of values and offsets; of
            sparse rows data, indices, offsets and width), ``"padded"`` with zeros to the longest
            of the batch, and of sparse rows ``"csr"`` (a `scipy.sparse.csr_array`) or ``"dense"``.
            Where padding makes more of rows than is stored, fewer batches are made ahead.
        on_error
            ``"raise"`` a `DamageError` by the batch that holds rows of a chunk that does not
            decode (earlier where that chunk is read ahead), or ``"skip"`` those rows: they are left
            out of all sources, so that their batch gets shorter (or empty: the number of batches
            stays), counted and listed in `Batches.stats`, and named in a `DamageWarning` once.

        Raises
        ------
        SchemeError
            No order can be made of these arguments.
        SourceNameError
            No such source.
        """
        if on_error not in ("raise", "skip"):
            raise MismatchError(f"on_error={on_error!r} is not one of: raise, skip")
        chosen = self._chosen(sources)
        if ragged not in FORMS:
            raise MismatchError(f"ragged={ragged!r} is not one of: {', '.join(FORMS)}")
        if not isinstance(scratch, str | os.PathLike | bool | None):
            raise MismatchError(f"scratch={scratch!r}: give a folder, False for none, or None")
        for name, source in chosen.items():
            if isinstance(source, RaggedSource):
                sparse = source.layout.n_columns is not None
                check_form(ragged, sparse=sparse, name=name)
        settings = Settings(
            budget_bytes=sizes.default_memory()
            if memory is None
            else sizes.parse(memory, "memory"),
            threads=threads_of(threads),
            more_threads=threads is None,
            scratch=scratch,
            progress=progress,
            on_error=on_error,
        )
        return self._batches(
            chosen,
            settings,
            scheme,
            ragged=ragged,
            batch_size=batch_size,
            num_batches=num_batches,
            seed=seed,
            epoch=epoch,
            shard=shard,
            mix_bytes=MIX_BYTES if memory is None else min(MIX_BYTES, settings.budget_bytes // 4),
        )

    def _batches(
        self,
        chosen: dict[str, AnySource],
        settings: Settings,
        scheme: str,
        *,
        ragged: str = "offsets",
        mix_bytes: int,
        **order: Any,
    ) -> Batches:
        largest = max(chosen.values(), key=lambda source: source.layout.decoded_bytes).layout
        mixed: dict[str, Any] = {}
        if scheme == "chunkwise_shuffled_sequential":
            row_bytes = max(sum(source.layout.row_bytes for source in chosen.values()), 1)
            mixed = {"chunk_rows": _chunk_rows(largest), "mix_rows": max(1, mix_bytes // row_bytes)}
        if scheme == "even_sequences" and "lengths" not in order:
            mixed = {"lengths": self._lengths(chosen)}
        made = schemes.make(scheme, len(self), **order, **mixed)
        read, shapings = self._unmapped(chosen)
        return Batches(
            read,
            made,
            settings,
            selection=self._selection,
            finish=Finish(tuple(chosen), self._functions, ragged, tuple(map(shapings.get, chosen))),
            finish_is_cheap=not self._functions and not shapings and ragged == "offsets",
            measured=self._measured,
        )

    def _unmapped(
        self, chosen: Mapping[str, AnySource]
    ) -> tuple[dict[str, AnySource], dict[str, Callable[[Any], Any]]]:
        """What is read, and what batches of it go through: rows are kept as they are stored."""
        read: dict[str, AnySource] = {}
        shapings = dict(self._shapings)
        for name, source in chosen.items():
            read[name], functions = unmapped(source)
            if functions:
                last = (shapings[name],) if name in shapings else ()
                shapings[name] = Chain((*functions, *last))
        return read, shapings

    def _lengths(self, chosen: Mapping[str, AnySource]) -> Selection | None:
        """Items of each row of the first source whose rows differ in length."""
        for source in chosen.values():
            if isinstance(source, RaggedSource):
                lengths = source.layout.lengths
                return lengths if self._selection is None else lengths[self._selection]
        return None

    def explain(self, *args: Any, **kwargs: Any) -> Plan:
        """How `batches` of the same arguments would run: strategy, bytes, seconds. Reads a few
        chunks to measure.
        """
        return self.batches(*args, **kwargs).plan

    def split(self, *fractions: float, seed: int | None = 0) -> tuple[Dataset, ...]:
        """Parts of the rows, drawn at random: lazy views, no data is copied.

        Parameters
        ----------
        fractions
            Of each part but the last, which gets the rest, or of all: ``split(0.9)`` gives two
            parts, as ``split(0.9, 0.1)`` does.
        seed
            Which rows, an integer of ``[0, 2**64)``; None takes them in the file's order instead.

        Holds 8 bytes a row.

        >>> import epochal
        >>> train, valid = epochal.from_arrays(X=np.arange(10)).split(0.8)
        >>> len(train), len(valid)
        (8, 2)
        """
        if not fractions or any(not 0 < f < 1 for f in fractions) or sum(fractions) >= 1 + 1e-9:
            raise MismatchError(
                f"split{fractions}: give fractions between 0 and 1, of 1 together or less"
            )
        if sum(fractions) > 1 - 1e-9:
            fractions = fractions[:-1]  # the rest
        n = len(self)
        if seed is None:
            rows = np.arange(n, dtype=np.int64)
        else:
            seed = checked_int("seed", seed, 0, 2**64 - 1)
            rows = KeyOrder(schemes.Keys(seed, 0, schemes.Stream.SPLIT), n, max(n, 1)).rows(0, n)
        ends = np.rint(np.cumsum(fractions) * n).astype(int)
        parts = np.split(rows, ends)
        return tuple(self._view(np.sort(part)) for part in parts)

    def _view(self, rows: Selection) -> Dataset:
        return self._like(
            selection=rows if self._selection is None else self._selection[rows],
            measured=self._measured,
        )

    def _like(self, **changed: Any) -> Dataset:
        """Another dataset of the same store."""
        same = {
            "sources": self._sources,
            "selection": self._selection,
            "functions": self._functions,
            "shapings": self._shapings,
        }
        return Dataset(self.store, **{**same, **changed})

    def map(self, function: Callable[[Any], Any]) -> Dataset:
        """The same dataset, with a function applied to each batch: it gets the named tuple, and may
        return anything.

        It runs on the reading threads, several batches at once. ``ds["X"]`` still gives rows as
        they are stored. Where it makes more bytes of a batch than its rows have, fewer batches are
        made ahead, so that `memory` holds them, too; but one that is in use and one that is being
        made are held in any case.
        """
        return self._like(functions=(*self._functions, function), measured=self._measured)

    def loaded(self) -> Dataset:
        """The same rows in memory, decoded now; what was made of batches by `map` stays to be made.

        Holds all of them.
        """
        sources: dict[str, AnySource] = {}
        for name, view in self.sources.items():
            sources[name] = view.loaded() if isinstance(view, RaggedView) else ArraySource(view[:])
        store = ArrayStore({})
        store.sources = sources
        return Dataset(store, sources, functions=self._functions, shapings=self._shapings)

    @classmethod
    def of_view(cls, view: SourceView) -> Dataset:
        """A dataset of the one source that a view shows, of its rows."""
        store = ArrayStore({})
        store.name = view.name
        store.sources = {view.name: view.source}
        return cls(store, store.sources, selection=view.selection)

    def part(self, start: int, stop: int) -> Dataset:
        """The rows ``[start, stop)``: a lazy view. Holds 8 bytes a row."""
        first, last, _ = slice(start, stop).indices(len(self))
        return self._view(np.arange(first, max(first, last), dtype=np.int64))

    def plain(self) -> Dataset:
        """The same rows, without what is made of batches by `map` and ``spaces=``."""
        return self._like(functions=(), shapings=None, measured=self._measured)

    @property
    def is_plain(self) -> bool:
        """Whether batches are rows as the views show them: nothing is made of them by `map` and
        ``spaces=``.
        """
        return not self._functions and not self._shapings

    @property
    def transforms(self) -> dict[str, list[Any]]:
        """States of the transforms that rows go through as they are read, by source."""
        return states_of(self._sources)

    @property
    def largest(self) -> str:
        """The source with the most decoded bytes: what is transformed where none is named.

        Raises
        ------
        MismatchError
            Two of them are equally large.
        """
        sizes_of = {name: view.layout.decoded_bytes for name, view in self.sources.items()}
        if not sizes_of:
            raise SourceNameError(f"{self.store.name} holds no source: see `epochal info`")
        most = [name for name, size in sizes_of.items() if size == max(sizes_of.values())]
        if len(most) > 1:
            raise MismatchError(f"which of {', '.join(most)}? Say with source=")
        return most[0]

    def transform(self, transform: AppliesToRows, source: str | None = None) -> Dataset:
        """The same dataset, with one source transformed as its rows are read: a lazy view.

        ``ds["X"]`` gives transformed rows. Batches are made of rows as they are stored, which are
        what `memory` and scratch hold, and are transformed on the reading threads. A transform that
        makes several rows of one (patches) has all other sources repeat theirs, one that makes one
        of several keep the first of theirs.

        Parameters
        ----------
        transform
            A fitted one of `epochal.transforms`.
        source
            Which; None: the one with the most bytes.

        Raises
        ------
        MismatchError
            It is not fitted, or to rows of another shape.
        """
        name = self.largest if source is None else source
        view = self[name]
        if isinstance(view, RaggedView):
            raise MismatchError(f"rows of {name!r} vary in length: no transform takes them")
        function = transform.lazily(view.shape[1:], view.dtype)
        return self._like(
            sources=transformed(self._sources, name, function),
            selection=chosen(self._selection, function),
            shapings={n: s for n, s in self._shapings.items() if n != name},
        )

    def _chosen(self, sources: Sequence[str] | str | None) -> dict[str, AnySource]:
        if not self._sources:
            raise SourceNameError(f"{self.store.name} holds no source: see `epochal info`")
        if sources is None:
            return dict(self._sources)
        names = names_of(sources)
        if not names:
            raise SourceNameError("sources=() names none")
        return {name: self._source(name) for name in names}

    def save(self, path: str | os.PathLike[str], **how: Any) -> None:
        """Write the rows as this process sees them to a new file, transformed ones with the state
        of their transforms, by `epochal.convert`, whose arguments are `how`; ``overwrite=True`` may
        replace the very file they come from.

        Reads each chunk once, in order; holds a quarter of what `memory` allows in reading.

        Raises
        ------
        MismatchError
            Rows of varying length, which cannot be written.
        """
        import_module("epochal.converting.convert").convert(self.plain(), path, **how)

    def close(self) -> None:
        """Give back file descriptors."""
        self.store.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _unequal(lengths: Mapping[str, int]) -> MismatchError:
    told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
    return MismatchError(
        f"sources of one dataset have equally many rows: {told}; choose with epochal.open(sources=)"
    )


def _why_other(source: AnySource, n_rows: int, chosen: Mapping[str, AnySource]) -> str:
    if source.layout.n_rows != n_rows:
        return f"it has {source.layout.n_rows} rows, not {n_rows}; name it with sources= to use it"
    return f"it was not named; chosen were {', '.join(chosen)}"


def _chunk_rows(layout: Layout | RaggedLayout) -> int:
    """Rows that are stored together, about."""
    if isinstance(layout, Layout):
        return layout.chunk_rows
    column = next(iter(layout.columns.values()))
    return max(1, column.chunk_rows * layout.n_rows // max(column.n_rows, 1))
