"""`epochal.create` and `epochal.append`: a writer for a new file, or for more rows of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from epochal import sizes
from epochal.errors import DamageError, FileMissingError, MismatchError, SourceNameError
from epochal.execute.probe import threads_of
from epochal.stores import npy_folder, open_store
from epochal.stores.forms import UnlikeSource
from epochal.stores.store import largest_group
from epochal.writing import hdf5, npy, zarr
from epochal.writing.attributes import check_attributes
from epochal.writing.container import Container, Progress
from epochal.writing.flavour import Flavour
from epochal.writing.hdf5 import HDF5Container
from epochal.writing.npy import NpyContainer
from epochal.writing.recovery import recover_all
from epochal.writing.spec import Compression, SourceSpec, chunk_rows_for
from epochal.writing.structures import packed
from epochal.writing.target import InPlace, Target
from epochal.writing.writer import Ending, Writer
from epochal.writing.zarr import ZarrContainer

__all__ = [
    "DEFAULT",
    "FLAVOURS",
    "append",
    "create",
    "flavour_of",
    "resumed",
    "specs_for",
    "start",
]

FLAVOURS = ("hdf5", "pytables", "zarr", "npy")
SUFFIXES = {".zarr": "zarr", ".npy": "npy"}
DEFAULT = "default"
WRITER_BYTES = 256 << 20  # more would not be quicker: it is what is being compressed

Sources = Mapping[str, tuple[Sequence[int] | int, DTypeLike]]


def create(
    path: str | os.PathLike[str],
    sources: Sources,
    *,
    rows: int | None = None,
    compression: str | None = DEFAULT,
    level: int | None = None,
    shuffle: bool | None = None,
    chunk_rows: int | Mapping[str, int] | None = None,
    checksum: bool = True,
    attrs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    flavour: str | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Writer:
    """Write a new file: a context manager that takes rows by `append` or `write`.

    The file appears at its name when the context ends without an exception: whole, its bytes on the
    disk; a process that is killed leaves nothing at that name, and what it leaves beside it the
    next writer to it cleans away. Costs one copy of the rows, one compression of each chunk on one
    of the threads, and holds some chunks a thread.

    Parameters
    ----------
    path
        Where; its folder must be there.
    sources
        Shape of a row and dtype of each source by name: ``{"X": ((3072,), "uint8"), "y": ((),
        "int64")}``.
    rows
        How many rows there will be. None: as many as are appended.
    compression
        ``"gzip"`` (the default of HDF5 and Zarr: whatever reads those reads it), ``"zstd"``,
        ``"lz4"``, ``"blosc"``, ``"blosc2"``, or None. What a reader needs for each is in
        ``docs/writing.md``.
    level
        Of the compression; None: its usual one.
    shuffle
        Sort the bytes of items by significance before compressing. None: where items are integers
        of several bytes or floats.
    chunk_rows
        Rows that are stored together, for all sources or by name. None: about 1 MiB.
    checksum
        Keep a CRC-32 of each stored chunk, which reading and `epochal.verify` check.
    attrs
        Attributes of the file: strings, numbers, small arrays.
    overwrite
        Whether a file may be there, which is then replaced in one step; of folders those alone that
        epochal or Zarr could have written.
    flavour
        ``"hdf5"``, ``"pytables"`` (HDF5 with PyTables' attributes), ``"zarr"`` (format 3, a
        folder), ``"npy"`` (one ``.npy`` file; of several sources a folder of them). None: what the
        name of the file says.
    memory, threads
        The most that it holds, and how many threads compress.

    Raises
    ------
    TargetExistsError, TargetError
        Something is there, or cannot be written there.
    MismatchError
        Sources that cannot be written so.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with create(f"{folder}/out.h5", {"X": ((3,), "u1"), "y": ((), "i8")}) as writer:
    ...         writer.append(X=np.zeros((10, 3), "u1"), y=np.arange(10))
    ...     writer.rows
    10
    """
    flavour = flavour_of(path, flavour)
    specs = specs_for(
        sources,
        rows=rows,
        compression=compression,
        level=level,
        shuffle=shuffle,
        chunk_rows=chunk_rows,
        flavour=flavour,
    )
    kept = check_attributes(attrs or {})
    recover_all(path)
    target = Target(path, overwrite=overwrite)
    try:
        target.clean()
        return start(
            flavour,
            target,
            specs,
            rows=rows,
            attrs=kept,
            memory=memory,
            threads=threads,
            checksum=checksum,
        )
    except BaseException:
        target.give_up()
        raise


def flavour_of(path: str | os.PathLike[str], flavour: str | None) -> str:
    """The flavour that was asked for, or that the name of a file says.

    >>> flavour_of("out.zarr", None), flavour_of("out.h5", None), flavour_of("out", "npy")
    ('zarr', 'hdf5', 'npy')
    """
    if flavour is None:
        return SUFFIXES.get(Path(path).suffix.lower(), "hdf5")
    if flavour not in FLAVOURS:
        raise MismatchError(f"flavour={flavour!r} is not one of: {', '.join(FLAVOURS)}")
    return flavour


def specs_for(
    sources: Sources,
    *,
    rows: int | None,
    compression: str | None,
    level: int | None,
    shuffle: bool | None,
    chunk_rows: int | Mapping[str, int] | None,
    flavour: str,
) -> list[SourceSpec]:
    """What is to be written, checked."""
    if not sources:
        raise MismatchError("sources={}: name at least one, such as {'X': ((3072,), 'uint8')}")
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 0):
        raise MismatchError(f"rows={rows!r}: give a whole number from 0, or None")
    if compression == DEFAULT:
        compression = None if flavour == "npy" else "gzip"
    _check_names(sources)
    wanted_rows = _chunk_rows(sources, chunk_rows)
    specs = []
    for name, described in sources.items():
        row_shape, dtype = _described(name, described)
        if flavour == "pytables":
            dtype = packed(dtype)
        squeezed = (
            dtype.kind in "iufcM" and dtype.itemsize > 1 if shuffle is None else bool(shuffle)
        )
        if compression is None or (
            shuffle is None and flavour == "zarr" and compression != "blosc"
        ):
            squeezed = bool(shuffle)
        wanted = wanted_rows.get(name)
        row_bytes = int(np.prod(row_shape, dtype=np.int64)) * dtype.itemsize
        specs.append(
            SourceSpec(
                name,
                row_shape,
                dtype,
                chunk_rows_for(row_bytes, rows) if wanted is None else wanted,
                Compression(compression, squeezed, level),
            )
        )
    return specs


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that no flavour has a form for, or of which one holds another."""
    taken = {}
    for name in names:
        if not isinstance(name, str) or not name.strip("/"):
            raise SourceNameError(f"source name {name!r}: give a path such as 'train/X'")
        if "\0" in name or any("\ud800" <= each <= "\udfff" for each in name):
            raise SourceNameError(
                f"source name {name!r}: NUL and halves of surrogate pairs cannot be written: give "
                "another, such as 'train/X'"
            )
        taken[name.strip("/")] = name
    for path, name in taken.items():
        parts = path.split("/")
        for above in ("/".join(parts[:n]) for n in range(1, len(parts))):
            if above in taken:
                raise SourceNameError(
                    f"source {name!r} would lie inside of source {taken[above]!r}: name one "
                    "otherwise, or leave it out (sources=, --sources)"
                )


