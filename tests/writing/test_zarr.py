"""Zarr 3 as a container: what zarr-python and `epochal.open` read, and what a kill leaves."""

import errno
import fcntl
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import zarr

import epochal
from epochal.errors import DamageError, MismatchError, SourceNameError, TargetError, UnsafeError
from epochal.stores import open_store
from epochal.stores.manifest import crc32, manifest_from_json
from epochal.testing import StoreTests
from epochal.writing import folder
from epochal.writing.container import Progress
from epochal.writing.spec import Compression, SourceSpec
from epochal.writing.zarr import APPENDING, ZarrContainer, recover, specs_in

RNG = np.random.default_rng(0)
CORE = ["u1", "i1", "<u2", ">i4", "<i8", "<u8", "<f2", ">f2", "<f4", ">f8", "?", "<c8", ">c16"]
MORE = [
    "S3",
    "<U2",
    ">U2",
    "V5",
    "<M8[s]",
    ">M8[10ms]",
    "<m8[ns]",
    [("a", "u1"), ("b", ">f8"), ("s", "S3"), ("n", [("x", "<i4"), ("z", ">c8")])],
]


def rows_of(dtype, n, row_shape=()):
    dtype = np.dtype(dtype)
    if dtype.names:
        made = np.zeros((n, *row_shape), dtype)
        for name in dtype.names:
            made[name] = rows_of(dtype[name], n, row_shape)
        return made
    if dtype.kind in "SU":
        return np.array(["ab", "", "xy"], dtype)[RNG.integers(0, 3, (n, *row_shape))]
    if dtype.kind in "fc":
        return RNG.standard_normal((n, *row_shape)).astype(dtype)
    if dtype.kind == "b":
        return RNG.integers(0, 2, (n, *row_shape)).astype(bool)
    if dtype.kind in "mM":
        return (
            RNG.integers(-1000, 1000, (n, *row_shape)).astype(dtype.newbyteorder("=")).astype(dtype)
        )
    size = n * int(np.prod(row_shape, dtype=int)) * dtype.itemsize
    return np.frombuffer(RNG.bytes(size), dtype).reshape(n, *row_shape)


def specs_of(sources, compression="gzip", chunk_rows=4, **how):
    return [
        SourceSpec(name, rows.shape[1:], rows.dtype, chunk_rows, Compression(compression, **how))
        for name, rows in sources.items()
    ]


