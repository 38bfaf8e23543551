"""Stored batches in random order."""

from __future__ import annotations

from typing import final

import numpy as np

from epochal.schemes.deal import Deal, EvenDeal, even_cut
from epochal.schemes.legacy import Draw, LegacySeed, shuffled
from epochal.schemes.orders import ArrayOrder, BatchOrder, Numbers, Order
from epochal.schemes.philox import Stream
from epochal.schemes.piles import KeyOrder
from epochal.schemes.scheme import Scheme

__all__ = ["BatchwiseShuffledSequential", "EvenBatchwiseShuffledSequential"]


class BatchwiseShuffledSequential(Scheme):
    """``batchwise_shuffled_sequential``: runs of consecutive rows in uniformly random order.

    Every global batch is one run, so every batch is a slice. The short batch comes wherever
    chance puts it. Rows that are stored together stay together in every epoch. With fewer
    `num_batches` than there are, those are a random choice of all; Pylearn2's, with a
    `RandomState`, are the first of the file. Holds the order of batches, 8 bytes each.
    """

    @property
    def _n_shuffled(self) -> int:
        """Global batches among which those that are yielded are chosen."""
        if isinstance(self._request.seed, LegacySeed):
            return self._n_global
        return -(-self.n_rows // self._group)

    def _make_batches(self) -> ArrayOrder | KeyOrder:
        seed = self._request.seed
        if isinstance(seed, LegacySeed):
            return ArrayOrder(self._legacy_batches, 8 * self._n_shuffled)
        return KeyOrder(self._keys(Stream.BATCHES), self._n_shuffled, self._request.order_rows)

    def _legacy_batches(self) -> Numbers:
        seed = self._request.seed
        assert isinstance(seed, LegacySeed)
        order = seed.order(self.epoch, self.legacy_draw())
        return order[order < self._n_shuffled]

    def legacy_draw(self) -> Draw[Numbers]:
        """See `Scheme`."""
        # Without a batch_size Pylearn2 shuffles as many batches as were asked for, though rounding
        # up may have made the last ones empty; those draw like the others and are then left out.
        return shuffled(self._request.num_batches or self._n_global)

    def _short(self) -> tuple[int, int]:
        """Rows of the short global batch, and its place; ``(0, n_global)`` if it is not yielded."""
        last = self._n_shuffled - 1
        short = self.n_rows - last * self._group
        if last < 0 or short >= self._group:
            return 0, self._n_global
        place = self._batches_place(last)
        return (short, place) if place < self._n_global else (0, self._n_global)

    def _batches_place(self, number: int) -> int:
        batches = self._make_batches()
        if isinstance(batches, KeyOrder):
            return batches.position_of(number)
        return int(np.flatnonzero(batches.whole() == number)[0])

    def _make_deal(self) -> Deal:
        short, place = self._short()
        full = self._n_global - (short > 0)
        return EvenDeal(self.batch_size, self.rank, self.world, full, short, place)

    def _make_order(self) -> Order:
        deal = self._deal
        assert isinstance(deal, EvenDeal)
        return BatchOrder(self._make_batches(), self._group, deal.short, deal.short_at)


@final
class EvenBatchwiseShuffledSequential(BatchwiseShuffledSequential):
    """``even_batchwise_shuffled_sequential``: full global batches only.

    The rows left over are the last of the file, in every epoch, as in Pylearn2.
    """

    def _sizes(self) -> tuple[int, int]:
        return even_cut(*self._asked)

    @property
    def _n_shuffled(self) -> int:
        if isinstance(self._request.seed, LegacySeed):
            return self._n_global
        return self.n_rows // self._group
