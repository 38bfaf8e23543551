"""The demo's file: colour images composed from the real handwritten digits that scikit-learn ships.

Each image is one handwritten 8x8 digit, scaled, placed and coloured on a noisy colour gradient. The
1,797 writers' digits are parted first, so that no digit of the training images is in a held-out
one. Images are sorted by class, as archives are that were filled folder by folder, and compressed
as h5py does it when asked for gzip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from epochal.errors import EpochalError

__all__ = ["HELD_OUT", "TRAIN", "compose", "digits_file"]

TRAIN, HELD_OUT = ("X", "y"), ("heldout/X", "heldout/y")
RECIPE = "digits 1"  # changes with whatever below changes the images
SIDE = 32
CLASSES = 10
CHUNK_ROWS = 100
BLOCK_ROWS = 500
GREY_STEP = 8  # the noise of a cheap camera, kept at five bits a colour

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Progress = Callable[[int], None]


def digits_file(folder: Path, n_rows: int, n_held_out: int, progress: Progress) -> Path:
    """The file in `folder`, written if it is not there whole; `progress` is told of rows written.

    It appears under its name when it is whole, and not before. Holds one block of images at a time.
    """
    path = folder / f"digits-{n_rows}.h5"
    if _is_whole(path, n_rows):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(passing, n_rows, n_held_out, progress)
        _settle(passing, path)
    finally:
        passing.unlink(missing_ok=True)
    return path


def compose(digits: Floats, rng: np.random.Generator) -> Images:
    """One image ``(32, 32, 3)`` for each digit ``(8, 8)`` of ink from 0 to 1."""
    n = len(digits)
    ink = _place(digits, rng)[..., None]  # (n, height, width, 1)
    grid = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi, (n, 1, 1)).astype(np.float32)
    slope = np.cos(angle) * grid[None, :, None] + np.sin(angle) * grid[None, None, :]
    first, second = rng.uniform(0, 0.6, (2, n, 1, 1, 3)).astype(np.float32)
    ground = first + (second - first) * (0.7 * slope[..., None] + 0.5)
    colour = rng.uniform(0.6, 1.0, (n, 1, 1, 3)).astype(np.float32)
    images = 255 * (ground + (colour - ground) * ink)
    images += rng.integers(-6, 7, images.shape, dtype=np.int8)
    pixels: Images = np.clip(images, 0, 255).astype(np.uint8)
    return pixels - pixels % GREY_STEP


def _place(digits: Floats, rng: np.random.Generator) -> Floats:
    """Digits scaled by 2.4 to 3.6, bilinearly, and put where they fit, ``(n, 32, 32)``."""
    n, size = len(digits), digits.shape[1]
    scale: Floats = rng.uniform(2.4, 3.6, n).astype(np.float32)
    room = SIDE - size * scale
    framed = np.pad(digits, ((0, 0), (1, 1), (1, 1)))  # so that ink fades out beyond the digit
    down, across = (_resample(rng.random(n, np.float32) * room, scale, size) for _ in range(2))
    placed: Floats = (down @ framed @ across.transpose(0, 2, 1)).astype(np.float32)
    return placed


def _resample(offset: Floats, scale: Floats, size: int) -> Floats:
    """Bilinear weights of a framed digit's pixels for an axis, ``(n, 32, size + 2)``."""
    pixel = np.arange(SIDE, dtype=np.float32) + 0.5
    at = np.clip((pixel - offset[:, None]) / scale[:, None] + 0.5, 0, size + 1)  # (n, 32)
    distance = np.abs(at[..., None] - np.arange(size + 2, dtype=np.float32))
    weights: Floats = np.maximum(0, 1 - distance).astype(np.float32)
    return weights


def _source_digits() -> tuple[Floats, NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise EpochalError(
            "epochal demo needs scikit-learn, for its digits: pip install 'epochal[demo]'"
        ) from error
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def _write(path: Path, n_rows: int, n_held_out: int, progress: Progress) -> None:
    images, labels = _source_digits()
    rng = np.random.default_rng(0)
    held_out = np.zeros(len(labels), bool)
    held_out[rng.permutation(len(labels))[: len(labels) // 5]] = True
    with h5py.File(path, "w") as file:
        for names, part, n in ((TRAIN, ~held_out, n_rows), (HELD_OUT, held_out, n_held_out)):
            blocks = _blocks(images[part], labels[part], n, rng)
            _write_part(file, names, n, blocks, progress)
        file.attrs["recipe"] = RECIPE


def _blocks(
    images: Floats, labels: NDArray[np.int64], n_rows: int, rng: np.random.Generator
) -> Iterator[tuple[Images, int]]:
    """Blocks of images of one class each, class after class."""
    for label in range(CLASSES):
        of_class = images[labels == label]
        n_class = (label + 1) * n_rows // CLASSES - label * n_rows // CLASSES
        for start in range(0, n_class, BLOCK_ROWS):
            n = min(BLOCK_ROWS, n_class - start)
            yield compose(of_class[rng.integers(0, len(of_class), n)], rng), label


def _write_part(
    file: h5py.File,
    names: tuple[str, str],
    n_rows: int,
    blocks: Iterator[tuple[Images, int]],
    progress: Progress,
) -> None:
    gzip: dict[str, Any] = {"compression": "gzip", "compression_opts": 4}
    row = (SIDE, SIDE, 3)
    chunk_rows = min(CHUNK_ROWS, n_rows)
    X = file.create_dataset(names[0], (n_rows, *row), "u1", chunks=(chunk_rows, *row), **gzip)
    y = file.create_dataset(names[1], (n_rows,), "i8", chunks=(min(n_rows, 8192),), **gzip)
    start = 0
    for images, label in blocks:
        X[start : start + len(images)] = images
        y[start : start + len(images)] = label
        start += len(images)
        progress(len(images))


def _is_whole(path: Path, n_rows: int) -> bool:
    try:
        with h5py.File(path) as file:
            return file.attrs.get("recipe") == RECIPE and len(file[TRAIN[0]]) == n_rows
    except (OSError, KeyError):
        return False


def _settle(passing: Path, path: Path) -> None:
    """Give a whole file its name, such that a crash leaves the old state or the new."""
    _sync(passing)
    passing.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