def put_all(container, specs, sources, start=0, sums=None):
    """Put rows from `start` on, as a writer does: a chunk that is there is read and put anew."""
    sums = {spec.name: [] for spec in specs} if sums is None else sums
    for spec in specs:
        rows = sources[spec.name]
        first = start // spec.chunk_rows
        kept = list(sums[spec.name][:first])
        for chunk in range(first, -(-len(rows) // spec.chunk_rows)):
            block = np.zeros((spec.chunk_rows, *spec.row_shape), spec.dtype)
            at = chunk * spec.chunk_rows
            there = max(start - at, 0)
            if there:
                container.get(spec.name, chunk, block[:there])
            n = min(spec.chunk_rows, len(rows) - at)
            block[there:n] = rows[at + there : at + n]
            stored = container.encoder(spec.name)(block[:n])
            kept.append(crc32(stored))
            container.put(spec.name, chunk, stored)
        sums[spec.name] = np.array(kept, np.uint32)
    return sums


def write(path, sources, attrs=None, **how):
    specs = specs_of(sources, **how)
    container = ZarrContainer.create(str(path), specs, None)
    sums = put_all(container, specs, sources)
    n = len(next(iter(sources.values())))
    container.save(Progress(n, sums, attrs or {}), final=True)


def read_theirs(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that Zarr's core does not name
        root = zarr.open_group(str(path), mode="r")
        assert root.metadata.consolidated_metadata is not None
        return {
            node.path: node[:]
            for _, node in root.members(max_depth=None)
            if isinstance(node, zarr.Array)
        }


def read_ours(path):
    with epochal.open(path) as ds:
        return {name: ds[name][:] for name in ds.sources}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert found[name].shape == rows.shape
        assert found[name].dtype.newbyteorder("=") == rows.dtype.newbyteorder("=")
        assert np.array_equal(found[name], rows)


@pytest.mark.parametrize("dtype", [*CORE, *MORE], ids=str)
@pytest.mark.parametrize("n", [0, 1, 4, 10])
def test_what_is_read_is_what_was_written(tmp_path, dtype, n):
    sources = {"X": rows_of(dtype, n, (2, 3)), "train/y": rows_of(dtype, n)}
    write(tmp_path / "a", sources)
    same(read_theirs(tmp_path / "a"), sources)
    if n:
        same(read_ours(tmp_path / "a"), sources)


@pytest.mark.parametrize("dtype", ["u1", ">f4", "S300"])
@pytest.mark.parametrize(
    "how",
    [
        {"compression": None},
        {"compression": "gzip", "level": 0},
        {"compression": "gzip", "level": 9},
        {"compression": "zstd"},
        {"compression": "zstd", "level": -3},
        {"compression": "blosc"},
        {"compression": "blosc", "shuffle": True, "level": 9},
    ],
    ids=str,
)
def test_compressions(tmp_path, dtype, how):
    sources = {"X": rows_of(dtype, 1000, (3,))}
    write(tmp_path / "a", sources, chunk_rows=300, **how)
    same(read_theirs(tmp_path / "a"), sources)
    same(read_ours(tmp_path / "a"), sources)


def test_rows_of_core_types_are_read_without_a_warning(tmp_path):
    sources = {"a/b/X": rows_of("f4", 10, (3,)), "a/y": rows_of("?", 10)}
    write(tmp_path / "a", sources)
    root = zarr.open_group(str(tmp_path / "a"), mode="r")
    assert [*root["a"].array_keys()] == ["y"]
    assert np.array_equal(root["a/b/X"][2:7], sources["a/b/X"][2:7])
    plain = zarr.open_group(str(tmp_path / "a"), mode="r", use_consolidated=False)
    assert {name for name, _ in plain.members(max_depth=None)} == {"a", "a/b", "a/b/X", "a/y"}


def test_one_file_a_chunk_and_nothing_else(tmp_path):
    write(tmp_path / "a", {"X": rows_of("f4", 10, (3,)), "y": rows_of("i8", 10)})
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        *(f"a/X/c.{k}.0" for k in range(3)),
        "a/X/zarr.json",
        *(f"a/y/c.{k}" for k in range(3)),
        "a/y/zarr.json",
        "a/zarr.json",
    ]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    sources = {"X": rows_of("f4", 100, (3,))}
    for name in "ab":
        write(tmp_path / name, sources)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
            )


def test_attributes(tmp_path):
    attrs = {
        "names": np.array(["cat", "dog"]),
        "scale": np.float32(0.5),
        "mean": np.arange(3.0),
        "raw": b"text",
        "z": 1 + 2j,
        "missing": float("nan"),
        "far": [np.inf, -np.inf],
        "on": np.True_,
    }
    write(tmp_path / "a", {"X": rows_of("u1", 10)}, attrs)
    found = dict(zarr.open_group(str(tmp_path / "a"), mode="r").attrs)
    assert "X" in found.pop("epochal")  # the names of what was written
    assert found == {
        "names": ["cat", "dog"],
        "scale": 0.5,
        "mean": [0.0, 1.0, 2.0],
        "raw": "text",
        "z": [1.0, 2.0],
        "missing": "NaN",
        "far": ["Infinity", "-Infinity"],
        "on": True,
    }
    with pytest.raises(MismatchError, match="a value of set cannot be kept as JSON"):
        folder.json_value({"a": {1}})


def test_the_manifest_is_of_the_stored_bytes(tmp_path):
    write(tmp_path / "a", {"X": rows_of("f4", 10, (3,))})
    found = json.loads((tmp_path / "a" / "X" / "zarr.json").read_text())
    manifest = manifest_from_json(found["attributes"]["epochal"])
    for k, total in enumerate(manifest.sums.tolist()):
        stored = np.frombuffer((tmp_path / "a" / "X" / f"c.{k}.0").read_bytes(), np.uint8)
        assert crc32(stored) == total


def test_no_manifest_where_none_is_wanted(tmp_path):
    sources = {"X": rows_of("f4", 10)}
    specs = specs_of(sources)
    container = ZarrContainer.create(str(tmp_path / "a"), specs, None)
    put_all(container, specs, sources)
    container.save(Progress(10), final=True)
    assert json.loads((tmp_path / "a" / "X" / "zarr.json").read_text())["attributes"] == {}
    assert specs_in(str(tmp_path / "a"), ["X"])[1].sums is None


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (("X", (), "f4", 4, Compression("lz4")), "compression='lz4' is none of Zarr's own codecs"),
        (("X", (), "f4", 4, Compression("blosc2")), "give 'gzip', 'zstd' or 'blosc'"),
        (("X", (), "f4", 4, Compression("gzip", shuffle=True)), "give compression='blosc', or"),
        (("X", (), "f4", 4, Compression(None, shuffle=True)), "give compression='blosc', or"),
        (("X", (), "g", 4), "Zarr has no form for"),
        (("X", (), [("a", "f4", (2,))], 4), "make the axes of a field a source of its own"),
        (("X", (0,), "f4", 4), "Zarr chunks are of 1 B to"),
        (("X", (1 << 20,), "f8", 300), "Zarr chunks are of 1 B to .*: give another chunk_rows="),
    ],
)
def test_what_zarr_has_no_form_for(tmp_path, spec, match):
    name, row_shape, dtype, *rest = spec
    with pytest.raises(MismatchError, match=match):
        ZarrContainer.create(
            str(tmp_path / "a"), [SourceSpec(name, row_shape, np.dtype(dtype), *rest)], None
        )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".", "zarr.json"])
