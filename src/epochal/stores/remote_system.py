"""File systems of fsspec by URL, what their errors mean, and reading through any of them."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, NoReturn
from urllib.parse import urlsplit

import fsspec

from epochal.errors import EpochalError, FileMissingError, FormatError
from epochal.stores.remote_answer import Identity, Sink, Transient, compare

__all__ = ["PlainReader", "meaning", "protocols_of", "said", "shown", "system_of"]

IN_FLIGHT = 16
REQUEST_BYTES = 1 << 20  # of one request: its answer is held whole before it is copied
RECHECK_SECONDS = 30.0
TIMEOUT_SECONDS = 300.0
ADDRESS = re.compile(r"\w+://[^\s'\"<>()]+")  # a URL within a text

# Extras of ours that bring what a scheme needs.
EXTRAS = {
    "http": "remote",
    "https": "remote",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
}
# File systems that are not asynchronous, and yet may be read by several threads at once.
SHARED = {"memory", "file", "local", "simplecache", "data"}
# Whatever in `info` changes with the bytes, by the names that file systems give it.
TAGS = (
    "ETag",
    "etag",
    "e_tag",
    "generation",
    "VersionId",
    "version_id",
    "content_hash",
    "checksum",
    "md5Hash",
    "md5",
    "sha",
    "sha256",
    "commit_hash",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "modified",
    "modify",
    "mtime",
    "updated",
    "created",
)


def shown(url: str) -> str:
    """A URL for people: without passwords, and without a query that may be one.

    >>> shown("https://me:secret@host/a.h5?signature=1234")
    'https://me@host/a.h5?...'
    >>> shown("simplecache::s3://bucket/a.h5")
    'simplecache::s3://bucket/a.h5'
    """
    return "::".join(_shown(part) for part in url.split("::"))


def _shown(url: str) -> str:
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, _ = parts.netloc.rpartition("@")
    if at and ":" in user:
        url = url.replace(f"{user}@", f"{user.partition(':')[0]}@", 1)
    if parts.scheme in ("http", "https") and parts.query:
        url = url.partition("?")[0] + "?..."
    return url


def system_of(url: str) -> tuple[Any, str]:
    """The file system that a URL names, and the path in it. fsspec keeps one a process and set of
    options; options come from its own configuration and from the environment.

    Raises
    ------
    FormatError
        Its scheme is unknown, or needs a package that is not installed.
    """
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise FormatError(f"{shown(url)}: {_missing(url)} (fsspec: {error})") from error
    except Exception as error:
        raise meaning(error, shown(url)) from error


def _missing(url: str) -> str:
    for part in reversed(url.split("::")):
        scheme = part.partition("://")[0]
        if scheme in EXTRAS:
            return f"{scheme}:// needs a package: pip install 'epochal[{EXTRAS[scheme]}]'"
    return f"{url.partition('://')[0]}:// needs a package that is not installed"


def protocols_of(system: Any) -> tuple[str, ...]:
    """Schemes that a file system is for."""
    names = system.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def meaning(error: BaseException, name: str) -> EpochalError:
    """The error of ours that says what one of a file system's means, and what to do."""
    if isinstance(error, EpochalError):
        return error
    text, kind = _text(error), type(error).__name__
    if isinstance(error, IsADirectoryError):
        return FileMissingError(f"{name}: there is no such object, but a folder or a page")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileMissingError(f"{name}: there is no such object")
    if isinstance(error, PermissionError) or "Credentials" in kind:
        return FormatError(
            f"{name}: may not be read ({kind}: {text}). Give credentials as fsspec takes them: in "
            "the environment of the service's own tools, or in fsspec's configuration "
            "(FSSPEC_S3_KEY and the like, or fsspec.config.conf); for a public bucket "
            'conf["s3"] = {"anon": True}'
        )
    if isinstance(error, ValueError) and "rotocol" in text:
        return FormatError(
            f"{name}: no file system is known for it ({text}). Known are {', '.join(_known())}"
        )
    return FormatError(
        f"{name}: cannot be read ({kind}: {text}). Is the address right, and is there a network? "
        "Rows that came so far are good: iterate again, or resume from a state_dict"
    )


def said(error: BaseException) -> str:
    """Kind and text of an error, with URLs as people may see them."""
    return f"{type(error).__name__}: {_text(error)}"


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return ADDRESS.sub(lambda found: shown(found[0]), text)


def _known() -> list[str]:
    return [name for name in fsspec.available_protocols() if len(name) > 1]


class PlainReader:
    """Reads an object of any file system by ``cat_file``, which tells nothing but the bytes.

    So whether it is still the same object is asked apart: when a process begins to read it, when a
    read comes short or fails, and about twice a minute, but not at each read, which would double
    the requests. An object that is written over in between may give wrong bytes for so long.
    """

    def __init__(self, system: Any, path: str, name: str) -> None:
        self._system, self._path, self._name = system, path, name
        self._parallel = bool(system.async_impl)
        self._timeout = {"timeout": TIMEOUT_SECONDS} if self._parallel else {}
        alone = not (self._parallel or SHARED & set(protocols_of(system)))
        self._one_at_a_time = threading.Lock() if alone else None
        self._looked_at = 0.0
        self.in_flight = IN_FLIGHT if self._parallel else 1
        self.copy_bytes = self.request_bytes = REQUEST_BYTES

    def look(self) -> tuple[Identity, bytes]:
        """Asks for what the file system says of the object."""
        if self._one_at_a_time is not None:
            with self._one_at_a_time:
                return self._look(), b""
        return self._look(), b""

    def _look(self) -> Identity:
        self._system.invalidate_cache(self._system._parent(self._path))
        info = self._system.info(self._path)
        if info.get("type") == "directory":
            raise IsADirectoryError(self._name)
        if info.get("size") is None:
            raise FormatError(f"{self._name}: its server does not say how long it is")
        self._looked_at = time.monotonic()
        tags = [str(info[key]) for key in TAGS if info.get(key) is not None]
        return Identity(int(info["size"]), " ".join(tags))

    def reopen(self, identity: Identity) -> None:
        """Asks again. Systems that keep a copy of the object make it now, while no other thread
        finds it half made.
        """
        compare(self._name, identity, self.look()[0])
        if not self._parallel and identity.size_bytes:
            self._cat(0, 1)

    def fill(self, sink: Sink, start: int, stop: int, identity: Identity) -> Identity:
        """See `epochal.stores.remote_answer.Reader`."""
        if time.monotonic() - self._looked_at > RECHECK_SECONDS:
            compare(self._name, identity, self.look()[0])
        try:
            data = self._cat(start, stop)
        except Exception as error:
            self._failed(error, identity)
        if len(data) != stop - start:
            compare(self._name, identity, self.look()[0])
            raise Transient(f"{len(data)} of {stop - start} bytes came")
        sink.write(data)
        return identity

    def _cat(self, start: int, stop: int) -> bytes:
        if self._one_at_a_time is None:
            data = self._system.cat_file(self._path, start=start, end=stop, **self._timeout)
        else:
            with self._one_at_a_time:
                data = self._system.cat_file(self._path, start=start, end=stop)
        return bytes(data)

    def _failed(self, error: Exception, identity: Identity) -> NoReturn:
        """Nothing that reading again would mend, if the object is another one by now."""
        if isinstance(error, FileNotFoundError | PermissionError):
            raise meaning(error, self._name) from error
        compare(self._name, identity, self.look()[0])
        raise Transient(said(error)) from error
