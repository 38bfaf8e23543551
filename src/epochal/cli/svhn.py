"""``epochal svhn --path FOLDER``: the files of the Street View House Numbers."""

from __future__ import annotations

import os

import click

from epochal.cli import options
from epochal.cli.output import print_json, say
from epochal.datasets.svhn_files import URL, download
from epochal.datasets.svhn_making import SETS, file_of, make

__all__ = ["command"]


@click.command("svhn")
@click.option("--path", required=True, help="Folder of train_32x32.mat and its like.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    type=click.Choice(tuple(SETS)),
    help="Which set, may be given several times.  [default: all]",
)
@click.option("--download", "fetch", is_flag=True, help="Fetch originals that are not there.")
@click.option("--url", default=URL, show_default=True, help="Where originals are fetched from.")
@click.option("--overwrite", is_flag=True, help="Make files anew that are there.")
@options.as_json
def command(
    path: str, sets: tuple[str, ...], fetch: bool, url: str, overwrite: bool, as_json: bool
) -> None:
    """Make the files that epochal.datasets.SVHN reads, from the originals in a folder.

    Each is PATH/h5/SET_32x32.h5, in PyTables' format, in a shuffled order that never changes; one
    that is there is left as it is.
    """
    wanted = sets or tuple(SETS)
    if fetch:
        download(path, sorted({name for each in wanted for name in SETS[each]}), url)
    made = {}
    for each in wanted:
        there = os.path.isfile(file_of(each, path)) and not overwrite
        made[each] = {"path": file_of(each, path), "made": not there}
        if not there:
            make(each, path, progress=True)
        if not as_json:
            say(f"{made[each]['path']}: {'was there' if there else 'made'}")
    if as_json:
        print_json(made)
