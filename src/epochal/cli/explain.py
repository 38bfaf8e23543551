"""``epochal explain FILE``: what an epoch would cost, before it is run."""

from __future__ import annotations

import click

import epochal
from epochal.cli import options
from epochal.cli.output import print_json, say
from epochal.schemes import NAMES

__all__ = ["command"]


@click.command("explain")
@options.file_argument
@click.option(
    "--scheme",
    type=click.Choice(NAMES),
    default="shuffled_sequential",
    show_default=True,
    metavar="NAME",
    help="The order of rows, one of: " + ", ".join(NAMES) + ".",
)
@options.sources
@options.batch_size
@options.memory
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the order."
)
@click.option(
    "--shard", type=options.SHARD, default="0/1", metavar="R/W", help="Rank R (from 0) of W."
)
@options.scratch
@options.threads
@options.untrusted
@options.as_json
def command(
    file: str,
    scheme: str,
    sources: str | None,
    batch_size: int,
    memory: int | None,
    seed: int,
    shard: tuple[int, int],
    scratch: str | None,
    threads: int | None,
    untrusted: bool,
    as_json: bool,
) -> None:
    """Say which strategy an epoch over FILE would take, and what it reads, decodes, holds, spills
    and lasts.
    """
    with epochal.open(file, sources=options.source_names(sources), untrusted=untrusted) as ds:
        plan = ds.explain(
            scheme,
            batch_size=batch_size,
            seed=seed,
            memory=memory,
            shard=shard,
            scratch=scratch,
            threads=threads,
        )
    if as_json:
        print_json(plan.as_dict())
    else:
        say(str(plan))
