"""A chain of HDF5 filters, undone: from the stored bytes of one chunk to the chunk.

Filters are applied in order when a chunk is written and undone in reverse. Bit *i* of a chunk's
filter mask says that filter *i* was left out for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from epochal.stores.codecs import CODECS, Bytes, Decode, Undecodable

__all__ = ["NAMES", "Filter", "Pipeline", "describe", "why_not"]

_fletcher32: Any = imagecodecs.h5checksum_fletcher32  # its stub knows no arrays

SHUFFLE, FLETCHER32, BLOSC2 = 2, 3, 32026
CHECKSUM_BYTES = 4
BLOSC2_FILTER, BLOSC2_CODEC = 5, 6  # positions in its client data
BLOSC2_KNOWN_FILTERS, BLOSC2_KNOWN_CODECS = range(6), range(6)

# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32016: "b3d",
    32017: "sz",
    32018: "fcidecomp",
    32019: "jpeg",
    32020: "vbz",
    32022: "bitgroom",
    32023: "granular bitround",
    32024: "sz3",
    32025: "delta-rice",
    32026: "blosc2",
    32028: "sperr",
    32033: "htj2k",
}
BLOSC_CODECS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
BLOSC2_CODECS = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
BITSHUFFLE_CODECS = {2: "lz4", 3: "zstd"}


@dataclass(frozen=True)
class Filter:
    """One filter of a dataset's chain: its registered number and its client data."""

    id: int
    cd: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """For people: ``"gzip(4)"``, ``"blosc(zstd)"``."""
        if self.id == 32001 and len(self.cd) > 6 and self.cd[6] < len(BLOSC_CODECS):
            return f"blosc({BLOSC_CODECS[self.cd[6]]})"
        if self.id == BLOSC2 and len(self.cd) > BLOSC2_CODEC and self.cd[6] < len(BLOSC2_CODECS):
            return f"blosc2({BLOSC2_CODECS[self.cd[6]]})"
        if self.id == 32008 and len(self.cd) > 4 and self.cd[4] in BITSHUFFLE_CODECS:
            return f"bitshuffle({BITSHUFFLE_CODECS[self.cd[4]]})"
        codec = CODECS.get(self.id)
        return codec.label(self.cd) if codec else NAMES.get(self.id, f"filter {self.id}")


def describe(filters: Iterable[Filter]) -> str:
    """For people: ``"shuffle + gzip(4)"``.

    >>> describe([Filter(2, (4,)), Filter(1, (4,))])
    'shuffle + gzip(4)'
    """
    return " + ".join(each.label for each in filters)


def why_not(filters: Iterable[Filter]) -> str:
    """Why `Pipeline` cannot undo these; empty where it can.

    >>> why_not([Filter(2, (4,)), Filter(6)])
    'scaleoffset is decoded by libhdf5 only'
    """
    filters = tuple(filters)
    for each in filters:
        if each.id in (SHUFFLE, FLETCHER32):
            continue
        codec = CODECS.get(each.id)
        if codec is None or not codec.available:
            return f"{NAMES.get(each.id, f'filter {each.id}')} is decoded by libhdf5 only"
        try:
            codec.decoder(each.cd)
        except Undecodable as error:
            return str(error)
        if each.id == BLOSC2 and not _blosc2_is_plain(each.cd):
            return "a Blosc 2 plugin's filter or codec is decoded by libhdf5 only"
    if sum(each.id in CODECS for each in filters) > 1:
        # The size between the two is stored nowhere, so that decoding could not be bounded.
        return "one compression on top of another is decoded by libhdf5 only"
    return ""


def _blosc2_is_plain(cd: tuple[int, ...]) -> bool:
    filter_ok = len(cd) <= BLOSC2_FILTER or cd[BLOSC2_FILTER] in BLOSC2_KNOWN_FILTERS
    return filter_ok and (len(cd) <= BLOSC2_CODEC or cd[BLOSC2_CODEC] in BLOSC2_KNOWN_CODECS)


@dataclass(frozen=True)
class _Step:
    """Undoes one filter: `decode` into `size` bytes (None: as many as come), or `strip`."""

    size: int | None
    decode: Decode | None = None
    strip: Callable[[Bytes], Bytes] | None = None


