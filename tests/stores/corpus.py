"""Files of other writers, and hostile ones: what epochal makes of them, as a command and for tests.

    python tests/stores/corpus.py [foreign] [hostile] [--no-trace]

It exits with 1 where a row is not what h5py reads, where a file brings the reader down, holds it up
for 20 s or makes it take 1 GB, or where reading a hostile file opens another one.
"""

import json
import os
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import h5py
import numpy as np
import pytest
from hdf5_files import read_all, same

from epochal.cli.output import print_table, say
from epochal.dataset import Dataset
from epochal.errors import DamageError, EpochalError
from epochal.stores import open_store
from epochal.stores.ragged import RaggedSource, columns_of
from epochal.view import RaggedView

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parents[2] / "shared" / "corpus"

BUDGET = "64MiB"
BUDGET_BYTES = 64 << 20
ENOUGH_BYTES = 256 << 20  # of one source: a declared shape has no end
ENOUGH_CHUNKS = 2000
MOST_SECONDS = 20
MOST_BYTES = 1 << 30
MARK = "/epochal-reads"  # names no file: it tells in a trace which file is read next


def files(kind):
    """The files of one part of the corpus, or a skip that says what is missing."""
    folder = CORPUS / kind
    if not folder.is_dir():
        pytest.skip(f"the corpus of {kind} HDF5 files is not on this machine ({folder})")
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass
class Comparison:
    """Files of other writers against h5py.

    Attributes
    ----------
    equal
        Datasets that are what h5py reads, by the kind of their layout.
    library
        Why libhdf5 reads some of them, and how many.
    others
        Why the rest is not a source, and how much of it.
    neither, ours_alone
        Datasets that nobody reads, and those that h5py does not.
    mismatches
        Datasets that differ, or that h5py alone reads.
    """

    n_files: int = 0
    equal: Counter = field(default_factory=Counter)
    library: Counter = field(default_factory=Counter)
    others: Counter = field(default_factory=Counter)
    neither: list[str] = field(default_factory=list)
    ours_alone: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    @property
    def n_datasets(self):
        listed = (self.neither, self.ours_alone, self.mismatches)
        return sum(self.equal.values()) + sum(map(len, listed))

    @property
    def raw(self):
        """Datasets that are equal and read without libhdf5."""
        return sum(self.equal.values()) - self.equal["library"]

    def add(self, path):
        """Compare every source of one file."""
        store = open_store(path)
        self.n_files += 1
        self.others.update(general(other.why) for other in store.others)
        with h5py.File(path, "r", locking=False) as file:
            for name, source in store.sources.items():
                self._compare(f"{path}: {name}", source, file[name])
        store.close()

    def _compare(self, where, source, theirs):
        kind = source.layout.kind
        expected = rows_of(theirs, kind)
        try:
            equal = equals(source, expected)
        except DamageError as error:
            (self.neither if expected is None else self.mismatches).append(f"{where}: {error}")
            return
        if expected is None:
            self.ours_alone.append(where)
        elif not equal:
            self.mismatches.append(f"{where}: {source.layout}")
        else:
            self.equal[kind] += 1
            if kind == "library":
                self.library[general(source.why)] += 1


def rows_of(theirs, kind):
    """What h5py reads of a dataset or of the parts of a sparse matrix; None where it cannot."""
    try:
        if kind == "sparse":
            return {part: theirs[part][...] for part in ("data", "indices")}
        return theirs[...]
    except (OSError, TypeError):  # h5py knows no times
        return None


def equals(source, expected):
    """Whether the rows of a source are those of h5py; read also where it has none."""
    if not isinstance(source, RaggedSource):
        ours = read_all(source)
        return expected is not None and same(ours, expected)
    rows = RaggedView("", source, None)[...]
    if expected is None:
        return False
    if source.layout.kind == "sparse":
        return all(same(getattr(rows, part), each) for part, each in expected.items())
    return all(same(a, b) for a, b in zip(rows.rows(), expected, strict=True))


def general(why):
    """A reason without what is one dataset's own, so that equal ones are counted together.

    >>> general("a soft link to '/a/b': read it by that name")
    "a soft link to '...': read it by that name"
    """
    why = re.sub(r"'[^']*'|b\"[^\"]*\"", "'...'", why)
    why = re.sub(r"\(\d+(, ?\d+)*,?\)", "(...)", why)
    return re.sub(r"/\S+/\S+: ", "", re.sub(r"\b\d{2,}\b", "N", why))


