"""The exception tree: every error that epochal raises on purpose.

::

    EpochalError
    ├── SourceNameError   (KeyError)           no source of that name
    ├── RowError          (IndexError)         a row outside the source
    ├── SchemeError       (ValueError)         an order that cannot be made: batch size, scheme
    name, shard, seed ├── MismatchError     (ValueError)         sources that do not go together, a
    state that is another iteration's ├── BudgetError       (ValueError)         `memory=` cannot
    hold what must be held at once ├── FileMissingError  (FileNotFoundError)  nothing at that path
    ├── FormatError       (OSError)            not a file that a store can read: empty, truncated,
    another format ├── UnsafeError       (PermissionError)    a file that would read other files,
    run code, or allocate without bound ├── DamageError       (OSError)            a chunk that does
    not decode to what its file declares ├── ChangedError      (OSError)            the file is no
    longer the one that was opened └── ScratchError      (OSError)            scratch is full, or
    not writable

Each message says what was asked, what was found and what to do.
"""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "ChangedError",
    "DamageError",
    "DamageWarning",
    "EpochalError",
    "FileMissingError",
    "FormatError",
    "MismatchError",
    "RowError",
    "SchemeError",
    "ScratchError",
    "SourceNameError",
    "UnsafeError",
]


class EpochalError(Exception):
    """The root of the tree: catch it to catch whatever epochal raises on purpose."""


class SourceNameError(EpochalError, KeyError):
    """No source of that name."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class RowError(EpochalError, IndexError):
    """A row number outside the source."""


class SchemeError(EpochalError, ValueError):
    """An order that cannot be made."""


class MismatchError(EpochalError, ValueError):
    """Things that do not go together: sources of unequal length, a state of another iteration."""


class BudgetError(EpochalError, ValueError):
    """The memory budget cannot hold what must be held at once."""


class FileMissingError(EpochalError, FileNotFoundError):
    """Nothing at that path."""


class FormatError(EpochalError, OSError):
    """Not a file that a store can read."""


class UnsafeError(EpochalError, PermissionError):
    """A file that asks for what is refused by default."""


class DamageError(EpochalError, OSError):
    """A chunk that does not decode to what its file declares."""


class DamageWarning(UserWarning):
    """Rows were left out, since their chunks do not decode (``on_error="skip"``)."""


class ChangedError(EpochalError, OSError):
    """The file is no longer the one that was opened."""


class ScratchError(EpochalError, OSError):
    """Scratch space is full, or not writable."""
