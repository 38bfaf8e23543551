"""Files as datasets: `epochal.open`, and arrays by `epochal.from_arrays`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from epochal.changes import changeable
from epochal.choosing import choose_sources
from epochal.dataset import Dataset
from epochal.errors import EpochalError, MismatchError, SourceNameError
from epochal.execute.scratch import scratch_folder
from epochal.layout import Layout
from epochal.spaces.natural import Shaping
from epochal.spaces.space import Space
from epochal.splits import take_split
from epochal.stores import open_store
from epochal.stores.manifest import warn_of_damaged
from epochal.stores.memory import ArrayStore
from epochal.stores.store import AnySource, SelfChecking, Store
from epochal.writing.recovery import recover_all

__all__ = ["from_arrays", "open_dataset"]


def open_dataset(
    target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    sources: Iterable[str] | None = None,
    aliases: Mapping[str, str | tuple[str, str]] | None = None,
    spaces: Mapping[str, Space] | None = None,
    split: str | None = None,
    load_all: bool = False,
    mode: str = "r",
    backend: str = "auto",
    allow: str | Sequence[str] = (),
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
    spaces
        What batches of a source are (`epochal.spaces`): ``{"images": Conv2DSpace((32, 32), 3,
        axes=("b", "c", 0, 1))}``. ``ds["images"]`` gives rows as they are stored.
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
    if load_all and mode != "r":
        raise MismatchError(
            f"load_all=True loads what is there for reading; mode={mode!r}: one of both"
        )
    if sources is not None:
        sources = [sources] if isinstance(sources, str) else list(sources)
        if not sources:
            raise MismatchError("sources=[] names none; None takes those that go together")
    recover_all(target)
    store = _store(target, mode, backend=backend, allow=allow, untrusted=untrusted)
    try:
        known, rows = take_split(store, split)
        chosen = choose_sources(store, known, sources, aliases or {})
        shapings = _shapings(chosen, spaces or {})
        dataset = Dataset(store, chosen, selection=rows, shapings=shapings)
        if load_all:
            loaded = dataset.loaded()
            store.close()
            return loaded
        return dataset
    except EpochalError:
        store.close()
        raise


def _store(target: Any, mode: str, **how: Any) -> Store:
    """The store, and what lets its sources be assigned to."""
    if mode not in ("r", "c", "r+"):
        raise MismatchError(f"mode={mode!r} is not one of: 'r', 'c', 'r+'")
    if mode == "r+":
        if not isinstance(target, str | os.PathLike) or not os.path.exists(target):
            raise MismatchError(
                f"mode='r+' changes one file or folder of this machine: {target!r} is none; "
                "mode='c' changes what this process sees"
            )
        target = os.path.realpath(os.fspath(target))
        editable = import_module("epochal.editing").editable  # which loads h5py
        edited: Store = editable(target, lambda: _opened(target, **how))
        return edited
    store = _opened(target, **how)
    return store if mode == "r" else changeable(store, scratch_folder(None))


def _opened(target: Any, **how: Any) -> Store:
    store = open_store(target, **how)
    manifests = {n: s.manifest for n, s in store.sources.items() if isinstance(s, SelfChecking)}
    warn_of_damaged(store.name, manifests)
    return store


def _shapings(chosen: Mapping[str, AnySource], spaces: Mapping[str, Space]) -> dict[str, Shaping]:
    """What makes batches of sources those of the spaces that are wanted."""
    made = {}
    for name, space in spaces.items():
        if name not in chosen:
            raise SourceNameError(f"spaces of {name!r}: the sources are {', '.join(chosen)}")
        layout = chosen[name].layout
        if isinstance(layout, Layout):
            made[name] = Shaping(name, layout.row_shape, layout.dtype, space)
            continue
        if layout.n_columns is not None:
            raise MismatchError(f"spaces of {name!r}: ask for sparse rows by batches(ragged=)")
        column = next(iter(layout.columns.values()))
        made[name] = Shaping(name, column.row_shape, column.dtype, space, ragged=True)
    return made


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
