"""A pass on many machines: parts of the rows on the workers of a Dask cluster, merged in order."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from epochal.errors import MismatchError
from epochal.transforms.held import held
from epochal.transforms.reading import DatasetRows, RowsToRead
from epochal.transforms.statistics import Statistics

__all__ = ["collected_by"]

PARTS = 4  # of each thread of the cluster: one that a killed worker had is done anew by another


def collected_by(
    client: Any,
    rows: RowsToRead,
    through: Any,
    n_rows: int,
    found: Statistics,
    first: int,
    advance: Callable[[int], None],
) -> Statistics:
    """What is collected of all rows from `first` on, and `found` before them.

    Parts are merged in pairs by the workers, in the order of the rows.

    Raises
    ------
    MismatchError
        The rows are no dataset that other processes can open.
    """
    if not isinstance(rows, DatasetRows):
        raise MismatchError(
            f"client=: {rows.name} lies in this process; give a dataset or a view of one, which "
            "workers open by themselves"
        )
    threads = sum(client.nthreads().values())
    if not threads:
        raise MismatchError("client=: the cluster has no workers")
    total = rows.n_rows - first
    step = max(n_rows, -(-total // (PARTS * threads * n_rows)) * n_rows)
    starts = range(first, rows.n_rows, step)
    job = held(client, (rows, through))
    # Not pure: what one fit collected is no other fit's.
    parts = [
        client.submit(_of_part, job, n_rows, at, min(at + step, rows.n_rows), pure=False)
        for at in starts
    ]
    while len(parts) > 1:
        pairs = [parts[k : k + 2] for k in range(0, len(parts), 2)]
        parts = [client.submit(_merged, *p, pure=False) if len(p) == 2 else p[0] for p in pairs]
    if parts:
        found.merge(parts[0].result())
    advance(total)
    return found


def _of_part(job: tuple[DatasetRows, Any], n_rows: int, start: int, stop: int) -> Statistics:
    rows, through = job
    found: Statistics = deepcopy(through.statistics)
    for _, piece in rows.part(start, stop).made_of(0, n_rows, through):
        found.add(piece)
    return found


def _merged(first: Statistics, after: Statistics) -> Statistics:
    made = deepcopy(first)
    made.merge(after)
    return made
