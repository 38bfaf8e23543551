"""What files keep besides their sources: the fitted transform that made their rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.stores.manifest import crc32

__all__ = ["KEPT_SUM", "TRANSFORMS", "kept_in"]

TRANSFORMS = "epochal.transforms"  # a dataset of an HDF5 file, a file in a folder
KEPT_SUM = "crc32"


def kept_in(path: str | os.PathLike[str], name: str = TRANSFORMS) -> bytes | None:
    """What a file or a folder keeps by that name; None where it keeps nothing.

    Raises
    ------
    DamageError
        It is not what was written.
    """
    place = Path(path)
    if place.is_dir():
        beside = place / name
        return beside.read_bytes() if beside.exists() else None
    if not h5py.is_hdf5(place):
        return None
    with h5py.File(place, "r") as file:
        found: Any = file.get(name)
        if not isinstance(found, h5py.Dataset) or found.dtype != np.uint8 or found.ndim != 1:
            return None
        data: NDArray[np.uint8] = found[:]
        if KEPT_SUM in found.attrs and int(found.attrs[KEPT_SUM]) != crc32(data):
            raise DamageError(f"{place}: {name} is damaged: restore the file from a copy")
    return data.tobytes()
