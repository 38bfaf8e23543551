"""Which groups and arrays a Zarr hierarchy has: their metadata, listed or consolidated."""

from __future__ import annotations

from typing import Any

from epochal.errors import FileMissingError, FormatError
from epochal.stores.file import Tree, read_whole
from epochal.stores.zarr_codecs import Unreadable
from epochal.stores.zarr_meta import parse_json

__all__ = ["metadata_of"]

MAX_METADATA_BYTES = 64 << 20
Told = dict[str, Any] | Unreadable


def metadata_of(tree: Tree) -> dict[str, Told]:
    """Metadata of each group and array by path, its attributes among them; or why there are none.
    Damaged ones of the root are an error.
    """
    root = _json(tree, "zarr.json")
    if root is not None:
        listed = root.get("consolidated_metadata")
        listed = listed.get("metadata") if isinstance(listed, dict) else None
        if isinstance(listed, dict):
            return {"": root, **{path: _object(meta) for path, meta in listed.items()}}
        if root.get("node_type") == "array":
            return {"": root}
        keys = [key for key, _ in tree.sizes() if key.rpartition("/")[2] == "zarr.json"]
        found = {key.rpartition("/")[0]: _one(tree, key) for key in keys}
        return {path: meta for path, meta in found.items() if meta is not None}
    return _version_2(tree)


def _version_2(tree: Tree) -> dict[str, Told]:
    listed = (_json(tree, ".zmetadata") or {}).get("metadata")
    if not isinstance(listed, dict):
        names = (".zarray", ".zgroup", ".zattrs")
        keys = [key for key, _ in tree.sizes() if key.rpartition("/")[2] in names]
        listed = {key: meta for key in keys if (meta := _one(tree, key)) is not None}
    found: dict[str, dict[str, Any]] = {}
    damaged: dict[str, Unreadable] = {}
    for key, told in listed.items():
        path, _, kind = key.rpartition("/")
        meta = _object(told)
        if isinstance(meta, Unreadable):
            damaged[path] = meta
        else:
            mine = found.setdefault(path, {"zarr_format": 2})
            of_kind = {".zattrs": {"attributes": meta}, ".zarray": {"shape": None, **meta}}
            mine |= of_kind.get(kind, meta)
    return {**found, **damaged}


def _object(told: Any) -> Told:
    """What was told, if it is an object of JSON."""
    if isinstance(told, dict | Unreadable):
        return told
    return Unreadable(f"its metadata are {told!r}, no JSON object")


def _one(tree: Tree, key: str) -> Told | None:
    """Of one group or array: of others the metadata may be sound."""
    try:
        return parse_json(read_whole(tree.file(key), MAX_METADATA_BYTES))
    except FileMissingError:
        return None
    except Unreadable as error:
        return error


def _json(tree: Tree, key: str) -> dict[str, Any] | None:
    found = _one(tree, key)
    if isinstance(found, Unreadable):
        raise FormatError(f"{tree.name}: {key}: {found}") from found
    return found