def test_names_that_are_no_paths(tmp_path, name):
    with pytest.raises(SourceNameError, match="cannot be a path in a folder: give one such as"):
        ZarrContainer.create(str(tmp_path / "a"), [SourceSpec(name, (), np.dtype("u1"), 4)], None)
    assert not os.listdir(tmp_path)


def test_a_source_in_a_source(tmp_path):
    specs = [SourceSpec(name, (), np.dtype("u1"), 4) for name in ("X", "X/y")]
    with pytest.raises(SourceNameError, match="'X/y' would lie inside of source 'X'"):
        ZarrContainer.create(str(tmp_path / "a"), specs, None)


def test_what_stands_in_the_way_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(TargetError, match="a: cannot be written: File exists"):
        ZarrContainer.create(str(tmp_path / "a"), [SourceSpec("X", (), np.dtype("u1"), 4)], None)


def test_get_a_chunk_that_was_put(tmp_path):
    sources = {"X": rows_of(MORE[-1], 10)}
    specs = specs_of(sources)
    container = ZarrContainer.create(str(tmp_path / "a"), specs, None)
    put_all(container, specs, sources)
    out = np.zeros(3, sources["X"].dtype)
    container.get("X", 1, out)
    assert np.array_equal(out, sources["X"][4:7])
    (tmp_path / "a" / "X" / "c.1").write_bytes(b"torn")
    with pytest.raises(DamageError, match=r"source 'X', chunk 1, rows 4 to 6: .*restore it"):
        container.get("X", 1, out)


# A writer that is killed: objects are let go of at every step, and somebody else goes on.


class Killed(BaseException):
    pass


def kills(monkeypatch, function):
    """Run a function again and again, killed at its first change of the file system, its second,
    ..., until it comes to its end; whether it did.
    """
    names = ("rename", "unlink", "fsync", "open", "pwrite", "mkdir")
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
    assert k > 30


