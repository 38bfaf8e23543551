"""One flipped bit, anywhere in what epochal wrote: either somebody says so, or all is as it was."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import epochal
from epochal.errors import EpochalError
from epochal.stores.ragged import RaggedSource

N_FLIPS = 400  # of each flavour, spread over all of its bytes

ROWS = {
    "X": np.random.default_rng(0).integers(0, 5, (23, 7)).astype("u2"),
    "part/y": np.arange(23, dtype="i4"),
    "names": np.array([b"ab", b"c", b"def"] * 7 + [b"x", b"y"], "S3"),
}


def write(path, flavour, compression):
    sources = {name: (rows.shape[1:], rows.dtype) for name, rows in ROWS.items()}
    with epochal.create(
        path, sources, flavour=flavour, compression=compression, chunk_rows=5
    ) as writer:
        writer.append(ROWS)
    return str(path)


def files_of(path):
    if os.path.isfile(path):
        return [path]
    return sorted(f"{folder}/{name}" for folder, _, names in os.walk(path) for name in names)


def flips_of(path):
    """File, place and bit of each flip."""
    places = [(file, k) for file in files_of(path) for k in range(os.path.getsize(file))]
    step = len(places) // N_FLIPS
    for n, (file, k) in enumerate(places[::step]):
        yield file, k, n % 8


def all_rows(path):
    """Names, dtypes, shapes and bytes of all that can be read."""
    found = {}
    with epochal.open(path) as ds:
        for name, source in ds.store.sources.items():
            assert not isinstance(source, RaggedSource)
            layout = source.layout
            if layout.decoded_bytes > 1 << 26:
                found[name] = layout.shape
                continue
            rows = np.empty(layout.shape, layout.dtype)
            source.read(0, layout.n_chunks, rows)
            found[name] = layout.dtype.str, layout.shape, rows.tobytes()
    return found


def tells(path):
    """Whether somebody says that a file is not what was written."""
    try:
        return not epochal.verify(path, threads=1).ok
    except EpochalError:
        return True


@pytest.mark.parametrize(
    ("flavour", "compression"),
    [("hdf5", "gzip"), ("hdf5", None), ("pytables", "blosc"), ("zarr", "zstd"), ("npy", None)],
)
def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path, flavour, compression):
    path = write(tmp_path / "out", flavour, compression)
    before = all_rows(path)
    assert set(before) == set(ROWS)
    assert not tells(path)
    silent = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checksums that are damaged themselves
        for file, k, bit in flips_of(path):
            data = Path(file).read_bytes()
            Path(file).write_bytes(data[:k] + bytes([data[k] ^ 1 << bit]) + data[k + 1 :])
            if not tells(path):
                try:
                    same = all_rows(path) == before
                except EpochalError:
                    same = True  # it is told on reading
                silent += [] if same else [(file, k, bit)]
            Path(file).write_bytes(data)
    assert silent == []
    assert not tells(path)
