"""How many batches are made ahead: as many as were planned, or fewer where functions make more of
them than their rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from epochal.plan.plan import Plan

__all__ = ["Ahead", "bytes_of"]


class Ahead:
    """Counts what batches have become. Only one is made until that is known.

    Parameters
    ----------
    plan
        Of batches that are their rows as they are stored.
    as_stored
        Whether they all are: then there is nothing to know.
    """

    def __init__(self, plan: Plan, *, as_stored: bool) -> None:
        self._plan = plan
        self._as_stored = as_stored
        self._largest = 0

    def see(self, batch: Any) -> int:
        """Note a batch that was made. How many bytes it has beyond those that were planned for."""
        if self._as_stored:
            return 0
        n_bytes = bytes_of(batch)
        self._largest = max(self._largest, n_bytes, 1)
        return max(0, n_bytes - self._plan.batch_bytes)

    @property
    def most(self) -> int:
        """Batches that may be on their way, at least one."""
        plan = self._plan
        planned = plan.batches_ahead + plan.batch_group
        if self._as_stored:
            return planned
        if not self._largest:
            return 1
        room = (planned + 1) * plan.batch_bytes - self._largest  # beside the one in use
        return max(1, min(planned, room // max(self._largest, plan.batch_bytes, 1)))


def bytes_of(batch: Any) -> int:
    """Bytes of the arrays that a batch is made of: in tuples, lists, mappings, data classes and
    sparse matrices; 0 of what has none.

    >>> import numpy as np
    >>> bytes_of({"x": np.zeros(3), "y": [np.zeros(2, "u1"), "text"]})
    26
    """
    n_bytes = getattr(batch, "nbytes", None)
    if isinstance(n_bytes, int):
        return n_bytes
    if isinstance(batch, Mapping):
        return sum(map(bytes_of, batch.values()))
    if isinstance(batch, tuple | list):
        return sum(map(bytes_of, batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return sum(bytes_of(getattr(batch, field.name)) for field in fields(batch))
    parts = [getattr(batch, name, None) for name in ("data", "indices", "indptr")]  # as SciPy has
    return sum(n for part in parts if isinstance(n := getattr(part, "nbytes", None), int))
