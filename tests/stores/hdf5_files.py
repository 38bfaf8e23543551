"""Files that the tests of the HDF5 store write, and what they compare them by."""

import ctypes
from math import prod

import h5py
import hdf5plugin
import numpy as np

DONT_FILTER_PARTIAL_CHUNKS = 2

# Each a chain of (filter number, client data); applied in this order.
GZIP, SHUFFLE, FLETCHER32, SZIP, SCALEOFFSET, LZF = 1, 2, 3, 4, 6, 32000
BLOSC2_UNSUPPORTED = 35  # a filter of a Blosc 2 plugin


def plugin(chosen):
    return int(chosen.filter_id), tuple(chosen.filter_options)


CHAINS = {
    "none": (),
    "gzip": ((GZIP, (4,)),),
    "shuffle + gzip": ((SHUFFLE, ()), (GZIP, (1,))),
    "shuffle": ((SHUFFLE, ()),),
    "fletcher32": ((FLETCHER32, ()),),
    "fletcher32 first": ((FLETCHER32, ()), (SHUFFLE, ()), (GZIP, (6,))),
    "fletcher32 last": ((SHUFFLE, ()), (GZIP, (6,)), (FLETCHER32, ())),
    "gzip, then shuffle": ((GZIP, (6,)), (SHUFFLE, ())),
    "lzf": ((LZF, ()),),
    "shuffle + lzf": ((SHUFFLE, ()), (LZF, ())),
    "szip": ((SZIP, ()),),
    "blosc": (plugin(hdf5plugin.Blosc(cname="lz4", shuffle=1)),),
    "blosc zstd bits": (plugin(hdf5plugin.Blosc(cname="zstd", clevel=9, shuffle=2)),),
    "blosc stored": (plugin(hdf5plugin.Blosc(cname="zlib", clevel=0)),),
    "blosc2": (plugin(hdf5plugin.Blosc2(cname="zstd")),),
    "blosc2 bits": (plugin(hdf5plugin.Blosc2(cname="lz4", clevel=9, filters=2)),),
    "blosc2 delta": (plugin(hdf5plugin.Blosc2(cname="blosclz", filters=3)),),
    "lz4": (plugin(hdf5plugin.LZ4()),),
    "lz4 small blocks": (plugin(hdf5plugin.LZ4(nbytes=32)),),
    "zstd": (plugin(hdf5plugin.Zstd(clevel=2)),),
    "shuffle + zstd": ((SHUFFLE, ()), plugin(hdf5plugin.Zstd())),
    "bzip2": (plugin(hdf5plugin.BZip2(blocksize=1)),),
    "bitshuffle": (plugin(hdf5plugin.Bitshuffle(cname="none")),),
    "bitshuffle lz4": (plugin(hdf5plugin.Bitshuffle(cname="lz4")),),
    "bitshuffle lz4 small blocks": (plugin(hdf5plugin.Bitshuffle(nelems=8, cname="lz4")),),
    "bitshuffle zstd": (plugin(hdf5plugin.Bitshuffle(nelems=16, cname="zstd")),),
}

DTYPES = {
    "u1": np.dtype("u1"),
    "big-endian i2": np.dtype(">i2"),
    "f2": np.dtype("f2"),
    "f4": np.dtype("<f4"),
    "big-endian f8": np.dtype(">f8"),
    "bool": np.dtype(bool),
    "complex": np.dtype("c8"),
    "enum": h5py.enum_dtype({"A": 0, "B": 1, "C": 2, "D": 3}, basetype="<i4"),
    "string": np.dtype("S5"),
    "opaque": np.dtype("V7"),
    "time": h5py.opaque_dtype(np.dtype("M8[s]")),
    "compound": np.dtype([("a", "<i2"), ("b", ">f4"), ("c", "S3")]),
    "padded compound": np.dtype([("a", "u1"), ("b", "<f8"), ("c", "<c16")], align=True),
    "array": np.dtype(("<i2", (2, 3))),
    "compound of arrays": np.dtype([("a", "<i2", (3,)), ("b", bool)]),
}


def some_items(dtype, shape, seed):
    """Items of any bytes that the type can have, alike enough to compress."""
    dtype = np.dtype(dtype)
    count = prod(shape) * prod(dtype.shape)
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 2, count * dtype.base.itemsize, dtype="u1")
    return np.ascontiguousarray(raw.view(dtype.base).reshape((*shape, *dtype.shape)))


def write_dataset(
    file,
    data,
    dtype,
    chunk,
    chain,
    *,
    name="x",
    resizable=False,
    fill=None,
    fill_time=None,
    plain_edges=False,
    written=None,
):
    """A chunked dataset made by h5py's low calls, since its high ones fix the order of filters.

    `written` is the number of leading rows that are written at all.
    """
    dtype = np.dtype(dtype)
    shape = data.shape[: data.ndim - len(dtype.shape)]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunk)
    for number, client_data in chain:
        add_filter(plist, number, client_data)
    if fill is not None:
        plist.set_fill_value(fill)
    if fill_time is not None:
        plist.set_fill_time(fill_time)
    if plain_edges:
        set_chunk_options(plist, DONT_FILTER_PARTIAL_CHUNKS)
    limits = (h5py.h5s.UNLIMITED,) * len(shape) if resizable else shape
    space = h5py.h5s.create_simple(shape, limits)
    stored = h5py.h5t.py_create(dtype, logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), stored, space, plist))
    rows = shape[0] if written is None else min(written, shape[0])
    if data[:rows].size:
        dataset[:rows] = data[:rows]
    return dataset


def add_filter(plist, number, client_data):
    optional = h5py.h5z.FLAG_OPTIONAL
    if number == SHUFFLE:
        plist.set_shuffle()
    elif number == FLETCHER32:
        plist.set_fletcher32()
    elif number == SZIP:
        plist.set_szip(h5py.h5z.SZIP_NN_OPTION_MASK, 8)
    elif number == SCALEOFFSET:
        plist.set_scaleoffset(h5py.h5z.SO_INT, 0)
    else:
        plist.set_filter(number, optional, client_data)


def set_chunk_options(plist, options):
    """``H5Pset_chunk_opts``, which h5py does not wrap."""
    call = ctypes.CDLL(h5py.h5p.__file__).H5Pset_chunk_opts
    call.argtypes = [ctypes.c_int64, ctypes.c_uint]
    assert call(plist.id, options) >= 0


def read_chunks(source, start, stop):
    """The rows of the chunks ``[start, stop)``, into memory that was something else before."""
    layout = source.layout
    rows = layout.bounds(stop - 1)[1] - layout.bounds(start)[0] if start < stop else 0
    out = dirty((rows, *layout.row_shape), layout.dtype)
    source.read(start, stop, out)
    return out


def read_all(source):
    return read_chunks(source, 0, source.layout.n_chunks)


def read_rows(source, rows):
    out = dirty((len(rows), *source.layout.row_shape), source.layout.dtype)
    source.read_rows(np.asarray(rows, dtype=np.int64), out)
    return out


def dirty(shape, dtype):
    out = np.empty(shape, dtype)
    if out.nbytes:
        out.reshape(-1).view("u1")[:] = 0xA5
    return out


def same(ours, theirs):
    """Equal bit for bit, but for what pads a compound."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.dtype.names:
        return all(same(ours[name], theirs[name]) for name in ours.dtype.names)
    return ours.tobytes() == np.ascontiguousarray(theirs).tobytes()
