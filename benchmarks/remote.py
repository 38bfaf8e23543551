"""An epoch over HTTP, opening included, against one download of the whole file.

    python benchmarks/remote.py

A server in a process of its own, on this machine, waits 20 ms before each answer and sends all
answers together at 1 Gbit/s (``--bytes-per-second 0``: as fast as it goes, where server and reader
share the cores). The download is one request for everything, whose bytes are dropped. The exact
shuffle has a quarter of the decoded rows in memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import epochal
import harness
from epochal.cli.measure import Epoch, median, run_epochs

SERVER = Path(__file__).parents[1] / "tests" / "stores" / "http_server.py"
PART_BYTES = 1 << 20
SCHEMES = ("sequential", "shuffled_sequential")


@contextmanager
def served(folder: Path, latency: float, bytes_per_second: float) -> Iterator[str]:
    """The address at which a folder is served."""
    words = [sys.executable, str(SERVER), str(folder)]
    words += ["--latency", str(latency), "--bytes-per-second", str(bytes_per_second)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def download_seconds(url: str) -> float:
    """One request for the whole file; its bytes are counted and dropped."""
    started = time.perf_counter()
    buffer = bytearray(PART_BYTES)
    with urlopen(url) as answer:
        while answer.readinto(buffer):
            pass
    return time.perf_counter() - started


def epoch(url: str, scheme: str, memory: int, scratch: str | None) -> tuple[float, Epoch]:
    """Seconds of opening the file and of its first epoch, and what the epoch took of memory."""
    started = time.perf_counter()
    with epochal.open(url) as ds:
        (found,) = run_epochs(
            lambda: ds.batches(scheme, harness.BATCH_ROWS, seed=0, memory=memory, scratch=scratch)
        )
    return time.perf_counter() - started, found


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS, repeat=3)
    words.add_argument("--latency", type=float, default=0.02, help="seconds an answer [0.02]")
    words.add_argument("--bytes-per-second", type=float, default=125e6, help="[125e6]; 0: no limit")
    words.add_argument("--scratch", help="folder for scratch files [the system's]")
    arguments = words.parse_args()
    path = harness.images(arguments.data, arguments.rows)
    memory = max(arguments.rows * (3072 + 8) // 4, 48 << 20)
    figures = []
    with served(path.parent, arguments.latency, arguments.bytes_per_second) as address:
        url = f"{address}/{path.name}"
        download_seconds(url)
        for scheme in SCHEMES:
            epoch(url, scheme, memory, arguments.scratch)
            downloads, epochs = [], []
            for _ in range(arguments.repeat):
                downloads.append(download_seconds(url))
                epochs.append(epoch(url, scheme, memory, arguments.scratch))
            peaks = [found.peak_bytes for _, found in epochs if found.peak_bytes is not None]
            figures.append(
                harness.Figure(
                    what=f"{scheme} over HTTP",
                    rows_per_second=arguments.rows / median(seconds for seconds, _ in epochs),
                    against="download of the file",
                    their_rows_per_second=arguments.rows / median(downloads),
                    goal=0.7,
                    peak_bytes=max(peaks, default=None),
                    memory_bytes=memory,
                )
            )
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
