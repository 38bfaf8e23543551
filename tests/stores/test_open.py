"""What a path that is no good gets, and what a file of several kinds of things is listed as."""

import os
import subprocess
import sys

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from hdf5_files import read_all

import epochal
from epochal.errors import FileMissingError, FormatError, MismatchError, UnsafeError
from epochal.stores import open_store
from epochal.stores.folder import LocalTree


@pytest.fixture
def simple(tmp_path):
    path = tmp_path / "simple.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "X", data=np.arange(40).reshape(20, 2), chunks=(5, 2), compression="gzip"
        )
    return path


def test_a_missing_file(tmp_path, simple):
    with pytest.raises(
        FileMissingError, match=r"simpel\.h5: there is no such file; did you mean 'simple\.h5'\?"
    ):
        open_store(tmp_path / "simpel.h5")
    with pytest.raises(FileNotFoundError, match="its folder cannot be listed"):
        open_store(tmp_path / "nowhere" / "simple.h5")


def test_a_directory(tmp_path):
    with pytest.raises(FormatError, match="a folder in which no file is of a format"):
        open_store(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="found a device, pipe or socket"):
        open_store(tmp_path / "pipe")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.h5").touch()
    with pytest.raises(FormatError, match=r"empty\.h5: the file is empty \(0 bytes\)"):
        open_store(tmp_path / "empty.h5")


def test_a_file_that_may_not_be_read(simple, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)  # root reads what it likes
    with pytest.raises(FormatError, match=r"cannot be opened for reading: Permission denied"):
        open_store(simple)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"MATLAB 5.0 MAT-file", "a MATLAB file of version 5"),
        (b"CDF\x01", "a netCDF 3 file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"# name, age", r"it begins with b'# name, ' and has no HDF5 signature"),
    ],
)
def test_another_format_is_named(tmp_path, head, what):
    path = tmp_path / "data.h5"
    path.write_bytes(head + bytes(2000))
    with pytest.raises(FormatError, match=rf"data\.h5: not a file of any format .*{what}"):
        open_store(path)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("driver", ["family", "split"])
def test_what_a_driver_cut_into_several(tmp_path, driver, libver):
    name, first = {"family": ("a%d.h5", "a0.h5"), "split": ("a", "a-m.h5")}[driver]
    how = {"memb_size": 1 << 16} if driver == "family" else {}
    with h5py.File(tmp_path / name, "w", driver=driver, libver=libver, **how) as file:
        file["X"] = np.arange(40_000)
    told = f"HDF5's {driver} .*not read in parts"
    with pytest.raises(FormatError, match=told):
        open_store(tmp_path / first)
    fsspec.filesystem("memory").pipe(f"/drivers/{first}", (tmp_path / first).read_bytes())
    with pytest.raises(FormatError, match=told):
        open_store(f"memory://drivers/{first}")


def test_a_truncated_file(tmp_path, simple):
    path = tmp_path / "cut.h5"
    path.write_bytes(simple.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"cut\.h5: the file is truncated"):
        open_store(path)


@pytest.mark.parametrize("length", [8, 16, 100, 600])
def test_a_file_cut_short_anywhere(tmp_path, simple, length):
    path = tmp_path / "cut.h5"
    path.write_bytes(simple.read_bytes()[:length])
    with pytest.raises(FormatError, match=r"cut\.h5: "):
        open_store(path)


def test_damaged_metadata(tmp_path, simple):
    raw = bytearray(simple.read_bytes())
    raw[8:60] = b"\xff" * 52
    path = tmp_path / "bad.h5"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"its HDF5 metadata are damaged, or newer"):
        open_store(path)


def test_the_name_does_not_matter(tmp_path, simple):
    path = tmp_path / "train.data"
    path.write_bytes(simple.read_bytes())
    assert list(open_store(path).sources) == ["X"]


def test_a_backend_that_is_not_there(simple):
    with pytest.raises(FormatError, match="backend='tiff' is not one of: auto, hdf5, "):
        open_store(simple, backend="tiff")


def test_a_backend_of_other_files(tmp_path, simple):
    with pytest.raises(FormatError, match="backend='zarr' reads folders; found hdf5"):
        open_store(simple, backend="zarr")
    zarr.create_array(tmp_path / "a.zarr", data=np.arange(3))
    with pytest.raises(FormatError, match="backend='hdf5' was asked for; found zarr"):
        open_store(tmp_path / "a.zarr", backend="hdf5")
    assert list(open_store(tmp_path / "a.zarr", backend="zarr").sources) == ["a"]
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w") as inside:
        zarr.create_array(inside, data=np.arange(3))
    assert list(open_store(tmp_path / "a.zip", backend="zarr").sources) == ["a"]


