"""Files of a folder that change together, in one step that a kill cannot cut in two.

A *redo journal*: what is to replace what is written beside it first; then one file says so; from
then on whoever comes next can finish it.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epochal.errors import DamageError, MismatchError, SourceNameError, UnsafeError
from epochal.writing.container import Bytes, Progress
from epochal.writing.disk import remove, sync, write_at

__all__ = [
    "JOURNAL",
    "STAGED",
    "STATE",
    "check_names",
    "commit",
    "edit_file",
    "json_value",
    "progress_from",
    "progress_json",
    "recover",
    "replace_file",
    "staged_name",
    "sync_all",
]

JOURNAL = ".epochal-journal.json"
STATE = ".epochal-progress.json"
STAGED = ".epochal-new-"  # begins the name of what will replace a file


def check_names(names: Iterable[str], reserved: tuple[str, ...] = ()) -> None:
    """Refuse names of sources that cannot be paths in a folder, or of which one holds another.

    >>> check_names(["train/X", "train/y"])
    """
    taken = list(names)
    for name in taken:
        parts = name.split("/")
        good = all(part.strip(".") and not part.startswith((".epochal", "__")) for part in parts)
        if not good or "\0" in name or set(parts) & set(reserved):
            raise SourceNameError(
                f"source name {name!r} cannot be a path in a folder: give one such as 'train/X'"
            )
        inside = [other for other in taken if other.startswith(name + "/")]
        if inside:
            raise SourceNameError(
                f"source {inside[0]!r} would lie inside of source {name!r}: name one otherwise"
            )


def json_value(value: Any) -> Any:
    """An attribute as JSON has it: arrays as lists, complex numbers as two, what is not finite as
    its name in text, as Zarr writes fill values.

    >>> json_value({"a": np.arange(2), "b": np.float32(0.5), "c": [1j, float("nan")]})
    {'a': [0, 1], 'b': 0.5, 'c': [[0.0, 1.0], 'NaN']}
    """
    if isinstance(value, np.ndarray | np.generic):
        return json_value(value.tolist())
    match value:
        case Mapping():
            return {str(key): json_value(each) for key, each in value.items()}
        case list() | tuple():
            return [json_value(each) for each in value]
        case bytes():
            return value.decode("utf-8", "replace")
        case complex():
            return [json_value(value.real), json_value(value.imag)]
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case str() | bool() | int() | float() | None:
            return value
    raise MismatchError(
        f"attrs: a value of {type(value).__name__} cannot be kept as JSON: give strings, numbers "
        "or small arrays of them"
    )


def progress_json(progress: Progress, **more: Any) -> str:
    """How far a container is, as text."""
    sums = None
    if progress.sums is not None:
        sums = {
            name: base64.b64encode(each.astype("<u4").tobytes()).decode()
            for name, each in progress.sums.items()
        }
    state = {"rows": progress.rows, "sums": sums, "attrs": json_value(progress.attrs), **more}
    return json.dumps(state)


def progress_from(text: bytes, path: str) -> tuple[Progress, dict[str, Any]]:
    """What `progress_json` wrote, and what more it says. Raises `DamageError`."""
    try:
        state = json.loads(text)
        sums = state["sums"] and {
            name: np.frombuffer(base64.b64decode(each), "<u4").astype(np.uint32)
            for name, each in state["sums"].items()
        }
        return Progress(int(state["rows"]), sums, state["attrs"]), state
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(
            f"{path}: what an interrupted writer left does not say how far it was: {error}. "
            "Remove it and begin anew"
        ) from error


def write_file(path: str, data: Bytes | bytes, *, sync: bool = False) -> None:
    """A file of just these bytes; its folders are made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, flags, 0o666)
    try:
        write_at(fd, data, 0)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def staged_name(path: str) -> str:
    """Where what will replace a file lies until then.

    >>> staged_name("/data/X/c.5.0")
    '/data/X/.epochal-new-c.5.0'
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, STAGED + name)


def replace_file(path: str, text: str) -> None:
    """Give a file another content in one step, on the disk when this returns."""
    write_file(staged_name(path), text.encode(), sync=True)
    os.rename(staged_name(path), path)
    sync(os.path.dirname(path))


def sync_all(folder: str) -> None:
    """Bring all that was written below a folder to the disk: one ``syncfs`` of its file system;
    where there is none, an ``fsync`` of each file.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _syncfs(fd):
            return
    finally:
        os.close(fd)
    for path, _, files in os.walk(folder):
        for name in files:
            sync(os.path.join(path, name))
        sync(path)


