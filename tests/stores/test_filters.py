"""Chains of filters by themselves."""

import struct
from types import SimpleNamespace

import hdf5plugin
import imagecodecs
import numpy as np
import pytest

from epochal.stores.codecs import CODECS, Undecodable
from epochal.stores.filters import NAMES, Filter, Pipeline, describe, why_not

CHUNK = np.arange(96, dtype="u1")


def decode(pipeline, stored, mask=0):
    out = np.full(pipeline.chunk_bytes, 0xA5, dtype="u1")
    pipeline.decode(np.frombuffer(bytes(stored), "u1"), mask, out)
    return out


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ([], ""),
        ([Filter(2, (4,)), Filter(1, (9,))], "shuffle + gzip(9)"),
        ([Filter(32000, (4, 261, 100))], "lzf"),
        ([Filter(32001, (2, 2, 4, 100, 5, 1, 5))], "blosc(zstd)"),
        ([Filter(32026, (1, 0, 4, 100, 5, 1, 1))], "blosc2(lz4)"),
        ([Filter(32008, (0, 4, 4, 0, 2))], "bitshuffle(lz4)"),
        ([Filter(32013), Filter(3)], "zfp + fletcher32"),
        ([Filter(444)], "filter 444"),
    ],
)
def test_description(filters, text):
    assert describe(filters) == text


def test_names_are_those_of_hdf5plugin():
    named = {n[:-3].lower(): getattr(hdf5plugin, n) for n in dir(hdf5plugin) if n.endswith("_ID")}
    assert len(named) >= 11
    named["bitshuffle"] = named.pop("bshuf")
    assert {NAMES[number]: number for number in named.values()} == named
    assert NAMES[32025] == "delta-rice"


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        ([Filter(2, (4,)), Filter(1, (9,)), Filter(3)], ""),
        ([Filter(444)], "filter 444 is decoded by libhdf5 only"),
        ([Filter(1), Filter(32015)], "one compression on top of another"),
        ([Filter(4, (1, 2))], "szip without its four parameters"),
        ([Filter(32008, (0, 4))], "bitshuffle without an element size"),
        ([Filter(32008, (0, 4, 4, 0, 9))], "bitshuffle with compression 9"),
        ([Filter(32026, (1, 0, 4, 100, 5, 35, 1))], "a Blosc 2 plugin's filter or codec"),
        ([Filter(32026, (1, 0, 4, 100, 5, 1, 33))], "a Blosc 2 plugin's filter or codec"),
    ],
)
def test_what_the_pipeline_leaves_to_the_library(filters, why):
    assert why_not(filters).startswith(why)
    assert bool(why_not(filters)) == bool(why)


def test_a_codec_that_imagecodecs_was_built_without(monkeypatch):
    monkeypatch.setattr(imagecodecs, "LZO", SimpleNamespace(available=False))
    assert why_not([Filter(305)]) == "lzo is decoded by libhdf5 only"


@pytest.mark.parametrize("swap", [False, True])
def test_a_checksum_of_either_byte_order(swap):
    """HDF5 up to 1.6.2 swapped the bytes of each half."""
    a, b, c, d = struct.pack("<I", imagecodecs.h5checksum_fletcher32(CHUNK.tobytes()))
    tail = bytes((b, a, d, c) if swap else (a, b, c, d))
    pipeline = Pipeline([Filter(3)], len(CHUNK))
    assert (decode(pipeline, CHUNK.tobytes() + tail) == CHUNK).all()
    with pytest.raises(Undecodable, match=r"checksum 0x.* where its bytes give 0x"):
        decode(pipeline, CHUNK.tobytes() + bytes((a, b, d ^ 1, c)))


def test_a_checksum_needs_its_four_bytes():
    """libhdf5 2.0 crashes on three."""
    with pytest.raises(Undecodable, match="3 bytes are too few for a checksum"):
        decode(Pipeline([Filter(3)], 96), b"abc")


def test_bytes_that_do_not_fill_an_item_are_not_shuffled():
    stored = [0, 3, 6, 1, 4, 7, 2, 5, 8, 9]
    assert decode(Pipeline([Filter(2, (3,))], 10), stored).tolist() == list(range(10))


@pytest.mark.parametrize("number", sorted(CODECS))
@pytest.mark.parametrize("length", [0, 1, 3, 11, 15, 31, 86])
def test_chunks_too_short_for_any_header(number, length):
    client_data = {4: (141, 8, 8, 32), 32008: (0, 4, 4, 0, 2)}.get(number, (1,))
    with pytest.raises(Undecodable):
        decode(Pipeline([Filter(number, client_data)], 96), b"\x01" * length)


def test_a_blosc_frame_that_points_outside_itself():
    frame = bytearray(imagecodecs.blosc_encode(CHUNK.tobytes() * 100, level=5))
    pipeline = Pipeline([Filter(32001)], 9600)
    assert (decode(pipeline, frame) == np.tile(CHUNK, 100)).all()
    for at, value, message in (
        (4, 9601, "decodes to 9601 bytes where 9600 are due"),
        (8, 0, "blocks of 0 bytes"),
        (8, 1, "a Blosc table of blocks that runs past the end"),
        (12, 10**6, "bytes where Blosc says 1000000"),
        (16, 10**6, "a Blosc block that begins outside"),
    ):
        bad = frame.copy()
        bad[at : at + 4] = struct.pack("<I", value)
        with pytest.raises(Undecodable, match=message):
            decode(pipeline, bad)
