"""Checksums of what is stored: a CRC-32 a piece, which reading compares before it decodes.

With them goes the form of the source (`epochal.stores.forms`), and at the root of a file are the
names of the sources that were written to it: what sums of pieces say nothing of.

A manifest is kept where other readers do not look: in attributes of the HDF5 dataset or the Zarr
array itself, or in a file beside one that was not written by us (``<file>.epochal-sums``). CRC-32,
the polynomial of zlib, finds every flipped bit, and every burst of 32; it is no protection from
somebody who wants to deceive.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageWarning, FormatError

__all__ = [
    "DAMAGED",
    "OUTDATED",
    "SOURCES",
    "Beside",
    "Form",
    "Manifest",
    "crc32",
    "differs",
    "forget_sums",
    "is_manifest_attribute",
    "manifest_attributes",
    "manifest_from_attributes",
    "manifest_from_json",
    "manifest_json",
    "manifests_beside",
    "mask_sums",
    "names_after",
    "names_from",
    "names_of_parts",
    "names_text",
    "read_sidecar",
    "sidecar_of",
    "warn_of_damaged",
    "write_sidecar",
]

VERSION = 1
ATTRIBUTE = "epochal_crc32"
FORM = "epochal_crc32_form"  # which older versions ignore, and replace with the sums
SOURCES = "epochal_crc32_sources"  # of the root
ATTRIBUTE_BYTES = 60_000
ATTRIBUTE_SUMS = 15_000  # of 4 bytes each: an attribute in an old header holds 64 KiB
SIDECAR_MAGIC = b"epochal sums 1\n"
SIDECAR_HEAD = struct.Struct("<QI")

Sums = NDArray[np.uint32]
Form = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Manifest:
    """What the pieces of one source were when they were written.

    Parameters
    ----------
    sums
        CRC-32 of the stored bytes of each piece in raster order, ``(n_pieces,)``; 0, the sum of no
        bytes, where nothing is stored.
    piece_rows
        Where rows lie one after another: how many of them are a piece. None where pieces are the
        chunks of the file.
    decoded
        Whether the sums are of decoded rows instead: where stored bytes cannot be had.
    damaged
        Whether there was one, which is no longer what was written: nothing can be compared with it.
    form
        What the rows are decoded by; None in files of older versions. With it the sums are also of
        the filter masks of pieces (`mask_sums`).
    """

    sums: Sums = field(repr=False)
    piece_rows: int | None = None
    decoded: bool = False
    damaged: bool = False
    form: Form | None = None

    @property
    def n_pieces(self) -> int:
        """How many pieces it is of."""
        return len(self.sums)

    def fits(self, n_pieces: int, piece_rows: int | None = None) -> bool:
        """Whether it is of stored pieces like these: else it is of an older state of the file."""
        mine = not self.decoded and not self.damaged
        return mine and self.n_pieces == n_pieces and self.piece_rows == piece_rows


NO_SUMS = np.empty(0, np.uint32)
OUTDATED = Manifest(NO_SUMS)  # of a state that fits nothing which is there now
DAMAGED = Manifest(NO_SUMS, damaged=True)


def warn_of_damaged(name: str, manifests: Mapping[str, Manifest | None]) -> None:
    """Tell of sources that are read without a check, though they were written with one."""
    for source, manifest in manifests.items():
        if manifest is not None and manifest.damaged:
            warnings.warn(
                f"{name}: the checksums of source {source!r} are damaged, so its rows are read "
                "without a check: epochal verify says what else is, and epochal verify --record "
                "notes what is there now",
                DamageWarning,
                stacklevel=4,
            )


def differs(found: int, due: int) -> str:
    """What is wrong with a piece whose checksum is not what it was."""
    return (
        f"its checksum is {found:#010x}, {due:#010x} was noted when it was written (if another "
        "program changed it on purpose, epochal verify --record notes what is there now)"
    )


def crc32(data: NDArray[Any] | bytes | memoryview, before: int = 0) -> int:
    """The sum of some bytes, behind others of which the sum is `before`; at the speed of memory.

    >>> crc32(b"123456789") == 0xCBF43926
    True
    """
    total: Any = imagecodecs.deflate_crc32  # its stub knows no arrays
    return int(total(data, before))


def mask_sums(masks: NDArray[np.uint32] | None, n_pieces: int) -> Sums:
    """What the filter masks of pieces, the filters that were left out, change of their sums, by
    exclusive or: nothing where all filters were applied.

    >>> mask_sums(np.array([0, 1], "u4"), 2)
    array([         0, 2583214201], dtype=uint32)
    """
    changes = np.zeros(n_pieces, np.uint32)
    if masks is not None:
        for mask in np.unique(masks[masks != 0]).tolist():
            changes[masks == mask] = crc32(struct.pack("<I", mask))
    return changes


def is_manifest_attribute(name: object) -> bool:
    """Whether an attribute is part of a manifest."""
    return isinstance(name, str) and name.startswith(ATTRIBUTE)


def manifest_attributes(manifest: Manifest) -> dict[str, Any]:
    """A manifest as attributes of its HDF5 dataset: some numbers about it, of which the last is
    their own sum, the sums in parts, and the form as JSON.

    >>> manifest_attributes(Manifest(np.array([7], "u4")))["epochal_crc32_0"]
    array([7], dtype=uint32)
    """
    sums = np.ascontiguousarray(manifest.sums, np.uint32)
    head = np.array([VERSION, len(sums), _sum_of(sums), manifest.piece_rows or 0, 0], np.uint32)
    head[-1] = _sum_of(head[:-1])
    firsts = range(0, len(sums), ATTRIBUTE_SUMS)
    blocks = [head, *(sums[first : first + ATTRIBUTE_SUMS] for first in firsts)]
    told = dict(zip(names_of_parts(len(sums)), blocks, strict=False))
    if manifest.form is None:
        return told
    return {**told, FORM: np.bytes_(_text_of({"version": VERSION, "form": manifest.form}))}


def names_of_parts(n_pieces: int) -> Iterator[str]:
    """Names of the attributes that a manifest of so many pieces has, and of one more.

    >>> list(names_of_parts(15_001))
    ['epochal_crc32', 'epochal_crc32_0', 'epochal_crc32_1', 'epochal_crc32_2']
    """
    yield ATTRIBUTE
    for k in range(-(-n_pieces // ATTRIBUTE_SUMS) + 1):
        yield f"{ATTRIBUTE}_{k}"


def manifest_from_attributes(attributes: Mapping[str, Any]) -> Manifest | None:
    """The manifest in a dataset's attributes: `DAMAGED` where it is no longer what was written,
    None where there is none, or one that a newer epochal wrote.
    """
    if not any(map(is_manifest_attribute, attributes)):
        return None
    try:
        head = np.asarray(attributes[ATTRIBUTE])
        if head.dtype != np.uint32 or head.ndim != 1 or _sum_of(head[:-1]) != head[-1]:
            return DAMAGED
        if head[0] != VERSION:
            return None
        _, n_pieces, total, piece_rows, _ = (int(value) for value in head)
        parts = list(names_of_parts(n_pieces))[1:-1]
        sums = np.concatenate([NO_SUMS, *(np.asarray(attributes[name]) for name in parts)])
        form = _form_of(_told_in(attributes[FORM])) if FORM in attributes else None
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        return DAMAGED
    if sums.dtype != np.uint32 or sums.shape != (n_pieces,) or _sum_of(sums) != total:
        return DAMAGED
    return Manifest(sums, piece_rows or None, form=form)


def names_after(text: Any, path: str, written: Mapping[str, bool]) -> list[str]:
    """The names that a file is to keep: of those that it has, or that are noted beside it of all
    its sources since, and of those that were `written`, where that was with checksums.
    """
    beside = manifests_beside(path, near=True)
    before = [*beside]
    if not beside.complete:
        before = []
        with suppress(FormatError):
            before = [*names_from(text)]
    left = [name for name in before if name not in written]
    return [*left, *(name for name, summed in written.items() if summed)]


def names_text(names: Collection[str]) -> str | None:
    """The names of the sources of a file, as its root keeps them; None where there are none. Of so
    many that it has no room for them it keeps that there were some.

    >>> names_from(names_text(["X", "y"]))
    ('X', 'y')
    """
    text = _text_of({"version": VERSION, "sources": [*names]})
    if len(text) > ATTRIBUTE_BYTES:
        text = _text_of({"version": VERSION, "sources": []})
    return text if names else None


def names_from(text: Any) -> tuple[str, ...]:
    """What `names_text` told; none where nothing was told, or by a newer epochal.

    Raises
    ------
    FormatError
        It is damaged.
    """
    if text is None:
        return ()
    try:
        return tuple(map(str, _told_in(text).get("sources", ())))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(
            "the names of the sources that were written are damaged: epochal verify --record "
            "notes those that are there now"
        ) from error


def _form_of(told: Mapping[str, Any]) -> Form | None:
    """The form that was told, if one was."""
    form = told.get("form")
    if form is not None and not isinstance(form, dict):
        raise ValueError("its form is none")
    return form


def _text_of(told: Mapping[str, Any]) -> str:
    """As JSON of ASCII, with its own sum in it."""
    return json.dumps({**told, "sum": _sum_of_told(told)})


def _told_in(text: Any) -> dict[str, Any]:
    """What `_text_of` told; nothing of what a newer epochal did. Raises `ValueError` and the like
    where it is not what was written.
    """
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("it is no object")
    total = told.pop("sum")
    if _sum_of_told(told) != total:
        raise ValueError("it is not what it was")
    return dict(told) if told["version"] == VERSION else {}


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON has it, for the attributes of a Zarr array.

    >>> manifest_json(Manifest(np.array([7], "u4")))["crc32"]
    'BwAAAA=='
    """
    sums = np.ascontiguousarray(manifest.sums, "<u4")
    told = {
        "version": VERSION,
        "pieces": len(sums),
        "crc32": base64.b64encode(sums.tobytes()).decode(),
        **({} if manifest.form is None else {"form": dict(manifest.form)}),
    }
    return {**told, "sum": _sum_of_told(told)}


