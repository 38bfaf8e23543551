"""Where the rows of a source lie: frozen facts, no I/O.

A source is an array of shape ``(n_rows, *row_shape)``. Its rows lie in *chunks*: chunk ``c`` holds
the consecutive rows ``[c * chunk_rows, min((c + 1) * chunk_rows, n_rows))``, or ``[starts[c],
starts[c + 1])`` where chunks are uneven, and is what is read and decoded together. A format whose
chunk grid also cuts the row stores several *pieces* a chunk; what a plan counts as decoded are
pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "RaggedLayout"]


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
        is cut into virtual chunks of about 1 MiB of whole rows. Of uneven chunks, the most.
    rows_alone
        Whether a few rows can be read without reading their chunk (contiguous, or stored without
        filters).
    coded
        Where that holds for the rows of most chunks, the numbers of the others, ascending: those
        must be decoded. (Filters leave a chunk as it is that they cannot make smaller.) None: rows
        of no chunk can be read alone, or, with `rows_alone`, of all.
    piece_bytes
        Stored bytes of each piece, ``(n_chunks, pieces_per_chunk)``, 0 for a piece that is not
        stored (fill value). None for virtual chunks: their bytes are the rows' own, one piece each.
    read_overhead_bytes
        The most that one thread's ``read`` of one chunk holds beside its output: stored bytes and
        decoding buffers.
    kind
        ``"chunked"``, ``"contiguous"``, ``"compact"``, ``"memory"``, ``"streamed"`` (a chunk is
        reached through those before it), or ``"library"`` (read through another library).
    codec
        For people: ``"shuffle + gzip(4)"``; empty when nothing is to be decoded.
    parallel
        Whether reads from several threads run at once (False under a library's lock).
    in_flight
        Reads that are worth having under way at once: 1 where bytes are near, and reading keeps a
        core busy; more where each read waits for a network.
    checked
        Whether `read` compares each chunk with a checksum that was noted when it was written. Rows
        that are read alone are not compared: it would take their whole chunk.
    starts
        Of uneven chunks (several files as one): the first row of each and the end, strictly
        ascending from 0, ``(n_chunks + 1,)``. None where all but the last have `chunk_rows`.

    >>> layout = Layout(shape=(250, 3), dtype=np.dtype("u1"), chunk_rows=100)
    >>> layout.n_chunks, layout.bounds(2), layout.row_bytes
    (3, (200, 250), 3)
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_rows: int
    rows_alone: bool = False
    coded: NDArray[np.int64] | None = field(default=None, repr=False)
    piece_bytes: NDArray[np.uint32] | None = field(default=None, repr=False)
    read_overhead_bytes: int = 0
    kind: str = "chunked"
    codec: str = ""
    parallel: bool = True
    in_flight: int = 1
    checked: bool = False
    starts: NDArray[np.int64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert self.shape
        assert self.chunk_rows >= 1
        assert self.starts is None or self.starts[-1] == self.shape[0]
        assert self.coded is None or not self.rows_alone

    @property
    def n_rows(self) -> int:
        """Rows of the source."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def some_alone(self) -> bool:
        """Whether rows of all chunks, or of all but the `coded` ones, can be read alone."""
        return self.rows_alone or self.coded is not None

    def is_coded(self, chunks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which chunks must be read as a whole for any of their rows, ``(n,)``.

        >>> Layout((9,), np.dtype("u1"), 3, coded=np.array([2])).is_coded(np.array([0, 2, 2, 1]))
        array([False,  True,  True, False])
        """
        coded = np.arange(0) if self.rows_alone else self.coded
        if coded is None:
            return np.ones(len(chunks), dtype=np.bool_)
        places = np.searchsorted(coded, chunks)
        found = places < len(coded)
        found[found] = coded[places[found]] == chunks[found]
        return found

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
        if self.starts is not None:
            return len(self.starts) - 1
        return -(-self.n_rows // self.chunk_rows)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Half-open range of the rows of one chunk."""
        if self.starts is not None:
            return int(self.starts[chunk]), int(self.starts[chunk + 1])
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.n_rows)

    def chunks_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chunk that holds each row, ``(n,)``."""
        if self.starts is not None:
            return np.searchsorted(self.starts, rows, side="right") - 1
        return rows // self.chunk_rows

    def chunk_of(self, row: int) -> int:
        """The chunk that holds a row.

        >>> Layout((250,), np.dtype("u1"), 130, starts=np.array([0, 100, 230, 250])).chunk_of(230)
        2
        """
        if self.starts is not None:
            return int(np.searchsorted(self.starts, row, side="right")) - 1
        return row // self.chunk_rows

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
        if self.starts is not None:
            return np.diff(self.starts)
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


@dataclass(frozen=True, eq=False)
class RaggedLayout:
    """Frozen facts of a source whose rows differ in length.

    Row ``r`` is made of the items ``[offsets[r], offsets[r + 1])`` of each *column*: one column of
    values, or ``data`` and ``indices`` where rows are sparse.

    Parameters
    ----------
    offsets
        Not descending, from 0, ``(n_rows + 1,)``.
    columns
        Layout of each column, ``(n_items, *item_shape)``, by name; all have ``offsets[-1]`` items.
    n_columns
        Of sparse rows: the width of the matrix. None for others.

    >>> values = Layout(shape=(5,), dtype=np.dtype("i4"), chunk_rows=4)
    >>> layout = RaggedLayout(np.array([0, 2, 2, 5]), {"values": values})
    >>> layout.n_rows, layout.lengths.tolist(), layout.item_bytes
    (3, [2, 0, 3], 4)
    """

    offsets: NDArray[np.int64] = field(repr=False)
    columns: Mapping[str, Layout]
    n_columns: int | None = None

    def __post_init__(self) -> None:
        assert self.columns
        assert all(column.n_rows == self.offsets[-1] for column in self.columns.values())

    @property
    def kind(self) -> str:
        """``"ragged"`` or ``"sparse"``."""
        return "ragged" if self.n_columns is None else "sparse"

    @property
    def n_rows(self) -> int:
        """Rows of the source."""
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_rows,)``, or ``(n_rows, n_columns)`` of sparse rows."""
        return (self.n_rows,) if self.n_columns is None else (self.n_rows, self.n_columns)

    @property
    def dtype(self) -> np.dtype:
        """Of the first column."""
        return next(iter(self.columns.values())).dtype

    @property
    def codec(self) -> str:
        """Of the first column."""
        return next(iter(self.columns.values())).codec

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items of each row, ``(n_rows,)``: made at each asking."""
        return np.diff(self.offsets)

    @property
    def parallel(self) -> bool:
        """Whether reads of all columns from several threads run at once."""
        return all(column.parallel for column in self.columns.values())

    @property
    def in_flight(self) -> int:
        """The most of any column."""
        return max(column.in_flight for column in self.columns.values())

    @property
    def read_overhead_bytes(self) -> int:
        """The most of any column."""
        return max(column.read_overhead_bytes for column in self.columns.values())

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of one full chunk, the most of any column."""
        return max(column.chunk_bytes for column in self.columns.values())

    @property
    def item_bytes(self) -> int:
        """Decoded bytes of one item in all columns."""
        return sum(column.row_bytes for column in self.columns.values())

    @property
    def row_bytes(self) -> int:
        """Decoded bytes of a row on average, rounded up."""
        return -(-self.decoded_bytes // max(self.n_rows, 1))

    @property
    def decoded_bytes(self) -> int:
        """Decoded bytes of all columns."""
        return sum(column.decoded_bytes for column in self.columns.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes that reading all columns once reads."""
        return sum(column.stored_bytes for column in self.columns.values())
