"""Preprocessors that learn in one pass over data of any size, in bounded memory.

scikit-learn estimators: `fit` takes an array, a view of a source, a dataset, or batches;
`partial_fit` one block; `merge` what another process learnt of other rows. The formulas are those
of the published methods, named in each docstring.
"""

from __future__ import annotations

from typing import Any

from epochal.transforms.registry import BESIDE, WHERE, look_up

__all__ = sorted([*WHERE, *BESIDE])


def __getattr__(name: str) -> Any:
    if name in __all__:
        return look_up(name)
    raise AttributeError(f"module 'epochal.transforms' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
