"""HDF5 files as containers: libhdf5 keeps the index, chunks are compressed outside it.

The file is what ``h5dump`` and every HDF5 library since 1.8 read: version 0 superblock, B-tree
indexes, no times in it, so that the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, EpochalError, MismatchError, SourceNameError
from epochal.stores.codecs import Undecodable
from epochal.stores.filters import Filter, Pipeline, why_not
from epochal.stores.hdf5_index import form_in
from epochal.stores.manifest import (
    SOURCES,
    Manifest,
    crc32,
    forget_sums,
    is_manifest_attribute,
    manifest_attributes,
    manifest_from_attributes,
    names_after,
    names_text,
)
from epochal.stores.store import KEPT_SUM
from epochal.writing.container import Bytes, Encode, Progress
from epochal.writing.encode import ChunkEncoder, Encoder, chain_for
from epochal.writing.flavour import Flavour
from epochal.writing.journal import recover
from epochal.writing.spec import Compression, SourceSpec
from epochal.writing.transaction import Transaction

__all__ = ["HDF5Container", "recover", "specs_in"]

SO_FAR = "epochal_rows"  # an attribute of a file that is not whole yet


class HDF5Container:
    """One HDF5 file that is being written (`epochal.writing.container.Container`).

    Made by `create`, `resume` and `open_to_append`.
    """

    def __init__(self, path: str, specs: Sequence[SourceSpec], flavour: Flavour) -> None:
        self._path = path
        self._specs = {spec.name: spec for spec in specs}
        self._flavour = flavour
        self._pipelines: dict[str, Pipeline] = {}
        self._reach: dict[str, int] = {}
        self._transaction = Transaction(path)
        self._file: Any = None

    @classmethod
    def create(
        cls, path: str, specs: Sequence[SourceSpec], rows: int | None, flavour: Flavour
    ) -> HDF5Container:
        """A new file with sources that have no rows yet."""
        for spec in specs:
            flavour.check(spec)
        container = cls(path, specs, flavour)
        try:
            container._open("w")
            with container._naming():
                for spec in specs:
                    container._make(spec, rows)
                flavour.mark_file(container._file)
            container._prepare()
        except BaseException:
            container.abandon()
            raise
        return container

    @classmethod
    def resume(
        cls, path: str, specs: Sequence[SourceSpec], flavour: Flavour
    ) -> tuple[HDF5Container, Progress]:
        """A file whose writer was killed, as it was at its last checkpoint."""
        recover(path)
        container = cls(path, specs, flavour)
        try:
            container._open("r+")
            container._prepare()
            return container, container._progress()
        except (OSError, KeyError, RuntimeError) as error:
            container.abandon()
            raise DamageError(f"{path}: a writer left it before it was a file: {error}") from error

    @classmethod
    def open_to_append(cls, path: str, specs: Sequence[SourceSpec]) -> HDF5Container:
        """A whole file, to grow: until `save` its rows are what they were."""
        container = cls(path, specs, Flavour(_flavour_in(path)))
        container._open("r+")
        container._prepare()
        return container

    def _open(self, mode: str) -> None:
        with self._naming():
            self._file = h5py.File(self._transaction, mode, libver="earliest", rdcc_nbytes=0)

    def _naming(self) -> _Naming:
        return _Naming(self._transaction)

    def _make(self, spec: SourceSpec, rows: int | None) -> None:
        """A dataset whose chunks are put as they are given: nothing is filled in by libhdf5."""
        name = spec.name.strip("/")
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise SourceNameError(f"source name {spec.name!r}: give a path such as 'train/X'")
        fixed = self._flavour.is_fixed(spec, rows)
        shape = (rows if fixed else 0, *spec.row_shape)
        most = (rows if fixed else None, *spec.row_shape)
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((spec.chunk_rows, *spec.row_shape))
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        creation.set_obj_track_times(False)
        for each in chain_for(spec.compression, spec.dtype.itemsize, spec.chunk_bytes):
            # Optional: so that libhdf5 makes a dataset whose filter it lacks.
            creation.set_filter(each.id, h5py.h5z.FLAG_OPTIONAL, each.cd)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        links.set_char_encoding(h5py.h5t.CSET_UTF8)
        space = h5py.h5s.create_simple(
            shape, tuple(h5py.h5s.UNLIMITED if n is None else n for n in most)
        )
        kind = self._flavour.file_type(spec)
        try:
            made = h5py.h5d.create(self._file.id, name.encode(), kind, space, creation, lcpl=links)
        except (ValueError, RuntimeError, KeyError) as error:
            raise SourceNameError(f"source {spec.name!r} cannot be made: {error}") from error
        self._flavour.mark_source(h5py.Dataset(made), spec, fixed=fixed)

    def _prepare(self) -> None:
        """What turns chunks into stored bytes and back, by source."""
        for name, spec in self._specs.items():
            dataset = self._dataset(name)
            filters = filters_of(dataset)
            self._pipelines[name] = Pipeline(filters, spec.chunk_bytes)
            self._reach[name] = dataset.shape[0]

    def _dataset(self, name: str) -> Any:
        return self._file[name]

    def encoder(self, source: str) -> Encode:
        """See `Container`. No filter is left out: `check` refuses a chain that cannot be done."""
        filters = filters_of(self._dataset(source))
        return ChunkEncoder(filters, self._specs[source].chunk_rows)

    def put(self, source: str, chunk: int, stored: Bytes) -> None:
        """See `Container`."""
        first = chunk * self._specs[source].chunk_rows
        dataset = self._dataset(source)
        with self._naming():
            if first >= self._reach[source]:
                # As little as needed: libhdf5 would decode a chunk that it has to cut.
                dataset.resize(first + 1, axis=0)
                self._reach[source] = first + 1
            origin = (first,) + (0,) * (dataset.ndim - 1)
            dataset.id.write_direct_chunk(origin, stored, 0)

    def get(self, source: str, chunk: int, out: NDArray[Any]) -> None:
        """See `Container`."""
        spec, dataset = self._specs[source], self._dataset(source)
        origin = (chunk * spec.chunk_rows,) + (0,) * (dataset.ndim - 1)
        whole = np.empty(spec.chunk_bytes, np.uint8)
        if dataset.id.get_chunk_info_by_coord(origin).byte_offset is None:
            out[...] = _fill_of(dataset)
            return
        with self._naming():
            mask, stored = dataset.id.read_direct_chunk(origin)
        try:
            self._pipelines[source].decode(np.frombuffer(stored, np.uint8), mask, whole)
        except Undecodable as error:
            last = origin[0] + spec.chunk_rows - 1
            raise DamageError(
                f"{self._path}: source {source!r}, chunk {chunk}, rows {origin[0]} to {last}: "
                f"{error}. The file is damaged there: restore it from a copy"
            ) from error
        flat = out.reshape(-1).view(np.uint8)
        flat[:] = whole[: len(flat)]

    def save(self, progress: Progress, *, final: bool) -> None:
        """See `Container`."""
        sums = progress.sums or {}
        with self._naming():
            for name in self._specs:
                dataset = self._dataset(name)
                if dataset.shape[0] < progress.rows:
                    dataset.resize(progress.rows, axis=0)
                    self._reach[name] = progress.rows
                if final:
                    self._flavour.mark_rows(dataset)
                    set_manifest(dataset, sums.get(name), name)
            if final:
                note_names(self._file, self._path, self._specs, sums)
            self._note_rows(None if final else progress.rows)
            if final:
                self._flavour.set_attributes(self._file, progress.attrs)
                for name, data in progress.kept.items():
                    keep(self._file, name, data)
            self._file.close()
            if final:
                forget_sums(self._path, self._specs)
            self._transaction.commit()
        if final:
            self._transaction.close()
        else:
            self._open("r+")

    def _note_rows(self, rows: int | None) -> None:
        """How far datasets are of which the shape does not tell; None takes the note away."""
        if SO_FAR in self._file.attrs:
            del self._file.attrs[SO_FAR]
        fixed = any(self._dataset(name).maxshape[0] is not None for name in self._specs)
        if rows is not None and fixed:
            self._file.attrs[SO_FAR] = rows

    def abandon(self) -> None:
        """See `Container`."""
        try:
            if self._file:
                self._file.close()
        except (OSError, RuntimeError, ValueError):
            pass  # it cannot write any more, and need not
        self._transaction.rollback()
        self._transaction.close()

    def _progress(self) -> Progress:
        """How far the file is; the sums of chunks that are stored are computed anew."""
        so_far = int(self._file.attrs.get(SO_FAR, 0))
        done = []
        sums: dict[str, NDArray[np.uint32]] = {}
        for name, spec in self._specs.items():
            dataset = self._dataset(name)
            done.append(int(dataset.shape[0]) if dataset.maxshape[0] is None else so_far)
            stored = dataset.id.get_num_chunks()
            sums[name] = np.zeros(stored, np.uint32)
            for chunk in range(stored):
                origin = (chunk * spec.chunk_rows,) + (0,) * (dataset.ndim - 1)
                sums[name][chunk] = crc32(
                    np.frombuffer(dataset.id.read_direct_chunk(origin)[1], np.uint8)
                )
        return Progress(min(done, default=0), sums)


class _Naming:
    """A context that ends with the error that the transaction met, whatever libhdf5 made of it:
    mostly nothing, since it is not told.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        first = self._transaction.error
        if first is not None and not isinstance(error, EpochalError):
            raise first from error


