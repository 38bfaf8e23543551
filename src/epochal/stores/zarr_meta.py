"""What a Zarr array's metadata say, of either version: shape, type, grid, codecs and keys.

Specifications: Zarr 2 (``.zarray``) and Zarr 3 core (``zarr.json``); nothing in them is trusted.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from epochal.stores.zarr_codecs import Pipeline, Unreadable, pipeline

__all__ = ["ArrayMeta", "Shards", "parse_json", "read_v2", "read_v3"]

MAX_CHUNKS = 1 << 28
MAX_CHUNK_BYTES = 1 << 31
MAX_AXES = 32


@dataclass(frozen=True)
class Shards:
    """Chunks that hold chunks: their shape, where each one's index is, and how that is coded."""

    shape: tuple[int, ...]
    at_end: bool
    index_bytes: int
    index_shape: tuple[int, ...]
    index_dtype: np.dtype
    index_codecs: tuple[dict[str, Any], ...]
    index_axes: tuple[int, ...] | None

    def index(self) -> Pipeline:
        """How the index is decoded: offset and length of each chunk, of uint64."""
        return pipeline(self.index_shape, self.index_dtype, self.index_codecs, self.index_axes)


@dataclass(frozen=True)
class ArrayMeta:
    """One array.

    Attributes
    ----------
    chunk
        Shape of what is decoded together: of the inner chunks where there are shards.
    codecs
        numcodecs-like configurations, in the order in which they were applied; `axes` before them.
    fill
        The bytes of one item where nothing is stored.
    prefix, separator
        A chunk's key is the prefix and its grid numbers joined by the separator.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    codecs: tuple[dict[str, Any], ...]
    axes: tuple[int, ...] | None
    fill: bytes
    prefix: str
    separator: str
    shards: Shards | None = field(default=None, repr=False)
    dimensions: tuple[str, ...] = ()

    def pipeline(self) -> Pipeline:
        """How a chunk is decoded."""
        return pipeline(self.chunk, self.dtype, self.codecs, self.axes)


def parse_json(data: bytes) -> dict[str, Any]:
    """An object of JSON. Raises `Unreadable`."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its metadata are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable("its metadata are no JSON object")
    return found


def _numbers(value: Any, what: str, least: int) -> tuple[int, ...]:
    good = isinstance(value, list) and len(value) <= MAX_AXES
    if not good or not all(type(n) is int and least <= n < 1 << 62 for n in value):
        raise Unreadable(f"its {what} is {value!r}")
    return tuple(value)


def _list(value: Any, what: str) -> list[Any]:
    """What may be left out, or null, and is a list else."""
    if value is not None and not isinstance(value, list):
        raise Unreadable(f"its {what} are {value!r}")
    return value or []


def _separator(value: Any) -> str:
    if value not in (".", "/"):
        raise Unreadable(f"the separator of its chunk keys is {value!r}")
    return str(value)