def blocks(source):
    """The rows of a source chunk by chunk: each chunk's first row, and its rows or what was raised.

    What a declared shape promises has no bound, so this ends after `ENOUGH_BYTES`; a chunk larger
    than the budget is asked for within it, which is to be refused.
    """
    layout = source.layout
    if layout.chunk_bytes > BUDGET_BYTES:
        yield from _within_budget(source)
        return
    enough = max(1, min(ENOUGH_CHUNKS, ENOUGH_BYTES // max(layout.chunk_bytes, 1)))
    for chunk in range(min(layout.n_chunks, enough)):
        start, stop = layout.bounds(chunk)
        out = np.empty((stop - start, *layout.row_shape), layout.dtype)
        try:
            source.read(chunk, chunk + 1, out)
        except EpochalError as error:
            yield start, error
        else:
            yield start, out


def _within_budget(source):
    """The first batches of a source whose chunks are larger than the budget, or the refusal."""
    at, n_rows = 0, min(8, source.layout.n_rows)
    try:
        batches = Dataset(Alone(), {"x": source}).batches(
            "sequential", n_rows, memory=BUDGET, scratch=False, threads=1
        )
        for (rows,), _ in zip(batches, range(2), strict=False):
            yield at, rows
            at += len(rows)
    except EpochalError as error:
        yield at, error


class Alone:
    """A store of no names, for one source that is read by itself."""

    name = "alone"
    sources = MappingProxyType({})
    groups = MappingProxyType({})
    others = ()

    def close(self):
        """Nothing is held."""


def read_hostile(path):
    """What came of one file: JSON."""
    began = time.monotonic()
    found = {"path": str(path), "opened": False, "why": "", "read": 0, "errors": 0, "library": 0}
    try:
        store = open_store(path, untrusted=True)
    except EpochalError as error:
        found["why"] = str(error)
    else:
        found["opened"] = True
        for source in store.sources.values():
            for column in columns_of(source):
                found["library"] += column.layout.kind == "library"
                damaged = any(isinstance(rows, EpochalError) for _, rows in blocks(column))
                found["errors" if damaged else "read"] += 1
        found["others"] = len(store.others)
        store.close()
    return found | {"seconds": time.monotonic() - began}


def serve(paths):
    """Read hostile files one after another, a line of JSON each; then what memory that took."""
    for path in paths:
        Path(f"{MARK}{path}").exists()
        print(json.dumps(read_hostile(path)), flush=True)
    status = Path("/proc/self/status").read_text()
    held = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    print(json.dumps({"held_bytes": held, "child_bytes": children}), flush=True)


@dataclass
class Hostile:
    """What came of hostile files, each a dict as `read_hostile` makes it.

    `child_bytes` is the most that a process that indexes had: the kernel counts in it what the
    reader held when it started that process, so it is too high rather than too low.
    """

    found: list[dict] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    held_bytes: int = 0
    child_bytes: int = 0

    def failures(self):
        """What must not be, for people; empty where all is well."""
        wrong = [f"{path}: the reader crashed" for path in self.crashes]
        wrong += [f"{path}: more than {MOST_SECONDS} s" for path in self.hangs]
        wrong += [
            f"{each['path']}: {each['seconds']:.1f} s"
            for each in self.found
            if each["seconds"] > MOST_SECONDS
        ]
        wrong += [
            f"{each['path']}: {each['library']} sources are read by libhdf5"
            for each in self.found
            if each["library"]
        ]
        if max(self.held_bytes, self.child_bytes) >= MOST_BYTES:
            wrong.append(f"memory: {self.held_bytes} and {self.child_bytes} bytes")
        return wrong

    def count(self, what):
        return sum(int(each[what]) for each in self.found)


def read_through(paths, before=()):
    """Read hostile files in a process of its own, which is started again when one brings it down.

    `before` is put before the command: what traces it.
    """
    result, left = Hostile(), [str(path) for path in paths]
    while left:
        command = [*before, sys.executable, __file__, "--serve", *left]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with reader:
            while (line := next_line(reader)) and left:
                result.found.append(json.loads(line))
                left.pop(0)
            if left:
                (result.hangs if line is None else result.crashes).append(left.pop(0))
                reader.kill()
            else:
                memory = json.loads(line or next_line(reader))
                result.held_bytes = max(result.held_bytes, memory["held_bytes"])
                result.child_bytes = max(result.child_bytes, memory["child_bytes"])
    return result


def next_line(process):
    """The next line that a process prints: empty at its end, None where none comes in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(MOST_SECONDS + 10):
            return None
    return process.stdout.readline()


# A call that another process comes between is counted without waiting for how it ends.
OPENED = re.compile(r'\bopen(?:at2?)?\([^"]*"([^"]*)".*(?:\) = \d+|<unfinished \.\.\.>)')
MARKED = re.compile(rf'"{MARK}([^"]*)"')


def other_files_opened(paths):
    """Files that were opened, by system call, while each file was read: but for itself, what Python
    and its packages are made of, and what reading a harmless file opens too. Needs strace.
    """
    with tempfile.TemporaryDirectory() as folder:
        harmless, trace = Path(folder) / "harmless.h5", Path(folder) / "trace"
        with h5py.File(harmless, "w") as file:
            file.create_dataset("x", data=np.arange(40), chunks=(10,), compression="gzip")
        calls = "trace=open,openat,openat2,stat,newfstatat,statx"
        tracer = ["strace", "-f", "--seccomp-bpf", "-s", "4096", "-e", calls, "-o", str(trace)]
        read_through([harmless, *paths], tracer)
        found = opened_in(trace.read_text(errors="replace").splitlines())
    usual = found.pop(str(harmless))
    return {path: sorted(opened - usual - {path}) for path, opened in found.items()}


def opened_in(lines):
    """From a trace, the files that were opened after each mark, those of Python left out."""
    found, at = {}, None
    for line in lines:
        if mark := MARKED.search(line):
            at = found.setdefault(mark[1], set())
        elif at is not None and (hit := OPENED.search(line)) and not part_of_python(hit[1]):
            at.add(os.path.realpath(hit[1]))
    return found


def part_of_python(path):
    """Whether a file belongs to the system's libraries, to Python, to its packages or to us."""
    project = HERE.parents[1]
    roots = [sys.prefix, sys.base_prefix, project / "src", project / "tests", *site_folders()]
    roots += ["/proc", "/sys", "/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/dev"]
    roots += ["/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime"]
    real = os.path.realpath(path)
    return any(real == root or real.startswith(f"{root}/") for root in map(os.path.realpath, roots))


def site_folders():
    """Folders of packages that Python finds, as far as they are nothing else."""
    return [folder for folder in sys.path if Path(folder).name.endswith("-packages")]


def show_foreign():
    """Print what became of the files of other writers; whether all are equal."""
    found = Comparison()
    for path in files("foreign"):
        found.add(path)
    say(f"Files of other writers: {found.n_files}, with {found.n_datasets:,} datasets with rows")
    rows = [(f"equal to h5py, {kind}", f"{n:,}") for kind, n in found.equal.most_common()]
    rows += [
        ("  of these without libhdf5", f"{found.raw:,}"),
        ("read by epochal alone", f"{len(found.ours_alone):,}"),
        ("read by neither", f"{len(found.neither):,}"),
        ("mismatches", f"{len(found.mismatches):,}"),
    ]
    print_table(("datasets", "number"), rows, numbers=(1,))
    for title, counts in (("read by libhdf5, since", found.library), ("no source", found.others)):
        say()
        rows = [(why, f"{n:,}") for why, n in counts.most_common()]
        print_table((title, "number"), rows, numbers=(1,))
    for mismatch in found.mismatches:
        say(f"MISMATCH {mismatch}")
    return not found.mismatches


def show_hostile(*, trace):
    """Print what became of hostile files; whether all was as it should be."""
    paths = files("hostile")
    found = read_through(paths)
    wrong = found.failures()
    slowest = max(found.found, key=lambda each: each["seconds"])
    rows = [
        ("files", f"{len(paths):,}"),
        ("opened", f"{found.count('opened'):,}"),
        ("refused", f"{sum(not each['opened'] for each in found.found):,}"),
        ("datasets read through", f"{found.count('read'):,}"),
        ("datasets with an error", f"{found.count('errors'):,}"),
        ("not a source", f"{sum(each.get('others', 0) for each in found.found):,}"),
        ("crashes", f"{len(found.crashes):,}"),
        ("hangs", f"{len(found.hangs):,}"),
        ("longest for one file", f"{slowest['seconds']:.2f} s ({Path(slowest['path']).name})"),
        ("most memory of the reader", f"{found.held_bytes / 1e6:,.0f} MB"),
        ("of its child, at most", f"{found.child_bytes / 1e6:,.0f} MB"),
    ]
    if trace and shutil.which("strace"):
        others = other_files_opened(paths)
        rows.append(("other files opened (strace)", f"{sum(map(len, others.values())):,}"))
        wrong += [f"{path} made us open {', '.join(more)}" for path, more in others.items() if more]
        if len(others) < len(paths):
            wrong.append(f"the trace shows {len(others)} of {len(paths)} files")
    else:
        rows.append(("other files opened", "not measured: no strace"))
    say("Hostile files, opened with untrusted=True and read through")
    print_table(("what", "number"), rows, numbers=(1,))
    whys = Counter(general(each["why"]) for each in found.found if each["why"])
    say()
    rows = [(why, f"{n:,}") for why, n in whys.most_common()]
    print_table(("refused, since", "number"), rows, numbers=(1,))
    for each in wrong:
        say(f"WRONG {each}")
    return not wrong


def main(arguments):
    if arguments[:1] == ["--serve"]:
        serve(arguments[1:])
        return 0
    import hdf5plugin  # noqa: F401  registers the filters that h5py is compared with

    chosen = [each for each in arguments if not each.startswith("-")] or ["foreign", "hostile"]
    good = True
    if "foreign" in chosen:
        good &= show_foreign()
        say()
    if "hostile" in chosen:
        good &= show_hostile(trace="--no-trace" not in arguments)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
