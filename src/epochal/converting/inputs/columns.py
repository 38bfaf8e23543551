"""Parquet, Arrow and Feather files, by pyarrow: columns as sources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from epochal.converting.inputs.source import BLOCK_BYTES, Block, InputSource, chosen
from epochal.errors import FileMissingError, FormatError, MismatchError
from epochal.stores.sniff import natural

__all__ = ["open_arrow", "open_parquet"]

MIN_BATCH_ROWS, MAX_BATCH_ROWS = 64, 1 << 16
EXACT_FLOATS = 1 << 53


def open_parquet(src: Any, *, sources: Sequence[str] | None, memory_bytes: int) -> _Columns:
    """One Parquet file, a folder of them, or a list."""
    files = [os.fspath(each) for each in src] if isinstance(src, list | tuple) else None
    if files is None:
        path = os.fspath(src)
        if os.path.isdir(path):
            names = natural(os.listdir(path))
            files = [os.path.join(path, n) for n in names if n.endswith(".parquet")]
        else:
            files = [path]
    return _Columns(_Parquet(files), sources)


def open_arrow(src: Any, *, sources: Sequence[str] | None, memory_bytes: int) -> _Columns:
    """An Arrow file or stream; Feather, version 2, is one."""
    return _Columns(_Arrow(os.fspath(src)), sources)


class _Parquet:
    """Parquet files, one after another."""

    def __init__(self, files: list[str]) -> None:
        if not files:
            raise FileMissingError("no Parquet files were given")
        self.name = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        self._files = files
        with _told(files[0]):
            self.schema = pa.parquet.read_schema(files[0])
        self._rows = []
        for path in files:
            with _told(path):
                meta = pa.parquet.read_metadata(path)
                self._rows.append([meta.row_group(k).num_rows for k in range(meta.num_row_groups)])
                other = pa.parquet.read_schema(path)
            if not other.equals(self.schema, check_metadata=False):
                what = _differing(self.schema, other)
                raise MismatchError(f"{path} has other columns or types than {files[0]}: {what}")
        self.rows = sum(map(sum, self._rows))

    def batches(self, start: int, names: list[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """From row `start` on; row groups before it are not read."""
        at = 0
        for path, groups in zip(self._files, self._rows, strict=True):
            wanted, first = [], None
            for number, rows in enumerate(groups):
                if at + rows > start:
                    first = at if first is None else first
                    wanted.append(number)
                at += rows
            if first is None:
                continue
            with _told(path), pa.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(n_rows, row_groups=wanted, columns=names):
                    begin, first = first, first + batch.num_rows
                    if first > start:
                        yield batch.slice(max(start - begin, 0))


class _Arrow:
    """One Arrow file, or stream."""

    def __init__(self, path: str) -> None:
        self.name = path
        with _told(path), self._open() as reader:
            self.schema = reader.schema
        self.rows = sum(batch.num_rows for batch in self._whole([]))

    def _open(self) -> Any:
        source = pa.memory_map(self.name)
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)

    def _whole(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        with _told(self.name), self._open() as reader:
            if hasattr(reader, "num_record_batches"):
                found = (reader.get_batch(k) for k in range(reader.num_record_batches))
            else:
                found = iter(reader)
            for batch in found:
                yield batch.select(names) if names else batch

    def batches(self, start: int, names: list[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """From row `start` on."""
        at = 0
        for batch in self._whole(names):
            first, at = at, at + batch.num_rows
            for begin in range(max(start - first, 0), batch.num_rows, n_rows):
                yield batch.slice(begin, n_rows)


class _Columns:
    """Columns of numbers, truth values, text and lists of one length.

    Text is UTF-8 in ``S`` of the longest value, for which a pass over such columns looks; times are
    whole numbers of their unit, which `attrs` has. What is missing is NaN (of whole numbers, where
    a float64 holds them exactly), and in text nothing.
    """

    def __init__(self, table: _Parquet | _Arrow, sources: Sequence[str] | None) -> None:
        self._table = table
        self.name, self.rows, self.attrs = table.name, table.rows, dict[str, Any]()
        names = chosen(table.name, table.schema.names, sources)
        if not names:
            raise FormatError(f"{table.name}: it has no columns")
        self._types = {name: _plain(table.schema.field(name).type) for name in names}
        for name, kind in self._types.items():
            _check(table.name, name, kind)
            if pa.types.is_temporal(kind) and hasattr(kind, "unit"):
                self.attrs[f"{name}_unit"] = kind.unit
        lengths, missing = self._survey(names)
        self.sources = {
            name: _source(table.name, name, kind, lengths.get(name, 1), missing.get(name))
            for name, kind in self._types.items()
        }

    def _survey(self, names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
        """The longest text of each column that has text, and how large whole numbers are where
        some are missing.
        """
        looked = [
            n
            for n in names
            if _is_text(self._types[n])
            or (self._table.schema.field(n).nullable and not pa.types.is_floating(self._types[n]))
        ]
        lengths: dict[str, int] = {}
        missing: set[str] = set()
        most: dict[str, int] = {}
        for batch in self._table.batches(0, looked, MAX_BATCH_ROWS) if looked else ():
            for name in looked:
                column = _decoded(batch.column(name))
                if column.null_count:
                    missing.add(name)
                if _is_text(self._types[name]):
                    longest = pc.max(pc.binary_length(column)).as_py()
                    lengths[name] = max(lengths.get(name, 1), longest or 0)
                elif pa.types.is_integer(self._types[name]) and len(column):
                    bounds = pc.min_max(column).as_py()
                    values = [abs(v) for v in bounds.values() if v is not None]
                    most[name] = max([most.get(name, 0), *values])
                elif pa.types.is_temporal(self._types[name]):
                    most[name] = max(most.get(name, 0), _largest_lost(column))
        return lengths, {name: most.get(name, 0) for name in missing}

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Input`."""
        row_bytes = sum(
            prod(source.row_shape) * source.dtype.itemsize for source in self.sources.values()
        )
        n_rows = BLOCK_BYTES // max(row_bytes, 1)
        n_rows = max(MIN_BATCH_ROWS, min(MAX_BATCH_ROWS, n_rows))
        for batch in self._table.batches(start, list(self.sources), n_rows):
            yield {
                name: _values(self.name, batch.column(name), source)
                for name, source in self.sources.items()
            }

    def close(self) -> None:
        """Nothing stays open."""


