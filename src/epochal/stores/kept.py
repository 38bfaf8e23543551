"""What files keep besides their sources: the fitted transform that made their rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError
from epochal.stores.manifest import crc32
from epochal.stores.store import KEPT_SUM, TRANSFORMS

__all__ = ["ZARR_CHUNK", "kept_in"]

ZARR_CHUNK = "c.0"


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
        return _of_zarr(beside) if beside.is_dir() else _of_file(beside)
    if not h5py.is_hdf5(place):
        return None
    with h5py.File(place, "r") as file:
        found: Any = file.get(name)
        if not isinstance(found, h5py.Dataset) or found.dtype != np.uint8 or found.ndim != 1:
            return None
        data: NDArray[np.uint8] = found[:]
        return _checked(data, found.attrs.get(KEPT_SUM), f"{place}: {name}")


def _of_file(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _of_zarr(folder: Path) -> bytes:
    try:
        noted = json.loads((folder / "zarr.json").read_text())["attributes"][KEPT_SUM]
        data = np.frombuffer((folder / ZARR_CHUNK).read_bytes(), np.uint8)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{folder} is damaged: {error}") from error
    return _checked(data, noted, str(folder))


def _checked(data: NDArray[np.uint8], noted: Any, what: str) -> bytes:
    if noted is not None and int(noted) != crc32(data):
        raise DamageError(f"{what} is damaged: restore the file from a copy")
    return data.tobytes()
