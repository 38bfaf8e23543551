"""What makes an HDF5 file one of PyTables: attributes of its nodes, types of their items, filters.

PyTables tells what a node is by its attributes ("PyTables file format", an appendix of its user's
guide): scalar strings of fixed length, without a terminating zero, and an empty title of no
dataspace. Datasets are *CArrays* where their rows are fixed and *EArrays* where they can grow; rows
that are structures are a *Table*, whose number of rows is an attribute too, and whose structures
are to be packed (`epochal.writing.structures`). Nodes whose names are no identifiers of Python are
read by `get_node` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from epochal.errors import MismatchError
from epochal.writing.spec import SourceSpec

__all__ = [
    "FILTERS",
    "check",
    "file_type",
    "group_attributes",
    "root_attributes",
    "set_attributes",
    "source_attributes",
]

FILTERS = (None, "gzip", "blosc", "blosc2")  # that PyTables brings with it
EMPTY = h5py.Empty("S1")
READABLE = "biufcS"


def check(spec: SourceSpec) -> None:
    """Refuse what PyTables could not read, before a file is made.

    Raises
    ------
    MismatchError
        A compression that it does not bring along, or items that it has no atom for.

    >>> check(SourceSpec("X", (3,), np.dtype("f4"), 10))
    """
    if spec.compression.name not in FILTERS:
        raise MismatchError(
            f"source {spec.name!r}: compression={spec.compression.name!r} is not read by PyTables: "
            "give 'gzip', 'blosc', 'blosc2' or None"
        )
    if spec.dtype.names is not None and spec.row_shape:
        raise MismatchError(
            f"source {spec.name!r}: rows of shape {spec.row_shape} of structures: PyTables has "
            "tables of one structure a row alone: give row shape (), or each field as a source"
        )
    for name, dtype in _items(spec.dtype):
        where = f" (field {name!r})" if name else ""
        if dtype.kind not in READABLE:
            remedy = {
                "M": "give the numbers: rows.astype('int64')",
                "m": "give the numbers: rows.astype('int64')",
                "U": "give their UTF-8 bytes: np.char.encode(rows, 'utf-8'), dtype 'S...'",
            }.get(dtype.kind, "give numbers")
            raise MismatchError(
                f"source {spec.name!r}{where}: {dtype} has no form in PyTables: {remedy}"
            )


def _items(dtype: np.dtype, path: str = "") -> Iterator[tuple[str, np.dtype]]:
    """The fields of a structure that are no structures, in its order, by path; or the dtype."""
    base = dtype.base
    if base.names is None:
        yield path, base
        return
    for name in base.names:
        yield from _items(base[name], f"{path}/{name}" if path else name)


def root_attributes(title: str = "") -> dict[str, Any]:
    """Of the root group of a file."""
    return {**group_attributes(title), "PYTABLES_FORMAT_VERSION": np.bytes_(b"2.1")}


def group_attributes(title: str = "") -> dict[str, Any]:
    """Of a group.

    >>> sorted(group_attributes("training"))
    ['CLASS', 'TITLE', 'VERSION']
    """
    return {"CLASS": np.bytes_(b"GROUP"), "TITLE": _title(title), "VERSION": np.bytes_(b"1.0")}


def _title(title: str) -> Any:
    return np.bytes_(title.encode()) if title else EMPTY


def source_attributes(
    spec: SourceSpec, rows: int, *, fixed: bool, title: str = ""
) -> dict[str, Any]:
    """Of a dataset: a CArray where its rows are `fixed`, else an EArray; of structures a Table.

    A Table's ``NROWS`` is the number of its rows: it is set anew when that has changed.

    >>> source_attributes(SourceSpec("X", (), np.dtype("f4"), 10), 5, fixed=False)["EXTDIM"]
    np.int32(0)
    """
    if spec.dtype.names is not None:
        return _table(spec.dtype, rows, title)
    kind = b"CARRAY" if fixed and rows else b"EARRAY"  # a CArray of no rows is none
    grows = {} if kind == b"CARRAY" else {"EXTDIM": np.int32(0)}
    return {
        "CLASS": np.bytes_(kind),
        **grows,
        "TITLE": _title(title),
        "VERSION": np.bytes_(b"1.1"),
    }


def _table(dtype: np.dtype, rows: int, title: str) -> dict[str, Any]:
    names = dtype.names or ()
    found: dict[str, Any] = {
        "CLASS": np.bytes_(b"TABLE"),
        "TITLE": _title(title),
        "VERSION": np.bytes_(b"2.7"),
        "NROWS": np.int64(rows),
    }
    for number, (_, item) in enumerate(_items(dtype)):
        zero = np.zeros((), item.newbyteorder("="))[()]
        found[f"FIELD_{number}_FILL"] = zero
    for number, name in enumerate(names):
        found[f"FIELD_{number}_NAME"] = np.bytes_(name.encode())
    return found


def file_type(dtype: np.dtype) -> Any:
    """The HDF5 type of items: h5py's own, but truth values as the bit fields that PyTables has.

    >>> file_type(np.dtype("?")).get_class() == h5py.h5t.BITFIELD
    True
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return h5py.h5t.array_create(file_type(base), shape)
    if dtype.names is not None:
        made = h5py.h5t.create(h5py.h5t.COMPOUND, dtype.itemsize)
        for name, (kind, offset, *_) in (dtype.fields or {}).items():
            made.insert(name.encode(), offset, file_type(kind))
        return made
    if dtype.kind == "b":
        return h5py.h5t.STD_B8LE.copy()
    return h5py.h5t.py_create(dtype, logical=True)


def set_attributes(node: Any, attributes: Mapping[str, Any]) -> None:
    """Give a group or a dataset attributes of the very types that PyTables gives them."""
    for name, value in attributes.items():
        if name in node.attrs:
            del node.attrs[name]
        if isinstance(value, h5py.Empty):
            _attribute(node, name, h5py.h5t.C_S1.copy(), None)
        elif isinstance(value, np.bytes_):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(max(len(value), 1))
            _attribute(node, name, kind, np.array(value, f"S{kind.get_size()}"))
        elif isinstance(value, np.bool_):
            _attribute(node, name, file_type(value.dtype), np.array(value, np.uint8))
        else:
            node.attrs[name] = value


def _attribute(node: Any, name: str, kind: Any, data: Any) -> None:
    space = h5py.h5s.create(h5py.h5s.NULL if data is None else h5py.h5s.SCALAR)
    made = h5py.h5a.create(node.id, name.encode(), kind, space)
    if data is not None:
        made.write(data, mtype=kind)