def _check(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != len(chunk):
        raise Unreadable(f"its shape {shape} and its chunks {chunk} have different axes")
    if not shape:
        raise Unreadable("a scalar: it has no rows")
    if prod(shape) * dtype.itemsize >= 1 << 63:
        raise Unreadable(f"its shape {shape} is more than any machine can address")
    if prod(chunk) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise Unreadable(f"its chunks {chunk} are larger than {MAX_CHUNK_BYTES} bytes")
    if prod(-(-n // c) for n, c in zip(shape, chunk, strict=True)) > MAX_CHUNKS:
        raise Unreadable(f"more than {MAX_CHUNKS} chunks are not indexed")


def read_v2(meta: Mapping[str, Any]) -> ArrayMeta:
    """From ``.zarray``.

    Raises
    ------
    Unreadable
        Where it is not what it must be, or its items are objects.
    """
    shape = _numbers(meta.get("shape"), "shape", 0)
    chunk = _numbers(meta.get("chunks"), "chunks", 1)
    codecs = _list(meta.get("filters"), "filters")
    if meta.get("compressor") is not None:
        codecs = [*codecs, meta["compressor"]]
    if not all(isinstance(each, dict) and isinstance(each.get("id"), str) for each in codecs):
        raise Unreadable(f"its codecs are {codecs!r}")
    dtype = _dtype_v2(meta.get("dtype"), codecs)
    _check(shape, chunk, dtype)
    order = meta.get("order", "C")
    if order not in ("C", "F"):
        raise Unreadable(f"the order of its axes is {order!r}")
    fortran = order == "F" and len(shape) > 1
    return ArrayMeta(
        shape,
        dtype,
        chunk,
        tuple(codecs),
        tuple(reversed(range(len(shape)))) if fortran else None,
        _fill(meta.get("fill_value"), dtype),
        "",
        _separator(meta.get("dimension_separator", ".")),
    )


def _dtype_v2(told: Any, codecs: Sequence[Mapping[str, Any]]) -> np.dtype:
    if not isinstance(told, str | list):
        raise Unreadable(f"its type is {told!r}")
    try:
        if isinstance(told, list):
            told = [tuple(_tuples(part)) for part in told]
        dtype: np.dtype = np.dtype(told)
    except (TypeError, ValueError, SyntaxError, RecursionError) as error:
        raise Unreadable(f"its type {told!r} is not known: {error}") from error
    if dtype.hasobject:
        pipeline((1,), np.dtype("u1"), codecs[:1], None)  # says which objects they are
        raise Unreadable("its items are objects, not of fixed size")
    if dtype.shape or not dtype.itemsize:
        raise Unreadable(f"its items are of type {dtype}")
    return dtype


def _tuples(part: Any) -> list[Any]:
    """A field of a structured type, which JSON made lists of."""
    return [
        [tuple(_tuples(p)) for p in each]
        if isinstance(each, list) and k == 1
        else tuple(each)
        if isinstance(each, list)
        else each
        for k, each in enumerate(part)
    ]


def _fill(value: Any, dtype: np.dtype) -> bytes:
    """The bytes of one item of the fill value."""
    if value is None and dtype.kind in "mM":
        return np.array("NaT", dtype).tobytes()
    if value is None or value == "" or (isinstance(value, int | float) and value == 0):
        return bytes(dtype.itemsize)
    try:
        found = _filled(value, dtype)
        if len(found) != dtype.itemsize:
            raise ValueError(f"{len(found)} bytes")
        return found
    except (ValueError, TypeError, OverflowError) as error:
        raise Unreadable(f"its fill value {value!r} is none of {dtype}: {error}") from error


def _filled(value: Any, dtype: np.dtype) -> bytes:
    if dtype.kind in "fc" and isinstance(value, list):
        real, imaginary = (np.frombuffer(_filled(v, np.dtype("f8")), "f8")[0] for v in value)
        return np.array(complex(real, imaginary)).astype(dtype).tobytes()
    if dtype.kind == "f" and isinstance(value, str) and value.startswith("0x"):
        raw = bytes.fromhex(value[2:])
        bits = np.frombuffer(raw, dtype.newbyteorder(">"))
        return bits.astype(dtype).tobytes()
    if dtype.kind == "f" and isinstance(value, str):
        return np.array(float(value.replace("Infinity", "inf"))).astype(dtype).tobytes()
    if dtype.kind in "VS" and isinstance(value, str):
        try:
            raw = base64.standard_b64decode(
                value,
            )
        except ValueError:
            raw = value.encode()
        if len(raw) > dtype.itemsize:
            raw = value.encode()
        return raw.ljust(dtype.itemsize, b"\0")[: dtype.itemsize]
    if dtype.kind == "V" and isinstance(value, list):
        if value and all(type(n) is int and 0 <= n < 256 for n in value) and not dtype.names:
            return bytes(value)
        return np.array(tuple(value), dtype).tobytes()
    if dtype.kind in "mM":
        return (
            np.array(value, "i8")
            .astype(dtype.newbyteorder("=").str.replace("=", ""))
            .astype(dtype)
            .tobytes()
        )
    return np.array(value).astype(dtype, casting="unsafe").tobytes()


def read_v3(meta: Mapping[str, Any]) -> ArrayMeta:
    """From ``zarr.json`` of an array. Raises `Unreadable`."""
    shape = _numbers(meta.get("shape"), "shape", 0)
    grid, config = _named(meta.get("chunk_grid"))
    if grid != "regular":
        raise Unreadable(f"its chunk grid {grid!r} is not regular")
    outer = _numbers(config.get("chunk_shape"), "chunks", 1)
    if meta.get("storage_transformers"):
        raise Unreadable("storage transformers are not known")
    base = _dtype_v3(meta.get("data_type"))
    codecs = _chain(meta, "codecs")
    shards = None
    chunk = outer
    if len(codecs) == 1 and codecs[0][0] == "sharding_indexed":
        config = codecs[0][1]
        chunk = _numbers(config.get("chunk_shape"), "inner chunks", 1)
        codecs = _chain(config, "codecs")
        shards = _shards(config, outer, chunk)
    if any(name == "sharding_indexed" for name, _ in codecs):
        raise Unreadable("its shards are coded again, or hold shards")
    if len(outer) != len(shape) or len(chunk) != len(shape):
        raise Unreadable(f"its shape {shape} and its chunks {chunk} have different axes")
    dtype, axes, rest = _split(codecs, base, len(shape))
    _check(shape, chunk, dtype)
    encoding, config = _named(meta.get("chunk_key_encoding", "default"))
    if encoding not in ("default", "v2"):
        raise Unreadable(f"its chunk keys are {encoding!r}")
    separator = _separator(config.get("separator", "/" if encoding == "default" else "."))
    names = _list(meta.get("dimension_names"), "dimension names")
    return ArrayMeta(
        shape,
        dtype,
        chunk,
        tuple(rest),
        axes,
        _fill(meta.get("fill_value"), dtype),
        f"c{separator}" if encoding == "default" else "",
        separator,
        shards,
        tuple(str(name) for name in names if name is not None),
    )


def _chain(meta: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and configurations of codecs."""
    return [_named(each) for each in _list(meta.get(key), key.replace("_", " "))]


def _named(each: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of an extension point."""
    if isinstance(each, str):
        return each, {}
    if not isinstance(each, dict) or not isinstance(each.get("name"), str):
        raise Unreadable(f"its metadata hold {each!r} where a name is due")
    config = each.get("configuration") or {}
    if not isinstance(config, dict):
        raise Unreadable(f"the configuration of {each['name']!r} is {config!r}")
    return each["name"], config


DTYPES = {
    name: np.dtype(name)
    for name in (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    )
}


def _dtype_v3(told: Any) -> np.dtype:
    try:
        dtype = _known_dtype_v3(told)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(f"its type {told!r} is not known: {error}") from error
    if not dtype.itemsize:
        raise Unreadable(f"its items are of type {dtype}")
    return dtype


def _known_dtype_v3(told: Any) -> np.dtype:
    name, config = _named(told)
    length = config.get("length_bytes", 0)
    if name in DTYPES:
        return DTYPES[name]
    if name.startswith("r") and name[1:].isdigit() and int(name[1:]) % 8 == 0:
        return np.dtype(f"V{int(name[1:]) // 8}")
    if name in ("fixed_length_utf32", "null_terminated_bytes", "raw_bytes"):
        if type(length) is not int or not 0 < length < 1 << 30:
            raise Unreadable(f"its type {name} has {length!r} bytes")
        form = {
            "fixed_length_utf32": f"U{length // 4}",
            "null_terminated_bytes": f"S{length}",
            "raw_bytes": f"V{length}",
        }[name]
        return np.dtype(form)
    if name in ("numpy.datetime64", "numpy.timedelta64"):
        letter = "M" if name == "numpy.datetime64" else "m"
        unit, factor = str(config.get("unit", "generic")), config.get("scale_factor", 1)
        text = "" if unit == "generic" else f"[{factor if factor != 1 else ''}{unit}]"
        return np.dtype(f"{letter}8{text}")
    if name in ("struct", "structured"):
        fields = [(str(field), _dtype_v3(kind)) for field, kind in config.get("fields") or []]
        return np.dtype(fields)
    raise Unreadable(f"its items are of type {name!r}, not of fixed size or not known")


def _split(
    codecs: Sequence[tuple[str, dict[str, Any]]], dtype: np.dtype, n_axes: int
) -> tuple[np.dtype, tuple[int, ...] | None, list[dict[str, Any]]]:
    """Type as stored, order of axes, and the rest as numcodecs has it."""
    axes: tuple[int, ...] | None = None
    rest: list[dict[str, Any]] = []
    for name, config in codecs:
        if name == "transpose":
            order = config.get("order")
            if order in ("C", "F"):
                order = list(range(n_axes))[:: 1 if order == "C" else -1]
            order = _numbers(order, "transposition", 0)
            if sorted(order) != list(range(n_axes)) or rest:
                raise Unreadable(f"its transposition is {order}")
            axes = order if axes is None else tuple(axes[axis] for axis in order)
        elif name == "bytes":
            if config.get("endian") == "big":
                dtype = dtype.newbyteorder(">")
        else:
            rest.append({**config, "id": name.removeprefix("numcodecs.")})
    plain = axes is None or axes == tuple(range(n_axes))
    return dtype, None if plain else axes, rest


def _shards(config: Mapping[str, Any], outer: tuple[int, ...], inner: tuple[int, ...]) -> Shards:
    if len(outer) != len(inner) or any(o % i for o, i in zip(outer, inner, strict=True)):
        raise Unreadable(f"its shards {outer} are no multiple of its chunks {inner}")
    grid = tuple(o // i for o, i in zip(outer, inner, strict=True))
    if prod(grid) > MAX_CHUNKS:
        raise Unreadable(f"shards of {prod(grid)} chunks")
    codecs = _chain(config, "index_codecs")
    dtype, axes, rest = _split(codecs, np.dtype("<u8"), len(grid) + 1)
    n_bytes = 16 * prod(grid)
    for each in rest:
        if each["id"] not in ("crc32c", "crc32", "adler32", "fletcher32"):
            raise Unreadable(f"the index of its shards is coded by {each['id']!r}")
        n_bytes += 4
    at_end = config.get("index_location", "end") != "start"
    shards = Shards(outer, at_end, n_bytes, (*grid, 2), dtype, tuple(rest), axes)
    shards.index()  # says if it cannot be decoded
    return shards
