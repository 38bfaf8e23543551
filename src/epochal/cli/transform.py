"""``epochal transform SRC DST --spec PIPELINE``: transformed rows, written out."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from epochal.cli import writing
from epochal.converting.transforming import transform_file
from epochal.errors import MismatchError
from epochal.transforms import registry

__all__ = ["command"]

TEXT_BYTES = 4096  # of a file, that tell whether it is text


@click.command("transform")
@writing.target_arguments
@click.option(
    "--spec",
    required=True,
    type=click.Path(),
    help="The pipeline: YAML, or a fitted one that was saved (.npz, or a file of its rows).",
)
@click.option("--fit-on", metavar="FILE", type=click.Path(), help="What it learns from [SRC].")
@click.option("--source", metavar="NAME", help="What is transformed [the source of most bytes].")
@click.option("--save-fit", metavar="NPZ", type=click.Path(), help="Save the fitted pipeline, too.")
@click.option("--dask", metavar="ADDRESS", help="A Dask scheduler whose workers do the work.")
@writing.target_options
def command(
    src: str,
    dst: str,
    spec: str,
    fit_on: str | None,
    source: str | None,
    save_fit: str | None,
    dask: str | None,
    ragged: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Fit a pipeline of preprocessors, and write the rows of SRC through it to DST.

    DST appears whole, or not at all, with the fitted state in it. The pipeline is a list:

    \b
      - GlobalContrastNormalization: {sqrt_bias: 10, use_std: true}
      - ZCA: {filter_bias: 0.1}
    """  # noqa: D301
    if ragged is not None:
        raise MismatchError("--ragged: rows of varying length are not transformed")
    pipeline = _pipeline(spec, source)
    with ExitStack() as stack:
        client = None if dask is None else stack.enter_context(_client(dask))
        written = transform_file(
            src,
            dst,
            pipeline,
            fit_on=fit_on,
            source=source,
            save_fit=save_fit,
            client=client,
            **writing.form(**how),
        )
    writing.print_written(written, as_json=as_json)


def _pipeline(spec: str, source: str | None) -> Any:
    """What the file says, or what was saved in it."""
    if Path(spec).is_file():
        with open(spec, "rb") as file:
            head = file.read(TEXT_BYTES)
        if b"\0" not in head:
            return registry.look_up("from_spec")(spec)
    return registry.look_up("load")(spec, source)


def _client(address: str) -> Any:
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise MismatchError(
            "--dask needs Dask, which is not installed: pip install 'epochal[dask]'"
        ) from None
    try:
        return distributed.Client(address, timeout="5s")
    except (OSError, ValueError) as error:
        raise MismatchError(f"--dask {address}: no scheduler answers there: {error}") from None
