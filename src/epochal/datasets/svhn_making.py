"""Making the files of `SVHN`: in an order of their own, which never changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from epochal.datasets.handle import NewFile
from epochal.datasets.svhn_files import ROW, Original, original
from epochal.errors import FormatError, MismatchError
from epochal.opening import open_dataset
from epochal.progress import row_bar
from epochal.writing.create import create

__all__ = ["SETS", "check_set", "file_of", "make"]

SETS = {
    "train": ("train",),
    "test": ("test",),
    "extra": ("extra",),
    "train_all": ("extra", "train"),
    "splitted_train": ("train", "extra"),
    "valid": ("train", "extra"),
}
VALID = {"train": 400, "extra": 200}  # examples of each label that are held out
SEED = 322  # of Pylearn2's
MEMORY = "128MiB"
WRITER_MEMORY = "48MiB"

Rows = NDArray[np.int64]


def check_set(which_set: str) -> str:
    """One of `SETS`. Raises `MismatchError`."""
    if which_set not in SETS:
        raise MismatchError(f"which_set={which_set!r} is not one of: {', '.join(SETS)}")
    return which_set


def file_of(which_set: str, path: str | os.PathLike[str]) -> str:
    """Where the file of a set is, made or not."""
    return os.path.join(os.fspath(path), "h5", f"{check_set(which_set)}_32x32.h5")


def make(which_set: str, path: str | os.PathLike[str], *, progress: bool = False) -> str:
    """Make the file of a set from the originals in a folder: whole, or not at all.

    Examples are uint8 rows of 3,072 numbers, channel by channel, in ``/Data/X``, and labels from 0
    to 9 in ``/Data/y``, in PyTables' format, in shuffled order. Sizes are those of the originals.
    Reads each original twice at most, takes scratch of the size of the examples beside the file,
    and holds some 200 MiB whatever their number.

    Raises
    ------
    FileMissingError, FormatError
        Of the originals: see `original`.
    """
    final = file_of(which_set, path)
    parts = [original(path, name) for name in SETS[which_set]]
    rng = RandomState(SEED)
    rows = _rows(which_set, parts, rng)
    labels = np.concatenate([part.labels[r] for part, r in zip(parts, rows, strict=True)]) - 1
    Path(final).parent.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    shapes = ((n, ROW), (n, 1))
    scratch = f"{final}.epochal-scratch"
    with NewFile(
        final, shapes, "SVHN Dataset", "int", x_dtype="u1", level=5, memory=WRITER_MEMORY
    ) as made:  # nobody else makes it now
        shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
        os.mkdir(scratch)
        try:
            with row_bar(2 * n, 0, f"making {which_set}", progress) as advance:
                staged = f"{scratch}/X.npy"
                _stage(staged, parts, rows, advance)
                _shuffle(staged, labels, made, rng, advance, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return final


def _rows(which_set: str, parts: Sequence[Original], rng: RandomState) -> list[Rows]:
    """Which examples of each original."""
    if which_set not in ("valid", "splitted_train"):
        return [np.arange(len(part)) for part in parts]
    chosen = []
    for name, part in zip(SETS[which_set], parts, strict=True):
        held = np.zeros(len(part), bool)
        for label in range(1, 11):
            numbers = np.flatnonzero(part.labels == label)
            if len(numbers) < VALID[name]:
                raise FormatError(
                    f"{part.path}: {len(numbers)} examples of label {label}: {VALID[name]} of each "
                    "are held out"
                )
            rng.shuffle(numbers)
            held[numbers[: VALID[name]]] = True
        chosen.append(np.flatnonzero(held if which_set == "valid" else ~held))
    return chosen


def _stage(
    path: str, parts: Sequence[Original], rows: Sequence[Rows], advance: Callable[[int], None]
) -> None:
    """Put the examples that are wanted into a file of plain rows, in the originals' order."""
    n = sum(map(len, rows))
    sources = {"X": ((ROW,), "u1")}
    with create(
        path, sources, rows=n, flavour="npy", checksum=False, memory=WRITER_MEMORY
    ) as writer:
        for part, wanted in zip(parts, rows, strict=True):
            for block in _chosen(part, wanted):
                writer.append(X=block)
                advance(len(block))


def _chosen(part: Original, wanted: Rows) -> Iterator[NDArray[np.uint8]]:
    """Of an original the examples that are wanted, ascending."""
    first = 0
    for block in part.blocks():
        begin, end = np.searchsorted(wanted, (first, first + len(block)))
        yield block[wanted[begin:end] - first]
        first += len(block)


def _shuffle(
    staged: str,
    labels: NDArray[np.uint8],
    made: NewFile,
    rng: RandomState,
    advance: Callable[[int], None],
    scratch: str,
) -> None:
    """Write the examples in the order that the generator draws."""
    state = rng.get_state()
    order = np.arange(len(labels))
    rng.shuffle(order)
    rng.set_state(state)  # the batches draw the same
    with open_dataset(staged) as there:
        at = 0
        batches = there.batches(
            "shuffled_sequential", 1024, seed=rng, memory=MEMORY, scratch=scratch
        )
        for batch in batches:
            rows = order[at : at + len(batch[0])]
            made.fill(at, batch[0], labels[rows].astype(np.int64)[:, None])
            at += len(rows)
            advance(len(rows))
