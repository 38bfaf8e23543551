"""Which store opens a file: decided by what is in it, never by its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from epochal.errors import FileMissingError, FormatError
from epochal.stores.descriptor import open_for_reading
from epochal.stores.store import Store

__all__ = ["FORMATS", "Format", "open_store"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# What other formats begin with, so that an error can name them.
KNOWN = {
    b"PK\x03\x04": "a zip archive (.npz, .zip)",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"MATLAB 5.0": "a MATLAB file of version 5 (save it with -v7.3 to get HDF5)",
    b"CDF": "a netCDF 3 file (nccopy -k nc4 makes it HDF5)",
    b"\x0e\x03\x13\x01": "an HDF4 file (h4toh5 makes it HDF5)",
    b"\x1f\x8b": "compressed with gzip (gunzip it first)",
    b"PAR1": "a Parquet file",
    b"SIMPLE  =": "a FITS file",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (git lfs pull gets it)",
}


@dataclass(frozen=True)
class Format:
    """One row of the table: `matches` looks at a descriptor, `opener` is ``"module:callable"``."""

    name: str
    matches: Callable[[int, int], bool]
    opener: str


def _is_hdf5(fd: int, size: int) -> bool:
    """The signature lies at 0, 512, 1024, 2048, ...: a user block may come before it."""
    at = 0
    while at < size:
        if os.pread(fd, len(HDF5_MAGIC), at) == HDF5_MAGIC:
            return True
        at = at * 2 or 512
    return False


FORMATS = (
    Format("hdf5", _is_hdf5, "epochal.stores.hdf5:HDF5Store"),
    Format(
        "h5py", lambda fd, size: False, "epochal.stores.hdf5:LibraryStore"
    ),  # only when asked for
)


def open_store(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    allow: Collection[str] = (),
    untrusted: bool = False,
) -> Store:
    """Open the file at `path` with the store that its content asks for.

    Parameters
    ----------
    path
        A file.
    backend
        ``"auto"``, or the name of a format: ``"hdf5"``; ``"h5py"`` reads HDF5 through the h5py
        library alone, slowly.
    allow
        What is refused otherwise: ``"virtual"`` datasets (which read other files), ``"library"``
        (decoding by libhdf5 when the file is untrusted).
    untrusted
        Index the file in a child process, so that a crash of the library is an error instead.

    Raises
    ------
    FileMissingError
        Nothing is at `path`.
    FormatError
        No store can read it.
    """
    path = os.fspath(path)
    names = {each.name: each for each in FORMATS}
    if backend != "auto" and backend not in names:
        raise FormatError(f"backend={backend!r} is not one of: auto, {', '.join(names)}")
    found = _sniff(path)
    chosen = names.get(backend, found)
    opener = _load(chosen.opener)
    return opener(path, allow=allow, untrusted=untrusted)


def _load(opener: str) -> Callable[..., Store]:
    """A store's module is imported when the first file asks for it: each brings a library along."""
    module, name = opener.split(":")
    return cast(Callable[..., Store], getattr(import_module(module), name))


def _sniff(path: str) -> Format:
    fd = _open(path)
    try:
        status = os.fstat(fd)
        _refuse_no_file(path, status)
        for each in FORMATS:
            if each.matches(fd, status.st_size):
                return each
        head = os.pread(fd, 64, 0)
    except OSError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    raise FormatError(f"{path}: not an HDF5 file: {_looks_like(head)}")


def _open(path: str) -> int:
    try:
        return open_for_reading(path)
    except FileMissingError:
        raise FileMissingError(_missing(path)) from None


def _missing(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return f"{path}: there is no such file, and its folder cannot be listed either"
    close = get_close_matches(name, beside, n=1)
    return f"{path}: there is no such file" + (f"; did you mean {close[0]!r}?" if close else "")


def _refuse_no_file(path: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FormatError(f"{path}: asked for a file, found a directory; name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(
            f"{path}: asked for a file, found a device, pipe or socket: it must be possible to seek"
        )
    if status.st_size == 0:
        raise FormatError(
            f"{path}: the file is empty (0 bytes); was its writer or its download stopped?"
        )


def _looks_like(head: bytes) -> str:
    for magic, what in KNOWN.items():
        if head.startswith(magic):
            return f"it looks like {what}"
    return (
        f"it begins with {head[:8]!r} and has no HDF5 signature at 0, 512, 1024, ...; "
        "cut off at its beginning, or of another format?"
    )
