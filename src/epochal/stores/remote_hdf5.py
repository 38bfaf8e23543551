"""A file as the object of Python's that h5py reads: every read libhdf5 makes, it makes through it.

Threads of HDF5: libhdf5 calls back while it holds h5py's lock, and what is read here comes from
other threads. Were one of those to collect garbage that refers to libhdf5, it would wait for that
lock, and this thread for it. So nothing is collected meanwhile.
"""

from __future__ import annotations

import gc
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from epochal.stores.file import File
from epochal.stores.remote_cache import HELD_BYTES, Cached

__all__ = ["SeekableFile"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHUNK_NODE = 1
MAX_AXES = 32
CHILDREN = 64  # of a node, but where a writer asked for another number


class SeekableFile(io.RawIOBase):
    """A `File` with a position, for reading.

    It knows one thing of HDF5: a *B-tree of version 1* (HDF5 File Format Specification 3.0, section
    III.A.1), which is how chunks are found in most files, names in each node where the nodes below
    it lie, all over the file. Whoever reads a node will read those, so they are fetched at once.
    """

    def __init__(self, file: File, held_bytes: int = HELD_BYTES) -> None:
        super().__init__()
        self._cached = file if isinstance(file, Cached) else Cached(file, held_bytes=held_bytes)
        self._at = 0
        self._base = 0
        self.failure: Exception | None = None

    def check(self) -> None:
        """Raise the first error of a read: libhdf5 makes one of its own of it, or goes on."""
        if self.failure is not None:
            raise self.failure

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._cached.size_bytes}
        self._at = base[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        try:
            with _no_collection():
                got = self._cached.checked()([view], self._at)
                self._look(view[:got])
        except Exception as error:
            self.failure = self.failure or error
            raise
        self._at += got
        return got

    def _look(self, data: memoryview) -> None:
        magic = bytes(data[:8])
        if magic == SIGNATURE:
            self._base = self._at
        elif magic[:4] == b"TREE" and len(data) > 24 and data[4] == CHUNK_NODE and data[5]:
            end = self._cached.size_bytes - len(data)
            children = [self._base + address for address in _children(bytes(data))]
            if len(children) > 1 and all(0 < at <= end for at in children):
                self._cached.prefetch((at, at + len(data)) for at in children)


def _children(node: bytes) -> list[int]:
    """Addresses of the nodes below a node of chunks; empty where its size is not that of one.

    After 24 bytes come 65 keys, and 64 addresses of children between them, of which some are in
    use. A key has 8 bytes, and 8 an axis, one of which is for the item.
    """
    (in_use,) = struct.unpack_from("<H", node, 6)
    for axes in range(2, MAX_AXES + 2):
        key = 8 + 8 * axes
        if len(node) == 24 + key + CHILDREN * (key + 8) and in_use <= CHILDREN:
            places = range(24 + key, 24 + key + in_use * (key + 8), key + 8)
            return [struct.unpack_from("<Q", node, place)[0] for place in places]
    return []


@contextmanager
def _no_collection() -> Iterator[None]:
    """h5py's lock lets one thread at a time come here, so the switch is its own."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
