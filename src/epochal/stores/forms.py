"""The form of a source: what its rows are decoded by, besides what is stored of them.

Shape, dtype, chunks, filters and fill value lie in metadata that no checksum of a chunk covers. A
*form* tells them as plain values of JSON. It is noted with the checksums, and compared when a file
is opened: once a source, whatever its number of chunks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.manifest import Form, Manifest, crc32
from epochal.stores.source import Source
from epochal.stores.store import SelfChecking, Summed

__all__ = [
    "NAME",
    "UnlikeSource",
    "differences",
    "form_of",
    "form_of_source",
    "held_to",
    "is_rewritten",
]

MOST_CHARS = 4000  # of a value, which is told by its sum otherwise: a form fits an attribute
NAME, ROWS = "name", "rows"


def form_of(shape: tuple[int, ...], dtype: np.dtype, **more: Any) -> Form:
    """The form of rows of a shape and a dtype, and what `more` there is to tell.

    >>> form_of((9, 2), np.dtype(">u2"), chunks=[3, 2])
    {'rows': 9, 'row_shape': [2], 'dtype': '>u2', 'chunks': [3, 2]}
    """
    told = {ROWS: shape[0], "row_shape": list(shape[1:]), "dtype": _told(dtype), **more}
    return {key: _short(value) for key, value in told.items()}


@runtime_checkable
class Formed(Protocol):
    """A source that knows what its rows are decoded by."""

    @property
    def form(self) -> Form:
        """That, as values of JSON."""
        ...


def form_of_source(source: Source) -> Form:
    """The form of a source; of one that does not know, what its layout says."""
    if isinstance(source, Formed):
        return source.form
    return form_of(source.layout.shape, source.layout.dtype)


def _told(dtype: np.dtype) -> str:
    """A dtype as text that no version of NumPy changes.

    >>> _told(np.dtype([("a", "<i4"), ("b", ">f8", (2,))]))
    '{a: <i4 at 0, b: >f8[2] at 4; 20 bytes}'
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{_told(base)}{list(shape)}"
    if dtype.fields is None or dtype.names is None:
        return dtype.str
    fields = (f"{name}: {_told(dtype[name])} at {dtype.fields[name][1]}" for name in dtype.names)
    return f"{{{', '.join(fields)}; {dtype.itemsize} bytes}}"


def _short(value: Any) -> Any:
    if len(repr(value)) <= MOST_CHARS:
        return value
    return f"crc32 {crc32(json.dumps(value, sort_keys=True).encode()):#010x}"


def differences(noted: Form, found: Form) -> dict[str, str]:
    """What a form has another value of than was noted, and both values. A source without rows
    stores nothing: of the rest of its form nothing is known.

    >>> differences({"rows": 9, "dtype": "<u2"}, {"rows": 9, "dtype": ">u2"})
    {'dtype': "dtype '>u2' where '<u2' was noted"}
    """
    keys = [key for key in {**noted, **found} if key != NAME]
    if not noted.get(ROWS) or not found.get(ROWS):
        keys = [key for key in keys if key in noted and key in found]
    return {
        key: f"{key} {found.get(key)!r} where {noted.get(key)!r} was noted"
        for key in keys
        if found.get(key) != noted.get(key)
    }


def held_to(noted: Manifest | None, found: Form, source: Source, file: str, name: str) -> Source:
    """The source, where its form is what was noted, or nothing was; else one that is not read.

    Another program may have grown it to other chunks since: then the sums are of an older state,
    and so is what was noted of its rows.
    """
    if noted is None or noted.form is None:
        return source
    wrong = differences(noted.form, found)
    if not wrong or (list(wrong) == [ROWS] and not source.layout.checked):
        return source
    return UnlikeSource(file, name, source, "; ".join(wrong.values()))


def is_rewritten(noted: Manifest | None, found: Form, source: Source) -> bool:
    """Whether another program has stored all of a source anew since, as ``h5repack`` does: it has
    another form, and what is stored of it is nothing that was summed. (Where its metadata are
    damaged, all that is there still.) Reads three chunks of such a source.
    """
    if noted is None or noted.form is None or not isinstance(source, Summed):
        return False
    n_chunks = source.layout.n_chunks
    if not n_chunks or not differences(noted.form, found):
        return False
    known = {0, *noted.sums.tolist()}
    try:
        looks = (source.stored_sums(at, at + 1) for at in {0, n_chunks // 2, n_chunks - 1})
        sums = np.concatenate([*looks])
    except (EpochalError, EOFError, OSError, ValueError, MemoryError):
        return False
    return bool(sums.any()) and known.isdisjoint(sums[sums != 0].tolist())


class UnlikeSource:
    """A source that has another form than was noted: what it would read are other rows.

    Parameters
    ----------
    file, name
        For people.
    source
        As it is in the file.
    what
        Differs.
    """

    def __init__(self, file: str, name: str, source: Source, what: str) -> None:
        self._file, self._name, self._source, self.what = file, name, source, what
        self.layout: Layout = replace(source.layout, rows_alone=False, coded=None, checked=True)
        self.manifest: Manifest | None = None

    def unchecked(self) -> Source:
        """The source as it is in the file."""
        source = self._source
        return source.unchecked() if isinstance(source, SelfChecking) else source

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Not read. Raises `DamageError`."""
        raise self.error(start, stop)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not read. Raises `DamageError`."""
        raise self.error(0, self.layout.n_chunks)

    def error(self, start: int, stop: int) -> DamageError:
        """What is raised instead of reading some chunks."""
        first = self.layout.bounds(start)[0] if start < stop else 0
        last = self.layout.bounds(stop - 1)[1] - 1 if start < stop else 0
        return DamageError(
            f"{self._file}: source {self._name!r}, rows {first} to {last}: it is stored in another "
            f"form than was noted: {self.what}. The file is damaged there: restore it from a copy; "
            "if another program changed it on purpose, epochal verify --record notes what is "
            "there now"
        )
