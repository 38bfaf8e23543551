"""Zarr 3 as a container: a group in a local folder, a file a chunk, its metadata consolidated.

A store that is being written has a folder of its own, so its chunks are simply put. What was saved
once, by `save` or by whoever published the store, changes by the journal of
`epochal.writing.folder` alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, FormatError, MismatchError
from epochal.stores.blosc import Undecodable
from epochal.stores.kept import ZARR_CHUNK
from epochal.stores.manifest import (
    Manifest,
    crc32,
    forget_sums,
    manifest_from_json,
    manifest_json,
    names_after,
    names_text,
)
from epochal.stores.store import KEPT_SUM
from epochal.stores.zarr_codecs import Unreadable
from epochal.stores.zarr_meta import parse_json
from epochal.stores.zarr_store import form_of_meta
from epochal.writing import folder
from epochal.writing.container import Bytes, Encode, Progress
from epochal.writing.disk import remove, writing_to
from epochal.writing.encode import as_stored
from epochal.writing.spec import Compression, SourceSpec
from epochal.writing.structures import packed
from epochal.writing.zarr_array import document, encoder, meta_of, spec_of

__all__ = ["APPENDING", "ZarrContainer", "recover", "specs_in"]

DOCUMENT = "zarr.json"
MANIFEST = "epochal"  # the attribute of an array that holds its manifest; the root's has names
APPENDING = ".epochal-appending"  # there while a writer adds to a store that was published
Document = dict[str, Any]
recover = folder.recover


class ZarrContainer:
    """A store that is being written (`epochal.writing.container.Container`).

    Made by `create`, `resume` and `open_to_append`.
    """

    def __init__(
        self,
        path: str,
        root: Document,
        arrays: Mapping[str, Document],
        rows: int,
        *,
        published: bool,
    ) -> None:
        self._path, self._root, self._published = path, root, published
        self._arrays = {
            name: _Array(path, name, _path_of(root, name), found) for name, found in arrays.items()
        }
        self._rows = rows  # that are safe: only the journal changes their chunks
        self._staged: set[str] = set()

    @classmethod
    def create(cls, path: str, specs: Sequence[SourceSpec], rows: int | None) -> ZarrContainer:
        """A new store with sources that have no rows yet.

        Raises
        ------
        MismatchError, SourceNameError
            Of a dtype, a compression or a name that Zarr has no form for.
        """
        folder.check_names([spec.name for spec in specs], (DOCUMENT,))
        arrays = {spec.name: document(spec, 0) for spec in specs}
        root = _new_root([*arrays])
        groups = dict(_listed(root) or {})
        with writing_to(path):
            os.mkdir(path)
            for key, text in {**_texts(root, groups), **_texts(root, arrays)}.items():
                folder.write_file(os.path.join(path, key), text.encode())
        return cls(path, root, arrays, 0, published=False)

    @classmethod
    def resume(cls, path: str) -> tuple[ZarrContainer, Progress]:
        """A store whose writer was killed, as it was when it was last saved.

        Raises
        ------
        DamageError
            It was never saved, or is not what a writer leaves.
        """
        with writing_to(path):
            recover(path)
        try:
            root, arrays = _documents(path, None)
        except (MismatchError, FormatError) as error:
            raise DamageError(
                f"{path}: an interrupted writer left it before it was a store: {error}. Remove it "
                "and begin anew"
            ) from error
        state = Path(path, folder.STATE)
        if not state.exists() and any(found["shape"][0] for found in arrays.values()):
            # Killed when all was done but to publish it.
            _, progress = specs_in(path, [*arrays])
            attributes = root.get("attributes") or {}
            progress.attrs = {key: attributes[key] for key in attributes if key != MANIFEST}
        else:
            data = state.read_bytes() if state.exists() else b""
            progress, _ = folder.progress_from(data, path)
        container = cls(path, root, arrays, progress.rows, published=False)
        container._clean()
        return container, progress

    @classmethod
    def open_to_append(cls, path: str, specs: Sequence[SourceSpec]) -> ZarrContainer:
        """A whole store, to grow: until `save` its rows are what they were, wherever the process is
        killed.
        """
        with writing_to(path):
            recover(path)
            root, arrays = _documents(path, [spec.name for spec in specs])
            rows = {int(found["shape"][0]) for found in arrays.values()}
            assert len(rows) == 1, "specs_in has looked at them"
            container = cls(path, root, arrays, rows.pop(), published=True)
            mark = os.path.join(path, APPENDING)
            if os.path.exists(mark):
                container._clean()  # after one that was killed
            folder.write_file(mark, b"", sync=True)
        return container

    def encoder(self, source: str) -> Encode:
        """See `Container`."""
        return self._arrays[source].encoder

    def put(self, source: str, chunk: int, stored: Bytes) -> None:
        """See `Container`. A chunk that holds safe rows is put beside the one that is there."""
        key = self._arrays[source].key(chunk)
        path = os.path.join(self._path, key)
        if chunk * self._arrays[source].spec.chunk_rows < self._rows:
            self._staged.add(key)
            path = folder.staged_name(path)
        with writing_to(self._path):
            folder.write_file(path, stored)

    def get(self, source: str, chunk: int, out: NDArray[Any]) -> None:
        """See `Container`."""
        array = self._arrays[source]
        key = array.key(chunk)
        path = os.path.join(self._path, key)
        try:
            data = Path(folder.staged_name(path) if key in self._staged else path).read_bytes()
        except FileNotFoundError:  # others leave out chunks of nothing but the fill value
            out[...] = array.fill
            return
        try:
            out[...] = array.decode(data)[: len(out)]
        except Undecodable as error:
            first = chunk * array.spec.chunk_rows
            raise DamageError(
                f"{self._path}: source {source!r}, chunk {chunk}, rows {first} to "
                f"{first + len(out) - 1}: {error}. The array is damaged there: restore it from a "
                "copy"
            ) from error

    def save(self, progress: Progress, *, final: bool) -> None:
        """See `Container`. Of a published store each `save` makes its rows part of it.

        Costs a ``syncfs``, and a small file a source.
        """
        if final or self._published:
            for name, array in self._arrays.items():
                array.grow(
                    progress.rows, None if progress.sums is None else progress.sums.get(name)
                )
            documents = {array.path: array.document for array in self._arrays.values()}
            holder = documents.get("", self._root)
            holder.setdefault("attributes", {}).update(folder.json_value(progress.attrs))
            if holder is self._root:
                self._note_names(progress.sums or {})
            texts = _texts(self._root, documents)
        else:
            texts = {folder.STATE: folder.progress_json(progress)}
        removed = (folder.STATE, APPENDING) if final else ()
        with writing_to(self._path):
            if final:
                for name, data in progress.kept.items():
                    _keep(os.path.join(self._path, name), name, np.frombuffer(data, np.uint8))
            folder.sync_all(self._path)
            if self._published:
                forget_sums(self._path, self._arrays)
            folder.commit(self._path, sorted(self._staged), texts, removed)
        self._staged.clear()
        self._rows = progress.rows

    def _note_names(self, sums: Collection[str]) -> None:
        """Let the root name the sources that were written, where there are `sums` of them."""
        attributes = self._root["attributes"]
        names = {name: name in sums for name in self._arrays}
        text = names_text(names_after(attributes.pop(MANIFEST, None), self._path, names))
        if text is not None:
            attributes[MANIFEST] = text

    def abandon(self) -> None:
        """See `Container`. A published store is as it was when it was last saved."""
        if self._published:
            with writing_to(self._path):
                self._clean()
                remove(os.path.join(self._path, APPENDING))

    def _clean(self) -> None:
        """Remove chunks that hold no safe row, and what would have replaced others."""
        self._staged.clear()
        for array in self._arrays.values():
            array.clean(self._rows)
        for each in os.scandir(self._path):
            if each.name.startswith(folder.STAGED):
                os.unlink(each.path)


def _keep(path: str, name: str, data: Bytes) -> None:
    """Bytes as an array of their own, which consolidated metadata do not tell of."""
    spec = SourceSpec(name, (), data.dtype, max(len(data), 1), Compression(None))
    told = document(spec, len(data)) | {"attributes": {KEPT_SUM: crc32(data)}}
    folder.write_file(os.path.join(path, ZARR_CHUNK), data)
    folder.write_file(os.path.join(path, "zarr.json"), json.dumps(told).encode())


class _Encoder:
    """What is stored of some rows: zeros make them a chunk. Picklable."""

    def __init__(self, found: Document, dtype: np.dtype, chunk_rows: int) -> None:
        self._how = {"codecs": found.get("codecs", [])}, dtype, chunk_rows
        self._encode = encoder(found)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Encoder, self._how

    def __call__(self, rows: NDArray[Any]) -> Bytes:
        _, dtype, chunk_rows = self._how
        data = self._encode(as_stored(np.asarray(rows, dtype=dtype), chunk_rows))
        return data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)


class _Array:
    """One array: its document, and how its chunks are coded and named."""

    def __init__(self, store: str, name: str, path: str, found: Document) -> None:
        self.document, self.path = found, path
        self._meta = meta_of(found)
        self.spec = spec_of(name, found)
        self._folder = os.path.join(store, path)
        self._dtype = packed(self._meta.dtype)
        self.encoder = _Encoder(found, self._dtype, self.spec.chunk_rows)
        self._pipeline = self._meta.pipeline()
        self._rest = ("0",) * (len(self._meta.shape) - 1)

    @property
    def fill(self) -> Any:
        """An item where nothing is stored."""
        return np.frombuffer(self._meta.fill, self._meta.dtype)[0]

    def key(self, chunk: int) -> str:
        """The file of a chunk, in the store's folder."""
        name = self._meta.prefix + self._meta.separator.join((str(chunk), *self._rest))
        return os.path.join(self.path, name)

    def decode(self, data: bytes) -> NDArray[Any]:
        """The rows of a chunk, those that pad it among them."""
        return self._pipeline.decode(np.frombuffer(data, np.uint8))

    def grow(self, rows: int, sums: NDArray[np.uint32] | None) -> None:
        """Change the document: so many rows, and the sums of their chunks."""
        self.document["shape"] = [rows, *self.spec.row_shape]
        attributes = self.document.setdefault("attributes", {})
        attributes.pop(MANIFEST, None)
        if sums is not None:
            form = form_of_meta(meta_of(self.document))
            attributes[MANIFEST] = manifest_json(Manifest(sums, form=form))

    def clean(self, rows: int) -> None:
        """Remove chunks past the first so many rows, and what would have replaced others."""
        n_chunks = -(-rows // self.spec.chunk_rows)
        nested = self._meta.separator == "/"
        base = os.path.join(self._folder, "c") if nested and self._meta.prefix else self._folder
        stem = "" if nested else self._meta.prefix
        for each in list(os.scandir(base)) if os.path.isdir(base) else ():
            number = each.name[len(stem) :].partition(self._meta.separator)[0]
            theirs = each.name.startswith(stem) and number.isascii() and number.isdigit()
            if theirs and int(number) >= n_chunks:
                shutil.rmtree(each.path) if each.is_dir() else os.unlink(each.path)
        for path, _, files in os.walk(self._folder):
            for name in files:
                if name.startswith(folder.STAGED):
                    os.unlink(os.path.join(path, name))


def _group() -> Document:
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def _new_root(names: Sequence[str]) -> Document:
    """The root's document, which says it all once more: one read opens a store.

    As zarr-python writes it; the specification leaves it to implementations.
    """
    groups = {str(parent): _group() for name in names for parent in PurePath(name).parents}
    groups.pop(".", None)
    inline = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(groups.items()))}
    return {**_group(), "consolidated_metadata": inline}


