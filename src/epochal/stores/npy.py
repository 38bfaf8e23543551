"""NumPy's own files: ``.npy``, read in place by ``pread``; nothing is ever unpickled.

The format is described in `numpy.lib.format`, versions 1.0 to 3.0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from epochal.errors import DamageError, EpochalError
from epochal.stores.file import File
from epochal.stores.forms import form_of_source, held_to
from epochal.stores.hdf5_facts import Contiguous
from epochal.stores.hdf5_plain import ContiguousSource
from epochal.stores.manifest import Manifest, manifests_beside
from epochal.stores.npy_fortran import FortranSource
from epochal.stores.npy_header import FIRST_BYTES, Header, check_rows_fit, end_of, read_header
from epochal.stores.source import Source
from epochal.stores.store import Other

__all__ = ["NpyStore", "header_of", "name_of", "noted", "source_in", "source_of"]


def source_in(file: File, name: str) -> Source:
    """The array in a ``.npy`` file as a source.

    Raises
    ------
    FormatError
        No array with rows, or one that the file is too short for.
    UnsafeError
        It holds pickled objects.
    """
    return source_of(file, header_of(file), name, noted(file))


def header_of(file: File) -> Header:
    """What a file says of its array, which has rows and is all there. Raises as `source_in`."""
    head = _begins(file, FIRST_BYTES)
    if (end := end_of(head, file.name)) > len(head):
        head = _begins(file, end)
    header = read_header(head, file.name)
    check_rows_fit(header, file.size_bytes, file.name)
    return header


def noted(file: File) -> Manifest | None:
    """The checksums beside a file of one array, whatever they call it."""
    return manifests_beside(file.name, file.in_flight == 1).only


def source_of(file: File, header: Header, name: str, manifest: Manifest | None = None) -> Source:
    """The array that a header describes as a source."""
    facts = Contiguous(name, header.shape, header.dtype, header.offset, manifest=manifest)
    by_columns = header.by_columns
    source = FortranSource(name, header, file) if by_columns else ContiguousSource(facts, file)
    return held_to(manifest, form_of_source(source), source, file.name, name)


def _begins(file: File, n_bytes: int) -> bytes:
    head = bytearray(min(file.size_bytes, n_bytes))
    try:
        got = file.checked()([memoryview(head)], 0) if head else 0
    except OSError as error:
        if isinstance(error, EpochalError):
            raise
        raise DamageError(f"{file.name}: cannot be read: {error.strerror}") from error
    return bytes(head[:got])


def name_of(file_name: str, suffix: str) -> str:
    """What a file that holds one thing calls it: its name without folders and suffix.

    >>> name_of("/data/train_X.npy", ".npy"), name_of("https://host/X.npy?part=1", ".npy")
    ('train_X', 'X')
    >>> name_of("memory://X.npy", ".npy"), name_of("zip://a/X.npy::s3://bucket/b.zip", ".npy")
    ('X', 'X')
    """
    path = file_name
    if "://" in file_name:
        links = [urlsplit(link) for link in file_name.split("::") if "://" in link]
        path = links[0].netloc + links[0].path
    return PurePosixPath(path).name.removesuffix(suffix) or "array"


class NpyStore:
    """One ``.npy`` file: one source, named as the file is (``train_X.npy``: ``train_X``)."""

    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, file: File, *, allow: Collection[str] = (), untrusted: bool = False) -> None:
        self._file = file
        self.name = file.name
        name = name_of(file.name, ".npy")
        self.sources: dict[str, Any] = {name: source_in(file, name)}

    def close(self) -> None:
        """Give back the descriptor."""
        self._file.close()
