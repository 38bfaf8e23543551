"""What the commands that write a file have in common: how it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from epochal.cli import options
from epochal.cli.output import print_json, say
from epochal.converting.convert import Converted
from epochal.writing.create import FLAVOURS
from epochal.writing.spec import COMPRESSIONS

__all__ = ["form", "print_written", "target_arguments", "target_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def target_arguments(command: Command) -> Command:
    """SRC and DST."""
    command = click.argument("dst", metavar="DST", type=click.Path())(command)
    return click.argument("src", metavar="SRC", type=click.Path())(command)


def target_options(command: Command) -> Command:
    """What `convert` and `shuffle` take alike."""
    for option in reversed(
        (
            options.sources,
            click.option("--split", metavar="NAME", help="A part of the rows that SRC names."),
            click.option(
                "--flavour",
                type=click.Choice(FLAVOURS),
                help="What is written [by DST's name: .zarr, .npy, else hdf5].",
            ),
            click.option(
                "--compression",
                type=click.Choice((*COMPRESSIONS, "none")),
                help="Of chunks [gzip; npy: none].",
            ),
            click.option("--level", type=click.IntRange(min=0), help="Of the compression."),
            click.option(
                "--chunk-rows",
                type=click.IntRange(min=1),
                help="Rows that are stored together [about 1 MiB of them].",
            ),
            click.option(
                "--no-checksum", is_flag=True, help="Keep no checksums of the chunks in DST."
            ),
            click.option(
                "--overwrite", is_flag=True, help="Replace DST, in one step once it is whole."
            ),
            click.option(
                "--resume", is_flag=True, help="Go on where a run that was killed stopped."
            ),
            click.option(
                "--ragged",
                type=click.Choice(("dense", "padded")),
                help="How rows of varying length are written: sparse ones dense, others padded.",
            ),
            options.memory,
            options.threads,
            options.untrusted,
            options.as_json,
        )
    ):
        command = option(command)
    return command


def form(
    *,
    sources: str | None,
    compression: str | None,
    no_checksum: bool,
    **same: Any,
) -> dict[str, Any]:
    """The arguments of `epochal.convert` and `epochal.shuffle` that the options stand for."""
    arguments = {
        "sources": options.source_names(sources),
        "checksum": not no_checksum,
        "progress": True,
        **same,
    }
    if compression is not None:
        arguments["compression"] = None if compression == "none" else compression
    return arguments


def print_written(written: Converted, *, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        print_json({"path": written.path, "rows": written.rows, "resumed_at": written.resumed_at})
        return
    went_on = f", from row {written.resumed_at:,} on" if written.resumed_at else ""
    say(f"{written.path}: {written.rows:,} rows{went_on}")
