"""Rows that lie in a file as they are: read alone, neighbours together, repeats once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import RowError
from epochal.stores.codecs import Bytes
from epochal.stores.file import Read

__all__ = ["GATHER_BYTES", "byte_view", "check_rows", "gather"]

GATHER_BYTES = 1 << 20  # what `gather` holds at most beside its arguments and a few integers a row
SMALL_ROW_BYTES = 4096  # below, reading what lies between two rows costs less than a call for each
GAP_BYTES = 8192


def byte_view(array: NDArray[Any]) -> Bytes:
    """The bytes of a C-contiguous array, ``(nbytes,)``, as a view."""
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)


def check_rows(rows: NDArray[np.int64], n_rows: int, name: str) -> None:
    """Refuse rows that are not there: their bytes would be someone else's."""
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= n_rows):
        bad = rows[(rows < 0) | (rows >= n_rows)][0]
        raise RowError(f"asked for row {bad} of {name!r}, which has rows 0 to {n_rows - 1}")


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
    if (np.diff(positions) < 0).any():
        order = np.argsort(positions, kind="stable")
        positions, slots = positions[order], order if slots is None else slots[order]
    if row_bytes < SMALL_ROW_BYTES:
        _gather_small(read, positions, slots, row_bytes, out)
    else:
        _gather_large(read, positions, slots, row_bytes, out)


def _gather_small(
    read: Read,
    positions: NDArray[np.int64],
    slots: NDArray[np.int64] | None,
    row_bytes: int,
    out: Bytes,
) -> None:
    """Read spans that hold many rows, and take the rows out of them."""
    items = out.view(f"V{row_bytes}")
    steps = np.diff(positions)
    cuts = np.flatnonzero((steps > row_bytes + GAP_BYTES) | (steps % row_bytes != 0)) + 1
    buffer = np.empty(
        min(GATHER_BYTES, int(positions[-1] - positions[0]) + row_bytes), dtype=np.uint8
    )
    for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(positions)], strict=True):
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
