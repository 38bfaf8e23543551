"""Rows drawn with replacement."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from epochal.errors import SchemeError
from epochal.schemes.deal import Deal, EvenDeal
from epochal.schemes.legacy import Draw, LegacySeed, uniform
from epochal.schemes.orders import ArrayOrder, Order, SliceOrder, UniformOrder
from epochal.schemes.philox import Stream
from epochal.schemes.scheme import Request, Scheme

__all__ = ["RandomSlice", "RandomUniform"]


class RandomUniform(Scheme):
    """``random_uniform``: every row of every batch is drawn uniformly, with replacement.

    Position *p* has the row that output *p* of the generator names. Holds nothing; with a
    `RandomState` Pylearn2's draws, 8 bytes a position.
    """

    def _check(self, request: Request) -> None:
        if request.batch_size is None or request.num_batches is None:
            raise SchemeError(
                f"{request.name} draws with replacement and has no natural end: "
                "give both batch_size and num_batches "
                f"(batch_size={request.batch_size}, num_batches={request.num_batches} were given)"
            )
        if request.n_rows == 0:
            raise SchemeError(f"{request.name} cannot draw from 0 rows")

    def _sizes(self) -> tuple[int, int]:
        r = self._request
        assert r.batch_size is not None
        assert r.num_batches is not None
        return r.batch_size, r.num_batches

    def _make_deal(self) -> Deal:
        return EvenDeal.of(self._n_global * self._group, self.batch_size, self.rank, self.world)

    def _make_order(self) -> Order:
        seed = self._request.seed
        if isinstance(seed, LegacySeed):
            draw = self.legacy_draw()
            return ArrayOrder(lambda: seed.order(self.epoch, draw), 8 * self.limited_positions)
        return UniformOrder(self._keys(Stream.UNIFORM), self.n_rows)

    def legacy_draw(self) -> Draw[NDArray[np.int64]]:
        """See `Scheme`."""
        return uniform(self.n_rows, self.limited_positions)


@final
class RandomSlice(RandomUniform):
    """``random_slice``: every global batch is a slice that begins at a uniformly random row, with
    replacement.

    Every batch is a slice. Rows near both ends are in fewer slices than others, as in Pylearn2.
    Holds nothing; with a `RandomState` Pylearn2's draws, 8 bytes a batch.
    """

    def _check(self, request: Request) -> None:
        super()._check(request)
        rows = (request.batch_size or 0) * request.world
        if rows > request.n_rows:
            raise SchemeError(
                f"random_slice was asked for slices of {rows} rows "
                f"(batch_size={request.batch_size} on {request.world} rank(s)) "
                f"of {request.n_rows}: ask for smaller batches"
            )

    def _make_order(self) -> Order:
        seed = self._request.seed
        if isinstance(seed, LegacySeed):
            draw = self.legacy_draw()
            starts: Order = ArrayOrder(lambda: seed.order(self.epoch, draw), 8 * self._n_global)
        else:
            starts = UniformOrder(self._keys(Stream.SLICES), self._n_starts)
        return SliceOrder(starts, self._group)

    @property
    def _n_starts(self) -> int:
        """Rows at which a slice may begin."""
        return self.n_rows - self._group + 1

    def legacy_draw(self) -> Draw[NDArray[np.int64]]:
        """See `Scheme`."""
        return uniform(self._n_starts, self._n_global)
