"""Ranges over HTTP: every answer says of which object it is, and streams into its buffers."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import aiohttp
from fsspec.asyn import sync

from epochal.errors import ChangedError, FormatError
from epochal.stores.remote_answer import HEAD_BYTES, TRY_AGAIN, Identity, Sink, Transient, compare
from epochal.stores.remote_system import IN_FLIGHT, meaning, said

__all__ = ["HttpReader"]

# Of silence, not in all: a large answer over a slow line takes its time.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
SLOWEST_BYTES_PER_SECOND = 20e3
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


class HttpReader:
    """Reads an object of fsspec's HTTP file system, through its session, headers and options.

    Each answer carries the object's length, and mostly its ETag or date: they are compared, so no
    request is spent on asking. (``If-Match`` would save the body of an answer that is of no use,
    but a weak tag never matches, and servers that do not know it ignore it.)
    """

    in_flight = IN_FLIGHT
    copy_bytes = 256 << 10  # what aiohttp holds of an answer that nobody takes
    request_bytes = 1 << 20

    def __init__(self, system: Any, path: str, name: str) -> None:
        self._system, self._path, self._name = system, path, name

    def look(self) -> tuple[Identity, bytes]:
        """Asks for the first bytes: the answer says the rest. (HEAD is refused by what is signed
        for GET.)
        """
        head = bytearray(HEAD_BYTES)
        sink = Sink([memoryview(head)])
        try:
            seen = self._get(sink, 0, HEAD_BYTES)
        except Transient as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                # Nobody is there. Later on it may be a server that starts again: worth waiting for.
                raise meaning(error.__cause__, self._name) from error
            raise
        return seen, bytes(head[: sink.n_bytes])

    def reopen(self, identity: Identity) -> None:
        """Nothing: the first answer tells."""

    def fill(self, sink: Sink, start: int, stop: int, identity: Identity) -> Identity:
        """See `epochal.stores.remote_answer.Reader`."""
        seen = self._get(sink, start, stop, identity)
        if sink.n_bytes != stop - start:
            raise Transient(f"{sink.n_bytes} of {stop - start} bytes came")
        return seen

    def _get(self, sink: Sink, start: int, stop: int, was: Identity | None = None) -> Identity:
        timeout = 120 + (stop - start) / SLOWEST_BYTES_PER_SECOND
        try:
            seen = sync(self._system.loop, self._ask, sink, start, stop, was, timeout=timeout)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise meaning(error, self._name) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Transient(said(error)) from error
        finally:
            sink.close()
        assert isinstance(seen, Identity)
        return seen

    async def _ask(self, sink: Sink, start: int, stop: int, was: Identity | None) -> Identity:
        options = {"timeout": TIMEOUT, **self._system.kwargs}
        # What is compressed on the way has other positions, and other lengths.
        asked = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        options["headers"] = {**(options.get("headers") or {}), **asked}
        session = await self._system.set_session()
        async with session.get(self._system.encode_url(self._path), **options) as answer:
            seen = self._checked(answer, start)
            if was is not None:
                compare(self._name, was, seen)
            async for data in answer.content.iter_any():
                sink.write(data)
        return seen

    def _checked(self, answer: Any, start: int) -> Identity:
        """What an answer is of, if it is the one that was asked for."""
        status, headers = answer.status, answer.headers
        tag = headers.get("ETag") or headers.get("Last-Modified") or ""
        if status == 416:
            total = headers.get("Content-Range", "").rpartition("/")[2]
            if start == 0 or not total.isdigit():
                return Identity(0, tag)
            raise ChangedError(f"{self._name}: has {total} bytes now, and had more when opened")
        if status == 200 and headers.get("Content-Length") == "0":
            return Identity(0, tag)
        if status != 206:
            self._refused(status, answer)
        if headers.get("Content-Encoding", "identity") not in ("identity", ""):
            raise FormatError(f"{self._name}: its server compresses parts of it on the way")
        match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise FormatError(
                f"{self._name}: asked for bytes from {start} on, its server answered with "
                f"{headers.get('Content-Range')!r}: it serves no ranges. {DOWNLOAD}"
            )
        return Identity(int(match[3]), tag)

    def _refused(self, status: int, answer: Any) -> NoReturn:
        reason = answer.reason
        if status == 200 and answer.content_type == "text/html":
            raise IsADirectoryError(self._name)  # the page that a server makes of a folder
        if status == 200:
            raise FormatError(
                f"{self._name}: its server serves no parts of it (asked for a range, it answered "
                f"with everything). {DOWNLOAD}"
            )
        if status in (404, 410):
            raise FileNotFoundError(self._name)
        if status in (401, 403, 407):
            raise PermissionError(f"HTTP {status} {reason}")
        if status in TRY_AGAIN:
            raise Transient(f"HTTP {status} {reason}")
        raise FormatError(f"{self._name}: its server refused: HTTP {status} {reason}")


DOWNLOAD = "Download it first, or open simplecache:: before its URL, which does that"
