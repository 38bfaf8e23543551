"""Files as Pylearn2's `HDF5Dataset`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.random import RandomState

from epochal.dataset import Dataset
from epochal.datasets.examples import RowFormat
from epochal.datasets.iteration import DatasetIterator, rng_of
from epochal.datasets.pytables import DenseDesignMatrixPyTables
from epochal.datasets.through_tables import TablesStore
from epochal.errors import MismatchError, SourceNameError
from epochal.execute.probe import Measured
from epochal.opening import open_dataset
from epochal.spaces import (
    CompositeSpace,
    Conv2DSpace,
    IndexSequenceSpace,
    IndexSpace,
    Space,
    VectorSequenceSpace,
    VectorSpace,
)
from epochal.view import RaggedView, SourceView

__all__ = ["HDF5Dataset"]


class HDF5Dataset:
    """Sources of a file, each in a space. Any file that `epochal.open` reads.

    Parameters
    ----------
    filename
        The file; nothing is ever written to it.
    sources
        Names of datasets in it.
    spaces
        Of each source, what its rows are.
    aliases
        Another name of each source, or None; e.g. ``["features", "targets"]``.
    load_all
        Read everything into memory now.
    cache_size
        Taken for the sake of old code: libhdf5's chunk cache is not used.
    use_h5py
        ``"auto"`` reads outside of libhdf5; True through h5py; False through PyTables itself, and
        only a file in which no pickle was found.
    X, topo_view, y
        The old form, instead of `sources` and `spaces`: names of a design matrix or of images, and
        of targets; gives a `DenseDesignMatrixPyTables`, whose further arguments are taken too.

    Raises
    ------
    FileMissingError, FormatError, UnsafeError
        See `epochal.open`.
    SourceNameError
        The file has no such source.
    MismatchError
        Arguments that do not go together; spaces that do not fit their sources, with the sizes.
    """

    def __new__(
        cls,
        filename: str | os.PathLike[str],
        sources: Any = None,
        spaces: Any = None,
        aliases: Any = None,
        load_all: bool = False,
        cache_size: int | None = None,
        use_h5py: bool | str = "auto",
        X: str | None = None,
        topo_view: str | None = None,
        y: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The dataset; in the old form one of another class."""
        if X is None and topo_view is None and y is None:
            return super().__new__(cls)
        if sources is not None or spaces is not None or aliases is not None:
            raise MismatchError("give sources and spaces, or X, topo_view and y: one of both forms")
        return _old_form(
            filename, {"X": X, "topo_view": topo_view, "y": y}, load_all, use_h5py, kwargs
        )

    def __init__(
        self,
        filename: str | os.PathLike[str],
        sources: Sequence[str] | None = None,
        spaces: Sequence[Space] | None = None,
        aliases: Sequence[str | None] | None = None,
        load_all: bool = False,
        cache_size: int | None = None,
        use_h5py: bool | str = "auto",
    ) -> None:
        names = _names(sources, "sources")
        given = _spaces(spaces, names)
        self._aliases = _aliases(aliases, names)
        self._names = [alias or name for name, alias in zip(names, self._aliases, strict=True)]
        self.load_all = load_all
        self._dataset = _opened(filename, names, use_h5py)
        try:
            for name, space in zip(names, given, strict=True):
                _check_fits(name, self._dataset[name], space)
            if load_all:
                self._dataset = _loaded(self._dataset)
        except BaseException:
            self._dataset.close()
            raise
        # Under both names, each.
        self._source = dict(zip(names, names, strict=True)) | dict(
            zip(self._names, names, strict=True)
        )
        self.spaces = {n: given[names.index(source)] for n, source in self._source.items()}
        self.rng: RandomState = rng_of(None)
        self._measured = Measured()  # of this machine, once for all iterators

    def _known(self, name: Any) -> str:
        if name not in self._source:
            raise SourceNameError(
                f"no source {name!r} in {self._dataset.store.name}: there are "
                f"{', '.join(map(repr, self._source))}"
            )
        return self._source[name]

    @property
    def data(self) -> dict[str, SourceView | RaggedView]:
        """Views of the sources, under their names and aliases."""
        return {name: self._dataset[source] for name, source in self._source.items()}

    def get_data(self) -> tuple[SourceView | RaggedView, ...]:
        """A view of each source."""
        return tuple(self.data[name] for name in self._names)

    def get_num_examples(self, source_or_alias: str | None = None) -> int:
        """Examples of the file."""
        name = self._names[0] if source_or_alias is None else source_or_alias
        return len(self._dataset[self._known(name)])

    def __len__(self) -> int:
        return self.get_num_examples()

    def get_data_specs(self, source_or_alias: Any = None) -> tuple[Space, Any]:
        """Space and source: of a name; of a list of them as a `CompositeSpace`; of all by default,
        by their aliases where they have some.
        """
        if source_or_alias is None:
            names = tuple(self._names)
            source_or_alias = names if len(names) > 1 else names[0]
        if isinstance(source_or_alias, str):
            return self.spaces[self._checked(source_or_alias)], source_or_alias
        names = tuple(map(self._checked, source_or_alias))
        return CompositeSpace([self.spaces[name] for name in names]), names

    def _checked(self, name: str) -> str:
        self._known(name)
        return name

    def get(self, sources: Sequence[str], indexes: Any) -> tuple[Any, ...]:
        """Examples by number of each source: an int, a slice, or a list in any order, with repeats.

        Decodes each chunk that holds some once.
        """
        if isinstance(sources, str) or not sources:
            raise MismatchError(f"sources={sources!r}: give a tuple of names")
        wanted = list(indexes) if isinstance(indexes, tuple) else indexes
        return tuple(self._dataset[self._known(name)][wanted] for name in sources)

    def iterator(
        self,
        mode: str | None = None,
        batch_size: int | None = None,
        num_batches: int | None = None,
        rng: Any = None,
        data_specs: tuple[Space, Any] | None = None,
        return_tuple: bool = False,
        **how: Any,
    ) -> DatasetIterator:
        """Batches of one epoch, as `DenseDesignMatrix.iterator`; by default sequential, of all
        sources in their spaces.
        """
        named = {name: self._dataset.stored[source] for name, source in self._source.items()}
        return DatasetIterator(
            Dataset(self._dataset.store, named, measured=self._measured),
            {name: RowFormat(space) for name, space in self.spaces.items()},
            mode=mode,
            batch_size=batch_size,
            num_batches=num_batches,
            rng=rng,
            own_rng=self.rng,
            data_specs=data_specs or self.get_data_specs(),
            return_tuple=return_tuple,
            **how,
        )

    def close(self) -> None:
        """Let go of the file."""
        self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _opened(filename: Any, names: list[str], use_h5py: bool | str) -> Dataset:
    if use_h5py == "auto":
        return open_dataset(filename, sources=names)
    if not isinstance(use_h5py, bool):
        raise MismatchError(f"use_h5py={use_h5py!r} is not one of: True, False, 'auto'")
    if use_h5py:
        return open_dataset(filename, sources=names, backend="h5py")
    store = TablesStore(filename, names)
    return Dataset(store, {name: store.sources[name] for name in names})


