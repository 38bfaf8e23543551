"""HDF5 types: which are NumPy's byte for byte, so that what is stored is what is read."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from epochal.stores.hdf5_chunks import Refused
from epochal.stores.strings import Padding

__all__ = ["fixed_dtype", "paddings_of"]

MAX_ITEM_BYTES = 1 << 24
MAX_PADDINGS = 1024


def fixed_dtype(dataset: Any) -> np.dtype:
    """The type of the items, if they are of fixed size and NumPy has it; else `Refused`."""
    try:
        dtype: np.dtype = dataset.dtype
    except (TypeError, ValueError) as error:
        raise Refused(f"its type has no equivalent in NumPy: {error}") from error
    if dtype.hasobject:
        raise Refused(f"its items are not of fixed size: {_object_kind(dtype)}")
    if not 0 < dtype.itemsize <= MAX_ITEM_BYTES:
        raise Refused(f"its items have {dtype.itemsize} bytes each")
    return dtype


def _object_kind(dtype: np.dtype) -> str:
    if h5py.check_string_dtype(dtype) is not None:
        return "variable-length strings"
    if h5py.check_vlen_dtype(dtype) is not None:
        return f"variable-length arrays of {h5py.check_vlen_dtype(dtype)}"
    if h5py.check_ref_dtype(dtype) is not None:
        return "references"
    return "a compound or array with variable-length members or references"


def paddings_of(dataset: Any, dtype: np.dtype) -> tuple[Padding, ...] | None:
    """The strings in an item that are padded in another way than NumPy's.

    None where stored bytes are not NumPy's otherwise: there libhdf5 converts, and raw bytes would
    be silently wrong.
    """
    found: list[Padding] = []
    return tuple(found) if _same(dataset.get_type(), dtype, 0, found) else None


def _same(stored: Any, dtype: np.dtype, offset: int, found: list[Padding]) -> bool:
    """Whether a stored type is `dtype` but for the padding of strings, which goes to `found`."""
    if stored.equal(h5py.h5t.py_create(dtype, logical=True)):
        return True
    kind = stored.get_class()
    if stored.get_size() != dtype.itemsize or len(found) > MAX_PADDINGS:
        return False
    if kind == h5py.h5t.BITFIELD:
        return dtype == np.uint8
    if kind == h5py.h5t.STRING and dtype.kind == "S":
        found.append(Padding(offset, dtype.itemsize, stored.get_strpad() == h5py.h5t.STR_SPACEPAD))
        return True
    if kind == h5py.h5t.ARRAY and dtype.subdtype is not None:
        base, step = dtype.base, dtype.base.itemsize
        places = range(offset, offset + dtype.itemsize, step)
        return all(_same(stored.get_super(), base, place, found) for place in places)
    if kind == h5py.h5t.COMPOUND and dtype.names is not None:
        return _same_members(stored, dtype, offset, found)
    return False


def _same_members(stored: Any, dtype: np.dtype, offset: int, found: list[Padding]) -> bool:
    assert dtype.names is not None
    assert dtype.fields is not None
    if stored.get_nmembers() != len(dtype.names):
        return False
    for i, name in enumerate(dtype.names):
        member, place = dtype.fields[name][:2]
        if stored.get_member_offset(i) != place:
            return False
        if not _same(stored.get_member_type(i), member, offset + place, found):
            return False
    return True
