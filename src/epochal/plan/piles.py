"""Which pile a row goes to, and in which order a pile is served.

The spool writes every row once, into the pile its place in the order names, and serves pile after
pile. Two dealers name that place: `PositionDealer` knows every row's position (an inverse of the
order, a few bytes a row), so any order can be dealt; `KeyDealer` knows nothing but the implicit
keys of the exact shuffle, so an order of any number of rows can. Both deal a record's *head* with
it: ``(place, row)``, two unsigned 64-bit integers.

The scheme is the external-memory permutation of Rao (1961) and Sandelius (1962): deal at random
into piles, then shuffle each pile; here the deal and the shuffle are both read off one sort key.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal.plan.order import Order, Rows
from epochal.schemes.piles import argsort_keys

__all__ = ["HEAD_BYTES", "Deal", "Dealer", "KeyDealer", "PositionDealer", "dealer_bytes"]

HEAD_BYTES = 16
REPEATING = {"random_slice", "random_uniform"}  # schemes in which a row may come more than once
Heads = NDArray[np.uint64]  # (n_records, 2): place, row


class Deal:
    """What becomes of a block of rows.

    Parameters
    ----------
    local
        Rows of the block that are dealt, counted from its first row, ``(n_records,)``; None for
        each row once.
    piles
        Pile of each record, ``(n_records,)``.
    heads
        ``(n_records, 2)``: place in the order, and row of the file.
    """

    __slots__ = ("heads", "local", "piles")

    def __init__(self, local: Rows | None, piles: NDArray[np.uint16], heads: Heads) -> None:
        self.local = local
        self.piles = piles
        self.heads = heads


class Dealer(Protocol):
    """Deals blocks of rows into piles, and orders a pile once it is whole."""

    n_piles: int
    unique: bool  # whether no row has two places

    def deal(self, start_row: int, stop_row: int) -> Deal:
        """Deal the consecutive file rows ``[start_row, stop_row)``."""
        ...

    def deal_rows(self, rows: NDArray[np.uint64]) -> Deal:
        """Deal file rows that lie in any order, each once."""
        ...

    def places(self, batch: int) -> tuple[int, int]:
        """Places of one batch in the dealt order, half-open."""
        ...

    def index(self, heads: Heads, first_place: int) -> Rows:
        """Record numbers of one whole pile in the order of their places, ``(n_records,)``."""
        ...

    def rows(self, start: int, stop: int) -> Rows | None:
        """File rows of the places ``[start, stop)``; None where only the heads of records tell."""
        ...


def dealer_bytes(order: Order, start: int, n_rows: int) -> int:
    """What a `PositionDealer` holds at most while it is made, beside the order itself."""
    n_places = order.n_positions - start
    place = 4 if order.n_positions < 2**32 - 1 else 8
    inverse, rows = (place + 1) * n_rows, 8 * n_places
    if order.each_row_once or order.scheme.name not in REPEATING:
        return inverse + rows
    return max(inverse + rows, 3 * rows + place * n_places)


class PositionDealer:
    """Deals by known positions: for any order, repeats and gaps included. Holds 4 to 16 bytes a
    row.

    Parameters
    ----------
    order
        The epoch's order.
    start
        First position that is wanted; earlier ones are not dealt.
    pile_rows
        Positions of one pile.
    """

    def __init__(self, order: Order, start: int, pile_rows: int, n_rows: int) -> None:
        self._order = order
        self._start = start
        self.pile_rows = pile_rows
        n_places = order.n_positions - start
        self.n_piles = max(1, -(-n_places // pile_rows))
        self.pile_starts = np.minimum(np.arange(self.n_piles + 1) * pile_rows, n_places) + start
        rows = order.row_array(start, order.n_positions)
        kind = np.uint32 if order.n_positions < 2**32 - 1 else np.uint64
        self._absent = int(np.iinfo(kind).max)
        self._inverse: NDArray[np.unsignedinteger] | None = None
        self.unique = False
        inverse: NDArray[np.unsignedinteger] = np.full(n_rows, self._absent, dtype=kind)
        inverse[rows] = np.arange(start, order.n_positions, dtype=kind)
        if int(np.count_nonzero(inverse != self._absent)) == n_places:
            self._inverse = inverse
            self.unique = True
        else:  # repeated rows: a row has several positions
            del inverse
            by_row = np.argsort(rows, kind="stable")
            self._rows = rows[by_row]
            self._positions = (by_row + start).astype(kind)

    def deal(self, start_row: int, stop_row: int) -> Deal:
        """Deal the consecutive file rows ``[start_row, stop_row)``."""
        local: Rows | None
        positions: NDArray[Any]
        if self._inverse is not None:
            positions = self._inverse[start_row:stop_row]
            wanted = positions != self._absent
            local = None
            if not wanted.all():
                local = np.flatnonzero(wanted)
                positions = positions[local]
        else:
            low, high = np.searchsorted(self._rows, [start_row, stop_row])
            positions = self._positions[low:high]
            local = self._rows[low:high] - start_row
        heads = np.empty((len(positions), 2), dtype=np.uint64)
        heads[:, 0] = positions
        heads[:, 1] = np.arange(start_row, stop_row) if local is None else local + start_row
        return Deal(local, self._piles(heads), heads)

    def deal_rows(self, rows: NDArray[np.uint64]) -> Deal:
        """Deal file rows that lie in any order; only for an order in which each row comes once."""
        assert self._inverse is not None
        heads = np.empty((len(rows), 2), dtype=np.uint64)
        heads[:, 0] = self._inverse[rows]
        heads[:, 1] = rows
        return Deal(None, self._piles(heads), heads)

    def _piles(self, heads: Heads) -> NDArray[np.uint16]:
        return ((heads[:, 0] - np.uint64(self._start)) // np.uint64(self.pile_rows)).astype(
            np.uint16
        )

    def places(self, batch: int) -> tuple[int, int]:
        """Positions of one batch."""
        return self._order.bounds(batch)

    def index(self, heads: Heads, first_place: int) -> Rows:
        """Record numbers by position: a scatter, no sort."""
        index = np.empty(len(heads), dtype=np.int64)
        index[(heads[:, 0] - np.uint64(first_place)).view(np.int64)] = np.arange(len(heads))
        return index

    def rows(self, start: int, stop: int) -> Rows | None:
        """File rows of the positions ``[start, stop)``."""
        return self._order.row_array(start, stop)


class KeyDealer:
    """Deals by the implicit keys of the exact shuffle: any number of rows, nothing held a row.

    Places are global positions; other ranks' rows are dealt too and passed over when served.
    """

    def __init__(self, order: Order, n_piles: int) -> None:
        keys = order.scheme.keys
        assert keys is not None
        assert n_piles <= 1 << 16
        self._order = order
        self._keys = keys
        self.n_piles = n_piles
        self.unique = True

    def deal(self, start_row: int, stop_row: int) -> Deal:
        """Deal the consecutive file rows ``[start_row, stop_row)``."""
        first, last = self._order.view_range(start_row, stop_row)
        selection = self._order.selection
        heads = np.empty((last - first, 2), dtype=np.uint64)
        heads[:, 0] = self._keys.block(first, last)
        local: Rows | None = None
        if selection is not None:
            local = selection[first:last] - start_row
            heads[:, 1] = selection[first:last]
        else:
            heads[:, 1] = np.arange(start_row, stop_row)
        return Deal(local, self._piles(heads), heads)

    def deal_rows(self, rows: NDArray[np.uint64]) -> Deal:
        """Deal file rows that lie in any order."""
        selection = self._order.selection
        file_rows = rows.astype(np.int64)
        view_rows = file_rows if selection is None else np.searchsorted(selection, file_rows)
        heads = np.empty((len(rows), 2), dtype=np.uint64)
        heads[:, 0] = self._keys.at(view_rows)
        heads[:, 1] = rows
        return Deal(None, self._piles(heads), heads)

    def _piles(self, heads: Heads) -> NDArray[np.uint16]:
        # Multiply-shift of the leading 32 bits: monotone in the key, equal ranges for any number of
        # piles.
        return (((heads[:, 0] >> np.uint64(32)) * np.uint64(self.n_piles)) >> np.uint64(32)).astype(
            np.uint16
        )

    def places(self, batch: int) -> tuple[int, int]:
        """Global positions of one batch of this rank."""
        start, stop = self._order.bounds(batch)
        if stop == start:
            return 0, 0
        first = int(self._order.scheme.global_position(np.array([start], dtype=np.int64))[0])
        return first, first + stop - start

    def index(self, heads: Heads, first_place: int) -> Rows:
        """Record numbers by ``(key, row)``."""
        order = argsort_keys(np.ascontiguousarray(heads[:, 0]))
        keys = heads[order, 0]
        if (keys[1:] == keys[:-1]).any():  # once in about 2**64 / n**2 shuffles: the row decides
            order = np.lexsort((heads[:, 1], heads[:, 0]))
        return order

    def rows(self, start: int, stop: int) -> Rows | None:
        """None: which rows have the keys of a pile is not known without making all keys."""
        return None
