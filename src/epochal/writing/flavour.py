"""How an HDF5 file is marked: plain, or with what PyTables wants and others do not look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from epochal.errors import MismatchError
from epochal.writing import pytables
from epochal.writing.spec import SourceSpec

__all__ = ["Flavour"]


@dataclass(frozen=True)
class Flavour:
    """How datasets are made and marked: plain, or as PyTables marks its own."""

    name: str = "hdf5"

    def is_fixed(self, spec: SourceSpec, rows: int | None) -> bool:
        """Whether so many rows are also the most there may ever be: those of a CArray."""
        return self.name == "pytables" and bool(rows) and spec.dtype.names is None

    def check(self, spec: SourceSpec) -> None:
        """Refuse what this flavour has no form for, before a file is made."""
        if spec.dtype.kind == "U":
            raise MismatchError(
                f"source {spec.name!r}: HDF5 has no strings of 4-byte characters ({spec.dtype}); "
                "give their UTF-8 bytes: np.char.encode(rows, 'utf-8'), dtype 'S...'"
            )
        if self.name == "pytables":
            pytables.check(spec)

    def file_type(self, spec: SourceSpec) -> Any:
        """The type of items in the file."""
        if self.name == "pytables":
            return pytables.file_type(spec.dtype)
        if spec.dtype.kind in "mM":
            return h5py.h5t.py_create(h5py.opaque_dtype(spec.dtype), logical=True)
        return h5py.h5t.py_create(spec.dtype, logical=True)

    def mark_file(self, file: Any) -> None:
        """Attributes of the root and the groups of a new file."""
        if self.name == "pytables":
            pytables.set_attributes(file, pytables.root_attributes())
            for group in groups_in(file):
                pytables.set_attributes(group, pytables.group_attributes())

    def mark_source(self, dataset: Any, spec: SourceSpec, *, fixed: bool) -> None:
        """Attributes of a new dataset."""
        if self.name == "pytables":
            facts = pytables.source_attributes(spec, dataset.shape[0], fixed=fixed)
            pytables.set_attributes(dataset, facts)

    def mark_rows(self, dataset: Any) -> None:
        """What a dataset says of the rows that it has got: that of a Table."""
        if self.name == "pytables" and "NROWS" in dataset.attrs:
            pytables.set_attributes(dataset, {"NROWS": np.int64(dataset.shape[0])})

    def set_attributes(self, file: Any, attrs: Mapping[str, Any]) -> None:
        """The user's own attributes, on the root."""
        for name, value in attrs.items():
            try:
                file.attrs[name] = value
            except (TypeError, ValueError) as error:
                raise MismatchError(
                    f"attrs: {name!r} of {type(value).__name__} cannot be an attribute: {error}. "
                    "Give strings, numbers or small arrays of them"
                ) from error


def groups_in(group: Any) -> Iterator[Any]:
    """The groups in a group, at any depth."""
    for each in group.values():
        if isinstance(each, h5py.Group):
            yield each
            yield from groups_in(each)
