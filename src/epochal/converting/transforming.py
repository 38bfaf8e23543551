"""A file of transformed rows: fit, then convert; a run that was killed goes on with both."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from epochal.converting.apart import check_apart, check_other
from epochal.converting.convert import Converted, check_memory, convert
from epochal.converting.job import identity
from epochal.dataset import Dataset
from epochal.errors import EpochalError, MismatchError, TargetExistsError
from epochal.opening import open_dataset
from epochal.transforms.kept import read_state, to_bytes, write_state
from epochal.transforms.loading import made_of
from epochal.writing.target import Target

__all__ = ["transform_file"]

# What a run that fits leaves beside its target while it runs.
CHECKPOINT, FITTED = ".{}.epochal-fit", ".{}.epochal-fitted"


def transform_file(
    src: Any,
    dst: str | os.PathLike[str],
    transform: Any,
    *,
    fit_on: Any = None,
    source: str | None = None,
    save_fit: str | os.PathLike[str] | None = None,
    client: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: bool = False,
    resume: bool = False,
    untrusted: bool = False,
    sources: Any = None,
    split: str | None = None,
    **how: Any,
) -> Converted:
    """Fit a transform, and write the rows of `src` through it to `dst`, with its fitted state.

    Parameters
    ----------
    src, dst
        As of `epochal.convert`.
    transform
        One of `epochal.transforms`; one that has learnt already is not fitted again.
    fit_on
        What it learns from; None: `src`.
    source
        Which source is transformed; None: the one with the most bytes.
    save_fit
        Where the fitted transform is saved by itself, before the first row is written. What is
        there is replaced with ``overwrite=True`` alone, and what is read or written never.
    resume
        Go on with what a killed run left of the fit, and of the file.
    client, memory, threads, progress, untrusted, sources, split, how
        See `epochal.convert`.

    Raises
    ------
    EpochalError
        What is wrong, before anything is written where that can be known, and before the fit.
    """
    overwrite = bool(how.get("overwrite"))
    check_apart(dst, src, fit_on)
    Target(dst, overwrite=overwrite).release()  # it says what is in the way
    if save_fit is not None:
        others = {"src, which is read": src, "fit_on, which is read": fit_on}
        check_other(save_fit, "save_fit", {**others, "dst, which is written": dst})
    reading: dict[str, Any] = {
        "memory": memory,
        "threads": threads,
        "client": client,
        "progress": progress,
    }
    with ExitStack() as stack:
        opening: dict[str, Any] = {"sources": sources, "untrusted": untrusted}
        ds: Dataset = stack.enter_context(open_dataset(src, split=split, **opening))
        name = ds.largest if source is None else source
        ds[name]  # which says what is wrong with it
        beside = _Beside(dst, transform, fit_on if fit_on is not None else src, name)
        if save_fit is not None:
            left = beside.saved(save_fit, transform) if resume else False
            _check_free(save_fit, overwrite=overwrite or left)
        if not resume:
            beside.remove()
        if not transform.is_fitted():
            if client is None and how.get("ragged") is None:
                check_memory(ds, memory=memory, threads=threads)
            data = ds
            if fit_on is not None:
                opened = open_dataset(fit_on, sources=[name], untrusted=untrusted)
                data = stack.enter_context(opened)
            transform = _fitted(transform, data, name, beside, reading)
        elif fit_on is not None:
            raise MismatchError(
                f"fit_on={fit_on!r}: {transform!r} has learnt already, and is not fitted again"
            )
        if save_fit is not None:
            transform.save(save_fit)
        written = convert(ds.transform(transform, name), dst, resume=resume, **reading, **how)
    beside.remove()
    return written


def _check_free(save_fit: str | os.PathLike[str], *, overwrite: bool) -> None:
    """That a file may be written there."""
    if os.path.isdir(save_fit):
        raise TargetExistsError(f"save_fit={os.fspath(save_fit)} is a folder: give another name")
    Target(save_fit, overwrite=overwrite).release()


def _fitted(
    transform: Any, data: Dataset, source: str, beside: _Beside, reading: Mapping[str, Any]
) -> Any:
    """The transform, fitted: by a run before, if that came so far."""
    found = beside.fitted()
    if found is not None:
        return found
    transform.fit(data, source=source, checkpoint=beside.checkpoint, **reading)
    beside.keep(transform)
    return transform


class _Beside:
    """What was fitted, kept beside the target until that is whole."""

    def __init__(self, dst: Any, transform: Any, fit_on: Any, source: str) -> None:
        folder, name = os.path.split(os.path.abspath(os.fspath(dst)))
        self.checkpoint = os.path.join(folder, CHECKPOINT.format(name))
        self._fitted = os.path.join(folder, FITTED.format(name))
        self._job = json.dumps([repr(transform), identity(fit_on), source])

    def fitted(self) -> Any:
        """What a run before fitted; None where it did not come so far, or fitted something else."""
        if not os.path.exists(self._fitted):
            return None
        try:
            state: Mapping[str, Any] = read_state(self._fitted)
            return made_of(state["transform"], self._fitted) if state["job"] == self._job else None
        except (EpochalError, KeyError, TypeError):
            return None

    def saved(self, path: str | os.PathLike[str], transform: Any) -> bool:
        """Whether what is at a path is what a run before fitted, or was given."""
        found = transform if transform.is_fitted() else self.fitted()
        if found is None or not os.path.isfile(path):
            return False
        return Path(path).read_bytes() == to_bytes(found.state())

    def keep(self, transform: Any) -> None:
        """Keep what was fitted."""
        write_state(self._fitted, {"job": self._job, "transform": transform.state()})

    def remove(self) -> None:
        """Remove it."""
        for path in (self.checkpoint, self._fitted):
            Path(path).unlink(missing_ok=True)
