"""HDF5 types: which are NumPy's byte for byte, so that what is stored is what is read."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from epochal.stores.hdf5_chunks import Refused
from epochal.stores.strings import Padding

__all__ = ["fixed_dtype", "item_dtype", "known_to_h5py", "paddings_of"]

MAX_ITEM_BYTES = 1 << 24
MAX_PADDINGS = 1024
# As PyTables means them. HDF5 itself does not say what the 64 bits of a time count.
TIMES = (
    (h5py.h5t.UNIX_D32LE, np.dtype("<i4")),
    (h5py.h5t.UNIX_D32BE, np.dtype(">i4")),
    (h5py.h5t.UNIX_D64LE, np.dtype("<f8")),
)
PYTABLES_CLASSES = (b"ARRAY", b"CARRAY", b"EARRAY", b"TABLE", b"VLARRAY")


def fixed_dtype(dataset: Any) -> np.dtype:
    """The type of the items, if they are of fixed size and NumPy has it; else `Refused`."""
    try:
        dtype: np.dtype = dataset.dtype
    except (TypeError, ValueError) as error:
        found = _with_times(dataset.get_type()) if _of_pytables(dataset) else None
        if found is None:
            raise Refused(f"its type has no equivalent in NumPy: {error}") from error
        dtype = found
    if dtype.hasobject:
        raise Refused(f"its items are not of fixed size: {_object_kind(dtype)}")
    if not 0 < dtype.itemsize <= MAX_ITEM_BYTES:
        raise Refused(f"its items have {dtype.itemsize} bytes each")
    return dtype


def _of_pytables(dataset: Any) -> bool:
    """Whether PyTables wrote it, by the attribute that it gives all its nodes."""
    if not h5py.h5a.exists(dataset, b"CLASS"):
        return False
    kind = h5py.Dataset(dataset).attrs["CLASS"]
    return (kind if isinstance(kind, bytes) else str(kind).encode()) in PYTABLES_CLASSES


def _with_times(stored: Any) -> np.dtype | None:
    """The type of items with HDF5's times in them, which h5py does not know: those of PyTables,
    which reads them as int32 and float64. None for other types that NumPy does not have.
    """
    try:
        plain: np.dtype = stored.dtype  # complex numbers are compounds too
        return plain
    except (TypeError, ValueError):
        kind = stored.get_class()
    if kind == h5py.h5t.TIME:
        return next((dtype for time, dtype in TIMES if stored.equal(time)), None)
    if kind == h5py.h5t.ARRAY:
        base = _with_times(stored.get_super())
        return None if base is None else np.dtype((base, stored.get_array_dims()))
    if kind != h5py.h5t.COMPOUND:
        return None
    names, formats, offsets = [], [], []
    for i in range(stored.get_nmembers()):
        member = _with_times(stored.get_member_type(i))
        if member is None or member.hasobject:
            return None
        names.append(stored.get_member_name(i).decode("utf-8", "surrogateescape"))
        formats.append(member)
        offsets.append(stored.get_member_offset(i))
    record: Any = {"names": names, "formats": formats, "offsets": offsets}
    record["itemsize"] = stored.get_size()
    made: np.dtype = np.dtype(record)
    return made


def known_to_h5py(dataset: Any) -> None:
    """Refuse a type that only the raw reader knows, where the library would have to read it."""
    try:
        dataset.dtype  # noqa: B018  it raises
    except (TypeError, ValueError) as error:
        raise Refused(f"its type has no equivalent in NumPy: {error}") from error


def item_dtype(dataset: Any) -> np.dtype:
    """The type of the items of rows of varying length, if they are fixed-size numbers that are
    stored as NumPy has them; else `Refused`.
    """
    stored = dataset.get_type().get_super()
    try:
        dtype: np.dtype = stored.dtype
    except (TypeError, ValueError) as error:
        raise Refused(f"the type of its items has no equivalent in NumPy: {error}") from error
    if dtype.hasobject:
        raise Refused(f"its items are not of fixed size: {_object_kind(dtype)}")
    found: list[Padding] = []
    if not _same(stored, dtype, 0, found) or found:
        raise Refused(f"its rows hold {dtype}, stored in another way than NumPy's")
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
    kind = stored.get_class()
    if kind == h5py.h5t.TIME:
        if dtype.kind == "f":
            found.append(Padding(offset, 8, "timeval"))
        return True
    if stored.equal(h5py.h5t.py_create(dtype, logical=True)):
        return True
    if stored.get_size() != dtype.itemsize or len(found) > MAX_PADDINGS:
        return False
    if kind == h5py.h5t.BITFIELD:
        return dtype == np.uint8
    if kind == h5py.h5t.STRING and dtype.kind == "S":
        spaces = stored.get_strpad() == h5py.h5t.STR_SPACEPAD
        found.append(Padding(offset, dtype.itemsize, "spaces" if spaces else "nul"))
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
