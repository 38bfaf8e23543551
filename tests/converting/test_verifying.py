"""`verify`: what is bad is found, and named with its rows; what is whole is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import epochal
from epochal.cli import app
from epochal.errors import DamageError, DamageWarning, FormatError, TargetError
from epochal.stores import open_store
from epochal.stores.manifest import crc32, sidecar_of

CHUNK_ROWS, ROWS = 8, 40


def rows_of(n=ROWS):
    rng = np.random.default_rng(0)
    return {"X": rng.integers(0, 9, (n, 6), "<i2"), "y": rng.random(n)}


def write(path, flavour="hdf5", compression="gzip"):
    sources = {"X": ((6,), "<i2"), "y": ((), "f8")}
    with epochal.create(
        path, sources, flavour=flavour, compression=compression, chunk_rows=CHUNK_ROWS
    ) as writer:
        writer.append(rows_of())
    return str(path)


def pieces_of(path):
    """Where each chunk lies: file, offset, bytes, source, chunk."""
    if os.path.isfile(path):
        with h5py.File(path) as file:
            for name in ("X", "y"):
                for chunk in range(file[name].id.get_num_chunks()):
                    info = file[name].id.get_chunk_info(chunk)
                    yield path, info.byte_offset, info.size, name, info.chunk_offset[0] // 8
        return
    for name in ("X", "y"):
        for file in os.listdir(f"{path}/{name}"):
            full = f"{path}/{name}/{file}"
            if file.startswith("c"):
                yield full, 0, os.path.getsize(full), name, int(file.split(".")[1])
    if os.path.exists(f"{path}/X.npy"):
        raise AssertionError


def npy_pieces(path):
    for name, array in rows_of().items():
        row_bytes = array[:1].nbytes
        for chunk in range(ROWS // CHUNK_ROWS):
            at = 128 + chunk * CHUNK_ROWS * row_bytes
            yield f"{path}/{name}.npy", at, CHUNK_ROWS * row_bytes, name, chunk


KINDS = [
    *(("hdf5", c) for c in ("gzip", "zstd", "lz4", "blosc", "blosc2", None)),
    *(("zarr", c) for c in ("gzip", "zstd", "blosc", None)),
    ("npy", None),
]
TRIALS = 2000


@pytest.mark.parametrize(("flavour", "compression"), KINDS)
def test_every_flipped_bit_is_found(tmp_path, flavour, compression):
    """2,000 trials over all kinds: by `verify` with the right rows, and on read."""
    path = write(tmp_path / "out", flavour, compression)
    pieces = list((npy_pieces if flavour == "npy" else pieces_of)(path))
    assert len(pieces) == 10
    rng = np.random.default_rng(len(str(compression)))
    for _ in range(-(-TRIALS // len(KINDS))):
        file, offset, n_bytes, name, chunk = pieces[rng.integers(len(pieces))]
        at, bit = offset + int(rng.integers(n_bytes)), 1 << int(rng.integers(8))
        flip(file, at, bit)
        found = epochal.verify(path, threads=2)
        first = chunk * CHUNK_ROWS
        assert [(b.source, b.chunk, b.first_row, b.last_row) for b in found.bad] == [
            (name, chunk, first, first + CHUNK_ROWS - 1)
        ]
        assert not found.ok
        with epochal.open(path) as ds:
            source = ds.store.sources[name]
            out = np.empty((CHUNK_ROWS, *source.layout.row_shape), source.layout.dtype)
            with pytest.raises(DamageError, match=f"rows {first} to {first + 7}: "):
                source.read(chunk, chunk + 1, out)
        flip(file, at, bit)
    assert epochal.verify(path).ok


def flip(path, at, bit):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def test_batches_find_it_too(tmp_path):
    path = write(tmp_path / "out.h5", compression=None)  # any bytes would decode
    file, offset, _, _, _ = next(piece for piece in pieces_of(path) if piece[3:] == ("X", 2))
    flip(file, offset + 3, 4)
    with epochal.open(path) as ds:
        with pytest.raises(DamageError, match="its checksum is 0x"):
            list(ds.batches("sequential", 4))
        with pytest.warns(DamageWarning, match="rows 16 to 23"):
            rows = [b.y for b in ds.batches("sequential", 4, on_error="skip")]
    assert len(np.concatenate(rows)) == ROWS - CHUNK_ROWS


def test_what_is_right_is_ok(tmp_path):
    found = epochal.verify(write(tmp_path / "out.h5"))
    assert found.ok
    assert found.bad == ()
    assert [(c.source, c.chunks, c.rows, c.against) for c in found.sources] == [
        ("X", 5, 40, "checksums"),
        ("y", 5, 40, "checksums"),
    ]
    assert "out.h5: ok" in str(found)


def test_a_chunk_that_is_gone(tmp_path):
    path = write(tmp_path / "out", "zarr")
    os.unlink(f"{path}/X/c.3.0")
    found = epochal.verify(path)
    assert [(b.source, b.chunk) for b in found.bad] == [("X", 3)]
    with epochal.open(path) as ds, pytest.raises(DamageError, match="rows 24 to 31"):
        ds["X"][:]


def test_files_of_others(tmp_path):
    path = str(tmp_path / "theirs.h5")
    with h5py.File(path, "w") as file:
        for name, how in (("a", {"chunks": (8,)}), ("b", {"chunks": (8,), "compression": "gzip"})):
            file.create_dataset(name, data=np.arange(40), **how)
        file["c"] = np.arange(40)
        file.create_dataset("scaled", data=np.arange(40), chunks=(8,), scaleoffset=0)
        file.create_dataset("ragged", (4,), h5py.vlen_dtype("i4"))
        for k in range(4):
            file["ragged"][k] = np.arange(k)
        place = file["c"].id.get_offset()
    before = epochal.verify(path)
    against = {each.source: each.against for each in before.sources}
    assert against["a"] == against["c"] == "nothing"
    assert against["b"] == "decoding"
    noted = epochal.verify(path, record=True)
    assert noted.recorded == path
    again = epochal.verify(path)
    assert again.ok
    assert {each.against for each in again.sources} == {"checksums"}
    flip(path, place + 80, 1)
    found = epochal.verify(path)
    assert [(b.source, b.first_row, b.last_row) for b in found.bad] == [("c", 0, 39)]
    with epochal.open(path) as ds, pytest.raises(DamageError, match="epochal verify --record"):
        ds["c"][:]
    # It was meant so: what is there now is noted, whatever was noted before.
    assert epochal.verify(path, record=True).recorded
    assert epochal.verify(path).ok


def test_a_file_that_has_grown_since(tmp_path):
    path = str(tmp_path / "out.h5")
    with epochal.create(path, {"y": ((), "i8")}, chunk_rows=8) as writer:
        writer.append(y=np.arange(16))
    with h5py.File(path, "r+") as file:
        file["y"].resize(32, axis=0)
        file["y"][16:] = np.arange(16, 32)
    with epochal.open(path) as ds:  # h5py may grow it, and it is read
        assert ds["y"][:].tolist() == list(range(32))
    found = epochal.verify(path)
    assert not found.ok
    assert found.sources[0].against == "an older state"
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok


def test_an_append_notes_its_own(tmp_path):
    path = str(tmp_path / "out.h5")
    with epochal.create(path, {"y": ((), "i8")}, chunk_rows=8) as writer:
        writer.append(y=np.arange(20))
    epochal.verify(path, record=True)
    with epochal.append(path) as writer:
        writer.append(y=np.arange(20, 50))
    assert not os.path.exists(sidecar_of(path))  # of no file any more
    found = epochal.verify(path)
    assert found.ok
    assert found.sources[0].against == "checksums"


def test_without_checksums(tmp_path):
    path = str(tmp_path / "out.h5")
    with epochal.create(path, {"y": ((), "i8")}, checksum=False) as writer:
        writer.append(y=np.arange(20))
    assert epochal.verify(path).sources[0].against == "decoding"
    with h5py.File(path) as file:
        assert not list(file["y"].attrs)


def test_checksums_of_many_chunks(tmp_path):
    path = str(tmp_path / "out.h5")
    with epochal.create(path, {"y": ((), "u1")}, chunk_rows=1, compression=None) as writer:
        writer.append(y=np.zeros(16_000, "u1"))
    with h5py.File(path) as file:
        assert len(file["y"].attrs) == 4  # 64 KiB at most in each; one is the form
    found = epochal.verify(path)
    assert found.ok
    assert found.sources[0].against == "checksums"


def flips_in(path, flavour):
    """Places of the bytes of a manifest: of HDF5's attributes their values, of Zarr's all of it, of
    a sidecar the file.
    """
    if flavour == "hdf5":
        with h5py.File(path) as file:
            parts = {n: file["X"].attrs[n].tobytes() for n in file["X"].attrs}
        data = Path(path).read_bytes()
        for value in parts.values():
            assert data.count(value) == 1
            yield from ((path, data.index(value) + k) for k in range(len(value)))
    elif flavour == "zarr":
        document = f"{path}/zarr.json"
        data = Path(document).read_bytes()
        begin = data.index(b'"crc32"')
        yield from ((document, k) for k in range(begin + 10, data.index(b'"', begin + 12)))
    else:
        sidecar = sidecar_of(f"{path}/X.npy")
        yield from ((sidecar, k) for k in range(os.path.getsize(sidecar)))


@pytest.mark.parametrize("flavour", ["hdf5", "zarr", "npy"])
def test_every_flipped_bit_of_a_manifest_is_told(tmp_path, flavour):
    """Its rows are there, and nobody can say whether they are right."""
    path = write(tmp_path / "out", flavour, None)
    places = list(flips_in(path, flavour))
    assert len(places) >= 20
    for file, at in places:
        for bit in (0, 5):
            flip(file, at, 1 << bit)
            try:
                found = epochal.verify(path)
            except FormatError:  # of Zarr's JSON: it is none any more
                assert flavour == "zarr"
            else:
                assert not found.ok
                assert found.sources[0].against == "damaged checksums"
                with pytest.warns(DamageWarning, match="source 'X' are damaged, so its rows"):
                    epochal.open(path).close()
            flip(file, at, 1 << bit)
    assert epochal.verify(path).ok


@pytest.mark.parametrize("lost", ["epochal_crc32", "epochal_crc32_0"])
def test_a_manifest_of_which_a_part_is_gone(tmp_path, lost):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        del file["X"].attrs[lost]
    found = epochal.verify(path)
    assert found.sources[0].against == "damaged checksums"
    assert "not known: epochal verify --record" in str(found)
    epochal.verify(path, record=True)  # what is there now
    assert epochal.verify(path).ok
    with epochal.open(path) as ds:
        assert np.array_equal(ds["X"][:], rows_of()["X"])


def test_a_manifest_of_a_newer_epochal(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        head = file["X"].attrs["epochal_crc32"]
        head[0] = 9
        head[-1] = crc32(head[:-1].tobytes())
        file["X"].attrs["epochal_crc32"] = head
        told = json.loads(file.attrs["epochal_crc32_sources"]) | {"version": 9}
        del told["sum"]
        total = crc32(json.dumps(told, sort_keys=True).encode())
        file.attrs["epochal_crc32_sources"] = np.bytes_(json.dumps({**told, "sum": total}))
    assert epochal.verify(path).sources[0].against == "decoding"


def test_one_source_is_recorded_beside_the_others(tmp_path):
    path = str(tmp_path / "theirs.h5")
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = np.arange(9), np.arange(9)
    epochal.verify(path, record=True)
    epochal.verify(path, record=True, sources=["b"])
    assert {each.against for each in epochal.verify(path).sources} == {"checksums"}


def test_several_files_as_one(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name)
    pattern = str(tmp_path / "*.h5")
    assert {each.against for each in epochal.verify(pattern).sources} == {"checksums"}
    with pytest.raises(TargetError, match="record each by itself"):
        epochal.verify(pattern, record=True)


def test_an_append_after_another_program_has_grown_the_file(tmp_path):
    """The old checksums are of fewer chunks: they go, and it goes on without."""
    path = str(tmp_path / "out.h5")
    with epochal.create(path, {"y": ((), "i8")}, chunk_rows=8) as writer:
        writer.append(y=np.arange(16))
    with h5py.File(path, "r+") as file:
        file["y"].resize(32, axis=0)
        file["y"][16:] = np.arange(16, 32)
    with epochal.append(path) as writer:
        writer.append(y=np.arange(32, 50))
    found = epochal.verify(path)
    assert found.ok
    assert found.sources[0].against == "decoding"


def test_what_only_libhdf5_decodes_is_compared_on_reading(tmp_path):
    path = str(tmp_path / "theirs.h5")
    for change in (0, 1):
        with h5py.File(path, "w") as file:
            scaled = np.arange(40) + change * (np.arange(40) == 9)
            file.create_dataset("scaled", data=scaled, chunks=(8,), scaleoffset=0)
            file.create_dataset("ragged", (40,), h5py.vlen_dtype("i4"))
            for k in range(40):
                file["ragged"][k] = np.arange(k % 3) + change * (k == 31)
        if not change:
            epochal.verify(path, record=True)
    for name, rows in (("scaled", "rows 8 to 15"), ("ragged", "rows 0 to 38")):
        told = pytest.raises(DamageError, match=f"{rows}: its checksum is")
        with epochal.open(path, sources=[name]) as ds, told:
            list(ds.batches("shuffled_sequential", batch_size=7, seed=0))
    found = epochal.verify(path)
    assert [(b.source, b.first_row) for b in found.bad] == [("ragged/values", 0), ("scaled", 8)]
    epochal.verify(path, record=True)
    with epochal.open(path) as ds:
        assert ds["scaled"][9].tolist() == 10


@pytest.mark.parametrize("n_files", [1, 2])
def test_a_folder_is_recorded_as_what_it_is_opened_as(tmp_path, n_files):
    folder = tmp_path / "parts"
    folder.mkdir()
    for k in range(n_files):
        with h5py.File(folder / f"{k}.h5", "w") as file:
            file.create_dataset("y", data=np.arange(40) + 40 * k, chunks=(8,))
    recorded = epochal.verify(folder, record=True).recorded
    assert recorded == str(folder if n_files > 1 else folder / "0.h5")
    assert epochal.verify(folder).sources[0].against == "checksums"
    with h5py.File(folder / "0.h5", "r+") as file:
        file["y"][17] = 0
    found = epochal.verify(folder)
    assert [(b.source, b.first_row, b.last_row) for b in found.bad] == [("y", 16, 23)]
    with epochal.open(folder) as ds, pytest.raises(DamageError, match="rows 16 to 23"):
        ds["y"][:]


def test_zarr_of_others(tmp_path):
    path = str(tmp_path / "theirs.zarr")
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.create_array("X", shape=(40, 3), chunks=(8, 3), shards=(16, 3), dtype="i4")
    group["X"][:] = np.arange(120).reshape(40, 3)
    epochal.verify(path, record=True)
    assert epochal.verify(path).sources[0].against == "checksums"
    with epochal.open(path) as ds:
        assert ds["X"][:].tolist() == np.arange(120).reshape(40, 3).tolist()


def test_stores_pickle_with_their_checksums(tmp_path):
    import pickle

    path = write(tmp_path / "out.h5", compression=None)
    store = pickle.loads(pickle.dumps(open_store(path)))
    file, offset, _, _, _ = next(pieces_of(path))
    status = os.stat(file)
    flip(file, offset, 1)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DamageError, match="rows 0 to 7: its checksum"):
        store.sources["X"].read(0, 1, np.empty((8, 6), "<i2"))


def header_of(path, name):
    with h5py.File(path) as file:
        return h5py.h5o.get_info(file[name].id).addr


def test_a_source_that_cannot_be_opened(tmp_path):
    path = write(tmp_path / "out.h5")
    flip(path, header_of(path, "X"), 64)  # the version of its object header
    found = epochal.verify(path)
    assert not found.ok
    assert found.damage[0].startswith("X: cannot be opened: ")
    assert not any(note.startswith("X") for note in found.notes)
    assert [each.source for each in found.sources] == ["y"]
    assert run(path).exit_code == 1
    assert epochal.verify(path, sources=["y"]).ok


def test_a_source_of_others_that_cannot_be_opened(tmp_path):
    path = str(tmp_path / "theirs.h5")
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = np.arange(9), np.arange(9)
        file["text"] = ["some", "text"]
    found = epochal.verify(path)
    assert found.ok
    assert found.notes[0].startswith("text: not looked at: ")
    flip(path, header_of(path, "a"), 64)
    assert not epochal.verify(path).ok


def test_nothing_to_look_at(tmp_path):
    path = str(tmp_path / "empty.h5")
    with h5py.File(path, "w") as file:
        file["scalar"] = 3
    found = epochal.verify(path)
    assert not found.ok
    assert found.damage == ("there is no source in it: nothing could be looked at",)
    done = run(path)
    assert done.exit_code == 1
    assert "there is no source in it" in done.output


def test_a_file_of_several_in_which_one_has_lost_a_source(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            file["text"] = ["some", "text"]
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["text"]
        file.create_group("text")["z"] = 1
    flip(tmp_path / "b.h5", header_of(tmp_path / "b.h5", "text/z"), 64)
    assert not epochal.verify(str(tmp_path / "*.h5")).ok


# The command --------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, ["verify", *map(str, words)])


def test_the_command(tmp_path):
    path = write(tmp_path / "out.h5")
    done = run(path)
    assert done.exit_code == 0
    assert "out.h5: ok" in done.output
    file, offset, _, _, _ = next(pieces_of(path))
    flip(file, offset + 2, 1)
    done = run(path)
    assert done.exit_code == 1
    assert "X: chunk 0, rows 0 to 7: its checksum is 0x" in done.output
    told = json.loads(run(path, "--json").output)
    assert told["ok"] is False
    assert told["bad"][0]["last_row"] == 7
    done = run(path, "--record", "--sources", "y")
    assert done.exit_code == 0
    assert "checksums are noted in" in done.output


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("missing.h5",), "there is no such file"),
        (("--sources", "z", "out.h5"), "no source 'z'"),
        (("--memory", "1KiB", "out.h5"), "cannot hold a chunk of 'X'"),
    ],
)
def test_wrong_words(tmp_path, monkeypatch, words, match):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "out.h5")
    done = run(*words)
    assert done.exit_code == 1
    assert match in done.output
