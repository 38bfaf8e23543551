"""Files of other writers: what is read of them is what h5py reads, or an error as h5py's is."""

import hdf5plugin  # noqa: F401  registers the filters that h5py is compared with
import pytest
from corpus import Comparison, files, general
from hdf5_files import read_all

from epochal.stores import open_store

# Found by running it over 219 files.
AT_LEAST = {
    "chunked": 280,
    "sparse": 6,
    "ragged": 4,
    "contiguous": 350,
    "compact": 1000,
    "library": 35,
}
READ_BY_US_ALONE = 17  # LZO, which neither h5py nor hdf5plugin decodes, bits, and times


def test_every_dataset_is_what_h5py_reads():
    found = Comparison()
    for path in files("foreign"):
        found.add(path)
    assert found.mismatches == []
    for kind, least in AT_LEAST.items():
        assert found.equal[kind] >= least, found.equal
    assert len(found.neither) <= 2
    assert len(found.ours_alone) <= READ_BY_US_ALONE, found.ours_alone
    assert found.library.total() == found.equal["library"]


def test_reasons_that_differ_in_names_and_numbers_are_one():
    assert general("a soft link to '/a/b': read it by that name") == (
        "a soft link to '...': read it by that name"
    )
    assert general("its chunks (1024, 7) are larger than 4096 bytes") == (
        "its chunks (...) are larger than N bytes"
    )


def test_lzo_of_pytables():
    """Nothing here reads LZO for comparison; the writer's numbers are known."""
    paths = [path for path in files("foreign") if "lzo" in path.name]
    if not paths:
        pytest.skip("the corpus has no LZO files")
    for path in paths:
        table = read_all(open_store(path).sources["tuple0"])
        assert table["var3"].tolist() == list(range(100, 0, -1))
