"""What commands have in common: the words they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from epochal import sizes

__all__ = [
    "SHARD",
    "SIZE",
    "as_json",
    "batch_size",
    "file_argument",
    "memory",
    "scratch",
    "source_names",
    "sources",
    "threads",
    "untrusted",
]

Command = TypeVar("Command", bound=Callable[..., Any])


class SizeType(click.ParamType):  # type: ignore[type-arg]  # generic in new clicks only
    """A size such as ``512MiB``, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse once, at the edge."""
        try:
            number = int(value) if str(value).isdigit() else value
            return sizes.parse(number, param.name or "size" if param else "size")
        except ValueError as error:
            self.fail(str(error), param, ctx)


class ShardType(click.ParamType):  # type: ignore[type-arg]
    """``R/W``: rank R (from 0) of W."""

    name = "rank/world"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse once, at the edge."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)/(\d+)", value)
        if not match or int(match[1]) >= int(match[2]):
            self.fail(
                f"{value!r} is not a rank of a world: give 0/4 to 3/4 for four ranks", param, ctx
            )
        return int(match[1]), int(match[2])


SIZE = SizeType()
SHARD = ShardType()


def source_names(text: str | None) -> tuple[str, ...] | None:
    """Names of ``X,y``; None for every source.

    >>> source_names("X, y"), source_names(None)
    (('X', 'y'), None)
    """
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def file_argument(command: Command) -> Command:
    """FILE: the store says what is wrong with it, so click does not look."""
    return click.argument("file", metavar="FILE", type=click.Path())(command)


def as_json(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")(
        command
    )


def untrusted(command: Command) -> Command:
    """``--untrusted``."""
    return click.option(
        "--untrusted",
        is_flag=True,
        help="Index the file in a child process: a crash inside libhdf5 is then an error.",
    )(command)


def sources(command: Command) -> Command:
    """``--sources``."""
    return click.option(
        "--sources", metavar="X,y", help="Names of the sources, with commas between [all]."
    )(command)


def memory(command: Command) -> Command:
    """``--memory``."""
    return click.option(
        "--memory",
        type=SIZE,
        help="The most that epochal may hold, such as 512MiB [a quarter of what is free].",
    )(command)


def batch_size(command: Command) -> Command:
    """``--batch-size``."""
    return click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="Rows of one batch.",
    )(command)


def scratch(command: Command) -> Command:
    """``--scratch``."""
    return click.option(
        "--scratch",
        type=click.Path(),
        help="Folder for scratch files [the system's temporary folder].",
    )(command)


def threads(command: Command) -> Command:
    """``--threads``."""
    return click.option(
        "--threads", type=click.IntRange(min=1), help="Threads that read and decode [one a core]."
    )(command)
