"""What a URL names: a file, a folder that is one dataset, or several files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from epochal.errors import FileMissingError
from epochal.stores.remote import RemoteFile
from epochal.stores.remote_cache import Cached
from epochal.stores.remote_tree import RemoteTree, matching_urls

__all__ = ["Found", "look_at"]

# A query begins with the third sign of patterns, and addresses of hosts have the second.
PATTERN = re.compile(r"\*")


@dataclass(frozen=True)
class Found:
    """One of: a file, with its beginning kept until it is settled; a tree that is one dataset;
    URLs by name, which are to be read as one (`together`) or as far as they can be.
    """

    file: Cached | None = None
    tree: RemoteTree | None = None
    entries: dict[str, str] = field(default_factory=dict)
    together: bool = False


def look_at(url: str, marks: Sequence[str]) -> Found:
    """What is at a URL; `marks` are keys of which one is in a folder that is one dataset.

    Costs one request for a file; where there is none, one for each mark and a listing.

    Raises
    ------
    FileMissingError
        Nothing is there.
    FormatError
        It cannot be read.
    """
    if PATTERN.search(url):
        return Found(entries={each: each for each in matching_urls(url)}, together=True)
    try:
        file, head = RemoteFile.look(url)
    except FileMissingError as missing:
        return _folder(RemoteTree(url), marks, missing)
    if head.lstrip()[:1] == b"<":  # what a server makes of a folder, mostly
        tree = RemoteTree(url)
        if _is_dataset(tree, marks):
            return Found(tree=tree)
        entries = dict(tree.children())
        if entries:
            return Found(entries=entries)
    return Found(file=Cached(file, head))


def _folder(tree: RemoteTree, marks: Sequence[str], missing: FileMissingError) -> Found:
    if _is_dataset(tree, marks):
        return Found(tree=tree)
    entries = dict(tree.children())
    if not entries:
        raise missing
    return Found(entries=entries)


def _is_dataset(tree: RemoteTree, marks: Sequence[str]) -> bool:
    return any(_holds(tree, mark) for mark in marks)


def _holds(tree: RemoteTree, mark: str) -> bool:
    try:
        tree.file(mark)
    except FileMissingError:
        return False
    return True
