"""Rows on their way to a file: cut into chunks, compressed on all threads, put in order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from epochal.errors import BudgetError, MismatchError, RowError
from epochal.execute.pool import Pool
from epochal.sizes import show
from epochal.stores.manifest import crc32
from epochal.writing.container import Bytes, Container, Progress
from epochal.writing.intervals import Intervals
from epochal.writing.spec import SourceSpec, block_of, check_together

__all__ = ["Writer"]

Key = tuple[str, int]  # source, chunk
HELD = 3  # a chunk is held as rows, as what filters hand on, and as what is stored
OPEN_CHUNKS = 4  # of each source that are begun and not full, at least where `memory` allows


class Ending(Protocol):
    """What becomes of a container when a writer ends."""

    def publish(self) -> None:
        """It is whole."""
        ...

    def give_up(self, *, keep: bool = False) -> None:
        """It is not; `keep` what there is for another run to go on with."""
        ...


@dataclass
class _Open:
    """A chunk that lacks rows."""

    rows: NDArray[Any]
    n_rows: int  # up to which there is something in it


class Writer:
    """Takes rows of all sources, of any number at a time, in order or not; a context manager.

    Made by `epochal.create` and `epochal.append`. Leaving the context commits; an exception in it
    leaves the target as it was. `append` and `write` return once the rows are copied: they may be
    changed afterwards. One thread uses it.

    Parameters
    ----------
    container, specs
        What is written to, and its sources.
    ending
        What publishes the container, or gives it up.
    rows
        How many there will be; None: as many as are appended.
    progress
        What is there already.
    memory_bytes
        The most that it holds in chunks.
    checksum
        Whether a manifest is made.
    resumable
        Whether `KeyboardInterrupt` leaves what the last `checkpoint` kept.
    """

    def __init__(
        self,
        container: Container,
        specs: Sequence[SourceSpec],
        ending: Ending,
        *,
        rows: int | None,
        progress: Progress,
        memory_bytes: int,
        threads: int,
        checksum: bool = True,
        resumable: bool = False,
    ) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self._container = container
        self._ending = ending
        self._resumable = resumable
        self._declared = rows
        self._attrs, self._beside = dict(progress.attrs), dict(progress.kept)
        self.encoders = {name: container.encoder(name) for name in self.specs}
        self._checksum = checksum
        self._covered = Intervals([(0, progress.rows)] if progress.rows else [])
        self._end = progress.rows
        self._kept = {name: _Kept(progress, spec) for name, spec in self.specs.items()}
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._flying: deque[tuple[Key, Future[tuple[Bytes, int]]]] = deque()
        self._fly, self._opened = self._bounds(memory_bytes, threads)
        self._pool = Pool(threads)
        self._done = False

    def _bounds(self, memory_bytes: int, threads: int) -> tuple[int, int]:
        """Chunks that may be under way, and that may lack rows, at once."""
        largest = max((spec.chunk_bytes for spec in self.specs.values()), default=1)
        chunks = sum(spec.chunk_bytes for spec in self.specs.values())
        least = chunks + HELD * largest
        if least > memory_bytes:
            raise BudgetError(
                f"memory={show(memory_bytes)} cannot hold a chunk of each source and one that is "
                f"being compressed: {show(least)} needed. Give more memory, or fewer chunk_rows"
            )
        fly = min(2 * threads + 2, (memory_bytes - chunks) // (HELD * max(largest, 1)))
        left = memory_bytes - fly * HELD * largest
        most = OPEN_CHUNKS * len(self.specs)
        return max(fly, 1), max(len(self.specs), min(most, left // max(largest, 1)))

    @property
    def rows(self) -> int:
        """The end of the rows that were written so far."""
        return self._end

    def append(self, rows: Mapping[str, ArrayLike] | None = None, /, **named: ArrayLike) -> None:
        """Rows after those that are there: an array ``(n, *row_shape)`` of each source.

        Raises
        ------
        MismatchError
            A source is missing or not one of this file, of another shape, of a dtype that the
            source's cannot hold without loss, or longer than another. Nothing was written then.
        """
        self.write(self._end, rows, **named)

    def write(
        self, start: int, rows: Mapping[str, ArrayLike] | None = None, /, **named: ArrayLike
    ) -> None:
        """Rows from row `start` on, in any order; what was written there before is replaced.

        Rows between that are never written are an error at the end. Chunks that get their rows
        in several calls far apart are compressed anew for each.
        """
        self._check_open()
        blocks = self._checked({**(rows or {}), **named})
        n = check_together(blocks)
        if isinstance(start, bool) or not isinstance(start, int | np.integer) or start < 0:
            raise RowError(f"start={start!r}: give the number of a row, from 0")
        if self._declared is not None and start + n > self._declared:
            raise RowError(
                f"rows {start} to {start + n - 1} were given, but the file was created with "
                f"rows={self._declared}"
            )
        if not n:
            return
        try:
            self._covered.add(int(start), int(start) + n)
            self._end = max(self._end, int(start) + n)
            for name, block in blocks.items():
                self._fill(self.specs[name], int(start), block)
        except BaseException as error:
            self.abandon(error)
            raise

    def put(
        self,
        n_rows: int,
        chunks: Mapping[str, Sequence[tuple[Bytes, int]]],
        rows: Mapping[str, NDArray[Any]],
    ) -> None:
        """`n_rows` rows after those that are there, of some sources as whole chunks that somebody
        else encoded (what is stored of each, and its CRC-32), of the others as rows.
        """
        self._check_open()
        start = self._end
        blocks = {name: block_of(self.specs[name], block) for name, block in rows.items()}
        try:
            self._covered.add(start, start + n_rows)
            self._end = start + n_rows
            for name, encoded in chunks.items():
                chunk_rows = self.specs[name].chunk_rows
                assert start % chunk_rows == 0
                for k, (stored, total) in enumerate(encoded):
                    chunk = start // chunk_rows + k
                    self._kept[name].set_rows(chunk, min(chunk_rows, n_rows - k * chunk_rows))
                    self._container.put(name, chunk, stored)
                    self._kept[name].set_sum(chunk, total)
            for name, block in blocks.items():
                self._fill(self.specs[name], start, block)
        except BaseException as error:
            self.abandon(error)
            raise

    def missing(self) -> list[tuple[int, int]]:
        """Ranges of rows below the last, or below those that were announced, that nobody wrote."""
        end = self._end if self._declared is None else self._declared
        return self._covered.missing(end)

    def _checked(self, given: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        missing = [name for name in self.specs if name not in given]
        extra = [name for name in given if name not in self.specs]
        if missing or extra:
            what = [f"no rows of {', '.join(missing)}"] if missing else []
            what += [f"rows of {', '.join(extra)}, which is no source of it"] if extra else []
            raise MismatchError(
                f"the file's sources are {', '.join(self.specs)}; given were {' and '.join(what)}"
            )
        return {name: block_of(spec, given[name]) for name, spec in self.specs.items()}

    def _fill(self, spec: SourceSpec, start: int, block: NDArray[Any]) -> None:
        """Copy rows to their chunks, and let go of those that are full."""
        at = 0
        while at < len(block):
            chunk, first = divmod(start + at, spec.chunk_rows)
            n = min(spec.chunk_rows - first, len(block) - at)
            key = (spec.name, chunk)
            opened = self._take(spec, key, whole=n == spec.chunk_rows)
            opened.rows[first : first + n] = block[at : at + n]
            opened.n_rows = max(opened.n_rows, first + n)
            if self._is_full(spec, chunk):
                self._launch(key, opened)
            else:
                self._open[key] = opened
                while len(self._open) > self._opened:
                    self._launch(*self._open.popitem(last=False))
            at += n

    def _take(self, spec: SourceSpec, key: Key, *, whole: bool) -> _Open:
        """The chunk to copy rows to: as it was left, or empty."""
        opened = self._open.pop(key, None)
        if opened is not None:
            return opened
        rows: NDArray[Any] = np.zeros((spec.chunk_rows, *spec.row_shape), spec.dtype)
        there = self._kept[spec.name].rows(key[1])
        if there and not whole:
            self._land(until=key)
            self._container.get(spec.name, key[1], rows[:there])
        return _Open(rows, 0 if whole else there)

    def _is_full(self, spec: SourceSpec, chunk: int) -> bool:
        first, last = chunk * spec.chunk_rows, (chunk + 1) * spec.chunk_rows
        if self._declared is not None:
            last = min(last, self._declared)
        return self._covered.holds(first, last)

    def _launch(self, key: Key, opened: _Open) -> None:
        """Have a chunk compressed; the oldest under way is put where too many are."""
        while len(self._flying) >= self._fly:
            self._land_one()
        self._kept[key[0]].set_rows(key[1], opened.n_rows)
        rows = opened.rows[: opened.n_rows]
        self._flying.append((key, self._pool.submit(self._encode, key[0], rows)))

    def _encode(self, source: str, rows: NDArray[Any]) -> tuple[Bytes, int]:
        stored = self.encoders[source](rows)
        return stored, crc32(stored) if self._checksum else 0

    def _land_one(self) -> None:
        (source, chunk), future = self._flying.popleft()
        stored, total = future.result()
        self._container.put(source, chunk, stored)
        self._kept[source].set_sum(chunk, total)

    def _land(self, until: Key | None = None) -> None:
        """Put what is under way: all, or up to the last of one chunk."""
        while self._flying and (until is None or any(key == until for key, _ in self._flying)):
            self._land_one()

    def checkpoint(self) -> None:
        """Make what was appended so far survive a kill; only where the writer was made to resume.

        Chunks that lack rows are stored as they are, and stored anew when they are full.
        """
        self._check_open()
        try:
            for key, opened in list(self._open.items()):
                kept = _Open(opened.rows.copy(), opened.n_rows)
                self._launch(key, opened)
                self._open[key] = kept
            self._land()
            self._container.save(self._progress(), final=False)
        except BaseException as error:
            self.abandon(error)
            raise

    def _progress(self) -> Progress:
        sums = None
        if self._checksum:
            sums = {name: kept.sums() for name, kept in self._kept.items()}
        return Progress(self._end, sums, self._attrs, self._beside)

    def commit(self) -> None:
        """Put what is left, and give the file its name. Nothing can be written afterwards.

        Raises
        ------
        MismatchError
            Rows are missing: the file is not published.
        """
        self._check_open()
        try:
            self._check_complete()
            while self._open:
                self._launch(*self._open.popitem(last=False))
            self._land()
            self._container.save(self._progress(), final=True)
            self._pool.close()
            self._done = True
            self._ending.publish()
        except BaseException as error:
            self.abandon(error)
            raise

    def _check_complete(self) -> None:
        due = self._end if self._declared is None else self._declared
        missing = self._covered.missing(due)
        if missing:
            told = ", ".join(f"{first} to {last - 1}" for first, last in missing[:3])
            more = f" and {len(missing) - 3} more ranges" if len(missing) > 3 else ""
            raise MismatchError(f"of {due} rows these were never written: {told}{more}")

    def abandon(self, error: BaseException | None = None) -> None:
        """Leave the target as it was before; what was made for it is removed.

        But that of a run that can go on, where the user stopped it.
        """
        if self._done:
            return
        self._done = True
        self._pool.close()
        self._flying.clear()
        self._open.clear()
        try:
            self._container.abandon()
        finally:
            self._ending.give_up(keep=self._resumable and isinstance(error, KeyboardInterrupt))

    def _check_open(self) -> None:
        if self._done:
            raise MismatchError("this writer has ended: create or append anew")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.abandon(error)
        elif not self._done:
            self.commit()


class _Kept:
    """What was put of one source: rows in each chunk, and the checksum of what is stored of it.
    8 bytes a chunk.
    """

    def __init__(self, progress: Progress, spec: SourceSpec) -> None:
        full, rest = divmod(progress.rows, spec.chunk_rows)
        self._n = full + bool(rest)
        self._rows = np.zeros(max(16, self._n), np.int64 if spec.chunk_rows >> 31 else np.int32)
        self._rows[:full] = spec.chunk_rows
        if rest:
            self._rows[full] = rest
        self._sums = np.zeros(max(16, self._n), np.uint32)
        if progress.sums is not None and spec.name in progress.sums:
            self._sums[: self._n] = progress.sums[spec.name][: self._n]

    def rows(self, chunk: int) -> int:
        """Rows that are in what was put of a chunk; 0 where nothing was."""
        return int(self._rows[chunk]) if chunk < self._n else 0

    def set_rows(self, chunk: int, n_rows: int) -> None:
        """Note that a chunk is being put."""
        if chunk >= len(self._rows):
            self._rows = _grown(self._rows, chunk + 1)
            self._sums = _grown(self._sums, chunk + 1)
        self._rows[chunk] = n_rows
        self._n = max(self._n, chunk + 1)

    def set_sum(self, chunk: int, total: int) -> None:
        """Note the sum of what was put."""
        self._sums[chunk] = total

    def sums(self) -> NDArray[np.uint32]:
        """Of all chunks so far."""
        return self._sums[: self._n].copy()


def _grown(array: NDArray[Any], least: int) -> NDArray[Any]:
    more = np.zeros(max(2 * len(array), least), array.dtype)
    more[: len(array)] = array
    return more
