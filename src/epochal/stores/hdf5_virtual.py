"""HDF5 virtual datasets: what they map, whether that may be read, and how.

A mapping of whole rows, one block after another, becomes the mapped datasets' own pieces, read
without libhdf5. Any other is read through it, once it is sure to open nothing that lies elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h5py

from epochal.stores.descriptor import Descriptor, Stamp
from epochal.stores.file import File
from epochal.stores.hdf5_chunks import Refused, RefusedUnsafe
from epochal.stores.hdf5_facts import Compact, Facts, Library, Part, Shape, Virtual
from epochal.stores.hdf5_file import opened
from epochal.stores.hdf5_walk import find

__all__ = ["check_beside", "virtual_facts"]

MAX_PARTS = 100_000
PERCENT = re.compile(rb"%b|%%")
Rows = tuple[int, int]
Look = Callable[[Any, str, File, int], Facts]


@dataclass(frozen=True)
class _Mapping:
    """One mapping: places in the virtual dataset, and where they come from."""

    target: Any
    file_name: bytes
    path: bytes
    origin: Any

    @property
    def counted(self) -> bool:
        """Whether its names hold a number that counts up (``f-%b.h5``)."""
        return b"%b" in PERCENT.findall(self.file_name) + PERCENT.findall(self.path)

    def named(self, number: int) -> tuple[bytes, bytes]:
        """File and path of a block."""

        def fill(match: re.Match[bytes]) -> bytes:
            return b"%" if match[0] == b"%%" else str(number).encode()

        return PERCENT.sub(fill, self.file_name), PERCENT.sub(fill, self.path)


def check_beside(plist: Any, file: File) -> None:
    """Refuse a virtual dataset that maps files which lie elsewhere. libhdf5 opens some of them as
    soon as it is asked for the dataset's shape, so this comes first.

    Raises
    ------
    RefusedUnsafe
        It maps what does not lie beside the file, or the file is not a local one.
    """
    if not isinstance(file, Descriptor):
        raise RefusedUnsafe("a virtual dataset of a remote file: name the files it maps, as a list")
    folder = _Folder(file)
    for number, mapping in enumerate(_mappings(plist)):
        if number == MAX_PARTS:
            raise RefusedUnsafe(f"a virtual dataset of more than {MAX_PARTS} mappings")
        for name, _ in _blocks(mapping, folder):
            if name != b".":
                folder.path(name)


def virtual_facts(
    dataset: Any, plist: Any, facts: Facts, file: File, fill: bytes | None, look: Look
) -> Facts:
    """Facts of a virtual dataset that may be read.

    Parameters
    ----------
    dataset, plist
        The `h5py.h5d.DatasetID` and what it was created with.
    facts
        Its name, shape and type.
    file
        The file it is in, for which `check_beside` was asked.
    fill
        The bytes of an item that nothing maps; None where only libhdf5 can tell.
    look
        Facts of a dataset that is mapped: its identifier, path, file, and its user block's bytes.
        Raises `Refused`.

    Raises
    ------
    RefusedUnsafe
        It maps what lies elsewhere, or what is itself virtual or stored outside.
    Refused
        It maps what is not there.
    """
    assert isinstance(file, Descriptor)
    seen = _Beside(file, look)
    parts = [part for mapping in _mappings(plist) for part in seen.parts(mapping, facts)]
    whole = [part for part in parts if part is not None]
    if len(whole) == len(parts) and fill is not None:
        in_order = _in_order(whole, facts, fill, file)
        if in_order is not None:
            return Virtual(facts.name, facts.shape, facts.dtype, tuple(in_order))
    others = tuple(each for each in seen.files.values() if each is not file)
    return Library(
        facts.name, facts.shape, facts.dtype, (), "a virtual dataset", "virtual", files=others
    )


def _mappings(plist: Any) -> Iterator[_Mapping]:
    for i in range(plist.get_virtual_count()):
        yield _Mapping(
            plist.get_virtual_vspace(i),
            _raw(plist.get_virtual_filename(i)),
            _raw(plist.get_virtual_dsetname(i)),
            plist.get_virtual_srcspace(i),
        )


def _raw(name: bytes | str) -> bytes:
    return name if isinstance(name, bytes) else os.fsencode(name)


class _Folder:
    """Where a file lies, and with it what it may map."""

    def __init__(self, file: Descriptor) -> None:
        self._folder = os.path.realpath(os.path.dirname(file.path))

    def path(self, name: bytes) -> str:
        """Where a file of that name is, or would be."""
        path = os.path.realpath(os.path.join(self._folder, os.fsdecode(name)))
        if os.path.commonpath([self._folder, path]) != self._folder:
            raise RefusedUnsafe(
                f"it maps {_text(name)!r}, which does not lie beside the file: not followed, "
                "nothing allows it"
            )
        return path


def _blocks(mapping: _Mapping, folder: _Folder) -> Iterator[tuple[bytes, bytes]]:
    """File and path of each block of a mapping; of one that counts up, as many as there are."""
    if not mapping.counted:
        yield mapping.named(0)
        return
    for number in range(MAX_PARTS):
        name, path = mapping.named(number)
        if name != b"." and not os.path.lexists(folder.path(name)):
            return
        yield name, path


class _Beside:
    """The files that are mapped, each looked at once."""

    def __init__(self, file: Descriptor, look: Look) -> None:
        self._look = look
        self._folder = _Folder(file)
        self.files: dict[bytes, Descriptor] = {b".": file}
        self._known: dict[tuple[bytes, bytes], tuple[Descriptor, Facts]] = {}

    def parts(self, mapping: _Mapping, facts: Facts) -> Iterator[Part | None]:
        """What a mapping maps; None for what is no block of whole rows."""
        for name, path in _blocks(mapping, self._folder):
            file, found = self._found(name, path)
            yield None if mapping.counted else _part(mapping, facts, file, found)

    def _found(self, name: bytes, path: bytes) -> tuple[Descriptor, Facts]:
        key = name, path
        if key not in self._known:
            file = self.files.get(name)
            if file is None:
                file = self.files[name] = self._opened(name)
            with opened(file) as root:
                dataset = find(root.id, path)
                if isinstance(dataset, str):
                    raise Refused(f"it maps {_text(path)!r} of {_text(name)!r}, which is {dataset}")
                found = self._look(dataset, _text(path).strip("/"), file, root.userblock_size)
            self._known[key] = file, found
        return self._known[key]

    def _opened(self, name: bytes) -> Descriptor:
        path = self._folder.path(name)
        try:
            stamp = Stamp.at(path)
        except OSError as error:
            raise Refused(
                f"it maps {_text(name)!r}, which is not there: {error.strerror}"
            ) from error
        return Descriptor(path, stamp)


def _part(mapping: _Mapping, facts: Facts, file: File, found: Facts) -> Part | None:
    """The rows of `found` that are rows of the virtual dataset, if that is what is mapped."""
    target = _rows(mapping.target, facts.shape)
    origin = _rows(mapping.origin, found.shape)
    alike = found.dtype == facts.dtype and found.shape[1:] == facts.shape[1:]
    if target is None or origin is None or not alike or isinstance(found, Library | Virtual):
        return None
    if target[1] - target[0] != origin[1] - origin[0]:
        return None
    return Part(target[0], target[1], origin[0], file, found)


def _rows(space: Any, shape: Shape) -> Rows | None:
    """The rows ``[first, last)`` that a selection takes whole; None where it is another one."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return 0, shape[0]
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    start, stride, count, block = space.get_regular_hyperslab()
    unlimited = h5py.h5s.UNLIMITED
    if unlimited in count or unlimited in block or len(start) != len(shape):
        return None
    axes = list(zip(start, stride, count, block, shape, strict=True))
    if any(c > 1 and s != b for _, s, c, b, _ in axes):
        return None
    if any((first, c * b) != (0, n) for first, _, c, b, n in axes[1:]):
        return None
    first, rows = start[0], count[0] * block[0]
    return None if first + rows > shape[0] else (first, first + rows)


def _in_order(parts: list[Part], facts: Facts, fill: bytes, file: File) -> list[Part] | None:
    """Parts by their place with the gaps between them filled; None where they overlap."""
    found: list[Part] = []
    at = 0
    for part in [*sorted(parts, key=lambda p: p.first), None]:
        until = facts.shape[0] if part is None else part.first
        if until < at:
            return None
        if until > at:
            shape = (until - at, *facts.shape[1:])
            gap = Compact(facts.name, shape, facts.dtype, fill, repeated=True)
            found.append(Part(at, until, 0, file, gap))
        if part is not None:
            found.append(part)
            at = part.last
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
