"""Files of other writers: what is read of them is what h5py reads, or an error as h5py's is."""

from collections import Counter

import h5py
import hdf5plugin  # noqa: F401  registers the filters that h5py is compared with
import pytest
from corpus import files
from hdf5_files import read_all, same

from epochal.errors import DamageError
from epochal.stores import open_store
from epochal.stores.ragged import RaggedSource
from epochal.view import RaggedView

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


def rows_are(source, expected):
    """Whether rows of varying length are what h5py makes of them."""
    rows = RaggedView("", source, None)[...].rows()
    return all(same(ours, theirs) for ours, theirs in zip(rows, expected, strict=False))


def compare(path, counts):
    store = open_store(path)
    with h5py.File(path, "r", locking=False) as file:
        for name, source in store.sources.items():
            if source.layout.kind == "sparse":
                rows = RaggedView("", source, None)[...]
                for part in ("data", "indices"):
                    assert same(getattr(rows, part), file[name][part][...]), f"{path}: {name}"
                counts["sparse"] += 1
                continue
            try:
                expected = file[name][...]
            except (OSError, TypeError):  # h5py knows no times
                expected = None
            if isinstance(source, RaggedSource):
                assert rows_are(source, expected), f"{path}: {name}"
                counts["ragged"] += 1
                continue
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
    assert counts["read by us alone"] <= READ_BY_US_ALONE, counts


def test_lzo_of_pytables():
    """Nothing here reads LZO for comparison; the writer's numbers are known."""
    paths = [path for path in files("foreign") if "lzo" in path.name]
    if not paths:
        pytest.skip("the corpus has no LZO files")
    for path in paths:
        table = read_all(open_store(path).sources["tuple0"])
        assert table["var3"].tolist() == list(range(100, 0, -1))
