"""Some examples of a dataset as one of their own, in memory."""

from __future__ import annotations

import copy

import numpy as np

from epochal.datasets.design import DenseDesignMatrix
from epochal.datasets.parts import checked_range

__all__ = ["dataset_range", "from_dataset"]


def dataset_range(dataset: DenseDesignMatrix, start: int, stop: int) -> DenseDesignMatrix:
    """The examples ``[start, stop)`` of a dataset as one of their own, in memory, copied."""
    first, last = checked_range(start, stop, dataset.get_num_examples())
    return _copied(dataset, slice(first, last))


def from_dataset(dataset: DenseDesignMatrix, num_examples: int) -> DenseDesignMatrix:
    """`num_examples` consecutive examples from a random place, in memory, copied."""
    return _copied(dataset, slice(*dataset.random_range(num_examples)))


def _copied(dataset: DenseDesignMatrix, rows: slice) -> DenseDesignMatrix:
    return DenseDesignMatrix(
        X=np.array(dataset.X[rows]),
        y=None if dataset.y is None else np.array(dataset.y[rows]),
        view_converter=copy.deepcopy(dataset.view_converter),
        X_labels=dataset.X_labels,
        y_labels=dataset.y_labels,
    )
