"""Damaged chunks: an error that says where, or the right rows; never a crash, never short."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hdf5_files import CHAINS, read_all, read_chunks, read_rows, some_items, write_dataset

from epochal.errors import DamageError
from epochal.stores import open_store

CHECKSUMMED = ["gzip", "shuffle + gzip", "fletcher32", "fletcher32 last", "fletcher32 first"]
CHECKSUMMED += ["bzip2"]

# Changes and cuts stored chunks and decodes them, in a process of its own: a crash is its end.
FUZZ = """
import sys
import h5py
import numpy as np
sys.path.insert(0, sys.argv[1])
from hdf5_files import CHAINS
from epochal.stores.codecs import Undecodable
from epochal.stores.filters import Filter, Pipeline

rng = np.random.default_rng(int(sys.argv[3]))
damaged = 0
with h5py.File(sys.argv[2]) as file:
    for name, dataset in file.items():
        plist = dataset.id.get_create_plist()
        found = [plist.get_filter(i) for i in range(plist.get_nfilters())]
        size = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
        pipeline = Pipeline([Filter(f[0], tuple(f[2])) for f in found], size)
        stored = np.frombuffer(dataset.id.read_direct_chunk((0, 0))[1], "u1")
        for _ in range(300):
            bad = stored.copy()
            for _ in range(rng.integers(1, 5)):
                near = min(len(bad), 64) if rng.integers(2) else len(bad)  # headers matter most
                bad[rng.integers(near)] = rng.integers(256)
            if rng.integers(4) == 0:
                bad = bad[: rng.integers(len(bad) + 1)].copy()
            print(name, bad[:64].tobytes().hex(), file=sys.stderr, flush=True)
            try:
                pipeline.decode(bad, 0, np.empty(size, "u1"))
            except Undecodable:
                damaged += 1
