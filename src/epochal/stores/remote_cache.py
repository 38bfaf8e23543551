"""A remote file while its index is taken: small reads are answered from blocks fetched together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from epochal.stores.file import File, Read
from epochal.stores.waiting import together

__all__ = ["Cached", "Looked"]

BLOCK_BYTES = 16 << 10
FIRST_AHEAD_BYTES = 64 << 10  # fetched at a miss; twice as much at each one close after another
MOST_AHEAD_BYTES = 1 << 20
DIRECT_BYTES = 2 << 20  # a read of so much is no look at an index
GAP_BYTES = 64 << 10  # to read so much in vain costs less than another request beside others
HELD_BYTES = 32 << 20


class Cached:
    """A `File` that keeps what it read: for one thread, until `settle` is called.

    A miss close after the one before fetches more than that, so that an index in one place takes
    few requests, and one that is spread over the file costs little of what lies between.
    `prefetch` fetches places that are known beforehand, at once. Pickles as the file alone.

    Parameters
    ----------
    file
        What is read.
    head
        Its first bytes, where they are known.
    held_bytes
        The most that is kept.
    """

    def __init__(self, file: File, head: bytes = b"", held_bytes: int = HELD_BYTES) -> None:
        self._file = file
        self._held_bytes = held_bytes
        self._blocks: dict[int, bytes] = {}
        self._ahead = FIRST_AHEAD_BYTES
        self._end = -1  # the block after those that were fetched last
        self._settled = False
        whole = (
            len(head) if len(head) == file.size_bytes else len(head) // BLOCK_BYTES * BLOCK_BYTES
        )
        self._keep(0, head[:whole])

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._file,)

    @property
    def name(self) -> str:
        """That of the file."""
        return self._file.name

    @property
    def size_bytes(self) -> int:
        """That of the file."""
        return self._file.size_bytes

    @property
    def in_flight(self) -> int:
        """That of the file."""
        return self._file.in_flight

    @property
    def copy_bytes(self) -> int:
        """That of the file."""
        return self._file.copy_bytes

    def checked(self) -> Read:
        """Reads by way of what is kept; of the file itself once that was let go of."""
        return self._file.checked() if self._settled else self._read

    def settle(self) -> None:
        """Let go of what is kept: from now on only rows are read."""
        self._settled = True
        self._blocks.clear()

    def close(self) -> None:
        """Close the file."""
        self.settle()
        self._file.close()

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch places ``[start, stop)`` that will be asked for, neighbours together, all at once;
        as many of them as may be kept.
        """
        wanted = sorted(
            {
                block
                for start, stop in ranges
                for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
                if block not in self._blocks
            }
        )
        runs: list[tuple[int, int]] = []
        left = self._held_bytes // 2 // BLOCK_BYTES
        for block in wanted:
            joins = runs and (block - runs[-1][1]) * BLOCK_BYTES <= GAP_BYTES
            first = runs[-1][0] if joins else block
            joins = joins and (block + 1 - first) * BLOCK_BYTES <= 4 * MOST_AHEAD_BYTES
            left -= block + 1 - (runs[-1][1] if joins else block)
            if left < 0:
                break
            if joins:
                runs[-1] = (first, block + 1)
            else:
                runs.append((block, block + 1))
        for (first, _), data in zip(
            runs, together(self._fetched, runs, self.in_flight), strict=True
        ):
            self._keep(first, data)

    def _read(self, parts: Sequence[memoryview], offset: int) -> int:
        """See `epochal.stores.file.Read`."""
        n_bytes = sum(map(len, parts))
        if n_bytes >= DIRECT_BYTES:
            return self._file.checked()(parts, offset)
        stop = min(offset + n_bytes, self.size_bytes)
        self._bring(offset, stop)
        at = offset
        for part in parts:
            done = 0
            while done < len(part) and at < stop:
                block, within = divmod(at, BLOCK_BYTES)
                some = self._blocks.get(block, b"")[within:][: min(len(part) - done, stop - at)]
                if not some:
                    return at - offset
                part[done : done + len(some)] = some
                done += len(some)
                at += len(some)
        return max(at - offset, 0)

    def _bring(self, start: int, stop: int) -> None:
        """Have the blocks of ``[start, stop)``, by one request for all that are missing."""
        missing = []
        for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            if block in self._blocks:
                self._blocks[block] = self._blocks.pop(block)  # not the next to be let go of
            else:
                missing.append(block)
        if not missing:
            return
        first, last = missing[0], missing[-1] + 1
        end = -(-self.size_bytes // BLOCK_BYTES)
        near = 0 <= (first - self._end) * BLOCK_BYTES <= self._ahead
        self._ahead = min(2 * self._ahead, MOST_AHEAD_BYTES) if near else FIRST_AHEAD_BYTES
        ahead = self._ahead // BLOCK_BYTES
        while last < min(first + ahead, end) and last not in self._blocks:
            last += 1
        if last == end:  # what lies at a file's end is read backwards
            while first > max(last - ahead, 0) and first - 1 not in self._blocks:
                first -= 1
        self._end = last
        self._keep(first, self._fetched((first, last)))

    def _fetched(self, run: tuple[int, int]) -> bytes:
        """The blocks ``[first, last)``, as far as the file has them."""
        start = run[0] * BLOCK_BYTES
        data = bytearray(min(run[1] * BLOCK_BYTES, self.size_bytes) - start)
        got = self._file.checked()([memoryview(data)], start)
        return bytes(data[:got])

    def _keep(self, first: int, data: bytes) -> None:
        """Keep blocks, and let go of the oldest where they are too many."""
        for at in range(0, len(data), BLOCK_BYTES):
            self._blocks[first + at // BLOCK_BYTES] = data[at : at + BLOCK_BYTES]
        while len(self._blocks) * BLOCK_BYTES > self._held_bytes:
            self._blocks.pop(next(iter(self._blocks)))


class Looked:
    """A small file that came whole with the first look at it: read from what came until its end was
    read, then from afar, so that of many such files little is held. Threads share it.
    """

    def __init__(self, file: File, data: bytes) -> None:
        self.name, self.size_bytes = file.name, file.size_bytes
        self.in_flight, self.copy_bytes = file.in_flight, file.copy_bytes
        self._file = file
        self._data: memoryview | None = memoryview(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._file,)

    def checked(self) -> Read:
        """Reads of what came, while that is kept."""
        read = self._file.checked()
        data = self._data
        if data is None:
            return read

        def read_looked(parts: Sequence[memoryview], offset: int) -> int:
            at = offset
            for part in parts:
                some = data[at : at + len(part)]
                part[: len(some)] = some
                at += len(some)
            if at >= self.size_bytes:
                self._data = None
            return at - offset

        return read_looked

    def close(self) -> None:
        """Close the file."""
        self._data = None
        self._file.close()


def _itself(file: File) -> File:
    return file
