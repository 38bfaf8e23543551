"""The spool of one source: records dealt into piles, the first piles in memory, the rest on
scratch.

A block of rows is dealt by the thread that decoded it: its records are sorted by pile, those of the
kept piles are copied to pages, and the rest is appended to the scratch file in one write. So
scratch is written in order, and a pile is one segment a block. Records are ``(head, data)``: the
head is ``(place, row)``, see `epochal.plan.piles`.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochal.execute.memory import fresh
from epochal.execute.meter import Meter
from epochal.execute.scratch import ScratchFile
from epochal.execute.vector import Vector
from epochal.plan.order import Rows
from epochal.plan.piles import Deal, Dealer
from epochal.plan.plan import FeedPlan

__all__ = ["Pages", "RecordBuffers", "Records", "Segment", "Spool"]

Bytes = NDArray[np.uint8]
Heads = NDArray[np.uint64]
Segment = tuple[int, int, int, int]  # heads_at, data_at, first_record, n_records


class Records:
    """Room for records: ``heads`` is ``(capacity, 2)``, ``data`` is ``(capacity, row_bytes)``."""

    __slots__ = ("data", "heads")

    def __init__(self, capacity: int, row_bytes: int) -> None:
        self.heads: Heads = np.empty((capacity, 2), np.uint64)
        self.data: Bytes = fresh(capacity * row_bytes).reshape(capacity, row_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.heads.nbytes + self.data.nbytes


class RecordBuffers:
    """Equal buffers, made when first asked for, handed out and taken back: as many as tasks and
    piles at once.
    """

    def __init__(self, capacity: int, row_bytes: int, meter: Meter) -> None:
        self.capacity, self.row_bytes = capacity, row_bytes
        self._meter = meter
        self._free: deque[Records] = deque()
        self.bytes_made = 0

    def take(self) -> Records:
        """A buffer."""
        try:
            return self._free.pop()
        except IndexError:
            records = Records(self.capacity, self.row_bytes)
            self.bytes_made += records.nbytes
            self._meter.hold(records.nbytes)
            return records

    def give(self, records: Records) -> None:
        """Take one back."""
        self._free.append(records)

    def drop(self, records: Records) -> None:
        """Let go of one that was taken: its memory is for others."""
        self.bytes_made -= records.nbytes
        self._meter.hold(-records.nbytes)

    def drop_idle(self, keep: int) -> None:
        """Let go of what nobody has taken, but for some."""
        while len(self._free) > keep:
            self.drop(self._free.pop())


class Pages:
    """A stock of small pages of records, for piles that stay in memory. Hold `lock` to take and
    give.
    """

    def __init__(self, n_pages: int, page_rows: int, row_bytes: int, meter: Meter) -> None:
        self.page_rows = page_rows
        self.row_bytes = row_bytes
        self._left = n_pages
        self._free: list[Records] = []
        self._meter = meter
        self.lock = threading.Lock()
        self.bytes_made = 0

    def available(self) -> int:
        """Pages that can still be had."""
        return self._left + len(self._free)

    def take(self) -> Records:
        """One page; ask `available` first."""
        if self._free:
            return self._free.pop()
        self._left -= 1
        page = Records(self.page_rows, self.row_bytes)
        self.bytes_made += page.nbytes
        self._meter.hold(page.nbytes)
        return page

    def give(self, pages: list[Records]) -> None:
        """Take pages back."""
        self._free += pages


@dataclass(slots=True)
class _Pile:
    """Pages of a kept pile, and how far the last one is filled."""

    pages: list[Records]
    n_records: int = 0


class Spool:
    """Records of one epoch, dealt into piles.

    Parameters
    ----------
    plan
        Geometry, see `FeedPlan`.
    dealer
        Says which pile each row goes to.
    n_blocks
        How many blocks will be dealt.
    from_file
        Whether they are blocks of the file, in order; else piles of another spool.
    """

    def __init__(
        self,
        plan: FeedPlan,
        dealer: Dealer,
        n_blocks: int,
        pages: Pages,
        scratch: ScratchFile,
        meter: Meter,
        *,
        from_file: bool,
    ) -> None:
        self.dealer = dealer
        self.from_file = from_file
        self.n_piles = dealer.n_piles
        self.scratch = scratch
        self._asks_ahead = plan.asks_ahead
        self._pages = pages
        self._meter = meter
        self._kept = [_Pile([]) for _ in range(min(plan.piles_kept, self.n_piles))]
        # Where the records of pile j lie among those of a block: between offsets[block, j] and
        # offsets[block, j + 1].
        self._offsets = np.zeros((n_blocks, self.n_piles + 1), np.uint32)
        self._first_spilled = np.zeros(n_blocks, np.int32)
        self._at = np.zeros(n_blocks, np.int64)

    def deal(self, block: int, deal: Deal, data: Bytes, sorted_: Records | None) -> None:
        """Deal one block's records; `data` holds the block's rows, C-contiguous. Short rows are
        sorted by pile in `sorted_` before they are written; long ones are written from `data`.
        """
        n_records = len(deal.piles)
        by_pile = np.argsort(deal.piles, kind="stable")
        counts = np.bincount(deal.piles, minlength=self.n_piles)
        offsets = np.zeros(self.n_piles + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        self._offsets[block] = offsets
        heads = deal.heads[by_pile]
        local = by_pile if deal.local is None else deal.local[by_pile]
        first_spilled, spans = self._reserve(counts)
        self._first_spilled[block] = first_spilled
        for page, page_start, start, stop in spans:
            room = slice(page_start, page_start + stop - start)
            page.heads[room] = heads[start:stop]
            np.take(data, local[start:stop], axis=0, out=page.data[room], mode="clip")
        kept = int(offsets[first_spilled])
        if kept < n_records:
            self._at[block] = self._spill(heads[kept:], data, local[kept:], sorted_)

    def _spill(self, heads: Heads, data: Bytes, local: Rows, sorted_: Records | None) -> int:
        """Write records to scratch: their heads, then their rows. Returns where."""
        row_bytes = data.shape[1]
        self._meter.spill(heads.nbytes + len(local) * row_bytes)
        if sorted_ is None:
            pieces = data.reshape(-1), local * row_bytes, row_bytes
            return self.scratch.append_pieces([heads], *pieces)
        rows = sorted_.data[: len(local)]
        np.take(data, local, axis=0, out=rows, mode="clip")
        return self.scratch.append([heads, rows])

    def _reserve(
        self, counts: NDArray[np.int64]
    ) -> tuple[int, list[tuple[Records, int, int, int]]]:
        """Room in pages for the kept piles, as far as pages go; the first pile that must be
        spilled.
        """
        spans: list[tuple[Records, int, int, int]] = []
        at = 0
        with self._pages.lock:
            for number, pile in enumerate(self._kept):
                count = int(counts[number])
                room = len(pile.pages) * self._pages.page_rows - pile.n_records
                missing = -(-max(count - room, 0) // self._pages.page_rows)
                if missing > self._pages.available():
                    return number, spans
                pile.pages += [self._pages.take() for _ in range(missing)]
                spans += self._spans(pile, at, at + count)
                at += count
        return len(self._kept), spans

    def _spans(self, pile: _Pile, start: int, stop: int) -> list[tuple[Records, int, int, int]]:
        page_rows = self._pages.page_rows
        spans = []
        while start < stop:
            page, used = divmod(pile.n_records, page_rows)
            count = min(stop - start, page_rows - used)
            spans.append((pile.pages[page], used, start, start + count))
            pile.n_records += count
            start += count
        return spans

    @property
    def n_kept(self) -> int:
        """How many piles, the first ones, have pages."""
        return len(self._kept)

    def pile_counts(self) -> NDArray[np.int64]:
        """Records of each pile, ``(n_piles,)``."""
        counts: NDArray[np.int64] = np.diff(self._offsets.astype(np.int64), axis=1).sum(axis=0)
        return counts

    def segments(self, pile: int) -> list[Segment]:
        """The pile on scratch: ``(heads_at, data_at, first_record, n_records)`` of each block that
        has some.

        Records of a pile are numbered as they are loaded: those on scratch by block, then those on
        pages.
        """
        starts, stops = (
            self._offsets[:, pile].astype(np.int64),
            self._offsets[:, pile + 1].astype(np.int64),
        )
        blocks = np.flatnonzero((stops > starts) & (self._first_spilled <= pile))
        starts, counts = starts[blocks], stops[blocks] - starts[blocks]
        begin = self._offsets[blocks, self._first_spilled[blocks]].astype(np.int64)
        end = self._offsets[blocks, self.n_piles].astype(np.int64)
        heads_at = self._at[blocks] + 16 * (starts - begin)
        data_at = self._at[blocks] + 16 * (end - begin) + self._pages.row_bytes * (starts - begin)
        first = np.cumsum(counts) - counts
        return list(
            zip(heads_at.tolist(), data_at.tolist(), first.tolist(), counts.tolist(), strict=True)
        )

    def read(self, segments: list[Segment], records: Records) -> None:
        """Read a pile's segments to their places in a buffer."""
        self._ask_ahead(segments)
        self.read_heads(segments, records.heads)
        if records.data.shape[1]:
            for _, data_at, first, count in segments:
                self.scratch.read(records.data[first : first + count], data_at)

    def read_heads(self, segments: list[Segment], heads: Heads) -> None:
        """Read the heads of a pile's segments."""
        for heads_at, _, first, count in segments:
            self.scratch.read(heads[first : first + count], heads_at)

    def read_rows(self, segments: list[Segment], addresses: NDArray[np.uint64]) -> None:
        """Read each row of a pile's segments to where in memory it is wanted."""
        self._ask_ahead(segments)
        targets: Vector = np.empty((len(addresses), 2), np.uint64)
        targets[:, 0] = addresses
        targets[:, 1] = self._pages.row_bytes
        _, data_at, _, counts = np.array(segments, np.int64).reshape(-1, 4).T
        self.scratch.read_pieces(data_at, counts, targets)

    def _ask_ahead(self, segments: list[Segment]) -> None:
        if not self._asks_ahead:
            return
        row_bytes = self._pages.row_bytes
        for heads_at, data_at, _, count in segments:
            self.scratch.advise(heads_at, 16 * count)
            self.scratch.advise(data_at, row_bytes * count)

    def read_pages(self, pile: int, first: int, records: Records, *, give_back: bool) -> None:
        """Copy a pile's pages behind its segments; with `give_back` the pages are free again."""
        if pile >= len(self._kept):
            return
        kept = self._kept[pile]
        left = kept.n_records
        for page in kept.pages:
            count = min(left, self._pages.page_rows)
            records.heads[first : first + count] = page.heads[:count]
            records.data[first : first + count] = page.data[:count]
            first += count
            left -= count
        if give_back:
            with self._pages.lock:
                self._pages.give(kept.pages)
                kept.pages, kept.n_records = [], 0
