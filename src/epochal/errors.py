"""The exception tree: every error that epochal raises on purpose.

::

    EpochalError
    |-- SourceNameError    (KeyError)           no source of that name
    |-- RowError           (IndexError)         a row outside the source
    |-- SchemeError        (ValueError)         an order that cannot be made
    |-- MismatchError      (ValueError)         things that do not go together
    |-- BudgetError        (ValueError)         `memory=` cannot hold what must be held at once
    |-- ReadOnlyError      (ValueError)         rows of a dataset that was opened for reading only
    |-- FileMissingError   (FileNotFoundError)  nothing at that path
    |-- FormatError        (OSError)            not a file that a store can read
    |-- UnsafeError        (PermissionError)    a file that asks for what is refused by default
    |-- DamageError        (OSError)            a chunk that is not what its file declares
    |-- ChangedError       (OSError)            the file is no longer the one that was opened
    |-- ScratchError       (OSError)            scratch is full, or not writable
    |-- TargetExistsError  (FileExistsError)    what would be written is there already
    `-- TargetError        (OSError)            what would be written cannot be: full, no folder

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
    "ReadOnlyError",
    "RowError",
    "SchemeError",
    "ScratchError",
    "SourceNameError",
    "TargetError",
    "TargetExistsError",
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


class ReadOnlyError(EpochalError, ValueError):
    """Rows of a dataset that was opened for reading only."""


class TargetExistsError(EpochalError, FileExistsError):
    """What would be written is there already."""


class TargetError(EpochalError, OSError):
    """What would be written cannot be: no folder, no space, another writer at work."""
