"""Folders of images, by Pillow."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from epochal.converting.inputs.source import BLOCK_BYTES, Block, InputSource, chosen
from epochal.errors import (
    BudgetError,
    EpochalError,
    FileMissingError,
    FormatError,
    MismatchError,
)
from epochal.execute.pool import Pool
from epochal.execute.probe import default_threads
from epochal.sizes import show
from epochal.stores.sniff import natural

__all__ = ["open_images"]

DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # more than 8 bits: kept as 16
DEEPEST = (1 << 16) - 1
CUT = "leave it out, or give mode= (--mode) to have its values cut to 8 bits"
PLAIN = {"L", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA"}


def open_images(
    src: Any,
    *,
    sources: Sequence[str] | None,
    memory_bytes: int,
    size: tuple[int, int] | None = None,
    mode: str | None = None,
) -> ImageFolder:
    """A folder of images, or of folders of them: then these are what `labels` name."""
    path = os.fspath(src)
    if not os.path.exists(path):
        raise FileMissingError(f"{path}: there is no such folder")
    if not os.path.isdir(path):
        raise FormatError(f"{path} is a file: of images a folder is read: give the one it is in")
    return ImageFolder(path, sources, memory_bytes, size, mode)


class ImageFolder:
    """``images``, ``(height, width, channels)`` of uint8 (uint16 where one has 16 bits), and
    ``labels``, int64, where images lie in folders of their own: numbers of ``label_names``.

    Images come in natural order of folders and names. They are decoded on all threads, some at a
    time. The first says what they are alike; `size` and `mode` make others fit. Without `mode`, one
    of which values would be lost is an error.
    """

    def __init__(
        self,
        path: str,
        sources: Sequence[str] | None,
        memory_bytes: int,
        size: tuple[int, int] | None,
        mode: str | None,
    ) -> None:
        self.name, self._size = path, _checked(size)
        if mode is not None and mode not in PLAIN:
            raise MismatchError(f"mode={mode!r} is not one of: {', '.join(sorted(PLAIN))}")
        folders = _folders(path)
        flat = _files(path)
        if flat and any(_files(os.path.join(path, folder)) for folder in folders):
            raise FormatError(
                f"{path}: images both in it ({flat[0]}) and in folders of it: whether folders are "
                "labels is not clear. Move either elsewhere"
            )
        self.attrs: dict[str, Any] = {}
        self._files: list[str] = [os.path.join(path, name) for name in flat]
        self._labels: NDArray[np.int64] | None = None
        if not flat:
            self._files, self._labels, names = _labelled(path, folders)
            self.attrs["label_names"] = names
        if not self._files:
            raise FormatError(f"{path}: no images in it, nor in its folders")
        self.rows: int | None = len(self._files)
        self._as_asked = mode is not None
        self._mode = mode or self._usual_mode(self._files[0])
        n_bytes = self._image_bytes(self._files[0])
        if 4 * n_bytes > memory_bytes:
            raise BudgetError(
                f"memory={show(memory_bytes)} cannot hold some images of {show(n_bytes)}: give "
                "more memory, or a smaller size="
            )
        self._shape, self._dtype = self._look(self._files[0])
        self._step = max(1, min(64, BLOCK_BYTES // max(n_bytes, 1)))
        known = {"images": InputSource("images", self._shape, self._dtype)}
        if self._labels is not None:
            known["labels"] = InputSource("labels", (), np.dtype("i8"))
        self.sources = {name: known[name] for name in chosen(path, known, sources)}

    def _usual_mode(self, file: str) -> str:
        with _opened(file) as image:
            if image.mode in PLAIN:
                return str(image.mode)
            if image.mode in DEEP:
                return "I;16"
            if image.mode == "F":
                raise FormatError(
                    f"{file} is of mode 'F': its pixels are floats, of which 8 or 16 bits would be "
                    f"left: {CUT}"
                )
            return "RGB" if image.mode in ("P", "PA") else "L"

    def _image_bytes(self, file: str) -> int:
        """Of one image as it will be, without decoding any."""
        with _opened(file) as image:
            height, width = self._size or image.size[::-1]
        each = 2 if self._mode == "I;16" else Image.getmodebands(self._mode)
        return int(height) * int(width) * each

    def _look(self, file: str) -> tuple[tuple[int, ...], np.dtype]:
        rows = self._decode(file)
        return rows.shape, rows.dtype

    def _decode(self, file: str) -> NDArray[Any]:
        try:
            with _opened(file) as image:
                if not self._as_asked:
                    self._check_kept(file, image)
                if self._mode == "I;16":
                    made = image if image.mode in DEEP else image.convert("I")
                else:
                    made = image if image.mode == self._mode else image.convert(self._mode)
                if self._size is not None:
                    made = made.resize(self._size[::-1], Image.Resampling.BILINEAR)
                pixels = np.asarray(made)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, EpochalError):
                raise
            raise FormatError(f"{file}: no image that can be read: {error}") from error
        rows = pixels.astype(np.uint16) if self._mode == "I;16" else pixels.astype(np.uint8)
        return rows[..., None] if rows.ndim == 2 else rows  # (height, width, channels)

    def _check_kept(self, file: str, image: Any) -> None:
        """Refuse an image whose values the mode of the first does not hold."""
        if image.mode == "F" or (image.mode in DEEP and self._mode != "I;16"):
            raise MismatchError(
                f"{file} is of mode {image.mode!r}, {self._files[0]} made the mode of all "
                f"{self._mode!r}, which does not hold its values: {CUT}"
            )
        if image.mode == "I":
            least, most = image.getextrema()
            if least < 0 or most > DEEPEST:
                raise MismatchError(
                    f"{file} is of mode 'I', with values from {least} to {most}; of all images "
                    f"{self._mode!r} is kept, 0 to {DEEPEST}: {CUT}"
                )

    def _row(self, file: str) -> NDArray[Any]:
        rows = self._decode(file)
        if rows.shape != self._shape:
            raise MismatchError(
                f"{file} is {rows.shape[0]}x{rows.shape[1]} pixels, {self._files[0]} is "
                f"{self._shape[0]}x{self._shape[1]}: give size=(height, width) (--size HxW) to "
                "scale all to one"
            )
        return rows

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """See `Input`."""
        with closing(Pool(default_threads())) as pool:
            flying: deque[tuple[int, list[Future[NDArray[Any]]]]] = deque()
            at = start
            while at < len(self._files) or flying:
                while at < len(self._files) and len(flying) < 2:
                    files = self._files[at : at + self._step]
                    flying.append((at, [pool.submit(self._row, file) for file in files]))
                    at += len(files)
                first, futures = flying.popleft()
                block: Block = {}
                images = [future.result() for future in futures]
                if "images" in self.sources:
                    block["images"] = np.stack(images)
                if "labels" in self.sources and self._labels is not None:
                    block["labels"] = self._labels[first : first + len(futures)]
                yield {name: block[name] for name in self.sources}

    def close(self) -> None:
        """Nothing stays open."""


def _checked(size: Any) -> tuple[int, int] | None:
    """A height and a width, or None."""
    if size is None:
        return None
    good = isinstance(size, tuple | list) and len(size) == 2
    if not good or not all(isinstance(n, int | np.integer) and n > 0 for n in size):
        raise MismatchError(f"size={size!r}: give (height, width), two whole numbers from 1")
    return int(size[0]), int(size[1])


def _labelled(path: str, folders: list[str]) -> tuple[list[str], NDArray[np.int64], list[str]]:
    """Files of all folders, the number of the folder of each, and what these are called."""
    files: list[str] = []
    labels: list[int] = []
    names: list[str] = []
    for folder in folders:
        inside = _files(os.path.join(path, folder))
        if inside:
            files += [os.path.join(path, folder, name) for name in inside]
            labels += [len(names)] * len(inside)
            names.append(folder)
    return files, np.array(labels, np.int64), names


class _opened:
    """An image; one that is a bomb is refused, what Pillow warns of besides is no matter."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __enter__(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                self._image = Image.open(self._file)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise FormatError(f"{self._file}: no image that can be read: {error}") from error
        except Image.DecompressionBombWarning as error:
            raise FormatError(f"{self._file}: far too large for an image: {error}") from error
        return self._image

    def __exit__(self, *exc: object) -> None:
        self._image.close()


def _folders(path: str) -> list[str]:
    names = [n for n in os.listdir(path) if not n.startswith(".")]
    return natural(n for n in names if os.path.isdir(os.path.join(path, n)))


def _files(path: str) -> list[str]:
    """Files that Pillow knows by their suffix."""
    known = Image.registered_extensions()
    names = [n for n in os.listdir(path) if not n.startswith(".")]
    mine = [
        n
        for n in names
        if os.path.splitext(n)[1].lower() in known and os.path.isfile(os.path.join(path, n))
    ]
    return natural(mine)
