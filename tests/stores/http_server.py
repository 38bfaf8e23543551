"""An HTTP server for tests and benchmarks: ranges, kept connections, a latency and a line's speed,
counts of what was asked, and the faults that servers have.

    python http_server.py FOLDER --latency 0.02 --bytes-per-second 125e6

serves a folder and prints its address.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
PART_BYTES = 128 << 10


@dataclass(frozen=True)
class Request:
    """One request as it was answered."""

    method: str
    path: str
    start: int
    stop: int
    status: int


@dataclass
class Faults:
    """What a server may do wrong. Counts say how many of the next answers with a body go wrong."""

    refuse: int = 0  # answers of status `refuse_status`
    refuse_status: int = 503
    refuse_if: Callable[[int], bool] | None = None  # of any request, by the number of those before
    cut: int = 0  # bodies that end at half, and the connection with them
    hang: int = 0  # answers that never come
    no_ranges: bool = False
    no_tags: bool = False
    date: str = ""  # when what is there was last changed
    weak_tags: bool = False
    no_head: bool = False
    lists: bool = True  # folders as pages of links
    more_links: tuple[str, ...] = ()  # what those pages have beside
    after: Callable[[Request], None] | None = None


@dataclass
class Server:
    """Files by path (``"/a/b.h5"``: bytes, or where they lie), served until closed."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    latency: float = 0.0
    bytes_per_second: float = 0.0  # of all answers together; 0: as it goes
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._line_free_at = 0.0
        self._tags: dict[str, tuple[object, str]] = {}
        self._server = _Listener(self)
        serve = partial(self._server.serve_forever, poll_interval=0.01)
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def bytes_sent(self) -> int:
        return sum(r.stop - r.start for r in self.requests if r.method == "GET")

    def asked(self, path: str | None = None) -> list[Request]:
        """Requests so far, of one path; and forget them."""
        found = [r for r in self.requests if path is None or r.path == path]
        self.requests.clear()
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # For the handler ----------------------------------------------------------------

    def enter(self) -> None:
        with self._lock:
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1

    def note(self, request: Request) -> None:
        self.requests.append(request)
        if self.faults.after is not None:
            self.faults.after(request)

    def take(self, fault: str) -> bool:
        """Whether the next answer has that fault."""
        with self._lock:
            left = getattr(self.faults, fault)
            setattr(self.faults, fault, max(left - 1, 0))
        return bool(left > 0)

    def tag(self, path: str) -> str:
        """The ETag of what is there now."""
        content = self.files[path]
        key: object = content.stat().st_mtime_ns if isinstance(content, Path) else id(content)
        known = self._tags.get(path)
        if known is None or known[0] != key:
            data = content if isinstance(content, bytes) else str((content, key)).encode()
            known = self._tags[path] = (key, f'"{blake2b(data, digest_size=8).hexdigest()}"')
        return ("W/" if self.faults.weak_tags else "") + known[1]

    def wait_for_line(self, n_bytes: int) -> None:
        """Until the line that all answers share has taken so many bytes."""
        if not self.bytes_per_second:
            return
        with self._lock:
            begin = max(self._line_free_at, time.monotonic())
            self._line_free_at = begin + n_bytes / self.bytes_per_second
        time.sleep(max(self._line_free_at - time.monotonic(), 0))


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, owner: Server) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request, client_address):  # type: ignore[no-untyped-def]
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):  # type: ignore[no-untyped-def]
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End connections that clients keep: their threads end, too."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request, client_address):  # type: ignore[no-untyped-def]
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_HEAD(self) -> None:
        self._counted(with_body=False)

    def do_GET(self) -> None:
        self._counted(with_body=True)

    def log_message(self, *arguments: object) -> None:
        pass

    def _counted(self, *, with_body: bool) -> None:
        owner = self.server.owner
        owner.enter()
        try:
            if owner.latency:
                time.sleep(owner.latency)
            self._answer(with_body=with_body)
            self.wfile.flush()
        finally:
            owner.leave()

    def _answer(self, *, with_body: bool) -> None:
        owner, path = self.server.owner, unquote(urlsplit(self.path).path)
        faults = owner.faults
        if faults.refuse_if is not None and faults.refuse_if(len(owner.requests)):
            return self._plain(faults.refuse_status, path)
        if not with_body and faults.no_head:
            return self._plain(405, path)
        if path not in owner.files:
            links = self._links(path)
            if links is None:
                return self._plain(404, path)
            return self._plain(200, path, links, "text/html")
        if with_body and owner.take("hang"):
            time.sleep(30)
            self.close_connection = True
            return None
        if with_body and owner.take("refuse"):
            return self._plain(faults.refuse_status, path)
        return self._file(path, with_body=with_body)

    def _links(self, path: str) -> bytes | None:
        folder = path.rstrip("/") + "/"
        names = {
            p[len(folder) :].partition("/") for p in self.server.owner.files if p.startswith(folder)
        }
        faults = self.server.owner.faults
        if not names or not faults.lists:
            return None
        hrefs = [*faults.more_links, *sorted({name + slash for name, slash, _ in names})]
        return "".join(f'<a href="{href}">{href}</a>\n' for href in hrefs).encode()

    def _plain(self, status: int, path: str, body: bytes = b"", kind: str = "text/plain") -> None:
        self.server.owner.note(Request(self.command, path, 0, len(body), status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, path: str, *, with_body: bool) -> None:
        owner, faults = self.server.owner, self.server.owner.faults
        content = owner.files[path]
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        asked = RANGE.match(self.headers.get("Range", ""))
        start, stop, status = 0, size, 200
        if asked and not faults.no_ranges:
            start = int(asked[1])
            stop = min(int(asked[2]) + 1 if asked[2] else size, size)
            status = 206 if start < size else 416
            start, stop = (start, stop) if status == 206 else (0, 0)
        # Said before the body goes out: whoever has it may look at the count at once.
        owner.note(Request(self.command, path, start, stop, status))
        self.send_response(status)
        self.send_header("Content-Length", str(stop - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        elif status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        if faults.date:
            self.send_header("Last-Modified", faults.date)
        if not faults.no_tags:
            self.send_header("ETag", owner.tag(path))
        self.end_headers()
        if with_body:
            if owner.take("cut"):
                stop = start + (stop - start) // 2
                self.close_connection = True
            self._send(content, start, stop)

    def _send(self, content: bytes | Path, start: int, stop: int) -> None:
        if isinstance(content, bytes):
            for at in range(start, stop, PART_BYTES):
                end = min(at + PART_BYTES, stop)
                self.server.owner.wait_for_line(end - at)
                self.wfile.write(memoryview(content)[at:end])
            return
        with content.open("rb") as file:
            file.seek(start)
            for at in range(start, stop, PART_BYTES):
                part = file.read(min(PART_BYTES, stop - at))
                self.server.owner.wait_for_line(len(part))
                self.wfile.write(part)


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("folder", type=Path)
    words.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    words.add_argument("--bytes-per-second", type=float, default=0.0, help="of all answers")
    given = words.parse_args()
    files: dict[str, bytes | Path] = {
        f"/{path.relative_to(given.folder)}": path
        for path in sorted(given.folder.rglob("*"))
        if path.is_file()
    }
    with Server(files, given.latency, given.bytes_per_second) as server:
        print(server.url, flush=True)
        sys.stdin.read()  # until whoever started it lets go


if __name__ == "__main__":
    main()
