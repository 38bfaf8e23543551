"""Random damage to files of every codec and layout: right rows or a clear error, never a crash.

    python tests/stores/fuzz.py --flips 20000 [--seed 0] [--json]

Each trial changes one byte of one small file, opens it and reads everything through, in a process
of its own. A trial that takes the process down is libhdf5's, if the same file is an error with
``untrusted=True``. It exits with 1 where rows are wrong although a checksum of the file covers the
byte, where an untrusted file crashes or holds up the reader, or where anything but an
`EpochalError` is raised.

What a checksum does not find, by design, and is counted apart:

- *at the end*: the sum of a deflated member of ``.npz`` is over the whole member and comes after
  it. Rows before that may have been wrong; reading it through raises.
- *in place*: rows of a stored member of ``.npz`` are read in place, alone or in any order, so that
  its sum is not looked at.
- damage to metadata that no checksum covers (HDF5 of the default library version, headers of
  ``.npy``, JSON of Zarr, the list of an archive) may tell another shape, type, place or name.
"""

import argparse
import json
import os
import pickle
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process with threads is not forked safely

import h5py
import numpy as np
import scipy.sparse
import zarr
from corpus import blocks
from hdf5_files import (
    CHAINS,
    FLETCHER32,
    SCALEOFFSET,
    read_all,
    same,
    some_items,
    write_dataset,
)
from test_pytables import WRITER
from test_zarr import V2, V3, write

from epochal.cli.output import print_json, print_table
from epochal.errors import EpochalError
from epochal.stores import open_store
from epochal.stores.ragged import RaggedSource

TRUSTED_SECONDS, UNTRUSTED_SECONDS = 20, 25  # the index of an untrusted file may take 20 of them
BATCH = 100  # trials of one fork
MORE_BYTES = 2 << 30  # what a trial may map beside what is there

RIGHT = "right rows"
ERROR = "clear error"
PLAIN = "wrong: no checksum"
METADATA = "wrong: metadata"
LATE = "wrong, told at the end"
IN_PLACE = "wrong: read in place"
LIBRARY = "libhdf5 crashed (trusted), an error when untrusted"
GUARDED = "WRONG UNDER A CHECKSUM"
CRASH = "CRASH"
HANG = "HANG"
OTHER = "OTHER EXCEPTION"
OUTCOMES = (RIGHT, ERROR, PLAIN, METADATA, LATE, IN_PLACE, LIBRARY, GUARDED, CRASH, HANG, OTHER)
FAILURES = (GUARDED, CRASH, HANG, OTHER)

Parts = dict[str, np.ndarray]
Answer = dict[str, Any]  # of one trial: what is wrong and what is raised, or how it ended


class Span(NamedTuple):
    """Bytes ``[start, stop)`` of a file that hold rows, and the outcome if damage there makes rows
    wrong.
    """

    file: str
    start: int
    stop: int
    if_wrong: str


@dataclass(frozen=True)
class Specimen:
    """One small file or folder.

    Attributes
    ----------
    kind
        Its row of the table.
    due
        The rows by source, and by column where their length varies.
    spans
        Where rows lie in it.
    elsewhere
        The outcome if damage to other bytes makes rows wrong.
    """

    kind: str
    path: Path
    due: dict[str, Parts]
    spans: tuple[Span, ...] = ()
    elsewhere: str = METADATA

    @property
    def files(self) -> list[str]:
        """Names of its files, in itself; of a file, the empty one."""
        if self.path.is_file():
            return [""]
        found = (path for path in self.path.rglob("*") if path.is_file() and path.stat().st_size)
        return sorted(str(path.relative_to(self.path)) for path in found)

    def if_wrong(self, file: str, at: int) -> str:
        """The outcome if rows are wrong with damage to byte `at`."""
        here = (span for span in self.spans if span.file == file and span.start <= at < span.stop)
        return next((span.if_wrong for span in here), self.elsewhere)


# ---------------------------------------------------------------- specimens


