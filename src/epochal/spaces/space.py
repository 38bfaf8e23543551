"""What every space answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError

__all__ = ["FLOAT", "Space", "cast", "check_range", "dtype_of", "one_hot"]

FLOAT = "float32"  # what ``floatX`` of Pylearn2 stands for here


class Space(ABC):
    """A set of batches of one shape. Spaces are values: equal where they describe the same."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._key() == self._key()

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def _key(self) -> tuple[Any, ...]:
        # With types, since to NumPy ``np.dtype("float64") == None`` is true.
        return tuple((name, type(value), value) for name, value in vars(self).items())

    @abstractmethod
    def get_total_dimension(self) -> int:
        """Numbers in one example (of a sequence, in one item of it)."""

    @abstractmethod
    def np_validate(self, batch: Any) -> None:
        """Refuse what is no batch of this space.

        Raises
        ------
        MismatchError
            Names the space, and the shape and dtype that were found.
        """

    @abstractmethod
    def np_batch_size(self, batch: Any) -> int:
        """Examples in a batch."""

    @abstractmethod
    def _formatted(self, batch: Any, space: Space) -> Any:
        """A valid batch as one of another kind of space, or of another shape of this kind."""

    @abstractmethod
    def get_origin_batch(self, batch_size: int) -> Any:
        """A batch of zeros."""

    def np_format_as(self, batch: Any, space: Space) -> Any:
        """A batch of this space as one of `space`; a view of it where that is possible.

        Raises
        ------
        MismatchError
            The batch is none of this space, or `space` holds other examples: sizes are named.
        """
        self.np_validate(batch)
        return self._formatted(batch, space)

    def _cannot(self, space: Space, why: str = "") -> MismatchError:
        return MismatchError(f"{self} cannot be formatted as {space}{': ' + why if why else ''}")

    def _is_not(self, batch: Any, due: str) -> MismatchError:
        if isinstance(batch, tuple | list):
            found = f"a {type(batch).__name__} of {len(batch)}"
        elif hasattr(batch, "shape") and hasattr(batch, "dtype"):
            found = f"{type(batch).__name__} of shape {tuple(batch.shape)}, {batch.dtype}"
        else:
            found = type(batch).__name__
        return MismatchError(f"a batch of {self} is {due}; found {found}")


def dtype_of(given: Any) -> np.dtype | None:
    """The dtype that an argument names; None leaves that of batches as it is.

    >>> dtype_of("floatX")
    dtype('float32')
    """
    if given is None:
        return None
    try:
        dtype = np.dtype(FLOAT if given == "floatX" else given)
    except (TypeError, ValueError, SyntaxError) as error:  # as of "f4,,"
        raise MismatchError(f"dtype={given!r}: {error}") from None
    if dtype.kind not in "biufc":
        raise MismatchError(f"dtype={given!r}: a space holds numbers")
    return dtype


def cast(batch: Any, dtype: np.dtype | None) -> Any:
    """The batch in another dtype; itself where it has it.

    Raises
    ------
    MismatchError
        Fractions would become whole numbers, or complex ones real.
    """
    if dtype is None or batch.dtype == dtype:
        return batch
    if not np.can_cast(batch.dtype, dtype, "same_kind") and not (
        batch.dtype.kind in "iu" and dtype.kind in "iu"
    ):
        raise MismatchError(f"a batch of {batch.dtype} cannot become {dtype} without loss")
    return batch.astype(dtype)


def check_range(labels: NDArray[Any], n: int, of: str) -> None:
    """Refuse labels outside ``[0, n)``; `of` says whose they are."""
    if labels.size and (labels.min() < 0 or labels.max() >= n):
        found = labels.min() if labels.min() < 0 else labels.max()
        raise MismatchError(f"label {found} is outside [0, {n}): {of}")


def one_hot(labels: NDArray[Any], max_labels: int, dtype: np.dtype) -> NDArray[Any]:
    """Labels as rows with a one where they point, ``(*labels.shape, max_labels)``.

    Raises
    ------
    MismatchError
        A label is outside ``[0, max_labels)``.

    >>> one_hot(np.array([2, 0]), 3, np.dtype("u1")).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    check_range(labels, max_labels, f"max_labels={max_labels}")
    out = np.zeros((*labels.shape, max_labels), dtype)
    np.put_along_axis(out, labels[..., None].astype(np.intp), 1, axis=-1)
    return out