def _listed(root: Document) -> dict[str, Document] | None:
    """The consolidated documents by path, to be changed in place; None where there are none."""
    listed = (root.get("consolidated_metadata") or {}).get("metadata")
    return listed if isinstance(listed, dict) else None


def _texts(root: Document, arrays: Mapping[str, Document]) -> dict[str, str]:
    """Documents by key, by the path of each array. The root's is the last: whoever reads a store
    begins with it, so replacing it shows the rows of all sources at once.
    """
    listed = _listed(root)
    texts = {}
    for path, found in arrays.items():
        texts[_key(path)] = json.dumps(found, indent=2)
        if listed is not None:
            listed[path] = found
    if "" not in arrays:
        texts[DOCUMENT] = json.dumps(root, indent=2)
    return texts


def _key(path: str) -> str:
    return f"{path}/{DOCUMENT}" if path else DOCUMENT


def _read(path: str, key: str) -> Document:
    try:
        return parse_json(Path(path, key).read_bytes())
    except FileNotFoundError:
        raise MismatchError(
            f"{path}: cannot grow: it has no {key}, so it is not of Zarr 3; epochal convert writes "
            "a store that can"
        ) from None
    except Unreadable as error:
        raise FormatError(f"{path}: {key}: {error}") from error


def _documents(path: str, names: Sequence[str] | None) -> tuple[Document, dict[str, Document]]:
    """The root's document and those of arrays by name: of these, or of all that it lists."""
    root = _read(path, DOCUMENT)
    if names is None:
        listed = _listed(root) or {}
        names = [name for name, each in listed.items() if each.get("node_type") == "array"]
    return root, {name: _read(path, _key(_path_of(root, name))) for name in names}