def _loaded(dataset: Dataset) -> Dataset:
    """The same in memory; the file is let go of."""
    loaded = dataset.loaded()
    dataset.close()
    return loaded


def _names(names: Any, what: str) -> list[str]:
    good = isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
    if not good:
        raise MismatchError(f"{what}={names!r}: give a list of names")
    if len(set(names)) < len(names):
        raise MismatchError(f"{what}={names!r}: each once")
    return list(names)


def _spaces(spaces: Any, names: list[str]) -> list[Space]:
    good = isinstance(spaces, list | tuple) and all(isinstance(each, Space) for each in spaces)
    if not good or len(spaces) != len(names):
        raise MismatchError(f"spaces={spaces!r}: give a list of {len(names)} spaces, one a source")
    return list(spaces)


def _aliases(aliases: Any, names: list[str]) -> list[str | None]:
    if aliases is None:
        return [None] * len(names)
    good = isinstance(aliases, list | tuple) and len(aliases) == len(names)
    if not good or not all(each is None or isinstance(each, str) for each in aliases):
        raise MismatchError(f"aliases={aliases!r}: give {len(names)}, a name or None each")
    used = [*names, *(alias for alias in aliases if alias is not None)]
    for alias in aliases:
        if alias is not None and used.count(alias) > 1:
            raise MismatchError(f"alias {alias!r} is used twice, as an alias or as a source's name")
    return list(aliases)


def _check_fits(name: str, view: SourceView | RaggedView, space: Space) -> None:
    """Refuse a space that rows of a source are none of."""
    ragged = isinstance(space, VectorSequenceSpace | IndexSequenceSpace)
    if isinstance(view, RaggedView):
        columns = list(view.layout.columns.values())
        if not ragged or len(columns) != 1:
            raise _no_fit(name, f"rows of varying length, {view.dtype}", space)
        shape, dtype = columns[0].shape[1:], columns[0].dtype
        space = space.item_space if ragged else space  # type: ignore[attr-defined]
    elif ragged:
        raise _no_fit(name, f"rows of one length, {view.shape[1:]}", space)
    else:
        shape, dtype = view.shape[1:], view.dtype
    if isinstance(space, Conv2DSpace) and space.axes[0] != "b":
        raise _no_fit(name, f"its examples first, {shape}", space)
    if not isinstance(space, VectorSpace | Conv2DSpace | IndexSpace):
        raise _no_fit(name, f"rows of shape {shape}", space)
    try:
        space.np_validate(np.empty((0, *shape), dtype))
    except MismatchError:
        raise _no_fit(name, f"rows of shape {shape}, {dtype}", space) from None


def _no_fit(name: str, found: str, space: Space) -> MismatchError:
    dim = space.get_total_dimension()
    return MismatchError(f"source {name!r} has {found}: not those of {space}, {dim} numbers each")


def _old_form(
    filename: Any,
    named: dict[str, str | None],
    load_all: bool,
    use_h5py: bool | str,
    kwargs: dict[str, Any],
) -> DenseDesignMatrixPyTables:
    """Views of a design matrix, or of images, and targets, which can be changed in this process."""
    given = {key: _names([name], key)[0] for key, name in named.items() if name is not None}
    dataset = _opened(filename, list(given.values()), use_h5py)
    try:
        if load_all:
            dataset = _loaded(dataset)
        views = {key: dataset[name] for key, name in given.items()}
        made = DenseDesignMatrixPyTables(**{**kwargs, **views})
    except BaseException:
        dataset.close()
        raise
    made.owns(dataset)
    return made
