"""CSV and TSV, by pyarrow, in two passes: the first finds what each column is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from epochal.converting.inputs.source import BLOCK_BYTES, Block, InputSource, chosen
from epochal.errors import FormatError, MismatchError
from epochal.sizes import show

__all__ = ["open_csv"]

MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
EXACT_FLOATS = 1 << 53
WHOLE = "^-?[0-9]{1,1000}$"


@dataclass
class _Column:
    """What was seen of a column: text is what everything can be."""

    longest: int = 0
    missing: bool = False
    whole: bool = True
    number: bool = True
    truth: bool = True
    least: int = 0
    most: int = 0


def open_csv(
    src: Any,
    *,
    sources: Sequence[str] | None,
    memory_bytes: int,
    delimiter: str = ",",
    header: bool = True,
) -> CSVInput:
    """A table in text, of which a whole pass has found rows and types."""
    return CSVInput(os.fspath(src), sources, delimiter, header)


class CSVInput:
    """Each column a source: int64, uint64 where that is too small, float64, bool, or UTF-8 text as
    ``S``.

    A missing value is NaN in a column of numbers (whole ones become float64, where that holds them
    exactly) and empty in one of text.
    """

    def __init__(
        self, path: str, sources: Sequence[str] | None, delimiter: str, header: bool
    ) -> None:
        self.name, self._delimiter, self._header = path, delimiter, header
        self.attrs: dict[str, Any] = {}
        self._names: list[str] = []
        seen: dict[str, _Column] = {}
        rows = 0
        for batch in self._text():
            rows += batch.num_rows
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                _see(seen.setdefault(name, _Column()), column)
        if len(set(self._names)) < len(self._names):
            twice = next(n for n in self._names if self._names.count(n) > 1)
            raise FormatError(f"{path}: two columns are called {twice!r}")
        self.rows: int | None = rows
        picked = chosen(path, self._names, sources)
        if "" in picked:
            raise MismatchError(
                f"{path}: column {self._names.index('') + 1} has no name in the first line, as an "
                "index that pandas wrote: name it, or name the others with sources= (--sources)"
            )
        self._dtypes = {name: _dtype(path, name, seen.get(name, _Column())) for name in picked}
        self.sources = {n: InputSource(n, (), dtype) for n, dtype in self._dtypes.items()}

    def _text(self) -> Iterator[pa.RecordBatch]:
        """The file as columns of text, some megabytes at a time."""
        try:
            head = self._columns()
            options = pa.csv.ConvertOptions(
                column_types=dict.fromkeys(head, pa.string()), strings_can_be_null=False
            )
            names = None if self._header else head
            with pa.csv.open_csv(
                self.name,
                read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=True
                ),
                convert_options=options,
            ) as reader:
                yield from reader
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            if "straddling" in str(error):  # of pyarrow's blocks, whose size nobody can give
                raise FormatError(
                    f"{self.name}: a line longer than the {show(BLOCK_BYTES)} that are read at "
                    "once: shorten its texts, or close a quote that is left open"
                ) from error
            raise FormatError(f"{self.name}: not a table in text: {error}") from error

    def _columns(self) -> list[str]:
        """Names of the columns, of the first line or made up."""
        if self._names:
            return self._names
        options = pa.csv.ReadOptions(
            block_size=BLOCK_BYTES, autogenerate_column_names=not self._header
        )
        parse = pa.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)
        with pa.csv.open_csv(self.name, read_options=options, parse_options=parse) as reader:
            found = list(reader.schema.names)
        self._names = found if self._header else [f"c{k}" for k in range(len(found))]
        return self._names

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Input`: what comes before is read again, and dropped."""
        at = 0
        for batch in self._text():
            first, at = at, at + batch.num_rows
            if at <= start:
                continue
            part = batch.slice(max(start - first, 0))
            yield {
                name: _values(part.column(self._names.index(name)), dtype)
                for name, dtype in self._dtypes.items()
            }

    def close(self) -> None:
        """Nothing stays open."""


def _see(seen: _Column, column: pa.Array) -> None:
    """Take note of some more values."""
    present = column.filter(pc.invert(pc.is_in(column, pa.array(MISSING))))
    seen.missing |= len(present) < len(column)
    longest = pc.max(pc.binary_length(column)).as_py()
    seen.longest = max(seen.longest, longest or 0)
    if not len(present):
        return
    if seen.whole:
        bounds = _bounds(present)
        seen.whole = bounds is not None
        if bounds is not None:
            seen.least, seen.most = min(seen.least, bounds[0]), max(seen.most, bounds[1])
    if seen.number and not seen.whole:
        try:
            present.cast(pa.float64())
        except pa.ArrowInvalid:
            seen.number = False
    if seen.truth:
        seen.truth = pc.all(pc.is_in(pc.utf8_lower(present), pa.array(["true", "false"]))).as_py()


def _bounds(column: pa.Array) -> tuple[int, int] | None:
    """The least and the largest of whole numbers of any size; None where some are none."""
    try:
        found = pc.min_max(column.cast(pa.int64())).as_py()
        return found["min"], found["max"]
    except pa.ArrowInvalid:
        if not pc.all(pc.match_substring_regex(column, WHOLE)).as_py():
            return None
    values = [int(value) for value in column.to_pylist()]
    return min(values), max(values)


def _dtype(path: str, name: str, seen: _Column) -> np.dtype:
    if seen.longest == 0 or (seen.truth and not seen.missing):
        return np.dtype("S1") if seen.longest == 0 else np.dtype("?")
    if seen.truth or not seen.number:
        return np.dtype(f"S{seen.longest}")
    if not seen.whole:
        return np.dtype("f8")
    if not seen.missing:
        return _whole(path, name, seen)
    most = max(-seen.least, seen.most)
    if most > EXACT_FLOATS:
        raise MismatchError(
            f"{path}: column {name!r} has missing values, and whole numbers up to {most} "
            "that a float does not hold exactly: fill what is missing, or leave it out "
            "(sources=)"
        )
    return np.dtype("f8")


def _whole(path: str, name: str, seen: _Column) -> np.dtype:
    """Of whole numbers, none of which is missing."""
    for dtype in (np.dtype("i8"), np.dtype("u8")):
        bounds = np.iinfo(dtype)
        if bounds.min <= seen.least and seen.most <= bounds.max:
            return dtype
    raise MismatchError(
        f"{path}: column {name!r} has whole numbers from {seen.least} to {seen.most}, which "
        "neither int64 nor uint64 holds: write them as floats (1e30), or leave it out (sources=)"
    )


def _values(column: pa.Array, dtype: np.dtype) -> np.ndarray[Any, np.dtype]:
    if dtype.kind == "S":
        return np.array([value.encode() for value in column.to_pylist()], dtype)
    if dtype.kind == "b":
        return np.asarray(pc.equal(pc.utf8_lower(column), "true"))
    if dtype.kind in "iu":
        return np.asarray(column.cast(pa.int64() if dtype.kind == "i" else pa.uint64()))
    missing = pc.is_in(column, pa.array(MISSING))
    return np.asarray(pc.if_else(missing, "nan", column).cast(pa.float64()))
