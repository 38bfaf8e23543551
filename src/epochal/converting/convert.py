"""From any store or input to any flavour, in bounded memory; the exact shuffle, written out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochal import sizes
from epochal.converting.inputs import Input, open_input
from epochal.dataset import Dataset
from epochal.errors import FormatError, MismatchError, SourceNameError
from epochal.opening import open_dataset
from epochal.progress import row_bar
from epochal.ragged import check_form
from epochal.view import RaggedView
from epochal.writing.create import DEFAULT, resumed, specs_for, start
from epochal.writing.recovery import recover_all
from epochal.writing.spec import SourceSpec
from epochal.writing.target import Target, partial_of, writing_to

__all__ = ["Converted", "convert", "flavour_of", "shuffle"]

APPEND_BYTES = 4 << 20  # decoded rows that go to the writer at once
CHECKPOINT_BYTES = 256 << 20  # decoded rows between two states that a kill leaves
SUFFIXES = {".zarr": "zarr", ".npy": "npy"}
Rows = Mapping[str, NDArray[Any]]


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


class Origin(Protocol):
    """Where rows come from."""

    @property
    def sources(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of a row and dtype, by name."""
        ...

    @property
    def rows(self) -> int | None:
        """How many; None where only reading tells."""
        ...

    @property
    def attrs(self) -> Mapping[str, Any]:
        """What is kept besides, such as the names of labels."""
        ...

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """All rows from `first` on, `n_rows` at a time but for the last."""
        ...


class _FromDataset:
    """Rows of a dataset in the order of a scheme."""

    def __init__(self, ds: Dataset, scheme: str, seed: int | None, **how: Any) -> None:
        if not ds.sources:
            raise SourceNameError(f"{ds.store.name} holds no source: see epochal info")
        self.sources: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self._longest: dict[str, int] = {}  # items of the longest row, of sources that are padded
        for name, view in ds.sources.items():
            if not isinstance(view, RaggedView):
                self.sources[name] = view.shape[1:], view.dtype
                continue
            form = how.get("ragged")
            if form not in ("dense", "padded"):
                raise MismatchError(
                    f"source {name!r} of {ds.store.name} has rows of varying length, which are "
                    "written as rows of one length: give ragged='dense' (--ragged dense) where "
                    "they are sparse, 'padded' where they are sequences, or choose others with "
                    "sources= (--sources)"
                )
            check_form(form, sparse=view.layout.n_columns is not None, name=name)
            if form == "dense":
                self.sources[name] = view.shape[1:], view.dtype
                continue
            column = next(iter(view.layout.columns.values()))
            self._longest[name] = max(int(view.lengths.max(initial=0)), 1)
            self.sources[name] = (self._longest[name], *column.row_shape), view.dtype
            self.sources[f"{name}_lengths"] = (), np.dtype("i8")
        self.rows: int | None = len(ds)
        self.attrs: Mapping[str, Any] = {}
        self._ds, self._scheme, self._seed, self._how = ds, scheme, seed, how

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """See `Origin`."""
        batches = self._ds.batches(self._scheme, n_rows, seed=self._seed, **self._how)
        batches.load_state_dict({**batches.state_dict(), "row": first})
        for batch in batches:
            rows: dict[str, NDArray[Any]] = {}
            for name, found in zip(self._ds.sources, batch, strict=True):
                if name in self._longest:
                    values, rows[f"{name}_lengths"] = found
                    wide = np.zeros((len(values), *self.sources[name][0]), values.dtype)
                    wide[:, : values.shape[1]] = values
                    rows[name] = wide
                else:
                    rows[name] = found
            yield {name: rows[name] for name in self.sources}


class _FromInput:
    """Rows of something that is no store, in its own order."""

    def __init__(self, given: Input) -> None:
        self.sources = {
            name: (source.row_shape, source.dtype) for name, source in given.sources.items()
        }
        self.rows, self.attrs = given.rows, given.attrs
        self._given = given

    def blocks(self, first: int, n_rows: int) -> Iterator[Rows]:
        """See `Origin`: blocks of any size are cut anew, so that a run that goes on cuts alike."""
        kept: list[Rows] = []
        n_kept = 0
        for block in self._given.blocks(first):
            kept.append(block)
            n_kept += _length(block)
            if n_kept >= n_rows:
                whole = {n: np.concatenate([each[n] for each in kept]) for n in self.sources}
                whole_rows = n_kept - n_kept % n_rows
                for at in range(0, whole_rows, n_rows):
                    yield {n: rows[at : at + n_rows] for n, rows in whole.items()}
                kept = [{n: rows[whole_rows:].copy() for n, rows in whole.items()}]
                n_kept -= whole_rows
        if n_kept:
            yield {n: np.concatenate([each[n] for each in kept]) for n in self.sources}


def _length(block: Rows) -> int:
    return len(next(iter(block.values())))


