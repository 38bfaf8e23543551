"""Zarr's codecs, undone: from the stored bytes of one chunk to its items.

Specifications: Zarr 3 core and its codecs (zarr-specs, "codecs"), and numcodecs' own formats for
Zarr 2. What this module does not know is decoded by numcodecs where that is installed.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from epochal.stores.blosc import Undecodable, check_blosc1
from epochal.stores.checksums import crc32c
from epochal.stores.codecs import Bytes, bz2_bytes, bz2_into

__all__ = ["Pipeline", "Unreadable", "UnsafeCodec", "pipeline"]

OBJECTS = ("vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "categorize")
PICKLES = ("pickle",)
_fletcher32: Any = imagecodecs.h5checksum_fletcher32
_lookup3: Any = imagecodecs.h5checksum_lookup3


class Unreadable(Exception):
    """A chain of codecs that cannot be undone here; the message says why."""


class UnsafeCodec(Unreadable):
    """A codec that would run code of the file's choice."""


@dataclass(frozen=True)
class _Step:
    """One codec that turns bytes into bytes.

    ``encoded`` says how many bytes it makes of so many, None where that depends on them.
    """

    name: str
    decode: Callable[[Bytes, int | None, int], Bytes]
    encoded: Callable[[int], int | None] = lambda n: None
    into: Callable[[Bytes, Bytes], None] | None = None


def _checked(got: int, wanted: int | None, limit: int) -> None:
    if (wanted is not None and got != wanted) or got > limit:
        raise Undecodable(f"decodes to {got} bytes where {wanted or limit} are due")


def _compressor(
    name: str, decoder: str, prepare: Callable[[Bytes, int], Bytes], **options: Any
) -> _Step:
    function: Any = partial(getattr(imagecodecs, decoder), **options)

    def into(source: Bytes, out: Bytes) -> None:
        try:
            got = function(prepare(source, len(out)), out=out)
        except Undecodable:
            raise
        except Exception as error:
            raise Undecodable(f"{name}: {error}") from error
        _checked(len(got), len(out), len(out))

    def decode(source: Bytes, wanted: int | None, limit: int) -> Bytes:
        out = np.empty(limit if wanted is None else wanted, np.uint8)
        if wanted is not None:
            into(source, out)
            return out
        try:
            got = function(prepare(source, limit), out=out)
        except Exception as error:
            raise Undecodable(f"{name}: {error}") from error
        return out[: len(got)]

    return _Step(name, decode, into=into)


def _as_it_is(source: Bytes, wanted: int) -> Bytes:
    return source


def _lz4_block(source: Bytes, wanted: int) -> Bytes:
    """Numcodecs' LZ4: the decoded size, 32 bits little-endian, before the block."""
    if len(source) < 4:
        raise Undecodable(f"{len(source)} bytes are too few for LZ4")
    (size,) = struct.unpack_from("<I", source.data)
    _checked(size, None, wanted)
    return source[4:]


def _bz2(source: Bytes, wanted: int | None, limit: int) -> Bytes:
    data = bz2_bytes(source, limit if wanted is None else wanted)
    _checked(len(data), wanted, limit)
    return np.frombuffer(data, np.uint8)


def _lzma(config: Mapping[str, Any]) -> _Step:
    form, filters = config.get("format", 1), config.get("filters")

    def decode(source: Bytes, wanted: int | None, limit: int) -> Bytes:
        most = limit if wanted is None else wanted
        try:
            engine = lzma.LZMADecompressor(format=form, filters=filters)
            data = engine.decompress(source.tobytes(), most + 1)
        except (lzma.LZMAError, ValueError, TypeError) as error:
            raise Undecodable(f"lzma: {error}") from error
        _checked(len(data), wanted, most)
        if form == lzma.FORMAT_XZ and not engine.eof:  # its checksum comes last
            raise Undecodable("lzma: ends before its checksum")
        return np.frombuffer(data, np.uint8)

    return _Step("lzma", decode)


def _checksum(name: str, function: Callable[[Bytes], int], *, at_start: bool = False) -> _Step:
    def decode(source: Bytes, wanted: int | None, limit: int) -> Bytes:
        if len(source) < 4:
            raise Undecodable(f"{len(source)} bytes are too few for a checksum")
        data, stored = (source[4:], source[:4]) if at_start else (source[:-4], source[-4:])
        if function(data) & 0xFFFFFFFF != struct.unpack("<I", stored.tobytes())[0]:
            raise Undecodable(f"its {name} checksum is wrong")
        return data

    return _Step(name, decode, lambda n: n + 4)