def test_append(tmp_path):
    before = {"X": rows_of(">f4", 10, (3,)), "train/y": rows_of("i8", 10)}
    more = {name: np.concatenate([rows, rows[:7]]) for name, rows in before.items()}
    write(tmp_path / "a", before, {"kept": 1, "changed": 2})
    specs, progress = specs_in(str(tmp_path / "a"), [*before])
    assert progress.rows == 10
    assert [spec.chunk_rows for spec in specs] == [4, 4]
    container = ZarrContainer.open_to_append(str(tmp_path / "a"), specs)
    sums = put_all(container, specs, more, 10, progress.sums)
    same(read_ours(tmp_path / "a"), before)
    container.save(Progress(17, sums, {"changed": 3}), final=True)
    same(read_ours(tmp_path / "a"), more)
    same(read_theirs(tmp_path / "a"), more)
    attrs = dict(zarr.open_group(str(tmp_path / "a"), mode="r").attrs)
    assert "train/y" in attrs.pop("epochal")  # the names of what was written
    assert attrs == {"kept": 1, "changed": 3}
    _, progress = specs_in(str(tmp_path / "a"), [*before])
    assert {name: len(each) for name, each in progress.sums.items()} == {"X": 5, "train/y": 5}
    assert not [*(tmp_path / "a").rglob(".*")]


def test_an_append_that_is_abandoned_leaves_what_was_there(tmp_path):
    before = {"X": rows_of("f4", 10, (3,)), "y": rows_of("i8", 10)}
    more = {name: np.concatenate([rows, rows]) for name, rows in before.items()}
    write(tmp_path / "a", before)
    there = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    specs, progress = specs_in(str(tmp_path / "a"), [*before])
    container = ZarrContainer.open_to_append(str(tmp_path / "a"), specs)
    put_all(container, specs, more, 10, progress.sums)
    container.abandon()
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == there


def check_sums(path, names):
    """The manifest is of the bytes that are there."""
    _, progress = specs_in(str(path), names)
    for name in names:
        for k, total in enumerate(progress.sums[name].tolist()):
            [chunk] = [*(path / name).glob(f"c.{k}"), *(path / name).glob(f"c.{k}.*")]
            assert crc32(np.frombuffer(chunk.read_bytes(), np.uint8)) == total


def test_an_append_killed_anywhere(tmp_path, monkeypatch):
    before = {"X": rows_of("f4", 6, (2,)), "y": rows_of("i8", 6)}
    more = {name: np.concatenate([rows, rows]) for name, rows in before.items()}
    write(tmp_path / "start", before)
    path = tmp_path / "a"

    def append():
        specs, progress = specs_in(str(path), [*before])
        container = ZarrContainer.open_to_append(str(path), specs)
        sums = put_all(container, specs, more, 6, progress.sums)
        container.save(Progress(12, sums), final=True)

    seen = set()
    shutil.copytree(tmp_path / "start", path)
    for done in kills(monkeypatch, append):
        for read in (read_ours, read_theirs):
            found = read(path)
            seen.add(len(found["y"]))
            same(found, more if len(found["y"]) == 12 else before)
        finished = recover(str(path))
        n = len(read_ours(path)["y"])
        assert n == 12 if finished or done else n in (6, 12)
        check_sums(path, [*before])
        if n == 6:
            append()
        same(read_ours(path), more)
        same(read_theirs(path), more)
        check_sums(path, [*before])
        shutil.rmtree(path)
        shutil.copytree(tmp_path / "start", path)
    assert seen == {6, 12}


def test_a_writer_killed_anywhere_goes_on_from_what_it_saved(tmp_path, monkeypatch):
    half = {"X": rows_of("f4", 6, (2,)), "y": rows_of("i8", 6)}
    whole = {name: np.concatenate([rows, rows]) for name, rows in half.items()}
    specs, path = specs_of(half), tmp_path / "a"

    def step():
        container = ZarrContainer.create(str(path), specs, None)
        sums = put_all(container, specs, half)
        container.save(Progress(6, sums, {"a": 1}), final=False)
        sums = put_all(container, specs, whole, 6, sums)
        container.save(Progress(12, sums, {"a": 1}), final=True)

    seen = set()
    for done in kills(monkeypatch, step):
        try:
            container, progress = ZarrContainer.resume(str(path))
        except DamageError:
            assert not seen, "what was saved once can go on"
        else:
            seen.add(progress.rows)
            assert progress.rows == 12 or not done
            assert progress.attrs == {"a": 1}
            sums = put_all(container, specs, whole, progress.rows, progress.sums)
            container.save(Progress(12, sums, progress.attrs), final=True)
            same(read_ours(path), whole)
            same(read_theirs(path), whole)
            check_sums(path, [*half])
            assert not [*path.rglob(".*")]
        shutil.rmtree(path, ignore_errors=True)
    assert seen == {6, 12}


