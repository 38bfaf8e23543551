"""Stored chunks in random order, rows mixed within windows of a few: approximate."""

from __future__ import annotations

from functools import cached_property
from typing import final

import numpy as np

from epochal.errors import SchemeError
from epochal.schemes.legacy import LegacySeed
from epochal.schemes.orders import BatchOrder, Numbers, Order
from epochal.schemes.philox import Keys, Stream
from epochal.schemes.piles import KeyOrder, argsort_keys
from epochal.schemes.scheme import Request, Scheme

__all__ = ["DEFAULT_MIX_ROWS", "ChunkwiseShuffledSequential"]

# Fixed, so that an order never depends on the machine it was made on.
DEFAULT_MIX_ROWS = 16_384


@final
class ChunkwiseShuffledSequential(Scheme):
    """``chunkwise_shuffled_sequential``: chunks in uniformly random order, rows mixed within
    windows of chunks.

    The order of chunks is cut into windows of ``max(1, mix_rows // chunk_rows)`` chunks, and the
    rows of a window are in uniformly random order. One pass over the file, no scratch, memory for
    one window; every row once an epoch.

    What it costs in quality: a batch sees only as many places of the file as a window has chunks.
    Where neighbouring rows are alike, batches stay clumped. On 1,000,000 rows sorted into 100
    classes, 512 rows a chunk and batches of 256, the class counts of batches scatter 8.7 times as
    much as those of a true shuffle with 32 chunks a window (16,384 rows), 2.9 times with 128, and
    220 times with one. Rows already in random order lose nothing. `shuffled_sequential` has no such
    cost; use this one where not even scratch space is to be had.

    Parameters are those of `make`; `mix_rows` is `DEFAULT_MIX_ROWS` (16,384) unless given, whatever
    the memory. Holds the order of chunks and the last window, 8 bytes each chunk and row.
    """

    def _check(self, request: Request) -> None:
        if request.chunk_rows is None:
            raise SchemeError(
                "chunkwise_shuffled_sequential needs chunk_rows, the rows stored together: "
                "pass those of the largest source"
            )
        if isinstance(request.seed, LegacySeed):
            raise SchemeError(
                "chunkwise_shuffled_sequential is not an order of Pylearn2: give an integer seed"
            )

    def _make_order(self) -> WindowOrder:
        r = self._request
        assert r.chunk_rows is not None
        assert r.mix_rows is not None
        chunks = KeyOrder(self._keys(Stream.CHUNKS), -(-self.n_rows // r.chunk_rows), r.order_rows)
        window_chunks = max(1, r.mix_rows // r.chunk_rows)
        return WindowOrder(
            chunks, self._keys(Stream.MIXING), self.n_rows, r.chunk_rows, window_chunks
        )

    def window_bounds(self) -> Numbers:
        """Rank-local positions at which mixing windows end, ascending, ``(n_windows,)``."""
        order = self._order
        assert isinstance(order, WindowOrder)
        ends = np.minimum(order.window_ends(), self.limited_positions)
        counts = np.unique(self._deal.local_count(ends))
        return counts[counts > 0]


class WindowOrder(Order):
    """Chunks in the order of their keys; in each window of them, rows in the order of their
    positions' keys.

    Parameters
    ----------
    chunks
        The order of chunk numbers.
    mixing
        Keys of positions: position *p* of the unmixed order goes where key *p* ranks in its window.
    n_rows, chunk_rows, window_chunks
        Rows in all, rows of a chunk, chunks of a window.
    """

    def __init__(
        self, chunks: KeyOrder, mixing: Keys, n_rows: int, chunk_rows: int, window_chunks: int
    ) -> None:
        self._mixing = mixing
        self._n_rows = n_rows
        self._window_rows = window_chunks * chunk_rows
        self._chunks = chunks
        self._chunk_rows = chunk_rows
        self._last: tuple[int, Numbers] | None = None
        self.order_bytes = chunks.order_bytes + 8 * min(n_rows, self._window_rows)

    @cached_property
    def _short(self) -> tuple[int, int]:
        """Rows of the short chunk (0 for none), and its place in the order."""
        short = self._n_rows % self._chunk_rows
        return short, self._chunks.position_of(self._chunks.n_rows - 1) if short else 0

    @cached_property
    def _unmixed(self) -> BatchOrder:
        short, short_at = self._short
        return BatchOrder(self._chunks, self._chunk_rows, short, short_at)

    def window_start(self, windows: Numbers) -> Numbers:
        """Positions at which windows begin; past the last window, the end."""
        short, short_at = self._short
        starts = windows * self._window_rows
        if short:
            starts = starts - np.where(
                starts > short_at * self._chunk_rows, self._chunk_rows - short, 0
            )
        return np.minimum(starts, self._n_rows)

    def window_ends(self) -> Numbers:
        """Positions at which windows end, ``(n_windows,)``."""
        return self.window_start(np.arange(1, -(-self._n_rows // self._window_rows) + 1))

    def _windows(self, positions: Numbers) -> Numbers:
        """Windows that hold the positions."""
        window = positions // self._window_rows
        return window + (self.window_start(window + 1) <= positions)

    def _window(self, window: int) -> tuple[int, Numbers]:
        """Where window `window` begins, and its rows in order; the last one made is kept."""
        begin, end = self.window_start(np.array([window, window + 1])).tolist()
        last = self._last
        if last is not None and last[0] == window:
            return begin, last[1]
        rows = self._unmixed.take(np.arange(begin, end))
        rows = rows[argsort_keys(self._mixing.block(begin, end))]
        rows.flags.writeable = False
        self._last = (window, rows)
        return begin, rows

    def rows(self, start: int, stop: int) -> Numbers:
        """Rows at the positions ``[start, stop)``."""
        return self.take(np.arange(start, stop))

    def take(self, positions: Numbers) -> Numbers:
        """Rows at ascending positions: each window they touch is made once."""
        out = np.empty(len(positions), np.int64)
        windows = self._windows(positions)
        for number in np.unique(windows).tolist():
            part = slice(*np.searchsorted(windows, [number, number + 1]))
            begin, rows = self._window(number)
            out[part] = rows[positions[part] - begin]
        return out
