"""From any store or input to any flavour, in bounded memory; the exact shuffle, written out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epochal import sizes
from epochal.converting.apart import check_apart
from epochal.converting.cluster import step_for, written_by
from epochal.converting.inputs import open_input
from epochal.converting.job import identity, left_by, note
from epochal.converting.origins import FromDataset, FromInput, Origin, Rows, length
from epochal.dataset import Dataset
from epochal.errors import BudgetError, MismatchError
from epochal.opening import open_dataset
from epochal.progress import row_bar
from epochal.stores.store import TRANSFORMS
from epochal.transforms.kept import to_bytes
from epochal.writing.attributes import check_attributes
from epochal.writing.create import DEFAULT, flavour_of, resumed, specs_for, start
from epochal.writing.recovery import recover_all
from epochal.writing.target import Target
from epochal.writing.writer import Writer

__all__ = ["Converted", "check_memory", "convert", "shuffle"]

APPEND_BYTES = 4 << 20  # rows that go to the writer at once, as they are read or as written
CHECKPOINT_BYTES = 256 << 20  # such rows between two states that a kill leaves


@dataclass(frozen=True)
class Converted:
    """What was written.

    Parameters
    ----------
    path
        Where.
    rows
        How many.
    resumed_at
        The row at which it went on where another run was killed; 0 for a run from the start.
    """

    path: str
    rows: int
    resumed_at: int = 0


def convert(
    src: Any,
    dst: str | os.PathLike[str],
    *,
    sources: Sequence[str] | None = None,
    split: str | None = None,
    flavour: str | None = None,
    compression: str | None = DEFAULT,
    level: int | None = None,
    shuffle: bool | None = None,
    chunk_rows: int | Mapping[str, int] | None = None,
    checksum: bool = True,
    attrs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ragged: str | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: bool = False,
    untrusted: bool = False,
    allow: Sequence[str] = (),
    client: Any = None,
    **reading: Any,
) -> Converted:
    """Write a file anew in another form: any store, CSV, Parquet, Arrow, images, MATLAB.

    Of a dataset with transforms (`Dataset.transform`) the transformed rows are written, and the
    fitted transforms beside them: `epochal.transforms.load` reads them from the file.

    Reads each chunk once, in order; holds at most `memory`. The target appears whole, or not at
    all; a run that was killed leaves what it has done beside it, for a run with ``resume=True`` to
    go on with: it makes the same bytes as a run that was not killed.

    Parameters
    ----------
    src
        What `epochal.open` takes, a `Dataset` that is open, or a CSV, Parquet, Arrow or ``.mat``
        file, or a folder of images.
    dst
        Where.
    sources, split
        Which rows, as for `epochal.open`.
    flavour
        See `epochal.create`; None goes by the name of `dst` (``.zarr``, ``.npy``, else HDF5).
    compression, level, shuffle, chunk_rows, checksum, attrs, overwrite
        See `epochal.create`.
    resume
        Go on with what a killed run of the same conversion left, if it left something.
    ragged
        How rows of varying length are written: ``"dense"``, sparse ones with their zeros;
        ``"padded"``, sequences with zeros to the longest of all, and their lengths as a source
        ``<name>_lengths``.
    memory, threads, progress
        See `Dataset.batches`.
    untrusted, allow
        See `epochal.open`.
    client
        A `dask.distributed.Client`: its workers read, transform and compress parts of the rows, and
        this process writes them. They open `src` by its path or URL.
    reading
        What inputs take: see `epochal.converting.inputs.open_input`.

    Raises
    ------
    EpochalError
        What is wrong, before anything is written where that can be known.
    """
    check_apart(dst, src)
    with ExitStack() as stack:
        budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
        stack.enter_context(_shares(budget))
        origin = _origin(
            src,
            stack,
            sources=sources,
            split=split,
            untrusted=untrusted,
            allow=allow,
            budget=budget,
            reading=reading,
            threads=threads,
            ragged=ragged,
        )
        return _write(
            origin,
            dst,
            job={"src": identity(src), "scheme": "sequential", "split": split},
            resume=resume,
            progress=progress,
            overwrite=overwrite,
            attrs={**origin.attrs, **(attrs or {})},
            budget=budget,
            threads=threads,
            checksum=checksum,
            flavour=flavour_of(dst, flavour),
            form={
                "compression": compression,
                "level": level,
                "shuffle": shuffle,
                "chunk_rows": chunk_rows,
            },
            client=client,
        )


def shuffle(
    src: Any,
    dst: str | os.PathLike[str],
    seed: int = 0,
    *,
    sources: Sequence[str] | None = None,
    split: str | None = None,
    flavour: str | None = None,
    compression: str | None = DEFAULT,
    level: int | None = None,
    chunk_rows: int | Mapping[str, int] | None = None,
    checksum: bool = True,
    attrs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ragged: str | None = None,
    memory: int | str | None = None,
    scratch: str | os.PathLike[str] | bool | None = None,
    threads: int | None = None,
    progress: bool = False,
    untrusted: bool = False,
    allow: Sequence[str] = (),
) -> Converted:
    """Write the rows in the order of ``shuffled_sequential`` with that seed: an exact permutation.

    One external shuffle: each chunk is read and decoded once, each row written once to scratch
    where the rows do not fit in `memory`, and read back in order. Arguments are those of
    `convert`, and `scratch` that of `Dataset.batches`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise MismatchError(f"seed={seed!r}: give a whole number")
    check_apart(dst, src)
    with ExitStack() as stack:
        budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
        stack.enter_context(_shares(budget))
        ds = _dataset(src, stack, sources, split, untrusted=untrusted, allow=allow)
        how: dict[str, Any] = {
            "memory": _reading_bytes(budget),
            "scratch": scratch,
            "threads": threads,
            **({} if ragged is None else {"ragged": ragged}),
        }
        return _write(
            FromDataset(ds, "shuffled_sequential", int(seed), **how),
            dst,
            job={
                "src": identity(src),
                "scheme": "shuffled_sequential",
                "seed": int(seed),
                "split": split,
            },
            resume=resume,
            progress=progress,
            overwrite=overwrite,
            attrs=attrs or {},
            budget=budget,
            threads=threads,
            checksum=checksum,
            flavour=flavour_of(dst, flavour),
            form={
                "compression": compression,
                "level": level,
                "shuffle": None,
                "chunk_rows": chunk_rows,
            },
        )