def keep(file: Any, name: str, data: bytes) -> None:
    """Keep some bytes in a file, as an array beside its sources, with their CRC-32."""
    if name in file:
        del file[name]
    held = np.frombuffer(data, np.uint8)
    file.create_dataset(name, data=held).attrs[KEPT_SUM] = np.uint32(crc32(held))


def _flavour_in(path: str) -> str:
    with h5py.File(path, "r") as file:
        return "pytables" if "PYTABLES_FORMAT_VERSION" in file.attrs else "hdf5"


def _fill_of(dataset: Any) -> Any:
    """An item where others have stored nothing."""
    try:
        return dataset.fillvalue
    except RuntimeError:  # h5py, of one that is not defined
        return np.zeros((), dataset.dtype)


def filters_of(dataset: Any) -> tuple[Filter, ...]:
    """The filter chain of a dataset."""
    creation = dataset.id.get_create_plist()
    found = (creation.get_filter(k) for k in range(creation.get_nfilters()))
    return tuple(Filter(code, tuple(values)) for code, _, values, _ in found)


def set_manifest(dataset: Any, sums: NDArray[np.uint32] | None, source: str) -> None:
    """Replace the manifest of a dataset; None takes it away."""
    for name in list(dataset.attrs):
        if is_manifest_attribute(name):
            del dataset.attrs[name]
    if sums is not None:
        manifest = Manifest(sums, form=form_in(dataset.id, source.strip("/")))
        for name, value in manifest_attributes(manifest).items():
            dataset.attrs[name] = value


