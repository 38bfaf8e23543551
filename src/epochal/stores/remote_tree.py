"""What lies below a URL, as a tree of files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from epochal.errors import FileMissingError, FormatError
from epochal.stores.file import File
from epochal.stores.remote import AT_ONCE, RemoteFile, patiently, reader_of
from epochal.stores.remote_answer import TRY_AGAIN, Identity, Transient
from epochal.stores.remote_cache import Looked
from epochal.stores.remote_system import meaning, protocols_of, said, shown, system_of
from epochal.stores.waiting import together

__all__ = ["RemoteTree", "matching_urls"]


class RemoteTree:
    """Files below a URL (`epochal.stores.file.Tree`). Pickles as the URL; asks nothing at first.

    A file whose length is known from a listing is opened by no request of its own: what it is then
    is told by the first answer, and only its length is known to be that of the listing.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.name = shown(self.url)
        reader = reader_of(self.url)
        self.in_flight, self.copy_bytes = reader.in_flight, AT_ONCE * reader.copy_bytes

    def __getstate__(self) -> tuple[str, int, int]:
        return self.url, self.in_flight, self.copy_bytes

    def __setstate__(self, state: tuple[str, int, int]) -> None:
        self.url, self.in_flight, self.copy_bytes = state
        self.name = shown(self.url)

    def file(self, key: str, size_bytes: int | None = None) -> File:
        """The file of that key; of the length that a listing gave, where one did."""
        if size_bytes is not None:
            identity = Identity(size_bytes)
            return RemoteFile(self.url, key, identity, self.in_flight, self.copy_bytes)
        file, head = RemoteFile.look(self.url, key)
        return Looked(file, head) if 0 < len(head) == file.size_bytes else file

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and length of each file below, by one listing. Where that tells no lengths (the
        pages that HTTP servers make of folders), each file is asked for its own.

        Raises
        ------
        FormatError
            The server lists nothing.
        """
        system, root = system_of(self.url)
        root = root.rstrip("/")
        folder = posixpath.dirname(f"{root}/{prefix}")
        system.invalidate_cache()
        found = _below(system, folder, self)
        if not found and "http" in protocols_of(system) and not _page(system, root, self):
            raise FormatError(
                f"{self.name}: its server does not list what is in it, which must be known. Serve "
                "it by one that does, or as one file: a zip archive, uncompressed"
            )
        listed = [
            (path[len(root) + 1 :], size)
            for path, size in sorted(found.items())
            if path.startswith(f"{root}/{prefix}")
        ]
        unknown = [key for key, size in listed if size is None]
        lengths = dict(
            zip(unknown, together(partial(_length, self.url), unknown, self.in_flight), strict=True)
        )
        for key, size in listed:
            length = lengths.get(key) if size is None else int(size)
            if length is not None:
                yield key, length

    def children(self) -> list[tuple[str, str]]:
        """Name and URL of what lies in it: files, and folders that look like arrays."""
        system, root = system_of(self.url)
        found = []
        for path, is_folder, _ in _page(system, root, self):
            name = path.rpartition("/")[2]
            if not name.startswith(".") and (not is_folder or name.endswith(".zarr")):
                found.append((name, _url_of(self.url, path)))
        return found

    def close(self) -> None:
        """Nothing: connections are kept by fsspec, for whoever comes next."""


def _below(system: Any, folder: str, tree: RemoteTree) -> dict[str, int | None]:
    """Path and length of each file below a folder."""
    if not _walks(system):
        try:
            found = system.find(folder, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise meaning(error, tree.name) from error
        return {
            path: info.get("size")
            for path, info in found.items()
            if info.get("type") != "directory"
        }
    below: dict[str, int | None] = {}
    folders = [folder]
    while folders:
        pages = together(partial(_page, system, tree=tree), folders, tree.in_flight)
        entries = [entry for page in pages for entry in page]
        folders = [path for path, is_folder, _ in entries if is_folder]
        below |= {path: size for path, is_folder, size in entries if not is_folder}
    return below


def _walks(system: Any) -> bool:
    """Whether its ``find`` is fsspec's own, which leaves out folders that it fails to list: chunks
    that are left out would be read as fill values.
    """
    if system.async_impl:
        return type(system)._find is AsyncFileSystem._find
    return type(system).find is AbstractFileSystem.find


def _page(system: Any, folder: str, tree: RemoteTree) -> list[tuple[str, bool, int | None]]:
    """Path, whether it is a folder, and length of what lies in a folder; nothing where there is
    none.
    """
    folder = folder.rstrip("/")
    found = []
    for info in patiently(partial(_listed, system, folder), tree.name):
        path = str(info["name"]).rstrip("/")
        inside = path.startswith(f"{folder}/") if folder else bool(path)
        # Pages have links to themselves in other orders: "?C=M;O=A".
        if inside and not ("http" in protocols_of(system) and set("?#") & set(path)):
            found.append((path, info.get("type") == "directory", info.get("size")))
    return found


def _listed(system: Any, folder: str) -> list[dict[str, Any]]:
    try:
        return list(system.ls(folder, detail=True))
    except FileNotFoundError:
        return []
    except Exception as error:
        if getattr(error, "status", 0) in TRY_AGAIN or isinstance(error, TimeoutError):
            raise Transient(said(error)) from error
        if isinstance(error, ConnectionError):
            raise Transient(said(error)) from error
        raise


def _length(url: str, key: str) -> int | None:
    """The length of a file, None where there is none. (Of a server that is busy fsspec says that it
    has no such file, too.)
    """
    system, root = system_of(url)
    try:
        size = system.info(f"{root.rstrip('/')}/{key}").get("size")
    except FileNotFoundError:
        size = None
    except Exception as error:
        raise meaning(error, shown(f"{url}/{key}")) from error
    if size is not None:
        return int(size)
    try:
        return RemoteFile.look(url, key)[0].size_bytes
    except FileMissingError:
        return None


def matching_urls(url: str) -> list[str]:
    """URLs of the objects that a pattern names."""
    system, pattern = system_of(url)
    try:
        system.invalidate_cache()
        found = system.glob(pattern)
    except Exception as error:
        raise meaning(error, shown(url)) from error
    if not found:
        raise FileMissingError(f"{shown(url)}: the pattern matches nothing")
    return [_url_of(url, path) for path in found]


def _url_of(url: str, path: str) -> str:
    """The URL of another path in the same file system: the path is that of the chain's first link
    that has one.

    >>> _url_of("simplecache::s3://bucket/*.h5", "bucket/a.h5")
    'simplecache::s3://bucket/a.h5'
    >>> _url_of("zip://*.npy::https://host/a.zip", "X.npy")
    'zip://X.npy::https://host/a.zip'
    """
    links = url.split("::")
    at = next((k for k, link in enumerate(links) if link.partition("://")[2]), 0)
    scheme = links[at].partition("://")[0]
    links[at] = path if path.startswith(f"{scheme}://") else f"{scheme}://{path}"
    return "::".join(links)