def _path_of(root: Document, name: str) -> str:
    """Where an array lies: at its name, but at the root where that is the array itself."""
    return "" if root.get("node_type") == "array" else name


def specs_in(path: str, names: Sequence[str]) -> tuple[list[SourceSpec], Progress]:
    """What arrays of a store look like to a writer that appends to them, and how far they are.

    Raises
    ------
    MismatchError
        One cannot grow, or cannot be encoded here.
    """
    recover(path)
    _, arrays = _documents(path, names)
    specs = []
    sums: dict[str, NDArray[np.uint32]] = {}
    for name, found in arrays.items():
        try:
            specs.append(spec_of(name, found))
        except MismatchError as error:
            raise MismatchError(
                f"{path}: {name!r} cannot grow: {error}; epochal convert writes a store that can"
            ) from None
        manifest = manifest_from_json((found.get("attributes") or {}).get(MANIFEST))
        rows, chunk_rows = int(found["shape"][0]), specs[-1].chunk_rows
        if manifest is not None and manifest.fits(-(-rows // chunk_rows)):
            sums[name] = manifest.sums
    lengths = {name: int(found["shape"][0]) for name, found in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise MismatchError(f"{path}: sources of one dataset have equally many rows: {told}")
    rows = next(iter(lengths.values()), 0)
    return specs, Progress(rows, sums if len(sums) == len(specs) else None)
