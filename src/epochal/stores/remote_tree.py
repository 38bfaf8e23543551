"""What lies below a URL, as a tree of files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

from epochal.errors import FileMissingError, FormatError
from epochal.stores.file import File
from epochal.stores.remote import RemoteFile, reader_of
from epochal.stores.remote_answer import Identity
from epochal.stores.remote_cache import Cached, together
from epochal.stores.remote_system import meaning, protocols_of, shown, system_of

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
        self.in_flight, self._copy_bytes = reader.in_flight, reader.copy_bytes

    def __getstate__(self) -> tuple[str, int, int]:
        return self.url, self.in_flight, self._copy_bytes

    def __setstate__(self, state: tuple[str, int, int]) -> None:
        self.url, self.in_flight, self._copy_bytes = state
        self.name = shown(self.url)

    def file(self, key: str, size_bytes: int | None = None) -> File:
        """The file of that key; of the length that a listing gave, where one did."""
        if size_bytes is not None:
            identity = Identity(size_bytes)
            return RemoteFile(self.url, key, identity, self.in_flight, self._copy_bytes)
        file, head = RemoteFile.look(self.url, key)
        return Cached(file, head) if head else file

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
        try:
            system.invalidate_cache()
            found: dict[str, Any] = system.find(folder, detail=True)
        except FileNotFoundError:
            found = {}
        except Exception as error:
            raise meaning(error, self.name) from error
        if not found and "http" in protocols_of(system):
            raise FormatError(
                f"{self.name}: its server does not list what is in it, which must be known. Serve "
                "it by one that does, or as one file: a zip archive, uncompressed"
            )
        listed = [
            (path[len(root) + 1 :], info.get("size"))
            for path, info in sorted(found.items())
            if path.startswith(f"{root}/{prefix}") and info.get("type") != "directory"
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
        try:
            listed = system.ls(root, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise meaning(error, self.name) from error
        found = []
        for info in listed:
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            folder = info.get("type") == "directory"
            itself = str(info["name"]).rstrip("/") == root.rstrip("/")
            if not itself and not name.startswith(".") and (not folder or name.endswith(".zarr")):
                found.append((name, _url_of(self.url, info["name"])))
        return found

    def close(self) -> None:
        """Nothing: connections are kept by fsspec, for whoever comes next."""


def _length(url: str, key: str) -> int | None:
    system, root = system_of(url)
    try:
        size = system.info(f"{root.rstrip('/')}/{key}").get("size")
    except FileNotFoundError:
        return None
    except Exception as error:
        raise meaning(error, shown(f"{url}/{key}")) from error
    return None if size is None else int(size)


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
