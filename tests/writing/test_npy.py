"""``.npy`` as a container: what NumPy and `epochal.open` read, and what a kill leaves."""

import errno
import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest

import epochal
from epochal.errors import (
    DamageError,
    FormatError,
    MismatchError,
    SourceNameError,
    TargetError,
)
from epochal.stores import open_store
from epochal.stores.manifest import crc32, read_sidecar
from epochal.testing import StoreTests
from epochal.writing import folder
from epochal.writing.container import Progress
from epochal.writing.npy import NpyContainer, recover, specs_in
from epochal.writing.npy_form import header_for, with_rows
from epochal.writing.spec import Compression, SourceSpec

RNG = np.random.default_rng(0)
PLAIN = Compression(None)
DTYPES = ["u1", "<u2", ">i4", "<f2", ">f8", "g", "?", "<c8", ">c16", "S3", "<U2", ">U2", "V5"]
DTYPES += ["<M8[s]", ">M8[10ms]", "<m8[ns]"]
STRUCTURES = [
    np.dtype([("a", "u1"), ("b", ">f8", (2,)), ("shape", "S3"), ("n", [("x", "<i4")])]),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    np.dtype([("größe", "u1"), ("尺", "<f8")]),
    np.dtype([(f"field {k}", "u1") for k in range(200)]),
]


def rows_of(dtype, n, row_shape=()):
    dtype = np.dtype(dtype)
    if dtype.names:
        made = np.zeros((n, *row_shape), dtype)
        for name in dtype.names:
            made[name] = rows_of(dtype[name].base, n, (*row_shape, *dtype[name].shape))
        return made
    if dtype.kind in "SU":
        return np.array(["ab", "", "xy"], dtype)[RNG.integers(0, 3, (n, *row_shape))]
    if dtype.kind in "fc":
        return RNG.standard_normal((n, *row_shape)).astype(dtype)
    if dtype.kind == "b":
        return RNG.integers(0, 2, (n, *row_shape)).astype(bool)
    if dtype.kind in "mM":
        whole = RNG.integers(-1000, 1000, (n, *row_shape))
        return whole.astype(dtype.newbyteorder("=")).astype(dtype)
    size = n * int(np.prod(row_shape, dtype=int)) * dtype.itemsize
    return np.frombuffer(RNG.bytes(size), dtype).reshape(n, *row_shape)


def specs_of(sources, chunk_rows=4):
    return [SourceSpec(k, v.shape[1:], v.dtype, chunk_rows, PLAIN) for k, v in sources.items()]


def put_all(container, specs, sources, start=0, sums=None):
    """Put rows from `start` on, as a writer does: a chunk that is there is read and put anew."""
    kept = {}
    for spec in specs:
        rows = sources[spec.name]
        first = start // spec.chunk_rows
        kept[spec.name] = [] if sums is None else sums[spec.name][:first].tolist()
        for chunk in range(first, -(-len(rows) // spec.chunk_rows)):
            at = chunk * spec.chunk_rows
            block = np.zeros((spec.chunk_rows, *spec.row_shape), spec.dtype)
            there = max(start - at, 0)
            if there:
                container.get(spec.name, chunk, block[:there])
            n = min(spec.chunk_rows, len(rows) - at)
            block[there:n] = rows[at + there : at + n]
            stored = container.encoder(spec.name)(block[:n])
            kept[spec.name].append(crc32(stored))
            container.put(spec.name, chunk, stored)
    return {name: np.array(each, np.uint32) for name, each in kept.items()}


def write(path, sources, attrs=None, chunk_rows=4):
    specs = specs_of(sources, chunk_rows)
    container = NpyContainer.create(str(path), specs, None)
    sums = put_all(container, specs, sources)
    container.save(Progress(len(next(iter(sources.values()))), sums, attrs or {}), final=True)


def read(path):
    with epochal.open(path) as ds:
        return {name: ds[name][:] for name in ds.sources}


def check_sums(path, sources):
    """The sums beside the files are of the rows that are there."""
    for name, rows in sources.items():
        file = path if path.is_file() else path / f"{name}.npy"
        [(told, manifest)] = read_sidecar(str(file)).items()
        n = manifest.piece_rows
        assert told == name
        assert not manifest.decoded
        blocks = [rows[at : at + n].tobytes() for at in range(0, len(rows), n)]
        assert manifest.sums.tolist() == [crc32(each) for each in blocks]


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert found[name].shape == rows.shape
        assert found[name].dtype == rows.dtype
        assert found[name].tobytes() == rows.tobytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *STRUCTURES], ids=lambda d: str(d)[:20])