def test_h5py_as_backend_reads_the_same(simple):
    library, raw = open_store(simple, backend="h5py"), open_store(simple, backend="hdf5")
    assert library.sources["X"].layout.kind == "library"
    assert (read_all(library.sources["X"]) == read_all(raw.sources["X"])).all()
    library.close()


def test_reading_changes_neither_bytes_nor_time(simple):
    before, status = simple.read_bytes(), simple.stat()
    read_all(open_store(simple).sources["X"])
    assert simple.read_bytes() == before
    assert (simple.stat().st_mtime_ns, simple.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


def test_a_file_that_another_process_writes_to_is_read(tmp_path, simple):
    """And the writer is not refused because we read."""
    code = """
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    print("open", flush=True)
    input()
    file["X"][0] = 7
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, simple],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline() == "open\n"
    source = open_store(simple).sources["X"]
    assert (read_all(source) == np.arange(40).reshape(20, 2)).all()
    writer.communicate("\n")
    assert writer.returncode == 0


def test_a_file_that_this_process_has_open(simple):
    with h5py.File(simple):
        assert list(open_store(simple).sources) == ["X"]
    with (
        h5py.File(simple, "r+"),
        pytest.raises(
            FormatError, match=r"this process has it open for writing, .* Close it first"
        ),
    ):
        open_store(simple)


def test_every_kind_of_thing_is_listed_with_its_reason(tmp_path):
    path = tmp_path / "kinds.h5"
    with h5py.File(path, "w") as file:
        file["data/b/X"] = np.arange(3)
        file["data/a/Y"] = np.arange(4)
        file["scalar"] = 3
        file["null"] = h5py.Empty("f4")
        file["text"] = ["a", "bc"]
        file.create_dataset("ragged", (2, 2), h5py.vlen_dtype("i4"))
        file.create_dataset("refs", (2,), h5py.ref_dtype)
        file.create_dataset("mixed", (2,), np.dtype([("n", "i4"), ("t", h5py.string_dtype())]))
        file["type"] = np.dtype("i4")
        file["soft"] = h5py.SoftLink("/data/b/X")
        file["out"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["data/loop"] = file["data"]
        file["X again"] = file["data/b/X"]
        file.create_dataset("external", (3,), "u1", external=[("/etc/passwd", 0, 3)])
        virtual = h5py.VirtualLayout((3,), "i8")
        virtual[:] = h5py.VirtualSource(".", "data/b/X", (3,))
        file.create_virtual_dataset("virtual", virtual)
    store = open_store(path)
    assert list(store.sources) == ["X again", "data/a/Y", "data/b/X"]
    assert (read_all(store.sources["X again"]) == [0, 1, 2]).all()
    reasons = {other.name: other.why for other in store.others}
    assert reasons == {
        "scalar": "a scalar: it has no rows",
        "null": "it has no data space: nothing is stored",
        "text": "its items are not of fixed size: variable-length strings",
        "ragged": "its items of varying length have 2 axes; one is read",
        "refs": "its items are not of fixed size: references",
        "mixed": "its items are not of fixed size: "
        "a compound or array with variable-length members or references",
        "type": "a named type, not data",
        "soft": "a soft link to '/data/b/X': read it by that name",
        "out": "an external link to '/x' in '/etc/passwd': not followed",
        "data/loop": "a group that was listed already, by another name",
        "external": "its data are in another file (external storage): "
        "not followed, nothing allows it",
        "virtual": "a virtual dataset: it reads other files; "
        'allow=("virtual",) reads those beside it',
    }
    assert {other.name: other.shape for other in store.others}["external"] == (3,)


def test_a_virtual_dataset_is_read_when_allowed(tmp_path):
    path = tmp_path / "virtual.h5"
    with h5py.File(path, "w") as file:
        file["X"] = np.arange(30).reshape(10, 3)
        virtual = h5py.VirtualLayout((10, 3), "i8")
        virtual[::2] = h5py.VirtualSource(".", "X", (10, 3))[:5]
        file.create_virtual_dataset("V", virtual)
    store = open_store(path, allow=("virtual",))
    with h5py.File(path) as file:
        assert (read_all(store.sources["V"]) == file["V"][...]).all()
    store.close()


def test_nothing_else_can_be_allowed(simple):
    with pytest.raises(
        UnsafeError, match="allow='pickle' is nothing that can be allowed: virtual, library"
    ):
        open_store(simple, allow=("pickle",))
    np.save(simple.parent / "a.npy", np.arange(3))
    with pytest.raises(UnsafeError, match="allow='zz' is nothing that can be allowed"):
        open_store(simple.parent / "a.npy", allow=("zz",))


def test_one_that_is_allowed_may_be_text(tmp_path):
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["X"] = np.arange(10)
        virtual = h5py.VirtualLayout((10,), "i8")
        virtual[:] = h5py.VirtualSource(".", "X", (10,))
        file.create_virtual_dataset("V", virtual)
    assert (
        epochal.open(tmp_path / "v.h5", sources="V", allow="virtual")["V"][:] == np.arange(10)
    ).all()


@pytest.mark.parametrize("target", [None, 3, b"simple.h5", [None], {"a": 1}.values()])
def test_what_is_no_path(target):
    with pytest.raises(FormatError, match="is no path, URL or pattern as text, nor a list of them"):
        epochal.open(target)


def test_a_path_with_a_zero_byte():
    with pytest.raises(FileMissingError, match=r"'a\\x00b': no file has a name with a zero byte"):
        epochal.open("a\0b")


def test_no_sources_are_not_a_dataset(simple):
    with pytest.raises(MismatchError, match=r"sources=\[\] names none"):
        epochal.open(simple, sources=[])
    assert list(epochal.open(simple, sources=iter(["X"])).sources) == ["X"]


def test_the_root_of_all_folders():
    assert list(LocalTree("/").sizes("tmp/none")) == []
    with pytest.raises(FileMissingError, match="there is no such file"):
        LocalTree("/").file(".zarray")


def test_an_unknown_filter_names_what_to_install(tmp_path):
    path = tmp_path / "unknown.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2,))
        plist.set_filter(444, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((4,)), plist)
    (other,) = open_store(path).others
    assert other.why == "filter 444 (filter 444) needs a plugin: pip install 'epochal[hdf5]'"


def test_absurd_shapes_allocate_nothing(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (1 << 62,), "u1", chunks=(1 << 20,))
        file.create_dataset("product", (1 << 40, 1 << 40), "u1", chunks=(1 << 10, 1 << 10))
        file.create_dataset("chunks", (1 << 30,), "u1", chunks=(1,))
        file.create_dataset("sparse", (1 << 27,), "u1", chunks=(1,))
        file.create_dataset("contiguous", (1 << 40,), "u1")
    store = open_store(path)
    reasons = {other.name: other.why for other in store.others}
    assert "more than any machine can address" in reasons.pop("rows")
    assert "more than any machine can address" in reasons.pop("product")
    assert reasons.pop("chunks") == f"{1 << 30} chunks: more than {1 << 28} are not indexed"
    assert reasons == {}
    assert (
        store.sources["sparse"].layout.kind == "library"
    )  # an index would be larger than the file
    assert store.sources["contiguous"].layout.n_rows == 1 << 40
    store.close()


def test_a_chunk_stored_outside_the_file(tmp_path):
    """Its neighbours stay usable."""
    path = tmp_path / "outside.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=np.arange(40), chunks=(10,))
        file.create_dataset("Y", data=np.arange(40))
        offset = file["X"].id.get_chunk_info(2).byte_offset
    raw = path.read_bytes()
    assert raw.count(offset.to_bytes(8, "little")) == 1
    path.write_bytes(raw.replace(offset.to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")))
    store = open_store(path)
    (other,) = store.others
    assert other.name == "X"
    assert (
        other.why
        == f"its index puts a chunk of 80 bytes at offset {1 << 40} of a file of {len(raw)} bytes"
    )
    assert (read_all(store.sources["Y"]) == np.arange(40)).all()


def test_untrusted_is_indexed_elsewhere_and_reads_the_same(simple):
    assert (
        read_all(open_store(simple, untrusted=True).sources["X"]) == np.arange(40).reshape(20, 2)
    ).all()


def test_untrusted_refuses_what_libhdf5_would_decode(tmp_path):
    path = tmp_path / "library.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(40, dtype="i4"), chunks=(10,), scaleoffset=0)
    (other,) = open_store(path, untrusted=True).others
    assert other.why == (
        "scaleoffset is decoded by libhdf5 only, which an untrusted file may not ask for; "
        'allow=("library",) reads it'
    )
    store = open_store(path, untrusted=True, allow=("library",))
    assert (read_all(store.sources["x"]) == np.arange(40)).all()
    store.close()


def test_untrusted_passes_errors_on(tmp_path, simple):
    path = tmp_path / "cut.h5"
    path.write_bytes(simple.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"cut\.h5: the file is truncated"):
        open_store(path, untrusted=True)
