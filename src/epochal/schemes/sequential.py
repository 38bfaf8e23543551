"""Rows in the order in which they are stored."""

from __future__ import annotations

from typing import ClassVar, final

from epochal.schemes.deal import even_cut
from epochal.schemes.orders import Order, StraightOrder
from epochal.schemes.scheme import Scheme

__all__ = ["EvenSequential", "Sequential"]


class Sequential(Scheme):
    """``sequential``: rows 0, 1, 2, ...; batches are slices. Holds nothing; ignores a seed."""

    monotone: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def _make_order(self) -> Order:
        return StraightOrder()


@final
class EvenSequential(Sequential):
    """``even_sequential``: `sequential` without the last short global batch."""

    def _sizes(self) -> tuple[int, int]:
        return even_cut(*self._asked)
