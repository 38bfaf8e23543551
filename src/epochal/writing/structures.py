"""Structures as other programs take them: packed, of little-endian numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["packed"]


def packed(dtype: np.dtype) -> np.dtype:
    """A structure of the same fields, by name, without gaps; any other dtype as it is.

    Zarr describes no gaps and no byte order of fields, and PyTables confuses both.

    >>> packed(np.dtype([("a", "u1"), ("b", ">f8", (2,))], align=True))
    dtype([('a', 'u1'), ('b', '<f8', (2,))])
    >>> packed(np.dtype(">i4"))
    dtype('>i4')
    """
    if dtype.names is None:
        return dtype
    return np.dtype([(name, _field(dtype[name])) for name in dtype.names])


def _field(dtype: np.dtype) -> np.dtype:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return np.dtype((_field(base), shape))
    return dtype.newbyteorder("<") if dtype.names is None else packed(dtype)