print(damaged)
"""


@pytest.fixture(scope="module")
def chains_file(tmp_path_factory):
    """Every chain of filters, 30 rows in chunks of 10."""
    path = tmp_path_factory.mktemp("chains") / "chains.h5"
    with h5py.File(path, "w") as file:
        for name, chain in CHAINS.items():
            if name != "none":
                write_dataset(
                    file, some_items("<i4", (30, 300), 1), "<i4", (10, 300), chain, name=name
                )
    return path


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_crashes_a_decoder(chains_file, seed):
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", FUZZ, here, str(chains_file), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    assert int(done.stdout) > 1000


def stored_range(path, name, row):
    with h5py.File(path, locking=False) as file:
        info = file[name].id.get_chunk_info_by_coord((row, 0))
    return info.byte_offset, info.size


def copy_with(path, target, offset, data):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    target.write_bytes(raw)
    return target


@pytest.mark.parametrize("name", CHECKSUMMED)
def test_a_flipped_bit_under_a_checksum_is_found(chains_file, tmp_path, name):
    """One of some forty bytes of the second chunk in turn: the other chunks stay readable."""
    found = 0
    offset, size = stored_range(chains_file, name, 10)
    expected = read_all(open_store(chains_file).sources[name])
    raw = chains_file.read_bytes()
    for at in range(offset, offset + size, max(1, size // 40)):
        bad = copy_with(chains_file, tmp_path / "bad.h5", at, bytes([raw[at] ^ 0x10]))
        source = open_store(bad).sources[name]
        try:  # what pads the last bits of a zlib stream may change without any harm
            assert (read_chunks(source, 1, 2) == expected[10:20]).all()
        except DamageError:
            found += 1
        assert (read_chunks(source, 0, 1) == expected[:10]).all()
        assert (read_chunks(source, 2, 3) == expected[20:]).all()
    assert found >= 36


@pytest.mark.parametrize("cut", [1, 10, 11, 30])
def test_a_stream_that_ends_before_its_checksum(tmp_path, cut):
    """All its bytes may be there, and libbz2 has not compared them yet."""
    import bz2

    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        items = some_items("u1", (10, 100), 1)
        dataset = write_dataset(file, items, "u1", (10, 100), CHAINS["bzip2"])
        dataset.id.write_direct_chunk((0, 0), bz2.compress(items.tobytes())[:-cut])
    with pytest.raises(DamageError, match="chunk 0, rows 0 to 9: bzip2: ends before its checksum"):
        read_all(open_store(path).sources["x"])


@pytest.mark.parametrize("itemsize", [7, 900, 1200, 1 << 31])
def test_a_shuffle_of_any_size_of_items_takes_no_longer(itemsize):
    """A damaged size makes other rows of the same bytes; it was a loop of billions once."""
    from epochal.stores.filters import Filter, Pipeline

    stored = some_items("u1", (1200,), 1) * np.arange(1200).astype("u1")
    n_items = 1200 // itemsize
    whole = n_items * itemsize
    due = np.append(stored[:whole].reshape(itemsize if whole else 0, n_items).T, stored[whole:])
    out = np.empty(1200, "u1")
    Pipeline([Filter(2, (itemsize,))], 1200).decode(stored, 0, out)
    assert (out == due).all()


def test_a_name_of_an_attribute_that_is_no_text(tmp_path):
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(file.id, b"\xff\xfe", h5py.h5t.STD_I32LE, space)
        file.attrs["plain"] = 3
    assert open_store(path).groups == {"": {"plain": 3}}


def test_text_of_varying_length_that_nobody_asks_for_is_not_read(tmp_path):
    """libhdf5 hangs at a heap like this one."""
    path = tmp_path / "heap.h5"
    with h5py.File(path, "w") as file:
        file["g/x"] = np.arange(3)
        file["g"].attrs.update({"note": "abc", "notes": ["d", "e"], "plain": np.bytes_(b"f")})
        file["g"].attrs["small"] = np.array([1, 2])
        file.attrs["split"] = "ghi"
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    data[at : at + 80] = bytes(80)
    path.write_bytes(data)
    code = f"from epochal.stores import open_store; print(open_store({str(path)!r}).groups)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "{'g': {'plain': 'f', 'small': [1, 2]}}\n", done.stderr


def test_splits_that_only_look_like_those_of_fuel(tmp_path):
    path = tmp_path / "split.h5"
    fields = ("split", "source", "start", "stop", "indices", "available", "comment")
    record = np.zeros((2,), [(field, "S3") for field in fields])
    record["available"] = b"yes"
    record["start"] = b"no"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
        file.attrs["split"] = record
    assert open_store(path).groups == {}


# Without compression any bytes are a chunk; Blosc's compression level 0 leaves its filter out.
ANY_BYTES = {"none", "shuffle", "bitshuffle", "blosc stored"}


@pytest.mark.parametrize("name", sorted(set(CHAINS) - ANY_BYTES))
def test_damage_names_file_source_chunk_and_rows(chains_file, tmp_path, name):
    offset, size = stored_range(chains_file, name, 10)
    bad = copy_with(
        chains_file, tmp_path / "bad.h5", offset, some_items("u1", (size,), 9).tobytes()
    )
    source = open_store(bad).sources[name]
    where = (
        f"{re.escape(str(bad))}: source '{re.escape(name)}', chunk 1, rows 10 to 19: .*restore it"
    )
    with pytest.raises(DamageError, match=where):
        read_chunks(source, 0, 3)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("gzip", r"decodes to 100 bytes where 1200 are due"),
        ("fletcher32", r"holds 100 bytes where 1200 are due"),
        ("shuffle", r"holds 100 bytes where 1200 are due"),
        ("none", r"holds 100 bytes where 1200 are due"),
    ],
)
def test_a_short_chunk_is_never_passed_on(tmp_path, chain, message):
    """libhdf5 2.0 fills the rest with whatever its heap holds."""
    import imagecodecs

    short = b"a" * 100
    stored = {
        "gzip": imagecodecs.zlib_encode(short),
        "fletcher32": short + int(imagecodecs.h5checksum_fletcher32(short)).to_bytes(4, "little"),
    }.get(chain, short)
    path = tmp_path / "short.h5"
    with h5py.File(path, "w") as file:
        dataset = write_dataset(
            file, some_items("<i4", (30, 30), 1), "<i4", (10, 30), CHAINS[chain]
        )
        dataset.id.write_direct_chunk((20, 0), stored)
    source = open_store(path).sources["x"]
    with pytest.raises(DamageError, match=rf"chunk 2, rows 20 to 29: .*{message}"):
        read_all(source)
    if source.layout.rows_alone:
        with pytest.raises(DamageError, match=rf"chunk 2, rows 20 to 29: {message}"):
            read_rows(source, [3, 25])


def test_a_chunk_that_inflates_without_end_is_stopped(tmp_path):
    import zlib

    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        dataset = write_dataset(file, np.zeros((10, 10), "u1"), "u1", (10, 10), CHAINS["gzip"])
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26)))
    with pytest.raises(DamageError, match="chunk 0, rows 0 to 9"):
        read_all(open_store(path).sources["x"])


def test_damage_in_a_piece_of_a_row_names_the_piece(tmp_path):
    path = tmp_path / "pieces.h5"
    with h5py.File(path, "w") as file:
        dataset = write_dataset(file, some_items("u1", (20, 9), 1), "u1", (10, 4), CHAINS["gzip"])
        dataset.id.write_direct_chunk((10, 4), b"no zlib at all")
    with pytest.raises(DamageError, match=r"chunk 1 \(piece 1 of 3\), rows 10 to 19"):
        read_all(open_store(path).sources["x"])


def test_what_only_the_library_reads_is_damage_too(tmp_path):
    path = tmp_path / "library.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x", data=np.arange(40, dtype="i4"), chunks=(10,), scaleoffset=0
        )
        # Two compressions, the lower of them by scaleoffset: libhdf5 finds no zlib stream.
        dataset = file.create_dataset(
            "y", data=np.arange(40, dtype="i4"), chunks=(10,), scaleoffset=0, compression=1
        )
        dataset.id.write_direct_chunk((10,), b"no zlib at all")
    store = open_store(path)
    assert (read_all(store.sources["x"]) == np.arange(40)).all()
    with pytest.raises(
        DamageError, match=r"library.h5: source 'y', chunk 0, rows 0 to 39: libhdf5 cannot"
    ):
        read_all(store.sources["y"])
    store.close()
