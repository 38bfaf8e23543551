"""Opening an HDF5 file by h5py: only to look, disturbing nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import h5py

from epochal.errors import FormatError
from epochal.stores.descriptor import Descriptor, Stamp, changed
from epochal.stores.file import File
from epochal.stores.remote_hdf5 import SeekableFile

__all__ = ["BROKEN", "check_unchanged", "load_plugins", "open_far", "open_quietly", "opened"]

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

# What writers note of how a file was cut into several, beside its superblock.
HEAD_BYTES = 1024
DRIVERS = {
    b"NCSAfami": (
        "a part of what HDF5's family driver put in several files, which is not read in parts. "
        "Make it one file: h5repart -family_to_sec2 NAME%d.h5 WHOLE.h5"
    ),
    b"NCSAmult": (
        "the metadata of what HDF5's split or multi driver put in several files, which is not read "
        'in parts. Make it one file, by way of h5py.File(NAME, driver="split")'
    ),
}


def check_unchanged(file: File) -> None:
    """Raise `ChangedError` where a file is not what it was: a local one by what is at its path now,
    for that is what libhdf5 opens. Others tell when they are read.
    """
    if not isinstance(file, Descriptor):
        file.checked()
        return
    now = Stamp.at(file.path)
    if now != file.stamp:
        raise changed(file.path, file.stamp, now)


@contextmanager
def opened(file: File) -> Iterator[Any]:
    """The `h5py.File` of a file. What went wrong with reading it is raised as it is, and not as
    what libhdf5 makes of it.
    """
    if isinstance(file, Descriptor):
        with open_quietly(file.path) as found:
            yield found
        return
    far = SeekableFile(file)
    try:
        with open_far(far, file.name) as found:
            yield found
    finally:
        far.check()


def open_far(far: SeekableFile, name: str) -> Any:
    """The `h5py.File` that is read through an object of Python's."""
    try:
        return h5py.File(far, "r")
    except BROKEN as error:
        far.check()
        far.seek(0)
        text = " ".join(str(error).split())
        why = _meaning(text, far.read(HEAD_BYTES))
        raise FormatError(f"{name}: {why} (libhdf5: {text})") from error


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
        why = _meaning(text, _head(path))
        raise FormatError(f"{path}: {why} (libhdf5: {text})") from error
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


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _meaning(text: str, head: bytes) -> str:
    for mark, why in DRIVERS.items():
        if mark in head:
            return why
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
