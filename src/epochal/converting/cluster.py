"""Rows read, transformed and compressed by the workers of a Dask cluster, and written here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.converting.origins import FromDataset, Origin
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.stores.manifest import crc32
from epochal.transforms.held import held
from epochal.view import SourceView
from epochal.writing.container import Bytes, Encode
from epochal.writing.spec import SourceSpec
from epochal.writing.writer import Writer

__all__ = ["step_for", "written_by"]

TASK_BYTES = 8 << 20  # decoded rows of a task, about
AHEAD = 3  # tasks of each thread of the cluster that are under way


def step_for(specs: Sequence[SourceSpec]) -> int:
    """Rows of a task: whole chunks of the source with the most bytes, which workers compress."""
    largest = max(specs, key=lambda spec: spec.row_bytes)
    return largest.chunk_rows * max(1, TASK_BYTES // max(largest.chunk_bytes, 1))


@dataclass(frozen=True)
class _Job:
    """What every task needs: sent to a worker once."""

    dataset: Dataset
    encoders: Mapping[str, tuple[Encode, int]]  # of sources that are compressed there: chunk rows
    rest: tuple[str, ...]


@dataclass(frozen=True)
class _Made:
    """What a task made of its rows: chunks as they are stored with their CRC-32, and rows."""

    n_rows: int
    chunks: dict[str, list[tuple[Bytes, int]]]
    rows: dict[str, NDArray[Any]]


def written_by(client: Any, origin: Origin, writer: Writer, first: int, step: int) -> Iterator[int]:
    """Write all rows from `first` on, in order; yields the number of those that were written.

    Raises
    ------
    MismatchError
        The rows are no dataset that other processes can open, or vary in length.
    """
    if not isinstance(origin, FromDataset):
        raise MismatchError("client=: workers read what epochal.open reads; convert this file here")
    ds = origin.dataset
    if not all(isinstance(view, SourceView) for view in ds.sources.values()):
        raise MismatchError("client=: rows of varying length are converted without a client")
    whole = {
        name: (writer.encoders[name], spec.chunk_rows)
        for name, spec in writer.specs.items()
        if step % spec.chunk_rows == 0 and first % spec.chunk_rows == 0
    }
    rest = tuple(name for name in writer.specs if name not in whole)
    plain = ds.plain()
    job = held(client, _Job(plain, whole, rest))
    ahead = AHEAD * max(1, sum(client.nthreads().values()))
    starts = iter(range(first, len(ds), step))
    under_way: deque[Any] = deque()
    while True:
        while len(under_way) < ahead and (start := next(starts, None)) is not None:
            stop = min(start + step, len(ds))
            under_way.append(client.submit(_made_of, job, start, stop, pure=False))
        if not under_way:
            return
        made = under_way.popleft().result()
        writer.put(made.n_rows, made.chunks, made.rows)
        yield made.n_rows


def _made_of(job: _Job, start: int, stop: int) -> _Made:
    rows = {name: _read(job.dataset, name, start, stop) for name in (*job.encoders, *job.rest)}
    chunks: dict[str, list[tuple[Bytes, int]]] = {}
    for name, (encode, chunk_rows) in job.encoders.items():
        block = rows.pop(name)
        stored = [encode(block[at : at + chunk_rows]) for at in range(0, len(block), chunk_rows)]
        chunks[name] = [(each, crc32(each)) for each in map(np.asarray, stored)]
    return _Made(stop - start, chunks, rows)


def _read(ds: Dataset, name: str, start: int, stop: int) -> NDArray[Any]:
    """Rows in this thread alone: a cluster has as many as it wants."""
    view = ds[name]
    assert isinstance(view, SourceView)
    return view.read(start, stop, threads=1)
