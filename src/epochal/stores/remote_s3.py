"""Ranges of S3 objects: asked for only while they are the very object that was opened."""

from __future__ import annotations

import re
from typing import Any

from fsspec.asyn import sync

from epochal.errors import ChangedError, FormatError
from epochal.stores.remote_answer import HEAD_BYTES, Identity, Sink, Transient, compare
from epochal.stores.remote_system import IN_FLIGHT, TIMEOUT_SECONDS, meaning, said

__all__ = ["S3Reader"]

PART_BYTES = 256 << 10
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


class S3Reader:
    """Reads an object of s3fs by ``GetObject`` with ``IfMatch``: one request a read, which S3
    refuses once the object is another one. s3fs signs it, retries it, and adds its own options.
    """

    copy_bytes = 2 * PART_BYTES
    request_bytes = 1 << 20

    def __init__(self, system: Any, path: str, name: str) -> None:
        self._system, self._name = system, name
        self._bucket, self._key, self._version = system.split_path(path)
        pool = (system.config_kwargs or {}).get("max_pool_connections", 10)  # botocore's own
        self.in_flight = max(1, min(IN_FLIGHT, int(pool)))

    def look(self) -> tuple[Identity, bytes]:
        """Asks for the first bytes: the answer says the rest."""
        if not self._key:
            raise IsADirectoryError(self._name)
        head = bytearray(HEAD_BYTES)
        sink = Sink([memoryview(head)])
        seen = self._get(sink, 0, HEAD_BYTES, None)
        return seen, bytes(head[: sink.n_bytes])

    def reopen(self, identity: Identity) -> None:
        """Nothing: the first answer tells."""

    def fill(self, sink: Sink, start: int, stop: int, identity: Identity) -> Identity:
        """See `epochal.stores.remote_answer.Reader`."""
        seen = self._get(sink, start, stop, identity)
        if sink.n_bytes != stop - start:
            raise Transient(f"{sink.n_bytes} of {stop - start} bytes came")
        return seen

    def _get(self, sink: Sink, start: int, stop: int, was: Identity | None) -> Identity:
        try:
            seen = sync(
                self._system.loop, self._ask, sink, start, stop, was, timeout=TIMEOUT_SECONDS
            )
        except (ChangedError, FormatError, Transient):
            raise
        except Exception as error:
            code = _code(error)
            if code in ("InvalidRange", "416") and was is None:
                return Identity(0)
            if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
                raise ChangedError(
                    f"{self._name} is no longer the object that was opened: another one was put in "
                    "its place. Its index is out of date, so reading on could give wrong rows. "
                    "Open it again when nothing writes to it"
                ) from error
            if isinstance(error, FileNotFoundError | PermissionError) or _is_ours_to_mend(error):
                raise meaning(error, self._name) from error
            raise Transient(said(error)) from error
        finally:
            sink.close()
        assert isinstance(seen, Identity)
        return seen

    async def _ask(self, sink: Sink, start: int, stop: int, was: Identity | None) -> Identity:
        options = {"Range": f"bytes={start}-{stop - 1}"}
        if self._version:
            options["VersionId"] = self._version
        if was is not None and was.tag:
            options["IfMatch"] = was.tag
        answer = await self._system._call_s3(
            "get_object", Bucket=self._bucket, Key=self._key, **options
        )
        body = answer["Body"]
        try:
            seen = self._seen(answer, start)
            if was is not None:
                compare(self._name, was, seen)
            while data := await body.read(PART_BYTES):
                sink.write(data)
        finally:
            body.close()
        return seen

    def _seen(self, answer: Any, start: int) -> Identity:
        match = CONTENT_RANGE.match(answer.get("ContentRange") or "")
        if match is None or int(match[1]) != start:
            raise FormatError(
                f"{self._name}: asked for bytes from {start} on, its server answered with "
                f"{answer.get('ContentRange')!r}: it serves no ranges"
            )
        return Identity(int(match[3]), answer.get("ETag") or "")


def _code(error: BaseException) -> str:
    """What S3 called it: s3fs makes one of Python's errors of it, and keeps it as the cause."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _is_ours_to_mend(error: BaseException) -> bool:
    """Whether asking again gives the same answer: no credentials, no such endpoint or option."""
    return type(error).__module__.startswith("botocore") and "Credentials" in type(error).__name__
