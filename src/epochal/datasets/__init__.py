"""Pylearn2's datasets, with their names and meanings, on epochal's engine.

`HDF5Dataset` reads files, `DenseDesignMatrix` arrays in memory, `DenseDesignMatrixPyTables` design
matrices on disk, `SVHN` the Street View House Numbers. ``docs/from-pylearn2.md`` says what changed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.datasets.converter import DefaultViewConverter
    from epochal.datasets.design import DenseDesignMatrix
    from epochal.datasets.hdf5 import HDF5Dataset
    from epochal.datasets.iteration import DatasetIterator
    from epochal.datasets.pytables import DenseDesignMatrixPyTables
    from epochal.datasets.subsets import dataset_range, from_dataset
    from epochal.datasets.svhn import SVHN

__all__ = [
    "SVHN",
    "DatasetIterator",
    "DefaultViewConverter",
    "DenseDesignMatrix",
    "DenseDesignMatrixPyTables",
    "HDF5Dataset",
    "dataset_range",
    "from_dataset",
]

_WHERE = {
    "SVHN": "svhn",
    "DatasetIterator": "iteration",
    "DefaultViewConverter": "converter",
    "DenseDesignMatrix": "design",
    "DenseDesignMatrixPyTables": "pytables",
    "HDF5Dataset": "hdf5",
    "dataset_range": "subsets",
    "from_dataset": "subsets",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"epochal.datasets.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'epochal.datasets' has no attribute {name!r}")
