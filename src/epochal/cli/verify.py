"""``epochal verify FILE``: is every chunk what it was when it was written?"""

from __future__ import annotations

import click

import epochal
from epochal.cli import options
from epochal.cli.output import print_json, say
from epochal.converting.verifying import as_json as told

__all__ = ["command"]


@click.command("verify")
@options.file_argument
@click.option(
    "--record", is_flag=True, help="Note checksums of what is there now, in a file beside FILE."
)
@options.sources
@options.memory
@options.threads
@options.untrusted
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    file: str,
    record: bool,
    sources: str | None,
    memory: int | None,
    threads: int | None,
    untrusted: bool,
    as_json: bool,
) -> None:
    """Decode every chunk of FILE, hold it against its checksum, and say which rows are bad.

    The exit status is 1 where something is.
    """
    found = epochal.verify(
        file,
        record=record,
        sources=options.source_names(sources),
        memory=memory,
        threads=threads,
        untrusted=untrusted,
        progress=True,
    )
    if as_json:
        print_json(told(found))
    else:
        say(str(found))
        if record:
            noted = f"checksums are noted in {found.recorded}.epochal-sums"
            say(noted if found.recorded else "nothing was noted, since some of it does not decode")
    if not found.ok:
        ctx.exit(1)
