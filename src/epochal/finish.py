"""What a batch is when it is handed out: a named tuple, with functions applied to it."""

from __future__ import annotations

import keyword
import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from epochal.ragged import Block, form_of

__all__ = ["Finish"]


class Finish:
    """Makes the named tuple, and applies functions to it."""

    def __init__(
        self,
        names: tuple[str, ...],
        functions: tuple[Callable[[Any], Any], ...],
        ragged: str = "offsets",
        shapings: tuple[Callable[[Any], Any] | None, ...] = (),
    ) -> None:
        self._names = names
        self._ragged = ragged
        self._shapings = shapings or (None,) * len(names)
        self._functions = functions
        self._type = _tuple_type(names)

    def __call__(self, arrays: tuple[NDArray[Any] | Block, ...]) -> Any:
        """The batch of these rows, a source each."""
        formed = zip(self._shapings, map(self._form, arrays), strict=True)
        batch = self._type(*(shape(rows) if shape else rows for shape, rows in formed))
        for function in self._functions:
            batch = function(batch)
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        return Finish, (self._names, self._functions, self._ragged, self._shapings)

    def _form(self, rows: NDArray[Any] | Block) -> Any:
        return form_of(rows.rows(), self._ragged) if isinstance(rows, Block) else rows


def _tuple_type(names: tuple[str, ...]) -> Any:
    """A named tuple type; fields are the last parts of the names where those are distinct
    identifiers.
    """
    last = [re.split("[/:]", name)[-1] for name in names]
    short = last if len(set(last)) == len(last) else [re.sub("[/:]", "_", name) for name in names]
    fields = [
        name
        if name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
        else f"source_{k}"
        for k, name in enumerate(short)
    ]
    if len(set(fields)) < len(fields):
        fields = [f"source_{k}" for k in range(len(fields))]
    return namedtuple("Batch", fields)
