"""An HDF5 file as facts: what in it can be a source, where its bytes lie, and why the rest cannot.

h5py opens the file without a lock, is asked once, and lets it go.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import h5py
import numpy as np

from epochal.errors import UnsafeError
from epochal.stores.file import File
from epochal.stores.filters import Filter, describe, why_not
from epochal.stores.hdf5_attributes import (
    attributes_of_groups,
    axes_of,
    manifest_of,
    only_a_dimension,
)
from epochal.stores.hdf5_chunks import (
    MAX_CHUNKS,
    ChunkIndex,
    Refused,
    RefusedDamaged,
    RefusedUnsafe,
    addresses_hold,
    chunk_index,
    edges_are_plain,
)
from epochal.stores.hdf5_facts import (
    Chunked,
    Compact,
    Contiguous,
    Facts,
    FileFacts,
    Library,
    Shape,
    Virtual,
    Vlen,
    form_of_facts,
)
from epochal.stores.hdf5_file import BROKEN, check_unchanged, load_plugins, opened
from epochal.stores.hdf5_types import fixed_dtype, item_dtype, known_to_h5py, paddings_of
from epochal.stores.hdf5_virtual import check_beside, virtual_facts
from epochal.stores.hdf5_walk import Broken, address_of, walk
from epochal.stores.manifest import SOURCES, Form
from epochal.stores.store import KEPT_SUM, TRANSFORMS, Other, kept_besides

__all__ = ["form_in", "index_file"]


MAX_OBJECTS = 1_000_000
MAX_CHUNK_BYTES = 1 << 31
MAX_COMPACT_BYTES = 1 << 16
# An index is held whole: one that is much larger than its file describes chunks that are not there.
INDEX_BYTES_A_CHUNK, INDEX_FREE_BYTES, INDEX_TIMES_FILE = 16, 1 << 26, 16


@dataclass(frozen=True)
class _Rules:
    """What the caller allows. `raw` False reads everything through the library."""

    virtual: bool
    library: bool
    raw: bool = True


@dataclass(frozen=True)
class _File:
    file: File
    userblock_bytes: int
    rules: _Rules
    size_bytes_of_address: tuple[int, int] = (8, 8)


def index_file(
    file: File, *, allow: Collection[str] = (), untrusted: bool = False, raw: bool = True
) -> FileFacts:
    """Index an HDF5 file: a local one by libhdf5's own way of reading, another through `file`.

    Raises
    ------
    FormatError
        libhdf5 cannot open it.
    ChangedError
        It was written to meanwhile.
    """
    rules = _Rules("virtual" in allow, "library" in allow or not untrusted, raw)
    check_unchanged(file)
    with opened(file) as root:
        sizes = tuple(root.id.get_create_plist().get_sizes())
        context = _File(file, root.userblock_size, rules, sizes)
        sources, others, axes = _survey(root, context)
        groups = attributes_of_groups(root, [facts.name for facts in sources])
        noted = groups.get("", {}).pop(SOURCES, None)
    for name, names in axes.items():
        groups.setdefault(name, {})["dimension_names"] = names
    check_unchanged(file)
    return FileFacts(file, tuple(sources), tuple(others), groups, noted)


def _survey(file: Any, context: _File) -> tuple[list[Facts], list[Other], dict[str, list[str]]]:
    """Sources, the rest, and the names of axes by the source's path."""
    sources: list[Facts] = []
    others: list[Other] = []
    axes: dict[str, list[str]] = {}
    known: dict[tuple[int, int], Facts | Other] = {}
    for name, found in walk(file.id):
        if isinstance(found, str):
            others.append(Other(name, found, damaged=isinstance(found, Broken)))
            continue
        address = address_of(found)
        facts = known.get(address) if address else None
        if facts is None:
            facts = _kept(found, name) or _look(found, name, context)
            if address:
                known[address] = facts
        else:
            facts = replace(facts, name=name)
        if isinstance(facts, Other):
            others.append(facts)
        else:
            sources.append(facts)
            if names := axes_of(found):
                axes[name] = names
        if len(sources) + len(others) > MAX_OBJECTS:
            raise UnsafeError(
                f"{context.file.name}: more than {MAX_OBJECTS} objects: listing them has no bound"
            )
    return sources, others, axes


