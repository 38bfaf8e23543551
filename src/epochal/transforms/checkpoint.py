"""What a fit keeps of itself, so that a run after a kill goes on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epochal.errors import MismatchError
from epochal.transforms.kept import State, read_state, write_state
from epochal.transforms.reading import RowsToRead
from epochal.transforms.statistics import Statistics, state_of, statistics_of

__all__ = ["Checkpoint"]


class Checkpoint:
    """A file with the stages so far, and how far the pass under way is.

    Parameters
    ----------
    path
        Where; None keeps nothing.
    stages, rows
        Whose it is: another fit's is refused.

    Raises
    ------
    MismatchError
        What is there is of another fit.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, stages: Sequence[Any], rows: RowsToRead
    ) -> None:
        self._path, self._stages = path, stages
        self.k = self.passes = 0
        self.begun = False
        self._under_way: State | None = None
        self._job = ""
        if path is None:
            return  # what the rows are costs something to say
        self._job = json.dumps(
            {
                "stages": [repr(each) for each in stages],
                "rows": rows.n_rows,
                "row_shape": list(rows.row_shape),
                "dtype": str(rows.dtype),
                "of": rows.identity(),
            }
        )
        if os.path.exists(path):
            self._restore(read_state(path))

    @property
    def wanted(self) -> bool:
        """Whether anything is kept."""
        return self._path is not None

    def _restore(self, state: State) -> None:
        if state.get("job") != self._job:
            raise MismatchError(
                f"{os.fspath(self._path or '')} is a checkpoint of another fit: of "
                f"{state.get('job')}, and this is one of {self._job}. Remove it, or give another "
                "name"
            )
        for stage, each in zip(self._stages, state["stages"], strict=True):
            stage.set_state(each)
        self.k, self.passes, self.begun = state["k"], state["passes"], state["begun"]
        self._under_way = state["under_way"]

    def resumed(self, empty: Statistics, n_rows: int) -> tuple[int, Statistics]:
        """The row where the pass goes on, and what was collected before it: nothing, where what was
        kept is of a pass that collects something else.
        """
        state, self._under_way = self._under_way, None
        if state is None or state["n_rows"] != n_rows:
            return 0, empty
        found = statistics_of(state["statistics"])
        if type(found) is not type(empty) or found.n_columns != empty.n_columns:
            return 0, empty
        return state["first"], found

    def save(self, first: int, n_rows: int, statistics: Statistics) -> None:
        """Keep what was collected of the rows before `first`, in blocks of `n_rows`."""
        self._write({"first": first, "n_rows": n_rows, "statistics": state_of(statistics)})

    def next_pass(self, k: int, passes: int, *, begun: bool) -> None:
        """Note that a pass is done, and which stage learns next."""
        self.k, self.passes, self.begun = k, passes, begun
        if self.wanted:
            self._write(None)

    def _write(self, under_way: State | None) -> None:
        assert self._path is not None
        state = {
            "job": self._job,
            "stages": [stage.state(statistics=True) for stage in self._stages],
            "k": self.k,
            "passes": self.passes,
            "begun": self.begun,
            "under_way": under_way,
        }
        write_state(self._path, state)

    def done(self) -> None:
        """Remove it."""
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)