def check_memory(ds: Dataset, *, memory: int | str | None, threads: int | None) -> None:
    """That converting rows of a dataset fits in memory, whatever they come to be. Reads a few
    chunks to measure.

    Raises
    ------
    BudgetError
    """
    budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
    row_bytes = FromDataset(ds, "sequential", None).row_bytes
    with _shares(budget):
        step = _step(max(row_bytes, 1), budget)
        ds.explain("sequential", step, memory=_reading_bytes(budget), threads=threads)


@contextmanager
def _shares(budget: int) -> Iterator[None]:
    """A context in which an error of a part of the budget tells of the whole."""
    try:
        yield
    except BudgetError as error:
        reading = _reading_bytes(budget)
        raise BudgetError(
            f"of memory={sizes.show(budget)}, reading gets {sizes.show(reading)} and writing "
            f"{sizes.show(budget - reading)}: {error}"
        ) from error


def _reading_bytes(budget: int) -> int:
    """The part of the budget that reading gets; the writer has the rest."""
    return budget * 3 // 4


def _dataset(
    src: Any,
    stack: ExitStack,
    sources: Sequence[str] | None,
    split: str | None,
    *,
    untrusted: bool,
    allow: Sequence[str],
) -> Dataset:
    if isinstance(src, Dataset):
        if sources is not None or split is not None:
            raise MismatchError(
                f"sources={sources!r}, split={split!r}: of a Dataset that is open all its sources "
                "are written; choose when it is opened"
            )
        return src
    ds = open_dataset(src, sources=sources, split=split, untrusted=untrusted, allow=allow)
    return stack.enter_context(ds)