def flavour_of(path: str | os.PathLike[str], flavour: str | None) -> str:
    """The flavour that was asked for, or that the name of a file says.

    >>> flavour_of("out.zarr", None), flavour_of("out.h5", None), flavour_of("out", "npy")
    ('zarr', 'hdf5', 'npy')
    """
    if flavour is not None:
        return flavour
    return SUFFIXES.get(Path(os.fspath(path)).suffix.lower(), "hdf5")


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
    **reading: Any,
) -> Converted:
    """Write a file anew in another form: any store, CSV, Parquet, Arrow, images, MATLAB.

    Reads each chunk once, in order; holds at most `memory`. The target appears whole, or not at
    all; a run that was killed leaves what it has done beside it, for a run with ``resume=True`` to
    go on with: it makes the same bytes as a run that was not killed.

    Parameters
    ----------
    src
        What `epochal.open` takes, or a CSV, Parquet, Arrow or ``.mat`` file, or a folder of images.
    dst
        Where. A `Dataset` that is open may be given for `src`, too.
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
    reading
        What inputs take: see `epochal.converting.inputs.open_input`.

    Raises
    ------
    EpochalError
        What is wrong, before anything is written where that can be known.
    """
    with ExitStack() as stack:
        budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
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
    with ExitStack() as stack:
        budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
        ds = _dataset(src, stack, sources, split, untrusted=untrusted, allow=allow)
        how: dict[str, Any] = {
            "memory": _reading_bytes(budget),
            "scratch": scratch,
            "threads": threads,
            **({} if ragged is None else {"ragged": ragged}),
        }
        return _write(
            _FromDataset(ds, "shuffled_sequential", int(seed), **how),
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
            return _FromInput(given)
    if reading:
        raise MismatchError(f"{', '.join(reading)}: not for a file that epochal.open reads")
    ds = _dataset(src, stack, sources, split, untrusted=untrusted, allow=allow)
    how: dict[str, Any] = {} if ragged is None else {"ragged": ragged}
    how |= {"memory": _reading_bytes(budget), "threads": threads}
    return _FromDataset(ds, "sequential", None, **how)


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
) -> Converted:
    """Copy rows to a new file, with a checkpoint now and then."""
    specs = specs_for(origin.sources, rows=origin.rows, flavour=flavour, **form)
    job |= {"specs": [repr(spec) for spec in specs], "rows": origin.rows, "flavour": flavour}
    step = _step(specs, budget)
    recover_all(dst)
    target = Target(dst, overwrite=overwrite)
    first = 0
    try:
        found = _left(target, job) if resume else None
    except BaseException:
        target.give_up(keep=True)
        raise
    try:
        how: dict[str, Any] = {
            "rows": origin.rows,
            "attrs": attrs,
            "memory": budget - _reading_bytes(budget),
            "threads": threads,
            "checksum": checksum,
            "resumable": True,
        }
        writer = resumed(flavour, target, specs, **how) if found is not None else None
        if writer is None:
            target.clean()
            _note(target, job, step)
            writer = start(flavour, target, specs, **how)
        else:
            assert found is not None
            step, first = found, writer.rows
    except BaseException:
        target.give_up()
        raise
    every = _checkpoint_rows(specs, step)
    with writer, row_bar(origin.rows, first, label(dst), progress) as advance:
        for block in origin.blocks(first, step):
            writer.append(block)
            advance(_length(block))
            if writer.rows % every == 0:
                writer.checkpoint()
        total = writer.rows
    return Converted(target.path, total, first)


def label(path: str | os.PathLike[str]) -> str:
    """What a bar says."""
    return f"writing {Path(os.fspath(path)).name}"


def _step(specs: Sequence[SourceSpec], budget: int) -> int:
    """Rows that go to the writer at once."""
    row_bytes = max(1, sum(spec.row_bytes for spec in specs))
    return max(1, min(APPEND_BYTES, budget // 32) // row_bytes)


def _checkpoint_rows(specs: Sequence[SourceSpec], step: int) -> int:
    row_bytes = max(1, sum(spec.row_bytes for spec in specs))
    return step * max(1, CHECKPOINT_BYTES // (row_bytes * step))


def identity(src: Any) -> Any:
    """What tells whether a source is the one that a killed run read."""
    if isinstance(src, Dataset):
        return src.store.name
    if isinstance(src, str | os.PathLike):
        path = os.fspath(src)
        try:
            found = os.stat(path)
        except OSError:
            return path
        return [os.path.realpath(path), found.st_size, found.st_mtime_ns]
    return [identity(each) for each in src]


def job_of(target: Target) -> str:
    """Where a run notes what it does, for a run that goes on with it."""
    return f"{partial_of(target.path)}-job"


def _note(target: Target, job: Mapping[str, Any], step: int) -> None:
    text = json.dumps({"job": job, "step": step})
    with writing_to(target.path):
        with open(f"{job_of(target)}-new", "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{job_of(target)}-new", job_of(target))


def _left(target: Target, job: Mapping[str, Any]) -> int | None:
    """Rows at a time of the run that left something to go on with; None where nothing is left.

    Raises
    ------
    MismatchError
        It was another conversion.
    """
    if not target.leftover or not os.path.exists(job_of(target)):
        return None
    try:
        found = json.loads(Path(job_of(target)).read_text(encoding="utf-8"))
        theirs, step = found["job"], int(found["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{job_of(target)} is damaged: leave out resume=True") from error
    mine = json.loads(json.dumps(job))
    for key in mine:
        if mine[key] != theirs.get(key):
            raise MismatchError(
                f"{target.path}: what is left there is of another conversion: its {key} was "
                f"{theirs.get(key)!r}, now it is {mine[key]!r}. Leave out resume=True (--resume) "
                "to begin anew"
            )
    return step
