"""A local folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from epochal.errors import FileMissingError, FormatError
from epochal.stores.descriptor import Descriptor, Stamp

__all__ = ["LocalTree"]


class LocalTree:
    """A folder as a `epochal.stores.file.Tree`. Links in it are followed as the system does, but
    only to where they stay inside it.
    """

    in_flight = 1
    copy_bytes = 0

    def __init__(self, path: str) -> None:
        self.path = self.name = os.path.abspath(path)

    def file(self, key: str, size_bytes: int | None = None) -> Descriptor:
        """The file of that key, looked at once: a ``stat``."""
        path = self._path(key)
        try:
            return Descriptor(path, Stamp.at(path))
        except (FileNotFoundError, NotADirectoryError):
            raise FileMissingError(f"{path}: there is no such file") from None
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Key and length of each file below: one walk, one ``stat`` a file."""
        folder = prefix.rpartition("/")[0]
        stack = [(self._path(folder), folder + "/" if folder else "")]
        while stack:
            path, base = stack.pop()
            try:
                entries = list(os.scandir(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                key = base + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if (key + "/").startswith(prefix) or prefix.startswith(key + "/"):
                        stack.append((entry.path, key + "/"))
                elif key.startswith(prefix) and entry.is_file():
                    yield key, entry.stat().st_size

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> str:
        path = os.path.realpath(os.path.join(self.path, key))
        root = os.path.realpath(self.path)
        if path != root and not path.startswith(os.path.join(root, "")):
            raise FormatError(f"{self.name}: {key!r} lies outside of it: not followed")
        return path
