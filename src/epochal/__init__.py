"""epochal: train on datasets larger than memory, in exactly shuffled order, at the speed of
reading them once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from epochal.errors import EpochalError

if TYPE_CHECKING:
    from epochal.batches import Batches
    from epochal.converting.convert import convert, shuffle
    from epochal.converting.verifying import verify
    from epochal.dataset import Dataset
    from epochal.opening import from_arrays
    from epochal.opening import open_dataset as open
    from epochal.plan.plan import Plan
    from epochal.writing.create import append, create

__version__ = "0.1.0"
__all__ = [
    "Batches",
    "Dataset",
    "EpochalError",
    "Plan",
    "append",
    "convert",
    "create",
    "from_arrays",
    "open",
    "shuffle",
    "verify",
]

# What is public, and where it lives: loaded when first asked for, so that importing epochal loads
# nothing.
_PUBLIC = {
    "Batches": ("epochal.batches", "Batches"),
    "Dataset": ("epochal.dataset", "Dataset"),
    "Plan": ("epochal.plan.plan", "Plan"),
    "append": ("epochal.writing.create", "append"),
    "convert": ("epochal.converting.convert", "convert"),
    "create": ("epochal.writing.create", "create"),
    "from_arrays": ("epochal.opening", "from_arrays"),
    "shuffle": ("epochal.converting.convert", "shuffle"),
    "verify": ("epochal.converting.verifying", "verify"),
    "open": ("epochal.opening", "open_dataset"),
}
_MODULES = ("datasets", "errors", "schemes", "sizes", "spaces")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _MODULES:
        return importlib.import_module(f"epochal.{name}")
    raise AttributeError(f"module 'epochal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
