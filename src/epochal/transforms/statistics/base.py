"""What all statistics are, and the tally of rows that hold what is no number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError

__all__ = ["Numbers", "Statistics", "Tally", "tally_of"]

Numbers = NDArray[np.float64]
NAMED = 10  # rows that an error names


@dataclass(frozen=True)
class Tally:
    """How many rows there were, and which of them held NaN or infinity.

    >>> Tally(3, 1, (2,)).merge(Tally(5, 1, (0,)))
    Tally(n_rows=8, n_bad=2, bad_rows=(2, 3))
    """

    n_rows: int = 0
    n_bad: int = 0
    bad_rows: tuple[int, ...] = ()

    def merge(self, after: Tally) -> Tally:
        """Of these rows and those that come after them."""
        shifted = tuple(self.n_rows + row for row in after.bad_rows)
        return Tally(
            self.n_rows + after.n_rows,
            self.n_bad + after.n_bad,
            (*self.bad_rows, *shifted)[:NAMED],
        )


def tally_of(rows: NDArray[Any]) -> tuple[Tally, NDArray[np.bool_] | None]:
    """The tally of rows ``(n, d)``, and which numbers are finite; None where all are."""
    finite = np.isfinite(rows) if rows.dtype.kind in "fc" else None
    if finite is None or finite.all():
        return Tally(len(rows)), None
    bad = np.flatnonzero(~finite.all(axis=1))
    return Tally(len(rows), len(bad), tuple(bad[:NAMED].tolist())), finite


class Statistics(ABC):
    """What is collected in a pass over rows, in bounded memory.

    `piece` runs on the threads that read, `add` in the order of the rows on one of them. A block
    is ``(n, n_columns)``.
    """

    KIND: ClassVar[str]
    least_rows: ClassVar[int] = 1  # of a block that is worth a call
    block_bytes: ClassVar[int] = 3 << 20  # decoded rows of a block

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns
        self.tally = Tally()

    @classmethod
    def empty(cls, n_columns: int, arrays: Mapping[str, NDArray[Any]]) -> Statistics:
        """One that `arrays` will be put into."""
        return cls(n_columns)

    @abstractmethod
    def piece(self, block: NDArray[Any]) -> Any:
        """What `add` takes of a block."""

    @abstractmethod
    def add(self, piece: Any) -> None:
        """Take a piece in."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what was collected of the rows that come after."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it is, to be stored."""

    def take(self, block: NDArray[Any]) -> None:
        """Take in a block."""
        self.add(self.piece(block))

    def check(self, other: Statistics) -> None:
        """Refuse what cannot be merged."""
        if type(self) is not type(other) or self.n_columns != other.n_columns:
            raise MismatchError(
                f"{self.KIND} of {self.n_columns} columns cannot be merged with {other.KIND} of "
                f"{other.n_columns}"
            )
