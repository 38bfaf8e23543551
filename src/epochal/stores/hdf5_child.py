"""Indexing in a child process: what crashes libhdf5 there is an exception here."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace

from epochal.errors import EpochalError, FormatError
from epochal.stores.file import File
from epochal.stores.hdf5_facts import FileFacts
from epochal.stores.hdf5_index import index_file

__all__ = ["index_in_child"]

TIMEOUT_SECONDS = 20
FAR_TIMEOUT_SECONDS = 300  # where each look at the file waits for a network
MEMORY_BYTES = 4 << 30


def index_in_child(
    file: File, *, allow: Collection[str] = (), untrusted: bool = True, raw: bool = True
) -> FileFacts:
    """Do what `index_file` does, in a process of its own that may crash or hang."""
    request = pickle.dumps(
        {"file": file, "allow": tuple(allow), "untrusted": untrusted, "raw": raw}
    )
    timeout = TIMEOUT_SECONDS if file.in_flight == 1 else FAR_TIMEOUT_SECONDS
    # The child finds this very package, however this process came to it.
    found_by = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    # Every thread of OpenBLAS would take of the memory that the child may have.
    environment = os.environ | {"PYTHONPATH": found_by, "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=request,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FormatError(
            f"{file.name}: indexing it took more than {timeout} s in a child process; it may be "
            "built to do that. If you trust the file, open it without untrusted=True"
        ) from None
    if child.returncode != 0:
        last = child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise FormatError(
            f"{file.name}: libhdf5 crashed on it in a child process (exit status {child.returncode}"
            f"{': ' + last[0] if last else ''}): the file is damaged or hostile"
        )
    answer = pickle.loads(child.stdout)
    if isinstance(answer, EpochalError):
        raise answer
    assert isinstance(answer, FileFacts)
    return replace(answer, file=file)


def _bound() -> None:
    """No core dumps, and no more memory than an index can need."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as pages:
        held_bytes = int(pages.read().split()[0]) * resource.getpagesize()
    limit = held_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _serve() -> None:
    request = pickle.load(sys.stdin.buffer)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between
    answer: FileFacts | EpochalError
    _bound()
    try:
        answer = index_file(**request)
    except EpochalError as error:
        answer = error
    with answers:
        pickle.dump(answer, answers)


if __name__ == "__main__":
    _serve()