def _origin(
    src: Any,
    stack: ExitStack,
    *,
    sources: Sequence[str] | None,
    split: str | None,
    untrusted: bool,
    allow: Sequence[str],
    budget: int,
    reading: Mapping[str, Any],
    threads: int | None,
    ragged: str | None,
) -> Origin:
    if not isinstance(src, Dataset):
        given = open_input(src, sources=sources, memory_bytes=_reading_bytes(budget), **reading)
        if given is not None:
            stack.callback(given.close)
            if split is not None:
                raise MismatchError(f"{given.name} names no splits: leave out split={split!r}")
            if ragged is not None:
                what = "has no rows of varying length"
                raise MismatchError(f"{given.name} {what}: leave out ragged={ragged!r}")
            return FromInput(given)
    if reading:
        raise MismatchError(f"{', '.join(reading)}: not for a file that epochal.open reads")
    ds = _dataset(src, stack, sources, split, untrusted=untrusted, allow=allow)
    how: dict[str, Any] = {} if ragged is None else {"ragged": ragged}
    how |= {"memory": _reading_bytes(budget), "threads": threads}
    return FromDataset(ds, "sequential", None, **how)


def _write(
    origin: Origin,
    dst: str | os.PathLike[str],
    *,
    job: dict[str, Any],
    resume: bool,
    progress: bool,
    overwrite: bool,
    attrs: Mapping[str, Any],
    budget: int,
    threads: int | None,
    checksum: bool,
    flavour: str,
    form: dict[str, Any],
    client: Any = None,
) -> Converted:
    """Copy rows to a new file, with a checkpoint now and then."""
    attrs = check_attributes(attrs)
    specs = specs_for(origin.sources, rows=origin.rows, flavour=flavour, **form)
    job |= {"specs": [repr(spec) for spec in specs], "rows": origin.rows, "flavour": flavour}
    row_bytes = max(origin.row_bytes, sum(spec.row_bytes for spec in specs), 1)
    step = _step(row_bytes, budget) if client is None else step_for(specs)
    recover_all(dst)
    target = Target(dst, overwrite=overwrite)
    first = 0
    try:
        found = left_by(target, job) if resume else None
    except BaseException:
        target.give_up(keep=True)
        raise
    try:
        how: dict[str, Any] = {
            "rows": origin.rows,
            "attrs": attrs,
            "kept": kept_of(origin),
            "memory": budget - _reading_bytes(budget),
            "threads": threads,
            "checksum": checksum,
            "resumable": True,
        }
        writer = resumed(flavour, target, specs, **how) if found is not None else None
        if writer is None:
            target.clean()
            note(target, job, step)
            writer = start(flavour, target, specs, **how)
        else:
            assert found is not None
            step, first = found, writer.rows
    except BaseException:
        target.give_up(keep=found is not None)  # for another try to go on with
        raise
    every = step * max(1, CHECKPOINT_BYTES // (row_bytes * step))
    with writer, row_bar(origin.rows, first, label(dst), progress) as advance:
        written: Iterator[int]
        if client is None:
            blocks = origin.blocks(first, step)
            written = (_appended(writer, block) for block in blocks)
        else:
            written = written_by(client, origin, writer, first, step)
        for n_rows in written:
            advance(n_rows)
            if writer.rows % every == 0:
                writer.checkpoint()
        total = writer.rows
    return Converted(target.path, total, first)


def _appended(writer: Writer, block: Rows) -> int:
    writer.append(block)
    return length(block)


def kept_of(origin: Origin) -> dict[str, bytes]:
    """Fitted transforms that the rows went through, as what is kept in the file."""
    found = origin.transforms
    return {TRANSFORMS: to_bytes({"sources": found})} if found else {}


def label(path: str | os.PathLike[str]) -> str:
    """What a bar says."""
    return f"writing {Path(os.fspath(path)).name}"


def _step(row_bytes: int, budget: int) -> int:
    """Rows that go to the writer at once: of a row that transforms make shorter, or longer, both
    are held.
    """
    return max(1, min(APPEND_BYTES, budget // 32) // row_bytes)