@pytest.mark.parametrize("n", [0, 1, 4, 10])
def test_one_file_is_what_numpy_reads(tmp_path, dtype, n):
    X = rows_of(dtype, n, (2, 3))
    write(tmp_path / "X.npy", {"X": X})
    found = np.load(tmp_path / "X.npy")
    assert np.array_equal(found, X)
    assert found.dtype == X.dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are not Latin
        np.save(tmp_path / "theirs.npy", X)
    assert len((tmp_path / "X.npy").read_bytes()) == len((tmp_path / "theirs.npy").read_bytes())
    if n:
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        assert np.array_equal(mapped, X)
        same(read(tmp_path / "X.npy"), {"X": X})


def test_the_file_is_numpys_own_byte_for_byte(tmp_path):
    X = rows_of("f4", 10, (3,))
    write(tmp_path / "X.npy", {"X": X})
    np.save(tmp_path / "theirs.npy", X)
    assert (tmp_path / "X.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


@pytest.mark.parametrize("dtype", [*DTYPES, *STRUCTURES[:3]], ids=lambda d: str(d)[:20])
def test_several_are_a_folder(tmp_path, dtype):
    sources = {"X": rows_of(dtype, 10, (2, 3)), "train/y": rows_of(dtype, 10)}
    write(tmp_path / "a", sources, {"names": np.array(["cat", "dog"]), "scale": np.float32(0.5)})
    for name, rows in sources.items():
        assert np.array_equal(np.load(tmp_path / "a" / f"{name}.npy", mmap_mode="r"), rows)
    same(read(tmp_path / "a"), sources)
    store = open_store(tmp_path / "a")
    assert store.groups == {"": {"names": ["cat", "dog"], "scale": 0.5}}
    store.close()


def test_the_folder_is_read_by_batches_and_pickles(tmp_path):
    sources = {"X": rows_of("f4", 100, (3,)), "y": np.arange(100)}
    write(tmp_path / "a", sources)
    with epochal.open(tmp_path / "a") as ds:
        batches = list(ds.batches("shuffled_sequential", batch_size=7, seed=0))
    X, y = (np.concatenate(each) for each in zip(*batches, strict=True))
    assert sorted(y.tolist()) == list(range(100))
    assert np.array_equal(X, sources["X"][y])
    source = pickle.loads(pickle.dumps(open_store(tmp_path / "a").sources["X"]))
    out = np.empty((2, 3), "f4")
    source.read_rows(np.array([99, 0]), out)
    assert np.array_equal(out, sources["X"][[99, 0]])


@pytest.mark.parametrize("rows", [0, 9, 10, 10**20])
@pytest.mark.parametrize("row_shape", [(), (3,)])
def test_headers_are_as_long_for_any_number_of_rows(rows, row_shape):
    spec = SourceSpec("X", row_shape, STRUCTURES[0], 4)
    header = header_for(spec, rows)
    assert len(header) == len(header_for(spec, 0))
    assert len(header) % 64 == 0
    assert with_rows(header, 0) == header_for(spec, 0)


@pytest.mark.parametrize(
    ("dtype", "compression", "match"),
    [
        ("f4", Compression("gzip"), "compression='gzip', shuffle=False: .npy files hold rows as"),
        ("f4", Compression(None, shuffle=True), "give compression=None, or flavour='zarr'"),
        ([(f"{k:0900}", "u1") for k in range(99)], PLAIN, "takes more than 10000 bytes. Make its"),
        ({"names": "ab", "formats": ["i4", "i4"], "offsets": [0, 2]}, PLAIN, "cannot hold"),
    ],
    ids=str,
)
def test_what_npy_has_no_form_for(tmp_path, dtype, compression, match):
    spec = SourceSpec("X", (), np.dtype(dtype), 4, compression)
    with pytest.raises(MismatchError, match=match):
        NpyContainer.create(str(tmp_path / "X.npy"), [spec], None)
    assert not os.listdir(tmp_path)


def test_one_file_has_no_place_for_attributes(tmp_path):
    spec = SourceSpec("X", (), np.dtype("u1"), 4, PLAIN)
    with pytest.raises(MismatchError, match=r"attrs=\['a'\]: one .npy file has no place"):
        NpyContainer.create(str(tmp_path / "X.npy"), [spec], None, {"a": 1})
    container = NpyContainer.create(str(tmp_path / "X.npy"), [spec], None)
    with pytest.raises(MismatchError, match="give two sources or more"):
        container.save(Progress(0, None, {"a": 1}), final=True)
    container.abandon()


@pytest.mark.parametrize("name", ["", "/X", "..", "a/../b", "epochal.json", "__X"])
def test_names_that_are_no_paths(tmp_path, name):
    specs = [SourceSpec(each, (), np.dtype("u1"), 4, PLAIN) for each in (name, "y")]
    with pytest.raises(SourceNameError, match="cannot be a path in a folder"):
        NpyContainer.create(str(tmp_path / "a"), specs, None)
    assert not os.listdir(tmp_path)


def test_what_stands_in_the_way_is_told(tmp_path):
    specs = [SourceSpec(each, (), np.dtype("u1"), 4, PLAIN) for each in "Xy"]
    (tmp_path / "a").mkdir()
    with pytest.raises(TargetError, match="a: cannot be written: File exists"):
        NpyContainer.create(str(tmp_path / "a"), specs, None)


def test_get_a_chunk_that_is_not_there(tmp_path):
    container = NpyContainer.create(
        str(tmp_path / "X.npy"), [SourceSpec("X", (), np.dtype("u1"), 4, PLAIN)], None
    )
    with pytest.raises(DamageError, match=r"source 'X', rows 4 to 6: the file ends before them"):
        container.get("X", 1, np.zeros(3, "u1"))
    container.abandon()


BOTH = {
    "file": {"a": rows_of("f4", 6, (2,))},
    "folder": {"X": rows_of("f4", 6, (2,)), "y": rows_of(">i8", 6)},
}


def path_of(tmp_path, kind):
    return tmp_path / ("a.npy" if kind == "file" else "a")


def twice(sources):
    return {name: np.concatenate([rows, rows]).astype(rows.dtype) for name, rows in sources.items()}


@pytest.mark.parametrize("kind", BOTH)
def test_append(tmp_path, kind):
    path, before = path_of(tmp_path, kind), BOTH[kind]
    attrs = {"kept": 1} if kind == "folder" else {}
    write(path, before, attrs)
    specs, progress = specs_in(str(path), [*before])
    assert progress.rows == 6
    assert progress.attrs == attrs
    container = NpyContainer.open_to_append(str(path), specs)
    check_sums(path, before)
    sums = put_all(container, specs, twice(before), 6, progress.sums)
    same(read(path), before)
    container.save(Progress(12, sums, attrs), final=True)
    same(read(path), twice(before))
    check_sums(path, twice(before))
    assert specs_in(str(path), [*before])[1].rows == 12
    for file in [path] if kind == "file" else path.glob("*.npy"):
        assert len(np.load(file, mmap_mode="r")) == 12


@pytest.mark.parametrize("kind", BOTH)
def test_an_append_that_is_abandoned_leaves_what_was_there(tmp_path, kind):
    path, before = path_of(tmp_path, kind), BOTH[kind]
    write(path, before)
    there = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    specs, _ = specs_in(str(path), [*before])
    container = NpyContainer.open_to_append(str(path), specs)
    put_all(container, specs, twice(before), 6)
    container.abandon()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == there


def test_rows_that_were_published_are_not_replaced(tmp_path):
    write(tmp_path / "X.npy", {"X": rows_of("u1", 6)})
    specs, _ = specs_in(str(tmp_path / "X.npy"), ["X"])
    container = NpyContainer.open_to_append(str(tmp_path / "X.npy"), specs)
    with pytest.raises(
        MismatchError, match=r"rows 0 to 5 were given anew: rows of a .npy file are"
    ):
        container.put("X", 0, container.encoder("X")(np.full(8, 7, "u1")))
    container.abandon()


class Killed(BaseException):
    pass


def kills(monkeypatch, function, least):
    """Run a function again and again, killed at its first change of the file system, its second,
    ..., until it comes to its end; whether it did.
    """
    names = ("rename", "unlink", "fsync", "open", "pwrite", "mkdir", "ftruncate")
    real = {name: getattr(os, name) for name in names}

    def counted(name, left):
        def call(*args, **kwargs):
            writes = name != "open" or args[1] & os.O_CREAT
            if writes and not left[0]:
                raise Killed
            left[0] -= bool(writes)
            return real[name](*args, **kwargs)

        return call

    done, k = False, 0
    while not done:
        with monkeypatch.context() as patch:
            left = [k]
            for name in names:
                patch.setattr(os, name, counted(name, left))
            try:
                function()
                done = True
            except Killed:
                k += 1
        yield done
    assert k > least


def copy(source, target):
    for each in source.iterdir():
        (shutil.copytree if each.is_dir() else shutil.copy)(each, target / each.name)


@pytest.mark.parametrize("kind", BOTH)
def test_an_append_killed_anywhere(tmp_path, monkeypatch, kind):
    before, more = BOTH[kind], twice(BOTH[kind])
    work = tmp_path / "work"
    (tmp_path / "start").mkdir()
    write(path_of(tmp_path / "start", kind), before)
    work.mkdir()
    path = path_of(work, kind)

    def append():
        specs, progress = specs_in(str(path), [*before])
        container = NpyContainer.open_to_append(str(path), specs)
        sums = put_all(container, specs, more, 6, progress.sums)
        container.save(Progress(12, sums), final=True)

    copy(tmp_path / "start", work)
    for done in kills(monkeypatch, append, 5):
        recover(str(path))
        found = read(path)
        same(found, before if {len(rows) for rows in found.values()} == {6} else more)
        check_sums(path, found)
        if not done and len(next(iter(found.values()))) == 6:
            append()
        same(read(path), more)
        check_sums(path, more)
        assert not [*work.rglob(".*")]
        for file in [path] if kind == "file" else path.glob("*.npy"):
            assert len(np.load(file)) == 12
        shutil.rmtree(work)
        work.mkdir()
        copy(tmp_path / "start", work)


@pytest.mark.parametrize("kind", BOTH)
def test_a_writer_killed_anywhere_goes_on_from_what_it_saved(tmp_path, monkeypatch, kind):
    half, whole = BOTH[kind], twice(BOTH[kind])
    work = tmp_path / "work"
    work.mkdir()
    path, specs = path_of(work, kind), specs_of(half)
    attrs = {"a": 1} if kind == "folder" else {}

    def step():
        container = NpyContainer.create(str(path), specs, None)
        sums = put_all(container, specs, half)
        container.save(Progress(6, sums, attrs), final=False)
        sums = put_all(container, specs, whole, 6, sums)
        container.save(Progress(12, sums, attrs), final=True)

    resumed = 0
    for _ in kills(monkeypatch, step, 8):
        try:
            container, progress = NpyContainer.resume(str(path))
        except DamageError:
            assert not resumed, "what was saved once can go on"
        else:
            resumed += 1
            assert progress.rows in (6, 12)
            assert progress.attrs == attrs
            sums = put_all(container, specs, whole, progress.rows, progress.sums)
            container.save(Progress(12, sums, progress.attrs), final=True)
            same(read(path), whole)
            check_sums(path, whole)
            assert not [*path.rglob(".*")]
        shutil.rmtree(work)
        work.mkdir()
    assert resumed > 3


def test_a_file_that_is_longer_than_the_folder_says(tmp_path):
    before = BOTH["folder"]
    write(tmp_path / "a", before)
    np.save(tmp_path / "a" / "X.npy", twice(before)["X"])
    same(read(tmp_path / "a"), before)
    specs, progress = specs_in(str(tmp_path / "a"), [*before])
    assert progress.rows == 6
    NpyContainer.open_to_append(str(tmp_path / "a"), specs).abandon()
    assert np.array_equal(np.load(tmp_path / "a" / "X.npy"), before["X"])


def test_what_cannot_grow(tmp_path):
    np.save(tmp_path / "fortran.npy", np.asfortranarray(rows_of("f4", 6, (2,))))
    with pytest.raises(MismatchError, match=r"cannot grow: it is in Fortran order.*convert"):
        specs_in(str(tmp_path / "fortran.npy"), [])
    with open(tmp_path / "two.npy", "wb") as file:
        np.save(file, rows_of("f4", 6))
        np.save(file, rows_of("f4", 6))
    with pytest.raises(MismatchError, match="cannot grow: another array follows the first"):
        specs_in(str(tmp_path / "two.npy"), [])
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }".ljust(60) + b"\n"
    tight = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)
    (tmp_path / "tight.npy").write_bytes(tight)
    with pytest.raises(MismatchError, match=r"cannot grow: its header has no room.*convert"):
        specs_in(str(tmp_path / "tight.npy"), [])
    (tmp_path / "a").mkdir()
    with pytest.raises(MismatchError, match=r"cannot grow: a folder without epochal\.json"):
        specs_in(str(tmp_path / "a"), [])


