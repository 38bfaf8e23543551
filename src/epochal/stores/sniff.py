"""Which store opens a file: decided by what is in it, never by its name."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from glob import glob
from importlib import import_module
from typing import Any, cast
from urllib.parse import unquote

from epochal.errors import EpochalError, FileMissingError, FormatError, UnsafeError
from epochal.stores.decoded import with_decoded_sums
from epochal.stores.descriptor import Descriptor, Stamp, open_for_reading
from epochal.stores.file import File, Tree
from epochal.stores.folder import LocalTree
from epochal.stores.sparse import assemble
from epochal.stores.store import Other, Store

__all__ = [
    "FORMATS",
    "TREE_FORMATS",
    "URL",
    "Format",
    "TreeFormat",
    "matching",
    "natural",
    "open_store",
    "register",
]

ALLOWED = ("virtual", "library")
ZARR_MARKS = {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}
# A scheme, maybe a chain of them: s3://, simplecache::s3://
URL = re.compile(r"[A-Za-z][\w.+-]*(://|::.*://)")
NUMBER = re.compile(r"(\d+)")
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
NPY_MAGIC = b"\x93NUMPY"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# What other formats begin with, so that an error can name them.
KNOWN = {
    b"PK\x03\x04": "a zip archive without arrays",
    b"PK\x05\x06": "an empty zip archive",
    b"MATLAB 5.0": "a MATLAB file of version 5 (epochal convert makes it HDF5)",
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
    """One row of the table: `matches` looks into a file, `opener` is a callable or
    ``"module:callable"`` and gets it, with ``allow=`` and ``untrusted=``.
    """

    name: str
    matches: Callable[[File], bool]
    opener: str | Callable[..., Store]


@dataclass(frozen=True)
class TreeFormat:
    """The same of formats that are folders of files; `marks` are keys, one of which is there."""

    name: str
    marks: tuple[str, ...]
    opener: str


def _head(file: File, n_bytes: int, offset: int = 0) -> bytes:
    buffer = bytearray(n_bytes)
    return bytes(buffer[: file.checked()([memoryview(buffer)], offset)])


def _is_hdf5(file: File) -> bool:
    """The signature lies at 0, 512, 1024, 2048, ...: a user block may come before it. What begins
    as a file of another format is not searched: far away each look may cost a request.
    """
    if _head(file, 6).startswith((NPY_MAGIC, *ZIP_MAGIC)):
        return False
    at = 0
    while at < file.size_bytes:
        if _head(file, len(HDF5_MAGIC), at) == HDF5_MAGIC:
            return True
        at = at * 2 or 512
    return False


def _never(file: File) -> bool:
    """Only when asked for by name."""
    return False


def _is_npy(file: File) -> bool:
    return _head(file, 6) == NPY_MAGIC


def _holds_zarr(file: File) -> bool:
    """A zip archive with metadata of Zarr at its root."""
    return not ZARR_MARKS.isdisjoint(_members(file))


def _is_npz(file: File) -> bool:
    """A zip archive that holds an array."""
    return any(name.endswith(".npy") for name in _members(file))


def _members(file: File) -> Collection[str]:
    if _head(file, 4) not in ZIP_MAGIC:
        return ()
    found: dict[str, Any] = _load("epochal.stores.archive:members")(file)
    return found.keys()


FORMATS = [
    Format("hdf5", _is_hdf5, "epochal.stores.hdf5:HDF5Store"),
    Format("npy", _is_npy, "epochal.stores.npy:NpyStore"),
    Format("zarr-zip", _holds_zarr, "epochal.stores.zarr_store:ZarrZipStore"),
    Format("npz", _is_npz, "epochal.stores.npz:NpzStore"),
    Format("h5py", _never, "epochal.stores.hdf5:LibraryStore"),
]

TREE_FORMATS = (
    TreeFormat("zarr", tuple(sorted(ZARR_MARKS)), "epochal.stores.zarr_store:ZarrStore"),
    TreeFormat("npy-folder", ("epochal.json",), "epochal.stores.npy_folder:NpyFolderStore"),
)


def register(each: Format) -> None:
    """Let files of another format be opened; one of the same name is replaced.

    It is asked before ours, so it may take over files that ours would read.
    """
    FORMATS[:] = [each, *(other for other in FORMATS if other.name != each.name)]


def open_store(
    target: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    backend: str = "auto",
    allow: str | Collection[str] = (),
    untrusted: bool = False,
) -> Store:
    """Open what is at `target` with the store that its content asks for.

    Parameters
    ----------
    target
        A file, a folder that is one dataset, or several of them as one: a list, a pattern, or a
        folder of files. Paths, or URLs that fsspec knows.
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
        Nothing is at `target`.
    FormatError
        No store can read it.
    UnsafeError
        `allow` names something that cannot be allowed.
    """
    names = [each.name for each in FORMATS] + [each.name for each in TREE_FORMATS]
    if backend != "auto" and backend not in names:
        raise FormatError(f"backend={backend!r} is not one of: auto, {', '.join(names)}")
    allow = (allow,) if isinstance(allow, str) else tuple(allow)
    if unknown := sorted(set(allow) - set(ALLOWED)):
        raise UnsafeError(
            f"allow={unknown[0]!r} is nothing that can be allowed: {', '.join(ALLOWED)}"
        )
    options = {"backend": backend, "allow": allow, "untrusted": untrusted}
    if not isinstance(target, str | os.PathLike):
        paths = _paths(target)
        return _many(f"{len(paths)} files", paths, options)
    path = os.fspath(target)
    if "\0" in path:
        raise FileMissingError(f"{path!r}: no file has a name with a zero byte")
    if URL.match(path):
        return _url(path, options)
    if not os.path.lexists(path) and any(sign in path for sign in "*?["):
        return _many(path, matching(path), options)
    if os.path.isdir(path):
        tree = LocalTree(path)
        if _tree_format(tree) is None:
            return _folder(path, _entries(path), options)
        return _open_tree(tree, backend, allow, untrusted)
    return _open_file(_local(path), backend, allow, untrusted)


def _paths(target: Any) -> list[str]:
    """The paths of several files."""
    try:
        if not isinstance(target, bytes):
            return [os.fspath(each) for each in target]
    except TypeError:
        pass
    raise FormatError(f"{target!r} is no path, URL or pattern as text, nor a list of them")


def _url(url: str, options: dict[str, Any]) -> Store:
    """The same of a URL."""
    scheme, _, path = url.partition("://")
    if scheme in ("file", "local"):  # signs that mean something in other URLs may be in its name
        return open_store(unquote(path.removeprefix("localhost")), **options)
    try:
        look_at = _load("epochal.stores.remote_look:look_at")
        name = _load("epochal.stores.remote_system:shown")(url)
    except ImportError as error:
        raise FormatError(
            f"{scheme}://...: URLs are read by fsspec, which is not installed: "
            "pip install 'epochal[remote]'"
        ) from error
    found = look_at(url, [mark for each in TREE_FORMATS for mark in each.marks])
    tree, names = found.tree, found.entries
    if found.file is not None:
        store = _open_file(found.file, **options)
        found.file.settle()
        return store
    if tree is not None:
        return _open_tree(tree, **options)
    if found.together:
        return _many(name, [names[each] for each in natural(names)], options)
    return _folder(name, {each: names[each] for each in natural(names)}, options)


def _many(name: str, paths: list[str], options: dict[str, Any]) -> Store:
    if not paths:
        raise FormatError(f"{name}: no file was named")
    if len(paths) == 1:
        return open_store(paths[0], **options)
    return _joined(name, [open_store(path, **options) for path in paths], [])


def _entries(path: str) -> dict[str, str]:
    """Files in a folder, and folders that are one dataset, by name."""
    found = {}
    for name in natural(os.listdir(path)):
        inside = os.path.join(path, name)
        folder = os.path.isdir(inside)
        if not name.startswith(".") and not (folder and _tree_format(LocalTree(inside)) is None):
            found[name] = inside
    return found


def _folder(path: str, entries: dict[str, str], options: dict[str, Any]) -> Store:
    """All that a store can read in a folder; the rest is listed with the reason."""
    stores: list[Store] = []
    others: list[Other] = []
    for name, inside in entries.items():
        try:
            stores.append(open_store(inside, **options))
        except FormatError as error:
            others.append(Other(name, str(error)))
    if not stores:
        why = f": {others[0].why}" if others else ""
        raise FormatError(f"{path}: a folder in which no file is of a format that is read{why}")
    if len(stores) == 1 and not others:
        return stores[0]
    return with_decoded_sums(_joined(path, stores, others), path)


def _joined(name: str, stores: list[Store], others: list[Other]) -> Store:
    joined: Store = _load("epochal.stores.concat:ConcatStore")(name, stores, others)
    return joined


def natural(names: Iterable[str]) -> list[str]:
    """Names in the order that people expect.

    >>> natural(["part-10", "part-9"])
    ['part-9', 'part-10']
    """
    return sorted(names, key=lambda n: [p.zfill(20) if p.isdigit() else p for p in NUMBER.split(n)])


def matching(pattern: str) -> list[str]:
    """What a pattern names, in natural order. Raises `FileMissingError` where that is nothing."""
    found = natural(glob(pattern, recursive=True))
    if not found:
        raise FileMissingError(f"{pattern}: the pattern matches no file")
    return found


def _open_file(file: File, backend: str, allow: Collection[str], untrusted: bool) -> Store:
    found = _sniff(file)
    chosen = next((each for each in FORMATS if each.name == backend), found)
    if not _is_asked_for(chosen.name, backend):
        raise FormatError(f"{file.name}: backend={backend!r} reads folders; found {chosen.name}")
    return _whole(_load(chosen.opener)(file, allow=allow, untrusted=untrusted))


def _open_tree(tree: Tree, backend: str, allow: Collection[str], untrusted: bool) -> Store:
    found = _tree_format(tree)
    if found is None:
        raise FormatError(f"{tree.name}: asked for a file, found a directory; name a file in it")
    if not _is_asked_for(found.name, backend):
        raise FormatError(f"{tree.name}: backend={backend!r} was asked for; found {found.name}")
    return _whole(_load(found.opener)(tree, allow=allow, untrusted=untrusted))


def _is_asked_for(name: str, backend: str) -> bool:
    """Whether a format is the backend, or a kind of it: ``zarr-zip`` of ``zarr``."""
    return backend in ("auto", name) or name.startswith(f"{backend}-")


def _whole(store: Store) -> Store:
    """The store with what is noted beside it, and with its sparse matrices."""
    return assemble(with_decoded_sums(store))


def _tree_format(tree: Tree) -> TreeFormat | None:
    return next((e for e in TREE_FORMATS if any(_holds(tree, mark) for mark in e.marks)), None)


def _holds(tree: Tree, key: str) -> bool:
    try:
        tree.file(key)
    except FileMissingError:
        return False
    return True


def _load(opener: str | Callable[..., Any]) -> Callable[..., Any]:
    """A store's module is imported when the first file asks for it: each brings a library along."""
    if not isinstance(opener, str):
        return opener
    module, name = opener.split(":")
    return cast(Callable[..., Any], getattr(import_module(module), name))