def _kept(dataset: Any, name: str) -> Other | None:
    """The transform that made the rows, where `epochal.convert` kept one."""
    if name.strip("/") != TRANSFORMS or not h5py.h5a.exists(dataset, KEPT_SUM.encode()):
        return None
    return kept_besides(name, dataset.shape)


def _look(dataset: Any, name: str, context: _File) -> Facts | Other:
    """Facts of one dataset; whatever is wrong with it is its own matter, the others stay usable."""
    shape: Shape | None = None
    dtype = ""
    try:
        _check_virtual(dataset, context)
        shape = dataset.shape
        dtype = _type_text(dataset)
        facts = _noted(dataset, name, context)
        if isinstance(facts, Library):
            known_to_h5py(dataset)
        return facts
    except Refused as refused:
        unsafe = isinstance(refused, RefusedUnsafe)
        damaged = isinstance(refused, RefusedDamaged)
        return Other(name, str(refused), shape, dtype, unsafe, damaged)
    except BROKEN as error:
        why = f"libhdf5 cannot read what describes it: {error}"
        return Other(name, why, shape, dtype, damaged=True)


def _type_text(dataset: Any) -> str:
    try:
        return str(dataset.dtype)
    except BROKEN:
        return ""


def _noted(dataset: Any, name: str, context: _File) -> Facts:
    """The facts with the checksums that a dataset carries. Those that are read through the library
    only because that was asked for are compared with nothing.
    """
    facts = _facts(dataset, name, context)
    if not context.rules.raw or isinstance(facts, Vlen | Virtual):
        return facts
    return replace(facts, manifest=manifest_of(dataset))


def _facts(dataset: Any, name: str, context: _File) -> Facts:
    space = dataset.get_space().get_simple_extent_type()
    if space == h5py.h5s.NULL:
        raise Refused("it has no data space: nothing is stored")
    if space == h5py.h5s.SCALAR or not dataset.shape:
        raise Refused("a scalar: it has no rows")
    if only_a_dimension(dataset):
        raise Refused("a dimension of netCDF without a variable: it holds nothing")
    if dataset.get_type().get_class() == h5py.h5t.VLEN:
        return _vlen(dataset, name, context)
    dtype = fixed_dtype(dataset)
    base = dtype.base
    facts = Facts(name, dataset.shape + dtype.shape, base)
    nbytes = prod(facts.shape) * base.itemsize
    if nbytes >= 1 << 63 or max(facts.shape) >= 1 << 62:
        raise RefusedUnsafe(f"its shape {facts.shape} is more than any machine can address")
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        return _virtual(dataset, plist, facts, context)
    if plist.get_external_count():
        raise RefusedUnsafe(
            "its data are in another file (external storage): not followed, nothing allows it"
        )
    if nbytes == 0:
        return Compact(facts.name, facts.shape, facts.dtype, b"")
    return _stored(dataset, plist, facts, dtype, context)


def _vlen(dataset: Any, name: str, context: _File) -> Facts:
    """Rows of varying length, if their items are numbers that lie in the file as NumPy has them."""
    kind = h5py.h5a.exists(dataset, b"PSEUDOATOM") and h5py.Dataset(dataset).attrs["PSEUDOATOM"]
    if kind:  # PyTables says what the bytes of its rows are
        text = kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind)
        if text == "object":
            raise RefusedUnsafe("its rows are pickled Python objects, which are never read")
        raise Refused(f"its rows are text of varying length ({text})")
    item = item_dtype(dataset)
    if not context.rules.raw:
        raise Refused("rows of varying length are not read through the library")
    if dataset.rank != 1:
        raise Refused(f"its items of varying length have {dataset.rank} axes; one is read")
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise RefusedUnsafe("rows of varying length in other files are not followed")
    held = 8 * prod(dataset.shape)
    if held > max(INDEX_FREE_BYTES, INDEX_TIMES_FILE * context.file.size_bytes):
        raise RefusedUnsafe(
            f"{dataset.shape[0]} rows of varying length, whose lengths would take {held} bytes, in "
            f"a file of {context.file.size_bytes} bytes"
        )
    if context.size_bytes_of_address != (8, 8) or plist.get_layout() == h5py.h5d.COMPACT:
        raise Refused("its references to rows are of a kind that is not read")
    if plist.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        raise Refused("rows of varying length with a fill value of their own are not read")
    reference = np.dtype("V16")
    facts = Facts(name, dataset.shape, reference)
    filters: tuple[Filter, ...] = ()
    if plist.get_layout() == h5py.h5d.CHUNKED:
        chunk, filters = plist.get_chunk(), _filters(plist)
        if why := why_not(filters):
            raise Refused(f"{why}, which rows of varying length do not take")
        references = (
            _chunked(dataset, plist, facts, chunk, filters, context)
            if prod(dataset.shape)
            else Compact(name, dataset.shape, reference, b"")
        )
    else:
        references = _unchunked(dataset, plist, facts, context)
    if isinstance(references, Library):
        raise Refused(references.why)
    return Vlen(name, dataset.shape, item, references, context.userblock_bytes)


