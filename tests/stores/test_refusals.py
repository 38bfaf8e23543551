"""What a file may not ask for: each refused by name, nothing run, nothing allocated for it.

Beside these: `test_open` (every kind of link, shapes without bound), `test_virtual`, `test_npy`,
`test_npz` and `test_zarr` (pickles, metadata that lie).
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hdf5_files import CHAINS, read_all, some_items, write_dataset
from test_npz import npy

import epochal
from epochal.cli import app
from epochal.errors import BudgetError, DamageError, EpochalError, UnsafeError
from epochal.stores import open_store

MIB = 1 << 20
MOST_BYTES = 200 * MIB  # what any refusal may allocate

# PyTables pickles by itself what is no plain value: a file as its users write them.
PICKLING = """
import os, sys
import tables

class Evil:
    def __reduce__(self):
        return os.mkdir, (sys.argv[2],)

with tables.open_file(sys.argv[1], "w") as file:
    array = file.create_array("/", "x", [1, 2, 3])
    file.root._v_attrs.evil = Evil()
    array._v_attrs.evil = Evil()
    rows = file.create_vlarray("/", "objects", tables.ObjectAtom())
    rows.append(Evil())
"""
UNPICKLING = """
import sys
import tables
with tables.open_file(sys.argv[1]) as file:
    file.root._v_attrs
"""


@pytest.fixture(autouse=True)
def bounded():
    """Of every test here."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture(params=[False, True], ids=["trusted", "untrusted"])
def untrusted(request):
    return request.param


def refused(path, name, **options):
    """Why a source is not one, of which `epochal.open` by its name says the same."""
    [why] = [other.why for other in open_store(path, **options).others if other.name == name]
    with pytest.raises(EpochalError) as caught:
        epochal.open(path, sources=name, **options)
    assert why in str(caught.value)
    return why


@pytest.fixture
def pickled(tmp_path):
    """A file of PyTables that makes a folder when it is unpickled; that folder."""
    marker = tmp_path / "ran"
    path = tmp_path / "pickled.h5"
    arguments = [sys.executable, "-W", "ignore", "-c", PICKLING, path, marker]
    subprocess.run(arguments, check=True)
    assert not marker.exists()
    return path, marker


def test_pickles_of_pytables_are_not_run(pickled, untrusted):
    path, marker = pickled
    with epochal.open(path, untrusted=untrusted, sources="x") as ds:
        assert ds["x"][:].tolist() == [1, 2, 3]
        assert [len(batch.x) for batch in ds.batches("shuffled_sequential", 2, seed=0)] == [2, 1]
    why = refused(path, "objects", untrusted=untrusted)
    assert why == "its rows are pickled Python objects, which are never read"
    with pytest.raises(UnsafeError, match="pickled Python objects, which are never read"):
        epochal.open(path, sources="objects", untrusted=untrusted)
    assert list(open_store(path, untrusted=untrusted).sources) == ["x"]
    page = CliRunner().invoke(app, ["info", str(path)])
    assert page.exit_code == 0
    assert "pickled" in page.stdout
    assert not marker.exists()
    # And what this is about does happen, where another library opens the file.
    subprocess.run([sys.executable, "-W", "ignore", "-c", UNPICKLING, path], check=False)
    assert marker.exists()


