"""Batches whose rows all have the same length."""

from __future__ import annotations

from functools import cached_property
from typing import final

import numpy as np

from epochal.errors import SchemeError
from epochal.schemes.deal import Deal, TableDeal
from epochal.schemes.legacy import Draw, LegacySeed, sequences
from epochal.schemes.orders import ArrayOrder, Numbers, Order
from epochal.schemes.philox import Keys, Stream
from epochal.schemes.piles import argsort_keys
from epochal.schemes.scheme import Request, Scheme

__all__ = ["EvenSequences"]


@final
class EvenSequences(Scheme):
    """``even_sequences``: every batch holds rows of one length; every row is seen once.

    Rows of one length are in uniformly random order, and so are the batches; of each length one
    batch may be short. Without `lengths` all rows have the same. With a `RandomState` it is
    Pylearn2's order: lengths in turn. Holds 16 bytes a row and 24 a batch; making it takes about
    three times as much.
    """

    def _check(self, request: Request) -> None:
        if request.batch_size is None or request.num_batches is not None:
            raise SchemeError(
                "even_sequences has as many batches as the lengths of the rows make: "
                "give batch_size and no num_batches "
                f"(batch_size={request.batch_size}, num_batches={request.num_batches} were given)"
            )

    def _sizes(self) -> tuple[int, int]:
        assert self._request.batch_size is not None
        return self._request.batch_size, 0

    @cached_property
    def _rows_and_starts(self) -> tuple[Numbers, Numbers]:
        r = self._request
        if isinstance(r.seed, LegacySeed):
            return r.seed.order(self.epoch, self.legacy_draw())
        keys = self._keys(Stream.LENGTHS), self._keys(Stream.LENGTH_BATCHES)
        return _by_keys(self._lengths, self._group, *keys)

    @property
    def _lengths(self) -> Numbers:
        """Of each row; where none were given they are all alike."""
        r = self._request
        return np.zeros(r.n_rows, np.int64) if r.lengths is None else r.lengths

    def legacy_draw(self) -> Draw[tuple[Numbers, Numbers]]:
        """See `Scheme`."""
        return sequences(self._lengths, self._group)

    def _make_deal(self) -> Deal:
        return TableDeal(self._rows_and_starts[1], self.rank, self.world)

    def _make_order(self) -> Order:
        rows, starts = self._rows_and_starts
        lengths = self._request.lengths
        held = rows.nbytes + (0 if lengths is None else lengths.nbytes) + 3 * starts.nbytes
        return ArrayOrder(lambda: rows, held)


def _by_keys(
    lengths: Numbers, group: int, row_keys: Keys, batch_keys: Keys
) -> tuple[Numbers, Numbers]:
    """Rows in order, and where batches begin in it and the end, ``(n_rows,), (n_batches + 1,)``."""
    shuffled = argsort_keys(row_keys.block(0, len(lengths)))
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    starts, sizes = _batches_of(np.unique(lengths, return_counts=True)[1], group)
    order = argsort_keys(batch_keys.block(0, len(starts)))
    starts, sizes = starts[order], sizes[order]
    ends = np.cumsum(sizes)
    begins = ends - sizes
    rows = by_length[np.repeat(starts - begins, sizes) + np.arange(len(lengths))]
    return rows, np.concatenate([[0], ends]).astype(np.int64)


def _batches_of(counts: Numbers, group: int) -> tuple[Numbers, Numbers]:
    """Starts and sizes of batches of at most `group`, none of which crosses from one count to the
    next.

    >>> [part.tolist() for part in _batches_of(np.array([5, 2]), 3)]
    [[0, 3, 5], [3, 2, 2]]
    """
    batches = -(-counts // group)
    number = np.arange(batches.sum()) - np.repeat(np.cumsum(batches) - batches, batches)
    starts = np.repeat(np.cumsum(counts) - counts, batches) + number * group
    sizes = np.minimum(group, np.repeat(counts, batches) - number * group)
    return starts, sizes
