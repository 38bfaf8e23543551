"""Which input a file is: by what it begins with, and by its name where that says nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from epochal.converting.inputs.source import Input, Stacked
from epochal.errors import FormatError, MismatchError

__all__ = ["FORMATS", "open_input"]

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}
TEXT = {".csv": ",", ".tsv": "\t"}
PACKED = {".gz", ".bz2", ".zst", ".lz4"}
FORMATS = {
    "csv": "epochal.converting.inputs.text:open_csv",
    "tsv": "epochal.converting.inputs.text:open_csv",
    "parquet": "epochal.converting.inputs.columns:open_parquet",
    "arrow": "epochal.converting.inputs.columns:open_arrow",
    "images": "epochal.converting.inputs.images:open_images",
    "mat": "epochal.converting.inputs.matlab:open_mat",
}
TABLES = {"csv", "tsv", "parquet", "arrow"}
NEEDS = {"pyarrow": "arrow", "PIL": "images", "scipy": "matlab"}


def open_input(
    src: Any,
    *,
    format: str | None = None,
    sources: Sequence[str] | None = None,
    stack: Mapping[str, Sequence[str] | str] | None = None,
    size: tuple[int, int] | None = None,
    mode: str | None = None,
    axis: int | Mapping[str, int] = 0,
    header: bool = True,
    memory_bytes: int = 1 << 30,
) -> Input | None:
    """An input, or None where `src` is none of these, so that a store reads it.

    Parameters
    ----------
    src
        A file, a folder of images or of Parquet files, or a list of Parquet files.
    format
        One of ``csv``, ``tsv``, ``parquet``, ``arrow``, ``images``, ``mat``; None looks.
    sources
        Columns or variables, by name, and what `stack` makes of them; all when None.
    stack
        Columns to join to one matrix, by the name that it gets; ``"*"`` is all other numbers.
    size, mode
        Of images: ``(height, width)`` to scale them to, and Pillow's mode such as ``"RGB"``.
    axis
        Of MATLAB's variables: which axis is that of rows, for all or by name; -1 is the last.
    header
        Whether the first line of a CSV file names its columns; else they are ``c0``, ``c1``, ...
    memory_bytes
        The most that may be held at once.

    Raises
    ------
    FormatError, MismatchError, BudgetError, SourceNameError
    """
    kind = format or _kind_of(src)
    sources = [sources] if isinstance(sources, str) else sources
    if kind is None:
        if stack is not None or size is not None or mode is not None:
            raise MismatchError("stack=, size= and mode= are for tables and images")
        return None
    if kind not in FORMATS:
        raise MismatchError(f"format={kind!r} is not one of: {', '.join(FORMATS)}")
    if isinstance(src, list | tuple) and kind != "parquet":
        raise MismatchError(f"format={kind!r}: of several files only Parquet is read, one by one")
    module, _, function = FORMATS[kind].partition(":")
    options: dict[str, Any] = {"sources": sources, "memory_bytes": memory_bytes}
    if kind == "images":
        options |= {"size": size, "mode": mode}
    elif size is not None or mode is not None:
        raise MismatchError("size= and mode= are for images")
    if kind == "mat":
        options["axis"] = axis
    if kind in ("csv", "tsv"):
        options |= {"delimiter": TEXT[f".{kind}"], "header": header}
    if stack is not None and kind in TABLES:
        options["sources"] = _columns(sources, stack)
    try:
        opener = getattr(import_module(module), function)
        given: Input = opener(src, **options)
    except ModuleNotFoundError as error:
        extra = NEEDS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise FormatError(
            f"{src}: {kind} is read by the package {error.name}, which is not installed: "
            f"pip install 'epochal[{extra}]'"
        ) from error
    if stack is None:
        return given
    if kind not in TABLES:
        raise MismatchError(f"stack= joins columns of tables, not of {kind}")
    try:
        return Stacked(given, stack, sources)
    except BaseException:
        given.close()
        raise


def _columns(
    sources: Sequence[str] | None, stack: Mapping[str, Sequence[str] | str]
) -> list[str] | None:
    """The columns that sources and matrices are made of; None for all."""
    if sources is None or "*" in stack.values():
        return None
    joined = [[each] if isinstance(each, str) else list(each) for each in stack.values()]
    alone = [name for name in sources if name not in stack]
    return list(dict.fromkeys([*alone, *(column for each in joined for column in each)]))


def _kind_of(src: Any) -> str | None:
    if isinstance(src, list | tuple):
        kinds = {_kind_of(each) for each in src}
        return "parquet" if kinds == {"parquet"} else None
    if not isinstance(src, str | os.PathLike):
        return None
    path = os.fspath(src)
    if "://" in path or not os.path.exists(path):
        return None
    return _kind_of_folder(path) if os.path.isdir(path) else _kind_of_file(path)


def _kind_of_folder(path: str) -> str | None:
    """Images, or Parquet files, where there is nothing else."""
    names = [n for n in os.listdir(path) if not n.startswith((".", "_"))]
    if "zarr.json" in names or "epochal.json" in names:
        return None
    files = [n for n in names if os.path.isfile(os.path.join(path, n))]
    if files and all(n.endswith(".parquet") for n in files):
        return "parquet"
    inside = [
        n
        for folder in names
        if os.path.isdir(os.path.join(path, folder))
        for n in os.listdir(os.path.join(path, folder))[:50]
    ]
    images = any(os.path.splitext(n)[1].lower() in IMAGES for n in files + inside)
    return "images" if images else None


def _kind_of_file(path: str) -> str | None:
    with open(path, "rb") as file:
        head = file.read(132)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1") or (head[:4] == b"\xff\xff\xff\xff" and path.endswith(".arrow")):
        return "arrow"
    if head[124:128] in (b"\x00\x01IM", b"\x01\x00MI") or head.startswith(b"MATLAB 5.0"):
        return "mat"
    stem, suffix = os.path.splitext(path)
    if suffix.lower() in PACKED:
        suffix = os.path.splitext(stem)[1]
    suffix = suffix.lower()
    if suffix in TEXT:
        return suffix[1:]
    if suffix == ".mat" and not head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        return "mat"
    return None
