"""The law of the HDF5 store: whatever the layout, what it reads is what h5py reads."""

import zlib
from math import prod

import h5py
import numpy as np
import pytest
from hdf5_files import (
    CHAINS,
    DTYPES,
    SCALEOFFSET,
    read_all,
    read_chunks,
    read_rows,
    same,
    some_items,
    write_dataset,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochal.stores import open_store
from epochal.stores.rows import read_into

LAW = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SZIP_ITEMSIZES = (1, 2, 4, 8)


@st.composite
def layouts(draw):
    """A shape, a chunk (larger than it, or cutting rows), and whether the dataset may grow."""
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(0 if axis == 0 else 1, 23)) for axis in range(ndim))
    resizable = draw(st.booleans())
    chunk = tuple(draw(st.integers(1, 30 if resizable else max(n, 1))) for n in shape)
    if draw(st.booleans()):
        chunk = (chunk[0], *shape[1:])
    return shape, chunk, resizable


def chain_for(name, dtype, chunk):
    """Szip takes only some types, and chunks of a block at least: libhdf5 refuses the others."""
    szip_can = dtype.kind in "iuf" and dtype.itemsize in SZIP_ITEMSIZES and prod(chunk) >= 8
    return CHAINS["gzip" if name == "szip" and not szip_can else name]


