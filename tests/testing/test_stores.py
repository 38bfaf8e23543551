"""The stores for tests do what their names say."""

import pickle

import numpy as np
import pytest

from epochal.errors import DamageError
from epochal.stores.memory import ArraySource
from epochal.testing.stores import (
    ChunkedArrays,
    CountingSource,
    SlowSource,
    SourceStore,
    TornSource,
)

Y = np.arange(23, dtype="<u2")


def source(chunk_rows=5):
    return ChunkedArrays({"y": (Y, chunk_rows)}).sources["y"]


def read(of, start, stop):
    low, high = of.layout.bounds(start)[0], of.layout.bounds(stop - 1)[1]
    out = np.empty(high - low, "<u2")
    of.read(start, stop, out)
    return out.tolist()


@pytest.mark.parametrize(
    "wrap",
    [lambda s: s, CountingSource, lambda s: SlowSource(s, 0), lambda s: TornSource(s, 99)],
    ids=["plain", "counting", "slow", "torn elsewhere"],
)
def test_chunks_are_the_rows_of_the_array(wrap):
    wrapped = wrap(source())
    assert wrapped.layout.n_chunks == 5
    assert read(wrapped, 0, 5) == Y.tolist()
    assert read(wrapped, 1, 3) == Y[5:15].tolist()
    assert read(wrapped, 4, 5) == Y[20:].tolist()


def test_rows_of_chunks_are_never_read_alone():
    with pytest.raises(AssertionError, match="cannot be read alone"):
        source().read_rows(np.array([1]), np.empty(1, "<u2"))
    torn = TornSource(ArraySource(Y, 5), 2)
    assert not torn.layout.rows_alone
    with pytest.raises(AssertionError, match="torn source"):
        torn.read_rows(np.array([1]), np.empty(1, "<u2"))


def test_chunks_and_rows_are_counted():
    counting = CountingSource(ArraySource(Y, 5))
    read(counting, 0, 2)
    read(counting, 1, 5)
    out = np.empty(3, "<u2")
    counting.read_rows(np.array([7, 7, 0]), out)
    assert out.tolist() == [7, 7, 0]
    assert counting.chunks == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1}
    assert counting.rows == 3


def test_a_torn_chunk_is_named():
    torn = TornSource(source(), 4)
    assert read(torn, 0, 4) == Y[:20].tolist()
    with pytest.raises(DamageError, match=r"chunk 4 \(rows 20 to 23\) does not decode"):
        read(torn, 3, 5)


def test_slowness_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr("epochal.testing.stores.time.sleep", waited.append)
    slow = SlowSource(ArraySource(Y, 5), 2.5)
    read(slow, 0, 1)
    slow.read_rows(np.array([1]), np.empty(1, "<u2"))
    assert waited == [2.5, 2.5]


def test_chunked_arrays_go_to_other_processes():
    copy = pickle.loads(pickle.dumps(ChunkedArrays({"y": (Y, 5)})))
    assert read(copy.sources["y"], 0, 5) == Y.tolist()


def test_any_sources_make_a_store():
    store = SourceStore({"y": CountingSource(source())})
    assert list(store.sources) == ["y"]
    assert (store.name, store.others) == ("<sources>", ())
    store.close()


def test_a_stored_size_that_is_not_the_decoded_one():
    """So that a test cannot mix the two up."""
    layout = source().layout
    assert layout.stored_bytes == 5 * 5
    assert layout.decoded_bytes == 46
    assert layout.chunk_pieces.tolist() == [1] * 5
