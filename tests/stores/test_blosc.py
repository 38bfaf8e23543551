"""Blosc 2 frames whose parts do not agree."""

import struct

import h5py
import hdf5plugin
import numpy as np
import pytest

from epochal.stores.blosc import Undecodable, open_blosc2

ROWS = np.random.default_rng(0).integers(0, 9, (20, 6)).astype("i4")


@pytest.fixture(params=[ROWS, np.zeros_like(ROWS)], ids=["some", "zeros"])
def frame(request, tmp_path):
    """One as it is stored, and where its index begins."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset(
            "X", data=request.param, chunks=(20, 6), **hdf5plugin.Blosc2(cname="zstd")
        )
        stored = made.id.read_direct_chunk((0, 0))[1]
    header, data = struct.unpack_from(">i", stored, 11)[0], struct.unpack_from(">q", stored, 39)[0]
    return stored, header + data


def opened(stored):
    return open_blosc2(np.frombuffer(bytes(stored), "u1"))


def test_a_sound_one(frame):
    stored, at = frame
    assert opened(stored).nbytes == ROWS.nbytes
    assert len(stored) - at == 40 + 35  # an index of one number, and a trailer


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (0, "a damaged index"),  # the version of its format
        (4, "a damaged index"),  # its bytes
        (12, "a damaged index"),  # and compressed
        (39, "points beside its chunk|special values that are not zeros"),
        (-23, "a damaged end"),
        (-19, "a damaged end"),
    ],
)
def test_a_flipped_byte_behind_the_chunk(frame, place, why):
    stored, at = bytearray(frame[0]), frame[1]
    stored[at + place if place >= 0 else place] ^= 0x41
    with pytest.raises(Undecodable, match=why):
        opened(stored)


def test_one_that_is_cut_or_grew(frame):
    stored, at = frame
    with pytest.raises(Undecodable, match=r"\d+ bytes where a Blosc 2 frame has \d+"):
        opened(stored[:-1])
    whole = opened(stored + b"more")  # of which the frame says that it is not its own
    assert (whole.nbytes, whole.itemsize) == (ROWS.nbytes, 4)
    short = bytearray(stored)
    short[16:24] = struct.pack(">Q", at + 50)
    with pytest.raises(Undecodable, match="without an index"):
        opened(short)