def _stored(dataset: Any, plist: Any, facts: Facts, dtype: np.dtype, context: _File) -> Facts:
    chunked = plist.get_layout() == h5py.h5d.CHUNKED
    chunk = plist.get_chunk() + dtype.shape if chunked else ()
    filters = _filters(plist) if chunked else ()
    if chunked and prod(chunk) * facts.dtype.itemsize > MAX_CHUNK_BYTES:
        raise RefusedUnsafe(f"its chunks {chunk} are larger than {MAX_CHUNK_BYTES} bytes")
    paddings = paddings_of(dataset, dtype)
    why = _why_library(paddings, filters, context)
    if why or paddings is None:
        return _library(facts, chunk, filters, why, context)
    facts = replace(facts, paddings=paddings)
    if chunked:
        return _chunked(dataset, plist, facts, chunk, filters, context)
    return _unchunked(dataset, plist, facts, context)


def _why_library(paddings: object, filters: tuple[Filter, ...], context: _File) -> str:
    if not context.rules.raw:
        return "the library was asked for"
    if paddings is None:
        return "its stored type is converted by libhdf5"
    return why_not(filters)


def _filters(plist: Any) -> tuple[Filter, ...]:
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return tuple(Filter(number, tuple(cd)) for number, _, cd, _ in found)


def _check_virtual(dataset: Any, context: _File) -> None:
    """Refuse a virtual dataset that may not be read, before anything asks what it maps."""
    plist = dataset.get_create_plist()
    if plist.get_layout() != h5py.h5d.VIRTUAL:
        return
    if not context.rules.virtual:
        raise RefusedUnsafe(
            'a virtual dataset: it reads other files; allow=("virtual",) reads those beside it'
        )
    check_beside(plist, context.file)


def _virtual(dataset: Any, plist: Any, facts: Facts, context: _File) -> Facts:
    def look(mapped: Any, name: str, file: File, userblock_bytes: int) -> Facts:
        rules = replace(context.rules, virtual=False)
        try:
            _check_virtual(mapped, replace(context, rules=rules))
            there = replace(context, file=file, userblock_bytes=userblock_bytes, rules=rules)
            return _noted(mapped, name, there)
        except Refused as refused:
            raise type(refused)(f"it maps {name!r} of {file.name}: {refused}") from refused

    fill = _fill(plist, facts) if context.rules.raw else None
    found = virtual_facts(dataset, plist, facts, context.file, fill, look)
    if isinstance(found, Library) and not context.rules.library:
        raise RefusedUnsafe(
            "a virtual dataset of other than whole rows, which an untrusted file may not ask for; "
            'allow=("virtual", "library") reads it'
        )
    return found


def _library(
    facts: Facts, chunk: Shape, filters: tuple[Filter, ...], why: str, context: _File
) -> Facts:
    if not context.rules.library:
        raise RefusedUnsafe(
            f'{why}, which an untrusted file may not ask for; allow=("library",) reads it'
        )
    for each in filters:
        if not _registered(each.id):
            raise Refused(
                f"filter {each.id} ({each.label}) needs a plugin: pip install 'epochal[hdf5]'"
            )
    return Library(facts.name, facts.shape, facts.dtype, chunk, why, describe(filters))


def _registered(number: int) -> bool:
    if not h5py.h5z.filter_avail(number):
        load_plugins()
    return bool(h5py.h5z.filter_avail(number))


