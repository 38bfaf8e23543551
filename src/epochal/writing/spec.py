"""What a source that is written looks like, and whether rows fit it: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from epochal.casting import keeps
from epochal.errors import MismatchError
from epochal.sizes import show

__all__ = [
    "CHUNK_BYTES",
    "COMPRESSIONS",
    "Compression",
    "SourceSpec",
    "block_of",
    "check_together",
    "chunk_rows_for",
]

CHUNK_BYTES = 1 << 20  # of whole rows, as `SourceSpec.chunk_rows` is chosen
MAX_CHUNK_BYTES = (4 << 30) - 1  # what HDF5 can address in a chunk
COMPRESSIONS = ("gzip", "zstd", "lz4", "blosc", "blosc2")
LEVEL_BOUNDS = {"gzip": (0, 9), "zstd": (-131072, 22), "blosc": (0, 9), "blosc2": (0, 9)}


@dataclass(frozen=True)
class Compression:
    """How chunks are stored.

    Parameters
    ----------
    name
        One of `COMPRESSIONS`, or None: as they are.
    shuffle
        Whether the bytes of items are sorted by significance first.
    level
        Of the codec; None is its own usual one.
    """

    name: str | None = "gzip"
    shuffle: bool = False
    level: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in COMPRESSIONS:
            raise MismatchError(
                f"compression={self.name!r} is not known: give one of {', '.join(COMPRESSIONS)}, "
                "or None"
            )
        least, most = LEVEL_BOUNDS.get(self.name or "", (0, 0))
        if self.level is not None and not least <= self.level <= most:
            has = f"which has {least} to {most}" if most else "which has none: leave it out"
            raise MismatchError(f"level={self.level} of compression={self.name!r}, {has}")


@dataclass(frozen=True)
class SourceSpec:
    """One source to be written: rows of one shape and dtype, `chunk_rows` of them stored together.

    >>> SourceSpec("X", (3,), np.dtype("f4"), chunk_rows=10).chunk_bytes
    120
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int
    compression: Compression = Compression()

    def __post_init__(self) -> None:
        if self.dtype.hasobject or self.dtype.itemsize == 0:
            raise MismatchError(
                f"source {self.name!r}: dtype {self.dtype} has no fixed size in bytes; "
                "give a number, a structure of numbers, or strings such as 'S16'"
            )
        if self.chunk_rows < 1:
            raise MismatchError(f"source {self.name!r}: chunk_rows={self.chunk_rows}, at least 1")
        if self.chunk_bytes > MAX_CHUNK_BYTES:
            raise MismatchError(
                f"source {self.name!r}: chunks of {self.chunk_rows} rows take "
                f"{show(self.chunk_bytes)}, at most 4 GiB can be stored together; "
                "give a smaller chunk_rows="
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as it is in memory."""
        return prod(self.row_shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a full chunk as it is in memory."""
        return self.chunk_rows * self.row_bytes


def chunk_rows_for(row_bytes: int, rows: int | None = None) -> int:
    """Rows of about `CHUNK_BYTES`, and no more than there are.

    >>> chunk_rows_for(3072), chunk_rows_for(8, rows=100), chunk_rows_for(1 << 24)
    (341, 100, 1)
    """
    fitting = max(1, CHUNK_BYTES // max(row_bytes, 1))
    return fitting if rows is None else max(1, min(fitting, rows))


def block_of(spec: SourceSpec, rows: ArrayLike) -> NDArray[Any]:
    """Rows as an array ``(n, *row_shape)``, not copied, that a cast to the source's dtype keeps.

    Raises
    ------
    MismatchError
        Of another shape, or of a dtype that the source's cannot hold without loss.
    """
    try:
        block = np.asarray(rows)
    except ValueError as error:  # rows that differ in length
        raise MismatchError(f"source {spec.name!r} takes equal rows: {error}") from None
    if block.ndim != 1 + len(spec.row_shape) or block.shape[1:] != spec.row_shape:
        raise MismatchError(
            f"source {spec.name!r} takes rows of shape {spec.row_shape}, as an array (n, "
            f"*{spec.row_shape}); found an array of shape {block.shape}"
        )
    if block.dtype != spec.dtype and not keeps(block, spec.dtype):
        raise MismatchError(
            f"source {spec.name!r} is {spec.dtype}, which cannot hold {block.dtype} without loss; "
            f"convert the rows yourself with .astype({str(spec.dtype)!r}) if that is meant"
        )
    return block


def check_together(blocks: Mapping[str, NDArray[Any]]) -> int:
    """How many rows each of the blocks has, which must be equally many.

    >>> check_together({"X": np.zeros((2, 3)), "y": np.zeros(2)})
    2
    """
    counts = {name: len(block) for name, block in blocks.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in counts.items())
        raise MismatchError(f"sources of one dataset have equally many rows: {told}")
    return next(iter(counts.values()), 0)
