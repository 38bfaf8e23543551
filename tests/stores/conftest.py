"""The helpers beside the tests are found by name, also where pytest imports without a path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from http_server import Server

from epochal.stores import remote


def hang_up():
    """End the connections that fsspec's HTTP file systems keep for whoever comes next: nobody comes
    to a server of a test that is over, and aiohttp warns of a session that is collected open.
    """
    from fsspec.asyn import sync
    from fsspec.implementations.http import HTTPFileSystem

    for system in list(HTTPFileSystem._cache.values()):
        if system._session is not None:
            sync(system.loop, system._session.close)
    HTTPFileSystem.clear_instance_cache()


@pytest.fixture
def server():
    """An HTTP server with nothing in it yet."""
    with Server() as server:
        yield server
        hang_up()


@pytest.fixture
def impatient(monkeypatch):
    """What is asked again is asked again at once."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