CHECKED_CHAINS = ("gzip", "fletcher32", "bzip2")  # a chain of one of them has a checksum
CHECKED_V2 = ("zlib", "gzip", "bz2", "lzma", "shuffle", "crc32", "crc32c", "adler32", "fletcher32")
CHECKED_V2 += ("jenkins", "two")
CHECKED_V3 = ("zstd", "gzip crc32c", "numcodecs", "lz4", "lzma")
ITEMS = some_items("<i4", (30, 40), 1)


def parts_of(source: Any) -> Parts:
    """All that a source holds, by column; where rows vary in length, their offsets too."""
    if not isinstance(source, RaggedSource):
        return {"": read_all(source)}
    columns = {name: read_all(column) for name, column in source.columns.items()}
    return {"offsets": source.layout.offsets, **columns}


def specimen(kind: str, path: Path, due: dict[str, Any], spans: Any = (), **more: Any) -> Specimen:
    """A specimen, of which the undamaged file is known to be read right."""
    wanted = {k: v if isinstance(v, dict) else {"": np.asarray(v)} for k, v in due.items()}
    store = open_store(path)
    found = {name: parts_of(source) for name, source in store.sources.items()}
    store.close()
    assert found.keys() == wanted.keys(), (kind, found.keys())
    for name, parts in wanted.items():
        for part, rows in parts.items():
            ours = found[name][part]
            assert same(ours, rows.astype(ours.dtype)), (kind, name, part)  # of any byte order
    return Specimen(kind, path, found, tuple(spans), **more)


def chunk_spans(path: Path, name: str, if_wrong: str) -> Iterator[Span]:
    """Where the rows of an HDF5 dataset lie."""
    with h5py.File(path) as file:
        dataset = file[name].id
        if file[name].chunks is None:
            at = dataset.get_offset()
            yield Span("", at, at + dataset.get_storage_size(), if_wrong)
            return
        for number in range(dataset.get_num_chunks()):
            info = dataset.get_chunk_info(number)
            yield Span("", info.byte_offset, info.byte_offset + info.size, if_wrong)


def hdf5_chains(folder: Path) -> Iterator[Specimen]:
    for number, (name, chain) in enumerate(CHAINS.items()):
        path = folder / f"chain-{number}.h5"
        with h5py.File(path, "w") as file:
            write_dataset(file, ITEMS, "<i4", (8, 40), chain)
        checked = any(each in name for each in CHECKED_CHAINS)
        spans = chunk_spans(path, "x", GUARDED if checked else PLAIN)
        yield specimen(f"HDF5 {name}", path, {"x": ITEMS}, spans)


def hdf5_layouts(folder: Path) -> Iterator[Specimen]:
    text = np.array([b"a", b"", b"longer", b"x y"] * 8)
    with h5py.File(folder / "plain.h5", "w") as file:
        file["contiguous"], file["text"] = ITEMS, text
        small = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        small.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((10, 4))
        made = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, small)
        h5py.Dataset(made)[...] = ITEMS[:10, :4]
    path = folder / "plain.h5"
    due = {"compact": ITEMS[:10, :4], "contiguous": ITEMS, "text": text}
    spans = [*chunk_spans(path, "contiguous", PLAIN), *chunk_spans(path, "text", PLAIN)]
    yield specimen("HDF5 contiguous, compact", path, due, spans)

    path = folder / "pieces.h5"
    with h5py.File(path, "w") as file:
        write_dataset(file, ITEMS, "<i4", (7, 11), CHAINS["gzip"])
    yield specimen("HDF5 pieces of rows, gzip", path, {"x": ITEMS}, chunk_spans(path, "x", GUARDED))

    path = folder / "library.h5"
    with h5py.File(path, "w") as file:
        write_dataset(file, ITEMS, "<i4", (8, 40), ((SCALEOFFSET, ()), (FLETCHER32, ())))
    yield specimen("HDF5 by libhdf5", path, {"x": ITEMS}, chunk_spans(path, "x", GUARDED))


