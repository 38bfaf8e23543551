"""``epochal show FILE -o PICTURE``: rows as images, and what a pipeline makes of them."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from epochal.cli import options, pictures
from epochal.cli.output import print_json, say
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.opening import open_dataset
from epochal.transforms import registry
from epochal.view import SourceView

__all__ = ["command"]

KINDS = ("grid", "histogram", "filters", "spectrum")
DIRECTIONS = ("matrix_", "components_")
VARIANCES = ("eigenvalues_", "explained_variance_")


@click.command("show")
@options.file_argument
@click.option("-o", "--output", required=True, type=click.Path(), help="A .png, .pdf or .svg file.")
@click.option("--source", metavar="NAME", help="What is drawn [the source of most bytes].")
@click.option(
    "--rows", type=click.IntRange(min=1), default=64, show_default=True, help="How many rows."
)
@click.option("--seed", type=click.IntRange(min=0), help="Draw rows at random [evenly apart].")
@click.option("--shape", metavar="H,W[,C]", help="Of images that are stored as vectors.")
@click.option("--spec", type=click.Path(), help="A fitted pipeline: .npz, or a file of its rows.")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="grid",
    show_default=True,
    help="Images, how often numbers are, the directions of a ZCA or PCA, variances along them.",
)
@click.option("--overwrite", is_flag=True, help="Replace the picture.")
@options.untrusted
@options.as_json
def command(
    file: str,
    output: str,
    source: str | None,
    rows: int,
    seed: int | None,
    shape: str | None,
    spec: str | None,
    kind: str,
    overwrite: bool,
    untrusted: bool,
    as_json: bool,
) -> None:
    """Draw rows of FILE: images, before and after a pipeline, histograms, filters, spectra."""
    pictures.check_target(output, overwrite=overwrite)
    wanted = _shape(shape)
    pipeline = None if spec is None else registry.look_up("load")(spec)
    with open_dataset(file, untrusted=untrusted) as ds:
        name = ds.largest if source is None else source
        view = ds[name]
        if not isinstance(view, SourceView) or view.dtype.kind not in "biuf":
            raise MismatchError(f"{name!r} of {file}: its rows are no arrays of real numbers")
        if not len(view):
            raise MismatchError(f"{name!r} of {file} has no rows")
        found = _rows(ds, name, min(rows, len(view)), seed)
    figure = _drawn(kind, name, found, pipeline, wanted)
    pictures.write(figure, output)
    if as_json:
        print_json({"path": output, "kind": kind, "source": name, "rows": len(found)})
        return
    say(f"{output}: {kind} of {len(found):,} rows of {name}")


def _rows(ds: Dataset, name: str, n: int, seed: int | None) -> NDArray[Any]:
    if seed is None:
        found: NDArray[Any] = ds[name][np.arange(n) * len(ds) // n]
        return found
    batches = ds.batches("shuffled_sequential", n, seed=seed, sources=[name])
    rows: NDArray[Any] = next(iter(batches))[0]
    return rows


def _drawn(
    kind: str, name: str, rows: NDArray[Any], pipeline: Any, shape: tuple[int, ...] | None
) -> pictures.Picture:
    if kind == "grid":
        panels = {name: pictures.as_images(rows, shape)}
        if pipeline is not None:
            made = pipeline.transform(rows)
            same = made[0].size == rows[0].size
            panels["after"] = pictures.as_images(made, shape if same else None)
        return pictures.grids(panels)
    if kind == "histogram":
        return pictures.histograms(
            {name: rows} | ({} if pipeline is None else {"after": pipeline.transform(rows)})
        )
    if kind == "filters":
        stage, of = _last(pipeline, DIRECTIONS)
        directions = getattr(stage, of)
        if of == "matrix_":  # one of each number: seen all over the image
            directions = directions[np.arange(len(rows)) * len(directions) // len(rows)]
        directions = directions[: len(rows)]
        row_shape = tuple(stage.row_shape_) if len(stage.row_shape_) > 1 else None
        return pictures.filters(directions, shape or row_shape, type(stage).__name__)
    if pipeline is not None:
        stage, of = _last(pipeline, VARIANCES)
        return pictures.spectrum(getattr(stage, of), f"{type(stage).__name__}, {of[:-1]}")
    numbers = rows.reshape(len(rows), -1).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise MismatchError(
            f"{name!r}: rows with NaN or infinity have no spectrum: draw --kind histogram, or "
            "other rows (--seed)"
        )
    values = np.linalg.svd(numbers - numbers.mean(axis=0), compute_uv=False) ** 2 / len(rows)
    return pictures.spectrum(values, f"{name}, covariance of {len(rows)} rows")


def _last(pipeline: Any, names: tuple[str, ...]) -> tuple[Any, str]:
    """The last stage that has one of these attributes, and which."""
    stages = [] if pipeline is None else list(getattr(pipeline, "stages", [pipeline]))
    for stage in reversed(stages):
        for name in names:
            if hasattr(stage, name):
                return stage, name
    raise MismatchError(
        "filters are the directions of a ZCA or PCA: give a fitted one, or a pipeline with one, "
        "with --spec"
    )


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) not in (2, 3) or not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"{text!r}: give H,W or H,W,C, such as 32,32,3")
    return tuple(int(part) for part in parts)
