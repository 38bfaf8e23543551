"""Files read through PyTables itself, where somebody wants that.

PyTables unpickles attributes as it opens a file, so a hostile file runs code. What it would
unpickle is looked for first, without PyTables; a file that holds a pickle is refused.
"""

from __future__ import annotations

import os
import pickletools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.errors import DamageError, FormatError, SourceNameError, UnsafeError
from epochal.layout import Layout
from epochal.stores import open_store
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.store import AnySource, Other

__all__ = ["TablesStore", "pickles_in"]

# Those of pickle's instructions that call something.
CALLS = {
    *{"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"},
    *{"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"},
}
MEMO = 1 << 16  # the unpickler allocates a table of as many objects as an instruction says
# What pickletools says of a byte that is no instruction, and of an argument that is cut off; what
# it says of other arguments quotes them.
BROKEN = re.compile(
    r"at position \S+, opcode .+ unknown|expected \d+ bytes in .+, but only \d+ remain", re.DOTALL
)
LOCK = threading.Lock()  # PyTables is not made for several threads


class TablesStore:
    """Nodes of a file that have rows, read by PyTables under one lock.

    Raises
    ------
    UnsafeError
        An attribute holds a pickle.
    SourceNameError
        No such node, or one that is no array.
    """

    others: tuple[Other, ...] = ()
    groups: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, path: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.name = os.fspath(path)
        open_store(path).close()  # which says what is wrong with the file, and unpickles nothing
        found = next(pickles_in(self.name), None)
        if found is not None:
            raise UnsafeError(
                f"{self.name}: attribute {found} may be a pickle, which PyTables would run: "
                "read it with use_h5py='auto', which never unpickles anything"
            )
        self._names = list(names)
        self._file = _tables().open_file(self.name, "r")
        try:
            self.sources: dict[str, AnySource] = {n: _TablesSource(self, n) for n in names}
        except BaseException:
            self._file.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        return TablesStore, (self.name, self._names)

    def node(self, name: str) -> Any:
        """A node by its name."""
        try:
            return self._file.get_node("/" + name.strip("/"))
        except _tables().NoSuchNodeError:
            raise SourceNameError(f"no source {name!r} in {self.name}") from None

    def close(self) -> None:
        """Close the file."""
        with LOCK:
            self._file.close()


class _TablesSource:
    """An Array, CArray or EArray."""

    def __init__(self, store: TablesStore, name: str) -> None:
        self._store, self._name = store, name
        self._node = store.node(name)
        shape, dtype = getattr(self._node, "shape", ()), getattr(self._node, "dtype", None)
        if dtype is None or not shape or not hasattr(self._node, "chunkshape"):
            raise SourceNameError(f"{name!r} of {store.name} is no array with rows")
        if getattr(getattr(self._node, "atom", None), "kind", "") == "object":
            raise UnsafeError(f"{name!r} of {store.name}: its rows are pickles, which are not read")
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        chunks = self._node.chunkshape
        self.layout = Layout(
            shape=tuple(int(n) for n in shape),
            dtype=np.dtype(dtype),
            chunk_rows=int(chunks[0]) if chunks else virtual_chunk_rows(row_bytes),
            kind="library",
            parallel=False,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _TablesSource, (self._store, self._name)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read chunks."""
        first, last = self.layout.bounds(start)[0], self.layout.bounds(stop - 1)[1]
        try:
            with LOCK:
                out[...] = self._node[first:last]
        except Exception as error:  # PyTables has many of its own
            raise DamageError(
                f"{self._store.name}: source {self._name!r}, rows {first} to {last - 1}: PyTables "
                f"cannot read them: {error}"
            ) from error

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Not offered."""
        raise NotImplementedError("rows are read through PyTables chunk by chunk")


def pickles_in(path: str) -> Iterator[str]:
    """Names of attributes that PyTables might unpickle, as ``node.attribute``; without PyTables.

    It unpickles scalar strings that end with a full stop, the last instruction of a pickle. Only
    what cannot do anything as a pickle is passed over: see `_is_text`.
    """
    with h5py.File(path, "r") as file:
        names = [""]
        file.visit(names.append)
        for name in names:
            node = file[name] if name else file
            for attribute in node.attrs:
                if not all(map(_is_text, _strings(node, attribute))):
                    yield f"/{name}.{attribute}"


def _strings(node: Any, attribute: str) -> list[bytes]:
    """The strings of an attribute as they are stored; none of another kind. What fills them up is
    left out, as libhdf5 may.
    """
    held = node.attrs.get_id(attribute)
    if (
        held.get_type().get_class() != h5py.h5t.STRING
        or held.get_space().get_simple_extent_npoints() < 1
    ):
        return []
    if held.get_type().is_variable_str():
        values = np.atleast_1d(np.asarray(node.attrs[attribute], object)).ravel()
        return [
            v.encode("utf-8", "surrogateescape") if isinstance(v, str) else bytes(v) for v in values
        ]
    raw = np.empty(held.shape, np.dtype(f"S{held.get_type().get_size()}"))
    held.read(raw, mtype=held.get_type())
    size = raw.dtype.itemsize
    whole = raw.tobytes()
    return [whole[at : at + size].rstrip(b"\0 ") for at in range(0, len(whole), size)]


def _is_text(string: bytes) -> bool:
    """Whether a string does nothing where it is loaded as a pickle.

    One line of printable ASCII gets no function onto the stack: what names one takes a line's end
    or a byte beyond ASCII. Of others only those that break off at a byte that is no instruction
    or before their end, and call nothing until then, are text: where `pickletools` cannot read an
    argument, the unpickler may (``I0x10`` is one).
    """
    if not string.endswith(b"."):
        return True
    line = all(0x20 <= byte < 0x7F for byte in string)
    try:
        for instruction, argument, _ in pickletools.genops(string):
            if instruction.name == "LONG_BINPUT" and (argument or 0) > MEMO:
                return False
            if instruction.name in CALLS and not line:
                return False
    except ValueError as error:
        return line or BROKEN.fullmatch(str(error)) is not None
    except Exception:  # whatever else it breaks off with
        return line
    return line


def _tables() -> Any:
    try:
        return import_module("tables")
    except ImportError as error:
        raise FormatError(
            "use_h5py=False reads through PyTables, which is not installed: "
            "pip install 'epochal[pytables]'; or use_h5py='auto', which needs none"
        ) from error