def _sniff(file: File) -> Format:
    if file.size_bytes == 0:
        raise FormatError(
            f"{file.name}: the file is empty (0 bytes); was its writer or its download stopped?"
        )
    try:
        for each in FORMATS:
            if each.matches(file):
                return each
        head = _head(file, 64)
    except OSError as error:
        if isinstance(error, EpochalError):
            raise
        raise FormatError(f"{file.name}: cannot be read: {error.strerror}") from error
    raise FormatError(f"{file.name}: not a file of any format that is read: {_looks_like(head)}")


def _local(path: str) -> Descriptor:
    """The regular file at `path`."""
    try:
        fd = open_for_reading(path)
    except FileMissingError:
        raise FileMissingError(_missing(path)) from None
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(
            f"{path}: asked for a file, found a device, pipe or socket: it must be possible to seek"
        )
    return Descriptor(os.path.abspath(path), Stamp.of(status))


def _missing(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        beside = os.listdir(folder or ".")
    except OSError:
        return f"{path}: there is no such file, and its folder cannot be listed either"
    close = get_close_matches(name, beside, n=1)
    return f"{path}: there is no such file" + (f"; did you mean {close[0]!r}?" if close else "")


def _looks_like(head: bytes) -> str:
    for magic, what in KNOWN.items():
        if head.startswith(magic):
            return f"it looks like {what}"
    return (
        f"it begins with {head[:8]!r} and has no HDF5 signature at 0, 512, 1024, ...; "
        "cut off at its beginning, or of another format?"
    )
