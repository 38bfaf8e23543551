"""Small files of other writers that no script here can write: see `tests/golden/README.md`."""

from pathlib import Path

import numpy as np
from hdf5_files import read_all

from epochal.stores import open_store

GOLDEN = Path(__file__).parent.parent / "golden"


def test_lzo_of_pytables():
    store = open_store(GOLDEN / "pytables-lzo-shuffle.h5")
    assert set(store.sources) == {"tuple0", "group0/tuple1", "group0/group1/tuple2"}
    for source in store.sources.values():
        assert (source.layout.kind, source.layout.codec) == ("chunked", "shuffle + lzo")
        table = read_all(source)
        assert table["var3"].tolist() == list(range(100, 0, -1))
        assert set(table["var1"]) == {b"    "}
    assert read_all(store.sources["tuple0"])["var2"].tolist() == list(range(100))


def test_blosc2_of_pytables():
    (source,) = open_store(GOLDEN / "pytables-blosc2.h5").sources.values()
    assert (source.layout.kind, source.layout.codec) == ("chunked", "blosc2(zstd)")
    quarter = np.arange(16).reshape(4, 4)
    assert (read_all(source) == np.tile(quarter, (2, 2))[:6, :6]).all()
