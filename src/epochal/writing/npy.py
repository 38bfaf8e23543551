"""``.npy`` as containers: one file for one source, a folder of them for several.

Rows lie one after another behind a header, as they are in memory. A folder has an ``epochal.json``
(`epochal.stores.npy_folder`), whose number of rows is what counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, FormatError, MismatchError, SourceNameError
from epochal.stores.manifest import Manifest, read_sidecar, sidecar_of, write_sidecar
from epochal.stores.npy import name_of
from epochal.stores.npy_folder import DOCUMENT, FolderFacts, facts_in
from epochal.writing import folder
from epochal.writing.container import Bytes, Encode, Progress
from epochal.writing.disk import sync, writing_to
from epochal.writing.npy_file import NpyFile, check_grows, header_at, spec_of
from epochal.writing.npy_form import header_for
from epochal.writing.spec import SourceSpec

__all__ = ["NpyContainer", "recover", "specs_in"]


class NpyContainer:
    """Files that are being written (`epochal.writing.container.Container`).

    Made by `create`, `resume` and `open_to_append`.
    """

    def __init__(
        self,
        path: str,
        files: Sequence[NpyFile],
        rows: int,
        attrs: Mapping[str, Any],
        *,
        together: bool,
        published: bool,
    ) -> None:
        self._path, self._together, self._published = path, together, published
        self._files = {each.spec.name: each for each in files}
        self._rows, self._attrs = rows, dict(attrs)

    @classmethod
    def create(
        cls,
        path: str,
        specs: Sequence[SourceSpec],
        rows: int | None,
        attrs: Mapping[str, Any] | None = None,
    ) -> NpyContainer:
        """New files without rows. `attrs` are looked at early: one file has no place for any.

        Raises
        ------
        MismatchError, SourceNameError
            Of a compression, a dtype or a name that such files have no form for.
        """
        for spec in specs:
            how = spec.compression
            if how.name is not None or how.shuffle:
                raise MismatchError(
                    f"source {spec.name!r}: compression={how.name!r}, shuffle={how.shuffle}: .npy "
                    "files hold rows as they are: give compression=None, or flavour='zarr'"
                )
        together = len(specs) > 1
        if together:
            folder.check_names([spec.name for spec in specs], (DOCUMENT,))
        else:
            _check_attrs(path, attrs or {})
        headers = [header_for(spec, 0) for spec in specs]
        files: list[NpyFile] = []
        with writing_to(path):
            if together:
                os.mkdir(path)
            try:
                for spec, header in zip(specs, headers, strict=True):
                    where = _file_of(path, spec.name) if together else path
                    folder.write_file(where, header)
                    files.append(NpyFile(where, spec, len(header)))
            except BaseException:
                _close(files)
                raise
        return cls(path, files, 0, {}, together=together, published=False)

    @classmethod
    def resume(cls, path: str) -> tuple[NpyContainer, Progress]:
        """Files whose writer was killed, as they were when they were last saved.

        Raises
        ------
        DamageError
            They never were, or are not what a writer leaves.
        """
        state = _state_of(path)
        data = Path(state).read_bytes() if os.path.exists(state) else b""
        progress, more = folder.progress_from(data, path)
        together = os.path.isdir(path)
        chunk_rows: Mapping[str, int] = more.get("chunk_rows", {})
        specs = [
            spec_of(name, header_at(_file_of(path, name) if together else path), each)
            for name, each in chunk_rows.items()
        ]
        container = cls._opened(path, specs, progress.rows, {}, published=False)
        return container, progress

    @classmethod
    def open_to_append(cls, path: str, specs: Sequence[SourceSpec]) -> NpyContainer:
        """Whole files, to grow: until `save` their rows are what they were, wherever the process is
        killed. What an earlier writer left behind them is cut off.
        """
        recover(path)
        facts = _facts(path)
        if facts is None:
            rows = header_at(path).shape[0]
            return cls._opened(path, specs, rows, {}, published=True)
        if set(facts.files) != {spec.name for spec in specs}:
            raise MismatchError(
                f"{path}: its sources {', '.join(facts.files)} grow together; given were "
                f"{', '.join(spec.name for spec in specs)}"
            )
        return cls._opened(path, specs, facts.rows, facts.attrs, published=True)

    @classmethod
    def _opened(
        cls,
        path: str,
        specs: Sequence[SourceSpec],
        rows: int,
        attrs: Mapping[str, Any],
        *,
        published: bool,
    ) -> NpyContainer:
        """Files that are there, cut to so many rows."""
        together = os.path.isdir(path)
        places = _places(path, [spec.name for spec in specs])
        files: list[NpyFile] = []
        try:
            with writing_to(path):
                for spec in specs:
                    header = header_at(places[spec.name])
                    files.append(NpyFile(places[spec.name], spec, header.offset))
                    files[-1].settle(rows)
        except BaseException:
            _close(files)
            raise
        return cls(path, files, rows, attrs, together=together, published=published)

    def encoder(self, source: str) -> Encode:
        """See `Container`. Nothing pads the last chunk."""
        return partial(_stored, dtype=self._files[source].spec.dtype)

    def put(self, source: str, chunk: int, stored: Bytes) -> None:
        """See `Container`.

        Raises
        ------
        MismatchError
            It would change rows of a file that was published: those are read where they lie.
        """
        file = self._files[source]
        first = chunk * file.spec.chunk_rows
        with writing_to(self._path):
            if self._published and first < self._rows:
                stored, there = file.past(first, stored, self._rows)
                if not there:
                    raise MismatchError(
                        f"{self._path}: source {source!r}: rows {first} to {self._rows - 1} were "
                        "given anew: rows of a .npy file are not replaced once it is published; "
                        "give rows past them, or write another file"
                    )
                first = max(first, self._rows)
            file.write(first, stored)

    def get(self, source: str, chunk: int, out: NDArray[Any]) -> None:
        """See `Container`."""
        file = self._files[source]
        first = chunk * file.spec.chunk_rows
        if not file.read(first, out):
            raise DamageError(
                f"{self._path}: source {source!r}, rows {first} to {first + len(out) - 1}: the "
                "file ends before them: restore it from a copy"
            )

    def save(self, progress: Progress, *, final: bool) -> None:
        """See `Container`. Of published files each `save` makes its rows part of them.

        Costs an ``fsync`` a source, and some small files.
        """
        if not self._together:
            _check_attrs(self._path, progress.attrs)
        with writing_to(self._path):
            for file in self._files.values():
                file.cut(progress.rows)
                os.fsync(file.fd)
            state = _state_of(self._path)
            if not self._published and (not final or os.path.exists(state)):
                # Also at the end: until the files are published, another run may have to go on.
                chunk_rows = {name: file.spec.chunk_rows for name, file in self._files.items()}
                folder.replace_file(state, folder.progress_json(progress, chunk_rows=chunk_rows))
            if final or self._published:
                self._publish(progress)
        self._rows = progress.rows
        if final:
            _close(self._files.values())

    def _publish(self, progress: Progress) -> None:
        """Let headers tell of the rows; of a folder its document, which counts, last."""
        base, journal = _journal_of(self._path)
        keys = {name: os.path.relpath(file.path, base) for name, file in self._files.items()}
        edits = {keys[name]: file.edit(progress.rows) for name, file in self._files.items()}
        texts = {}
        if self._together:
            self._attrs |= folder.json_value(progress.attrs)
            folder.keep(base, progress.kept)
            texts[DOCUMENT] = FolderFacts(progress.rows, keys, self._attrs).text()
        sidecars = [sidecar_of(key) for key in keys.values()]
        if self._published:
            staged = sidecars if self._write_sums(progress, folder.staged_name) else []
            removed = [] if staged else sidecars
            folder.commit(base, staged, texts, removed, edits=edits, journal=journal)
            return
        self._write_sums(progress, str)
        for key, edit in edits.items():
            folder.edit_file(os.path.join(base, key), *edit)
        for path in {os.path.dirname(file.path) for file in self._files.values()}:
            sync(path)
        for key, text in texts.items():
            folder.replace_file(os.path.join(base, key), text)

    def _write_sums(self, progress: Progress, where: Callable[[str], str]) -> bool:
        """Keep the sums of each file beside `where` it is; whether there are any."""
        if progress.sums is None:
            return False
        for name, file in self._files.items():
            manifest = Manifest(
                progress.sums[name], file.spec.chunk_rows, form=file.form(progress.rows)
            )
            write_sidecar(where(file.path), {name: manifest})
        return True

    def abandon(self) -> None:
        """See `Container`. Published files are as they were when they were last saved."""
        try:
            if self._published:
                with writing_to(self._path):
                    for file in self._files.values():
                        file.settle(self._rows)
        finally:
            _close(self._files.values())


def _close(files: Any) -> None:
    for file in files:
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1


def _stored(rows: NDArray[Any], dtype: np.dtype) -> Bytes:
    return np.ascontiguousarray(rows, dtype=dtype).reshape(-1).view(np.uint8)


def _check_attrs(path: str, attrs: Mapping[str, Any]) -> None:
    if attrs:
        raise MismatchError(
            f"{path}: attrs={sorted(attrs)}: one .npy file has no place for attributes: give two "
            "sources or more, or flavour='zarr' or 'hdf5'"
        )


def _state_of(path: str) -> str:
    """Beside what is written, as what a target removes once that is published."""
    return path + folder.STATE


def _file_of(path: str, name: str) -> str:
    return os.path.join(path, f"{name}.npy")


def _facts(path: str) -> FolderFacts | None:
    """What the document of a folder says; None of one file."""
    if not os.path.isdir(path):
        return None
    document = Path(path, DOCUMENT)
    if not document.exists():
        raise MismatchError(
            f"{path}: cannot grow: a folder without {DOCUMENT}, which names its sources: epochal "
            "convert writes one"
        )
    return facts_in(document.read_bytes(), path)


def _places(path: str, names: Sequence[str]) -> dict[str, str]:
    """The file of each source."""
    if not os.path.isdir(path):
        return dict.fromkeys(names, path)
    facts = _facts(path) if os.path.exists(os.path.join(path, DOCUMENT)) else None
    if facts is None:  # nobody published it so far
        return {name: _file_of(path, name) for name in names}
    root = os.path.realpath(path) + os.sep
    places = {name: os.path.realpath(root + facts.files[name]) for name in names}
    for place in places.values():
        if not place.startswith(root):
            raise FormatError(f"{path}: {place} lies outside of it: not written to")
    return places


def recover(path: str) -> bool:
    """Finish the change in which a writer was killed, as `epochal.writing.folder.recover`."""
    return folder.recover(*_journal_of(path))


def _journal_of(path: str) -> tuple[str, str]:
    """The folder that a change is in, and what its journal is called there."""
    if os.path.isdir(path):
        return path, folder.JOURNAL
    base, name = os.path.split(os.path.abspath(path))
    return base, f".{name}{folder.JOURNAL}"


def specs_in(path: str, names: Sequence[str]) -> tuple[list[SourceSpec], Progress]:
    """What files look like to a writer that appends to them, and how far they are.

    Raises
    ------
    MismatchError
        One cannot grow.
    """
    recover(path)
    facts = _facts(path)
    if facts is None:
        names = names or [name_of(path, ".npy")]
    unknown = [name for name in names if facts is not None and name not in facts.files]
    if unknown:
        raise SourceNameError(f"{path}: no source {unknown[0]!r}: {DOCUMENT} names none so")
    specs = []
    sums: dict[str, NDArray[np.uint32]] = {}
    rows = facts.rows if facts is not None else 0
    for name, place in _places(path, names).items():
        header = header_at(place)
        check_grows(place, header)
        if facts is None:
            rows = header.shape[0]
        manifest = next(iter(read_sidecar(place).values()), None)
        usable = manifest is not None and not manifest.decoded
        chunk_rows = manifest.piece_rows if manifest is not None and usable else None
        specs.append(spec_of(name, header, chunk_rows))
        if manifest is not None and chunk_rows and manifest.n_pieces == -(-rows // chunk_rows):
            sums[name] = manifest.sums
    attrs = {} if facts is None else facts.attrs
    return specs, Progress(rows, sums if len(sums) == len(specs) else None, attrs)
