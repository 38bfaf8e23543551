"""The one interface of all schemes, and what they share: config, batches, ranks."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from epochal.errors import SchemeError
from epochal.schemes.deal import Deal, EvenDeal, uneven_cut
from epochal.schemes.legacy import Draw, LegacySeed
from epochal.schemes.orders import Order, Rows
from epochal.schemes.philox import Keys, Stream

__all__ = ["Request", "Scheme", "checked_int", "checked_seed", "checked_shard", "digest"]

# Row numbers that a scheme may hold by itself, 8 bytes each: 32 MiB. More rows are ordered pile by
# pile.
ORDER_ROWS = 1 << 22


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that determines an order: the arguments of `make`, checked."""

    name: str
    n_rows: int
    batch_size: int | None
    num_batches: int | None
    seed: int | LegacySeed | None
    epoch: int
    rank: int
    world: int
    lengths: NDArray[np.int64] | None = None
    chunk_rows: int | None = None
    mix_rows: int | None = None
    order_rows: int = ORDER_ROWS
    seed_is_drawn: bool = False


class Scheme(ABC):
    """Which rows, in which order: a function of the batch number.

    A scheme never changes; `at` and `shard` return others. All positions are rank-local and count
    from 0 in the epoch. Arrays that are handed out may be read-only views. Pickles as its
    arguments.

    Attributes
    ----------
    name, n_rows, epoch, rank, world
        As they were asked.
    batch_size
        Rows of a full batch of one rank, also where only `num_batches` was given.
    seed
        The integer that was given or drawn; Pylearn2's generator state as a dict; None where
        nothing is random.
    monotone
        Whether rows ascend with position.
    """

    monotone: ClassVar[bool] = False
    stochastic: ClassVar[bool] = True

    def __init__(self, request: Request) -> None:
        self._request = request
        self._check(request)
        self.batch_size, self._n_global = self._sizes()

    def __getstate__(self) -> dict[str, Any]:
        return {"_request": self._request}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_request"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {self.n_positions} of {self.n_rows} rows in {len(self)} batches of "
            f"{self.batch_size}, epoch {self.epoch}, rank {self.rank} of {self.world}>"
        )

    def _check(self, request: Request) -> None:
        """Refuse arguments that this kind does not take: by default it takes all."""
        return

    def _sizes(self) -> tuple[int, int]:
        """Rows of one rank's full batch, and the number of global batches."""
        return uneven_cut(*self._asked)

    @property
    def _asked(self) -> tuple[int, int | None, int | None, int]:
        r = self._request
        return r.n_rows, r.batch_size, r.num_batches, r.world

    @abstractmethod
    def _make_order(self) -> Order:
        """The global order of this epoch."""

    def _make_deal(self) -> Deal:
        limited = min(self.n_rows, self._n_global * self._group)
        return EvenDeal.of(limited, self.batch_size, self.rank, self.world)

    @cached_property
    def _order(self) -> Order:
        return self._make_order()

    @cached_property
    def _deal(self) -> Deal:
        return self._make_deal()

    @property
    def _group(self) -> int:
        """Rows of a full global batch."""
        return self.batch_size * self.world

    def legacy_draw(self) -> Draw[Any]:
        """What Pylearn2's iterator of this kind draws from its `RandomState` in an epoch: the
        order, and whatever else leaves the generator where it left it.
        """
        return lambda rng: None

    def _keys(self, stream: Stream) -> Keys:
        assert isinstance(self._request.seed, int)
        return Keys(self._request.seed, self.epoch, stream)

    @property
    def name(self) -> str:
        """One of `epochal.schemes.NAMES`."""
        return self._request.name

    @property
    def n_rows(self) -> int:
        """Rows of the dataset."""
        return self._request.n_rows

    @property
    def epoch(self) -> int:
        """Which epoch this is the order of."""
        return self._request.epoch

    @property
    def rank(self) -> int:
        """Which of `world` parts of each global batch this scheme yields."""
        return self._request.rank

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self._request.world

    @property
    def seed(self) -> int | dict[str, Any] | None:
        """What `make` may be given to get the same order."""
        seed = self._request.seed
        return seed.as_dict() if isinstance(seed, LegacySeed) else seed

    @property
    def seed_is_drawn(self) -> bool:
        """Whether nobody chose it."""
        return self._request.seed_is_drawn

    @property
    def n_positions(self) -> int:
        """Rows that this rank yields in this epoch."""
        return self._deal.n_positions

    @property
    def limited_positions(self) -> int:
        """Leading positions of the global order that all ranks together yield."""
        return self._deal.limited_positions

    @property
    def order_bytes(self) -> int:
        """Bytes that this object holds, or will hold, to answer `rows`; 0 where arithmetic does."""
        return self._order.order_bytes

    @property
    def keys(self) -> Keys | None:
        """The implicit keys by which rows are sorted; None where they are not."""
        return None

    def window_bounds(self) -> NDArray[np.int64] | None:
        """Rank-local positions at which mixing windows end; None where the kind has no windows."""
        return None

    def __len__(self) -> int:
        return self._deal.n_batches

    def done(self, n_batches: int) -> int:
        """Global positions that are done after the rank's first `n_batches`: a cut of global
        batches.
        """
        return self._deal.group_end(n_batches - 1) if n_batches else 0

    def resumed(self, position: int) -> int | None:
        """The rank's batch that goes on where `done` says; None inside a global batch."""
        if not self._deal.is_cut(position):
            return None
        return self._deal.batch_after(position)

    def bounds(self, i: int) -> tuple[int, int]:
        """Positions ``[start, stop)`` of batch `i`, ``0 <= i < len(self)``."""
        if not 0 <= i < len(self):
            raise IndexError(f"batch {i} was asked; {self!r}")
        return self._deal.bounds(i)

    def rows(self, start: int, stop: int) -> Rows:
        """Row numbers at the positions ``[start, stop)``: a slice, or int64 ``(n,)``."""
        if not 0 <= start <= stop <= self.n_positions:
            raise IndexError(f"positions [{start}, {stop}) were asked; {self!r}")
        run = self._deal.run(start, stop)
        if run is not None:
            return self._order.rows(*run)
        return self._order.take(self.global_position(np.arange(start, stop)))

    def batch(self, i: int) -> Rows:
        """Row numbers of batch `i`."""
        return self.rows(*self.bounds(i))

    def global_position(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in the one global order of rank-local positions, ``(n,) -> (n,)``."""
        return self._deal.global_position(positions)

    def at(self, epoch: int) -> Self:
        """The same scheme in another epoch."""
        if epoch == self.epoch:
            return self
        return type(self)(replace(self._request, epoch=checked_int("epoch", epoch, 0, 2**64 - 1)))

    def seeded(self, seed: int | Mapping[str, Any]) -> Self:
        """The same scheme with another seed, which may be one of `config`."""
        chosen = checked_seed(seed)
        return type(self)(replace(self._request, seed=chosen, seed_is_drawn=False))

    def shard(self, rank: int, world: int) -> Self:
        """The same scheme for rank `rank` of `world`; `batch_size` stays what one rank gets."""
        rank, world = checked_shard((rank, world))
        return type(self)(replace(self._request, rank=rank, world=world))

    def config(self) -> dict[str, Any]:
        """The arguments of `make`, JSON-able; of `lengths`, which are the dataset's, a digest."""
        r = self._request
        return {
            "name": r.name,
            "n_rows": r.n_rows,
            "batch_size": r.batch_size,
            "num_batches": r.num_batches,
            "seed": self.seed,
            "epoch": r.epoch,
            "shard": [r.rank, r.world],
            "lengths": None if r.lengths is None else digest(r.lengths),
            "chunk_rows": r.chunk_rows,
            "mix_rows": r.mix_rows,
        }


def digest(lengths: NDArray[np.int64]) -> str:
    """What stands for an array of lengths in a config."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(lengths, "<i8").tobytes()).hexdigest()


def checked_shard(shard: object) -> tuple[int, int]:
    """``(rank, world)``, checked."""
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise SchemeError(f"shard={shard!r} was given; it is two whole numbers, (rank, world)")
    world = checked_int("world", shard[1], 1, 2**31)
    return checked_int("rank", shard[0], 0, world - 1), world


def checked_seed(seed: object) -> int | LegacySeed:
    """A seed that was given, checked."""
    if isinstance(seed, RandomState | Mapping):
        return LegacySeed(seed)
    if isinstance(seed, np.random.Generator):
        raise SchemeError(
            "seed is a numpy Generator; pass an integer: every epoch is then made alone"
        )
    return checked_int("seed", seed, 0, 2**64 - 1)


def checked_int(what: str, value: object, low: int, high: int) -> int:
    """`value` as an int of ``[low, high]``; a bool or a float is a mistake, not a number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise SchemeError(
            f"{what}={value!r} was given; {what} is a whole number: "
            f"pass an int from {low} to {high}"
        )
    if not low <= value <= high:
        raise SchemeError(f"{what}={value} was given; {what} must be from {low} to {high}")
    return int(value)
