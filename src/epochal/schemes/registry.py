"""The ten names, and `make`: the one way to a scheme."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray

from epochal.errors import SchemeError
from epochal.schemes.batchwise import BatchwiseShuffledSequential, EvenBatchwiseShuffledSequential
from epochal.schemes.chunkwise import DEFAULT_MIX_ROWS, ChunkwiseShuffledSequential
from epochal.schemes.legacy import LegacySeed
from epochal.schemes.sampled import RandomSlice, RandomUniform
from epochal.schemes.scheme import Request, Scheme, checked_int, checked_seed, checked_shard
from epochal.schemes.sequences import EvenSequences
from epochal.schemes.sequential import EvenSequential, Sequential
from epochal.schemes.shuffled import EvenShuffledSequential, ShuffledSequential

__all__ = ["NAMES", "make"]

_KINDS: dict[str, type[Scheme]] = {
    "sequential": Sequential,
    "shuffled_sequential": ShuffledSequential,
    "random_slice": RandomSlice,
    "random_uniform": RandomUniform,
    "batchwise_shuffled_sequential": BatchwiseShuffledSequential,
    "even_sequential": EvenSequential,
    "even_shuffled_sequential": EvenShuffledSequential,
    "even_batchwise_shuffled_sequential": EvenBatchwiseShuffledSequential,
    "even_sequences": EvenSequences,
    "chunkwise_shuffled_sequential": ChunkwiseShuffledSequential,
}

NAMES: tuple[str, ...] = tuple(_KINDS)


def make(
    name: str,
    n_rows: int,
    *,
    batch_size: int | None = None,
    num_batches: int | None = None,
    seed: int | RandomState | Mapping[str, Any] | None = None,
    epoch: int = 0,
    shard: tuple[int, int] | list[int] = (0, 1),
    lengths: ArrayLike | None = None,
    chunk_rows: int | None = None,
    mix_rows: int | None = None,
) -> Scheme:
    """The scheme of that name over `n_rows` rows.

    Parameters
    ----------
    name
        One of `NAMES`.
    n_rows
        Rows of the dataset.
    batch_size
        Rows that one rank gets at a time.
    num_batches
        Global batches in an epoch. Alone, it sets the batch size; with `batch_size`, it ends the
        epoch early.
    seed
        An integer of ``[0, 2**64)``; None draws one (`Scheme.seed` shows it). A
        `numpy.random.RandomState` gives Pylearn2's own order; it is copied, not drawn from. So does
        the dict that stands for one in a config.
    epoch
        Which epoch's order.
    shard
        ``(rank, world)``.
    lengths
        Of `even_sequences`: the length of each row, ``(n_rows,)``.
    chunk_rows, mix_rows
        Of `chunkwise_shuffled_sequential`: rows that are stored together, and rows to be mixed.

    Raises
    ------
    SchemeError
        Where the arguments make no order; the message says what to change.

    >>> make("shuffled_sequential", 10, batch_size=4, seed=0).batch(0).tolist()
    [0, 2, 9, 1]
    >>> make("sequential", 10, batch_size=4).batch(2)
    slice(8, 10, None)
    """
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise SchemeError(f"there is no scheme {name!r}: {_meant(name)}")
    rows = checked_int("n_rows", n_rows, 0, 2**40)
    rank, world = checked_shard(shard)
    chunkwise = kind is ChunkwiseShuffledSequential
    return kind(
        Request(
            name=name,
            n_rows=rows,
            batch_size=_optional("batch_size", batch_size),
            num_batches=_optional("num_batches", num_batches),
            seed=_seed(seed) if kind.stochastic else None,
            seed_is_drawn=kind.stochastic and seed is None,
            epoch=checked_int("epoch", epoch, 0, 2**64 - 1),
            rank=rank,
            world=world,
            lengths=_lengths(lengths, rows) if kind is EvenSequences else None,
            chunk_rows=_optional("chunk_rows", chunk_rows) if chunkwise else None,
            mix_rows=(_optional("mix_rows", mix_rows) or DEFAULT_MIX_ROWS) if chunkwise else None,
        )
    )


def _meant(name: object) -> str:
    near = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"the schemes are {', '.join(NAMES)}"


def _optional(what: str, value: object) -> int | None:
    return None if value is None else checked_int(what, value, 1, 2**62)


def _seed(seed: object) -> int | LegacySeed:
    return int.from_bytes(os.urandom(8), "little") if seed is None else checked_seed(seed)


def _lengths(lengths: ArrayLike | None, n_rows: int) -> NDArray[np.int64] | None:
    if lengths is None:
        return None
    if isinstance(lengths, str):
        raise SchemeError(
            f"lengths is {lengths[:20]!r}..., which stands for them in a config: "
            'pass the lengths themselves, make(**{**config, "lengths": lengths})'
        )
    array = np.array(lengths)
    if array.shape != (n_rows,) or array.dtype.kind not in "iu":
        raise SchemeError(
            f"lengths must be {n_rows} whole numbers, one a row; "
            f"found shape {array.shape} of {array.dtype}"
        )
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array