def manifest_from_json(told: Any) -> Manifest | None:
    """The manifest that `manifest_json` told, as `manifest_from_attributes`; None where nothing was
    told.
    """
    if told is None:
        return None
    try:
        if _sum_of_told({key: told[key] for key in told if key != "sum"}) != told["sum"]:
            return DAMAGED
        if told["version"] != VERSION:
            return None
        sums = np.frombuffer(base64.b64decode(told["crc32"], validate=True), "<u4")
        if len(sums) != told["pieces"]:
            return DAMAGED
        return Manifest(sums.astype(np.uint32), form=_form_of(told))
    except (KeyError, TypeError, ValueError, AttributeError):
        return DAMAGED


def _sum_of_told(told: Mapping[str, Any]) -> int:
    return crc32(json.dumps(told, sort_keys=True).encode())


def _sum_of(sums: Sums) -> int:
    return crc32(np.ascontiguousarray(sums, "<u4").view(np.uint8))


def sidecar_of(path: str) -> str:
    """Where the manifests of a file are that has no room for them.

    >>> sidecar_of("/data/X.npy")
    '/data/X.npy.epochal-sums'
    """
    return f"{path}.epochal-sums"


def write_sidecar(path: str, manifests: Mapping[str, Manifest], *, complete: bool = False) -> None:
    """Keep manifests beside a file, by source: whole or not at all, on the disk when it returns.
    `complete`: they are of all sources that are there, whatever the file itself has noted.

    A line; the length of a JSON header (8 bytes, little-endian) and the CRC-32 of it and of what
    follows it (4); the header; the sums of all sources as little-endian uint32.
    """
    blocks = [np.ascontiguousarray(each.sums, "<u4").tobytes() for each in manifests.values()]
    told = [
        {
            "source": name,
            "pieces": each.n_pieces,
            "piece_rows": each.piece_rows,
            "decoded": each.decoded,
            "form": each.form,
        }
        for name, each in manifests.items()
    ]
    header = json.dumps({"sources": told, "complete": complete}).encode()
    total = crc32(b"".join([header, *blocks]))
    final = sidecar_of(path)
    passing = f"{final}.{os.getpid()}.new"
    try:
        with open(passing, "wb") as file:
            file.write(SIDECAR_MAGIC + SIDECAR_HEAD.pack(len(header), total) + header)
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(passing, final)
    except BaseException:
        if os.path.exists(passing):
            os.unlink(passing)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(final)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_sidecar(path: str) -> Beside:
    """The manifests beside a file, by source; none where nothing is there.

    Raises
    ------
    FormatError
        What is there is damaged.
    """
    final = sidecar_of(path)
    try:
        with open(final, "rb") as file:
            data = file.read()
    except OSError:
        return Beside()
    try:
        return _sidecar(data)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise FormatError(
            f"{final}: the checksums of {os.path.basename(path)} are damaged: remove it, and have "
            "them made anew: epochal verify --record"
        ) from error


