"""Forms: what is noted of a source besides its bytes, and what is done where it differs."""

from __future__ import annotations

import pickle
import struct
import warnings
from contextlib import closing

import h5py
import numpy as np
import pytest
import zarr

import epochal
from epochal.errors import DamageError, DamageWarning
from epochal.stores import open_store
from epochal.stores.forms import UnlikeSource, differences, form_of, form_of_source
from epochal.stores.manifest import (
    FORM,
    SOURCES,
    Manifest,
    crc32,
    manifest_attributes,
    manifest_from_attributes,
    manifest_from_json,
    manifest_json,
    names_from,
    names_text,
    read_sidecar,
    sidecar_of,
    write_sidecar,
)

FLAVOURS = ["hdf5", "pytables", "zarr", "npy"]
N_ROWS = 20


def write(path, flavour="hdf5", **how):
    sources = {"X": ((3,), "<i2"), "y": ((), "<i4")}
    how = {"compression": None if flavour == "npy" else "gzip", "chunk_rows": 8} | how
    with epochal.create(path, sources, flavour=flavour, **how) as writer:
        writer.append(rows_of())
    return str(path)


def rows_of(n=N_ROWS):
    return {"X": np.arange(3 * n, dtype="i2").reshape(n, 3), "y": np.arange(n, dtype="i4")}