def note_names(file: Any, path: str, written: Iterable[str], sums: Collection[str]) -> None:
    """Let the root name the sources that were written, where there are `sums` of them."""
    names = {name.strip("/"): name in sums for name in written}
    text = names_text(names_after(file.attrs.get(SOURCES), path, names))
    if SOURCES in file.attrs:
        del file.attrs[SOURCES]
    if text is not None:
        file.attrs[SOURCES] = np.bytes_(text)


def specs_in(
    path: str, names: Sequence[str], *, grows: bool = True
) -> tuple[list[SourceSpec], Progress]:
    """What datasets of a file look like to a writer, and how far they are: one that appends to
    them, or, where nothing `grows`, one that replaces chunks.

    Raises
    ------
    MismatchError
        One cannot grow, or cannot be written outside libhdf5.
    """
    specs, sums = [], {}
    lengths: dict[str, int] = {}
    with h5py.File(path, "r") as file:
        for name in names:
            dataset = file[name]
            specs.append(_spec_of(path, name, dataset, grows=grows))
            lengths[name] = dataset.shape[0]
            manifest = manifest_from_attributes(manifest_part(dataset))
            n_chunks = -(-dataset.shape[0] // dataset.chunks[0])
            if manifest is not None and manifest.fits(n_chunks):
                sums[name] = manifest.sums
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise MismatchError(f"{path}: sources of one dataset have equally many rows: {told}")
    rows = next(iter(lengths.values()), 0)
    return specs, Progress(rows, sums if len(sums) == len(specs) else None)


def manifest_part(dataset: Any) -> dict[str, Any]:
    """The attributes of a dataset that are its manifest's."""
    return {name: dataset.attrs[name] for name in dataset.attrs if is_manifest_attribute(name)}


def _spec_of(path: str, name: str, dataset: Any, *, grows: bool) -> SourceSpec:
    what = f"{path}: {name!r} cannot {'grow' if grows else 'be changed in place'}"
    remedy = "epochal convert writes a file that can"
    if dataset.chunks is None:
        raise MismatchError(f"{what}: it is stored in one piece, not in chunks; {remedy}")
    if grows and dataset.maxshape[0] is not None:
        raise MismatchError(
            f"{what}: it was made with at most {dataset.maxshape[0]} rows (maxshape); {remedy}"
        )
    if dataset.chunks[1:] != dataset.shape[1:]:
        raise MismatchError(
            f"{what}: its chunks {dataset.chunks} cut its rows {dataset.shape[1:]}; {remedy}"
        )
    filters = filters_of(dataset)
    why = why_not(filters)
    _, mask = Encoder(filters)(np.zeros(dataset.dtype.itemsize * 64, np.uint8))
    if why or mask:
        raise MismatchError(f"{what}: {why or 'one of its filters can only be undone'}; {remedy}")
    return SourceSpec(name, dataset.shape[1:], dataset.dtype, dataset.chunks[0], Compression(None))
