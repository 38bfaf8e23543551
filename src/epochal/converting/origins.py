"""Where the rows that are written come from: a dataset in some order, or an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.converting.inputs import Input
from epochal.dataset import Dataset
from epochal.errors import MismatchError, SourceNameError
from epochal.ragged import check_form
from epochal.stores.mapped import unmapped
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.view import RaggedView

__all__ = ["FromDataset", "FromInput", "Origin", "Rows", "length"]

Rows = Mapping[str, NDArray[Any]]


class Origin(Protocol):
    """Where rows come from."""

    @property
    def sources(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of a row and dtype, by name."""
        ...

    @property
    def rows(self) -> int | None:
        """How many; None where only reading tells."""
        ...

    @property
    def row_bytes(self) -> int:
        """Of a row of all sources as it is held, before transforms."""
        ...

    @property
    def transforms(self) -> Mapping[str, Any]:
        """States of the transforms that rows went through, by source."""
        ...

    @property
    def attrs(self) -> Mapping[str, Any]:
        """What is kept besides, such as the names of labels."""
        ...

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """All rows from `first` on, `n_rows` at a time but for the last."""
        ...


class FromDataset:
    """Rows of a dataset in the order of a scheme."""

    def __init__(self, ds: Dataset, scheme: str, seed: int | None, **how: Any) -> None:
        if not ds.sources:
            raise SourceNameError(f"{ds.store.name} holds no source: see epochal info")
        self.sources: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self._longest: dict[str, int] = {}  # items of the longest row, of sources that are padded
        for name, view in ds.sources.items():
            if not isinstance(view, RaggedView):
                self.sources[name] = view.shape[1:], view.dtype
                continue
            form = how.get("ragged")
            if form not in ("dense", "padded"):
                raise MismatchError(
                    f"source {name!r} of {ds.store.name} has rows of varying length, which are "
                    "written as rows of one length: give ragged='dense' (--ragged dense) where "
                    "they are sparse, 'padded' where they are sequences, or choose others with "
                    "sources= (--sources)"
                )
            check_form(form, sparse=view.layout.n_columns is not None, name=name)
            if form == "dense":
                self.sources[name] = view.shape[1:], view.dtype
                continue
            column = next(iter(view.layout.columns.values()))
            self._longest[name] = max(int(view.lengths.max(initial=0)), 1)
            self.sources[name] = (self._longest[name], *column.row_shape), view.dtype
            self.sources[f"{name}_lengths"] = (), np.dtype("i8")
        self.rows: int | None = len(ds)
        self.row_bytes = sum(_row_bytes(each) for each in ds.stored.values())
        self.attrs: Mapping[str, Any] = {}
        self.transforms: Mapping[str, Any] = ds.transforms
        self._ds, self._scheme, self._seed, self._how = ds, scheme, seed, how

    @property
    def dataset(self) -> Dataset:
        """What is read."""
        return self._ds

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """See `Origin`."""
        batches = self._ds.batches(self._scheme, n_rows, seed=self._seed, **self._how)
        batches.load_state_dict({**batches.state_dict(), "row": first})
        for batch in batches:
            rows: dict[str, NDArray[Any]] = {}
            for name, found in zip(self._ds.sources, batch, strict=True):
                if name in self._longest:
                    values, rows[f"{name}_lengths"] = found
                    wide = np.zeros((len(values), *self.sources[name][0]), values.dtype)
                    wide[:, : values.shape[1]] = values
                    rows[name] = wide
                else:
                    rows[name] = found
            yield {name: rows[name] for name in self.sources}


class FromInput:
    """Rows of something that is no store, in its own order."""

    def __init__(self, given: Input) -> None:
        self.sources = {
            name: (source.row_shape, source.dtype) for name, source in given.sources.items()
        }
        self.rows, self.attrs = given.rows, given.attrs
        self.row_bytes = sum(prod(shape) * dtype.itemsize for shape, dtype in self.sources.values())
        self.transforms: Mapping[str, Any] = {}
        self._given = given

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """See `Origin`: blocks of any size are cut anew, so that a run that goes on cuts alike."""
        kept: list[Rows] = []
        n_kept = 0
        for block in self._given.blocks(first):
            kept.append(block)
            n_kept += length(block)
            if n_kept >= n_rows:
                whole = {n: np.concatenate([each[n] for each in kept]) for n in self.sources}
                whole_rows = n_kept - n_kept % n_rows
                for at in range(0, whole_rows, n_rows):
                    yield {n: rows[at : at + n_rows] for n, rows in whole.items()}
                kept = [{n: rows[whole_rows:].copy() for n, rows in whole.items()}]
                n_kept -= whole_rows
        if n_kept:
            yield {n: np.concatenate([each[n] for each in kept]) for n in self.sources}


def _row_bytes(source: AnySource) -> int:
    """Of a row as it is stored, whatever functions it goes through; of any length, none."""
    stored, _ = unmapped(source)
    return 0 if isinstance(stored, RaggedSource) else int(stored.layout.row_bytes)


def length(block: Rows) -> int:
    """How many rows a block has."""
    return len(next(iter(block.values())))
