"""What an input answers: rows in its own order, from any of them on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.casting import keeps
from epochal.errors import MismatchError, SourceNameError

__all__ = ["BLOCK_BYTES", "Block", "Input", "InputSource", "Stacked", "chosen"]

BLOCK_BYTES = 4 << 20  # of rows that are held at once, about
NUMBERS = "biuf"

Block = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InputSource:
    """One source: what its rows look like."""

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype


class Input(Protocol):
    """Rows of named sources. Its name is for people."""

    name: str
    sources: Mapping[str, InputSource]
    rows: int | None
    attrs: Mapping[str, Any]

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Blocks of rows from row `start` on, of all sources equally many: the tail of what it
        yields from the first row on, cut otherwise.
        """
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


def chosen(name: str, there: Iterable[str], sources: Sequence[str] | None) -> list[str]:
    """The names that were asked for, or all."""
    known = list(there)
    if sources is None:
        return known
    names = [sources] if isinstance(sources, str) else list(sources)
    for each in names:
        if each not in known:
            near = difflib.get_close_matches(each, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise SourceNameError(f"no column {each!r} in {name}: {hint}")
    return names


class Stacked:
    """An input with some of its columns joined to matrices: ``{"X": ["a", "b"]}``, or ``"*"`` for
    all numbers that are nowhere else. Of `sources`, which name matrices and columns, those are
    made; without any, all matrices and the columns that are in none.
    """

    def __init__(
        self,
        given: Input,
        stack: Mapping[str, Sequence[str] | str],
        sources: Sequence[str] | None = None,
    ) -> None:
        self._given = given
        self._named = set() if sources is None else {*sources}
        self.name, self.rows = given.name, given.rows
        attrs = dict(given.attrs)
        self.attrs: Mapping[str, Any] = attrs
        self._stack = {name: self._columns(name, columns, stack) for name, columns in stack.items()}
        taken = {column for columns in self._stack.values() for column in columns}
        rest = {name: source for name, source in given.sources.items() if name not in taken}
        clash = [name for name in self._stack if name in rest]
        if clash:
            raise MismatchError(f"stack= makes {clash[0]!r}, which {self.name} has a column of")
        joined = {name: self._joined(name, columns) for name, columns in self._stack.items()}
        known = {**given.sources, **joined}
        names = [*joined, *rest] if sources is None else chosen(self.name, known, sources)
        self.sources: Mapping[str, InputSource] = {name: known[name] for name in names}
        for name, columns in self._stack.items():
            if name in self.sources:
                attrs[f"{name}_columns"] = columns

    def _columns(
        self, name: str, columns: Sequence[str] | str, stack: Mapping[str, Sequence[str] | str]
    ) -> list[str]:
        known = self._given.sources
        if columns != "*":
            wanted = [columns] if isinstance(columns, str) else list(columns)
            return chosen(self.name, known, wanted)
        named = {c for each in stack.values() if each != "*" for c in each} | self._named
        found = [n for n, s in known.items() if n not in named and s.dtype.kind in NUMBERS]
        if not found:
            raise MismatchError(f"stack={{{name!r}: '*'}}: {self.name} has no columns of numbers")
        return found

    def _joined(self, name: str, columns: list[str]) -> InputSource:
        sources = [self._given.sources[column] for column in columns]
        odd = [s.name for s in sources if s.row_shape or s.dtype.kind not in NUMBERS]
        if odd or not sources:
            raise MismatchError(f"stack= joins columns of numbers; {odd[0] if odd else 'none'!r}")
        dtype = np.result_type(*(source.dtype for source in sources))
        return InputSource(name, (len(columns),), dtype)

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Input`."""
        for block in self._given.blocks(start):
            made: Block = {}
            for name, source in self.sources.items():
                columns = self._stack.get(name)
                if columns is None:
                    made[name] = block[name]
                    continue
                rows = np.empty((len(block[columns[0]]), len(columns)), source.dtype)
                for k, column in enumerate(columns):
                    self._check_kept(name, column, block[column])
                    rows[:, k] = block[column]
                made[name] = rows
            yield made

    def _check_kept(self, name: str, column: str, rows: NDArray[Any]) -> None:
        """Refuse whole numbers that joining to floats would round."""
        dtype = self.sources[name].dtype
        if not keeps(rows, dtype):
            raise MismatchError(
                f"{self.name}: stack= joins column {column!r} of {rows.dtype} to {name!r} of "
                f"{dtype}, which does not hold its whole numbers exactly: leave it out of that, or "
                "join it to whole numbers alone"
            )

    def close(self) -> None:
        """See `Input`."""
        self._given.close()
