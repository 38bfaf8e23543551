"""A deflated member of an archive, unpacked from front to back, with states to go on from."""

from __future__ import annotations

import zlib

from epochal.errors import DamageError, EpochalError
from epochal.stores.archive_directory import Member
from epochal.stores.file import File, Read

__all__ = ["Inflater", "held_bytes"]

ENGINE_BYTES = 48 << 10  # zlib's state and its window of 32 KiB
FEED_BYTES = 16 << 10  # packed bytes given to zlib at once: it keeps what it did not take
PIECE_BYTES = 128 << 10  # unpacked at once
BLOCK_BYTES = 64 << 10  # read at once, of a local file
FAR_BLOCK_BYTES = 1 << 20  # of one whose reads wait for a network


def held_bytes(file: File, kept: int, recent: int) -> int:
    """What is held at most where `kept` copies are kept, and `recent` that go on reading."""
    return (kept + recent) * (ENGINE_BYTES + FEED_BYTES) + recent * _block(file) + PIECE_BYTES


def _block(file: File) -> int:
    return BLOCK_BYTES if file.in_flight == 1 else FAR_BLOCK_BYTES


class Inflater:
    """A deflated member, now at byte `position` of what it unpacks to; checks length and sum at
    its end.
    """

    def __init__(self, file: File, member: Member) -> None:
        self.position = 0
        self._file, self._member = file, member
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._at = 0  # in the packed bytes: what the engine is given next
        self._block, self._block_at = b"", 0
        self._crc = 0

    def copy(self) -> Inflater:
        """Another one that goes on from here."""
        twin = Inflater.__new__(Inflater)
        twin.__dict__.update(self.__dict__)
        twin._engine = self._engine.copy()
        twin._block = b""  # it is read again when it is wanted
        return twin

    def read_into(self, out: memoryview) -> None:
        """Fill `out` with what comes next.

        Raises
        ------
        DamageError
            It does not unpack to its declared length and checksum.
        """
        read = self._file.checked()
        done = 0
        while done < len(out):
            data = self._more(read, min(len(out) - done, PIECE_BYTES))
            out[done : done + len(data)] = data
            done += len(data)

    def skip(self, n_bytes: int) -> None:
        """Unpack and drop."""
        read = self._file.checked()
        while n_bytes > 0:
            n_bytes -= len(self._more(read, min(n_bytes, PIECE_BYTES)))

    def _more(self, read: Read, most: int) -> bytes:
        """At least one byte, at most so many."""
        if self.position >= self._member.size_bytes:
            raise self._damage(f"asked for more than its {self._member.size_bytes} bytes")
        data = self._step(read, min(most, self._member.size_bytes - self.position))
        if not data:
            raise self._damage(f"it ends after {self.position} of {self._member.size_bytes} bytes")
        self.position += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self.position == self._member.size_bytes:
            self._finish(read)
        return data

    def _finish(self, read: Read) -> None:
        if self._crc != self._member.crc32:
            raise self._damage("its checksum is not the one in the archive")
        if self._step(read, 1):
            raise self._damage(f"it goes on after its {self.position} bytes")

    def _step(self, read: Read, most: int) -> bytes:
        """What comes next; nothing at the end."""
        try:
            while not self._engine.eof:
                packed = self._engine.unconsumed_tail or self._fed(read)
                data = self._engine.decompress(packed, most)
                if data or not packed:
                    return data
        except zlib.error as error:
            raise self._damage(str(error)) from error
        return b""

    def _fed(self, read: Read) -> bytes:
        """The next packed bytes."""
        first = self._at - self._block_at
        if not 0 <= first < len(self._block):
            block = bytearray(min(_block(self._file), self._file.size_bytes - self._at))
            try:
                got = read([memoryview(block)], self._at) if block else 0
            except OSError as error:
                if isinstance(error, EpochalError):
                    raise
                raise self._damage(f"cannot be read: {error.strerror}") from error
            self._block, self._block_at, first = bytes(block[:got]), self._at, 0
        packed = self._block[first : first + FEED_BYTES]
        self._at += len(packed)
        return packed

    def _damage(self, what: str) -> DamageError:
        return DamageError(
            f"{self._file.name}: does not unpack: {what}. Restore the archive from a copy"
        )
