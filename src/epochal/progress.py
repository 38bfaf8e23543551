"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["batch_bar", "no_bar"]


@contextmanager
def batch_bar(total: int, done: int, label: str) -> Iterator[Callable[[], None]]:
    """A bar of so many batches on standard error, with speed and time left; yields what advances it
    by one.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        yield lambda: progress.advance(task)


@contextmanager
def no_bar(total: int, done: int, label: str) -> Iterator[Callable[[], None]]:
    """What `batch_bar` is where none is wanted."""
    yield lambda: None