def _shuffle(itemsize: int) -> _Step:
    def decode(source: Bytes, wanted: int | None, limit: int) -> Bytes:
        count = len(source) // itemsize
        out = np.empty_like(source)
        planes = source[: count * itemsize].reshape(itemsize, count)
        out[: count * itemsize].reshape(count, itemsize)[...] = planes.T
        out[count * itemsize :] = source[count * itemsize :]
        return out

    return _Step("shuffle", decode, lambda n: n)


def _numcodecs(config: Mapping[str, Any]) -> _Step:
    name = str(config.get("id"))
    try:
        codec: Any = import_module("numcodecs").get_codec(dict(config))
    except ImportError:
        raise Unreadable(
            f"its codec {name!r} needs a package: pip install 'epochal[zarr]'"
        ) from None
    except Exception as error:
        raise Unreadable(f"its codec {name!r} is not known: {error}") from error

    def decode(source: Bytes, wanted: int | None, limit: int) -> Bytes:
        try:
            data = np.ascontiguousarray(codec.decode(source.tobytes()))
        except Exception as error:
            raise Undecodable(f"{name}: {error}") from error
        flat = data.reshape(-1).view(np.uint8)
        _checked(len(flat), wanted, limit)
        return flat

    return _Step(name, decode)


def _bytes_step(config: Mapping[str, Any]) -> _Step:
    """The codec of numcodecs' configuration ``{"id": ...}`` as a step."""
    name = config["id"]
    match name:
        case "zstd":
            return _compressor(name, "zstd_decode", _as_it_is)
        case "blosc":
            return _compressor(name, "blosc_decode", check_blosc1, numthreads=1)
        case "zlib":
            return _compressor(name, "deflate_decode", _as_it_is)
        case "gzip":
            return _compressor(name, "gzip_decode", _as_it_is)
        case "bz2":
            return _Step(name, _bz2, into=bz2_into)
        case "lz4":
            return _compressor(name, "lz4_decode", _lz4_block)
        case "lzma":
            return _lzma(config)
        case "shuffle":
            return _shuffle(max(int(config.get("elementsize", 4)), 1))
        case "crc32":
            return _checksum(
                name, lambda data: zlib.crc32(data.data), at_start=config.get("location") != "end"
            )
        case "adler32":
            return _checksum(
                name, lambda data: zlib.adler32(data.data), at_start=config.get("location") != "end"
            )
        case "crc32c":
            return _checksum(name, crc32c, at_start=config.get("location") == "start")
        case "fletcher32":
            return _checksum(name, lambda data: int(_fletcher32(data)))
    return _numcodecs(config)


@dataclass(frozen=True)
class _Filter:
    """One codec that turns items into items: how it is undone, and what it makes of a type."""

    decode: Callable[[NDArray[Any]], NDArray[Any]]
    dtype: np.dtype
    items: Callable[[int], int] = lambda n: n


