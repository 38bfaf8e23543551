"""Zarr of both versions: what is read is what zarr reads."""

import itertools
import json
import multiprocessing
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as zn
from hdf5_files import read_all
from zarr import codecs as zc

import epochal
from epochal.errors import ChangedError, DamageError, FormatError
from epochal.stores import checksums, open_store
from epochal.testing.stores import CountingSource

RNG = np.random.default_rng(0)


def write(path, array, *, zarr_format=3, fill=None, skip=(), **how):
    """An array as zarr writes it; chunks in `skip` are not written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codecs and types without a specification
        made = zarr.create_array(
            path,
            shape=array.shape,
            dtype=array.dtype,
            zarr_format=zarr_format,
            fill_value=fill,
            overwrite=True,
            **how,
        )
        made[...] = array
        return np.asarray(made[...])


def values(shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return RNG.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "SU":
        return RNG.integers(0, 999, shape).astype(dtype)
    if dtype.names:
        out = np.zeros(shape, dtype)
        for name in dtype.names:
            out[name] = RNG.integers(0, 99, shape)
        return out
    return RNG.integers(0, 100, shape).astype(dtype)


def same(path, expected, dtype=None):
    store = open_store(path)
    [source] = store.sources.values()
    got = read_all(source)
    assert got.shape == expected.shape
    assert got.tobytes() == np.ascontiguousarray(expected).astype(source.layout.dtype).tobytes()
    return source


V2 = {
    "none": {"compressors": None},
    "blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=2)},
    "blosc zstd": {"compressors": numcodecs.Blosc("zstd")},
    "zlib": {"compressors": numcodecs.Zlib(3)},
    "gzip": {"compressors": numcodecs.GZip(3)},
    "bz2": {"compressors": numcodecs.BZ2()},
    "lzma": {"compressors": numcodecs.LZMA()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "zstd": {"compressors": numcodecs.Zstd()},
    "shuffle": {"filters": [numcodecs.Shuffle(4)], "compressors": numcodecs.Zlib()},
    "delta": {"filters": [numcodecs.Delta("f4")], "compressors": numcodecs.Zstd()},
    "offset": {
        "filters": [numcodecs.FixedScaleOffset(offset=5, scale=10, dtype="f4", astype="i4")],
    },
    "quantize": {"filters": [numcodecs.Quantize(2, "f4")]},
    "astype": {"filters": [numcodecs.AsType("i2", "f4")]},
    "bitround": {"filters": [numcodecs.BitRound(4)]},
    "crc32": {"filters": [numcodecs.CRC32()], "compressors": None},
    "crc32c": {"filters": [numcodecs.CRC32C()], "compressors": None},
    "adler32": {"filters": [numcodecs.Adler32()], "compressors": None},
    "fletcher32": {"filters": [numcodecs.Fletcher32()], "compressors": None},
    "jenkins": {"filters": [numcodecs.JenkinsLookup3()], "compressors": None},
    "two": {"filters": [numcodecs.Zlib()], "compressors": numcodecs.Zstd()},
}


@pytest.mark.parametrize("name", V2)
@pytest.mark.parametrize("order", ["C", "F"])
def test_version_2(tmp_path, name, order):
    array = values((23, 5, 4), "f4")
    expected = write(
        tmp_path / "a", array, zarr_format=2, chunks=(4, 3, 4), order=order, **V2[name]
    )
    same(tmp_path / "a", expected)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # these codecs are not in the specification
    V3 = {
        "none": {"compressors": None},
        "zstd": {"compressors": zc.ZstdCodec(checksum=True)},
        "gzip crc32c": {"compressors": [zc.GzipCodec(), zc.Crc32cCodec()]},
        "blosc": {"compressors": zc.BloscCodec(cname="lz4", shuffle="bitshuffle")},
        "transpose": {"filters": [zc.TransposeCodec(order=(2, 0, 1))]},
        "twice transposed": {
            "filters": [zc.TransposeCodec(order=(2, 0, 1)), zc.TransposeCodec(order=(0, 2, 1))]
        },
        "big-endian": {"serializer": zc.BytesCodec(endian="big")},
        "numcodecs": {
            "filters": [
                zn.FixedScaleOffset(scale=10, offset=1, dtype="f4", astype="i2"),
                zn.Delta(dtype="i2"),
            ],
            "compressors": [zn.Shuffle(elementsize=2), zn.Zlib(level=3)],
        },
        "lz4": {"compressors": [zn.LZ4(), zn.Fletcher32()]},
        "lzma": {"compressors": [zn.LZMA()]},
    }
SHARDS = {"whole": None, "sharded": (8, 6, 4), "rows": (12, 5, 4)}


@pytest.mark.parametrize("name", V3)
@pytest.mark.parametrize("shards", SHARDS)
def test_version_3(tmp_path, name, shards):
    array = values((23, 5, 4), "f4")
    chunks = (4, 5, 4) if shards == "rows" else (4, 3, 2)
    how = dict(V3[name])
    if SHARDS[shards]:
        how["shards"] = SHARDS[shards]
    expected = write(tmp_path / "a", array, chunks=chunks, **how)
    source = same(tmp_path / "a", expected)
    assert source.layout.chunk_rows == 4


DTYPES = ["?", "i1", "<u2", ">u2", "<i8", "<f2", ">f8", "<c8", "<M8[s]", "<m8[10us]", "S5", "<U3"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_types(tmp_path, dtype, zarr_format):
    write(tmp_path / "a", values((11, 3), dtype), zarr_format=zarr_format, chunks=(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(zarr.open_array(tmp_path / "a")[...])
    same(tmp_path / "a", expected)


def test_structured_and_raw(tmp_path):
    write(tmp_path / "a", values((7,), [("a", "<i2"), ("b", "<f4")]), zarr_format=2, chunks=(3,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(tmp_path / "a", np.asarray(zarr.open_array(tmp_path / "a")[...]))
    for zarr_format in (2, 3):
        raw = np.arange(12, dtype="i4").view("V4")
        write(tmp_path / "b", raw, zarr_format=zarr_format, chunks=(5,))
        same(tmp_path / "b", raw)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("f4", np.nan),
        ("f8", -np.inf),
        ("f4", 1.5),
        ("i2", -7),
        ("?", True),
        ("c8", 1 - 2j),
        ("<M8[s]", np.datetime64(99, "s")),
        ("<M8[D]", None),
        (">m8[ns]", None),
        ("S3", b"ab"),
        ("<U3", "xy"),
        ("u8", 2**64 - 1),
    ],
)
@pytest.mark.parametrize("sharded", [False, True])
def test_missing_chunks_are_the_fill_value(tmp_path, zarr_format, dtype, fill, sharded):
    if sharded and zarr_format == 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            tmp_path / "a",
            shape=(13, 3),
            chunks=(2, 3),
            dtype=dtype,
            fill_value=fill,
            zarr_format=zarr_format,
            **({"shards": (6, 3)} if sharded else {}),
        )
        array[4:6] = values((2, 3), dtype)
        source = same(tmp_path / "a", np.asarray(array[...]))
    assert int((source.layout.piece_bytes > 0).sum()) == 1


def test_zero_rows_and_scalars(tmp_path):
    write(tmp_path / "g/empty", np.zeros((0, 3), "f4"), chunks=(2, 3))
    write(tmp_path / "g/scalar", np.array(3.0))
    zarr.open_group(tmp_path / "g", mode="a")
    store = open_store(tmp_path / "g")
    assert read_all(store.sources["empty"]).shape == (0, 3)
    assert [(other.name, other.why) for other in store.others] == [
        ("scalar", "a scalar: it has no rows")
    ]


def group(path, *, zarr_format=3, consolidated=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        train = root.create_group("train", attributes={"encoding-type": "x", "shape": [2, 3]})
        for name, dtype in (("X", "u1"), ("y", "i8")):
            array = train.create_array(
                name,
                shape=(50, 3) if name == "X" else (50,),
                chunks=(7, 3)[: 2 if name == "X" else 1],
                dtype=dtype,
            )
            array[...] = values(array.shape, dtype)
        strings = root.create_array("names", shape=(3,), dtype="str", chunks=(3,))
        strings[...] = np.array(["a", "bb", "c"], object)
        if consolidated:
            zarr.consolidate_metadata(path, zarr_format=zarr_format)
    return train


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_groups_nest(tmp_path, zarr_format, consolidated):
    train = group(tmp_path / "g", zarr_format=zarr_format, consolidated=consolidated)
    ds = epochal.open(tmp_path / "g")
    assert list(ds.sources) == ["train/X", "train/y"]
    assert (ds["train/X"][...] == train["X"][...]).all()
    assert ds.store.groups["train"]["shape"] == [2, 3]
    [other] = ds.others
    assert other.name == "names"
    assert "not of fixed size" in other.why


@pytest.mark.parametrize("compression", [0, 8])
def test_in_a_zip_archive(tmp_path, compression):
    array = values((40, 6), "i4")
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w", compression=compression) as store:
        made = zarr.create_array(store, shape=(40, 6), chunks=(5, 6), dtype="i4")
        made[...] = array
    ds = epochal.open(tmp_path / "a.zip")
    assert (ds["a"][...] == array).all()


def test_dimension_names(tmp_path):
    write(tmp_path / "a", values((4, 3), "i4"), chunks=(2, 3), dimension_names=["time", "x"])
    assert open_store(tmp_path / "a").groups[""]["dimension_names"] == ["time", "x"]


def test_pickles_are_refused_by_name(tmp_path):
    write(tmp_path / "a", values((4,), "i4"), zarr_format=2, chunks=(2,))
    meta = json.loads((tmp_path / "a/.zarray").read_text())
    meta |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}]}
    (tmp_path / "a/.zarray").write_text(json.dumps(meta))
    [other] = open_store(tmp_path / "a").others
    assert other.unsafe
    assert "pickled, which are never read" in other.why


def wrong(tmp_path, version, **changes):
    shutil.rmtree(tmp_path / "w", ignore_errors=True)
    write(tmp_path / "w", values((4, 3), "i4"), zarr_format=version, chunks=(2, 3))
    path = tmp_path / "w" / ("zarr.json" if version == 3 else ".zarray")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    [other] = open_store(tmp_path / "w").others
    return other.why


def test_metadata_that_lie(tmp_path):
    assert "more than any machine" in wrong(tmp_path, 2, shape=[2**40, 2**40], chunks=[1, 1])
    assert "larger than" in wrong(tmp_path, 2, chunks=[2**31, 2**31])
    assert "are not indexed" in wrong(tmp_path, 2, shape=[2**40, 3], chunks=[1, 1])
    assert "its shape is" in wrong(tmp_path, 3, shape=[-4, 3])
    assert "its chunks is" in wrong(tmp_path, 2, chunks=[0, 3])
    assert "different axes" in wrong(tmp_path, 2, chunks=[2])
    assert "not known" in wrong(tmp_path, 2, compressor={"id": "nonsense"})
    assert "is not regular" in wrong(tmp_path, 3, chunk_grid={"name": "wild"})
    assert "not of fixed size or not known" in wrong(tmp_path, 3, data_type="posit8")
    (tmp_path / "w/zarr.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="no JSON"):
        open_store(tmp_path / "w")


def test_a_checksum_at_the_end_of_a_stream_is_looked_at(tmp_path):
    """Also where the rows are all there without it: each chunk has one of them flipped or cut."""
    array = values((40, 50), "u1")
    for codec, cut in ((numcodecs.BZ2(), 6), (numcodecs.LZMA(), 30)):
        path = tmp_path / codec.codec_id
        write(path, array, zarr_format=2, chunks=(10, 50), compressors=codec)
        whole = (path / "1.0").read_bytes()
        (path / "1.0").write_bytes(whole[:-cut])
        with pytest.raises(DamageError, match=r"rows 10 to 19: .* ends before its checksum"):
            read_all(open_store(path).sources[codec.codec_id])
        for at in range(60, len(whole) - 40, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 0x24
            (path / "1.0").write_bytes(damaged)
            with pytest.raises(DamageError, match="rows 10 to 19"):
                read_all(open_store(path).sources[codec.codec_id])


def test_a_damaged_chunk_in_an_archive_is_found_by_its_sum(tmp_path):
    array = values((40, 6), "i4")
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="w", compression=0) as store:
        made = zarr.create_array(store, shape=(40, 6), chunks=(5, 6), dtype="i4", compressors=None)
        made[...] = array
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(array[5:10].tobytes())
    data[at + 33] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    source = open_store(tmp_path / "a.zip").sources["a"]
    with pytest.raises(DamageError, match=r"a\.zip/c/1/0: its checksum is not the one in the arch"):
        read_all(source)
    out = np.empty((5, 6), "i4")
    source.read(2, 3, out)
    assert (out == array[10:15]).all()


def test_codecs_that_are_set_up_wrongly(tmp_path):
    def why(**config):
        return wrong(tmp_path, 2, filters=[config], compressor=None)

    assert "'astype' is set up wrongly: KeyError: 'decode_dtype'" in why(id="astype")
    assert "'fixedscaleoffset' is set up wrongly" in why(
        id="fixedscaleoffset", scale=[], offset=1, dtype="f4"
    )
    assert "'delta' is set up wrongly: TypeError" in why(id="delta", dtype="nonsense")
    assert "makes items of object, which are no numbers" in why(id="delta", dtype="|O")
    write(tmp_path / "a", values((4, 3), "i4"), zarr_format=2, chunks=(2, 3))
    path = tmp_path / "a/.zarray"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"compressor": None, "filters": [{"id": "shuffle"}]}))
    with pytest.raises(DamageError, match=r"decodes to \d+ bytes where 24 are due"):
        read_all(open_store(tmp_path / "a").sources["a"])


@pytest.mark.parametrize("sharded", [False, True])
def test_damage_is_named(tmp_path, sharded):
    how = {"shards": (10, 4)} if sharded else {}
    write(
        tmp_path / "a",
        values((20, 4), "i4"),
        chunks=(5, 4),
        compressors=[zc.ZstdCodec(), zc.Crc32cCodec()],
        **how,
    )
    store = open_store(tmp_path / "a")
    path = tmp_path / "a/c/1/0"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    source = open_store(tmp_path / "a").sources["a"]
    what = r"rows 10 to 14: its crc32c checksum is wrong" if sharded else r"rows 5 to 9: .*crc32c"
    with pytest.raises(DamageError, match=what):
        read_all(source)
    path.unlink()
    with pytest.raises((ChangedError, epochal.EpochalError), match=r"no longer|no such file"):
        read_all(store.sources["a"])


def test_decodes_are_counted_and_shards_read_alone(tmp_path):
    array = values((96, 10), "u2")
    write(tmp_path / "a", array, chunks=(4, 10), shards=(24, 10))
    source = CountingSource(open_store(tmp_path / "a").sources["a"])
    ds = epochal.dataset.Dataset(epochal.testing.stores.SourceStore({"a": source}), {"a": source})
    assert (ds["a"][[50, 3, 51]] == array[[50, 3, 51]]).all()
    assert sorted(source.chunks) == [0, 12]
    batches = ds.batches("shuffled_sequential", batch_size=8, seed=0, memory="1MiB")
    got = np.concatenate([batch.a for batch in batches])
    rows = np.concatenate([batches.scheme.at(0).batch(n) for n in range(12)])
    assert (got == array[rows]).all()
    assert batches.explain().measured.read_bytes == int(source.layout.piece_bytes.sum())


@pytest.mark.parametrize("sharded", [False, True])
def test_eight_readers_and_other_processes(tmp_path, sharded):
    array = values((400, 50), "u2")
    write(tmp_path / "a", array, chunks=(7, 50), **({"shards": (70, 50)} if sharded else {}))
    source = open_store(tmp_path / "a").sources["a"]
    assert (read_all(source) == array).all()
    with ThreadPoolExecutor(8) as pool:
        assert all((got == array).all() for got in pool.map(read_all, [source] * 16))
    assert (read_all(pickle.loads(pickle.dumps(source))) == array).all()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert (pool.apply(read_all, (source,)) == array).all()


@pytest.mark.parametrize("n_bytes", [0, 1, 9, 255, 8191, 8192, 8193, 70_001])
def test_crc32c_without_a_library(n_bytes):
    data = RNG.integers(0, 256, n_bytes, dtype=np.uint8)
    assert checksums._by_numpy(data) == checksums.crc32c(data)


REPLACED = (None, 3, "x", [], {}, [1])


def places(value, at=()):
    """Where in some JSON there is a value."""
    if at:
        yield at
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*at, key))


def store_of_both(path, zarr_format, consolidated):
    """Arrays ``good`` and ``bad``, and where the metadata of the second lie."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    array = np.arange(12, dtype="i4").reshape(6, 2)
    group.create_array("good", data=array, chunks=(2, 2))
    how = {"shards": (4, 2)} if zarr_format == 3 else {"filters": [numcodecs.Delta("i4")]}
    group.create_array("bad", data=array, chunks=(2, 2), **how)
    group["bad"].attrs["dimension_names"] = ["a", "b"]
    if consolidated:
        zarr.consolidate_metadata(path)
    return (
        path
        / {
            (2, False): "bad/.zarray",
            (2, True): ".zmetadata",
            (3, False): "bad/zarr.json",
            (3, True): "zarr.json",
        }[zarr_format, consolidated]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_one_field_of_the_metadata_is_another(tmp_path, zarr_format, consolidated):
    """Whatever it is: an error of ours, or the array is not a source, and the other one is."""
    file = store_of_both(tmp_path / "a", zarr_format, consolidated)
    sound = json.loads(file.read_text())
    good = np.arange(12).reshape(6, 2)
    for place, value in itertools.product(places(sound), REPLACED):
        damaged = json.loads(json.dumps(sound))
        inside = damaged
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        file.write_text(json.dumps(damaged))
        shut = consolidated and not {"bad", "bad/.zarray"} & set(place)
        with suppress(FormatError) if shut else nullcontext():
            store = open_store(tmp_path / "a")
            told = (place, value, {other.name: other.why for other in store.others})
            assert shut or (read_all(store.sources["good"]) == good).all(), told
            assert shut or "bad" in (*store.sources, *told[-1]), told
            with suppress(epochal.EpochalError):
                bad = epochal.open(tmp_path / "a", sources="bad")
                read_all(bad["bad"].source)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_that_are_no_json(tmp_path, zarr_format):
    file = store_of_both(tmp_path / "a", zarr_format, consolidated=False)
    file.write_text(file.read_text()[:-9])
    store = open_store(tmp_path / "a")
    assert list(store.sources) == ["good"]
    [bad] = store.others
    assert (bad.name, bad.why.partition(":")[0]) == ("bad", "its metadata are no JSON")


@pytest.mark.parametrize("shape", [None, 3, "x", [3], [None, 4], ["a", "b"], {}, [[3], 4]])
def test_the_shape_of_a_sparse_matrix_is_none(tmp_path, shape):
    group = zarr.open_group(tmp_path / "a", mode="w").create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": shape})
    for name, array in (("data", [5.0]), ("indptr", [0, 1]), ("indices", [0])):
        group.create_array(name, data=np.array(array))
    assert sorted(open_store(tmp_path / "a").sources) == ["X/data", "X/indices", "X/indptr"]
