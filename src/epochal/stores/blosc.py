"""Blosc's containers, looked at before Blosc sees them: its own decoders crash on damaged ones.

Formats: c-blosc ``README_CHUNK_FORMAT.rst`` (Blosc 1), c-blosc2 ``README_CHUNK_FORMAT.rst``,
``README_CFRAME_FORMAT.rst`` and ``README_B2ND_METALAYER.rst`` (Blosc 2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blosc2Frame", "Undecodable", "check_blosc1", "open_blosc2"]

Bytes = NDArray[np.uint8]

BLOSC1_HEADER = 16
BLOSC2_HEADER = 32
FRAME_HEADER = 87
TRAILER = 25  # the least that one has
ZEROS = 0x81  # the highest byte of the offset of a chunk that is not stored
MEMCPYED = 0x2
MAX_NDIM = 8  # of a Blosc 2 array


class Undecodable(ValueError):
    """Stored bytes that do not decode to what is due."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Undecodable(what)


def check_blosc1(source: Bytes, wanted: int) -> Bytes:
    """The Blosc 1 buffer in `source`, its header and table of blocks known to be sound."""
    _require(len(source) >= BLOSC1_HEADER, f"{len(source)} bytes are too few for Blosc")
    version, _, flags, typesize, nbytes, blocksize, cbytes = struct.unpack_from(
        "<BBBBIII", source.data
    )
    _require(1 <= version <= 2, f"Blosc format {version}, which is not 1 or 2")
    _require(nbytes == wanted, f"decodes to {nbytes} bytes where {wanted} are due")
    _require(
        BLOSC1_HEADER <= cbytes <= len(source), f"{len(source)} bytes where Blosc says {cbytes}"
    )
    _require(typesize > 0, "Blosc items of no bytes")
    if flags & MEMCPYED:
        _require(cbytes == nbytes + BLOSC1_HEADER, "a stored Blosc buffer of the wrong size")
        return source[:cbytes]
    _require(0 < blocksize <= nbytes, f"Blosc blocks of {blocksize} bytes in {nbytes}")
    _check_starts(source, BLOSC1_HEADER, -(-nbytes // blocksize), cbytes)
    return source[:cbytes]


def _check_starts(source: Bytes, header: int, n_blocks: int, cbytes: int) -> None:
    table_end = header + 4 * n_blocks
    _require(table_end <= cbytes, "a Blosc table of blocks that runs past the end of the chunk")
    starts = np.frombuffer(source[header:table_end].tobytes(), dtype="<i4")
    _require(
        bool((starts >= table_end).all() and (starts < cbytes).all()),
        "a Blosc block that begins outside the chunk",
    )


@dataclass(frozen=True)
class Blosc2Frame:
    """The one chunk of a contiguous Blosc 2 frame, and how its items are laid out.

    Parameters
    ----------
    chunk
        The compressed chunk; None where all its bytes are 0.
    nbytes
        Decoded bytes of the chunk, padding to whole blocks included.
    itemsize
        Bytes of an item.
    shape, block_shape
        Of an n-dimensional chunk, whose blocks lie one after another; both empty where the bytes
        lie in order.
    """

    chunk: Bytes | None
    nbytes: int
    itemsize: int
    shape: tuple[int, ...]
    block_shape: tuple[int, ...]

    def decode(self, out: Bytes, call: Callable[[Bytes, Bytes], None]) -> None:
        """Decode into `out` by `call`, which decodes one Blosc 2 chunk."""
        nbytes = prod(self.shape) * self.itemsize if self.shape else self.nbytes
        _require(nbytes == len(out), f"decodes to {nbytes} bytes where {len(out)} are due")
        if self.chunk is None:
            out[:] = 0
        elif self._in_order:
            call(self.chunk, out)
        else:
            blocks = np.empty(self.nbytes, dtype=np.uint8)
            call(self.chunk, blocks)
            self._arrange(blocks, out)

    @property
    def _in_order(self) -> bool:
        """Whether the blocks lie in the order of the items: they cut the first axis alone."""
        return self.shape[1:] == self.block_shape[1:] and (
            not self.shape or self.shape[0] % self.block_shape[0] == 0
        )

    def _arrange(self, blocks: Bytes, out: Bytes) -> None:
        """Put each block at its place, without what pads it."""
        ndim = len(self.shape)
        grid = tuple(-(-n // b) for n, b in zip(self.shape, self.block_shape, strict=True))
        array = blocks.reshape(*grid, *self.block_shape, self.itemsize)
        target = out.reshape(*self.shape, self.itemsize)
        for cell in np.ndindex(*grid):
            start = tuple(c * b for c, b in zip(cell, self.block_shape, strict=True))
            place = tuple(slice(s, s + b) for s, b in zip(start, self.block_shape, strict=True))
            part = target[place]
            part[...] = array[cell][tuple(slice(0, n) for n in part.shape[:ndim])]


def open_blosc2(source: Bytes) -> Blosc2Frame:
    """Read the frame in `source`, trusting nothing in it."""
    _require(len(source) >= FRAME_HEADER, f"{len(source)} bytes are too few for a Blosc 2 frame")
    raw = source[:FRAME_HEADER].tobytes()
    _require(raw[2:10] == b"b2frame\0", "not a Blosc 2 frame")
    header, frame = struct.unpack_from(">ixQ", raw, 11)
    nbytes, cbytes = struct.unpack_from(">q", raw, 30)[0], struct.unpack_from(">q", raw, 39)[0]
    itemsize, chunk_bytes = (
        struct.unpack_from(">i", raw, 48)[0],
        struct.unpack_from(">i", raw, 58)[0],
    )
    _require(
        FRAME_HEADER <= header <= len(source), "a Blosc 2 frame whose header runs past its end"
    )
    _require(0 <= cbytes <= len(source) - header, "a Blosc 2 frame whose data run past its end")
    _require(
        0 < nbytes <= chunk_bytes,
        f"a Blosc 2 frame of {nbytes} bytes, not of one chunk of {chunk_bytes}",
    )
    _require(itemsize > 0, "Blosc 2 items of no bytes")
    shape, blocks = _array_shapes(source[:header].tobytes(), nbytes, itemsize)
    _require(frame <= len(source), f"{len(source)} bytes where a Blosc 2 frame has {frame}")
    offset = _offset(source[header + cbytes : frame])
    chunk = _chunk(source[header : header + cbytes], nbytes) if cbytes else None
    if chunk is not None:
        _require(offset == bytes(8), "a Blosc 2 frame whose index points beside its chunk")
    else:
        _require(offset[7] == ZEROS, "a Blosc 2 chunk of special values that are not zeros")
    return Blosc2Frame(chunk, nbytes, itemsize, shape, blocks)


def _chunk(chunk: Bytes, nbytes: int) -> Bytes:
    """The Blosc 2 chunk, once its header and table of blocks are known to be sound."""
    _require(len(chunk) >= BLOSC2_HEADER, "a Blosc 2 chunk without its header")
    version, _, flags, typesize, size, block, cbytes = struct.unpack_from("<BBBBiii", chunk.data)
    _require(version <= 5, f"Blosc 2 chunk format {version}, newer than 5")
    _require(size == nbytes, f"a Blosc 2 chunk of {size} bytes in a frame of {nbytes}")
    _require(BLOSC2_HEADER <= cbytes <= len(chunk), "a Blosc 2 chunk that runs past its frame")
    _require(typesize > 0, "Blosc 2 items of no bytes")
    _require(flags & 0x5 == 0x5, "a Blosc 2 chunk with the header of Blosc 1")
    special, lazy = (int(chunk[31]) >> 4) & 0x7, int(chunk[31]) & 0x8
    _require(not lazy, "a lazy Blosc 2 chunk, whose data are elsewhere")
    _require(
        int(chunk[22]) <= 5 and int(chunk[16:22].max()) <= 5, "a Blosc 2 plugin's codec or filter"
    )
    if special:
        return chunk[:cbytes]
    if flags & MEMCPYED:
        _require(cbytes == nbytes + BLOSC2_HEADER, "a stored Blosc 2 chunk of the wrong size")
        return chunk[:cbytes]
    _require(0 < block <= nbytes, f"Blosc 2 blocks of {block} bytes in {nbytes}")
    _check_starts(chunk, BLOSC2_HEADER, -(-nbytes // block), cbytes)
    return chunk[:cbytes]


def _offset(rest: Bytes) -> bytes:
    """Where the frame's index, a chunk of one number, says that its chunk begins; the frame ends
    with that index and a trailer, which notes its own length.
    """
    _require(len(rest) >= BLOSC2_HEADER + 8 + TRAILER, "a Blosc 2 frame without an index")
    raw = rest[: BLOSC2_HEADER + 8].tobytes()
    version, _, flags, _, size, _, cbytes = struct.unpack_from("<BBBBiii", raw)
    whole = 1 <= version <= 5 and size == 8 and BLOSC2_HEADER <= cbytes <= len(rest) - TRAILER
    _require(whole, "a Blosc 2 frame with a damaged index")
    mark, trailer = struct.unpack(">BI", rest[-23:-18].tobytes())
    _require((mark, trailer) == (0xCE, len(rest) - cbytes), "a Blosc 2 frame with a damaged end")
    if (raw[31] >> 4) & 0x7 == 1:  # a chunk of zeros
        return bytes(8)
    _require(bool(flags & MEMCPYED), "a Blosc 2 frame whose index is not stored plainly")
    return raw[BLOSC2_HEADER:]


def _array_shapes(
    header: bytes, nbytes: int, itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunk and block shape from the ``b2nd`` metalayer; empty where there is none."""
    named = header.find(b"\xa4b2nd\xd2", FRAME_HEADER)
    if named < 0 or named + 10 > len(header):
        return (), ()
    at = struct.unpack_from(">i", header, named + 6)[0] + 5  # past the length of the content
    _require(
        FRAME_HEADER <= at <= len(header) - 3, "a Blosc 2 array whose shape lies outside its header"
    )
    ndim = header[at + 2]
    _require(0 < ndim <= MAX_NDIM, f"a Blosc 2 array of {ndim} axes")
    _require(at + 3 + ndim * 19 + 3 <= len(header), "a Blosc 2 array whose shape is cut off")
    shape = _integers(header, at + 3, ndim, ">q")
    chunk = _integers(header, at + 4 + 9 * ndim, ndim, ">i")
    block = _integers(header, at + 5 + 14 * ndim, ndim, ">i")
    _require(shape == chunk, f"a Blosc 2 array of shape {shape} with chunks of {chunk}")
    _require(
        all(0 < b <= n for b, n in zip(block, chunk, strict=True)),
        f"Blosc 2 blocks of {block} in {chunk}",
    )
    padded = prod(-(-n // b) * b for n, b in zip(chunk, block, strict=True))
    _require(
        padded * itemsize == nbytes, f"a Blosc 2 array of {padded * itemsize} bytes in {nbytes}"
    )
    return chunk, block


def _integers(header: bytes, at: int, count: int, form: str) -> tuple[int, ...]:
    """A msgpack array of integers of one width: a byte, then a byte and the integer for each."""
    width = 1 + struct.calcsize(form)
    return tuple(struct.unpack_from(form, header, at + 2 + i * width)[0] for i in range(count))