def _array_filter(config: Mapping[str, Any], dtype: np.dtype) -> _Filter | None:
    """The filter that encodes items of `dtype`; None where the codec is of bytes."""
    name = config["id"]
    if name in OBJECTS:
        raise Unreadable(f"its items are objects ({name}), not of fixed size")
    if name in PICKLES:
        raise UnsafeCodec("its items are pickled, which are never read")
    plain = _number_type(config["dtype"]) if "dtype" in config else dtype
    stored = _number_type(config["astype"]) if config.get("astype") else plain
    match name:
        case "delta":
            return _Filter(lambda a: np.cumsum(a, dtype=plain).astype(plain), stored)
        case "fixedscaleoffset":
            scale, offset = float(config["scale"]), float(config["offset"])
            return _Filter(lambda a: ((a / scale) + offset).astype(plain), stored)
        case "quantize":
            return _Filter(lambda a: a.astype(plain, copy=False), stored)
        case "bitround":
            return _Filter(lambda a: a, dtype)
        case "astype":
            decoded = _number_type(config["decode_dtype"])
            return _Filter(lambda a: a.astype(decoded), _number_type(config["encode_dtype"]))
        case "packbits":
            return _Filter(_unpack_bits, np.dtype("u1"), lambda n: 1 + -(-n // 8))
    return None


def _number_type(text: Any) -> np.dtype:
    """The type that a codec's configuration names."""
    dtype: np.dtype = np.dtype(text)
    if dtype.kind not in "biufcmM":
        raise Unreadable(f"a codec makes items of {dtype}, which are no numbers")
    return dtype


def _unpack_bits(packed: NDArray[Any]) -> NDArray[Any]:
    """Numcodecs' packing: first a byte that counts the bits that pad the last one."""
    bits = np.unpackbits(packed[1:])
    return bits[: len(bits) - int(packed[0])].view(np.bool_) if len(packed) else bits


class Pipeline:
    """From stored bytes to the items of one chunk, of its shape in C order.

    Parameters
    ----------
    shape
        Of the chunk.
    dtype
        Of its items as stored, byte order included.
    filters
        Applied to the items, in order.
    steps
        Applied to their bytes, in order.
    axes
        Order of axes in which the items were stored; None where it is theirs.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        filters: Sequence[_Filter],
        steps: Sequence[_Step],
        axes: tuple[int, ...] | None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * dtype.itemsize
        self._filters, self._steps = tuple(filters), tuple(steps)
        self._axes = axes
        self._stored_dtype, items = dtype, prod(shape)
        for each in filters:
            self._stored_dtype, items = each.dtype, each.items(items)
        # Bytes before each step was applied: known up to the first that compresses.
        sizes: list[int | None] = [items * self._stored_dtype.itemsize]
        for step in steps:
            last = sizes[-1]
            sizes.append(None if last is None else step.encoded(last))
        self._sizes = sizes
        self._limit = 2 * max(self.nbytes, sizes[0] or 0) + (1 << 16)
        self._direct = not filters and axes is None

    @property
    def direct(self) -> bool:
        """Whether the bytes of the chunk come out as they are asked for."""
        return self._direct

    @property
    def label(self) -> str:
        """For people."""
        return " + ".join(step.name for step in self._steps)

    @property
    def workspace_bytes(self) -> int:
        """What decoding a chunk holds beside its input and output."""
        plain = self._direct and len(self._steps) <= 1
        many = len(self._steps) > 1 and self._sizes[1] is None
        return 0 if plain else 3 * self.nbytes + self._limit * many

    def decode_into(self, stored: Bytes, out: Bytes) -> None:
        """Decode a chunk of `direct` items into its bytes."""
        data = self._undo(stored, self._steps[1:], 1)
        if not self._steps:
            _checked(len(data), len(out), len(out))
            out[:] = data
            return
        into = self._steps[0].into
        if into is not None:
            into(data, out)
            return
        data = self._steps[0].decode(data, len(out), len(out))
        _checked(len(data), len(out), len(out))
        out[:] = data

    def decode(self, stored: Bytes) -> NDArray[Any]:
        """The chunk, of its shape."""
        data = self._undo(stored, self._steps, 0)
        size = self._sizes[0]
        _checked(len(data), size, self._limit)
        items: NDArray[Any] = np.ascontiguousarray(data).view(self._stored_dtype)
        for each in reversed(self._filters):
            items = each.decode(items)
        items = items.astype(self.dtype, copy=False).reshape(-1)
        if len(items) != prod(self.shape):
            raise Undecodable(f"{len(items)} items where {prod(self.shape)} are due")
        if self._axes is None:
            return items.reshape(self.shape)
        laid = items.reshape([self.shape[axis] for axis in self._axes])
        return laid.transpose(np.argsort(self._axes))

    def _undo(self, stored: Bytes, steps: Sequence[_Step], first: int) -> Bytes:
        data = stored
        for number in reversed(range(len(steps))):
            data = steps[number].decode(data, self._sizes[first + number], self._limit)
        return data


def pipeline(
    shape: tuple[int, ...],
    dtype: np.dtype,
    codecs: Sequence[Mapping[str, Any]],
    axes: tuple[int, ...] | None,
) -> Pipeline:
    """A pipeline of codecs in numcodecs' configurations, in the order in which they were applied.

    Raises
    ------
    Unreadable
        Where one of them is not known, or makes objects.
    """
    filters: list[_Filter] = []
    steps: list[_Step] = []
    stored = dtype
    for config in codecs:
        try:
            each = _array_filter(config, stored)
            step = _bytes_step(config) if each is None else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"{type(error).__name__}: {error}"
            raise Unreadable(f"its codec {config.get('id')!r} is set up wrongly: {what}") from error
        if step is not None:
            steps.append(step)
        elif steps:
            raise Unreadable(f"its codec {config['id']!r} comes after a compression")
        elif each is not None:
            filters.append(each)
            stored = each.dtype
    return Pipeline(shape, dtype, filters, steps, axes)
