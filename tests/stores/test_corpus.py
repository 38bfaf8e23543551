"""Files of other writers: what is read of them is what h5py reads, or an error as h5py's is."""

from collections import Counter

import h5py
import hdf5plugin  # noqa: F401  registers the filters that h5py is compared with
import pytest
from corpus import files
from hdf5_files import read_all, same

from epochal.errors import DamageError
from epochal.stores import open_store

# Found by running it: 1791 datasets of 219 files, 309 of them chunked and decoded without libhdf5.
AT_LEAST = {"chunked": 300, "contiguous": 350, "compact": 1000, "library": 35}
READ_BY_US_ALONE = 16  # LZO, which neither h5py nor hdf5plugin decodes, and one field of bits


def compare(path, counts):
    store = open_store(path)
    with h5py.File(path, "r", locking=False) as file:
        for name, source in store.sources.items():
            try:
                expected = file[name][...]
            except OSError:
                expected = None
            try:
                ours = read_all(source)
            except DamageError:
                assert expected is None, f"{path}: {name}: only we fail"
                counts["neither reads"] += 1
                continue
            if expected is None:
                counts["read by us alone"] += 1
                continue
            assert same(ours, expected), f"{path}: {name}: {source.layout}"
            counts[source.layout.kind] += 1
    store.close()


def test_every_dataset_is_what_h5py_reads():
    counts = Counter()
    for path in files("foreign"):
        compare(path, counts)
    for kind, least in AT_LEAST.items():
        assert counts[kind] >= least, counts
    assert counts["neither reads"] <= 2
    assert counts["read by us alone"] <= READ_BY_US_ALONE


def test_lzo_of_pytables():
    """Nothing here reads LZO for comparison; the writer's numbers are known."""
    paths = [path for path in files("foreign") if "lzo" in path.name]
    if not paths:
        pytest.skip("the corpus has no LZO files")
    for path in paths:
        table = read_all(open_store(path).sources["tuple0"])
        assert table["var3"].tolist() == list(range(100, 0, -1))
