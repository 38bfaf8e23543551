"""``epochal convert SRC DST``: a file in another form."""

from __future__ import annotations

from typing import Any

import click

import epochal
from epochal.cli import writing

__all__ = ["command"]


@click.command("convert")
@writing.target_arguments
@writing.target_options
@click.option("--format", help="What SRC is, where it does not show: csv, parquet, images, ...")
@click.option(
    "--stack",
    metavar="NAME=a,b",
    multiple=True,
    help="Join columns of a table to one source: X=a,b, or X=* for all other numbers.",
)
@click.option("--size", metavar="HxW", help="Scale images to this height and width.")
@click.option("--mode", help="Of images, as Pillow names it: RGB, L, ...")
@click.option("--no-header", is_flag=True, help="The first line of a CSV file is a row.")
@click.option("--axis", type=int, help="Of MATLAB's arrays: the axis of rows; -1 is the last [0].")
def command(
    src: str,
    dst: str,
    as_json: bool,
    format: str | None,
    stack: tuple[str, ...],
    size: str | None,
    mode: str | None,
    no_header: bool,
    axis: int | None,
    **how: Any,
) -> None:
    """Write the rows of SRC to DST in another form: compressed otherwise, in other chunks, or in
    another format.

    SRC is whatever `epochal info` reads, or a CSV, Parquet, Arrow or MATLAB file, or a folder of
    images. DST appears whole, or not at all.
    """
    reading: dict[str, Any] = {
        "format": format,
        "mode": mode,
        "stack": _stacks(stack) or None,
        "size": _size(size),
    }
    if no_header:
        reading["header"] = False
    if axis is not None:
        reading["axis"] = axis
    given = writing.form(**how) | {
        name: value for name, value in reading.items() if value is not None
    }
    writing.print_written(epochal.convert(src, dst, **given), as_json=as_json)


def _stacks(texts: tuple[str, ...]) -> dict[str, Any]:
    stacks: dict[str, Any] = {}
    for text in texts:
        name, equals, columns = text.partition("=")
        if not equals or not name or not columns:
            raise click.BadParameter(f"{text!r}: give NAME=a,b", param_hint="--stack")
        stacks[name] = "*" if columns == "*" else [each.strip() for each in columns.split(",")]
    return stacks


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise click.BadParameter(f"{text!r}: give HEIGHTxWIDTH, such as 64x64", param_hint="--size")
    return int(height), int(width)
