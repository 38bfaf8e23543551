"""MATLAB's files of version 4 and 5, by SciPy; those of version 7.3 are HDF5, which stores read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from epochal.converting.inputs.mat5 import Variable, variables
from epochal.converting.inputs.source import BLOCK_BYTES, Block, InputSource, chosen
from epochal.errors import BudgetError, FormatError, MismatchError, SourceNameError
from epochal.sizes import show

__all__ = ["open_mat"]

DTYPES = {  # of rows, by MATLAB's class: whatever their numbers are stored as
    **{"double": "f8", "single": "f4", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8", "logical": "u1"},
}


def open_mat(
    src: Any,
    *,
    sources: Sequence[str] | None,
    memory_bytes: int,
    axis: int | Mapping[str, int] = 0,
) -> MatInput:
    """The variables of a file that agree in their number of rows."""
    return MatInput(os.fspath(src), sources, memory_bytes, axis)


class MatInput:
    """Variables as sources; a matrix of one row or one column is a source of numbers.

    Variables whose rows are on the last axis are read as streams, where the file is of version 5.
    SciPy reads the others whole, so those that are wanted have to fit in `memory_bytes` together.
    """

    def __init__(
        self,
        path: str,
        sources: Sequence[str] | None,
        memory_bytes: int,
        axis: int | Mapping[str, int],
    ) -> None:
        self.name = path
        self.attrs: Mapping[str, Any] = {}
        seen = _variables(path)
        # SciPy lists sparse truth values as "logical".
        there = {
            name: (shape, "sparse" if name in seen and seen[name].kind == "sparse" else kind)
            for name, shape, kind in self._list()
        }
        plain = {name: shape for name, (shape, kind) in there.items() if kind in DTYPES}
        if sources is not None:
            for name in chosen(path, there, sources):
                if name not in plain:
                    raise SourceNameError(
                        f"{path}: {name!r} is a {there[name][1]}, not an array of numbers"
                    )
        _check_axis(path, axis, there)
        self._axes = {name: _axis(path, name, shape, axis) for name, shape in plain.items()}
        counts = {name: shape[self._axes[name]] for name, shape in plain.items()}
        picked = list(sources) if sources is not None else _largest_group(plain, counts)
        if not picked:
            raise FormatError(
                f"{path}: no arrays of numbers in it: {', '.join(there) or 'nothing'}"
            )
        rows = {name: counts[name] for name in picked}
        if len(set(rows.values())) > 1:
            told = ", ".join(f"{name} has {n}" for name, n in rows.items())
            raise MismatchError(
                f"{path}: sources of one dataset have equally many rows: {told}; choose with "
                "sources=, or name the axis of rows with axis="
            )
        self.rows: int | None = next(iter(rows.values()))
        self._streams = {
            name: seen[name]
            for name in picked
            if name in seen
            and seen[name].dtype is not None
            and self._axes[name] == len(plain[name]) - 1
        }
        whole = [name for name in picked if name not in self._streams]
        dtypes = {name: np.dtype(DTYPES[there[name][1]]) for name in whole}
        needed = sum(prod(plain[name]) * dtype.itemsize for name, dtype in dtypes.items())
        if needed > memory_bytes:
            raise BudgetError(
                f"{path}: {', '.join(whole)} take {show(needed)}, and SciPy reads a variable "
                f"whole: memory= leaves {show(memory_bytes)}. Give more memory, fewer sources=, or "
                "save the file with -v7.3, or with rows on the last axis, and name it with axis="
            )
        self._arrays: dict[str, NDArray[Any]] = self._load(dtypes) if whole else {}
        self.sources = {name: self._source(name, plain[name]) for name in picked}

    def _source(self, name: str, shape: tuple[int, ...]) -> InputSource:
        stream = self._streams.get(name)
        if stream is None:
            array = self._arrays[name]
            return InputSource(name, array.shape[1:], array.dtype)
        assert stream.dtype is not None
        return InputSource(name, shape[:-1] if prod(shape[:-1]) != 1 else (), stream.dtype)

    def _list(self) -> list[tuple[str, tuple[int, ...], str]]:
        try:
            return list(scipy.io.whosmat(self.name))
        except Exception as error:  # of any kind, where bytes are not what they should be
            raise FormatError(
                f"{self.name}: not a MATLAB file that can be read: {error}"
            ) from error

    def _load(self, dtypes: Mapping[str, np.dtype]) -> dict[str, NDArray[Any]]:
        try:
            # Not with mat_dtype=, which drops imaginary parts.
            found = scipy.io.loadmat(self.name, variable_names=list(dtypes))
        except Exception as error:
            raise FormatError(f"{self.name}: cannot be read: {error}") from error
        made = {}
        for name, dtype in dtypes.items():
            array = np.moveaxis(found[name], self._axes[name], 0)
            if not np.iscomplexobj(array):
                array = array.astype(dtype, copy=False)
            made[name] = array.reshape(len(array)) if prod(array.shape[1:]) == 1 else array
        return made

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Input`."""
        row_bytes = sum(prod(s.row_shape) * s.dtype.itemsize for s in self.sources.values())
        step = max(1, BLOCK_BYTES // max(row_bytes, 1))
        assert self.rows is not None
        streams = {name: each.blocks(step, start) for name, each in self._streams.items()}
        for at in range(start, self.rows, step):
            block = {name: array[at : at + step] for name, array in self._arrays.items()}
            block |= {name: _rows_of(next(stream)) for name, stream in streams.items()}
            yield {name: np.ascontiguousarray(block[name]) for name in self.sources}
        for stream in streams.values():  # to its end, where what is compressed has its checksum
            next(stream, None)

    def close(self) -> None:
        """Let go of the arrays."""
        self._arrays = {}


def _variables(path: str) -> dict[str, Variable]:
    """Variables that may be read in parts; none of a file of version 4."""
    try:
        return variables(path)
    except FormatError:  # SciPy, which lists the file, says what is wrong with it
        return {}


def _rows_of(block: NDArray[Any]) -> NDArray[Any]:
    """A block with its rows first; of one number each ``(n,)``."""
    rows = np.moveaxis(block, -1, 0)
    return rows.reshape(len(rows)) if prod(rows.shape[1:]) == 1 else rows


def _check_axis(path: str, axis: Any, names: Collection[str]) -> None:
    """Refuse what is no axis, and those of variables that are not there."""
    for name, wanted in axis.items() if isinstance(axis, Mapping) else ((None, axis),):
        if name is not None and name not in names:
            raise SourceNameError(f"axis= of {name!r}: {path} has {', '.join(names) or 'nothing'}")
        if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer):
            raise MismatchError(f"axis={axis!r}: give a whole number, or one by variable's name")


def _axis(path: str, name: str, shape: tuple[int, ...], axis: int | Mapping[str, int]) -> int:
    """The axis of rows: of a row vector its second."""
    if len(shape) == 2 and 1 in shape:
        return int(np.argmax(shape))
    wanted = axis.get(name, 0) if isinstance(axis, Mapping) else axis
    if not -len(shape) <= wanted < len(shape):
        raise MismatchError(f"{path}: {name!r} of shape {shape} has no axis {wanted}")
    return wanted % len(shape)


def _largest_group(plain: Mapping[str, tuple[int, ...]], counts: Mapping[str, int]) -> list[str]:
    """The variables that agree in their rows: most of them, then most items."""
    groups: dict[int, list[str]] = {}
    for name, n in counts.items():
        groups.setdefault(n, []).append(name)
    if not groups:
        return []
    return max(groups.values(), key=lambda g: (len(g), sum(prod(plain[name]) for name in g)))
