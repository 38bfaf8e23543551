"""Is every chunk what it was when it was written? And noting what it is now."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal import sizes
from epochal.errors import BudgetError, DamageError, EpochalError, MismatchError, TargetError
from epochal.execute.pool import Pool
from epochal.execute.probe import threads_of
from epochal.progress import row_bar
from epochal.stores import open_store
from epochal.stores.decoded import decoded_sums
from epochal.stores.forms import UnlikeSource, form_of_source
from epochal.stores.hdf5_plain import ContiguousSource
from epochal.stores.kept import kept_in
from epochal.stores.manifest import Manifest, manifests_beside, write_sidecar
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import TRANSFORMS, Other, SelfChecking, Store, Summed
from epochal.transforms.kept import from_bytes
from epochal.writing.disk import writing_to
from epochal.writing.recovery import recover_all

__all__ = ["Bad", "Checked", "Verification", "verify"]

RUN_BYTES = 1 << 20  # decoded bytes that one task reads at once, or one chunk
UNKNOWN = ("an older state", "damaged checksums", "another form")


@dataclass(frozen=True)
class Bad:
    """One chunk that is not what it should be: rows ``[first_row, last_row]`` of a source."""

    source: str
    chunk: int
    first_row: int
    last_row: int
    why: str

    def __str__(self) -> str:
        rows = f"rows {self.first_row} to {self.last_row}"
        return f"{self.source}: chunk {self.chunk}, {rows}: {self.why}"


@dataclass(frozen=True)
class Checked:
    """What was looked at of one source (of a column, where rows vary in length).

    ``against`` is ``"checksums"``; ``"decoding"`` where there are none, so that only what does not
    decode is found; ``"nothing"`` where bytes are stored as they are and any would do; ``"an older
    state"`` where the checksums are of another number of chunks: the file has changed since;
    ``"damaged checksums"`` where they are not what was written, and nothing could be compared;
    ``"another form"`` where shape, dtype, chunks or filters are not what was noted: nothing was
    read.
    """

    source: str
    chunks: int
    rows: int
    against: str


@dataclass(frozen=True)
class Verification:
    """The outcome of `verify`."""

    path: str
    sources: tuple[Checked, ...]
    bad: tuple[Bad, ...]
    decoded_bytes: int
    seconds: float
    recorded: str | None = None
    notes: tuple[str, ...] = field(default=())
    damage: tuple[str, ...] = field(default=())  # to what lies beside the sources

    @property
    def ok(self) -> bool:
        """Whether nothing bad was found, all that is or was a source could be looked at, and
        whatever checksums there are could be compared.
        """
        known = all(each.against not in UNKNOWN for each in self.sources)
        return known and not self.bad and not self.damage

    def __str__(self) -> str:
        lines = [str(each) for each in self.bad]
        for each in self.sources:
            lines.append(
                f"{each.source}: {each.chunks:,} chunks, {each.rows:,} rows, held against "
                f"{each.against}"
            )
        lines += [*self.notes, *self.damage]
        verdict = "not known: epochal verify --record notes checksums of what is there now"
        if self.ok:
            verdict = "ok"
        elif self.bad:
            verdict = f"{len(self.bad)} bad chunks"
        elif self.damage and all(each.startswith(TRANSFORMS) for each in self.damage):
            verdict = "damaged"
        elif self.damage:
            verdict = (
                "not what was noted: damaged, or changed by another program; if that was on "
                "purpose, epochal verify --record notes what is there now"
            )
        lines.append(f"{self.path}: {verdict}")
        return "\n".join(lines)


def verify(
    path: str | os.PathLike[str],
    *,
    record: bool = False,
    sources: Sequence[str] | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: bool = False,
    untrusted: bool = False,
) -> Verification:
    """Decode every chunk, and hold what is stored of it against its checksum.

    Checksums are those that `epochal.create` put into the file, or that an earlier
    ``verify(record=True)`` noted beside it. With them the form of each source was noted (shape,
    dtype, chunks, filters, fill value), and the names of all: these are compared, too. It goes on
    behind bad chunks, and names each with its rows. A fitted transform that the file keeps is
    looked at, too, unless `sources` says what is, or the file is `untrusted`. Reads and decodes the
    file once, on all threads; holds some chunks a thread.

    Parameters
    ----------
    path
        A file or folder on this machine.
    record
        Note the checksums of what is there now, beside the file (``<file>.epochal-sums``), whoever
        wrote it: from then on reading checks them. Chunks that do not decode are named, and nothing
        is noted.
    sources
        Which; None takes all that are there, whatever their number of rows.
    memory, threads, progress
        As for `Dataset.batches`.
    untrusted
        As for `epochal.open`.

    Raises
    ------
    EpochalError
        The file cannot be opened at all.
    """
    began = time.perf_counter()
    name = os.path.realpath(os.fspath(path))
    local = os.path.exists(name)
    if record and not local:
        raise TargetError(
            f"{path}: checksums are noted beside one file or folder of this machine, which this is "
            "not: record each by itself"
        )
    n_threads = threads_of(threads)
    budget = sizes.default_memory() if memory is None else sizes.parse(memory, "memory")
    recover_all(path)
    with closing(open_store(path, untrusted=untrusted)) as store:
        if os.path.exists(store.name):  # a folder of one file is that file
            name = os.path.realpath(store.name)
        parts = dict(_parts(store, sources))
        total = sum(part.layout.n_rows for part in parts.values())
        bad: list[Bad] = []
        hurt = _hurt(store, record) if sources is None else []
        damage = [f"{other.name}: {other.why}" for other in hurt]
        if not parts:
            damage.append("there is no source in it: nothing could be looked at")
        checked, manifests = [], {}
        files: dict[str, str] = {}  # of a folder: where each source lies
        with (
            closing(Pool(n_threads)) as pool,
            row_bar(total, 0, "verifying", progress) as advance,
        ):
            for part_name, part in parts.items():
                look = _Look(part_name, part, record)
                if look.unlike:
                    damage.append(f"{part_name}: {look.unlike}")
                    checked.append(Checked(part_name, part.layout.n_chunks, 0, "another form"))
                    continue
                for result in _spread(pool, look, budget, n_threads):
                    bad += result.bad
                    look.keep(result)
                    advance(result.rows)
                layout = part.layout
                checked.append(Checked(part_name, layout.n_chunks, layout.n_rows, look.against))
                manifests[part_name] = look.manifest()
                if os.path.isdir(name) and isinstance(look.source, ContiguousSource):
                    files[part_name] = look.source.path
        # It is read by libhdf5 in this process, which files that are not trusted never are.
        looks = local and sources is None and not untrusted
        notes = [
            f"{other.name}: not looked at: {other.why}"
            for other in store.others
            if other not in hurt and not (looks and other.name.strip("/") == TRANSFORMS)
        ]
    if looks:
        try:
            if _holds_transform(name):
                notes.append(f"{TRANSFORMS}: the fitted transform is what it was")
        except EpochalError as error:
            damage.append(f"{TRANSFORMS}: {error}")
    recorded = None
    if record and not bad:
        with writing_to(name):
            _note(name, manifests, files, complete=sources is None)
        recorded = name
    return Verification(
        name,
        tuple(checked),
        tuple(sorted(bad, key=lambda each: (each.source, each.chunk))),
        sum(part.layout.decoded_bytes for part in parts.values()),
        time.perf_counter() - began,
        recorded,
        tuple(notes),
        tuple(damage),
    )


def _note(
    name: str, manifests: Mapping[str, Manifest], files: Mapping[str, str], *, complete: bool
) -> None:
    """Keep manifests beside a file or a folder: those of its `files` beside them, where whoever
    appends to them or changes them finds them. Where they are not `complete`, those of other
    sources stay.
    """
    for source, path in files.items():
        write_sidecar(path, {source: manifests[source]})
    beside = manifests_beside(name, near=True)
    rest = {source: each for source, each in manifests.items() if source not in files}
    if not complete:
        left = {source: each for source, each in beside.items() if source not in files}
        rest = {**left, **rest}
    if rest or beside:
        write_sidecar(name, rest, complete=complete or beside.complete)


def _hurt(store: Store, record: bool) -> list[Other]:
    """What is damaged besides its sources; where what is there now is not to be noted, also what
    was noted and is gone.
    """
    return [other for other in store.others if other.damaged or (other.gone and not record)]


def _holds_transform(name: str) -> bool:
    """Whether a file keeps the transform that made its rows, whole.

    Raises
    ------
    DamageError, FormatError
        It is not what was written.
    """
    kept = kept_in(name)
    if kept is not None:
        from_bytes(kept, name)  # the parts of it have sums of their own
    return kept is not None


def _parts(store: Store, sources: Sequence[str] | None) -> Iterator[tuple[str, Source]]:
    """Whatever is stored, by name: of rows of varying length their columns."""
    known = store.sources
    if sources is not None:
        missing = [name for name in sources if name not in known]
        if missing:
            raise MismatchError(
                f"no source {missing[0]!r} in {store.name}: there are {', '.join(known)}"
            )
        known = {name: known[name] for name in sources}
    for name, source in known.items():
        if isinstance(source, RaggedSource):
            for column, stored in source.columns.items():
                yield f"{name}/{column}", stored
        else:
            yield name, source


@dataclass
class _Result:
    """Of some chunks."""

    start: int
    rows: int
    bad: list[Bad]
    sums: NDArray[np.uint32]


class _Look:
    """How one source is looked at, and what was found."""

    def __init__(self, name: str, source: Source, record: bool) -> None:
        self.name = name
        # What is there now is noted, whatever was noted before.
        bare = source.unchecked() if isinstance(source, SelfChecking) else source
        self.source = bare if record else source
        self.unlike = ""
        if isinstance(source, UnlikeSource) and not record:
            self.unlike = f"it is stored in another form than was noted: {source.what}"
        self._stored = isinstance(bare, Summed)
        self._sums: list[tuple[int, NDArray[np.uint32]]] = []
        self._record = record
        self.against = self._against()

    def _against(self) -> str:
        layout = self.source.layout
        if layout.checked:
            return "checksums"
        manifest = self.source.manifest if isinstance(self.source, SelfChecking) else None
        if manifest is not None:
            return "damaged checksums" if manifest.damaged else "an older state"
        return "decoding" if layout.codec else "nothing"

    @property
    def run_chunks(self) -> int:
        """Chunks that one task reads at once."""
        return max(1, RUN_BYTES // max(self.source.layout.chunk_bytes, 1))

    @property
    def task_bytes(self) -> int:
        """What one task holds."""
        layout = self.source.layout
        held = max(RUN_BYTES, layout.chunk_bytes) + layout.read_overhead_bytes
        return held + (layout.read_overhead_bytes if self._record else 0)

    def __call__(self, start: int, stop: int) -> _Result:
        """Read some chunks; where that fails, one by one, to pin what is bad."""
        layout = self.source.layout
        first, last = layout.bounds(start)[0], layout.bounds(stop - 1)[1]
        rows = np.empty((last - first, *layout.row_shape), layout.dtype)
        bad: list[Bad] = []
        sums = np.zeros(0, np.uint32)
        try:
            self.source.read(start, stop, rows)
            sums = self._sums_of(start, stop, rows)
        except DamageError as error:
            if stop - start == 1:
                bad = [self._bad(start, error)]
            else:
                for chunk in range(start, stop):
                    bad += self(chunk, chunk + 1).bad
        return _Result(start, last - first, bad, sums)

    def _bad(self, chunk: int, error: EpochalError | str) -> Bad:
        first, last = self.source.layout.bounds(chunk)
        why = str(error)
        # The message of a source names itself first, and advises last.
        why = why.partition(f"rows {first} to {last - 1}: ")[2] or why
        return Bad(self.name, chunk, first, last - 1, why.partition(". The ")[0])

    def _sums_of(self, start: int, stop: int, rows: NDArray[Any]) -> NDArray[np.uint32]:
        if not self._record:
            return np.zeros(0, np.uint32)
        if isinstance(self.source, Summed):
            return self.source.stored_sums(start, stop)
        return decoded_sums(self.source.layout, start, stop, rows)

    def keep(self, result: _Result) -> None:
        """Keep the sums of some chunks, to be noted."""
        if self._record:
            self._sums.append((result.start, result.sums))

    def manifest(self) -> Manifest:
        """What was found."""
        sums = [part for _, part in sorted(self._sums, key=lambda each: each[0])]
        whole = np.concatenate([np.zeros(0, np.uint32), *sums])
        chunked = self.source.layout.piece_bytes is not None
        rows = None if chunked or not self._stored else self.source.layout.chunk_rows
        form = form_of_source(self.source)
        return Manifest(whole, rows, decoded=not self._stored, form=form)


def _spread(pool: Pool, look: _Look, budget: int, threads: int) -> Iterator[_Result]:
    """Look at all chunks, some at a time on each thread, as far as the budget goes."""
    if look.task_bytes > budget:
        raise BudgetError(
            f"memory={sizes.show(budget)} cannot hold a chunk of {look.name!r} as it is decoded: "
            f"{sizes.show(look.task_bytes)} needed"
        )
    layout = look.source.layout
    wide = threads if layout.parallel else 1
    most = max(1, min(2 * wide, budget // look.task_bytes))
    flying: deque[Future[_Result]] = deque()
    step = look.run_chunks
    for start in range(0, layout.n_chunks, step):
        while len(flying) >= most:
            yield flying.popleft().result()
        flying.append(pool.submit(look, start, min(start + step, layout.n_chunks)))
    while flying:
        yield flying.popleft().result()


def as_json(found: Verification) -> Mapping[str, Any]:
    """For programs."""
    return {
        "path": found.path,
        "ok": found.ok,
        "sources": [vars(each) for each in found.sources],
        "bad": [vars(each) for each in found.bad],
        "decoded_bytes": found.decoded_bytes,
        "seconds": found.seconds,
        "recorded": found.recorded,
        "notes": list(found.notes),
        "damage": list(found.damage),
    }
