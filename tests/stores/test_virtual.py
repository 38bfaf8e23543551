"""Virtual datasets: raw where whole rows are mapped, by the library where not, else refused."""

import os
import pickle

import h5py
import numpy as np
import pytest

import epochal
from epochal.errors import ChangedError
from epochal.stores.sniff import open_store

ROWS = np.arange(3 * 50 * 4, dtype="i4").reshape(150, 4)


@pytest.fixture
def folder(tmp_path):
    """Three files of 50 rows: gzip, contiguous, LZF with small chunks."""
    (tmp_path / "in").mkdir()
    for k, how in enumerate(
        [{"compression": "gzip", "chunks": (7, 4)}, {}, {"compression": "lzf", "chunks": (9, 4)}]
    ):
        with h5py.File(tmp_path / f"part-{k}.h5", "w") as file:
            file.create_dataset("a/X", data=ROWS[50 * k : 50 * k + 50], **how)
    return tmp_path


def virtual(path, shape, filled):
    """A file with one virtual dataset of `shape`; `filled` is called with its layout."""
    layout = h5py.VirtualLayout(shape, "i4")
    filled(layout)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("V", layout, fillvalue=-1)
    return path


def source(k, path="part-{}.h5", rows=50):
    return h5py.VirtualSource(path.format(k), "a/X", (rows, 4))


def fill(layout, where, k):
    layout[where] = source(k)


def opened(path, **options):
    return open_store(path, allow=("virtual",), **options)


def check(path, kinds):
    """Equal to h5py, by chunks and by rows, here and pickled; of one of the kinds."""
    with h5py.File(path) as file:
        due = file["V"][...]
    store = opened(path)
    try:
        for each in (store.sources["V"], pickle.loads(pickle.dumps(store)).sources["V"]):
            layout = each.layout
            assert layout.kind in kinds
            out = np.empty(due.shape, due.dtype)
            each.read(0, layout.n_chunks, out)
            assert (out == due).all()
            for chunk in range(layout.n_chunks):
                low, high = layout.bounds(chunk)
                each.read(chunk, chunk + 1, out[low:high])
            assert (out == due).all()
            if layout.rows_alone:
                rows = np.array([len(due) - 1, 0, 0, len(due) // 2])
                some = np.empty((4, *due.shape[1:]), due.dtype)
                each.read_rows(rows, some)
                assert (some == due[rows]).all()
    finally:
        store.close()
    return store


def test_files_one_after_another_are_read_raw(folder):
    def all_three(layout):
        for k in range(3):
            fill(layout, np.s_[50 * k : 50 * k + 50], k)

    path = virtual(folder / "all.h5", (150, 4), all_three)
    check(path, {"mixed"})
    dataset = epochal.open(path, allow=("virtual",))
    got = np.concatenate([b.V for b in dataset.batches("shuffled_sequential", 16, seed=1)])
    assert (got[np.argsort(got[:, 0])] == ROWS).all()


def test_parts_of_files_and_gaps_are_read_raw(folder):
    def some(layout):
        layout[100:140] = source(0)[10:50]
        layout[3:20] = source(2)[5:22]

    check(virtual(folder / "some.h5", (150, 4), some), {"mixed", "chunked"})


@pytest.mark.parametrize(
    ("shape", "filled"),
    [
        ((150, 4), lambda v: v.__setitem__(np.s_[::3], source(0))),
        ((50, 2), lambda v: v.__setitem__(np.s_[:], source(0)[:, 1:3])),
        ((2, 50, 4), lambda v: (v.__setitem__(0, source(0)), v.__setitem__(1, source(1)))),
        ((60, 4), lambda v: (fill(v, np.s_[:50], 0), fill(v, np.s_[10:60], 1))),
    ],
    ids=["strided", "columns", "stacked", "overlapping"],
)
def test_what_is_not_whole_rows_is_read_by_the_library(folder, shape, filled):
    store = check(virtual(folder / "odd.h5", shape, filled), {"library"})
    assert "virtual" in store.sources["V"].layout.codec


def test_an_untrusted_file_is_read_raw_or_refused(folder):
    raw = virtual(folder / "raw.h5", (50, 4), lambda v: v.__setitem__(np.s_[:], source(1)))
    out = np.empty((50, 4), "i4")
    read = opened(raw, untrusted=True).sources["V"]
    read.read(0, read.layout.n_chunks, out)
    assert (out == ROWS[50:100]).all()
    odd = virtual(folder / "odd.h5", (150, 4), lambda v: v.__setitem__(np.s_[::3], source(0)))
    (other,) = opened(odd, untrusted=True).others
    assert "which an untrusted file may not ask for" in other.why
    assert other.unsafe


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../outside.h5", "'../outside.h5', which does not lie beside the file"),
        ("{root}/outside.h5", "which does not lie beside the file"),
        ("link.h5", "'link.h5', which does not lie beside the file"),
        ("gone.h5", "'gone.h5', which is not there"),
    ],
)
def test_files_elsewhere_are_refused(folder, name, why):
    inside = folder / "in"
    os.symlink(folder / "part-0.h5", inside / "link.h5")
    os.rename(folder / "part-1.h5", folder / "outside.h5")
    path = virtual(
        inside / "v.h5",
        (50, 4),
        lambda v: v.__setitem__(np.s_[:], source(0, name.replace("{root}", str(folder)))),
    )
    store = opened(path)
    assert not store.sources
    assert why in store.others[0].why