DTYPES = ["<i2", ">f8", "?", "S3", "<M8[ms]", [("a", "<i4"), ("b", ">f8", (2,))]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_differs_from_every_other(dtype):
    mine = form_of((3,), np.dtype(dtype))
    assert differences(mine, form_of((3,), np.dtype(dtype))) == {}
    for other in DTYPES:
        if other is not dtype:
            assert list(differences(mine, form_of((3,), np.dtype(other)))) == ["dtype"]
    assert "'" not in mine["dtype"] or mine["dtype"].isascii()


def test_where_fields_lie_is_part_of_a_dtype():
    close = np.dtype([("a", "u1"), ("b", "<i4")])
    apart = np.dtype([("a", "u1"), ("b", "<i4")], align=True)
    assert differences(form_of((3,), close), form_of((3,), apart))


def test_of_no_rows_the_rest_is_not_compared():
    empty = form_of((0, 3), np.dtype("<i2"))
    grown = form_of((5, 3), np.dtype("<i2"), chunks=[4, 3], filters=[])
    assert list(differences(empty, grown)) == ["rows"]
    assert list(differences(form_of((5, 3), np.dtype("<i2")), grown)) == ["chunks", "filters"]


def test_a_long_value_is_told_by_its_sum():
    many = np.dtype([(f"field_{k}", "<i4") for k in range(1000)])
    other = np.dtype([(f"field_{k}", ">i4") for k in range(1000)])
    assert len(form_of((3,), many)["dtype"]) < 20
    assert differences(form_of((3,), many), form_of((3,), other))


def test_a_form_goes_through_attributes_json_and_sidecars(tmp_path):
    form = form_of((9, 2), np.dtype("<i2"), chunks=[3, 2], filters=[[2, 2], [1, 4]], fill="0000")
    manifest = Manifest(np.arange(3, dtype="u4"), form=form)
    for found in (
        manifest_from_attributes(manifest_attributes(manifest)),
        manifest_from_json(manifest_json(manifest)),
    ):
        assert found is not None
        assert found.form == form
        assert found.sums.tolist() == [0, 1, 2]
    write_sidecar(str(tmp_path / "X"), {"X": manifest}, complete=True)
    beside = read_sidecar(str(tmp_path / "X"))
    assert beside.complete
    assert beside["X"].form == form


@pytest.mark.parametrize("told", [b"", b"{}", b"[1]", b'{"version": 1, "form": 3, "sum": 0}'])
def test_a_form_that_is_damaged(told):
    manifest = Manifest(np.arange(3, dtype="u4"), form={"rows": 3})
    found = manifest_from_attributes({**manifest_attributes(manifest), FORM: told})
    assert found is not None
    assert found.damaged


def test_more_names_than_there_is_room_for():
    names = [f"source_{k:06}" for k in range(10_000)]
    assert names_from(names_text(names)) == ()
    assert names_from(names_text(names[:1000])) == tuple(names[:1000])
    assert names_text([]) is None


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_is_written_has_its_form(tmp_path, flavour):
    path = write(tmp_path / "out", flavour)
    with epochal.append(path) as writer:
        writer.append(rows_of(3))
    with closing(open_store(path)) as store:
        for source in store.sources.values():
            noted = source.manifest.form
            assert noted["rows"] == N_ROWS + 3
            assert differences(noted, form_of_source(source)) == {}
        assert store.others == ()
    assert epochal.verify(path).ok


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_rows_that_are_assigned_keep_it(tmp_path, flavour):
    path = write(tmp_path / "out", flavour)
    with epochal.open(path, mode="r+") as ds:
        ds["X"][3:9] = 7
    found = epochal.verify(path)
    assert found.ok
    assert {each.against for each in found.sources} == {"checksums"}
    with closing(open_store(path)) as store:
        assert store.sources["X"].manifest.form is not None


def test_a_file_without_forms_is_what_it_was(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:  # as older versions wrote it
        del file.attrs[SOURCES]
        for name in ("X", "y"):
            del file[name].attrs[FORM]
    found = epochal.verify(path)
    assert found.ok
    assert {each.against for each in found.sources} == {"checksums"}
    with epochal.append(path) as writer:
        writer.append(rows_of(3))
    with h5py.File(path) as file:
        assert names_from(file.attrs[SOURCES]) == ("X", "y")
    assert epochal.verify(path).ok


def test_older_versions_find_what_they_know(tmp_path):
    """They read the numbers and the sums, and take all that begins alike away with them."""
    path = write(tmp_path / "out.h5")
    with h5py.File(path) as file:
        names = sorted(file["X"].attrs)
        version, pieces, _, _, _ = file["X"].attrs["epochal_crc32"]
    assert names == ["epochal_crc32", "epochal_crc32_0", "epochal_crc32_form"]
    assert (version, pieces) == (1, 3)
    told = manifest_json(Manifest(np.arange(3, dtype="u4"), form={"rows": 3}))
    assert {"version", "pieces", "crc32", "sum"} < set(told)


def test_names_that_epochal_keeps_are_no_attributes(tmp_path):
    for flavour in ("hdf5", "zarr"):
        path = write(tmp_path / flavour, flavour, attrs={"scale": 2})
        with closing(open_store(path)) as store:
            assert dict(store.groups[""]) == {"scale": 2}


# What another program, or a flipped bit, made of it ------------------------------------------


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_unlike_sources_are_not_read(tmp_path, flavour):
    path = write(tmp_path / "out", flavour)
    change_dtype(path, flavour)
    found = epochal.verify(path)
    assert not found.ok
    assert {each.source: each.against for each in found.sources} == {
        "X": "another form",
        "y": "checksums",
    }
    assert "X: it is stored in another form than was noted: dtype" in str(found)
    assert "epochal verify --record notes what is there now" in str(found)
    with epochal.open(path) as ds:
        assert ds["y"][:].tolist() == list(range(N_ROWS))
        with pytest.raises(DamageError, match=r"source 'X', rows .*: it is stored in another form"):
            ds["X"][3:5]
        with pytest.raises(DamageError, match=r"dtype '.*' where '<i2' was noted"):
            list(ds.batches("shuffled_sequential", batch_size=7, seed=0))
    with pytest.raises(DamageError, match="another form"), epochal.append(path):
        pass
    with epochal.open(path, mode="r+") as ds, pytest.raises(DamageError, match="another form"):
        ds["X"][0] = 1
    unlike = pickle.loads(pickle.dumps(open_store(path).sources["X"]))
    assert isinstance(unlike, UnlikeSource)
    assert "another form" in str(epochal.verify(path, sources=["X"]))
    assert epochal.verify(path, record=True).ok
    assert epochal.verify(path).ok


def test_a_folder_of_npy_is_recorded_beside_its_files(tmp_path):
    folder = tmp_path / "out"
    write(folder, "npy", checksum=False)
    assert epochal.verify(folder).sources[0].against == "nothing"
    epochal.verify(folder, record=True)
    assert {each.against for each in epochal.verify(folder).sources} == {"checksums"}
    with epochal.open(folder, mode="r+") as ds:
        ds["X"][3] = 7
    with epochal.append(folder) as writer:
        writer.append(rows_of(3))
    found = epochal.verify(folder)
    assert found.ok
    assert {each.against for each in found.sources} == {"checksums"}


def change_dtype(path, flavour):
    """Numbers become others of as many bytes; their bytes stay."""
    if flavour == "npy":
        edit(f"{path}/X.npy", b"'<i2'", b"'>i2'")
    elif flavour == "zarr":
        edit(f"{path}/zarr.json", b'"data_type": "int16"', b'"data_type": "uint16"')
    else:
        with h5py.File(path, "r+") as file:
            attributes = dict(file["X"].attrs)
            stored = [file["X"].id.read_direct_chunk((k, 0))[1] for k in range(0, N_ROWS, 8)]
            del file["X"]
            file.create_dataset(
                "X", (N_ROWS, 3), "<u2", chunks=(8, 3), shuffle=True, compression="gzip"
            )
            for k, data in enumerate(stored):
                file["X"].id.write_direct_chunk((8 * k, 0), data)
            for name, value in attributes.items():
                file["X"].attrs[name] = value


def consolidate(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that format 3 does not specify it
        zarr.consolidate_metadata(path)


def edit(path, old, new):
    with open(path, "rb") as file:
        data = file.read()
    assert old in data
    with open(path, "wb") as file:
        file.write(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"'<i4'", b"'>i4'", "dtype '>i4' where '<i4' was noted"),
        (b"'<i4'", b"'<f4'", "dtype '<f4' where '<i4' was noted"),
        (b"(20,)", b"(19,)", "rows 19 where 20 was noted"),
    ],
)
def test_the_header_of_one_npy(tmp_path, old, new, match):
    path = str(tmp_path / "y.npy")
    with epochal.create(path, {"y": ((), "<i4")}, chunk_rows=8) as writer:
        writer.append(y=np.arange(N_ROWS, dtype="i4"))
    edit(path, old, new)
    found = epochal.verify(path)
    assert not found.ok
    assert match in str(found)
    with epochal.open(path) as ds, pytest.raises(DamageError, match=match):
        ds["y"][:]
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok


def test_columns_first_where_rows_were(tmp_path):
    path = str(tmp_path / "X.npy")
    with epochal.create(path, {"X": ((3,), "<i4")}, chunk_rows=8) as writer:
        writer.append(X=np.arange(60).reshape(20, 3))
    edit(path, b"False", b"True ")
    assert "order 'F' where None was noted" in str(epochal.verify(path))
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok


def test_a_mask_of_filters_is_part_of_a_sum(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path) as file:
        info = file["X"].id.get_chunk_info(1)
    # Of a node of the B-tree: bytes, mask, and where the chunk is in the array, whose last axis
    # are the bytes of an item; the place in the file.
    key = struct.pack("<IIQQQQ", info.size, 0, 8, 0, 0, info.byte_offset)
    edit(path, key, key[:4] + b"\1" + key[5:])
    with h5py.File(path) as file:
        assert file["X"].id.get_chunk_info(1).filter_mask == 1
    found = epochal.verify(path)
    assert [(bad.source, bad.chunk) for bad in found.bad] == [("X", 1)]
    with epochal.open(path) as ds, pytest.raises(DamageError, match="rows 8 to 15"):
        ds["X"][:]


def test_masks_that_older_versions_did_not_note(tmp_path):
    path = str(tmp_path / "theirs.h5")
    with h5py.File(path, "w") as file:
        made = file.create_dataset("y", (16,), "u1", chunks=(8,), compression="gzip")
        made.id.write_direct_chunk((0,), bytes(range(8)), filter_mask=1)
        made[8:] = 3
        stored = [made.id.read_direct_chunk((k,))[1] for k in (0, 8)]
    sums = np.array([crc32(np.frombuffer(each, "u1")) for each in stored], "u4")
    write_sidecar(path, {"y": Manifest(sums)})
    assert epochal.verify(path).ok
    epochal.verify(path, record=True)
    assert read_sidecar(path)["y"].sums.tolist() != sums.tolist()
    assert epochal.verify(path).ok
    with epochal.open(path) as ds:
        assert ds["y"][:].tolist() == [*range(8), *[3] * 8]


def test_a_source_that_another_program_renamed(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        file.move("X", "H")
    with epochal.open(path) as ds:  # its rows are what they were
        assert np.array_equal(ds["H"][:], rows_of()["X"])
    found = epochal.verify(path)
    assert not found.ok
    assert "X: it was a source when that was noted, and is not there: removed, renamed" in str(
        found
    )
    assert epochal.verify(path, record=True).ok
    assert epochal.verify(path).ok
    with epochal.append(path) as writer:
        writer.append(H=rows_of(3)["X"], y=rows_of(3)["y"])
    assert epochal.verify(path).ok


def test_a_source_that_another_program_added(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        file["z"] = np.arange(N_ROWS)
    with epochal.open(path) as ds:
        assert ds["z"][:].tolist() == list(range(N_ROWS))
        assert set(ds.sources) == {"X", "y", "z"}
    found = epochal.verify(path)
    assert found.ok
    assert found.sources[-1].against == "nothing"


def test_a_source_that_another_program_removed(tmp_path):
    for flavour, opener in (("hdf5", h5py.File), ("zarr", None)):
        path = write(tmp_path / flavour, flavour)
        if opener is None:
            group = zarr.open_group(path, mode="r+", use_consolidated=False)
            del group["X"]
            consolidate(path)
        else:
            with opener(path, "r+") as file:
                del file["X"]
        found = epochal.verify(path)
        assert not found.ok
        assert "X: it was a source when" in str(found)
        assert epochal.verify(path, sources=["y"]).ok


def test_a_source_that_another_program_wrote_anew(tmp_path):
    """It carries no checksums, though there were some: it is read, with a warning."""
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        del file["y"]
        file["y"] = np.arange(N_ROWS) + 1.0
    assert not epochal.verify(path).ok
    with pytest.warns(DamageWarning, match="source 'y' are damaged"), epochal.open(path) as ds:
        assert ds["y"][:].tolist() == (np.arange(N_ROWS) + 1.0).tolist()
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok


def test_names_that_are_gone_or_damaged(tmp_path):
    path = write(tmp_path / "out.h5")
    with h5py.File(path, "r+") as file:
        told = bytes(file.attrs[SOURCES])
        del file.attrs[SOURCES]
    assert "the names of the sources that were written are gone" in str(epochal.verify(path))
    with h5py.File(path, "r+") as file:
        file.attrs[SOURCES] = np.bytes_(told.replace(b'"X"', b'"Y"'))
    found = epochal.verify(path)
    assert not found.ok
    assert "the names of the sources that were written are damaged" in str(found)
    epochal.open(path).close()
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok


def test_a_file_that_is_not_trusted(tmp_path):
    path = write(tmp_path / "out.h5")
    assert epochal.verify(path, untrusted=True).ok
    with h5py.File(path, "r+") as file:
        file.move("X", "H")
    assert not epochal.verify(path, untrusted=True).ok


def test_the_document_of_a_folder_of_npy(tmp_path):
    path = write(tmp_path / "out", "npy", attrs={"scale": 2})
    edit(f"{path}/epochal.json", b'"scale": 2', b'"scale": 3')
    found = epochal.verify(path)
    assert not found.ok
    assert "epochal.json: it is not what was written" in str(found)
    epochal.open(path).close()
    edit(f"{path}/epochal.json", b'"crc32"', b'"other"')
    assert epochal.verify(path).ok


def test_what_zarr_writes_anew_is_the_same(tmp_path):
    for compression in ("gzip", "zstd", "blosc", None):
        path = write(tmp_path / f"out-{compression}", "zarr", compression=compression)
        zarr.open_group(path, mode="r+", use_consolidated=False)["X"].attrs["unit"] = "m"
        consolidate(path)
        assert epochal.verify(path).ok
        with epochal.open(path) as ds:
            assert np.array_equal(ds["X"][:], rows_of()["X"])


def test_what_was_recorded_of_others_is_compared(tmp_path):
    path = str(tmp_path / "theirs.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(40), chunks=(8,), compression="gzip")
        file.create_dataset("scaled", data=np.arange(40), chunks=(8,), scaleoffset=0)
        file["small"] = np.arange(40, dtype="u1")
        file.create_dataset("ragged", (4,), h5py.vlen_dtype("i4"))
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok
    with h5py.File(path, "r+") as file:
        file.move("ragged", "rows")
        file.move("a", "b")
        del file["small"]
        file["small"] = np.arange(40, dtype="i1")
    told = str(epochal.verify(path))
    assert "a: it was a source when" in told
    assert "ragged/values: it was a source when" in told
    assert "small: it is stored in another form than was noted: dtype '|i1'" in told
    epochal.verify(path, record=True)
    assert epochal.verify(path).ok
    assert set(read_sidecar(path)) == {"b", "scaled", "small", "rows/values"}
    assert sidecar_of(path)


@pytest.mark.parametrize("how", [{"compression": "lzf"}, {"chunks": (7, 3)}, {"chunks": None}, {}])
def test_a_source_that_is_stored_anew_is_read(tmp_path, how):
    """As ``h5repack`` does, which copies attributes: nothing of what was summed is there any more.
    The same chunks and filters are the same bytes.
    """
    before, after = tmp_path / "a.h5", tmp_path / "b.h5"
    X = np.random.default_rng(0).integers(0, 99, (200, 3)).astype("<i2")
    with epochal.create(before, {"X": ((3,), "<i2")}, chunk_rows=10) as writer:
        writer.append(X=X)
    how = {"chunks": (10, 3), **how}
    if how == {"chunks": (10, 3)}:
        how |= {"compression": "gzip", "shuffle": True, "compression_opts": 9}
    if how["chunks"] is None:
        how = {}
    with h5py.File(before) as old, h5py.File(after, "w") as new:
        new.attrs.update(old.attrs)
        copy = new.create_dataset("X", data=old["X"][:], **how)
        copy.attrs.update(old["X"].attrs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = epochal.open(after)
        assert (ds["X"][:] == X).all()
        assert (np.concatenate([b.X for b in ds.batches("sequential", 9)]) == X).all()
    found = epochal.verify(after)
    assert not found.ok
    assert found.sources[0].against == "an older state"
    assert epochal.verify(after, record=True).ok
    assert epochal.verify(after).ok