def hdf5_ragged(folder: Path) -> Iterator[Specimen]:
    rows = [np.arange(n % 7, dtype="<i4") + n for n in range(60)]
    ragged = {"offsets": np.cumsum([0, *map(len, rows)]), "values": np.concatenate(rows)}
    for name, how in (("plain", {}), ("gzip", {"chunks": (16,), "compression": "gzip"})):
        path = folder / f"vlen-{name}.h5"
        with h5py.File(path, "w") as file:
            made = file.create_dataset("v", (60,), h5py.vlen_dtype("<i4"), **how)
            for k, row in enumerate(rows):
                made[k] = row
        spans = chunk_spans(path, "v", GUARDED if how else PLAIN)
        yield specimen(f"HDF5 rows of varying length, {name}", path, {"v": ragged}, spans)

    matrix = scipy.sparse.random_array((40, 30), density=0.3, format="csr", rng=1)
    path = folder / "sparse.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", matrix.shape
        for part in ("data", "indices", "indptr"):
            group.create_dataset(part, data=getattr(matrix, part), chunks=(41,), compression="gzip")
    names = ("data", "indices", "indptr")
    spans = [span for part in names for span in chunk_spans(path, f"X/{part}", GUARDED)]
    due = {"data": matrix.data, "indices": matrix.indices, "offsets": matrix.indptr.astype("i8")}
    yield specimen("HDF5 CSR, gzip", path, {"X": due}, spans)


def hdf5_sealed(folder: Path) -> Iterator[Specimen]:
    """Files in which checksums cover everything: metadata of the latest version, and all rows."""
    shapes = {
        "one chunk": {"chunk": (30, 40)},
        "fixed array": {"chunk": (4, 40)},
        "extensible array": {"chunk": (4, 40), "maxshape": (None, 40)},
        "B-tree": {"chunk": (8, 16), "maxshape": (None, None)},
    }
    for name, how in shapes.items():
        path = folder / f"sealed-{name}.h5"
        with h5py.File(path, "w", libver="latest") as file:
            more = {"compression": "gzip"} if name == "B-tree" else {}
            chunk, limits = how["chunk"], how.get("maxshape")
            file.create_dataset(
                "x", data=ITEMS, chunks=chunk, maxshape=limits, fletcher32=True, **more
            )
        spans = chunk_spans(path, "x", GUARDED)
        yield specimen(f"HDF5 latest, {name}", path, {"x": ITEMS}, spans, elsewhere=GUARDED)


def pytables(folder: Path) -> Iterator[Specimen]:
    made = folder / "pytables"
    made.mkdir()
    script = WRITER.replace("N = 300", "N = 30")
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, made], check=True)
    for path in sorted(made.iterdir()):
        checked = path.name.startswith(("zlib", "bzip2")) or (
            "fletcher32" in path.name and not path.name.startswith("None")
        )
        if_wrong = GUARDED if checked else PLAIN
        store = open_store(path)
        due = {name: parts_of(source) for name, source in store.sources.items()}
        store.close()
        spans = [
            span
            for name, parts in due.items()
            for span in chunk_spans(path, name, PLAIN if name == "array" else if_wrong)
            if len(parts) == 1
        ]
        yield specimen(f"PyTables {path.stem}", path, due, spans)


def npy(folder: Path) -> Iterator[Specimen]:
    for name, array in (("rows", ITEMS), ("columns", np.asfortranarray(ITEMS))):
        path = folder / f"{name}.npy"
        np.save(path, array)
        size = path.stat().st_size
        spans = [Span("", size - ITEMS.nbytes, size, PLAIN)]
        yield specimen(f".npy {name} first", path, {name: ITEMS}, spans)


