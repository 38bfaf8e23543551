"""Opening an HDF5 file by h5py: only to look, disturbing nobody."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

import h5py

from epochal.errors import FormatError

__all__ = ["BROKEN", "load_plugins", "open_quietly"]

# Whatever a damaged file makes libhdf5 say through h5py.
BROKEN = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
    MemoryError,
)


def open_quietly(path: str) -> Any:
    """The `h5py.File` at `path`, for reading, without a lock that would refuse a writer.

    Raises
    ------
    FormatError
        libhdf5 cannot open it, or this very process writes to it: what it holds in its caches
        cannot be seen in the file.
    """
    try:
        file = _open(path)
    except BROKEN as error:
        text = " ".join(str(error).split())
        raise FormatError(f"{path}: {_meaning(text)} (libhdf5: {text})") from error
    if file.id.get_intent() != h5py.h5f.ACC_RDONLY:
        file.close()
        raise FormatError(
            f"{path}: this process has it open for writing, and "
            "parts of it may not be in the file yet. Close it first"
        )
    return file


def _open(path: str) -> Any:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "flag values don't match" not in str(error):
            raise
        # This process has the file open already, with the default lock, and libhdf5 shares what is
        # open.
        return h5py.File(path, "r")


def _meaning(text: str) -> str:
    if "truncated" in text:
        return "the file is truncated: its writer or its download was stopped. Get it again"
    if "h5clear" in text or "already open" in text:
        return (
            "a program has it open for writing, or died while it had. Close it, or: h5clear -s FILE"
        )
    return "its HDF5 metadata are damaged, or newer than this libhdf5"


def load_plugins() -> None:
    """Register the filters of hdf5plugin, where it is installed."""
    with suppress(ImportError):
        import_module("hdf5plugin")
