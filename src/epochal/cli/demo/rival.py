"""What one has without epochal: h5py's fancy indexing, batch by batch, exactly shuffled."""

from __future__ import annotations

import time
from collections.abc import Sequence

import h5py
import numpy as np

__all__ = ["fancy_indexing"]


def fancy_indexing(
    path: str, sources: Sequence[str], batch_size: int, seconds: float, seed: int = 0
) -> float:
    """Rows a second of ``dataset[sorted(rows)]`` for the batches of one permutation, timed for
    about `seconds`.

    h5py wants indices in ascending order, so each batch is sorted; an epoch whole would take
    minutes, so as many batches are read as the time allows, at least one.
    """
    with h5py.File(path) as file:
        arrays = [file[name] for name in sources]
        order = np.random.default_rng(seed).permutation(len(arrays[0]))
        n_rows, started = 0, time.perf_counter()
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            for array in arrays:
                array[rows]
            n_rows += len(rows)
            if time.perf_counter() - started > seconds:
                break
        return n_rows / max(time.perf_counter() - started, 1e-9)