class Pipeline:
    """Undoes a chain of filters for chunks of `chunk_bytes`. Threads may share one."""

    def __init__(self, filters: Iterable[Filter], chunk_bytes: int) -> None:
        self.filters = tuple(filters)
        self.chunk_bytes = chunk_bytes
        self._all_masked = (1 << len(self.filters)) - 1
        self._steps: dict[int, tuple[_Step, ...]] = {}

    def store_plainly(self, masks: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of the chunks of these masks are stored as they are."""
        skipped = masks & np.uint32(self._all_masked)
        return np.asarray(skipped == self._all_masked)

    def workspace_bytes(self) -> int:
        """Bytes that `decode` holds beside its input and output, at most."""
        steps = self._chain(0)
        between = sum(step.decode is not None for step in steps) - bool(steps and steps[-1].decode)
        inner = max(
            (CODECS[f.id].workspace(self.chunk_bytes) for f in self.filters if f.id in CODECS),
            default=0,
        )
        return between * (self.chunk_bytes + CHECKSUM_BYTES * len(self.filters)) + inner

    def decode(self, stored: Bytes, mask: int, out: Bytes) -> None:
        """Decode one chunk into `out`, ``(chunk_bytes,)``, or raise `Undecodable`."""
        steps = self._steps.get(mask)
        if steps is None:
            steps = self._steps[mask] = self._chain(mask)
        last = len(steps) - 1
        for i, step in enumerate(steps):
            if step.strip is not None:
                stored = step.strip(stored)
                continue
            assert step.decode is not None
            target = out if i == last else np.empty(step.size or len(stored), dtype=np.uint8)
            step.decode(stored, target)
            stored = target
        if stored is not out:
            if len(stored) != len(out):
                raise Undecodable(f"holds {len(stored)} bytes where {len(out)} are due")
            out[:] = stored

    def _chain(self, mask: int) -> tuple[_Step, ...]:
        """The steps that undo what `mask` leaves, last filter first."""
        steps: list[_Step] = []
        size: int | None = self.chunk_bytes
        for position, each in enumerate(self.filters):
            if mask >> position & 1:
                continue
            if each.id == FLETCHER32:
                steps.append(_Step(size, strip=_verified))
                size = None if size is None else size + CHECKSUM_BYTES
            elif each.id == SHUFFLE:
                # Rows of varying length have none, since none was applied.
                itemsize = each.cd[0] if each.cd else 1
                if itemsize > 1:
                    steps.append(_Step(size, decode=_unshuffler(itemsize)))
            else:
                steps.append(_Step(size, decode=CODECS[each.id].decoder(each.cd)))
                size = None
        return tuple(reversed(steps))


def _verified(stored: Bytes) -> Bytes:
    """The bytes before a Fletcher-32 checksum that fits them."""
    if len(stored) < CHECKSUM_BYTES:
        raise Undecodable(f"{len(stored)} bytes are too few for a checksum")
    body, tail = stored[:-CHECKSUM_BYTES], stored[-CHECKSUM_BYTES:].tobytes()
    found = struct.unpack("<I", tail)[0]
    # HDF5 1.6.2 and older wrote the bytes of each half swapped on some machines; libhdf5 accepts
    # both, so do we.
    swapped = struct.unpack("<I", bytes((tail[1], tail[0], tail[3], tail[2])))[0]
    due = _fletcher32(body)
    if due not in (found, swapped):
        raise Undecodable(f"checksum {found:#010x} where its bytes give {due:#010x}")
    return body


def _unshuffler(itemsize: int) -> Decode:
    """Stored are bytes 0 of all items, then bytes 1, ..., then what does not fill an item."""

    def unshuffle(source: Bytes, out: Bytes) -> None:
        if len(source) != len(out):
            raise Undecodable(f"holds {len(source)} bytes where {len(out)} are due")
        n_items = len(source) // itemsize
        whole = n_items * itemsize
        planes: NDArray[np.uint8] = source[:whole].reshape(itemsize, n_items)
        items: NDArray[np.uint8] = out[:whole].reshape(n_items, itemsize)
        # Along the shorter side: a damaged size of items may be the whole chunk, or billions.
        if itemsize <= n_items:
            for k in range(itemsize):
                items[:, k] = planes[k]
        else:
            for k in range(n_items):
                items[k] = planes[:, k]
        out[whole:] = source[whole:]

    return unshuffle
