"""Chunks of an HDF5 dataset, read and decoded outside libhdf5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError
from epochal.layout import Layout
from epochal.stores.checks import Checks
from epochal.stores.codecs import Bytes, Undecodable
from epochal.stores.file import File, Read
from epochal.stores.filters import Pipeline, describe
from epochal.stores.hdf5_facts import Chunked, form_of_facts
from epochal.stores.hdf5_targets import CutRows, Items, WholeRows
from epochal.stores.manifest import Form, Manifest, crc32, mask_sums
from epochal.stores.rows import (
    GATHER_BYTES,
    Located,
    byte_view,
    check_rows,
    gather,
)
from epochal.stores.strings import pad_with_nuls

__all__ = ["ChunkedSource"]

GROUP_BYTES = 1 << 20  # neighbouring pieces are read in one call up to this
FAR_GROUP_BYTES = 3 << 20  # which is some requests at once
GAP_BYTES = 4096  # index nodes that lie between pieces are read over
FAR_GAP_BYTES = 64 << 10  # which costs less than another request
BOOKKEEPING_BYTES = 128  # Python integers of one piece


class ChunkedSource:
    """One chunked dataset. Threads share it; it pickles as its index."""

    def __init__(self, facts: Chunked, file: File) -> None:
        self._facts = facts
        self._file = file
        self._prepare()

    def __getstate__(self) -> tuple[Chunked, File]:
        return self._facts, self._file

    def __setstate__(self, state: tuple[Chunked, File]) -> None:
        self._facts, self._file = state
        self._prepare()

    def _prepare(self) -> None:
        facts = self._facts
        self._grid = tuple(-(-n // c) for n, c in zip(facts.shape, facts.chunk, strict=True))
        self._pieces = prod(self._grid[1:])
        self._chunk_bytes = prod(facts.chunk) * facts.dtype.itemsize
        self._whole_rows = facts.chunk[1:] == facts.shape[1:]
        self._pipeline = Pipeline(facts.filters, self._chunk_bytes)
        near = self._file.in_flight == 1
        self._gap_bytes = GAP_BYTES if near else FAR_GAP_BYTES
        self._group_bytes = GROUP_BYTES if near else FAR_GROUP_BYTES
        self._items = Items(facts)
        manifest = facts.manifest
        self._checks = None
        if manifest is not None and manifest.fits(len(facts.sizes)):
            sums = manifest.sums
            if manifest.form is not None and facts.masks is not None:
                sums = sums ^ mask_sums(facts.masks, len(sums))
            self._checks = Checks(sums, facts.sizes)
        self._plain = self._plain_chunks()
        self._layout = Layout(
            shape=facts.shape,
            dtype=facts.dtype,
            chunk_rows=facts.chunk[0],
            rows_alone=self._whole_rows and not facts.filters,
            coded=self._coded_chunks(),
            piece_bytes=facts.sizes.reshape(self._grid[0], self._pieces),
            read_overhead_bytes=self._overhead_bytes() + self._file.copy_bytes,
            kind="chunked",
            codec=describe(facts.filters),
            in_flight=self._file.in_flight,
            checked=self._checks is not None,
        )

    def _plain_chunks(self) -> NDArray[np.bool_] | None:
        """Which chunks of whole rows are stored as they are, though there are filters: those that
        no filter made smaller; and those that are not stored at all. None where no chunk is.
        """
        facts = self._facts
        if not facts.filters or not self._whole_rows or facts.masks is None:
            return None
        plain = self._pipeline.store_plainly(facts.masks) & (facts.sizes == self._chunk_bytes)
        return plain | (facts.sizes == 0) if plain.any() else None

    def _coded_chunks(self) -> NDArray[np.int64] | None:
        """The others, where they are few. Rows that are read alone would not be compared with
        checksums: then there are none.
        """
        if self._plain is None or self._checks is not None:
            return None
        coded = np.flatnonzero(~self._plain)
        return coded if 2 * len(coded) <= len(self._plain) else None

    @cached_property
    def _alone_stored(self) -> bool:
        """Whether all chunks whose rows are read alone are stored, and as long as they must be."""
        whole = self._facts.sizes == self._chunk_bytes
        if self._layout.coded is not None:
            whole[self._layout.coded] = True
        return bool(whole.all())

    @property
    def layout(self) -> Layout:
        """Where the rows lie."""
        return self._layout

    @property
    def manifest(self) -> Manifest | None:
        """Checksums that came with it, of this state of the file or of an older one."""
        return self._facts.manifest

    @property
    def form(self) -> Form:
        """What its rows are decoded by."""
        return form_of_facts(self._facts)

    def unchecked(self) -> ChunkedSource:
        """The same without its checksums."""
        return ChunkedSource(replace(self._facts, manifest=None), self._file)

    def stored_sums(self, start: int, stop: int) -> NDArray[np.uint32]:
        """Checksums of what is stored of the chunks ``[start, stop)`` now, a piece each."""
        read = self._file.checked()
        pieces = range(start * self._pieces, stop * self._pieces)
        sums = np.zeros(len(pieces), np.uint32)
        for k, piece in enumerate(pieces):
            stored = np.empty(int(self._facts.sizes[piece]), np.uint8)
            if len(stored):
                self._fetch(read, int(self._facts.offsets[piece]), piece, stored)
                sums[k] = crc32(stored)
        masks = self._facts.masks
        return sums ^ mask_sums(
            None if masks is None else masks[pieces.start : pieces.stop], len(sums)
        )

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read and decode the chunks ``[start, stop)``, neighbours in one ``pread``."""
        assert 0 <= start <= stop <= self._grid[0]
        if out.nbytes == 0:
            return
        if self._whole_rows:
            self._read(start, stop, WholeRows(self._facts, self._items, self._pipeline, [out]))
        else:
            target = CutRows(self._facts, self._items, self._pipeline, self._grid, start, out)
            self._read(start, stop, target)
        self._pad(out)

    def read_into(
        self, start: int, stop: int, outs: Sequence[NDArray[Any]], spare: NDArray[np.uint8]
    ) -> bool:
        """Read the chunks ``[start, stop)`` into several arrays, which have room for all of their
        rows, one after another; ``spare`` has room for a chunk. False where that is not to be had.
        """
        unfiltered = self._layout.rows_alone or self._plain is not None
        if not self._whole_rows or (unfiltered and self._checks is not None):
            return False
        facts = self._facts
        if any(out.nbytes for out in outs):
            enough = len(spare) >= self._chunk_bytes  # not of a dataset of less than a chunk
            aside = spare[: self._chunk_bytes] if enough else None
            self._read(start, stop, WholeRows(facts, self._items, self._pipeline, outs, aside))
        for out in outs:
            self._pad(out)
        return True

    def _read(self, start: int, stop: int, target: WholeRows | CutRows) -> None:
        facts = self._facts
        read = self._file.checked()
        pieces = slice(start * self._pieces, stop * self._pieces)
        offsets, sizes = facts.offsets[pieces].tolist(), facts.sizes[pieces].tolist()
        masks = None if facts.masks is None else facts.masks[pieces].tolist()
        plain = [self._layout.rows_alone] * len(sizes)
        if self._plain is not None:
            plain = self._plain[pieces].tolist()
        buffer = np.empty(0, dtype=np.uint8)
        i, n = 0, len(sizes)
        while i < n:
            if not sizes[i]:
                if self._checks is not None:
                    self._check(pieces.start + i, np.empty(0, np.uint8), [0], [0])
                target.fill(i)
                i += 1
                continue
            gap = 0 if plain[i] else self._gap_bytes
            j = _reach(offsets, sizes, i, _same(plain, i, n), gap, self._group_bytes)
            if plain[i]:
                assert isinstance(target, WholeRows)
                parts = target.parts(i, j)
                self._read_plain(read, offsets[i], sizes[i:j], pieces.start + i, parts)
                if self._checks is not None:
                    self._check_plain(read, offsets[i], pieces.start + i, *parts)
                i = j
                continue
            base, nbytes = offsets[i], offsets[j - 1] + sizes[j - 1] - offsets[i]
            if nbytes > len(buffer):
                buffer = np.empty(0, dtype=np.uint8)  # freed before its successor is made
                buffer = np.empty(nbytes, dtype=np.uint8)
            self._fetch(read, base, pieces.start + i, buffer[:nbytes])
            if self._checks is not None:
                starts = [offset - base for offset in offsets[i:j]]
                self._check(pieces.start + i, buffer, starts, sizes[i:j])
            while i < j:
                at = offsets[i] - base
                stored = buffer[at : at + sizes[i]]
                try:
                    target.decode(i, stored, masks[i] if masks else 0)
                except Undecodable as error:
                    raise self._damage(pieces.start + i, str(error)) from error
                i += 1

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows of chunks that are stored as they are: neighbours in one ``pread``."""
        row_bytes = self._layout.row_bytes
        rows = np.asarray(rows, dtype=np.int64)
        chunk, positions, there = self._positions(rows)
        if out.nbytes == 0:
            return
        read = self._file.checked()
        flat = byte_view(out)
        stored = None
        if there is not None:
            stored = np.flatnonzero(there)
            self._items.of(flat, len(rows), -1)[~there] = self._items.fill
            positions, chunk = positions[stored], chunk[stored]
        try:
            gather(read, positions, stored, row_bytes, flat)
        except (EOFError, OSError) as error:
            if isinstance(error, EpochalError):
                raise
            raise self._damage(int(chunk[0]), str(error)) from error
        self._pad(out)

    def locate(self, rows: NDArray[np.int64]) -> Located | None:
        """Where single rows lie, of chunks that are stored as they are. None where they are padded,
        or not all stored.
        """
        _, positions, there = self._positions(rows)
        if self._facts.paddings or there is not None:
            return None
        return Located(self._file.checked(), positions)

    def _positions(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None]:
        """Chunk of each row, its place in the file, and which are stored: None if all are."""
        assert self._layout.some_alone
        facts = self._facts
        check_rows(rows, self._layout.n_rows, facts.name)
        chunk, within = np.divmod(rows, facts.chunk[0])
        assert self._plain is None or self._plain[chunk].all()
        positions = facts.offsets[chunk] + within * self._layout.row_bytes
        if self._alone_stored:
            return chunk, positions, None
        sizes = facts.sizes[chunk]
        short = (sizes != 0) & (sizes != self._chunk_bytes)
        if short.any():
            raise self._short(int(chunk[np.argmax(short)]))
        return chunk, positions, None if sizes.all() else sizes != 0

    def _pad(self, out: NDArray[Any]) -> None:
        if self._facts.paddings:
            pad_with_nuls(byte_view(out), self._facts.dtype.itemsize, self._facts.paddings)

    def _read_plain(
        self, read: Read, offset: int, sizes: list[int], piece: int, parts: list[Bytes]
    ) -> None:
        """Read chunks that are stored as they are, one after another, straight into their rows."""
        for k, size in enumerate(sizes):
            if size != self._chunk_bytes:
                raise self._short(piece + k)
        self._fetch(read, offset, piece, *parts)

    def _check(self, first: int, data: Bytes, starts: list[int], sizes: list[int]) -> None:
        """Compare pieces with their checksums."""
        assert self._checks is not None
        wrong = self._checks.wrong(first, data, starts, sizes)
        if wrong is not None:
            raise self._damage(*wrong)

    def _check_plain(self, read: Read, offset: int, piece: int, rows: Bytes) -> None:
        """The same of chunks as they are; of a last one also what comes after its rows."""
        assert self._checks is not None
        whole = len(rows) // self._chunk_bytes
        starts = [k * self._chunk_bytes for k in range(whole)]
        self._check(piece, rows, starts, [self._chunk_bytes] * whole)
        begun = rows[whole * self._chunk_bytes :]
        if len(begun):
            rest = np.empty(self._chunk_bytes - len(begun), np.uint8)
            self._fetch(read, offset + len(rows), piece + whole, rest)
            what = self._checks.wrong_piece(piece + whole, rest, crc32(begun))
            if what is not None:
                raise self._damage(piece + whole, what)

    def _fetch(self, read: Read, offset: int, piece: int, *parts: Bytes) -> None:
        try:
            got = read([part.data for part in parts], offset)
        except OSError as error:
            if isinstance(error, EpochalError):
                raise
            raise self._damage(piece, f"cannot be read: {error.strerror}") from error
        if got < (due := sum(map(len, parts))):
            raise self._damage(piece, f"the file ends {due - got} bytes too early")

    def _short(self, piece: int) -> DamageError:
        return self._damage(
            piece, f"holds {int(self._facts.sizes[piece])} bytes where {self._chunk_bytes} are due"
        )

    def _damage(self, piece: int, what: str) -> DamageError:
        chunk, part = divmod(piece, self._pieces)
        start, stop = self._layout.bounds(chunk)
        of = f" (piece {part} of {self._pieces})" if self._pieces > 1 else ""
        return DamageError(
            f"{self._file.name}: source {self._facts.name!r}, chunk {chunk}{of}, rows {start} to "
            f"{stop - 1}: {what}. "
            "The file is damaged there: restore it from a copy, or leave these rows out"
        )

    def _overhead_bytes(self) -> int:
        facts = self._facts
        largest = int(facts.sizes.max(initial=0))
        gathering = min(GATHER_BYTES, int(facts.sizes.sum(dtype=np.int64)))
        if self._whole_rows and not facts.filters:
            return gathering
        everything = int(facts.sizes.sum(dtype=np.int64)) + self._gap_bytes * len(facts.sizes)
        stored = max(largest, min(self._group_bytes, everything))
        partial = not self._whole_rows or facts.shape[0] % facts.chunk[0] != 0
        bookkeeping = BOOKKEEPING_BYTES * self._pieces
        decoding = stored + partial * self._chunk_bytes + self._pipeline.workspace_bytes()
        return max(decoding + bookkeeping, gathering if self._plain is not None else 0)


def _same(flags: list[bool], i: int, n: int) -> int:
    """The end of the run of equal flags from `i` on."""
    try:
        return flags.index(not flags[i], i, n)
    except ValueError:
        return n


def _reach(offsets: list[int], sizes: list[int], i: int, n: int, gap: int, most: int) -> int:
    """The end of the run of pieces from `i` on that one read fetches."""
    end = offsets[i] + sizes[i]
    limit = offsets[i] + most
    j = i + 1
    while j < n and sizes[j] and 0 <= offsets[j] - end <= gap and offsets[j] + sizes[j] <= limit:
        end = offsets[j] + sizes[j]
        j += 1
    return j
