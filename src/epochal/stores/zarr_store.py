"""Zarr folders and archives of version 2 and 3, sharded or not, read without zarr's own library.

The metadata are read once, and one listing of an array's chunks tells how long each is. Chunks are
then decoded by whichever thread asks: a chunk's file is opened, read and closed; of a shard only
the chunks that are asked for are read, neighbours together.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import ChangedError, DamageError, EpochalError, FileMissingError, FormatError
from epochal.layout import Layout
from epochal.stores.archive import ZipTree
from epochal.stores.blosc import Undecodable
from epochal.stores.checks import Checks
from epochal.stores.codecs import Bytes
from epochal.stores.file import File, Tree
from epochal.stores.forms import form_of, held_to
from epochal.stores.manifest import (
    DAMAGED,
    Form,
    Manifest,
    crc32,
    manifest_from_json,
    manifests_beside,
    names_from,
)
from epochal.stores.rows import byte_view
from epochal.stores.store import KEPT_SUM, TRANSFORMS, AnySource, Other, kept_besides, missed
from epochal.stores.zarr_codecs import Unreadable, UnsafeCodec
from epochal.stores.zarr_meta import ArrayMeta, read_v2, read_v3
from epochal.stores.zarr_nodes import metadata_of

__all__ = ["ZarrStore", "ZarrZipStore", "form_of_meta"]

GROUP_BYTES = 1 << 20  # neighbouring chunks of a shard are read in one call up to this
GAP_BYTES = 4096
MISSING = 2**64 - 1
# An index is held whole: many more chunks than are stored are those of no array.
FREE_CHUNKS, TIMES_STORED = 1 << 22, 64


@dataclass(frozen=True, eq=False)
class _Chunks:
    """Where the chunks of one array lie, in raster order of their grid: 12 or 16 bytes a chunk.

    `sizes` are 0 where none is stored. `offsets`, into the shard, and `files`, the shards by their
    number, are None where each chunk is a file.
    """

    sizes: NDArray[np.uint32] = field(repr=False)
    offsets: NDArray[np.int64] | None = field(default=None, repr=False)
    files: dict[int, File] | None = field(default=None, repr=False)


class ZarrSource:
    """One array. Threads share it; it pickles as its index."""

    def __init__(
        self,
        tree: Tree,
        path: str,
        meta: ArrayMeta,
        chunks: _Chunks,
        manifest: Manifest | None = None,
    ) -> None:
        self._tree, self._path, self._meta, self._chunks = tree, path, meta, chunks
        self.manifest = manifest
        self._prepare()

    def __getstate__(self) -> tuple[Tree, str, ArrayMeta, _Chunks, Manifest | None]:
        return self._tree, self._path, self._meta, self._chunks, self.manifest

    def __setstate__(self, state: tuple[Tree, str, ArrayMeta, _Chunks, Manifest | None]) -> None:
        self._tree, self._path, self._meta, self._chunks, self.manifest = state
        self._prepare()

    def _prepare(self) -> None:
        meta = self._meta
        self._grid = tuple(-(-n // c) for n, c in zip(meta.shape, meta.chunk, strict=True))
        self._pieces = prod(self._grid[1:])
        self._pipeline = meta.pipeline()
        self._whole_rows = meta.chunk[1:] == meta.shape[1:]
        sizes = self._chunks.sizes
        fits = self.manifest is not None and self.manifest.fits(len(sizes))
        self._checks = Checks(self.manifest.sums, sizes) if self.manifest and fits else None
        largest = int(sizes.max(initial=0))
        grouped = GROUP_BYTES if self._chunks.offsets is not None else 0
        cut = not (self._whole_rows and self._pipeline.direct) or meta.shape[0] % meta.chunk[0] != 0
        self.layout = Layout(
            shape=meta.shape,
            dtype=meta.dtype,
            chunk_rows=meta.chunk[0],
            piece_bytes=sizes.reshape(self._grid[0], self._pieces),
            read_overhead_bytes=max(largest, min(grouped, int(sizes.sum(dtype=np.int64))))
            + self._pipeline.workspace_bytes
            + cut * self._pipeline.nbytes
            + 128 * self._pieces
            + self._tree.copy_bytes,
            kind="chunked",
            in_flight=self._tree.in_flight,
            checked=self._checks is not None,
            codec=self._pipeline.label,
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read and decode the chunks ``[start, stop)``, neighbours in a shard together."""
        if out.nbytes == 0:
            return
        pieces = np.arange(start * self._pieces, stop * self._pieces)
        stored = self._chunks.sizes[pieces] > 0
        base = self.layout.bounds(start)[0]
        if not stored.all():
            fill = np.frombuffer(self._meta.fill, self._meta.dtype)[0]
            for piece in pieces[~stored].tolist():
                self._check(np.empty(0, np.uint8), [piece], [0], [0])
                out[self._place(piece, base, len(out))] = fill
        if self._chunks.offsets is None:
            for piece in pieces[stored].tolist():
                data = self._fetch(piece)
                self._check(data, [piece], [0], [len(data)])
                self._decode(piece, data, base, out)
            return
        for file, offset, n_bytes, group in self._groups(pieces[stored]):
            data = self._read(file, offset, n_bytes, group[0])
            starts = (self._chunks.offsets[group] - offset).tolist()
            sizes = self._chunks.sizes[group].tolist()
            self._check(data, group, starts, sizes)
            for piece, start, size in zip(group, starts, sizes, strict=True):
                self._decode(piece, data[start : start + size], base, out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered: rows are in chunks."""
        raise NotImplementedError("rows of a Zarr array are not read alone")

    def _place(self, piece: int, base: int, n_rows: int) -> tuple[slice, ...]:
        """The part of the output that a piece fills."""
        place = []
        for axis, at in enumerate(np.unravel_index(piece, self._grid)):
            first = int(at) * self._meta.chunk[axis]
            last = min(first + self._meta.chunk[axis], self._meta.shape[axis])
            place.append(slice(first, last) if axis else slice(first - base, last - base))
        assert place[0].stop <= n_rows
        return tuple(place)

    @property
    def form(self) -> Form:
        """What its rows are decoded by."""
        return form_of_meta(self._meta)

    def unchecked(self) -> ZarrSource:
        """The same without its checksums."""
        return ZarrSource(self._tree, self._path, self._meta, self._chunks)

    def stored_sums(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Checksums of what is stored of the chunks ``[start, stop)`` now, a piece each."""
        pieces = np.arange(start * self._pieces, stop * self._pieces)
        sums = np.zeros(len(pieces), np.uint32)
        stored = pieces[self._chunks.sizes[pieces] > 0]
        if self._chunks.offsets is None:
            for piece in stored.tolist():
                sums[piece - pieces[0]] = crc32(self._fetch(piece))
            return sums
        for file, offset, n_bytes, group in self._groups(stored):
            data = self._read(file, offset, n_bytes, group[0])
            for piece in group:
                at = int(self._chunks.offsets[piece]) - offset
                end = at + int(self._chunks.sizes[piece])
                sums[piece - pieces[0]] = crc32(data[at:end])
        return sums

    def _check(self, data: Bytes, pieces: list[int], starts: list[int], sizes: list[int]) -> None:
        """Compare pieces with their checksums, where there are some; those in a row together."""
        done = 0
        while self._checks is not None and done < len(pieces):
            end = done + 1
            while end < len(pieces) and pieces[end] == pieces[end - 1] + 1:
                end += 1
            wrong = self._checks.wrong(pieces[done], data, starts[done:end], sizes[done:end])
            if wrong is not None:
                raise self._damage(*wrong)
            done = end

    def _decode(self, piece: int, stored: Bytes, base: int, out: NDArray[Any]) -> None:
        try:
            first = piece // self._pieces * self._meta.chunk[0] - base
            direct = self._whole_rows and self._pipeline.direct
            if direct and first + self._meta.chunk[0] <= len(out):
                rows = out[first : first + self._meta.chunk[0]]
                self._pipeline.decode_into(stored, byte_view(rows))
                return
            items = self._pipeline.decode(stored)
        except Undecodable as error:
            raise self._damage(piece, str(error)) from error
        place = self._place(piece, base, len(out))
        out[place] = items[tuple(slice(0, s.stop - s.start) for s in place)]

    def _fetch(self, piece: int) -> Bytes:
        """The bytes of a chunk that is a file."""
        key = self._path + self._key(piece)
        size = int(self._chunks.sizes[piece])
        try:
            file = self._tree.file(key, size)
        except FileMissingError as error:
            raise self._changed(key, "it is gone") from error
        if file.size_bytes != size:
            raise self._changed(key, f"it had {size} bytes, now it has {file.size_bytes}")
        data = self._read(file, 0, size, piece)
        file.close()
        return data

    def _read(self, file: File, offset: int, n_bytes: int, piece: int) -> Bytes:
        data = np.empty(n_bytes, np.uint8)
        try:
            got = file.checked()([data.data], offset)
        except OSError as error:
            if isinstance(error, EpochalError):
                raise
            raise self._damage(piece, f"cannot be read: {error.strerror}") from error
        if got < n_bytes:
            raise self._damage(piece, f"its file ends {n_bytes - got} bytes too early")
        return data

    def _groups(self, pieces: NDArray[np.int64]) -> Iterator[tuple[File, int, int, list[int]]]:
        """Reads of neighbouring chunks of one shard: file, offset, bytes, and which chunks."""
        files, offsets = self._chunks.files, self._chunks.offsets
        assert files is not None
        assert offsets is not None
        shards = _shard_of(pieces, self._grid, self._meta)
        starts, sizes = offsets[pieces], self._chunks.sizes[pieces].astype(np.int64)
        order = np.lexsort((starts, shards))
        group: list[int] = []
        shard = first = last = -1
        for k in order.tolist():
            begin, end = int(starts[k]), int(starts[k] + sizes[k])
            joins = shards[k] == shard and begin - last <= GAP_BYTES and end - first <= GROUP_BYTES
            if group and not joins:
                yield files[shard], first, last - first, group
                group = []
            if not group:
                shard, first, last = int(shards[k]), begin, begin
            group.append(int(pieces[k]))
            last = max(last, end)
        if group:
            yield files[shard], first, last - first, group

    def _key(self, piece: int) -> str:
        numbers = np.unravel_index(piece, self._grid)
        return self._meta.prefix + self._meta.separator.join(str(int(n)) for n in numbers)

    def _damage(self, piece: int, what: str) -> DamageError:
        chunk, part = divmod(piece, self._pieces)
        start, stop = self.layout.bounds(chunk)
        of = f" (piece {part} of {self._pieces})" if self._pieces > 1 else ""
        return DamageError(
            f"{self._tree.name}: source {_name(self._tree, self._path)!r}, chunk {chunk}{of}, rows "
            f"{start} to {stop - 1}: {what}. "
            "The array is damaged there: restore it from a copy, or leave these rows out"
        )

    def _changed(self, key: str, what: str) -> ChangedError:
        return ChangedError(
            f"{self._tree.name}: chunk {key!r} is no longer what it was when the array was opened: "
            f"{what}. Open it again when nothing writes to it"
        )


def _shard_of(
    pieces: NDArray[np.int64], grid: tuple[int, ...], meta: ArrayMeta
) -> NDArray[np.int64]:
    """The number of the shard that holds each inner chunk."""
    assert meta.shards is not None
    outer = tuple(-(-n // s) for n, s in zip(meta.shape, meta.shards.shape, strict=True))
    each = [s // c for s, c in zip(meta.shards.shape, meta.chunk, strict=True)]
    at = np.unravel_index(pieces, grid)
    return np.ravel_multi_index([a // e for a, e in zip(at, each, strict=True)], outer)


class ZarrStore:
    """A group with all arrays below it, or one array, which is named as its folder is."""

    def __init__(self, tree: Tree, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._tree = tree
        self.name = tree.name
        self.sources: dict[str, AnySource] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self._sums = manifests_beside(tree.name, tree.in_flight == 1)
        self._names: list[str] = []
        others: list[Other] = []
        for path, meta in sorted(metadata_of(tree).items()):
            name = _name(tree, path)
            if isinstance(meta, Unreadable):
                others.append(Other(name, str(meta), damaged=True))
                continue
            attributes = meta.get("attributes")
            if path == TRANSFORMS and isinstance(attributes, dict) and KEPT_SUM in attributes:
                shape = meta.get("shape")
                others.append(kept_besides(name, tuple(shape) if isinstance(shape, list) else ()))
                continue
            try:
                self._add(name, path, meta)
            except (Unreadable, FormatError) as error:
                unsafe = isinstance(error, UnsafeCodec)
                damaged = isinstance(error, FormatError)
                others.append(Other(name, str(error), unsafe=unsafe, damaged=damaged))
        # What is noted beside the store of all its sources is newer than what it says itself.
        self.others = missed(() if self._sums.complete else self._names, self.sources, others)

    def _add(self, name: str, path: str, meta: Mapping[str, Any]) -> None:
        given = meta.get("attributes")
        attributes = dict(given) if isinstance(given, dict) else {}
        told = attributes.pop("epochal", None)
        if not isinstance(attributes.get("dimension_names", []), list):
            del attributes["dimension_names"]
        if attributes:
            self.groups[path] = attributes
        version_2 = meta.get("zarr_format") == 2
        if meta.get("node_type") == "group" or (version_2 and not {"shape", "dtype"} & set(meta)):
            self._names += names_from(told) if not path and not self._sums.complete else ()
            return
        mine = manifest_from_json(told)
        array = read_v2(meta) if version_2 else read_v3(meta)
        array.pipeline()  # says if it cannot be decoded
        if array.dimensions:
            self.groups.setdefault(path, {})["dimension_names"] = list(array.dimensions)
        folder = f"{path}/" if path else ""
        chunks = _index(self._tree, folder, array)
        manifest = self._sums[name] or mine
        if manifest is None and name in self._names:
            manifest = DAMAGED
        source = ZarrSource(self._tree, folder, array, chunks, manifest)
        self.sources[name] = held_to(manifest, source.form, source, self.name, name)

    def close(self) -> None:
        """Give back what is open."""
        self._tree.close()


def form_of_meta(meta: ArrayMeta) -> Form:
    """The form of an array (`epochal.stores.forms`)."""
    if not meta.shape[0]:
        return form_of(meta.shape, meta.dtype)
    more = {"chunks": [*meta.chunk], "filters": [*meta.codecs], "fill": meta.fill.hex()}
    if meta.axes is not None:
        more["axes"] = [*meta.axes]
    if meta.shards is not None:
        more["shards"] = [*meta.shards.shape]
    return form_of(meta.shape, meta.dtype, **more)


class ZarrZipStore(ZarrStore):
    """The same in a zip archive."""

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        super().__init__(ZipTree(file), allow=allow, untrusted=untrusted)


def _name(tree: Tree, path: str) -> str:
    """An array's name: its path, or its folder's where it is all there is."""
    return path.rstrip("/") or PurePosixPath(tree.name).stem or "array"


def _index(tree: Tree, folder: str, meta: ArrayMeta) -> _Chunks:
    """Which chunks are stored, and where. One listing; of each shard its index is read."""
    outer = meta.shards.shape if meta.shards else meta.chunk
    grid = tuple(-(-n // c) for n, c in zip(meta.shape, outer, strict=True))
    numbers, sizes = array("q"), array("q")
    if prod(grid):
        for key, size in tree.sizes(folder + meta.prefix):
            number = _number(key[len(folder) + len(meta.prefix) :], meta.separator, grid)
            if number is not None:
                numbers.append(number)
                sizes.append(size)
    declared = prod(-(-n // c) for n, c in zip(meta.shape, meta.chunk, strict=True))
    stored = len(numbers) * (prod(outer) // prod(meta.chunk))
    if declared > max(FREE_CHUNKS, TIMES_STORED * stored):
        raise FormatError(
            f"{tree.name}: {declared} chunks, of which {stored} are stored at most: "
            "so many are not indexed"
        )
    files = np.zeros(prod(grid), dtype=np.int64)
    files[np.frombuffer(numbers, np.int64)] = np.frombuffer(sizes, np.int64)
    if meta.shards is not None:
        return _index_shards(tree, folder, meta, grid, files)
    if (files >> 32).any():
        raise FormatError(f"{tree.name}: a chunk of {files.max()} bytes in {folder!r}")
    return _Chunks(files.astype(np.uint32))


def _number(text: str, separator: str, grid: tuple[int, ...]) -> int | None:
    """The number of the chunk with that key, of which the prefix was taken."""
    parts = text.split(separator)
    if len(parts) != len(grid) or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    number = 0
    for part, n in zip(parts, grid, strict=True):
        at = int(part)
        if at >= n or (len(part) > 1 and part[0] == "0"):
            return None
        number = number * n + at
    return number


def _index_shards(
    tree: Tree,
    folder: str,
    meta: ArrayMeta,
    outer: tuple[int, ...],
    files: NDArray[np.int64],
) -> _Chunks:
    shards = meta.shards
    assert shards is not None
    inner = tuple(-(-n // c) for n, c in zip(meta.shape, meta.chunk, strict=True))
    each = tuple(s // c for s, c in zip(shards.shape, meta.chunk, strict=True))
    offsets, sizes = np.zeros(inner, np.int64), np.zeros(inner, np.uint32)
    opened: dict[int, File] = {}
    for number in np.flatnonzero(files).tolist():
        at = np.unravel_index(number, outer)
        key = meta.prefix + meta.separator.join(str(int(n)) for n in at)
        opened[number] = file = tree.file(folder + key, int(files[number]))
        place = tuple(
            slice(int(a) * e, min((int(a) + 1) * e, n))
            for a, e, n in zip(at, each, inner, strict=True)
        )
        index = _shard_index(file, meta)[tuple(slice(0, s.stop - s.start) for s in place)]
        begins, lengths = index[..., 0], index[..., 1]
        stored = begins != MISSING
        wrong = stored & ((begins > file.size_bytes) | (lengths > file.size_bytes))
        wrong |= stored & (begins + lengths > file.size_bytes) | (stored & (lengths == 0))
        if wrong.any():
            raise FormatError(f"{file.name}: its index points outside of it: damaged")
        offsets[place] = np.where(stored, begins, 0).astype(np.int64)
        sizes[place] = np.where(stored, lengths, 0).astype(np.uint32)
    return _Chunks(sizes.reshape(-1), offsets.reshape(-1), opened)


def _shard_index(file: File, meta: ArrayMeta) -> NDArray[np.uint64]:
    shards = meta.shards
    assert shards is not None
    if file.size_bytes < shards.index_bytes:
        raise FormatError(f"{file.name}: too short for the index of a shard: damaged")
    data = np.empty(shards.index_bytes, np.uint8)
    at = file.size_bytes - shards.index_bytes if shards.at_end else 0
    if file.checked()([data.data], at) < len(data):
        raise FormatError(f"{file.name}: ends too early")
    try:
        return shards.index().decode(data).astype(np.uint64)
    except Undecodable as error:
        raise FormatError(f"{file.name}: the index of the shard is damaged: {error}") from error
