"""Progress bars, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["batch_bar", "no_bar", "row_bar"]


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


@contextmanager
def row_bar(
    total: int | None, done: int, label: str, show: bool
) -> Iterator[Callable[[int], None]]:
    """A bar of rows on standard error, with rows a second and time left; yields what moves it."""
    if not show or not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} rows/s")

    of = "{task.completed:,.0f}" + ("" if total is None else " of {task.total:,.0f}") + " rows"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(of),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        yield lambda rows: progress.advance(task, rows)
