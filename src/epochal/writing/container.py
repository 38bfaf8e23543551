"""What a file format answers to a writer: the seam between `Writer` and the formats.

A container lives at a name of its own (`epochal.writing.target`) until it is published; whoever
makes one gives it that name. A new flavour is one module with a class of this shape, and its row in
`epochal.writing.flavours`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bytes", "Container", "Encode", "Progress"]

Bytes = NDArray[np.uint8]
Encode = Callable[[NDArray[Any]], Bytes]


@dataclass
class Progress:
    """How far a container is.

    Parameters
    ----------
    rows
        Rows of each source so far; all sources have equally many once it is finished.
    sums
        CRC-32 of the stored bytes of each chunk so far, by source, ``(n_chunks,)`` uint32; None
        where no manifest is wanted.
    attrs
        The user's own attributes of the whole: strings, numbers, small arrays.
    kept
        What is kept in the file besides, by name (a fitted transform), as bytes. One ``.npy`` file
        has no place for any.
    """

    rows: int = 0
    sums: Mapping[str, NDArray[np.uint32]] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)


class Container(Protocol):
    """Chunks of sources on their way to a file. What `encoder` gives runs on many threads at once,
    all else on the writer's own.
    """

    def encoder(self, source: str) -> Encode:
        """What makes of a chunk what is stored: picklable. It takes its rows, ``(n, *row_shape)``
        C-contiguous, as many as a chunk has or, in the last, fewer (a format with chunks of one
        size pads with zeros).
        """
        ...

    def put(self, source: str, chunk: int, stored: Bytes) -> None:
        """Store what an encoder made as that chunk, in any order of chunks, anew if it is there."""
        ...

    def get(self, source: str, chunk: int, out: NDArray[Any]) -> None:
        """The first ``len(out)`` rows of a chunk that was put."""
        ...

    def save(self, progress: Progress, *, final: bool) -> None:
        """Make what was put so far survive a kill, with `progress` in it; `final` ends the writing:
        afterwards the file is whole, and closed.
        """
        ...

    def abandon(self) -> None:
        """Close, whatever is there: somebody else removes it."""
        ...