def _chunk_rows(sources: Sources, chunk_rows: int | Mapping[str, int] | None) -> dict[str, int]:
    """Rows that are stored together, of the sources for which somebody said so."""
    if chunk_rows is None:
        return {}
    wanted: Mapping[str, int] = (
        chunk_rows if isinstance(chunk_rows, Mapping) else dict.fromkeys(sources, chunk_rows)
    )
    for name, rows in wanted.items():
        if name not in sources:
            raise MismatchError(f"chunk_rows of {name!r}: there are {', '.join(sources)}")
        if isinstance(rows, bool) or not isinstance(rows, int | np.integer) or rows < 1:
            raise MismatchError(f"chunk_rows={rows!r} of {name!r}: give a whole number from 1")
    return {name: int(rows) for name, rows in wanted.items()}


def _described(name: str, described: Any) -> tuple[tuple[int, ...], np.dtype]:
    try:
        shape, dtype = described
        row_shape = (shape,) if isinstance(shape, int | np.integer) else tuple(map(int, shape))
        found = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise MismatchError(
            f"source {name!r}: {described!r} is not the shape of a row and a dtype, such as "
            f"((3072,), 'uint8'): {error}"
        ) from None
    if any(n < 1 for n in row_shape):
        raise MismatchError(f"source {name!r}: rows of shape {row_shape} hold nothing")
    return tuple(int(n) for n in row_shape), found


def start(
    flavour: str,
    target: Target,
    specs: Sequence[SourceSpec],
    *,
    rows: int | None,
    attrs: Mapping[str, Any],
    kept: Mapping[str, bytes] | None = None,
    **how: Any,
) -> Writer:
    """A writer for a target at which nothing was begun."""
    container: Container
    match flavour:
        case "hdf5" | "pytables":
            container = HDF5Container.create(target.partial, specs, rows, Flavour(flavour))
        case "zarr":
            container = ZarrContainer.create(target.partial, specs, rows)
        case _:
            container = NpyContainer.create(target.partial, specs, rows, attrs)
    return _writer(container, specs, target, rows, Progress(attrs=attrs, kept=kept or {}), **how)


