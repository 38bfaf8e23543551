"""Rows of varying length that a file keeps in several arrays: sparse matrices, values and offsets.

A *compressed sparse row* matrix is a group of three arrays (``data``, ``indices``, ``indptr``): as
AnnData writes it (``encoding-type``, ``shape``), the older h5sparse (``h5sparse_format``,
``h5sparse_shape``), and 10x Genomics, which stores features by cells column by column: which is
cells by features row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError, FormatError
from epochal.stores.manifest import Manifest
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import Other, SelfChecking, Store

__all__ = ["AssembledStore", "ColumnNumbers", "assemble", "pair"]

PARTS = ("data", "indices", "indptr")
BLOCK_BYTES = 8 << 20
# Offsets are held whole: many more than there is stored of a matrix are those of no matrix.
FREE_BYTES, TIMES_STORED = 64 << 20, 64


class AssembledStore:
    """A store whose sparse matrices are sources, in the place of their parts."""

    def __init__(
        self, store: Store, sparse: Mapping[str, RaggedSource], not_sparse: list[Other]
    ) -> None:
        self._store = store
        parts = {f"{group}/{part}": group for group in sparse for part in (*PARTS, "shape")}
        self.sources: dict[str, AnySource] = {}
        for name, source in store.sources.items():
            group = parts.get(name)
            if group is None:
                self.sources[name] = source
            elif group not in self.sources:
                self.sources[group] = sparse[group]
        self.others = (
            *store.others,
            *not_sparse,
            *(
                _part(name, group, store.sources[name])
                for name, group in parts.items()
                if name in store.sources
            ),
        )

    @property
    def name(self) -> str:
        """That of the store."""
        return self._store.name

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Those of the store."""
        return self._store.groups

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class ColumnNumbers:
    """The ``indices`` of a sparse matrix, each block looked at once as it is read: whoever adds up
    the items of a row, SciPy among them, writes where they point.

    Parameters
    ----------
    file, name
        For people.
    source
        The numbers, ``(n_items,)``.
    offsets
        Where the rows of the matrix begin, and the end, ``(n_rows + 1,)``.
    n_columns
        They are from 0 to below it.
    """

    def __init__(
        self, file: str, name: str, source: Source, offsets: NDArray[np.int64], n_columns: int
    ) -> None:
        self._file, self._name, self._source = file, name, source
        self._offsets, self._n_columns = offsets, n_columns
        self.layout = source.layout
        # A negative number is, without its sign, one of the upper half.
        stored = self.layout.dtype
        self._unsigned = np.dtype(stored.str.replace("i", "u"))
        self._limit = min(n_columns, 1 << (8 * stored.itemsize - (stored.kind == "i")))

    @property
    def manifest(self) -> Manifest | None:
        """The checksums of the numbers as they are stored."""
        return self._source.manifest if isinstance(self._source, SelfChecking) else None

    def unchecked(self) -> Source:
        """The numbers without their checksums, whatever they are."""
        source = self._source
        return source.unchecked() if isinstance(source, SelfChecking) else source

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``."""
        self._source.read(start, stop, out)
        if len(out) and int(out.view(self._unsigned).max()) >= self._limit:
            first = self.layout.bounds(start)[0]
            raise self._damage(np.arange(first, first + len(out)), out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single numbers."""
        self._source.read_rows(rows, out)
        if len(out) and int(out.view(self._unsigned).max()) >= self._limit:
            raise self._damage(rows, out)

    def _damage(self, items: NDArray[np.int64], numbers: NDArray[Any]) -> DamageError:
        at = int(np.argmax(numbers.view(self._unsigned) >= self._limit))
        chunk = self.layout.chunk_of(int(items[at]))
        first, last = self.layout.bounds(chunk)
        row = int(np.searchsorted(self._offsets, items[at], "right")) - 1
        return DamageError(
            f"{self._file}: source {self._name!r}, chunk {chunk}, rows {first} to {last - 1}: "
            f"row {row} of the matrix has column {numbers[at]}, of {self._n_columns}. The file is "
            "damaged there: restore it from a copy, or leave these rows out"
        )


def assemble(store: Store) -> Store:
    """The store with its sparse matrices as sources; itself where it has none.

    Reads the offsets of each matrix: 8 bytes a row, held.
    """
    sparse: dict[str, RaggedSource] = {}
    others: list[Other] = []
    for group in _groups(store):
        try:
            found = _sparse(store, group)
        except EpochalError as error:
            others.append(Other(group, str(error), damaged=True))
            continue
        if isinstance(found, RaggedSource):
            sparse[group] = found
        elif found:
            others.append(Other(group, found))
    return AssembledStore(store, sparse, others) if sparse or others else store


