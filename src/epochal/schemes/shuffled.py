"""Rows in exactly uniform random order."""

from __future__ import annotations

from dataclasses import replace
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from epochal.errors import SchemeError
from epochal.schemes.deal import even_cut
from epochal.schemes.legacy import Draw, LegacySeed, shuffled
from epochal.schemes.orders import ArrayOrder, Order
from epochal.schemes.philox import Keys, Stream
from epochal.schemes.piles import KeyOrder
from epochal.schemes.scheme import Scheme, checked_int

__all__ = ["EvenShuffledSequential", "ShuffledSequential"]


class ShuffledSequential(Scheme):
    """``shuffled_sequential``: the rows sorted by ``(key, row)``, where a row's key is its Philox
    output.

    Every permutation is equally likely, up to the generator, in every epoch anew; the order is a
    function of ``(seed, epoch)`` and the number of rows alone. Holds the order if it has at most
    `ORDER_ROWS` rows; else one pile of about so many, made by one pass over all keys (about 4 ns a
    row and pile), and a table of counts. With a `RandomState` it is Pylearn2's order, held whole.
    """

    def _make_order(self) -> Order:
        seed = self._request.seed
        if isinstance(seed, LegacySeed):
            draw = self.legacy_draw()
            return ArrayOrder(lambda: seed.order(self.epoch, draw), 8 * self.n_rows)
        return KeyOrder(self._keys(Stream.ROWS), self.n_rows, self._request.order_rows)

    def legacy_draw(self) -> Draw[NDArray[np.int64]]:
        """See `Scheme`."""
        return shuffled(self.n_rows)

    @property
    def keys(self) -> Keys | None:
        """The implicit keys by which rows are sorted; None for Pylearn2's order."""
        return None if isinstance(self._request.seed, LegacySeed) else self._keys(Stream.ROWS)

    def holding(self, order_rows: int) -> Self:
        """The same order, made with about `order_rows` row numbers in memory, 8 bytes each."""
        limit = checked_int("order_rows", order_rows, 1, 2**62)
        return type(self)(replace(self._request, order_rows=limit))

    @property
    def _piles(self) -> KeyOrder:
        if isinstance(self._order, KeyOrder):
            return self._order
        raise SchemeError("the order of a RandomState has no piles: give an integer seed")

    @property
    def n_piles(self) -> int:
        """Ranges of the key space that are sorted one at a time; 1 if the whole order is held."""
        return self._piles.n_piles

    @property
    def pile_starts(self) -> NDArray[np.int64]:
        """Global positions at which piles begin, and the end, ``(n_piles + 1,)``."""
        return self._piles.pile_starts

    def pile(self, j: int) -> NDArray[np.int64]:
        """Rows of pile `j` in order, read-only."""
        return self._piles.pile(j)


@final
class EvenShuffledSequential(ShuffledSequential):
    """``even_shuffled_sequential``: `shuffled_sequential` without the last short global batch.

    The rows left out are others in every epoch.
    """

    def _sizes(self) -> tuple[int, int]:
        return even_cut(*self._asked)
