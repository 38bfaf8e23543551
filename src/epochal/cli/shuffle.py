"""``epochal shuffle SRC DST``: the rows in exactly shuffled order, written out."""

from __future__ import annotations

from typing import Any

import click

import epochal
from epochal.cli import options, writing

__all__ = ["command"]


@click.command("shuffle")
@writing.target_arguments
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the order."
)
@writing.target_options
@options.scratch
def command(src: str, dst: str, seed: int, scratch: str | None, as_json: bool, **how: Any) -> None:
    """Write the rows of SRC to DST in the order of shuffled_sequential: an exactly uniform
    permutation, in bounded memory.
    """
    written = epochal.shuffle(src, dst, seed, scratch=scratch, **writing.form(**how))
    writing.print_written(written, as_json=as_json)