@pytest.fixture
def links(tmp_path):
    """Links of every kind, beside a secret."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"secret!!" * 10)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(4)
    path = tmp_path / "links.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(10)
        file.create_dataset("external", (10,), "i8", external=[(str(secret), 0, 80)])
        file["out"] = h5py.ExternalLink("other.h5", "/x")
        file["group/soft"] = h5py.SoftLink("/x")
        file["leaves"] = h5py.SoftLink("/out")
        file["inside the other"] = h5py.SoftLink("/out/x")
        file["dangles"] = h5py.SoftLink("/nothing/there")
        file["cycles"] = h5py.SoftLink("/cycles")
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["group/up"] = file["/"]
        file["group/itself"] = file["group"]
    return path


LINKS = {
    "external": "its data are in another file (external storage): not followed, nothing allows it",
    "out": "an external link to '/x' in 'other.h5': not followed",
    "group/soft": "a soft link to '/x': read it by that name",
    "leaves": "a soft link to '/out': read it by that name",
    "inside the other": "a soft link to '/out/x': read it by that name",
    "dangles": "a soft link to '/nothing/there': read it by that name",
    "cycles": "a soft link to '/cycles': read it by that name",
    "a": "a soft link to '/b': read it by that name",
    "b": "a soft link to '/a': read it by that name",
    "group/up": "a group that was listed already, by another name",
    "group/itself": "a group that was listed already, by another name",
}


@pytest.mark.parametrize("name", LINKS)
def test_links_are_refused_by_name(links, name):
    assert refused(links, name) == LINKS[name]


@pytest.mark.parametrize("allow", [(), ("virtual", "library")])
def test_the_rest_of_a_file_of_links_is_read(links, untrusted, allow):
    store = open_store(links, untrusted=untrusted, allow=allow)
    assert list(store.sources) == ["x"]
    assert (read_all(store.sources["x"]) == np.arange(10)).all()
    assert {other.name: other.why for other in store.others} == LINKS
    assert {other.name for other in store.others if other.unsafe} == {"external"}


def test_a_virtual_dataset_is_refused_unless_it_is_allowed_and_beside(tmp_path, untrusted):
    beside, outside = tmp_path / "in" / "part.h5", tmp_path / "outside.h5"
    beside.parent.mkdir()
    for path in (beside, outside):
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(10)
    path = tmp_path / "in" / "virtual.h5"
    with h5py.File(path, "w") as file:
        for name, origin in (("beside", "part.h5"), ("outside", str(outside))):
            layout = h5py.VirtualLayout((10,), "i8")
            layout[:] = h5py.VirtualSource(origin, "x", (10,))
            file.create_virtual_dataset(name, layout)
    for name in ("beside", "outside"):
        why = refused(path, name, untrusted=untrusted)
        assert why.startswith("a virtual dataset: it reads other files")
    store = open_store(path, untrusted=untrusted, allow=("virtual",))
    assert (read_all(store.sources["beside"]) == np.arange(10)).all()
    [other] = store.others
    assert "does not lie beside the file" in other.why
    assert other.unsafe


def test_shapes_without_end_allocate_nothing(tmp_path, untrusted):
    path = tmp_path / "shapes.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("declared", (1 << 60, 1 << 4), "u1", chunks=(1 << 20, 1))
        file.create_dataset("many", (1 << 60,), "u1", chunks=(1 << 10,))
        tiny = file.create_dataset("tiny", (10**9,), "i4", chunks=(1 << 20,), compression="gzip")
        tiny[:100] = np.arange(100)
    store = open_store(path, untrusted=untrusted)
    reasons = {other.name: other.why for other in store.others}
    assert "more than any machine can address" in reasons["declared"]
    assert "chunks: more than 268435456 are not indexed" in reasons["many"]
    assert list(store.sources) == ["tiny"]
    # What is declared is only ever read in pieces.
    with epochal.open(path, sources="tiny", untrusted=untrusted) as ds:
        assert ds["tiny"][[99, 10**9 - 1]].tolist() == [99, 0]
        batches = ds.batches("sequential", 1000, memory="64MiB", scratch=False)
        assert next(iter(batches)).tiny[:100].tolist() == list(range(100))


def test_rows_of_varying_length_without_end_allocate_nothing(tmp_path, untrusted):
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        rows = h5py.vlen_dtype("i4")
        file.create_dataset("plain", (1 << 40,), rows)
        file.create_dataset("chunked", (1 << 36,), rows, chunks=(1 << 10,))
        file["x"] = np.arange(3)
        group = file.create_group("matrix")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", (1 << 36, 10)
        file.create_dataset("matrix/indptr", ((1 << 36) + 1,), "i8")
        for part in ("data", "indices"):
            file.create_dataset(f"matrix/{part}", (0,), "i4")
    store = open_store(path, untrusted=untrusted)
    reasons = {other.name: other.why for other in store.others}
    assert f"whose lengths would take {1 << 43} bytes, in a file of" in reasons["plain"]
    assert f"whose lengths would take {1 << 39} bytes, in a file of" in reasons["chunked"]
    assert "built to fill the memory" in reasons["matrix"]
    assert "x" in store.sources


@pytest.mark.parametrize("sharded", [False, True])
def test_zarr_chunks_without_end_allocate_nothing(tmp_path, sharded):
    from test_zarr import write

    how = {"shards": (8,)} if sharded else {}
    write(tmp_path / "a", np.arange(16, dtype="u1"), chunks=(1,), **how)
    path = tmp_path / "a" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [1 << 28]}))
    [other] = open_store(tmp_path / "a").others
    stored = 16 if sharded else 15  # the first chunk is the fill value
    assert f"{1 << 28} chunks, of which {stored} are stored at most: so many are not" in other.why


def bomb(wbits=15):
    """300 MB of zeros, packed."""
    packer = zlib.compressobj(wbits=wbits)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(300)) + packer.flush()


def test_chunks_without_end_allocate_nothing(tmp_path, untrusted):
    path = tmp_path / "chunks.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("huge", ((1 << 31) + 8,), "u1", chunks=((1 << 31) + 8,))
        tiny = write_dataset(file, some_items("u1", (20, 100), 1), "u1", (10, 100), CHAINS["gzip"])
        tiny.id.write_direct_chunk((10, 0), bomb())
    store = open_store(path, untrusted=untrusted)
    [other] = store.others
    assert other.name == "huge"
    assert other.unsafe
    assert "are larger than 2147483648 bytes" in other.why
    with pytest.raises(DamageError, match="source 'x', chunk 1, rows 10 to 19: "):
        read_all(store.sources["x"])


def test_a_chunk_larger_than_the_budget_is_refused_undecoded(tmp_path):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        large = file.create_dataset("x", (1 << 31,), "u1", chunks=(1 << 31,), compression=9)
        large.id.write_direct_chunk((0,), zlib.compress(bytes(1000)))
    with epochal.open(path) as ds:
        batches = ds.batches("sequential", 10, memory="64MiB", scratch=False)
        with pytest.raises(BudgetError, match=r"memory=64.*the chunk being decoded \(2\.0 GiB"):
            next(iter(batches))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert peak < MOST_BYTES


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_pickles_of_numpy_are_not_run(tmp_path):
    marker = tmp_path / "ran"
    objects = np.array([Evil(marker)], object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "stored.npz", bad=objects, good=np.arange(3))
    np.savez_compressed(tmp_path / "deflated.npz", bad=objects, good=np.arange(3))
    with pytest.raises(UnsafeError, match=r"a\.npy: holds pickled Python objects"):
        epochal.open(tmp_path / "a.npy")
    for name in ("stored.npz", "deflated.npz"):
        with epochal.open(tmp_path / name, sources="good") as ds:
            assert ds["good"][:].tolist() == [0, 1, 2]
        with pytest.raises(UnsafeError, match="holds pickled Python objects"):
            epochal.open(tmp_path / name, sources="bad")
    # A pickle by itself is no array, whatever it is called.
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(EpochalError, match=r"b\.npy: not a file of any format that is read"):
        open_store(tmp_path / "b.npy")
    assert not marker.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)  # what it would have done
    assert marker.exists()


@pytest.mark.parametrize("codec", ["filters", "compressor", "version 3"])
def test_pickles_of_zarr_are_refused_by_name(tmp_path, codec):
    import numcodecs
    from test_zarr import write

    marker = tmp_path / "ran"
    path = tmp_path / "a"
    version = 3 if codec == "version 3" else 2
    write(path, np.arange(4, dtype="i4"), zarr_format=version, chunks=(4,), compressors=None)
    meta_path = path / ("zarr.json" if version == 3 else ".zarray")
    meta = json.loads(meta_path.read_text())
    pickling = {"id": "pickle", "protocol": 4}
    if version == 3:
        meta["codecs"].append({"name": "numcodecs.pickle", "configuration": {"protocol": 4}})
    elif codec == "filters":
        meta |= {"filters": [pickling]}
    else:
        meta |= {"compressor": pickling}
    meta_path.write_text(json.dumps(meta))
    chunk = path / ("c/0" if version == 3 else "0")
    chunk.write_bytes(pickle.dumps(Evil(marker)))
    [other] = open_store(path).others
    assert other.unsafe
    assert other.why == "its items are pickled, which are never read"
    with pytest.raises(UnsafeError, match="pickled, which are never read"):
        epochal.open(path, sources="a")
    assert not marker.exists()
    numcodecs.get_codec(pickling)  # which is known, and would read it


def test_bombs_in_archives_are_refused_or_bounded(tmp_path):
    """Members that are longer than their header says, or than the list of members does."""
    head = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("X.npy", "w") as member:
            member.write((head % 1000).ljust(127) + b"\n")
            for _ in range(300):
                member.write(bytes(MIB))
        archive.writestr("y.npy", npy(np.arange(3)))
    store = open_store(path)
    assert list(store.sources) == ["y"]
    assert "ends after 1128 of" in store.others[0].why
    # The same, with a list of members that says so, too.
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1128).to_bytes(4, "little")
    path.write_bytes(data)
    store = open_store(path)
    assert list(store.sources) == ["y"]
    assert "does not unpack: its checksum is not the one in the archive" in store.others[0].why
    # One that is what it says, and large: a thousand times its file.
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("X.npy", "w") as member,
    ):
        member.write((head % (300 * MIB)).ljust(127) + b"\n")
        for _ in range(300):
            member.write(bytes(MIB))
    with epochal.open(path) as ds:
        batches = ds.batches("sequential", MIB, memory="16MiB", scratch=False)
        assert sum(len(batch.X) for batch in batches) == 300 * MIB


def test_a_zarr_chunk_that_inflates_without_end(tmp_path):
    from test_zarr import V2, write

    for name, wbits in (("zlib", 15), ("gzip", 31)):
        path = tmp_path / "a"
        shutil.rmtree(path, ignore_errors=True)
        write(path, np.arange(40, dtype="i4"), zarr_format=2, chunks=(20,), **V2[name])
        (path / "1").write_bytes(bomb(wbits))
        with pytest.raises(DamageError, match="source 'a', chunk 1, rows 20 to 39"):
            read_all(open_store(path).sources["a"])


@pytest.mark.parametrize("wrong", ["external", "objects"])
def test_info_says_what_is_refused(tmp_path, wrong):
    """An exit status and a line, no traceback."""
    path = tmp_path / "only.h5"
    if wrong == "external":
        with h5py.File(path, "w") as file:
            file.create_dataset("external", (10,), "i8", external=[("/etc/passwd", 0, 80)])
        status, what = 0, "not followed, nothing allows it"
    else:
        path = tmp_path / "objects.npy"
        np.save(path, np.array([{}], object), allow_pickle=True)
        status, what = 1, "holds pickled Python objects"
    command = [sys.executable, "-m", "epochal", "info", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert what in said
    assert "Traceback" not in said
    assert (done.returncode == 0) == (status == 0), done
