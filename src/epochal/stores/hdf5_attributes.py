"""What attributes of groups say of the sources in them: plain values only, bounded, nothing is run.

Fuel's ``split`` attribute, an array of records with references, is resolved while the file is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from epochal.stores.hdf5_file import BROKEN

__all__ = ["attributes_of_groups"]

MAX_BYTES = 64 << 10
MAX_ATTRIBUTES = 1000
MAX_GROUPS = 10_000
MAX_SPLIT_ROWS = 1 << 31
AXES = (b"DIMENSION_LABELS", b"DIMENSION_LIST")
FUEL_FIELDS = ("split", "source", "start", "stop", "indices", "available")


def attributes_of_groups(file: Any, sources: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Attributes of the root and of the groups that hold `sources`, by the group's path; of a
    source itself the names of its axes (``dimension_names``), where it has any.

    Numbers, text and small arrays of numbers; whatever else an attribute is, it is left out.
    """
    sources = list(sources)
    names = dict.fromkeys(["", *(name.rpartition("/")[0] for name in sources)])
    found: dict[str, dict[str, Any]] = {}
    for name in list(names)[:MAX_GROUPS]:
        try:
            group = file[name or "/"]
            plain = _plain(group) if h5py.h5a.get_num_attrs(group.id) else {}
        except BROKEN:
            continue
        if plain:
            found[name] = plain
    for source in sources[:MAX_GROUPS]:
        axes = _axes(file, source)
        if axes:
            found.setdefault(source, {})["dimension_names"] = axes
    splits = _fuel_splits(file)
    if splits:
        found.setdefault("", {})["split"] = splits
    return found


def _axes(file: Any, source: str) -> list[str]:
    """Labels of a dataset's axes, or the names of the dimension scales attached to them."""
    try:
        dataset = file[source]
        if not any(h5py.h5a.exists(dataset.id, name) for name in AXES):
            return []
        labels = [
            axis.label or (axis[0].name.rpartition("/")[2] if len(axis) else "")
            for axis in dataset.dims
        ]
    except BROKEN:
        return []
    return labels if any(labels) else []


def _plain(group: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in list(group.attrs)[:MAX_ATTRIBUTES]:
        try:
            attribute = h5py.h5a.open(group.id, name.encode("utf-8", "surrogateescape"))
            if attribute.get_storage_size() > MAX_BYTES:
                continue
            value = _value(group.attrs[name])
        except BROKEN:
            continue
        if value is not None:
            values[name] = value
    return values


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
    """``{split: {source: (start, stop, rows or None)}}`` of Fuel's H5PYDataset; empty where it is
    none.
    """
    try:
        records = file.attrs.get("split")
    except BROKEN:
        return {}
    names = getattr(getattr(records, "dtype", None), "names", None) or ()
    if any(field not in names for field in FUEL_FIELDS):
        return {}
    splits: dict[str, dict[str, Any]] = {}
    for record in np.atleast_1d(records):
        if record["available"]:
            rows = _referenced(file, record["indices"])
            place = (int(record["start"]), int(record["stop"]), rows)
            splits.setdefault(_text(record["split"]), {})[_text(record["source"])] = place
    return splits


def _referenced(file: Any, reference: Any) -> Any:
    """The row numbers that a record points to, int64; None where it points nowhere."""
    try:
        if not reference:
            return None
        dataset = file[reference]
        if dataset.ndim != 1 or dataset.dtype.kind not in "iu" or len(dataset) > MAX_SPLIT_ROWS:
            return None
        return dataset[...].astype(np.int64)
    except BROKEN:
        return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