@LAW
@given(
    layout=layouts(),
    chain=st.sampled_from(sorted(CHAINS)),
    dtype=st.sampled_from(sorted(DTYPES)),
    libver=st.sampled_from(["earliest", "latest"]),
    userblock=st.sampled_from([0, 512, 1024]),
    plain_edges=st.booleans(),
    written=st.none() | st.integers(0, 23),
    fills=st.booleans(),
    fill_time=st.sampled_from([None, h5py.h5d.FILL_TIME_NEVER, h5py.h5d.FILL_TIME_ALLOC]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_any_layout(
    tmp_path,
    layout,
    chain,
    dtype,
    libver,
    userblock,
    plain_edges,
    written,
    fills,
    fill_time,
    seed,
    data,
):
    shape, chunk, resizable = layout
    dtype = DTYPES[dtype]
    items = some_items(dtype, shape, seed)
    path = tmp_path / "any.h5"
    fill = some_items(dtype, (), seed + 1) if fills and not dtype.shape else None
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        write_dataset(
            file,
            items,
            dtype,
            chunk,
            chain_for(chain, dtype, chunk),
            resizable=resizable,
            fill=fill,
            fill_time=fill_time,
            plain_edges=plain_edges and libver == "latest",
            written=written,
        )
    with h5py.File(path, locking=False) as file:
        expected = file["x"][...]
        stored = file["x"].id.get_storage_size()
    store = open_store(path)
    source = store.sources["x"]
    assert source.layout.kind == ("chunked" if items.size else "compact")
    if items.size:
        assert source.layout.stored_bytes == stored
    assert same(read_all(source), expected)
    check_parts(source, expected, data)
    store.close()


def check_parts(source, expected, data):
    """Any range of chunks, and any rows where they can be read alone."""
    layout = source.layout
    start = data.draw(st.integers(0, layout.n_chunks), label="start")
    stop = data.draw(st.integers(start, layout.n_chunks), label="stop")
    rows = slice(start * layout.chunk_rows, stop * layout.chunk_rows)
    assert same(read_chunks(source, start, stop), expected[rows])
    if start < stop and len(expected[rows]):
        check_parts_of_arrays(source, start, stop, expected[rows], data)
    every = np.arange(layout.n_rows)
    alone = every[~layout.is_coded(layout.chunks_of(every))]
    if len(alone):
        some = st.lists(st.sampled_from(alone.tolist()), max_size=30)
        chosen = np.array(data.draw(some, label="rows"), dtype=np.int64)
        assert same(read_rows(source, chosen), expected[chosen])


def check_parts_of_arrays(source, start, stop, expected, data):
    """The same into several arrays, where the source can."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(expected)), max_size=4), label="cuts"))
    outs = [np.empty(part.shape, source.layout.dtype) for part in np.split(expected, cuts)]
    spare = np.empty(source.layout.chunk_bytes, np.uint8)
    if read_into(source, start, stop, outs, spare):
        for out, part in zip(outs, np.split(expected, cuts), strict=True):
            assert same(out, part)
    else:
        assert source.layout.kind == "compact" or not source._whole_rows


@pytest.mark.parametrize("chain", sorted(set(CHAINS) - {"szip"}))
@pytest.mark.parametrize("dtype", ["u1", "big-endian f8", "opaque", "compound"])
@pytest.mark.parametrize("chunk", [(397, 61, 5), (250, 40, 3)], ids=["rows", "parts"])
def test_chunks_of_many_blocks(tmp_path, chain, dtype, chunk):
    """Hundreds of kilobytes a chunk: codecs cut those into blocks, Blosc 2 along every axis."""
    items = some_items(DTYPES[dtype], (400, 61, 5), 7)
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        write_dataset(file, items, DTYPES[dtype], chunk, CHAINS[chain])
    source = open_store(path).sources["x"]
    assert source.layout.kind == "chunked"
    assert same(read_all(source), items)


@LAW
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(sorted(DTYPES)),
    userblock=st.sampled_from([0, 512]),
    kind=st.sampled_from(["contiguous", "compact", "unallocated", "filled"]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_datasets_without_chunks(tmp_path, shape, dtype, userblock, kind, seed, data):
    dtype = DTYPES[dtype]
    items = some_items(dtype, shape, seed)
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT if kind == "compact" else h5py.h5d.CONTIGUOUS)
        if kind == "filled" and not dtype.shape:
            plist.set_fill_value(some_items(dtype, (), seed + 1))
        space, stored = h5py.h5s.create_simple(shape), h5py.h5t.py_create(dtype, logical=True)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"x", stored, space, plist))
        if kind in ("contiguous", "compact") and items.size:
            dataset[...] = items
    with h5py.File(path, locking=False) as file:
        expected = file["x"][...]
    store = open_store(path)
    source = store.sources["x"]
    assert source.layout.kind == (
        "contiguous" if kind == "contiguous" and items.size else "compact"
    )
    assert same(read_all(source), expected)
    check_parts(source, expected, data)
    store.close()


@pytest.mark.parametrize("mask", range(4))
@pytest.mark.parametrize("chunk", [(4, 6), (4, 5)])
def test_filter_masks(tmp_path, mask, chunk):
    """Bit i of a chunk's mask: filter i was left out for it."""
    items = some_items("<i4", (10, 6), mask)
    path = tmp_path / "mask.h5"
    with h5py.File(path, "w") as file:
        chain = CHAINS["shuffle + gzip"]
        dataset = write_dataset(file, items, "<i4", chunk, chain)
        raw = some_items("<i4", chunk, 99)
        stored = raw.tobytes()
        if not mask & 1:
            stored = raw.reshape(-1).view("u1").reshape(-1, 4).T.tobytes()
        if not mask & 2:
            stored = zlib.compress(stored)
        dataset.id.write_direct_chunk((4, 0), stored, filter_mask=mask)
    with h5py.File(path, locking=False) as file:  # the handle that wrote still has the old mask
        expected = file["x"][...]
    assert (expected[4:8, : chunk[1]] == raw).all()
    source = open_store(path).sources["x"]
    assert same(read_all(source), expected)
    assert source.layout.coded is None  # rows of one chunk of three are not worth it


@pytest.mark.parametrize("count", [300, 20_000])
@pytest.mark.parametrize("width", [1, 37, 2000])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_rows_alone_in_any_order(tmp_path, count, width, chunk_rows):
    """Small rows come out of spans, large ones into their slots, repeats of both."""
    n_rows = 5_000 if width < 2000 else 300
    items = some_items("<i4", (n_rows, width), 5)
    path = tmp_path / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=items, chunks=chunk_rows and (chunk_rows, width))
    source = open_store(path).sources["x"]
    rng = np.random.default_rng(3)
    for rows in (
        rng.integers(0, n_rows, count if width < 2000 else 500),
        np.sort(rng.integers(0, n_rows, 100)),
        np.arange(n_rows),
        np.arange(n_rows)[::-1],
        np.full(10, n_rows - 1),
        np.array([0, n_rows - 1]),
        np.array([], dtype=np.int64),
    ):
        assert same(read_rows(source, rows), items[rows])


def test_rows_of_missing_chunks_are_the_fill_value(tmp_path):
    path = tmp_path / "missing.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (20, 3), "f4", chunks=(4, 3), fillvalue=2.5)
        dataset[4:8] = np.arange(12).reshape(4, 3)
        expected = dataset[...]
    rows = np.array([19, 5, 0, 7, 5])
    assert same(read_rows(open_store(path).sources["x"], rows), expected[rows])


def test_scaleoffset_goes_through_the_library(tmp_path):
    items = np.arange(60, dtype="<i4").reshape(20, 3)
    path = tmp_path / "scaleoffset.h5"
    with h5py.File(path, "w") as file:
        write_dataset(file, items, "<i4", (6, 2), ((SCALEOFFSET, ()),))
    source = open_store(path).sources["x"]
    assert (source.layout.kind, source.layout.parallel) == ("library", False)
    assert source.why == "scaleoffset is decoded by libhdf5 only"
    assert same(read_all(source), items)
    assert same(read_chunks(source, 1, 3), items[6:18])


def test_types_that_libhdf5_converts_go_through_it(tmp_path):
    """A 16-bit float that is not IEEE's, and 12 bits in 16: the bytes would be silently wrong."""
    bfloat16 = h5py.h5t.IEEE_F32LE.copy()
    bfloat16.set_fields(15, 7, 8, 0, 7)
    bfloat16.set_size(2)
    bfloat16.set_ebias(127)
    twelve = h5py.h5t.STD_I16LE.copy()
    twelve.set_precision(12)
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        for name, stored in ((b"bfloat16", bfloat16), (b"twelve", twelve)):
            dataset = h5py.h5d.create(file.id, name, stored, h5py.h5s.create_simple((5,)))
            h5py.Dataset(dataset)[...] = [1, -2, 3, 4, -5]
    with h5py.File(path) as file:
        for name, source in open_store(path).sources.items():
            assert source.layout.kind == "library"
            assert same(read_all(source), file[name][...])


@pytest.mark.parametrize("padding", ["STR_NULLTERM", "STR_SPACEPAD", "STR_NULLPAD"])
@pytest.mark.parametrize("chunks", [None, (4,)])
def test_strings_of_every_padding(tmp_path, padding, chunks):
    """After the NUL of a null-terminated string comes noise; spaces pad a space-padded one."""
    stored = h5py.h5t.C_S1.copy()
    stored.set_size(6)
    stored.set_strpad(getattr(h5py.h5t, padding))
    compound = h5py.h5t.create(h5py.h5t.COMPOUND, 12)
    compound.insert(b"number", 0, h5py.h5t.STD_I32LE)
    compound.insert(b"text", 5, stored)
    text = np.frombuffer(b"ab\0xyzabcdefa  b  \0\0\0\0\0\0      \0ab  c", "S6")
    assert len(text) == 6
    items = np.zeros(
        6,
        dtype={
            "names": ["number", "text"],
            "formats": ["<i4", "V6"],
            "offsets": [0, 5],
            "itemsize": 12,
        },
    )
    items["number"], items["text"] = np.arange(6), text.view("V6")
    path = tmp_path / "strings.h5"
    with h5py.File(path, "w") as file:
        for name, kind, raw in ((b"text", stored, text), (b"table", compound, items)):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if chunks:
                plist.set_chunk(chunks)
            space = h5py.h5s.create_simple((6,))
            dataset = h5py.h5d.create(file.id, name, kind, space, plist)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, kind)
    store = open_store(path)
    with h5py.File(path, locking=False) as file:
        for name in ("text", "table"):
            source = store.sources[name]
            assert source.layout.kind == ("chunked" if chunks else "contiguous")
            expected = file[name][...]
            assert same(read_all(source), expected)
            if source.layout.rows_alone:
                assert same(read_rows(source, [4, 0, 4]), expected[[4, 0, 4]])
