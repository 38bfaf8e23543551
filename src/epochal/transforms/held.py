"""What all tasks of a cluster need, at every worker."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["held"]


def held(client: Any, value: Any) -> Any:
    """A future of a value that every worker has: else tasks go to the one that has it. The
    scheduler knows how to make it anew where a worker dies.
    """
    future = client.submit(_itself, value, pure=False)
    import_module("distributed").wait([future])
    client.replicate([future])
    return future


def _itself(value: Any) -> Any:
    return value
