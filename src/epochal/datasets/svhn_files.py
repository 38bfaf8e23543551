"""The originals of the Street View House Numbers, format 2: ``train_32x32.mat`` and its like.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, "Reading Digits in Natural Images
with Unsupervised Feature Learning", NIPS Workshop 2011. In each, ``X`` is 32 x 32 x 3 x n uint8 and
``y`` n labels from 1 to 10, 10 being the digit 0.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.converting.inputs.mat5 import variables
from epochal.errors import FileMissingError, FormatError, TargetError
from epochal.opening import open_dataset

__all__ = ["FILES", "ROW", "URL", "Original", "download", "original"]

URL = "http://ufldl.stanford.edu/housenumbers/"
FILES = {  # MD5, as torchvision and others have them
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
    "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}
IMAGE = (32, 32, 3)
ROW = 32 * 32 * 3
BLOCK_ROWS = 2048  # examples that are read at once: 6 MiB


@dataclass(frozen=True)
class Original:
    """One of the files, looked at.

    Parameters
    ----------
    path
        Where it is.
    labels
        From 1 to 10, ``(n,)`` uint8.
    hdf5
        Whether it is of version 7.3.
    """

    path: str
    labels: NDArray[np.uint8]
    hdf5: bool

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Examples in the file's order, some MiB at a time, as rows of a design matrix: channel by
        channel, ``(m, 3072)``.
        """
        if self.hdf5:
            with open_dataset(self.path, sources=["X"]) as there:
                for batch in there.batches("sequential", BLOCK_ROWS, memory="64MiB"):
                    # MATLAB's axes are in reverse there: examples, channels, columns, rows.
                    yield batch[0].transpose(0, 1, 3, 2).reshape(-1, ROW)
            return
        for block in variables(self.path)["X"].blocks(BLOCK_ROWS):
            yield block.transpose(3, 2, 0, 1).reshape(-1, ROW)


def original(folder: str | os.PathLike[str], name: str) -> Original:
    """The file of a set, its shapes and labels checked.

    Raises
    ------
    FileMissingError
        It is not there.
    FormatError
        It is not what it should be: truncated, transposed, with other labels.
    """
    path = os.path.join(os.fspath(folder), f"{name}_32x32.mat")
    if not os.path.isfile(path):
        raise FileMissingError(
            f"{path}: the originals are not there: get them with epochal svhn --path "
            f"{os.fspath(folder)} --download, or from {URL}"
        )
    found, hdf5 = _arrays(path)
    for key in ("X", "y"):
        if key not in found:
            there = ", ".join(found) or "none"
            raise FormatError(f"{path}: no variable {key!r}: there are {there}")
    (shape, dtype), (label_shape, _) = found["X"], found["y"]
    n = shape[-1] if shape else 0
    if shape != (*IMAGE, n) or dtype != np.uint8:
        raise FormatError(
            f"{path}: X is 32 x 32 x 3 x n uint8; found {' x '.join(map(str, shape))} {dtype}"
            + (": its axes are in another order" if Counter(IMAGE) <= Counter(shape) else "")
        )
    if int(np.prod(label_shape)) != n:
        raise FormatError(f"{path}: X has {n} examples, y has {int(np.prod(label_shape))} labels")
    labels = _labels(path, hdf5)
    if n == 0 or labels.min() < 1 or labels.max() > 10 or (labels != np.floor(labels)).any():
        bad = labels[(labels < 1) | (labels > 10) | (labels != np.floor(labels))]
        raise FormatError(
            f"{path}: labels are whole numbers from 1 to 10; found "
            f"{bad[0] if len(bad) else 'none at all'}"
        )
    return Original(path, labels.astype(np.uint8), hdf5)


def _arrays(path: str) -> tuple[dict[str, tuple[tuple[int, ...], Any]], bool]:
    """Shapes, as MATLAB has them, and dtypes by name; and whether the file is HDF5."""
    try:
        return {name: (each.shape, each.dtype) for name, each in variables(path).items()}, False
    except FormatError as error:
        try:
            with open_dataset(path) as there:
                layouts = {n: each.layout for n, each in there.store.sources.items()}
        except FormatError:
            raise error from None
        return {name: (each.shape[::-1], each.dtype) for name, each in layouts.items()}, True


def _labels(path: str, hdf5: bool) -> NDArray[Any]:
    if hdf5:
        with open_dataset(path, sources=["y"]) as there:
            return np.asarray(there["y"][:]).reshape(-1)
    variable = variables(path)["y"]
    blocks = [block.reshape(-1) for block in variable.blocks(max(1, variable.shape[-1]))]
    return np.concatenate([np.empty(0, variable.dtype), *blocks])


def download(folder: str | os.PathLike[str], names: Any = FILES, url: str = URL) -> list[str]:
    """Fetch originals that are not there yet, and compare each with its checksum.

    Parameters
    ----------
    folder
        Where they go; made where it is not there.
    names
        Which of ``train``, ``test``, ``extra``.
    url
        Where they come from.

    Raises
    ------
    TargetError
        They cannot be fetched, or are not what was published.
    """
    try:
        pooch = import_module("pooch")
    except ImportError as error:
        raise TargetError(
            "downloads need pooch: pip install 'epochal[svhn]', or fetch the files from "
            f"{url} by hand"
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    fetched = []
    for name in names:
        file = f"{name}_32x32.mat"
        try:
            fetched.append(
                pooch.retrieve(
                    f"{url.rstrip('/')}/{file}", f"md5:{FILES[name]}", fname=file, path=folder
                )
            )
        except Exception as error:  # of requests, urllib3, or pooch's own for another checksum
            raise TargetError(f"{url}{file} was not fetched: {error}") from error
    return fetched
