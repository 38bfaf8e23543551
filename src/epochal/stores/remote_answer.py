"""What a server answers: which object it has, and bytes of it into buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from epochal.errors import ChangedError

__all__ = ["HEAD_BYTES", "TRY_AGAIN", "Identity", "Reader", "Sink", "Transient", "compare"]

HEAD_BYTES = 256 << 10  # asked for at the first look, which so costs no request of its own
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # statuses of HTTP that may pass


class Identity(NamedTuple):
    """What tells whether an object is still the one that was opened. ``tag`` is whatever its server
    changes with its bytes (ETag, generation, time); empty where it says nothing of the kind.
    """

    size_bytes: int
    tag: str = ""


class Transient(OSError):
    """A failure that asking again may mend."""


class Reader(Protocol):
    """How one object is read in one process. Threads share it.

    A facade of three calls; the numbers say how it likes to be asked.
    """

    @property
    def in_flight(self) -> int:
        """Requests that are worth having under way at once."""
        ...

    @property
    def copy_bytes(self) -> int:
        """What one request holds beside its buffers, at most."""
        ...

    @property
    def request_bytes(self) -> int:
        """The most to ask for at once."""
        ...

    def look(self) -> tuple[Identity, bytes]:
        """What the object is now, and its first bytes, or none of them."""
        ...

    def reopen(self, identity: Identity) -> None:
        """Before the first read in another process than that which looked at it."""
        ...

    def fill(self, sink: Sink, start: int, stop: int, identity: Identity) -> Identity:
        """Bytes ``[start, stop)`` of that very object, and what it was that gave them.

        Raises `ChangedError`, `FormatError`, `FileMissingError`; what else it raises is `Transient`
        or as good as that.
        """
        ...


class Sink:
    """Buffers that are filled one after another.

    Once it is closed nothing gets into them: whoever gave up waiting owns them again.
    """

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = parts
        self._closed = False
        self.n_bytes = 0
        self._part = self._at = 0

    def close(self) -> None:
        """Let go of the buffers."""
        self._closed = True

    def write(self, data: bytes | memoryview) -> None:
        """Put bytes where the last ones ended."""
        view = memoryview(data)
        while len(view):
            if self._closed or self._part == len(self._parts):
                raise Transient("more bytes came than were asked for")
            part = self._parts[self._part]
            n_bytes = min(len(part) - self._at, len(view))
            part[self._at : self._at + n_bytes] = view[:n_bytes]
            view = view[n_bytes:]
            self.n_bytes += n_bytes
            self._at += n_bytes
            if self._at == len(part):
                self._part, self._at = self._part + 1, 0


def compare(name: str, was: Identity, now: Identity) -> None:
    """Raise `ChangedError` where an object is not the one that was opened."""
    if was.size_bytes != now.size_bytes:
        what = f"it had {was.size_bytes} bytes, now it has {now.size_bytes}"
    elif was.tag and now.tag and was.tag != now.tag:
        what = f"its tag was {was.tag}, now it is {now.tag}"
    else:
        return
    raise ChangedError(
        f"{name} is no longer the object that was opened: {what}. Its index is out of date, so "
        "reading on could give wrong rows. Open it again when nothing writes to it"
    )
