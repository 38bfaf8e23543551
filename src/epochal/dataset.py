"""The face: named sources, views of their rows, batches."""

from __future__ import annotations

import difflib
import keyword
import os
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray

from epochal import schemes, sizes
from epochal.batches import Batches, Settings
from epochal.changes import ChangedStore
from epochal.errors import (
    EpochalError,
    MismatchError,
    SchemeError,
    SourceNameError,
    UnsafeError,
)
from epochal.execute.probe import Measured, default_threads
from epochal.execute.scratch import scratch_folder
from epochal.layout import Layout, RaggedLayout
from epochal.plan.plan import Plan
from epochal.ragged import Block, check_form, form_of
from epochal.schemes.piles import KeyOrder
from epochal.splits import splits_of, take_split
from epochal.stores import open_store
from epochal.stores.columns import column_of, columns_in
from epochal.stores.memory import ArrayStore
from epochal.stores.ragged import RaggedSource, columns_of
from epochal.stores.sparse import pair
from epochal.stores.store import AnySource, Other, Store, largest_group
from epochal.view import RaggedView, Selection, SourceView
from epochal.writing.recovery import recover_all

__all__ = ["Dataset", "from_arrays", "open_dataset"]

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
        measured: Measured | None = None,
    ) -> None:
        lengths = {name: source.layout.n_rows for name, source in sources.items()}
        if len(set(lengths.values())) > 1:
            raise _unequal(lengths)
        self.store = store
        self._sources = dict(sources)
        self._selection = selection
        self._functions = functions
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
        yours to keep.

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
            `memory` counts the rows as they are stored, not what padding makes of them.
        on_error
            ``"raise"`` a `DamageError` at the batch that holds rows of a chunk that does not
            decode, or ``"skip"`` those rows: they are left out of all sources, so that their batch
            gets shorter (or empty: the number of batches stays), counted and listed in
            `Batches.stats`, and named in a `DamageWarning` once.

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
        for name, source in chosen.items():
            if isinstance(source, RaggedSource):
                sparse = source.layout.n_columns is not None
                check_form(ragged, sparse=sparse, name=name)
        settings = Settings(
            budget_bytes=sizes.default_memory()
            if memory is None
            else sizes.parse(memory, "memory"),
            threads=default_threads() if threads is None else _positive("threads", threads),
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
        return Batches(
            chosen,
            made,
            settings,
            selection=self._selection,
            finish=_Finish(tuple(chosen), self._functions, ragged),
            finish_is_cheap=not self._functions and ragged == "offsets",
            measured=self._measured,
        )

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
            Of each part but the last, which gets the rest; ``split(0.9)`` gives two parts.
        seed
            Which rows; None takes them in the file's order instead.

        Holds 8 bytes a row.

        >>> train, valid = from_arrays(X=np.arange(10)).split(0.8)
        >>> len(train), len(valid)
        (8, 2)
        """
        if not fractions or any(not 0 < f < 1 for f in fractions) or sum(fractions) >= 1 + 1e-9:
            raise MismatchError(
                f"split{fractions}: give fractions between 0 and 1 that leave a rest"
            )
        n = len(self)
        if seed is None:
            rows = np.arange(n, dtype=np.int64)
        else:
            rows = KeyOrder(schemes.Keys(seed, 0, schemes.Stream.SPLIT), n, max(n, 1)).rows(0, n)
        ends = np.rint(np.cumsum(fractions) * n).astype(int)
        parts = np.split(rows, ends)
        return tuple(self._view(np.sort(part)) for part in parts)

    def _view(self, rows: Selection) -> Dataset:
        selection = rows if self._selection is None else self._selection[rows]
        return Dataset(
            self.store,
            self._sources,
            selection=selection,
            functions=self._functions,
            measured=self._measured,
        )

    def map(self, function: Callable[[Any], Any]) -> Dataset:
        """The same dataset, with a function applied to each batch: it gets the named tuple, and may
        return anything.

        It runs on the reading threads, several batches at once. ``ds["X"]`` still gives rows as
        they are stored.
        """
        functions = (*self._functions, function)
        return Dataset(
            self.store,
            self._sources,
            selection=self._selection,
            functions=functions,
            measured=self._measured,
        )

    def _chosen(self, sources: Sequence[str] | str | None) -> dict[str, AnySource]:
        if not self._sources:
            raise SourceNameError(f"{self.store.name} holds no source: see `epochal info`")
        if sources is None:
            return dict(self._sources)
        names = [sources] if isinstance(sources, str) else list(sources)
        if not names:
            raise SourceNameError("sources=() names none")
        return {name: self._source(name) for name in names}

    def save(self, path: str | os.PathLike[str], **how: Any) -> None:
        """Write the rows as this process sees them to a new file, by `epochal.create`, whose
        arguments are `how`; ``overwrite=True`` may replace the very file they come from.

        Reads each chunk once, in order; holds a quarter of what `memory` allows in reading.

        Raises
        ------
        MismatchError
            Rows of varying length, which cannot be written.
        """
        views = self.sources
        ragged = [name for name, view in views.items() if isinstance(view, RaggedView)]
        if ragged:
            raise MismatchError(f"rows of {ragged[0]!r} vary in length, and cannot be written yet")
        plain = Dataset(self.store, self._sources, selection=self._selection)
        specs = {name: (view.shape[1:], view.dtype) for name, view in views.items()}
        row_bytes = max(1, sum(view.layout.row_bytes for view in views.values()))
        create = import_module("epochal.writing.create").create  # which loads h5py
        with create(path, specs, rows=len(self), **how) as writer:
            for batch in plain.batches("sequential", max(1, SAVE_BYTES // row_bytes)):
                writer.append(dict(zip(views, batch, strict=True)))

    def close(self) -> None:
        """Give back file descriptors."""
        self.store.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Finish:
    """Makes the named tuple, and applies functions to it."""

    def __init__(
        self,
        names: tuple[str, ...],
        functions: tuple[Callable[[Any], Any], ...],
        ragged: str = "offsets",
    ) -> None:
        self._names = names
        self._ragged = ragged
        self._functions = functions
        self._type = _tuple_type(names)

    def __call__(self, arrays: tuple[NDArray[Any] | Block, ...]) -> Any:
        batch = self._type(*map(self._form, arrays))
        for function in self._functions:
            batch = function(batch)
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        return _Finish, (self._names, self._functions, self._ragged)

    def _form(self, rows: NDArray[Any] | Block) -> Any:
        return form_of(rows.rows(), self._ragged) if isinstance(rows, Block) else rows


def _tuple_type(names: tuple[str, ...]) -> Any:
    """A named tuple type; fields are the last parts of the names where those are distinct
    identifiers.
    """
    last = [re.split("[/:]", name)[-1] for name in names]
    short = last if len(set(last)) == len(last) else [re.sub("[/:]", "_", name) for name in names]
    fields = [
        name
        if name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
        else f"source_{k}"
        for k, name in enumerate(short)
    ]
    if len(set(fields)) < len(fields):
        fields = [f"source_{k}" for k in range(len(fields))]
    return namedtuple("Batch", fields)


def pick(name: str, sources: Mapping[str, AnySource], store: Store) -> AnySource:
    """A source by its name, with or without a leading slash; a column of a table by
    ``"table:column"``.
    """
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


def _unequal(lengths: Mapping[str, int]) -> MismatchError:
    told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
    return MismatchError(
        f"sources of one dataset have equally many rows: {told}; choose with epochal.open(sources=)"
    )


def _why_other(source: AnySource, n_rows: int, chosen: Mapping[str, AnySource]) -> str:
    if source.layout.n_rows != n_rows:
        return f"it has {source.layout.n_rows} rows, not {n_rows}; name it with sources= to use it"
    return f"it was not named; chosen were {', '.join(chosen)}"


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SchemeError(f"{name}={value!r}: give a whole number from 1")
    return value


def _chunk_rows(layout: Layout | RaggedLayout) -> int:
    """Rows that are stored together, about."""
    if isinstance(layout, Layout):
        return layout.chunk_rows
    column = next(iter(layout.columns.values()))
    return max(1, column.chunk_rows * layout.n_rows // max(column.n_rows, 1))


def open_dataset(
    target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    sources: Iterable[str] | None = None,
    aliases: Mapping[str, str | tuple[str, str]] | None = None,
    spaces: None = None,
    split: str | None = None,
    load_all: bool = False,
    mode: str = "r",
    backend: str = "auto",
    allow: Sequence[str] = (),
    untrusted: bool = False,
) -> Dataset:
    """Open a file as it lies; nothing is read but its index, and nothing is ever written to it.

    Parameters
    ----------
    target
        A file: HDF5 of any writer, ``.npy``, ``.npz``; a Zarr folder or archive. Several of them as
        one, rows one after another: a list, a pattern (``"part-*.h5"``) or a folder, in natural
        order of their names.
    sources
        Names of the datasets that rows are made of, by path (``"train/X"``). None takes those whose
        first axis agrees with the largest group of datasets.
    aliases
        Other names of sources: ``{"images": "train/X"}``. A pair of names makes rows of varying
        length of values and offsets: ``{"tokens": ("values", "offsets")}``.
    split
        A part of the rows, by name: of the file's own table of splits (Fuel's ``split`` attribute),
        or the sources of a group, without its name (``train/X`` as ``X``).
    load_all
        Decode everything into memory now.
    mode
        ``"r"``: nothing can be assigned to. ``"c"``: copy on write, ``ds["X"][rows] = values``
        changes what this process sees, on scratch, and never the file; `Dataset.save` writes it
        out. ``"r+"``: the same changes the file in place, whole chunks through a journal beside it.
    allow
        What is refused by default and shall not be: see the errors that name it.
    untrusted
        Index the file in a child process, so that a file that crashes libhdf5 is an exception.

    Raises
    ------
    FileMissingError, FormatError, UnsafeError, SourceNameError, MismatchError
    """
    _only_default(spaces=(spaces, None))
    if load_all and mode != "r":
        raise MismatchError(
            f"load_all=True loads what is there for reading; mode={mode!r}: one of both"
        )
    recover_all(target)
    store = _store(target, mode, backend=backend, allow=tuple(allow), untrusted=untrusted)
    try:
        known, rows = take_split(store, split)
        dataset = Dataset(
            store, _choose_sources(store, known, sources, aliases or {}), selection=rows
        )
        if load_all:
            loaded = _loaded(dataset)
            store.close()
            return loaded
        return dataset
    except EpochalError:
        store.close()
        raise


def _store(target: Any, mode: str, **how: Any) -> Store:
    """The store, and what lets its sources be assigned to."""
    if mode == "r":
        return open_store(target, **how)
    if mode == "c":
        return ChangedStore(open_store(target, **how), scratch_folder(None))
    if mode != "r+":
        raise MismatchError(f"mode={mode!r} is not one of: 'r', 'c', 'r+'")
    if not isinstance(target, str | os.PathLike) or not os.path.exists(target):
        raise MismatchError(
            f"mode='r+' changes one file or folder of this machine: {target!r} is none; "
            "mode='c' changes what this process sees"
        )
    path = os.path.realpath(os.fspath(target))
    edited = import_module("epochal.editing").EditedStore  # which loads h5py
    store: Store = edited(path, lambda: open_store(path, **how))
    return store


def _choose_sources(
    store: Store,
    known: Mapping[str, AnySource],
    sources: Iterable[str] | None,
    aliases: Mapping[str, str | tuple[str, str]],
) -> dict[str, AnySource]:
    """The sources that rows are made of, by the names that the caller gives them."""
    named = {alias: _aliased(alias, target, known, store) for alias, target in aliases.items()}
    if sources is not None:
        names = [sources] if isinstance(sources, str) else list(sources)
        chosen = {n: named[n] if n in named else pick(n, known, store) for n in names}
        new = {id(source): alias for alias, source in named.items()}
        return {new.get(id(source), name): source for name, source in chosen.items()}
    taken = {id(part) for source in named.values() for part in (source, *columns_of(source))}
    rest = {n: source for n, source in known.items() if id(source) not in taken}
    return largest_group({**named, **rest})


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


def _loaded(dataset: Dataset) -> Dataset:
    """The same rows in memory."""
    sources: dict[str, AnySource] = {}
    for name, view in dataset.sources.items():
        if isinstance(view, RaggedView):
            sources[name] = view.loaded()
        else:
            sources |= ArrayStore({name: view[:]}).sources
    store = ArrayStore({})
    store.sources = sources
    return Dataset(store, sources)


def _only_default(**arguments: tuple[Any, Any]) -> None:
    for name, (given, default) in arguments.items():
        if given != default:
            raise MismatchError(
                f"{name}={given!r}: this version of epochal knows only {name}={default!r}"
            )


def from_arrays(arrays: Mapping[str, ArrayLike] | None = None, /, **named: ArrayLike) -> Dataset:
    """Arrays in memory as a dataset: for tests and small data.

    >>> ds = from_arrays(X=np.arange(6).reshape(3, 2), y=np.array([0, 1, 0]))
    >>> len(ds), ds["X"][[2, 0, 2]].tolist()
    (3, [[4, 5], [0, 1], [4, 5]])
    """
    store = ArrayStore(
        {name: np.asarray(array) for name, array in {**(arrays or {}), **named}.items()}
    )
    return Dataset(store, store.sources)