def test_sources_of_a_folder_grow_together(tmp_path):
    write(tmp_path / "a", BOTH["folder"])
    specs, _ = specs_in(str(tmp_path / "a"), ["X"])
    with pytest.raises(MismatchError, match="its sources X, y grow together; given were X"):
        NpyContainer.open_to_append(str(tmp_path / "a"), specs)
    with pytest.raises(SourceNameError, match=r"no source 'z': epochal\.json names none so"):
        specs_in(str(tmp_path / "a"), ["z"])


def changed(path, **what):
    told = json.loads((path / "epochal.json").read_text())
    (path / "epochal.json").write_text(json.dumps({**told, **what}))


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ({"version": 2}, "version 2; 'epochal-npy', version 1, is read"),
        ({"format": "else"}, "of format 'else'"),
        ({"rows": -1}, "says rows=-1"),
        ({"rows": "6"}, "says rows='6'"),
        ({"sources": {"X": {}}}, "is not what lists .npy files: KeyError: 'file'"),
        ({"sources": 3}, "is not what lists .npy files"),
    ],
    ids=str,
)
def test_a_document_that_is_none(tmp_path, what, match):
    write(tmp_path / "a", BOTH["folder"])
    changed(tmp_path / "a", **what)
    with pytest.raises(FormatError, match=match):
        open_store(tmp_path / "a")