def resumed(
    flavour: str,
    target: Target,
    specs: Sequence[SourceSpec],
    *,
    rows: int | None,
    attrs: Mapping[str, Any],
    kept: Mapping[str, bytes] | None = None,
    **how: Any,
) -> Writer | None:
    """A writer that goes on from the last checkpoint of one that was killed; None where it was
    killed before its first.
    """
    container: Container
    try:
        match flavour:
            case "hdf5" | "pytables":
                container, progress = HDF5Container.resume(target.partial, specs, Flavour(flavour))
            case "zarr":
                container, progress = ZarrContainer.resume(target.partial)
            case _:
                container, progress = NpyContainer.resume(target.partial)
    except DamageError:
        return None
    progress.attrs, progress.kept = attrs, kept or {}
    return _writer(container, specs, target, rows, progress, **how)


def _writer(
    container: Container,
    specs: Sequence[SourceSpec],
    ending: Ending,
    rows: int | None,
    progress: Progress,
    *,
    memory: int | str | None,
    threads: int | None,
    checksum: bool,
    resumable: bool = False,
) -> Writer:
    if memory is None:
        memory_bytes = min(sizes.default_memory(), WRITER_BYTES)
    else:
        memory_bytes = sizes.parse(memory, "memory")
    try:
        return Writer(
            container,
            specs,
            ending,
            rows=rows,
            progress=progress,
            memory_bytes=memory_bytes,
            threads=threads_of(threads),
            checksum=checksum,
            resumable=resumable,
        )
    except BaseException:
        container.abandon()
        raise


def append(
    path: str | os.PathLike[str],
    sources: Sequence[str] | None = None,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Writer:
    """More rows for a file that is there: a context manager like that of `create`.

    HDF5 of any writer whose datasets can grow, and what `create` makes. Until the context ends
    without an exception, and wherever the process is killed, the file has its old rows; an HDF5
    file whose writer was killed in the very moment of the change is finished by the next
    `epochal.open` or `epochal.append`. Costs what is appended, whatever the file's size; the last
    chunk, where it is not full, is decoded and stored anew.

    Parameters
    ----------
    path
        The file.
    sources
        Which datasets; None: those that `epochal.open` takes.
    memory, threads
        As for `create`.

    Raises
    ------
    FileMissingError
        Nothing is there: `create` makes it.
    MismatchError
        Something that cannot grow, or that cannot be compressed as the file has it.
    """
    real = os.path.realpath(os.fspath(path))
    if not os.path.exists(real):
        raise FileMissingError(f"{real}: there is no such file: epochal.create makes one")
    ending = InPlace(real)
    try:
        container, specs, progress = _to_append(real, sources)
        return _writer(
            container,
            specs,
            ending,
            None,
            progress,
            memory=memory,
            threads=threads,
            checksum=progress.sums is not None,
        )
    except BaseException:
        ending.give_up()
        raise


def _to_append(
    path: str, sources: Sequence[str] | None
) -> tuple[Container, list[SourceSpec], Progress]:
    """What is there, open to grow: of which kind it is, its own bytes tell."""
    for marks, kind in KINDS:
        if os.path.isdir(path):
            found = any(os.path.exists(os.path.join(path, mark)) for mark in marks)
        else:
            found = _begins_with(path, marks)
        if found:
            kind.recover(path)
            specs, progress = kind.specs_in(path, _names_in(path, sources))
            return kind.opener(path, specs), specs, progress
    raise MismatchError(
        f"{path}: more rows can be written to HDF5, Zarr 3 and .npy; epochal convert makes those "
        "of others"
    )


@dataclass(frozen=True)
class _Kind:
    """What appending asks of a format."""

    recover: Callable[[str], Any]
    specs_in: Callable[[str, Sequence[str]], tuple[list[SourceSpec], Progress]]
    opener: Callable[[str, Sequence[SourceSpec]], Container]


KINDS: tuple[tuple[tuple[str, ...], _Kind], ...] = (
    (
        (npy_folder.DOCUMENT, "\x93NUMPY"),
        _Kind(npy.recover, npy.specs_in, NpyContainer.open_to_append),
    ),
    ((zarr.DOCUMENT,), _Kind(zarr.recover, zarr.specs_in, ZarrContainer.open_to_append)),
    (("\x89HDF\r\n\x1a\n",), _Kind(hdf5.recover, hdf5.specs_in, HDF5Container.open_to_append)),
)


def _begins_with(path: str, marks: Sequence[str]) -> bool:
    with open(path, "rb") as file:
        head = file.read(16).decode("latin-1")
    return head.startswith(tuple(marks))


def _names_in(path: str, sources: Sequence[str] | None) -> list[str]:
    store = open_store(path)
    try:
        if sources is None:
            sources = list(largest_group(store.sources))
        names = [sources] if isinstance(sources, str) else list(sources)
        for name in names:
            if isinstance(unlike := store.sources.get(name), UnlikeSource):
                # What is there now would be noted as what is right.
                raise unlike.error(0, unlike.layout.n_chunks)
            if name not in store.sources:
                raise SourceNameError(
                    f"no source {name!r} in {path}: there are {', '.join(store.sources) or 'none'}"
                )
        return names
    finally:
        store.close()
