"""One decoder a compression filter: stored bytes in, exactly the due bytes out, or `Undecodable`.

Every decoder writes into a buffer it is given and is bounded by it, so a damaged or hostile chunk
can neither allocate without bound nor pass on bytes that it did not hold. The heavy calls release
Python's global lock.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from epochal.stores.blosc import Undecodable, check_blosc1, open_blosc2

__all__ = ["CODECS", "Bytes", "Codec", "Decode", "Undecodable", "bz2_bytes", "bz2_into"]

Bytes = NDArray[np.uint8]
Decode = Callable[[Bytes, Bytes], None]

BZ2_STATE_BYTES = 4 << 20  # what libbz2 allocates to decompress a stream of level 9
BLOSC_BLOCK_BYTES = 4 << 20  # the largest block that Blosc chooses by itself, about


@dataclass(frozen=True)
class Codec:
    """How one filter is undone.

    Parameters
    ----------
    name
        For people.
    decoder
        From the filter's client data to the function that decodes.
    backend
        Attribute of `imagecodecs` that says whether this build has the codec.
    workspace
        Bytes that decoding holds beside its input and output, from the bytes of the chunk.
    level
        Position of the compression level in the client data.
    """

    name: str
    decoder: Callable[[tuple[int, ...]], Decode]
    backend: str
    workspace: Callable[[int], int] = lambda chunk_bytes: 0
    level: int | None = None

    @property
    def available(self) -> bool:
        """Whether this build of imagecodecs has the codec."""
        return bool(getattr(getattr(imagecodecs, self.backend, None), "available", False))

    def label(self, cd: tuple[int, ...]) -> str:
        """For people: ``"gzip(4)"``."""
        if self.level is None or self.level >= len(cd):
            return self.name
        return f"{self.name}({cd[self.level]})"


def _exactly(got: int, wanted: int) -> None:
    if got != wanted:
        raise Undecodable(f"decodes to {got} bytes where {wanted} are due")


def _call(
    function: Callable[..., Any], source: Bytes | memoryview, out: Bytes, **options: Any
) -> None:
    """Run one imagecodecs decoder that takes ``out=`` and returns what it filled."""
    try:
        filled = function(source, out=out, **options)
    except Exception as error:  # each codec has an exception of its own
        raise Undecodable(str(error) or type(error).__name__) from error
    _exactly(len(filled), len(out))


def _plain(name: str) -> Callable[[tuple[int, ...]], Decode]:
    """A codec that needs nothing but its bytes."""
    function = getattr(imagecodecs, name)

    def decode(source: Bytes, out: Bytes) -> None:
        try:
            filled = function(source, out=out)
        except Exception as error:
            raise Undecodable(str(error) or type(error).__name__) from error
        if len(filled) != len(out):
            _exactly(len(filled), len(out))

    return lambda cd: decode


def bz2_bytes(source: Bytes, most: int) -> bytes:
    """What a bzip2 stream decompresses to, one byte more than `most` at most, its checksums found
    right.

    libbz2 compares them after the bytes that they are of: a decoder that stops once its output is
    full, as imagecodecs' does, never gets there.
    """
    engine = bz2.BZ2Decompressor()
    try:
        data = engine.decompress(source.data, most + 1)
    except (OSError, ValueError, EOFError) as error:
        raise Undecodable(f"bzip2: {error}") from error
    if len(data) <= most and not engine.eof:
        raise Undecodable("bzip2: ends before its checksum")
    return data


def bz2_into(source: Bytes, out: Bytes) -> None:
    """Decompress a bzip2 stream of just so many bytes."""
    data = bz2_bytes(source, len(out))
    _exactly(len(data), len(out))
    out[:] = np.frombuffer(data, np.uint8)


def _szip(cd: tuple[int, ...]) -> Decode:
    if len(cd) < 4:
        raise Undecodable("szip without its four parameters")
    mask, pixels_per_block, bits_per_pixel, pixels_per_scanline = cd[:4]

    def decode(source: Bytes, out: Bytes) -> None:
        if len(source) < 4:
            raise Undecodable(f"{len(source)} bytes are too few for szip")
        _exactly(struct.unpack_from("<I", source.data)[0], len(out))
        _call(
            partial(
                imagecodecs.szip_decode,
                options_mask=mask,
                pixels_per_block=pixels_per_block,
                bits_per_pixel=bits_per_pixel,
                pixels_per_scanline=pixels_per_scanline,
                header=True,
            ),
            source,
            out,
        )

    return decode


def _lz4(cd: tuple[int, ...]) -> Decode:
    def decode(source: Bytes, out: Bytes) -> None:
        if len(source) < 12:
            raise Undecodable(f"{len(source)} bytes are too few for LZ4")
        total, block = struct.unpack_from(">QI", source.data)
        _exactly(total, len(out))
        if block == 0:
            raise Undecodable("LZ4 blocks of no bytes")
        _call(imagecodecs.lz4h5_decode, source, out)

    return decode


def _blosc(cd: tuple[int, ...]) -> Decode:
    def decode(source: Bytes, out: Bytes) -> None:
        frame = check_blosc1(source, len(out))
        _call(imagecodecs.blosc_decode, frame, out, numthreads=1)

    return decode


def _blosc2(cd: tuple[int, ...]) -> Decode:
    def decode(source: Bytes, out: Bytes) -> None:
        open_blosc2(source).decode(out, partial(_call, imagecodecs.blosc2_decode, numthreads=1))

    return decode


def _bitshuffle(cd: tuple[int, ...]) -> Decode:
    if len(cd) < 3 or not 0 < cd[2] < 1 << 16:
        raise Undecodable("bitshuffle without an element size")
    itemsize = cd[2]
    block = cd[3] if len(cd) > 3 else 0
    compression = cd[4] if len(cd) > 4 else 0
    if compression == 0:
        return lambda source, out: _unbitshuffle(source, out, itemsize, block)
    if compression not in (2, 3):
        raise Undecodable(
            f"bitshuffle with compression {compression}, which is neither LZ4 nor zstd"
        )
    block_decode = imagecodecs.lz4_decode if compression == 2 else imagecodecs.zstd_decode

    def decode(source: Bytes, out: Bytes) -> None:
        bits, block_bytes = _bitshuffle_blocks(source, len(out), itemsize, block_decode)
        _unbitshuffle(bits, out, itemsize, block_bytes // itemsize)

    return decode


def _unbitshuffle(bits: Bytes, out: Bytes, itemsize: int, block: int) -> None:
    _exactly(len(bits), len(out))
    # A memoryview, since for an ndarray imagecodecs takes the array's item size instead of the one
    # it is given.
    _call(imagecodecs.bitshuffle_decode, bits.data, out, itemsize=itemsize, blocksize=block)


def _bitshuffle_blocks(
    source: Bytes, total: int, itemsize: int, block_decode: Callable[..., Any]
) -> tuple[Bytes, int]:
    """Undo the compression of each block: the bits, still shuffled, and the bytes of a block."""
    if len(source) < 12:
        raise Undecodable(f"{len(source)} bytes are too few for bitshuffle")
    declared, block_bytes = struct.unpack_from(">QI", source.data)
    _exactly(declared, total)
    if block_bytes == 0 or block_bytes % (8 * itemsize):
        raise Undecodable(f"bitshuffle blocks of {block_bytes} bytes for items of {itemsize}")
    tail = total % (8 * itemsize)  # fewer than 8 items: stored as they are, after the last block
    bits = np.empty(total, dtype=np.uint8)
    # Blocks may be tiny, so that a list of them would be larger than the chunk.
    lz4 = block_decode is imagecodecs.lz4_decode and not tail
    if lz4 and all(e - s != block_bytes for _, _, s, e in _block_spans(source, total, block_bytes)):
        # The LZ4 filter's format, except that there a block of full size is not compressed.
        _call(imagecodecs.lz4h5_decode, source, bits)
        return bits, block_bytes
    end = 12
    for first, last, start, end in _block_spans(source, total - tail, block_bytes):
        _call(block_decode, source[start:end], bits[first:last])
    _exactly(len(source) - end, tail)
    bits[total - tail :] = source[end:]
    return bits, block_bytes


def _block_spans(
    source: Bytes, total: int, block_bytes: int
) -> Iterator[tuple[int, int, int, int]]:
    """For each block its range in the decoded and in the stored bytes."""
    at = 12
    for first in range(0, total, block_bytes):
        if at + 4 > len(source):
            raise Undecodable(f"ends after {first} of {total} bytes")
        stored = struct.unpack_from(">I", source.data, at)[0]
        start, at = at + 4, at + 4 + stored
        if at > len(source):
            raise Undecodable(f"a block of {stored} bytes runs past the end of the chunk")
        yield first, min(first + block_bytes, total), start, at


CODECS = {
    1: Codec("gzip", _plain("deflate_decode"), "DEFLATE", level=0),
    4: Codec("szip", _szip, "SZIP", workspace=lambda n: n),
    305: Codec("lzo", _plain("lzo_decode"), "LZO"),
    307: Codec("bzip2", lambda cd: bz2_into, "BZ2", workspace=lambda n: BZ2_STATE_BYTES + 2 * n),
    32000: Codec("lzf", _plain("lzf_decode"), "LZF"),
    32001: Codec("blosc", _blosc, "BLOSC", workspace=lambda n: 3 * min(n, BLOSC_BLOCK_BYTES)),
    32004: Codec("lz4", _lz4, "LZ4H5"),
    32008: Codec("bitshuffle", _bitshuffle, "BITSHUFFLE", workspace=lambda n: 2 * n),
    32015: Codec("zstd", _plain("zstd_decode"), "ZSTD", workspace=lambda n: 1 << 18, level=0),
    32026: Codec(
        "blosc2", _blosc2, "BLOSC2", workspace=lambda n: 2 * n + 3 * min(n, BLOSC_BLOCK_BYTES)
    ),
}