class _told:
    """A context in which pyarrow's errors name the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise FileMissingError(f"{self._path}: there is no such file") from error
        if isinstance(error, pa.ArrowException | OSError) and not isinstance(error, FormatError):
            raise FormatError(f"{self._path}: cannot be read: {error}") from error


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind)
    )


def _check(path: str, name: str, kind: pa.DataType) -> None:
    """Refuse what has no form as rows of equal size."""
    t = pa.types
    while t.is_fixed_size_list(kind):
        kind = kind.value_type
    if t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind):
        return
    if t.is_temporal(kind) and not t.is_interval(kind):  # months and days make no number
        return
    if _is_text(kind) or t.is_fixed_size_binary(kind):
        return
    if t.is_list(kind) or t.is_large_list(kind):
        what = "lists of any length; cast them to lists of one length, or leave it out"
    else:
        what = "which has no form as numbers; cast it (decimals to float64), or leave it out"
    raise MismatchError(f"{path}: column {name!r} is {kind}: {what} (sources=, --sources)")


def _whole(column: pa.Array) -> pa.Array:
    """Times as whole numbers of their unit."""
    return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())


def _largest_lost(column: pa.Array) -> int:
    """Of times the largest that a float64 does not hold: many past `EXACT_FLOATS` are whole seconds
    in nanoseconds, which it does. 0 where there is none.
    """
    times = np.asarray(_whole(column.drop_null()))
    with np.errstate(invalid="ignore"):  # the largest of all, as floats, are no int64
        lost = times[times.astype(np.float64).astype(times.dtype) != times]
    return int(np.abs(lost).max(initial=0))


def _source(
    path: str, name: str, kind: pa.DataType, longest: int, missing: int | None
) -> InputSource:
    shape: tuple[int, ...] = ()
    while pa.types.is_fixed_size_list(kind):
        shape, kind = (*shape, kind.list_size), kind.value_type
    if _is_text(kind):
        return InputSource(name, shape, np.dtype(f"S{max(longest, 1)}"))
    if pa.types.is_fixed_size_binary(kind):
        return InputSource(name, shape, np.dtype(f"V{kind.byte_width}"))
    dtype: np.dtype = np.dtype("i8")
    if not pa.types.is_temporal(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
    elif kind.bit_width == 32:
        dtype = np.dtype("i4")
    if missing is not None and dtype.kind in "iub":
        if shape or dtype.kind == "b" or missing > EXACT_FLOATS:
            raise MismatchError(
                f"{path}: column {name!r} of {kind} has missing values, for which {dtype} has no "
                "form: fill them, or leave it out (sources=, --sources)"
            )
        dtype = np.dtype("f8")
    return InputSource(name, shape, dtype)


def _values(path: str, column: pa.Array, source: InputSource) -> Any:
    column = _decoded(column)
    n = len(column)
    while pa.types.is_fixed_size_list(column.type):
        if column.null_count:
            raise MismatchError(f"{path}: column {source.name!r} has missing lists: fill them")
        column = column.flatten()
    if source.dtype.kind == "S":
        values = [v.encode() if isinstance(v, str) else (v or b"") for v in column.to_pylist()]
        return np.array(values, source.dtype).reshape(n, *source.row_shape)
    if source.dtype.kind == "V":
        if column.null_count:
            raise MismatchError(f"{path}: column {source.name!r} has missing values: fill them")
        raw = b"".join(column.to_pylist())
        return np.frombuffer(raw, source.dtype).reshape(n, *source.row_shape)
    if pa.types.is_temporal(column.type):
        column = _whole(column)
    if column.null_count and source.dtype.kind != "f":
        raise MismatchError(f"{path}: column {source.name!r} has missing values: fill them")
    rows = column.to_numpy(zero_copy_only=False)
    return np.asarray(rows, source.dtype).reshape(n, *source.row_shape)


def _differing(mine: pa.Schema, theirs: pa.Schema) -> str:
    for field in mine:
        at = theirs.get_field_index(field.name)
        if at < 0:
            return f"{field.name!r} is missing"
        if theirs.field(at).type != field.type:
            return f"{field.name!r} is {theirs.field(at).type} there, {field.type} here"
    more = [name for name in theirs.names if name not in mine.names]
    return f"{more[0]!r} is there alone" if more else "their order"