def member_spans(path: Path, if_wrong: str) -> Iterator[Span]:
    """Where the members of an archive lie."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            names = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
            start = info.header_offset + 30 + names
            yield Span("", start, start + info.compress_size, if_wrong)


def npz(folder: Path) -> Iterator[Specimen]:
    more = ITEMS[:7].astype("f8")
    for kind, save, if_wrong in (
        ("stored", np.savez, IN_PLACE),
        ("deflated", np.savez_compressed, GUARDED),
    ):
        path = folder / f"{kind}.npz"
        save(path, X=ITEMS, y=more)
        yield specimen(f".npz {kind}", path, {"X": ITEMS, "y": more}, member_spans(path, if_wrong))
    path = folder / "long.npz"  # of several chunks, unlike the others
    long = some_items("u1", (3 << 10, 1 << 10), 2)
    np.savez_compressed(path, X=long)
    yield specimen(".npz deflated, several chunks", path, {"X": long}, member_spans(path, GUARDED))
    path = folder / "columns.npz"
    np.savez_compressed(path, X=np.asfortranarray(ITEMS))
    spans = member_spans(path, GUARDED)
    yield specimen(".npz deflated, columns first", path, {"X": ITEMS}, spans)
    matrix = scipy.sparse.random_array((40, 30), density=0.3, format="csr", rng=1)
    path = folder / "matrix.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(matrix))
    due = {"data": matrix.data, "offsets": matrix.indptr.astype("i8")}
    yield specimen(".npz of scipy", path, {"matrix": due}, member_spans(path, GUARDED))


def whole_files(path: Path, if_wrong: str) -> Iterator[Span]:
    """Every chunk file of a Zarr folder."""
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs", ".zgroup"):
            yield Span(name, 0, file.stat().st_size, if_wrong)


def zarr_folders(folder: Path) -> Iterator[Specimen]:
    array = np.random.default_rng(1).integers(0, 100, (23, 5, 4)).astype("f4")
    for version, kinds, checked in ((2, V2, CHECKED_V2), (3, V3, CHECKED_V3)):
        for name, how in kinds.items():
            path = folder / f"zarr{version} {name}" / "a"
            due = write(path, array, zarr_format=version, chunks=(6, 5, 4), **how)
            spans = whole_files(path, GUARDED if name in checked else PLAIN)
            yield specimen(f"Zarr {version} {name}", path, {"a": due}, spans)
    for name in ("zstd", "gzip crc32c", "blosc"):
        path = folder / f"sharded {name}" / "a"
        due = write(path, array, chunks=(4, 5, 4), shards=(12, 5, 4), **V3[name])
        index_bytes = 16 * 3 + 4
        spans = [
            piece
            for span in whole_files(path, GUARDED if name in CHECKED_V3 else PLAIN)
            for piece in (
                span._replace(stop=span.stop - index_bytes),
                span._replace(start=span.stop - index_bytes, if_wrong=GUARDED),
            )
        ]
        yield specimen(f"Zarr 3 sharded, {name}", path, {"a": due}, spans)


def zarr_zips(folder: Path) -> Iterator[Specimen]:
    for kind, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        path = folder / f"zarr-{kind}.zip"
        with zarr.storage.ZipStore(path, mode="w", compression=method) as store:
            made = zarr.create_array(
                store, shape=ITEMS.shape, chunks=(8, 40), dtype="<i4", compressors=None
            )
            made[...] = ITEMS
        spans = member_spans(path, GUARDED)
        yield specimen(f"Zarr 3 in a zip, {kind}", path, {path.stem: ITEMS}, spans)


MAKERS = (
    hdf5_chains,
    hdf5_layouts,
    hdf5_ragged,
    hdf5_sealed,
    pytables,
    npy,
    npz,
    zarr_folders,
    zarr_zips,
)


def specimens(folder: Path) -> list[Specimen]:
    """A file of every kind, in `folder`. Made in a fork, since zarr leaves threads behind."""
    kept = folder / "specimens.pickle"
    pid = os.fork()
    if pid == 0:
        try:
            found = [each for make in MAKERS for each in make(folder)]
            kept.write_bytes(pickle.dumps(found))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit("the specimens could not be made")
    made: list[Specimen] = pickle.loads(kept.read_bytes())
    for each in made:  # so that every module is here before the first trial
        open_store(each.path).close()
    return made


# ---------------------------------------------------------------- one trial


@dataclass(frozen=True)
class Flip:
    """One byte of one file of a specimen, and what it is combined with by exclusive or."""

    specimen: Specimen
    file: str
    at: int
    bits: int

    def __str__(self) -> str:
        where = f"{self.specimen.path.name}/{self.file}" if self.file else self.specimen.path.name
        return f"{self.specimen.kind}: byte {self.at} of {where} ^ {self.bits:#04x}"


def flip(found: list[Specimen], seed: int, trial: int) -> Flip:
    """What trial `trial` damages: each specimen in turn, any byte of any of its files; every other
    time one that is not zero, since much of some files is but padding.
    """
    rng = np.random.default_rng([seed, trial])
    chosen = found[trial % len(found)]
    file = str(rng.choice(chosen.files))
    data = np.fromfile(chosen.path / file if file else chosen.path, np.uint8)
    places = np.flatnonzero(data) if rng.integers(2) else np.arange(len(data))
    return Flip(chosen, file, int(rng.choice(places)), int(rng.integers(1, 256)))


def damaged(each: Flip, folder: Path) -> Path:
    """A copy of the specimen with its byte flipped, in `folder`."""
    source, target = each.specimen.path, folder / each.specimen.path.name
    copy = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, target)
    with open(target / each.file if each.file else target, "r+b") as file:
        file.seek(each.at)
        (byte,) = file.read(1)
        file.seek(each.at)
        file.write(bytes([byte ^ each.bits]))
    return target


def read_damaged(each: Flip, *, untrusted: bool) -> Answer:
    """Damage a copy, open it and read all of it: which sources are wrong, and which raise."""
    with tempfile.TemporaryDirectory(prefix="epochal-fuzz-") as folder:
        path = damaged(each, Path(folder))
        try:
            return _read(path, each.specimen.due, untrusted)
        except EpochalError as error:
            return {"wrong": [], "errors": {"": str(error)}}
        except Exception as error:
            return {"other": f"{type(error).__name__}: {error}"}


def _read(path: Path, due: dict[str, Parts], untrusted: bool) -> Answer:
    store = open_store(path, untrusted=untrusted)
    try:
        errors = {n: "there is no source of that name" for n in due if n not in store.sources}
        wrong: list[str] = []
        for name, source in store.sources.items():
            bad, error = _compare(source, due.get(name))
            if bad and name in due:
                wrong.append(name)
            if error:
                errors[name] = error
        return {"wrong": wrong, "errors": errors}
    finally:
        store.close()


def _compare(source: Any, due: Parts | None) -> tuple[bool, str]:
    """Whether any rows are given that are not those due; what is raised."""
    if isinstance(source, RaggedSource):
        columns: dict[str, Any] = source.columns
        offsets = None if due is None else due.get("offsets")
        bad = not np.array_equal(source.layout.offsets, offsets) if offsets is not None else True
    else:
        columns, bad = {"": source}, False
    error = ""
    for name, column in columns.items():
        rows_due = None if due is None else due.get(name)
        for start, rows in blocks(column):
            if isinstance(rows, EpochalError):
                error = str(rows)
            elif rows_due is None or column.layout.shape != rows_due.shape:
                bad = True
            else:
                bad |= not same(rows, rows_due[start : start + len(rows)])
        if rows_due is not None and column.layout.shape != rows_due.shape:
            bad |= column.layout.n_rows == 0
    return bad, error


def in_child(work: Callable[[], Iterator[Answer]], seconds: float) -> Iterator[Answer]:
    """What `work` yields in a fork, which has so many seconds for each; last, if the fork ends
    before `work` does, how it ended.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _serve(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        rest = b""
        while select.select([pipe], [], [], seconds)[0]:
            if not (data := pipe.read(1 << 16)):
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            yield {"hung": True}
            return
    if status := os.waitpid(pid, 0)[1]:
        yield {"crash": os.waitstatus_to_exitcode(status)}


def _serve(work: Callable[[], Iterator[Answer]], writing: int) -> None:
    """The fork's part: never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libhdf5 says as it dies
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for answer in work():
            os.write(writing, json.dumps(answer).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def judge(each: Flip, found: Answer) -> str:
    """The outcome of what a trusted or untrusted reading found."""
    if "hung" in found:
        return HANG
    if "crash" in found:
        return CRASH
    if "other" in found:
        return OTHER
    if not found["wrong"]:
        return ERROR if found["errors"] else RIGHT
    outcome = each.specimen.if_wrong(each.file, each.at)
    told = set(found["wrong"]) <= set(found["errors"])
    streamed = each.specimen.path.suffix == ".npz"
    return LATE if told and streamed and outcome == GUARDED else outcome


def lost(answer: Answer) -> bool:
    """Whether the process did not survive."""
    return "hung" in answer or "crash" in answer


def alone(each: Flip, *, untrusted: bool) -> Answer:
    """The answer to one trial in a process of its own."""
    seconds = UNTRUSTED_SECONDS if untrusted else TRUSTED_SECONDS
    return next(in_child(lambda: iter([read_damaged(each, untrusted=untrusted)]), seconds))


def outcomes(flips: list[Flip]) -> Iterator[tuple[Flip, str, Answer]]:
    """Trials with their outcomes and answers; one fork goes on for as long as it lives."""
    left = list(flips)
    while left:
        some = left[:BATCH]
        work = lambda some=some: (read_damaged(each, untrusted=False) for each in some)  # noqa: E731
        done = 0
        for answer in in_child(work, TRUSTED_SECONDS):
            if lost(answer):
                yield from _blamed(some[: done + 1], answer)
            else:
                yield some[done], judge(some[done], answer), answer
            done += 1
        left = left[done:]


def _blamed(some: list[Flip], answer: Answer) -> Iterator[tuple[Flip, str, Answer]]:
    """What the loss of a process comes to: the last trial alone, else one before it that had
    spoilt its memory; that trial again as untrusted.
    """
    culprit = next((each for each in reversed(some) if lost(alone(each, untrusted=False))), None)
    if culprit is None:
        yield some[-1], CRASH, answer | {"alone": "not found again"}
        return
    again = alone(culprit, untrusted=True)
    outcome = judge(culprit, again)
    yield some[-1], (outcome if outcome in FAILURES else LIBRARY), answer | again


# ---------------------------------------------------------------- the command


def run(flips: int, seed: int) -> dict[str, Any]:
    """All trials: outcomes by kind of file, and what failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="epochal-fuzz-") as folder:
        found = specimens(Path(folder))
        counts = {each.kind: Counter[str]() for each in found}
        failures = []
        trials = [flip(found, seed, trial) for trial in range(flips)]
        for each, outcome, answer in outcomes(trials):
            counts[each.specimen.kind][outcome] += 1
            if outcome in FAILURES:
                failures.append(f"{each}: {outcome}: {answer}")
    return {
        "flips": flips,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "kinds": {kind: dict(each) for kind, each in counts.items()},
        "total": dict(sum(counts.values(), Counter())),
        "failures": failures,
    }


def show(found: dict[str, Any]) -> None:
    """Print the outcomes for people."""
    shown = [each for each in OUTCOMES if each in FAILURES or found["total"].get(each)]
    heads = ["libhdf5 crashed" if each == LIBRARY else each for each in shown]
    rows = [
        (kind, str(sum(each.values())), *(str(each.get(outcome, "")) for outcome in shown))
        for kind, each in [*found["kinds"].items(), ("all", found["total"])]
    ]
    print_table(("file", "flips", *heads), rows, numbers=range(1, len(shown) + 2))
    crashed = found["total"].get(LIBRARY, 0)
    untrusted = found["total"].get(CRASH, 0) + found["total"].get(HANG, 0)
    print(
        f"\nlibhdf5 crashed (trusted) {crashed + untrusted}, as an error when untrusted {crashed}; "
        f"{found['flips']:,} flips in {found['seconds']} s, seed {found['seed']}"
    )
    for failure in found["failures"]:
        print(f"FAILED {failure}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = run(options.flips, options.seed)
    (print_json if options.json else show)(found)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