def test_what_was_never_saved_cannot_go_on(tmp_path):
    ZarrContainer.create(str(tmp_path / "a"), [SourceSpec("X", (), np.dtype("u1"), 4)], None)
    with pytest.raises(DamageError, match=r"does not say how far it was.*begin anew"):
        ZarrContainer.resume(str(tmp_path / "a"))
    (tmp_path / "a" / "zarr.json").write_bytes(b"")
    with pytest.raises(DamageError, match=r"left it before it was a store.*begin anew"):
        ZarrContainer.resume(str(tmp_path / "a"))


def test_a_journal_that_reaches_outside_is_refused(tmp_path):
    write(tmp_path / "a", {"X": rows_of("u1", 10)})
    body = json.dumps({"staged": [], "edits": {}, "texts": {"../evil": "x"}, "removed": []})
    total = f"{crc32(np.frombuffer(body.encode(), np.uint8)):08x}"
    (tmp_path / "a" / folder.JOURNAL).write_text(f"{total}\n{body}")
    with pytest.raises(UnsafeError, match=r"would change '../evil', outside of the folder"):
        recover(str(tmp_path / "a"))
    assert not (tmp_path / "evil").exists()


def test_a_journal_that_is_torn_is_removed(tmp_path):
    write(tmp_path / "a", {"X": rows_of("u1", 10)})
    (tmp_path / "a" / folder.JOURNAL).write_text('00000000\n{"sta')
    assert not recover(str(tmp_path / "a"))
    assert not (tmp_path / "a" / folder.JOURNAL).exists()