def _chunked(
    dataset: Any,
    plist: Any,
    facts: Facts,
    chunk: Shape,
    filters: tuple[Filter, ...],
    context: _File,
) -> Facts:
    n_chunks = prod(-(-n // c) for n, c in zip(facts.shape, chunk, strict=True))
    if n_chunks > MAX_CHUNKS:
        raise RefusedUnsafe(f"{n_chunks} chunks: more than {MAX_CHUNKS} are not indexed")
    index_bytes = n_chunks * INDEX_BYTES_A_CHUNK
    if index_bytes > max(INDEX_FREE_BYTES, INDEX_TIMES_FILE * context.file.size_bytes):
        return _library(facts, chunk, filters, f"{n_chunks} chunks in a small file", context)
    plain_edges = edges_are_plain(plist) if filters else False
    if plain_edges is None:
        return _library(
            facts, chunk, filters, "whether its edges are filtered cannot be told", context
        )
    fill = _fill(plist, facts)
    if fill is None:
        return _library(facts, chunk, filters, "its fill value is not of its own type", context)
    index = _index(dataset, facts.shape, chunk, context)
    if index is None:
        return _library(facts, chunk, filters, "this libhdf5 gives wrong addresses", context)
    base = facts.name, facts.shape, facts.dtype
    return Chunked(*base, chunk, filters, *index, fill, plain_edges, paddings=facts.paddings)


def form_in(dataset: Any, name: str) -> Form:
    """The form of a chunked dataset (`epochal.stores.forms`) as whoever opens it will find it.

    Parameters
    ----------
    dataset
        The `h5py.h5d.DatasetID`.
    name
        Which the form tells.
    """
    dtype = fixed_dtype(dataset)
    facts = Facts(name, dataset.shape + dtype.shape, dtype.base)
    plist = dataset.get_create_plist()
    chunk, filters = plist.get_chunk() + dtype.shape, _filters(plist)
    paddings, fill = paddings_of(dataset, dtype), _fill(plist, facts)
    base = facts.name, facts.shape, facts.dtype
    why = "its stored type is converted by libhdf5" if paddings is None else why_not(filters)
    if why or fill is None or paddings is None:
        found: Facts = Library(*base, chunk, why)
    else:
        none = np.zeros(0, np.int64), np.zeros(0, np.uint32), None
        plain = bool(filters) and bool(edges_are_plain(plist))
        found = Chunked(*base, chunk, filters, *none, fill, plain, paddings=paddings)
    return {"name": name, **form_of_facts(found)}


def _index(dataset: Any, shape: Shape, chunk: Shape, context: _File) -> ChunkIndex | None:
    ndim = dataset.rank  # fewer axes than `shape` where items are arrays
    file_bytes = context.file.size_bytes
    index = chunk_index(dataset, shape[:ndim], chunk[:ndim], file_bytes)
    if not context.userblock_bytes:
        return index
    return (
        index if addresses_hold(dataset, context.file, shape[:ndim], chunk[:ndim], index) else None
    )


def _fill(plist: Any, facts: Facts) -> bytes | None:
    """The bytes of one item where nothing is stored; None where that takes a conversion."""
    if (
        plist.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
        or plist.get_fill_time() == h5py.h5d.FILL_TIME_NEVER
    ):
        return bytes(facts.dtype.itemsize)
    if plist.fill_value_defined() == h5py.h5d.FILL_VALUE_DEFAULT:
        return bytes(facts.dtype.itemsize)
    value = np.zeros((), dtype=facts.dtype)
    try:
        plist.get_fill_value(value)
    except BROKEN:
        return None
    return value.tobytes()


def _unchunked(dataset: Any, plist: Any, facts: Facts, context: _File) -> Facts:
    nbytes = prod(facts.shape) * facts.dtype.itemsize
    base = facts.name, facts.shape, facts.dtype
    stored = dataset.get_storage_size()
    if stored == 0:  # its offset means nothing then: with a user block it is not even None
        fill = _fill(plist, facts)
        return (
            Library(*base, (), "fill value")
            if fill is None
            else Compact(*base, fill, repeated=True)
        )
    if stored < nbytes:
        raise RefusedDamaged(f"{stored} bytes are stored where its shape takes {nbytes}")
    if plist.get_layout() == h5py.h5d.COMPACT:
        if nbytes > MAX_COMPACT_BYTES:
            raise RefusedDamaged(
                f"{nbytes} bytes in a layout that holds {MAX_COMPACT_BYTES} at most"
            )
        return Compact(*base, h5py.Dataset(dataset)[...].tobytes())
    offset = dataset.get_offset()
    if offset is None or offset > context.file.size_bytes - nbytes:
        raise RefusedDamaged(
            f"it lies at {offset} and has {nbytes} bytes "
            f"in a file of {context.file.size_bytes} bytes"
        )
    return Contiguous(*base, offset, paddings=facts.paddings)
