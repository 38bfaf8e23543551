"""One pass over a dataset, in the shapes of its data specs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.random import RandomState

from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.errors import MismatchError, SchemeError, SourceNameError
from epochal.spaces import CompositeSpace, Space, flat, nested

__all__ = ["DEFAULT_SEED", "DatasetIterator", "Format", "rng_of"]

DEFAULT_SEED = (17, 2, 946)
Format = Callable[[Any, Space], Any]  # rows as they are stored, as a batch of a space
IN_ORDER = ("sequential", "even_sequential")


def rng_of(rng: Any) -> RandomState:
    """A generator: the one that is given, or one of a seed (a number, or several); of None that of
    Pylearn2.

    Raises
    ------
    SchemeError
        It is neither.
    """
    if isinstance(rng, RandomState):
        return rng
    try:
        return RandomState(DEFAULT_SEED if rng is None else rng)
    except (TypeError, ValueError) as error:
        raise SchemeError(
            f"rng={rng!r}: give a numpy.random.RandomState, or a seed of one: {error}"
        ) from None


class DatasetIterator:
    """Batches of one epoch; an iterator, as Pylearn2's was: it ends once, and is then used up.

    Parameters
    ----------
    dataset
        What is read; its sources have the names that specs use.
    formats
        How rows of each source become a batch of a space.
    mode, batch_size, num_batches
        See `Dataset.batches`; sequential where no mode is given.
    rng, own_rng
        Of a random mode: a `RandomState`, or a seed of one; else the dataset's own. It is drawn
        from when the iterator is made, as much as Pylearn2's would draw in an epoch, and orders
        are Pylearn2's.
    data_specs
        Space and source of what a batch is.
    return_tuple
        Whether a batch of one source is a tuple, too.
    how
        ``memory``, ``scratch``, ``threads``, ``on_error`` as of `Dataset.batches`.

    Raises
    ------
    SchemeError
        No order can be made of these arguments.
    MismatchError, SourceNameError
        Data specs that do not fit the sources.
    """

    def __init__(
        self,
        dataset: Dataset,
        formats: Mapping[str, Format],
        *,
        mode: str | None = None,
        batch_size: int | None = None,
        num_batches: int | None = None,
        rng: Any = None,
        own_rng: RandomState,
        data_specs: tuple[Space, Any],
        return_tuple: bool = False,
        **how: Any,
    ) -> None:
        parts = flat(data_specs)
        space = data_specs[0]
        for _, source in parts:
            if source not in formats:
                raise SourceNameError(f"no source {source!r}: there are {', '.join(formats)}")
        names = list(dict.fromkeys(source for _, source in parts))
        one = not isinstance(space, CompositeSpace)
        made = _Formatted(names, parts, formats, space, one and return_tuple)
        order = {"batch_size": batch_size, "num_batches": num_batches}
        how = {**order, **how, "sources": names}
        self._batches = _batches(dataset.map(made), mode or "sequential", rng, own_rng, how)
        self._iterator: Iterator[Any] = iter(self._batches)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._iterator)

    next = __next__

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def batch_size(self) -> int:
        """Examples of a batch that is not the short one."""
        return self._batches.scheme.batch_size

    @property
    def num_batches(self) -> int:
        """Batches of the epoch."""
        return len(self._batches)

    @property
    def num_examples(self) -> int:
        """Examples of the epoch."""
        return self._batches.scheme.n_positions

    @property
    def uneven(self) -> bool:
        """Whether a batch is shorter than others."""
        return self.num_examples != self.batch_size * self.num_batches

    @property
    def stochastic(self) -> bool:
        """Whether the order is drawn."""
        return self._batches.scheme.stochastic

    @property
    def stats(self) -> Any:
        """What the epoch cost: see `Batches.stats`."""
        return self._batches.stats

    def explain(self) -> str:
        """What the epoch costs: see `Batches.explain`."""
        return str(self._batches.explain())


def _batches(
    dataset: Dataset, mode: str, rng: Any, own_rng: RandomState, how: dict[str, Any]
) -> Batches:
    if mode in IN_ORDER:
        if rng is not None:
            raise SchemeError(f"{mode} takes no rng: its order is that of the rows")
        return dataset.batches(mode, **how)
    generator = own_rng if rng is None else rng_of(rng)
    batches = dataset.batches(mode, seed=generator, **how)
    batches.scheme.legacy_draw()(generator)
    return batches


class _Formatted:
    """Makes batches of specs, on the threads that read."""

    def __init__(
        self,
        names: Sequence[str],
        parts: Sequence[tuple[Space, str]],
        formats: Mapping[str, Format],
        space: Space,
        wrapped: bool,
    ) -> None:
        self._parts = [(each, names.index(source), formats[source]) for each, source in parts]
        self._space, self._wrapped = space, wrapped

    def __call__(self, batch: tuple[Any, ...]) -> Any:
        made = nested(self._space, (form(batch[k], each) for each, k, form in self._parts))
        return (made,) if self._wrapped else made


def check_rows(lengths: Mapping[str, int]) -> None:
    """Refuse sources of unequally many examples."""
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise MismatchError(f"sources have equally many examples: {told}")


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """An argument that counts something.

    Raises
    ------
    MismatchError
        It does not.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)
    if not whole and isinstance(value, float) and value.is_integer():
        whole = True
    if not whole or value < least:
        raise MismatchError(f"{name}={value!r}: give a whole number from {least} on")
    return int(value)
