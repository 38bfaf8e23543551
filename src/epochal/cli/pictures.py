"""Pictures of rows, by matplotlib: files, never windows."""

from __future__ import annotations

import os
from importlib import import_module
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError, TargetExistsError
from epochal.writing.disk import writing_to

__all__ = ["FORMATS", "as_images", "filters", "grids", "histograms", "spectrum", "write"]

FORMATS = (".png", ".pdf", ".svg")
INCH = 1.1  # of an image
BINS = 100
LOW, HIGH = 0.5, 99.5  # percentiles that are black and white
Picture = Any


def _figure(width: float, height: float) -> Any:
    try:
        figures = import_module("matplotlib.figure")
    except ImportError:
        raise MismatchError(
            "pictures are drawn by matplotlib, which is not installed: pip install 'epochal[plot]'"
        ) from None
    return figures.Figure(figsize=(width, height), layout="constrained")


def as_images(rows: NDArray[Any], shape: tuple[int, ...] | None) -> NDArray[Any]:
    """Rows as images, ``(n, height, width)`` or ``(n, height, width, channels)``.

    Raises
    ------
    MismatchError
        They are none, or not of that shape.
    """
    if shape is not None:
        if int(np.prod(shape)) != int(np.prod(rows.shape[1:])):
            raise MismatchError(
                f"--shape {','.join(map(str, shape))} has {int(np.prod(shape))} numbers, rows of "
                f"shape {rows.shape[1:]} have {int(np.prod(rows.shape[1:]))}"
            )
        rows = rows.reshape(len(rows), *shape)
    if rows.ndim == 4 and rows.shape[-1] not in (1, 3, 4) and rows.shape[1] in (1, 3, 4):
        rows = rows.transpose(0, 2, 3, 1)
    if rows.ndim == 4 and rows.shape[-1] == 1:
        rows = rows[..., 0]
    if rows.ndim == 3 or (rows.ndim == 4 and rows.shape[-1] in (3, 4)):
        return rows
    raise MismatchError(
        f"rows of shape {rows.shape[1:]} are no images: say what they are with --shape H,W or "
        "--shape H,W,C, or draw --kind histogram"
    )


def scaled(images: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers from black, 0, to white, 1: bytes as they are, others by percentiles of them all."""
    if images.dtype == np.uint8:
        return images / 255.0
    numbers = images.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = np.percentile(finite, (LOW, HIGH)) if finite.size else (0.0, 1.0)
    made = (numbers - low) / (high - low) if high > low else np.full(numbers.shape, 0.5)
    clipped: NDArray[np.float64] = np.clip(np.nan_to_num(made, nan=0.5, posinf=1, neginf=0), 0, 1)
    return clipped


def tiled(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images in a square of them, one pixel apart."""
    n, height, width = images.shape[:3]
    columns = ceil(sqrt(n))
    lines = ceil(n / columns)
    sheet = np.ones((lines * (height + 1) - 1, columns * (width + 1) - 1, *images.shape[3:]))
    for k, image in enumerate(images):
        line, column = divmod(k, columns)
        top, left = line * (height + 1), column * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def grids(panels: dict[str, NDArray[Any]]) -> Picture:
    """Images side by side, a panel each."""
    columns = max(ceil(sqrt(len(images))) for images in panels.values())
    figure = _figure(max(3.0, INCH * columns * len(panels)), max(3.0, INCH * columns) + 0.4)
    for k, (title, images) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), k + 1)
        axes.imshow(tiled(scaled(images)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def filters(rows: NDArray[Any], shape: tuple[int, ...] | None, title: str) -> Picture:
    """Directions as images, each scaled by itself."""
    images = as_images(rows, shape)
    each = np.abs(images).reshape(len(images), -1).max(axis=1)
    each[each == 0] = 1
    halves = 0.5 + images / each.reshape(-1, *[1] * (images.ndim - 1)) / 2
    return grids({title: (halves * 255).round().astype(np.uint8)})


def histograms(panels: dict[str, NDArray[Any]]) -> Picture:
    """How often numbers are, a panel each."""
    figure = _figure(5.0 * len(panels), 4.0)
    for k, (title, rows) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), k + 1)
        numbers = rows.reshape(-1).astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        axes.hist(finite, bins=BINS)
        axes.set_title(title)
        axes.set_xlabel("number")
        axes.set_ylabel("how many")
    return figure


def spectrum(values: NDArray[Any], title: str) -> Picture:
    """Variances along their directions, the largest first."""
    figure = _figure(6.0, 4.0)
    axes = figure.add_subplot(1, 1, 1)
    axes.semilogy(np.arange(1, len(values) + 1), np.maximum(values, np.finfo(float).tiny))
    axes.set_title(title)
    axes.set_xlabel("direction")
    axes.set_ylabel("variance")
    return figure


def check_target(path: str, *, overwrite: bool) -> None:
    """Refuse what cannot be written, before anything is read."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise MismatchError(f"{path}: a picture is one of {', '.join(FORMATS)}, by its name")
    if os.path.lexists(path) and not overwrite:
        raise TargetExistsError(f"{path} is there already: give --overwrite to replace it")


def write(figure: Picture, path: str) -> None:
    """Put a picture at a path, in one step."""
    suffix = Path(path).suffix.lower()
    passing = f"{path}.{os.getpid()}{suffix}"
    with writing_to(path):
        try:
            figure.savefig(passing, format=suffix[1:], dpi=100)
            os.replace(passing, path)
        finally:
            Path(passing).unlink(missing_ok=True)
