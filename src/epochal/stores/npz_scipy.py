"""Sparse matrices as ``scipy.sparse.save_npz`` writes them: the parts of one, in one archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochal.errors import EpochalError
from epochal.stores.archive import Member, open_member
from epochal.stores.file import File, read_whole
from epochal.stores.npy_header import check_rows_fit, read_header

__all__ = ["PARTS", "Matrix", "matrix_of"]

PARTS = ("data", "indices", "indptr")
MAX_BYTES = 4096


class Matrix(NamedTuple):
    """A sparse matrix: the group that its parts are put in, and what that group says of them.

    ``about`` are the arrays that say it, which are no sources.
    """

    name: str
    attributes: Mapping[str, Any]
    about: tuple[str, ...] = ("format", "shape", "_is_array")


def matrix_of(file: File, listed: Mapping[str, Member], name: str) -> Matrix | None:
    """The matrix that the archive holds, if it is one by rows or columns (csr, csc)."""
    if any(f"{part}.npy" not in listed for part in (*PARTS, "format", "shape")):
        return None
    if f"{name}.npy" in listed:
        return None
    try:
        form = _array(file, listed["format.npy"]).astype("U").item()
        shape = _array(file, listed["shape.npy"]).astype("i8").tolist()
    except (EpochalError, ValueError, TypeError):
        return None
    if form not in ("csr", "csc") or len(shape) != 2:
        return None
    return Matrix(name, {"encoding-type": f"{form}_matrix", "shape": shape})


def _array(file: File, member: Member) -> NDArray[Any]:
    """The items of a small array, or a scalar as one item: ``(n_items,)``."""
    inside = open_member(file, member)
    data = read_whole(inside, MAX_BYTES)
    header = read_header(data, inside.name)
    check_rows_fit(header._replace(shape=(1, *header.shape)), len(data), inside.name)
    return np.frombuffer(data, header.dtype, header.nbytes // header.dtype.itemsize, header.offset)
