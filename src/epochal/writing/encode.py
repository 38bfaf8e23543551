"""A chain of HDF5 filters, done: from a chunk to the bytes that are stored of it.

What `epochal.stores.filters` undoes. Filters that only others can do (bitshuffle, LZO, ...) are
left out of a chunk by its filter mask, which every reader heeds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from importlib import import_module
from math import prod
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.stores.codecs import Bytes
from epochal.stores.filters import BLOSC_CODECS, Filter
from epochal.writing.spec import Compression

__all__ = ["ChunkEncoder", "Encoder", "as_stored", "chain_for"]

GZIP, SHUFFLE, BLOSC, LZ4, ZSTD, BLOSC2 = 1, 2, 32001, 32004, 32015, 32026
LEVELS = {"gzip": 4, "zstd": 3, "lz4": 0, "blosc": 5, "blosc2": 5}
BLOSC_FORMAT, BLOSC_VERSION = 2, 2
ZSTD_IN_BLOSC = 5
Encode = Callable[[Any], Any]  # the stubs of imagecodecs know no arrays


def chain_for(compression: Compression, itemsize: int, chunk_bytes: int) -> tuple[Filter, ...]:
    """The filters, with their client data, that a compression is in HDF5.

    >>> chain_for(Compression("gzip", shuffle=True), 4, 1024)
    (Filter(id=2, cd=(4,)), Filter(id=1, cd=(4,)))
    """
    name = compression.name
    shuffle = compression.shuffle and itemsize > 1
    level = LEVELS.get(name or "", 0) if compression.level is None else compression.level
    before = (Filter(SHUFFLE, (itemsize,)),) if shuffle else ()
    # Blosc has a shuffle of its own, on its own blocks.
    item = itemsize if itemsize < 256 else 1
    match name:
        case None:
            return before
        case "gzip":
            return (*before, Filter(GZIP, (level,)))
        case "zstd":
            return (*before, Filter(ZSTD, (level,)))
        case "lz4":
            return (*before, Filter(LZ4, (0,)))
        case "blosc":
            cd = (BLOSC_FORMAT, BLOSC_VERSION, item, chunk_bytes, level, shuffle, ZSTD_IN_BLOSC)
            return (Filter(BLOSC, tuple(map(int, cd))),)
        case "blosc2":
            cd = (1, 0, item, chunk_bytes, level, shuffle, ZSTD_IN_BLOSC)
            return (Filter(BLOSC2, tuple(map(int, cd))),)
    raise AssertionError(name)


class Encoder:
    """Applies a chain of filters. Threads may share one; the heavy calls release the GIL.

    >>> stored, mask = Encoder([Filter(1, (4,))])(np.zeros(1000, np.uint8))
    >>> len(stored) < 100, mask
    (True, 0)
    """

    def __init__(self, filters: Iterable[Filter]) -> None:
        self._steps = [_step(each) for each in filters]
        self._mask = sum(1 << k for k, step in enumerate(self._steps) if step is None)

    def __call__(self, chunk: Bytes) -> tuple[Bytes, int]:
        """What is stored of a chunk's bytes, and the mask of the filters that were left out."""
        data: Any = chunk
        for step in self._steps:
            if step is not None:
                data = step(data)
        if not isinstance(data, np.ndarray):
            data = np.frombuffer(data, np.uint8)
        return data, self._mask


class ChunkEncoder:
    """What is stored of a chunk's rows, in a file with these filters; picklable."""

    def __init__(self, filters: tuple[Filter, ...], chunk_rows: int) -> None:
        self._filters, self._chunk_rows = filters, chunk_rows
        self._encode = Encoder(filters)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkEncoder, (self._filters, self._chunk_rows)

    def __call__(self, rows: NDArray[Any]) -> Bytes:
        """Of rows ``(n, *row_shape)``."""
        return self._encode(as_stored(rows, self._chunk_rows))[0]