@pytest.mark.parametrize("consolidated", [True, False])
def test_append_to_what_zarr_python_wrote(tmp_path, consolidated):
    X, y = rows_of("f4", 10, (3,)), rows_of("i8", 10)
    root = zarr.open_group(str(tmp_path / "a"), mode="w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codec = zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")
        root.create_array("X", data=X, chunks=(4, 3), compressors=codec)
        root.create_array("y", data=y, chunks=(3,), attributes={"unit": "m"})
        if consolidated:
            zarr.consolidate_metadata(str(tmp_path / "a"))
    specs, progress = specs_in(str(tmp_path / "a"), ["X", "y"])
    container = ZarrContainer.open_to_append(str(tmp_path / "a"), specs)
    more = {"X": np.concatenate([X, X]), "y": np.concatenate([y, y])}
    assert progress.sums is None
    put_all(container, specs, more, 10, {"X": [0] * 3, "y": [0] * 4})
    container.save(Progress(20), final=True)
    same(read_ours(tmp_path / "a"), more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(str(tmp_path / "a"), mode="r")
    assert np.array_equal(root["X"][:], more["X"])
    assert np.array_equal(root["y"][:], more["y"])
    assert dict(root["y"].attrs) == {"unit": "m"}


def test_append_to_one_array(tmp_path):
    X = rows_of("f4", 10, (3,))
    zarr.create_array(str(tmp_path / "X"), data=X, chunks=(4, 3))
    specs, progress = specs_in(str(tmp_path / "X"), ["X"])
    container = ZarrContainer.open_to_append(str(tmp_path / "X"), specs)
    more = {"X": np.concatenate([X, X])}
    put_all(container, specs, more, progress.rows, {"X": [0] * 3})
    container.save(Progress(20, None, {"a": 1}), final=True)
    found = zarr.open_array(str(tmp_path / "X"), mode="r")
    assert np.array_equal(found[:], more["X"])
    assert dict(found.attrs) == {"a": 1}


def test_what_cannot_grow(tmp_path):
    X = rows_of("f4", 8, (4,))
    root = zarr.open_group(str(tmp_path / "a"), mode="w")
    root.create_array("cut", data=X, chunks=(4, 2))
    root.create_array("shards", data=X, chunks=(2, 4), shards=(4, 4))
    root.create_array("short", data=X[:5], chunks=(2, 4))
    root.create_array("X", data=X, chunks=(2, 4))
    path = str(tmp_path / "a")
    with pytest.raises(MismatchError, match=r"'cut' cannot grow: its chunks .*epochal convert"):
        specs_in(path, ["cut"])
    with pytest.raises(MismatchError, match="'shards' cannot grow: its chunks are in shards"):
        specs_in(path, ["shards"])
    with pytest.raises(MismatchError, match="equally many rows: X has 8, short has 5"):
        specs_in(path, ["X", "short"])
    zarr.create_array(str(tmp_path / "old"), data=X, zarr_format=2)
    with pytest.raises(MismatchError, match=r"cannot grow: it has no zarr\.json"):
        specs_in(str(tmp_path / "old"), ["old"])


def test_leftovers_of_a_killed_append_are_removed_by_the_next(tmp_path):
    write(tmp_path / "a", {"X": rows_of("f4", 10, (3,))})
    specs, _ = specs_in(str(tmp_path / "a"), ["X"])
    ZarrContainer.open_to_append(str(tmp_path / "a"), specs)
    (tmp_path / "a" / "X" / "c.77.0").write_bytes(b"left")
    (tmp_path / "a" / "X" / ".epochal-new-c.1.0").write_bytes(b"left")
    assert (tmp_path / "a" / APPENDING).exists()
    ZarrContainer.open_to_append(str(tmp_path / "a"), specs).abandon()
    assert not [*(tmp_path / "a").rglob(".*"), *(tmp_path / "a").rglob("c.77*")]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    sources = {"X": rows_of("f4", 10)}
    specs = specs_of(sources)
    container = ZarrContainer.create(str(tmp_path / "a"), specs, None)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TargetError, match=r"cannot be written: the disk is full.*make room"):
            put_all(container, specs, sources)


def test_files_are_synced_one_by_one_where_there_is_no_syncfs(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(folder, "_syncfs", lambda fd: False)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    write(tmp_path / "a", {"X": rows_of("f4", 10)})
    names = {os.path.relpath(path, tmp_path) for path in synced}
    assert names >= {"a", "a/X", "a/X/c.0", "a/X/c.1", "a/X/c.2"}


def test_a_reader_leaves_the_journal_of_a_living_writer_alone(tmp_path):
    write(tmp_path / "a", {"X": rows_of("u1", 10)})
    journal = tmp_path / "a" / folder.JOURNAL
    journal.write_text("00000000\n{}")
    with open(journal) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not recover(str(tmp_path / "a"))
        assert journal.exists()
    assert not recover(str(tmp_path / "a"))
    assert not journal.exists()


def test_a_checkpoint_of_an_append_is_seen(tmp_path):
    before = {"X": rows_of("f4", 6, (2,))}
    more = {"X": np.concatenate([before["X"], before["X"]])}
    write(tmp_path / "a", before)
    specs, progress = specs_in(str(tmp_path / "a"), ["X"])
    container = ZarrContainer.open_to_append(str(tmp_path / "a"), specs)
    nine = {"X": more["X"][:9]}
    sums = put_all(container, specs, nine, 6, progress.sums)
    container.save(Progress(9, sums), final=False)
    same(read_ours(tmp_path / "a"), nine)
    put_all(container, specs, more, 9, sums)
    container.abandon()
    same(read_ours(tmp_path / "a"), nine)
    check_sums(tmp_path / "a", ["X"])
    assert not [*(tmp_path / "a").rglob(".*")]


class TestWrittenZarr(StoreTests):
    def make(self, folder, arrays):
        write(folder / "a", arrays, compression="blosc", shuffle=True, chunk_rows=70)
        return open_store(folder / "a")
