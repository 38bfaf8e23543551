"""Rows that lie in a file as they are: read alone, neighbours together, repeats once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.errors import RowError
from epochal.stores.codecs import Bytes
from epochal.stores.descriptor import Handle
from epochal.stores.file import Read
from epochal.stores.many import submit
from epochal.stores.source import Source

__all__ = [
    "GATHER_BYTES",
    "Located",
    "byte_view",
    "check_rows",
    "gather",
    "locate",
    "locate_all",
    "read_into",
    "read_rows_into",
]

GATHER_BYTES = 1 << 20  # what `gather` holds at most beside its arguments and a few integers a row
SMALL_ROW_BYTES = 4096  # below, reading what lies between two rows costs less than a call for each
GAP_BYTES = 8192
LEAST_ALONE_BYTES = 512  # below, a read for each is more trouble than copying rows from a buffer
SPAN_ROWS = 16  # a span of fewer is more trouble than a read for each


def byte_view(array: NDArray[Any]) -> Bytes:
    """The bytes of a C-contiguous array, ``(nbytes,)``, as a view."""
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)


def check_rows(rows: NDArray[np.int64], n_rows: int, name: str) -> None:
    """Refuse rows that are not there: their bytes would be someone else's."""
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= n_rows):
        bad = rows[(rows < 0) | (rows >= n_rows)][0]
        raise RowError(f"asked for row {bad} of {name!r}, which has rows 0 to {n_rows - 1}")


def read_rows_into(source: Source, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]]) -> None:
    """Read single rows, ``(n_rows,)``, into several arrays, which together have room for as many:
    in few calls of the system where the source can tell where they lie, and it pays. A source over
    another one has a ``read_rows_into`` of its own.
    """
    own = getattr(source, "read_rows_into", None)
    if own is not None:
        own(rows, outs)
        return
    row_bytes = source.layout.row_bytes
    if row_bytes < LEAST_ALONE_BYTES or not _read_located(source, rows, outs, row_bytes):
        at = 0
        for out in outs:
            source.read_rows(rows[at : at + len(out)], out)
            at += len(out)


def _read_located(
    source: Source, rows: NDArray[np.int64], outs: Sequence[NDArray[Any]], row_bytes: int
) -> bool:
    """False where it is not to be had, or would not pay: the arrays have anything in them then."""
    addresses = _addresses_of(outs, row_bytes)
    for some in locate_all(source, rows):
        if some is None:
            return False
        found, places = some
        handles = [one.read for one in found if isinstance(one.read, Handle)]
        if len(handles) < len(found):
            return False
        fds: int | NDArray[np.int64] = handles[0].fd
        positions = found[0].positions
        if len(found) > 1:
            counts = [len(one.positions) for one in found]
            fds = np.repeat(np.array([handle.fd for handle in handles], np.int64), counts)
            positions = np.concatenate([one.positions for one in found])
        steps = np.diff(positions)
        close = np.count_nonzero((steps >= 0) & (steps <= row_bytes + GAP_BYTES))
        if row_bytes < SMALL_ROW_BYTES and 2 * close > len(positions):  # spans of many rows
            return False
        if submit(fds, positions, addresses[places], row_bytes) < len(positions):
            return False
    return True


def _addresses_of(outs: Sequence[NDArray[Any]], row_bytes: int) -> NDArray[np.uint64]:
    """Where each row of some arrays lies in memory."""
    slots = np.arange(max((len(out) for out in outs), default=0), dtype=np.uint64)
    slots *= np.uint64(row_bytes)
    ramps = [slots[: len(out)] + np.uint64(out.ctypes.data) for out in outs]
    return np.concatenate([np.empty(0, np.uint64), *ramps])


def read_into(
    source: Source,
    start: int,
    stop: int,
    outs: Sequence[NDArray[Any]],
    spare: NDArray[np.uint8],
) -> bool:
    """Read the chunks ``[start, stop)`` into several arrays, which together have room for all of
    their rows, by the source's own ``read_into``, which may use `spare`, ``(chunk_bytes,)``. False
    where it has none, or that does not do: what is in the arrays is anybody's then.
    """
    own = getattr(source, "read_into", None)
    return own is not None and bool(own(start, stop, outs, spare))


class Located(NamedTuple):
    """Where some rows lie: the byte positions, ``(n_rows,)``, in a file."""

    read: Read
    positions: NDArray[np.int64]


def locate(source: Source, rows: NDArray[np.int64]) -> Located | None:
    """Where single rows lie, by the source's own ``locate``; None where it has none, or where what
    lies there is not yet the rows.
    """
    own = getattr(source, "locate", None)
    found: Located | None = None if own is None else own(rows)
    return found


def locate_all(
    source: Source, rows: NDArray[np.int64]
) -> Iterator[tuple[list[Located], NDArray[np.int64]] | None]:
    """The same of rows in several files, some files at a time, and which rows those are: the ones
    of each file together, in the order of the file, ``(n_rows_of_some_files,)``. One None, at any
    time, where `locate` has none.
    """
    own = getattr(source, "locate_all", None)
    if own is not None:
        yield from own(rows)
        return
    one = locate(source, rows)
    if one is None:
        yield None
        return
    order = np.argsort(one.positions)
    yield [Located(one.read, one.positions[order])], order


