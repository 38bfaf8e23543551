"""What lies in an HDF5 file, by path: hard links within the file only, each group once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py

from epochal.stores.hdf5_file import BROKEN

__all__ = ["Broken", "address_of", "find", "walk"]

MAX_DEPTH = 64


class Broken(str):
    """Why something that is there cannot be looked at: it is damaged."""

    __slots__ = ()


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Each dataset below the group `root` with its path, or a path with why there is none."""
    return _descend(root, "", 0, set())


def _descend(
    group: Any, prefix: str, depth: int, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, Any]]:
    """Each dataset below `group` with its path, or a path with why there is none."""
    address = address_of(group)
    if address is None:
        yield prefix.rstrip("/"), Broken("a group that cannot be read")
        return
    if address in seen:
        yield prefix.rstrip("/"), "a group that was listed already, by another name"
        return
    seen.add(address)
    if depth > MAX_DEPTH:
        yield prefix.rstrip("/"), f"groups nested deeper than {MAX_DEPTH}"
        return
    try:
        names = list(group)
    except BROKEN as error:
        yield prefix.rstrip("/"), Broken(f"a group that cannot be read: {error}")
        return
    for raw in names:
        name = prefix + raw.decode("utf-8", "surrogateescape")
        try:
            found = _resolve(group, raw)
        except BROKEN as error:
            yield name, Broken(f"cannot be opened: {error}")
            continue
        if isinstance(found, h5py.h5g.GroupID):
            yield from _descend(found, name + "/", depth + 1, seen)
        else:
            yield name, found


def _resolve(group: Any, raw: bytes) -> Any:
    """The dataset or group of that name in this very file, or why it is neither."""
    kind = group.links.get_info(raw).type
    if kind == h5py.h5l.TYPE_SOFT:
        return f"a soft link to {_text(group.links.get_val(raw))!r}: read it by that name"
    if kind == h5py.h5l.TYPE_EXTERNAL:
        file, there = group.links.get_val(raw)[:2]
        return f"an external link to {_text(there)!r} in {_text(file)!r}: not followed"
    if kind != h5py.h5l.TYPE_HARD:
        return "a link of a kind of its own: not followed"
    found = h5py.h5o.open(group, raw)
    if isinstance(found, h5py.h5g.GroupID | h5py.h5d.DatasetID):
        return found
    return "a named type, not data"


def find(root: Any, path: bytes) -> Any:
    """The dataset at a path, by hard links within the file only; or what is there instead."""
    found = root
    for raw in path.split(b"/"):
        if not raw or raw == b".":
            continue
        if not isinstance(found, h5py.h5g.GroupID) or raw not in found:
            return "not there"
        try:
            found = _resolve(found, raw)
        except BROKEN as error:
            return f"damaged: {error}"
        if isinstance(found, str):
            return found
    return found if isinstance(found, h5py.h5d.DatasetID) else "a group"


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def address_of(found: Any) -> tuple[int, int] | None:
    """What is the same for all names of one object; None where it cannot be told."""
    try:
        info = h5py.h5o.get_info(found)
    except BROKEN:
        return None
    return info.fileno, info.addr
