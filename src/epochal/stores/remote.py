"""Objects by URL: read by many range requests at once, never as another object than was opened."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, cast

from epochal.errors import EpochalError, FormatError
from epochal.stores.file import Read
from epochal.stores.remote_answer import Identity, Reader, Sink, Transient
from epochal.stores.remote_system import PlainReader, meaning, protocols_of, shown, system_of
from epochal.stores.waiting import together

__all__ = ["RemoteFile", "patiently", "reader_of"]

# Where a protocol of its own tells more than fsspec passes on.
READERS = {
    "http": "epochal.stores.remote_http:HttpReader",
    "https": "epochal.stores.remote_http:HttpReader",
    "s3": "epochal.stores.remote_s3:S3Reader",
    "s3a": "epochal.stores.remote_s3:S3Reader",
}
ATTEMPTS = 5
AT_ONCE = 3  # requests that one read is cut into and has under way at a time
FIRST_PAUSE_SECONDS = 0.2  # then three times as much each time, up to a fifth more or less


class RemoteFile:
    """An object by URL (`epochal.stores.file.File`). Threads share it.

    It pickles as its URL and identity; each process has a file system of its own, since what runs
    fsspec's requests is a thread that a fork leaves behind. Each read is one request (or several
    at once, where it is long), asked again up to `ATTEMPTS` times where that may help. That all of
    them are of one object is checked as its protocol allows: see `HttpReader`, `S3Reader` and
    `PlainReader`, which is for any other.

    Parameters
    ----------
    url
        As fsspec has it: ``"s3://bucket/train.h5"``, also chained.
    key
        Below the URL: ``"X/c/0"`` of a tree.
    identity
        What the object was when it was opened; without a tag, what the first answer says is kept.
    in_flight, copy_bytes
        What its reader says: see `epochal.stores.remote_answer.Reader`.
    """

    def __init__(
        self, url: str, key: str, identity: Identity, in_flight: int, copy_bytes: int
    ) -> None:
        self._url, self._key, self._identity = url, key, identity
        self.in_flight, self.copy_bytes = in_flight, copy_bytes
        self.name = _name(url, key)
        self.size_bytes = identity.size_bytes
        self._closed = False
        # By process: a fork must neither use its parent's file system nor wait for a lock that a
        # lost thread holds.
        self._readers: dict[int, Reader] = {}
        self._locks: dict[int, threading.Lock] = {}

    @classmethod
    def look(cls, url: str, key: str = "") -> tuple[RemoteFile, bytes]:
        """The object that is there now, and its first bytes or none: one request, mostly.

        Raises
        ------
        FileMissingError
            There is none; what is there may be a folder.
        FormatError
            It cannot be read: no permission, no network, a server that serves no ranges.
        """
        reader = reader_of(url, key)
        identity, head = patiently(reader.look, _name(url, key))
        file = cls(url, key, identity, reader.in_flight, AT_ONCE * reader.copy_bytes)
        file._readers[os.getpid()] = reader
        return file, head

    def __getstate__(self) -> tuple[Any, ...]:
        identity, kind = self._identity, (self.in_flight, self.copy_bytes)
        return (self._url, self._key, identity, *kind), self._closed

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state[0])  # type: ignore[misc]
        self._closed = state[1]

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r}, {self._identity})"

    def checked(self) -> Read:
        """Reads of the object that was opened."""
        if self._closed:
            raise FormatError(
                f"{self.name}: asked for rows of a store that was closed; open the file again"
            )
        return partial(self._read, self._reader())

    def close(self) -> None:
        """Nothing may be read any more. fsspec keeps its connections for whoever comes next."""
        self._closed = True
        self._readers.clear()

    def _reader(self) -> Reader:
        reader = self._readers.get(os.getpid())
        if reader is None:
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                reader = self._readers.get(os.getpid())
                if reader is None:
                    reader = reader_of(self._url, self._key)
                    patiently(partial(reader.reopen, self._identity), self.name)
                    self._readers[os.getpid()] = reader
        return reader

    def _read(self, reader: Reader, parts: Sequence[memoryview], offset: int) -> int:
        """See `epochal.stores.file.Read`."""
        requests = list(_requests(parts, offset, self.size_bytes, reader.request_bytes))
        if requests and not self._identity.tag:  # what the first answer is of, the others must be
            self._ask(reader, requests.pop(0))
        together(partial(self._ask, reader), requests, min(AT_ONCE, self.in_flight))
        return max(min(sum(map(len, parts)), self.size_bytes - offset), 0)

    def _ask(self, reader: Reader, request: _Request) -> None:
        seen = patiently(partial(self._fill, reader, request), self.name)
        if seen.tag and not self._identity.tag:
            self._identity = seen

    def _fill(self, reader: Reader, request: _Request) -> Identity:
        sink = Sink(request.parts)
        try:
            return reader.fill(sink, request.start, request.stop, self._identity)
        finally:
            sink.close()


def _name(url: str, key: str) -> str:
    return shown(f"{url.rstrip('/')}/{key}" if key else url)


def reader_of(url: str, key: str = "") -> Reader:
    """How what is at a URL, or at a key below it, is read in this process. Asks nothing yet."""
    system, path = system_of(url)
    if key:
        path = f"{path.rstrip('/')}/{key}"
    for protocol in protocols_of(system):
        if protocol in READERS:
            module, _, kind = READERS[protocol].partition(":")
            reader: Any = getattr(import_module(module), kind)
            return cast(Reader, reader(system, path, _name(url, key)))
    return PlainReader(system, path, _name(url, key))


def patiently(ask: Callable[[], Any], name: str) -> Any:
    """What `ask` returns, asked again where its failure may pass."""
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except EpochalError:
            raise
        except Transient as error:
            if attempt == ATTEMPTS:
                raise FormatError(
                    f"{name}: cannot be read: {error}, {ATTEMPTS} times in a row. Is there a "
                    "network, and is the server well? Rows that came so far are good: iterate "
                    "again, or resume from a state_dict"
                ) from error
        except Exception as error:
            raise meaning(error, name) from error
        time.sleep(pause * random.uniform(0.8, 1.2))
        pause *= 3
    raise AssertionError(name)


class _Request(NamedTuple):
    """Bytes ``[start, stop)`` into some buffers."""

    parts: list[memoryview]
    start: int
    stop: int


def _requests(parts: Sequence[memoryview], offset: int, end: int, most: int) -> Iterator[_Request]:
    """What fills some buffers from `offset` on, as far as `end`, by requests of at most `most`
    bytes.
    """
    some: list[memoryview] = []
    start = at = offset
    for part in parts:
        view = part[: max(end - at, 0)]
        while len(view):
            some.append(view[: start + most - at])
            view = view[len(some[-1]) :]
            at += len(some[-1])
            if at == start + most:
                yield _Request(some, start, at)
                some, start = [], at
    if some:
        yield _Request(some, start, at)
