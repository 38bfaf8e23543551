"""What commands have in common: how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

__all__ = ["bar", "print_json", "print_table", "rate", "say"]

PIPE_COLUMNS = 1000  # nobody looks at a pipe's width


def say(text: str = "") -> None:
    """Print a line as it is: no markup is read in it, for it may hold names from a file."""
    print(text)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, sort_keys=False, default=str))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()
) -> None:
    """Print a table; columns in `numbers` are set to the right. Only a terminal wraps its cells."""
    table = Table(box=None, pad_edge=False)
    for position, column in enumerate(columns):
        is_number = position in numbers
        table.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number or position == 0,
            header_style="bold",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_COLUMNS)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def rate(per_second: float) -> str:
    """Rows a second for people.

    >>> rate(1234567.8), rate(12.3)
    ('1,234,568', '12')
    """
    return f"{per_second:,.0f}"


def bar(*, quiet: bool = False) -> Progress:
    """A progress bar on standard error, shown only where that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