def test_what_is_mapped_must_be_safe_itself(folder):
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(800))
    with h5py.File(folder / "outer.h5", "w") as file:
        file.create_dataset("a/X", (50, 4), "i4", external=[(str(secret), 0, 800)])
    with h5py.File(folder / "linked.h5", "w") as file:
        file["a/X"] = h5py.ExternalLink("part-0.h5", "a/X")
    virtual(folder / "again.h5", (50, 4), lambda v: v.__setitem__(np.s_[:], source(0)))
    for name, path, why in [
        ("outer.h5", "a/X", "external storage"),
        ("linked.h5", "a/X", "an external link"),
        ("again.h5", "V", "a virtual dataset"),
        ("part-0.h5", "a/Y", "which is not there"),
        ("part-0.h5", "a", "which is a group"),
    ]:
        origin = h5py.VirtualSource(name, path, (50, 4))
        at = virtual(folder / "v.h5", (50, 4), lambda v, o=origin: v.__setitem__(np.s_[:], o))
        store = opened(at)
        assert not store.sources, name
        assert why in store.others[0].why


def test_files_that_count_up(folder):
    """``part-%b.h5``, as detectors write them: as many as there are."""
    with h5py.File(folder / "counted.h5", "w", libver="latest") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        target = h5py.h5s.create_simple((50, 4), (h5py.h5s.UNLIMITED, 4))
        target.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (50, 4), (50, 4))
        origin = h5py.h5s.create_simple((50, 4))
        plist.set_virtual(target, b"part-%b.h5", b"a/X", origin)
        h5py.h5d.create(file.id, b"V", h5py.h5t.STD_I32LE, target, plist)
    with h5py.File(folder / "counted.h5") as file:
        assert file["V"].shape == (150, 4)
    check(folder / "counted.h5", {"library"})
    for k in range(3):
        os.replace(folder / f"part-{k}.h5", folder / "in" / f"part-{k}.h5")
    os.symlink(folder / "in" / "part-0.h5", folder / "part-0.h5")
    assert opened(folder / "counted.h5").sources  # still in the folder
    os.remove(folder / "part-0.h5")
    os.symlink("/etc/passwd", folder / "part-0.h5")
    store = opened(folder / "counted.h5")
    assert not store.sources
    assert "does not lie beside" in store.others[0].why


@pytest.mark.parametrize("step", [1, 2])
def test_a_file_that_changes(folder, step):
    """Noticed by the raw reader and before libhdf5 is asked."""
    n = 50 // step
    path = virtual(folder / "v.h5", (n, 4), lambda v: v.__setitem__(np.s_[:], source(0)[::step]))
    store = opened(path)
    read = store.sources["V"]
    with h5py.File(folder / "part-0.h5", "a") as file:
        file["more"] = 1
    with pytest.raises(ChangedError, match=r"part-0\.h5 is no longer the file"):
        read.read(0, read.layout.n_chunks, np.empty((n, 4), "i4"))
