"""The beginning of a ``.npy`` file, with room for its number of rows to grow in place: pure.

The format is described in `numpy.lib.format`; NumPy itself leaves room for 21 digits.
"""

from __future__ import annotations

import io
import re

import numpy as np

from epochal.errors import MismatchError
from epochal.writing.spec import SourceSpec

__all__ = ["header_for", "with_rows"]

ROWS = re.compile(rb"(['\"]shape['\"]\s*:\s*\(\s*)(\d+)L?(?=\s*[,)])")
MOST_BYTES = 10_000  # longer headers np.load refuses, unless it is told to trust the file
VERSIONS = ((1, 0), (2, 0), (3, 0))


def header_for(spec: SourceSpec, rows: int) -> bytes:
    """The header of an array of so many rows, as long as it is for any other number.

    Raises
    ------
    MismatchError
        A dtype that the format cannot describe.

    >>> len(header_for(SourceSpec("X", (3,), np.dtype("f4"), 10), 10**18))
    128
    """
    empty = np.zeros((0, *spec.row_shape), spec.dtype)
    for version in VERSIONS:
        file = io.BytesIO()
        try:
            np.lib.format.write_array(file, empty, version)
        except ValueError as error:  # too long for it, or with names that it cannot spell
            why = error
            continue
        if len(file.getvalue()) <= MOST_BYTES:
            return with_rows(file.getvalue(), rows)
        why = ValueError(f"its description takes more than {MOST_BYTES} bytes")
    raise MismatchError(
        f"source {spec.name!r}: a .npy file cannot hold {spec.dtype}: {why}. Make its fields "
        "sources of their own"
    )


def with_rows(header: bytes, rows: int) -> bytes:
    """A header of another number of rows, as long as it was.

    Raises
    ------
    MismatchError
        Whoever wrote it left no room for the digits.
    """
    *_, last = ROWS.finditer(header)  # a field may be named "shape" too
    body = header[: last.start(2)] + str(rows).encode() + header[last.end() :]
    text = body.rstrip(b" \n")
    room = len(header) - len(text) - 1
    if room < 0:
        raise MismatchError(
            f"its header has no room for {rows} rows: epochal convert writes a file that has"
        )
    return text + b" " * room + b"\n"