def _step(each: Filter) -> Encode | None:
    cd = each.cd
    match each.id:
        case 1:
            # libdeflate: the bytes of zlib's format in half its time. Its level 1 to 12.
            level = max(1, cd[0]) if cd else LEVELS["gzip"]
            return lambda data: imagecodecs.deflate_encode(data, level=level)
        case 2:
            return _shuffler(cd[0] if cd else 1)
        case 3:
            return _with_fletcher32
        case 32000:
            return imagecodecs.lzf_encode
        case 32001:
            return _blosc(cd)
        case 32004:
            return _lz4(cd[0] if cd else 0)
        case 32015:
            level = cd[0] if cd else LEVELS["zstd"]
            return lambda data: imagecodecs.zstd_encode(data, level=level)
        case 32026:
            return _blosc2(cd)
    return None


def _shuffler(itemsize: int) -> Encode:
    """Bytes 0 of all items, then bytes 1, ..., then what does not fill an item."""

    def shuffle(data: Any) -> Bytes:
        source = np.frombuffer(data, np.uint8)
        n_items = len(source) // itemsize
        whole = n_items * itemsize
        out = np.empty(len(source), np.uint8)
        items, planes = source[:whole].reshape(n_items, itemsize), out[:whole]
        for k, plane in enumerate(planes.reshape(itemsize, n_items)):
            plane[:] = items[:, k]
        out[whole:] = source[whole:]
        return out

    return shuffle


def _with_fletcher32(data: Any) -> bytes:
    # As HDF5 does: little-endian, whatever the machine.
    checksum: Any = imagecodecs.h5checksum_fletcher32
    return bytes(data) + struct.pack("<I", checksum(np.frombuffer(data, np.uint8)))


def _lz4(block_bytes: int) -> Encode:
    # 1 GiB is what the filter takes where nothing is said.
    return lambda data: imagecodecs.lz4h5_encode(data, blocksize=block_bytes or None)


def _blosc(cd: tuple[int, ...]) -> Encode:
    values: tuple[int, ...] = (*cd, *(2, 2, 1, 0, 5, 1, 0)[len(cd) :])
    options: dict[str, Any] = {
        "typesize": max(1, values[2]),
        "level": values[4],
        "shuffle": values[5],
        "compressor": BLOSC_CODECS[values[6]],
        "numthreads": 1,
    }
    # For an ndarray imagecodecs takes the array's item size instead of the one it is given.
    encode: Any = imagecodecs.blosc_encode
    return lambda data: encode(memoryview(data), **options)


def _blosc2(cd: tuple[int, ...]) -> Encode:
    blosc2 = _library()
    values: tuple[int, ...] = (*cd, *(1, 0, 1, 0, 5, 1, 0)[len(cd) :])
    codecs = ("BLOSCLZ", "LZ4", "LZ4HC", "BLOSCLZ", "ZLIB", "ZSTD")  # Snappy is no more
    cparams = {
        "codec": blosc2.Codec[codecs[values[6]]],
        "clevel": values[4],
        "typesize": max(1, values[2]),
        "filters": [blosc2.Filter(values[5])],
        "filters_meta": [0],
        "nthreads": 1,
    }

    def encode(data: Any) -> bytes:
        view = memoryview(data)
        frame = blosc2.SChunk(
            chunksize=view.nbytes, data=view, cparams=cparams, dparams={"nthreads": 1}
        )
        return bytes(frame.to_cframe())

    return encode


def _library() -> Any:
    try:
        return import_module("blosc2")
    except ImportError:
        raise MismatchError(
            "compression='blosc2' is done by the package blosc2, which is not installed: "
            "pip install 'epochal[blosc2]', or choose another compression"
        ) from None


def as_stored(chunk: NDArray[Any], rows: int) -> Bytes:
    """The bytes of a chunk of `rows` rows: those given, and zeros for the rest, ``(nbytes,)``."""
    flat = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)
    if len(chunk) == rows:
        return flat
    row_bytes = chunk.dtype.itemsize * prod(chunk.shape[1:])
    padded = np.zeros(rows * row_bytes, np.uint8)
    padded[: len(flat)] = flat
    return padded