def _groups(store: Store) -> Iterator[str]:
    for name in store.sources:
        group, _, last = name.rpartition("/")
        if last == "indptr" and group and all(f"{group}/{p}" in store.sources for p in PARTS):
            yield group


def _sparse(store: Store, group: str) -> RaggedSource | str:
    """The matrix, or why its rows are not read; empty where the group is none."""
    parts = [_vector(store.sources[f"{group}/{part}"]) for part in PARTS]
    data, indices, indptr = parts
    if data is None or indices is None or indptr is None:
        return ""
    attributes = store.groups.get(group, {})
    form = str(attributes.get("encoding-type", attributes.get("h5sparse_format", "")))
    if form.startswith("csc"):
        return (
            "a sparse matrix that is stored by columns (csc): its rows lie all over it; "
            "convert it with scipy's tocsr, or read its transpose"
        )
    shape = attributes.get("shape", attributes.get("h5sparse_shape"))
    if shape is None and f"{group}/shape" in store.sources:
        stored = _vector(store.sources[f"{group}/shape"])
        shape = _values(stored) if stored is not None and stored.layout.n_rows == 2 else None
    try:
        n_rows, n_columns = np.asarray(shape).astype(np.int64).tolist()
    except (TypeError, ValueError, OverflowError):  # as of None
        return ""
    held = 8 * indptr.layout.n_rows
    if held > max(FREE_BYTES, TIMES_STORED * _stored_bytes((data, indices, indptr))):
        raise FormatError(
            f"indptr has {indptr.layout.n_rows} numbers, which would take {held} bytes, of a "
            "matrix that is hardly stored: damaged, or built to fill the memory"
        )
    offsets = _values(indptr)
    if not form and len(offsets) - 1 == n_columns != n_rows:  # 10x: by columns, of the transpose
        n_rows, n_columns = n_columns, n_rows
    if len(offsets) != n_rows + 1:
        raise FormatError(f"indptr has {len(offsets)} numbers for {n_rows} rows: damaged")
    if indices.layout.dtype.kind not in "iu":
        raise FormatError(f"numbers of columns are whole numbers, found {indices.layout.dtype}")
    numbers = ColumnNumbers(store.name, f"{group}/indices", indices, offsets, n_columns)
    return RaggedSource(group, {"data": data, "indices": numbers}, offsets, n_columns)


def _stored_bytes(sources: Iterable[Source]) -> int:
    """What a file holds of some sources; nothing of those that are a fill value everywhere."""
    layouts = (source.layout for source in sources)
    return sum(layout.stored_bytes for layout in layouts if layout.kind != "compact")


def pair(name: str, values: Source, offsets: Source) -> RaggedSource:
    """Rows of varying length: row ``r`` is ``values[offsets[r]:offsets[r + 1]]``.

    Raises
    ------
    FormatError
        Offsets that are not whole numbers from 0 to ``len(values)``, one more than there are rows.
    """
    if _vector(offsets) is None or offsets.layout.dtype.kind not in "iu":
        raise FormatError(
            f"{name}: offsets are whole numbers, (n_rows + 1,); found {offsets.layout.shape} of "
            f"{offsets.layout.dtype}"
        )
    found = _values(offsets)
    if len(found) == 0 or found[0] != 0 or found[-1] != values.layout.n_rows:
        ends = f"{found[0]} to {found[-1]}" if len(found) else "none"
        raise FormatError(
            f"{name}: offsets go from 0 to the number of values, {values.layout.n_rows}; "
            f"found {ends}"
        )
    return RaggedSource(name, {"values": values}, found)


def _vector(source: AnySource) -> Source | None:
    """The source, if it has one axis."""
    if isinstance(source, RaggedSource) or len(source.layout.shape) != 1:
        return None
    return source


def _values(source: Source) -> NDArray[np.int64]:
    """All of a small source of whole numbers, read in blocks."""
    layout = source.layout
    if layout.dtype.kind not in "iu":
        raise FormatError(f"offsets of rows are whole numbers, found {layout.dtype}")
    out = np.empty(layout.n_rows, dtype=np.int64)
    step = max(1, BLOCK_BYTES // max(layout.chunk_bytes, 1))
    for start in range(0, layout.n_chunks, step):
        stop = min(start + step, layout.n_chunks)
        first, last = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
        block = np.empty(last - first, layout.dtype)
        source.read(start, stop, block)
        if layout.dtype.kind == "u" and layout.dtype.itemsize == 8 and (block >> 63).any():
            raise FormatError("offsets beyond 2**63: the file is damaged")
        out[first:last] = block
    return out


def _part(name: str, group: str, source: AnySource) -> Other:
    layout = source.layout
    return Other(name, f"a part of the sparse matrix {group!r}", layout.shape, str(layout.dtype))
