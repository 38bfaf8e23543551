"""The Street View House Numbers, as Pylearn2's `SVHN`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.datasets.converter import DefaultViewConverter
from epochal.datasets.handle import OpenFile
from epochal.datasets.pytables import DenseDesignMatrixPyTables, through
from epochal.datasets.svhn_making import check_set, file_of, make
from epochal.errors import FileMissingError
from epochal.spaces.dense import AXES, Axis

__all__ = ["SVHN"]

TRAINED_ON = ("train", "train_all", "splitted_train")


class SVHN(DenseDesignMatrixPyTables):
    """Images of digits, 32 x 32 in colour, and their labels from 0 to 9.

    The file of a set is made of the originals when it is first asked for, once: in PyTables'
    format, in a shuffled order that never changes, below ``h5`` in the folder.

    Parameters
    ----------
    which_set
        ``"train"``, ``"test"``, ``"extra"``; ``"train_all"``, both of which can be trained on;
        ``"valid"``, 400 examples a label of `train` and 200 of `extra`, and ``"splitted_train"``,
        what they leave.
    path
        The folder of ``train_32x32.mat`` and its like. None: ``SVHN/format2`` below
        ``PYLEARN2_DATA_PATH``.
    center, scale
        Subtract 127.5; divide by 255; with both, numbers are from -1 to 1. This is done as rows
        are read: the file holds what the originals hold.
    start, stop
        Examples ``[start, stop)`` alone.
    axes
        Of topological views.
    preprocessor
        Applied at once; may be fitted on sets to be trained on.
    progress
        Show a bar on a terminal while the file is made.

    Raises
    ------
    FileMissingError, FormatError
        The originals are not there, or not what they should be.

    Notes
    -----
    Rows are float32. What is changed stays with this process.
    """

    def __init__(
        self,
        which_set: str,
        path: str | os.PathLike[str] | None = None,
        center: bool = False,
        scale: bool = False,
        start: int | None = None,
        stop: int | None = None,
        axes: Sequence[Axis] = AXES,
        preprocessor: Any = None,
        *,
        progress: bool = True,
    ) -> None:
        self.which_set, self.path = check_set(which_set), _folder(path)
        self.center, self.scale, self.axes = bool(center), bool(scale), axes
        self.start, self.stop = start, stop
        converter = DefaultViewConverter((32, 32, 3), axes)
        file = file_of(which_set, self.path)
        if not os.path.isfile(file):
            make(which_set, self.path, progress=progress)
        self.h5file = OpenFile(file)
        try:
            rows = through(self.h5file.X, Pixels(self.center, self.scale), np.dtype("float32"))
            super().__init__(X=rows, y=self.h5file.y, y_labels=10, view_converter=converter)
            self.restrict(start, stop)
            if preprocessor is not None:
                preprocessor.apply(self, can_fit=which_set in TRAINED_ON)
        except BaseException:
            self.h5file.close()
            raise
        self.preprocessor = preprocessor

    def get_test_set(self) -> SVHN:
        """The examples to test on, treated alike; all of them."""
        return SVHN(
            "test",
            self.path,
            self.center,
            self.scale,
            axes=self.axes,
            preprocessor=self.preprocessor,
        )


class Pixels:
    """Bytes as numbers, centred and scaled."""

    def __init__(self, center: bool, scale: bool) -> None:
        self._offset = np.float32(127.5 if center else 0)
        self._by = np.float32((127.5 if center else 255.0) if scale else 1)

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        numbers = rows.astype(np.float32)
        if self._offset:
            numbers -= self._offset
        if self._by != 1:
            numbers /= self._by
        return numbers


def _folder(path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        return os.fspath(path)
    root = os.environ.get("PYLEARN2_DATA_PATH")
    if not root:
        raise FileMissingError(
            "no path= was given, and PYLEARN2_DATA_PATH is not set: name the folder of "
            "train_32x32.mat and its like"
        )
    return os.path.join(root, "SVHN", "format2")