def _syncfs(fd: int) -> bool:
    try:
        call: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    return call(fd) == 0


def keep(folder: str, kept: Mapping[str, bytes]) -> None:
    """Files beside those of the sources, before the folder is published."""
    for name, data in kept.items():
        write_file(os.path.join(folder, name), np.frombuffer(data, np.uint8), sync=True)


def commit(
    folder: str,
    staged: Iterable[str] = (),
    texts: Mapping[str, str] | None = None,
    removed: Iterable[str] = (),
    *,
    edits: Mapping[str, tuple[int, bytes]] | None = None,
    journal: str = JOURNAL,
) -> None:
    """Let staged files take the names of those that they replace, then change bytes of files at an
    offset, then give files new texts, in this order, then remove some: all of it or, where the
    process is killed early enough, nothing.

    Paths are relative to `folder`, at which nobody else may write. What was written before is to be
    on the disk (`sync_all`). Costs an ``fsync`` a text and a folder.
    """
    changed = {
        key: (at, base64.b64encode(data).decode()) for key, (at, data) in (edits or {}).items()
    }
    body = json.dumps(
        {"staged": [*staged], "edits": changed, "texts": dict(texts or {}), "removed": [*removed]}
    )
    path = os.path.join(folder, journal)
    made = staged_name(path)
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # a reader that finds the journal leaves it to us
        write_at(fd, f"{zlib.crc32(body.encode()):08x}\n{body}".encode(), 0)
        os.fsync(fd)
        os.rename(made, path)
        sync(folder)
        _redo(folder, journal, body)
    finally:
        os.close(fd)


def recover(folder: str, journal: str = JOURNAL) -> bool:
    """Finish what a writer was killed in the middle of; whether there was anything.

    Whoever opens a folder may call it: nothing is done where the writer still runs, or where the
    folder may not be written to.
    """
    path = os.path.join(folder, journal)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # none, or whoever reads may not write: the old rows are all there
        return False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not os.path.exists(path) or not os.path.samestat(os.fstat(fd), os.stat(path)):
            return False
        total, _, body = Path(path).read_bytes().partition(b"\n")
        if total != f"{zlib.crc32(body):08x}".encode():  # never whole: nothing was done by it
            remove(path)
            return False
        _redo(folder, journal, body.decode())
        return True
    finally:
        os.close(fd)


def _redo(folder: str, journal: str, body: str) -> None:
    """Do what a journal says, as far as it was not done, and remove it."""
    found = json.loads(body)
    keys = [*found["staged"], *found["edits"], *found["texts"], *found["removed"]]
    _check_inside(folder, keys)
    for key in found["staged"]:
        path = os.path.join(folder, key)
        try:
            os.rename(staged_name(path), path)
        except FileNotFoundError:
            continue  # this far it was done before
    for key, (at, data) in found["edits"].items():
        edit_file(os.path.join(folder, key), at, base64.b64decode(data))
    for key, text in found["texts"].items():
        path = os.path.join(folder, key)
        write_file(staged_name(path), text.encode(), sync=True)
        os.rename(staged_name(path), path)
    for each in sorted({os.path.dirname(key) for key in keys}):
        sync(os.path.join(folder, each))
    for key in found["removed"]:
        remove(os.path.join(folder, key))
    remove(os.path.join(folder, journal))
    sync(folder)


def edit_file(path: str, offset: int, data: bytes) -> None:
    """Change bytes of a file in place; they are on the disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_at(fd, data, offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_inside(folder: str, keys: Iterable[str]) -> None:
    """A journal may have come with a folder from anywhere: it changes nothing outside of it."""
    root = os.path.realpath(folder) + os.sep
    for key in keys:
        where = os.path.realpath(os.path.join(folder, os.path.dirname(key))) + os.sep
        if not where.startswith(root) or not os.path.basename(key).strip("."):
            raise UnsafeError(
                f"{folder}: a writer's journal in it would change {key!r}, outside of the folder: "
                "nothing was done. Remove the journal"
            )