def gather(
    read: Read,
    positions: NDArray[np.int64],
    slots: NDArray[np.int64] | None,
    row_bytes: int,
    out: Bytes,
) -> None:
    """Read the row at each byte position into its slot of `out` (None: the slots are 0, 1, 2, ...).

    Raises
    ------
    EOFError
        The file ends before a row does.
    """
    if len(positions) == 0:
        return
    steps = positions[1:] - positions[:-1]
    if (steps < 0).any():
        order = np.argsort(positions)
        positions, slots = positions[order], order if slots is None else slots[order]
        steps = positions[1:] - positions[:-1]
    if row_bytes >= SMALL_ROW_BYTES:
        _gather_large(read, positions, slots, row_bytes, out)
    elif np.count_nonzero(steps <= row_bytes + GAP_BYTES) < SPAN_ROWS - 1:  # no span: the rule
        slots = np.arange(len(positions)) if slots is None else slots
        _gather_alone(read, positions, slots, row_bytes, out)
    else:
        _gather_small(read, positions, steps, slots, row_bytes, out)


def _gather_small(
    read: Read,
    positions: NDArray[np.int64],
    steps: NDArray[np.int64],
    slots: NDArray[np.int64] | None,
    row_bytes: int,
    out: Bytes,
) -> None:
    """Read spans that hold many rows by way of a buffer, and the others into their slots; `steps`
    lead from one position to the next.
    """
    cuts = np.flatnonzero((steps > row_bytes + GAP_BYTES) | (steps % row_bytes != 0)) + 1
    edges = np.concatenate(([0], cuts, [len(positions)]))
    counts = np.diff(edges)
    many = counts >= SPAN_ROWS
    if not many.all():
        some = np.flatnonzero(np.repeat(~many, counts))
        _gather_alone(read, positions[some], some if slots is None else slots[some], row_bytes, out)
    if many.any():
        spans = edges[:-1][many], edges[1:][many]
        _gather_spans(read, positions, slots, row_bytes, out, *spans)


def _gather_alone(
    read: Read,
    positions: NDArray[np.int64],
    slots: NDArray[np.int64],
    row_bytes: int,
    out: Bytes,
) -> None:
    """A read a row: of a local file many by one call, else what runs for each is short."""
    begins = slots * row_bytes
    if isinstance(read, Handle):
        addresses = begins.astype(np.uint64) + np.uint64(out.ctypes.data)
        done = submit(read.fd, positions, addresses, row_bytes)
        positions, begins = positions[done:], begins[done:]
    view = out.data
    for position, begin in zip(positions.tolist(), begins.tolist(), strict=True):
        if read((view[begin : begin + row_bytes],), position) < row_bytes:
            raise EOFError(f"the file ends before {position + row_bytes}")


def _gather_spans(
    read: Read,
    positions: NDArray[np.int64],
    slots: NDArray[np.int64] | None,
    row_bytes: int,
    out: Bytes,
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
) -> None:
    """A read for the rows ``[first, last)`` of each span, or several where it is long."""
    items = out.view(f"V{row_bytes}")
    longest = int((positions[lasts - 1] - positions[firsts]).max()) + row_bytes
    buffer = np.empty(min(GATHER_BYTES, longest), dtype=np.uint8)
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        at = first
        while at < last:
            base = int(positions[at])
            end = (
                int(np.searchsorted(positions[at:last], base + GATHER_BYTES - row_bytes, "right"))
                + at
            )
            nbytes = int(positions[end - 1]) - base + row_bytes
            _read_exactly(read, buffer[:nbytes], base)
            index = (positions[at:end] - base) // row_bytes
            target = slice(at, end) if slots is None else slots[at:end]
            items[target] = buffer[:nbytes].view(items.dtype)[index]
            at = end


def _gather_large(
    read: Read,
    positions: NDArray[np.int64],
    slots: NDArray[np.int64] | None,
    row_bytes: int,
    out: Bytes,
) -> None:
    """Read runs of consecutive rows straight into their slots; copy repeats."""
    slots = np.arange(len(positions)) if slots is None else slots
    fresh = np.concatenate(([True], np.diff(positions) != 0))
    where, place = positions[fresh], slots[fresh].tolist()
    cuts = (np.flatnonzero(np.diff(where) != row_bytes) + 1).tolist()
    view = out.data
    for first, last in zip([0, *cuts], [*cuts, len(where)], strict=True):
        parts = [view[s * row_bytes : (s + 1) * row_bytes] for s in place[first:last]]
        if read(parts, int(where[first])) < (last - first) * row_bytes:
            raise EOFError(f"the file ends before {int(where[last - 1]) + row_bytes}")
    if not fresh.all():
        items = out.view(f"V{row_bytes}")
        first_slot = slots[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
        items[slots[~fresh]] = items[first_slot[~fresh]]


def _read_exactly(read: Read, target: Bytes, offset: int) -> None:
    if (got := read([target.data], offset)) < len(target):
        raise EOFError(f"the file ends at {offset + got}, {len(target) - got} bytes too early")