def test_files_that_are_not_what_the_document_says(tmp_path):
    write(tmp_path / "a", BOTH["folder"])
    np.save(tmp_path / "a" / "X.npy", BOTH["folder"]["X"][:5])
    np.save(tmp_path / "outside.npy", BOTH["folder"]["X"])
    more = {name: {"file": f"{name}.npy"} for name in ("X", "y", "gone")}
    changed(tmp_path / "a", sources={**more, "outside": {"file": "../outside.npy"}})
    np.save(tmp_path / "a" / "objects.npy", np.array([None] * 6), allow_pickle=True)
    store = open_store(tmp_path / "a")
    assert [*store.sources] == ["y"]
    whys = {other.name: other.why for other in store.others}
    assert "where epochal.json says 6 rows" in whys["X"]
    assert "no such file" in whys["gone"]
    assert "lies outside of it" in whys["outside"]
    store.close()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    sources = BOTH["file"]
    specs = specs_of(sources)
    container = NpyContainer.create(str(tmp_path / "a.npy"), specs, None)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TargetError, match=r"cannot be written: the disk is full.*make room"):
            put_all(container, specs, sources)
    container.abandon()


@pytest.mark.parametrize("kind", BOTH)
def test_a_change_that_was_written_down_is_finished_by_whoever_comes_next(
    tmp_path, monkeypatch, kind
):
    path, before = path_of(tmp_path, kind), BOTH[kind]
    write(path, before)
    specs, _ = specs_in(str(path), [*before])
    container = NpyContainer.open_to_append(str(path), specs)
    put_all(container, specs, twice(before), 6)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "edit_file", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            container.save(Progress(12), final=True)
    same(read(path), twice(before))  # opening it finishes the change
    assert not recover(str(path))
    assert not [*tmp_path.rglob("*.epochal-sums")], "none were given"


class TestNpyFolder(StoreTests):
    def make(self, folder, arrays):
        write(folder / "a", arrays, chunk_rows=70)
        return open_store(folder / "a")


class TestNpyFolderLongerThanItSays(StoreTests):
    def make(self, folder, arrays):
        write(folder / "a", arrays, chunk_rows=70)
        for name, rows in arrays.items():
            np.save(folder / "a" / f"{name}.npy", np.concatenate([rows, rows]))
        return open_store(folder / "a")
