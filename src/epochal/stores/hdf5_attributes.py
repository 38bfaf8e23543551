"""What attributes of groups say of the sources in them: plain values only, bounded, nothing is run.

Fuel's ``split`` attribute, an array of records with references, becomes names and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from epochal.stores.hdf5_file import BROKEN
from epochal.stores.manifest import (
    DAMAGED,
    Manifest,
    is_manifest_attribute,
    manifest_from_attributes,
    names_of_parts,
)

__all__ = ["attributes_of_groups", "axes_of", "manifest_of", "only_a_dimension"]

MAX_BYTES = 64 << 10
MAX_ATTRIBUTES = 1000
FIRST_PARTS = [name.encode() for name in names_of_parts(0)]  # one of them is left of any manifest
MAX_GROUPS = 10_000
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
AXES = (b"DIMENSION_LABELS", b"DIMENSION_LIST")
NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.BITFIELD)
# Text of varying length lies in a heap, at which libhdf5 may hang where it is damaged: of it only
# what says what the sources are, and PyTables' title.
TEXTS = ("encoding-type", "h5sparse_format", "TITLE")
FUEL_FIELDS = ("split", "source", "start", "stop", "indices", "available")


def attributes_of_groups(file: Any, sources: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Attributes of the root and of the groups that hold `sources`, by the group's path.

    Numbers, text and small arrays of numbers; whatever else an attribute is, it is not read, nor is
    text of varying length that nothing here asks for. The
    ``split`` of Fuel's files is ``{split: {source: (start, stop, path of the row numbers)}}``, the
    path empty where the rows are those from `start` to `stop`.
    """
    names = dict.fromkeys(["", *(name.rpartition("/")[0] for name in sources)])
    found: dict[str, dict[str, Any]] = {}
    for name in list(names)[:MAX_GROUPS]:
        try:
            group = h5py.h5o.open(file.id, name.encode("utf-8", "surrogateescape") or b"/")
            plain = _plain(h5py.Group(group)) if h5py.h5a.get_num_attrs(group) else {}
        except BROKEN:
            continue
        if plain:
            found[name] = plain
    try:
        splits = _fuel_splits(file)
    except BROKEN:  # fields of other types than Fuel's
        splits = {}
    if splits:
        found.setdefault("", {})["split"] = splits
    return found


def axes_of(dataset: Any) -> list[str]:
    """Labels of a dataset's axes, or the names of the dimension scales attached to them; empty
    where it has none.
    """
    try:
        if not any(h5py.h5a.exists(dataset, name) for name in AXES):
            return []
        labels = [_axis(axis) for axis in h5py.Dataset(dataset).dims]
    except BROKEN:
        return []
    return labels if any(labels) else []


def _axis(axis: Any) -> str:
    if axis.label or not len(axis):
        return str(axis.label)
    return str(axis[0].name or "").rpartition("/")[2]


def only_a_dimension(dataset: Any) -> bool:
    """Whether this is but a dimension of netCDF's, which has a length and no numbers."""
    try:
        if not h5py.h5a.exists(dataset, b"NAME") or not h5py.h5ds.is_scale(dataset):
            return False
        return bool(h5py.h5ds.get_scale_name(dataset).startswith(NO_VARIABLE))
    except BROKEN:
        return False


def manifest_of(dataset: Any) -> Manifest | None:
    """The checksums that a dataset carries, see `manifest_from_attributes`."""
    try:
        if not any(h5py.h5a.exists(dataset, name) for name in FIRST_PARTS):
            return None
        attributes = h5py.Dataset(dataset).attrs
        names = [name for name in attributes if is_manifest_attribute(name)]
        sizes = [h5py.h5a.open(dataset, n.encode()).get_storage_size() for n in names]
        if max(sizes) > MAX_BYTES:
            return DAMAGED
        return manifest_from_attributes({name: attributes[name] for name in names})
    except BROKEN:
        return DAMAGED


def _plain(group: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in list(group.attrs)[:MAX_ATTRIBUTES]:
        if not isinstance(name, str):  # no UTF-8, so that it says nothing of sources
            continue
        try:
            attribute = h5py.h5a.open(group.id, name.encode("utf-8", "surrogateescape"))
            if attribute.get_storage_size() > MAX_BYTES or not _is_plain(attribute, name):
                continue
            value = _value(group.attrs[name])
        except BROKEN:
            continue
        if value is not None and not (isinstance(value, str) and len(value) > MAX_BYTES):
            values[name] = value
    return values


def _is_plain(attribute: Any, name: str) -> bool:
    """Whether its value may be a plain one, and is read without a heap or by a known name."""
    stored = attribute.get_type()
    if stored.get_class() == h5py.h5t.STRING:
        return name in TEXTS or not stored.is_variable_str()
    if stored.get_class() == h5py.h5t.ARRAY:
        stored = stored.get_super()
    return stored.get_class() in NUMBERS


def _value(value: Any) -> Any:
    """A plain value; None for what is none."""
    if isinstance(value, bytes | np.bytes_):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value.tolist()
    return None


def _fuel_splits(file: Any) -> dict[str, dict[str, Any]]:
    """The parts that are available, by Fuel's H5PYDataset; empty where the file is none."""
    try:
        if not h5py.h5a.exists(file.id, b"split"):
            return {}
        if h5py.h5a.open(file.id, b"split").get_type().get_class() != h5py.h5t.COMPOUND:
            return {}
        records = file.attrs["split"]
    except BROKEN:
        return {}
    names = getattr(getattr(records, "dtype", None), "names", None) or ()
    if any(field not in names for field in FUEL_FIELDS):
        return {}
    splits: dict[str, dict[str, Any]] = {}
    for record in np.atleast_1d(records):
        if record["available"]:
            indices = _referenced(file, record["indices"])
            place = (int(record["start"]), int(record["stop"]), indices)
            splits.setdefault(_text(record["split"]), {})[_text(record["source"])] = place
    return splits


def _referenced(file: Any, reference: Any) -> str:
    """The path of the dataset that a record points to; empty where it points nowhere."""
    if not reference:
        return ""
    try:
        return _text(h5py.h5r.get_name(reference, file.id) or b"?").strip("/")
    except BROKEN:
        return "?"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
