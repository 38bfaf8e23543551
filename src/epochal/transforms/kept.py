"""States of transforms as files: arrays and JSON in a ``.npz``, without pickle."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import FileMissingError, FormatError
from epochal.writing.disk import writing_to

__all__ = ["State", "from_bytes", "read_state", "to_bytes", "write_state"]

State = dict[str, Any]  # nested dicts and lists of strings, numbers, None and arrays
FORMAT = "epochal.transforms 1"
ARRAY, TUPLE = "$array", "$tuple"


def to_bytes(state: State) -> bytes:
    """A state as the bytes of a ``.npz`` file."""
    arrays: dict[str, NDArray[Any]] = {}
    text = json.dumps({"format": FORMAT, "state": _plain(state, arrays)})
    file = io.BytesIO()
    np.savez(file, state=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(data: bytes, name: str) -> State:
    """What `to_bytes` made.

    Raises
    ------
    FormatError
        It is something else, or damaged.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            told = json.loads(found["state"].tobytes())
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']!r}")
            state: State = _whole(told["state"], found)
            return state
    except Exception as error:  # NumPy and zipfile have many of their own
        raise FormatError(f"{name} holds no state of a transform: {error}") from error


def write_state(path: str | os.PathLike[str], state: State) -> None:
    """Put a state at a path in one step; what is there is replaced."""
    final = os.fspath(path)
    passing = f"{final}.{os.getpid()}.new"
    with writing_to(final):
        try:
            with open(passing, "wb") as file:
                file.write(to_bytes(state))
                file.flush()
                os.fsync(file.fileno())
            os.replace(passing, final)
        finally:
            Path(passing).unlink(missing_ok=True)


def read_state(path: str | os.PathLike[str]) -> State:
    """What `write_state` wrote.

    Raises
    ------
    FileMissingError, FormatError
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileMissingError(f"{os.fspath(path)}: there is no such file") from None
    return from_bytes(data, os.fspath(path))


def _plain(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """What JSON holds; arrays are put aside."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, dict):
        return {key: _plain(each, arrays) for key, each in value.items()}
    if isinstance(value, tuple):
        return {TUPLE: [_plain(each, arrays) for each in value]}
    if isinstance(value, list):
        return [_plain(each, arrays) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _whole(value: Any, arrays: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {ARRAY}:
        return arrays[value[ARRAY]]
    if value.keys() == {TUPLE}:
        return tuple(_whole(each, arrays) for each in value[TUPLE])
    return {key: _whole(each, arrays) for key, each in value.items()}
