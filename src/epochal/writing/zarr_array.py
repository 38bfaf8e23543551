"""What a Zarr 3 array says of itself, made for a source; and its chunks encoded: pure.

What `epochal.stores.zarr_meta` reads. Data types outside the core specification are named as
zarr-python 3 names them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import imagecodecs
import numpy as np

from epochal.errors import MismatchError
from epochal.sizes import show
from epochal.stores.codecs import Bytes
from epochal.stores.zarr_codecs import Unreadable
from epochal.stores.zarr_meta import DTYPES, ArrayMeta, read_v3
from epochal.writing.encode import LEVELS
from epochal.writing.spec import Compression, SourceSpec
from epochal.writing.structures import packed

__all__ = ["document", "encoder", "meta_of", "spec_of"]

COMPRESSORS = {"gzip", "zstd", "blosc"}  # the format's own
MAX_CHUNK_BYTES = (1 << 31) - 17  # Blosc's own limit, and what a store decodes
SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
Encode = Callable[[Bytes], Any]
_codecs: Any = imagecodecs


def document(spec: SourceSpec, rows: int) -> dict[str, Any]:
    """``zarr.json`` of an array with so many rows.

    Raises
    ------
    MismatchError
        A dtype or a compression that Zarr 3 has no form for.

    >>> document(SourceSpec("X", (3,), np.dtype("f4"), 10), 25)["shape"]
    [25, 3]
    """
    if not spec.row_bytes or spec.chunk_bytes > MAX_CHUNK_BYTES:
        raise MismatchError(
            f"source {spec.name!r}: chunks of {spec.chunk_rows} rows take "
            f"{show(spec.chunk_bytes)}; Zarr chunks are of 1 B to {show(MAX_CHUNK_BYTES)}: give "
            "another chunk_rows="
        )
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *spec.row_shape],
        "data_type": _type(spec.name, spec.dtype),
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [spec.chunk_rows, *spec.row_shape]},
        },
        # Not "/", which would make a folder for each chunk of rows that are more than numbers.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _fill(spec.dtype),
        "codecs": [_to_bytes(spec.dtype), *_compressor(spec)],
        "attributes": {},
        "storage_transformers": [],
    }


def _type(name: str, dtype: np.dtype) -> Any:
    if dtype.names is not None:
        fields = [[field, _type(name, dtype[field])] for field in dtype.names]
        return {"name": "structured", "configuration": {"fields": fields}}
    if dtype.name in DTYPES:
        return dtype.name
    named = {"S": "null_terminated_bytes", "U": "fixed_length_utf32", "V": "raw_bytes"}
    if dtype.kind in named and not dtype.shape:
        return {"name": named[dtype.kind], "configuration": {"length_bytes": dtype.itemsize}}
    if dtype.kind in "mM":
        unit, factor = np.datetime_data(dtype)
        kind = "datetime64" if dtype.kind == "M" else "timedelta64"
        return {"name": f"numpy.{kind}", "configuration": {"unit": unit, "scale_factor": factor}}
    remedy = "make the axes of a field a source of its own" if dtype.shape else "give float64"
    raise MismatchError(f"source {name!r}: Zarr has no form for {dtype} ({remedy})")


def _fill(dtype: np.dtype) -> Any:
    if dtype.kind == "V":
        return base64.b64encode(bytes(packed(dtype).itemsize)).decode()
    values = {"b": False, "f": 0.0, "c": [0.0, 0.0], "S": "", "U": ""}
    return values.get(dtype.kind, 0)


def _to_bytes(dtype: np.dtype) -> dict[str, Any]:
    if dtype.kind in "SV" or dtype.itemsize == 1:
        return {"name": "bytes"}
    endian = "big" if dtype.str[0] == ">" else "little"
    return {"name": "bytes", "configuration": {"endian": endian}}


def _compressor(spec: SourceSpec) -> list[dict[str, Any]]:
    how = spec.compression
    if how.name not in (None, *COMPRESSORS):
        raise MismatchError(
            f"source {spec.name!r}: compression={how.name!r} is none of Zarr's own codecs, so that "
            "not every reader has it: give 'gzip', 'zstd' or 'blosc'"
        )
    if how.shuffle and how.name != "blosc":
        raise MismatchError(
            f"source {spec.name!r}: shuffle=True with compression={how.name!r}: Zarr's own codecs "
            "shuffle within Blosc alone: give compression='blosc', or shuffle=False"
        )
    if how.name is None:
        return []
    level = LEVELS[how.name] if how.level is None else how.level
    itemsize = packed(spec.dtype).itemsize
    config: dict[str, Any] = {"level": level}
    if how.name == "zstd":
        config["checksum"] = False
    elif how.name == "blosc":
        fits = itemsize < 256
        config = {
            "typesize": itemsize if fits else 1,
            "cname": "zstd",
            "clevel": level,
            "shuffle": "shuffle" if how.shuffle and fits and itemsize > 1 else "noshuffle",
            "blocksize": 0,
        }
    return [{"name": how.name, "configuration": config}]


def encoder(found: Mapping[str, Any]) -> Encode:
    """What compresses the bytes of a chunk as a document says.

    Raises
    ------
    MismatchError
        It says what can only be undone here.
    """
    codecs = [
        each if isinstance(each, Mapping) else {"name": each} for each in found.get("codecs", [])
    ]
    names = [each.get("name") for each in codecs]
    if names[:1] != ["bytes"] or len(names) > 2 or not {*names[1:]} <= COMPRESSORS:
        raise MismatchError(
            f"its codecs {', '.join(map(str, names))} can only be undone here, not done"
        )
    config = codecs[-1].get("configuration") or {}
    match names[-1]:
        case "gzip":
            # libdeflate, in half of zlib's time; its level 1 to 12.
            level = max(1, int(config.get("level", LEVELS["gzip"])))
            return lambda data: _codecs.gzip_encode(data, level=level)
        case "zstd":
            level = int(config.get("level", 0)) or LEVELS["zstd"]  # 0 is its usual one
            return lambda data: _codecs.zstd_encode(data, level=level)
        case "blosc":
            options = {
                "level": int(config.get("clevel", LEVELS["blosc"])),
                "compressor": config.get("cname", "zstd"),
                "shuffle": SHUFFLES.get(config.get("shuffle", "noshuffle"), 0),
                "typesize": max(1, int(config.get("typesize", 1))),
                "blocksize": int(config.get("blocksize", 0)) or None,
                "numthreads": 1,
            }
            # For an ndarray imagecodecs takes the array's item size instead of the one given.
            return lambda data: _codecs.blosc_encode(data.data, **options)
    return lambda data: data


def meta_of(found: Mapping[str, Any]) -> ArrayMeta:
    """A document of an array, read. Raises `MismatchError` where it cannot be written to."""
    try:
        meta = read_v3(found)
    except Unreadable as error:
        raise MismatchError(str(error)) from error
    if meta.shards is not None:
        raise MismatchError("its chunks are in shards, which are written whole")
    if meta.chunk[1:] != meta.shape[1:]:
        raise MismatchError(f"its chunks {meta.chunk} cut its rows {meta.shape[1:]}")
    return meta


def spec_of(name: str, found: Mapping[str, Any]) -> SourceSpec:
    """The source that a document describes; its compression is the document's own."""
    meta = meta_of(found)
    encoder(found)
    return SourceSpec(name, meta.shape[1:], meta.dtype, meta.chunk[0], Compression(None))
