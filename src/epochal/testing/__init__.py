"""For tests of stores and schemes: public laws, and stores that count, wait or fail."""

from epochal.testing.laws import StoreTests
from epochal.testing.stores import (
    ChunkedArrays,
    CountingSource,
    SlowSource,
    SourceStore,
    TornSource,
)

__all__ = [
    "ChunkedArrays",
    "CountingSource",
    "SlowSource",
    "SourceStore",
    "StoreTests",
    "TornSource",
]
