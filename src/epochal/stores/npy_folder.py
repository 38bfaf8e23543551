"""Several ``.npy`` files as the sources of one dataset: a folder with an ``epochal.json``.

That says which file is which source, how many rows count, and has the attributes of the whole::

    {"format": "epochal-npy", "version": 1, "rows": 60000,
     "sources": {"X": {"file": "X.npy"}, "y": {"file": "y.npy"}}, "attrs": {"scale": 0.5},
     "crc32": 1234}

The last is the CRC-32 of the rest, as JSON with sorted keys; without it nothing is compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from epochal.errors import EpochalError, FormatError, UnsafeError
from epochal.stores.file import File, Tree, read_whole
from epochal.stores.manifest import crc32
from epochal.stores.npy import header_of, noted, source_of
from epochal.stores.store import AnySource, Other

__all__ = ["DOCUMENT", "FolderFacts", "NpyFolderStore", "facts_in"]

DOCUMENT = "epochal.json"
FORMAT, VERSION = "epochal-npy", 1
MAX_DOCUMENT_BYTES = 16 << 20


@dataclass(frozen=True)
class FolderFacts:
    """What an ``epochal.json`` says.

    Parameters
    ----------
    rows
        Rows of each source that count: a file may be longer, where a writer was stopped.
    files
        Path of the ``.npy`` file in the folder, by source.
    attrs
        Attributes of the whole.
    as_written
        Whether all of it is what a writer wrote; None where no sum says so.
    """

    rows: int
    files: Mapping[str, str]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    as_written: bool | None = None

    def text(self) -> str:
        """As it is written.

        >>> facts_in(FolderFacts(3, {"X": "X.npy"}).text().encode(), "file").rows
        3
        """
        told = {
            "format": FORMAT,
            "version": VERSION,
            "rows": self.rows,
            "sources": {name: {"file": file} for name, file in self.files.items()},
            "attrs": dict(self.attrs),
        }
        return json.dumps({**told, "crc32": _sum_of(told)}, indent=2)


def facts_in(data: bytes, name: str) -> FolderFacts:
    """What a document says. Raises `FormatError`."""
    try:
        told = json.loads(data)
        kind, version = told["format"], told["version"]
        rows, attrs = told["rows"], told.get("attrs", {})
        files = {str(source): each["file"] for source, each in told["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{name}: {DOCUMENT} is not what lists .npy files: {type(error).__name__}: {error}"
        ) from error
    if kind != FORMAT or version != VERSION:
        raise FormatError(
            f"{name}: {DOCUMENT} is of format {kind!r}, version {version!r}; {FORMAT!r}, version "
            f"{VERSION}, is read: a newer epochal may read it"
        )
    good = type(rows) is int and rows >= 0 and isinstance(attrs, dict)
    if not good or not all(isinstance(file, str) for file in files.values()):
        raise FormatError(f"{name}: {DOCUMENT} says rows={rows!r}, sources={files!r}")
    total = told.pop("crc32", None)
    return FolderFacts(rows, files, attrs, None if total is None else total == _sum_of(told))


def _sum_of(told: Mapping[str, Any]) -> int:
    return crc32(json.dumps(told, sort_keys=True).encode())


class NpyFolderStore:
    """The sources that an ``epochal.json`` names. A file that cannot be read is listed instead."""

    def __init__(self, tree: Tree, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._tree = tree
        self.name = tree.name
        facts = facts_in(read_whole(tree.file(DOCUMENT), MAX_DOCUMENT_BYTES), tree.name)
        self.groups: Mapping[str, Mapping[str, Any]] = {"": facts.attrs} if facts.attrs else {}
        self.sources: dict[str, AnySource] = {}
        self._files: list[File] = []
        others = []
        if facts.as_written is False:
            why = (
                'it is not what was written; if it was changed on purpose, remove its line "crc32"'
            )
            others.append(Other(DOCUMENT, why, damaged=True))
        for name, key in facts.files.items():
            try:
                self.sources[name] = self._source(name, key, facts.rows)
            except (FormatError, UnsafeError, FileNotFoundError) as error:
                unsafe = isinstance(error, UnsafeError)
                others.append(Other(name, str(error), unsafe=unsafe, damaged=not unsafe))
        self.others = tuple(others)

    def _source(self, name: str, key: str, rows: int) -> AnySource:
        file = self._tree.file(key)
        try:
            header = header_of(file)
            if header.shape[0] < rows:
                raise FormatError(
                    f"{file.name}: an array of shape {header.shape}, where {DOCUMENT} says {rows} "
                    "rows: the file was replaced, or cut off"
                )
            if header.shape[0] > rows and header.by_columns:
                raise FormatError(
                    f"{file.name}: in Fortran order, with more rows than the {rows} of {DOCUMENT}"
                )
        except EpochalError:
            file.close()
            raise
        self._files.append(file)
        header = header._replace(shape=(rows, *header.shape[1:]))
        return source_of(file, header, name, noted(file))

    def close(self) -> None:
        """Give back descriptors."""
        for file in self._files:
            file.close()
        self._tree.close()