def forget_sums(path: str, names: Iterable[str]) -> None:
    """Let go of what is noted beside a file of sources that are about to change; of all, where it
    is damaged.
    """
    noted = Beside()
    with suppress(FormatError):
        noted = read_sidecar(path)
    left = {name: each for name, each in noted.items() if name not in set(names)}
    if not left:
        with suppress(FileNotFoundError):
            os.unlink(sidecar_of(path))
    elif len(left) < len(noted):
        write_sidecar(path, left)


class Beside(dict[str, Manifest]):
    """What is noted beside a file for a store to check, by source.

    `damaged`: nothing that helps, so that each source has the manifest `DAMAGED`. `complete`: of
    all sources that there were.
    """

    damaged = False
    complete = False

    def __missing__(self, name: str) -> Manifest | None:
        return DAMAGED if self.damaged else None

    @property
    def only(self) -> Manifest | None:
        """That of a file of one array, whatever it is called there."""
        return next(iter(self.values()), self[""])


def manifests_beside(name: str, near: bool) -> Beside:
    """The same for a store: none where the file is far, or its name is that of something else."""
    found = Beside()
    if near and "://" not in name and os.path.exists(name):
        try:
            return read_sidecar(name)
        except FormatError:
            found.damaged = True
    return found


def _sidecar(data: bytes) -> Beside:
    at = len(SIDECAR_MAGIC)
    if data[:at] != SIDECAR_MAGIC:
        raise ValueError("not a sidecar")
    n_bytes, total = SIDECAR_HEAD.unpack_from(data, at)
    at += SIDECAR_HEAD.size
    if crc32(data[at:]) != total:
        raise ValueError("it is not what it was")
    header = json.loads(data[at : at + n_bytes])
    at += n_bytes
    found = Beside()
    found.complete = bool(header.get("complete"))
    for told in header["sources"]:
        end = at + 4 * told["pieces"]
        sums = np.frombuffer(data[at:end], "<u4").astype(np.uint32)
        if len(sums) != told["pieces"]:
            raise ValueError("it was cut off")
        found[told["source"]] = Manifest(
            sums, told["piece_rows"], told["decoded"], form=_form_of(told)
        )
        at = end
    return found
