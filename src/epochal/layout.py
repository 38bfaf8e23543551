"""Where the rows of a source lie: frozen facts, no I/O.

A source is an array of shape ``(n_rows, *row_shape)``. Its rows lie in *chunks*: chunk ``c`` holds
the consecutive rows ``[c * chunk_rows, min((c + 1) * chunk_rows, n_rows))`` and is what is read and
decoded together. A format whose chunk grid also cuts the row stores several *pieces* a chunk; what
a plan counts as decoded are pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Frozen facts of one source.

    Parameters
    ----------
    shape
        ``(n_rows, *row_shape)``.
    dtype
        What a read returns, byte order included.
    chunk_rows
        Rows that are decoded together, at least 1. A source without chunks (contiguous, in memory)
        is cut into virtual chunks of about 1 MiB of whole rows.
    rows_alone
        Whether a few rows can be read without reading their chunk (contiguous, or stored without
        filters).
    piece_bytes
        Stored bytes of each piece, ``(n_chunks, pieces_per_chunk)``, 0 for a piece that is not
        stored (fill value). None for virtual chunks: their bytes are the rows' own, one piece each.
    read_overhead_bytes
        The most that one thread's ``read`` of one chunk holds beside its output: stored bytes and
        decoding buffers.
    kind
        ``"chunked"``, ``"contiguous"``, ``"compact"``, ``"memory"``, or ``"library"`` (read through
        another library).
    codec
        For people: ``"shuffle + gzip(4)"``; empty when nothing is to be decoded.
    parallel
        Whether reads from several threads run at once (False under a library's lock).

    >>> layout = Layout(shape=(250, 3), dtype=np.dtype("u1"), chunk_rows=100)
    >>> layout.n_chunks, layout.bounds(2), layout.row_bytes
    (3, (200, 250), 3)
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int
    rows_alone: bool = False
    piece_bytes: NDArray[np.uint32] | None = field(default=None, repr=False)
    read_overhead_bytes: int = 0
    kind: str = "chunked"
    codec: str = ""
    parallel: bool = True

    def __post_init__(self) -> None:
        assert self.shape
        assert self.chunk_rows >= 1

    @property
    def n_rows(self) -> int:
        """Rows of the source."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @cached_property
    def row_bytes(self) -> int:
        """Decoded bytes of one row."""
        return prod(self.row_shape) * self.dtype.itemsize

    @property
    def decoded_bytes(self) -> int:
        """Decoded bytes of the whole source."""
        return self.n_rows * self.row_bytes

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of one full chunk's rows."""
        return min(self.chunk_rows, max(self.n_rows, 1)) * self.row_bytes

    @property
    def n_chunks(self) -> int:
        """Number of chunks, the last one maybe short."""
        return -(-self.n_rows // self.chunk_rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Half-open range of the rows of one chunk."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.n_rows)

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes that reading the whole source once reads."""
        return (
            int(self.chunk_stored_bytes.sum())
            if self.piece_bytes is not None
            else self.decoded_bytes
        )

    @property
    def chunk_stored_bytes(self) -> NDArray[np.int64]:
        """Bytes that reading each chunk reads, ``(n_chunks,)``: made at each asking, not held."""
        if self.piece_bytes is not None:
            return np.asarray(self.piece_bytes.sum(axis=1, dtype=np.int64))
        return self.chunk_row_counts * self.row_bytes

    @property
    def chunk_row_counts(self) -> NDArray[np.int64]:
        """Rows of each chunk, ``(n_chunks,)``."""
        rows = np.full(self.n_chunks, self.chunk_rows, dtype=np.int64)
        if self.n_chunks:
            rows[-1] = self.n_rows - (self.n_chunks - 1) * self.chunk_rows
        return rows

    def costs(self, start: int, stop: int) -> tuple[int, int]:
        """Stored bytes and stored pieces of the chunks ``[start, stop)``."""
        if self.piece_bytes is None:
            first, last = self.bounds(start)[0], self.bounds(stop - 1)[1]
            return (last - first) * self.row_bytes, stop - start
        pieces = self.piece_bytes[start:stop]
        return int(pieces.sum(dtype=np.int64)), int(np.count_nonzero(pieces))

    @property
    def chunk_pieces(self) -> NDArray[np.int64]:
        """Stored pieces of each chunk, ``(n_chunks,)``: what ``chunks_decoded`` counts."""
        if self.piece_bytes is None:
            return np.ones(self.n_chunks, dtype=np.int64)
        return np.asarray(np.count_nonzero(self.piece_bytes, axis=1), dtype=np.int64)
