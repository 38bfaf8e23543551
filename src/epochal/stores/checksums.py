"""CRC-32C (Castagnoli), which Zarr's shards carry: by a library that is there, else by NumPy.

RFC 3720, appendix B.4. NumPy's way goes over many stretches of the data side by side, and joins
their sums by the linearity of the code.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["crc32c"]

POLYNOMIAL = 0x82F63B78
LANES_FROM = 1 << 13
LANE_BYTES = 256

Words = NDArray[np.uint32]


@cache
def _library() -> Any:
    try:
        return import_module("google_crc32c").value
    except (ImportError, AttributeError):
        return None


@cache
def _table() -> Words:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ POLYNOMIAL, table >> 1).astype(np.uint32)
    return table


@cache
def _over(n_bytes: int) -> Words:
    """What so many zero bytes do to a sum: a table for each of its four bytes, ``(4, 256)``."""
    table = _table()
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(n_bytes):
        bits = table[bits & 0xFF] ^ (bits >> 8)
    out = np.zeros((4, 256), np.uint32)
    for byte in range(4):
        for bit in range(8):
            chosen = (np.arange(256) >> bit) & 1 == 1
            out[byte, chosen] ^= bits[8 * byte + bit]
    return out


def crc32c(data: NDArray[np.uint8]) -> int:
    """The sum of some bytes.

    >>> hex(crc32c(np.frombuffer(b"123456789", np.uint8)))
    '0xe3069283'
    """
    library = _library()
    if library is not None:
        return int(library(data.tobytes()))
    return _by_numpy(data)


def _by_numpy(data: NDArray[np.uint8]) -> int:
    table, state = _table(), 0xFFFFFFFF
    if len(data) >= LANES_FROM:
        n_lanes = len(data) // LANE_BYTES
        lanes = data[: n_lanes * LANE_BYTES].reshape(n_lanes, LANE_BYTES)
        sums = np.zeros(n_lanes, np.uint32)
        sums[0] = state
        for column in np.ascontiguousarray(lanes.T):
            sums = table[(sums ^ column) & 0xFF] ^ (sums >> 8)
        zeros = _over(LANE_BYTES)
        state = int(sums[0])
        for each in sums[1:].tolist():
            state = _shifted(state, zeros) ^ each
        data = data[n_lanes * LANE_BYTES :]
    for byte in data.tolist():
        state = int(table[(state ^ byte) & 0xFF]) ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def _shifted(state: int, zeros: Words) -> int:
    return int(
        zeros[0, state & 0xFF]
        ^ zeros[1, state >> 8 & 0xFF]
        ^ zeros[2, state >> 16 & 0xFF]
        ^ zeros[3, state >> 24]
    )
