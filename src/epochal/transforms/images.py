"""Transforms of images: each by itself, with nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from epochal.errors import MismatchError
from epochal.transforms.arguments import check_fits, whole_numbers
from epochal.transforms.transform import Transform

__all__ = [
    "RGB_YUV",
    "YUV_RGB",
    "CentralWindow",
    "Downsample",
    "Images",
    "Windows",
]

Numbers = NDArray[np.float64]
Shape = tuple[int, ...]
BLOCK_ITEMS = 1 << 15  # numbers that are transformed at once: 256 KiB of float64
LAYOUTS = {
    1: "(length,) or (length, channels)",
    2: "(height, width) or (height, width, channels)",
    3: "(depth, height, width) or (depth, height, width, channels)",
}
# ITU-R BT.601, as analog signals: columns are R, G, B; rows are Y, U, V.
TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
TO_RGB = np.linalg.inv(TO_YUV)


class Images(Transform):
    """The base of those that take images: rows ``(*spatial, channels)``, or ``(*spatial)`` where
    there is one channel, or vectors that `image_shape` says the shape of (in C order).

    A subclass has ``_made_of`` (the shape that it makes of an image), ``_of_images``, and
    ``_check_arguments``.
    """

    of_images = True
    image_shape: Sequence[int] | None

    def _n_axes(self) -> int:
        """Spatial axes of an image: what follows them are channels."""
        return 2

    def _check_arguments(self) -> None:
        """Refuse arguments that make no sense, whatever the rows."""

    def _check_image(self, image: Shape) -> None:
        """Refuse arguments that make no sense for images of this shape."""

    def _made_of(self, image: Shape) -> Shape:
        """Shape of what it makes of an image."""
        return image

    def _of_images(self, images: NDArray[Any]) -> NDArray[Any]:
        """Of images ``(n, *spatial[, channels])``."""
        raise NotImplementedError

    def _image(self, row_shape: Shape) -> Shape:
        """Shape of the image that a row is."""
        return resolved(row_shape, self.image_shape, self._n_axes())

    def _check(self, row_shape: Shape, dtype: np.dtype) -> None:
        self._check_arguments()
        self._check_image(self._image(row_shape))

    def _out_shape(self, row_shape: Shape) -> Shape:
        return self._made_of(self._image(row_shape))

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        row_shape = rows.shape[1:]
        self._check(row_shape, rows.dtype)  # those that learn nothing may never have been fitted
        return self._by_blocks(rows, self._of_images, self._out_shape(row_shape))

    def _by_blocks(self, rows: NDArray[Any], function: Any, out_shape: Shape) -> NDArray[Any]:
        """A function of images, of a few at once: what it holds beside stays in the cache."""
        image = self._image(rows.shape[1:])
        images = rows.reshape(len(rows), *image)
        out = np.empty((len(rows), *out_shape), self._out_dtype(rows.dtype))
        step = max(1, BLOCK_ITEMS // max(prod(image), 1))
        for at in range(0, len(rows), step):
            part = out[at : at + step]
            part[...] = function(images[at : at + step]).reshape(part.shape)
        return out


class Windows(Images):
    """The base of those with an argument that says how many pixels of an image there are along each
    spatial axis of something that is laid over it.
    """

    window: ClassVar[str]  # the name of the argument
    axes: ClassVar[tuple[int, ...]] = (2, 3)  # how many there may be

    def _n_axes(self) -> int:
        return len(self._window())

    def _window(self) -> Shape:
        return whole_numbers(self.window, getattr(self, self.window), axes=self.axes)

    def _check_arguments(self) -> None:
        self._window()

    def _check_image(self, image: Shape) -> None:
        check_fits(self.window, self._window(), image)

    def _made_of(self, image: Shape) -> Shape:
        window = self._window()
        return (*window, *image[len(window) :])


class RGB_YUV(Images):
    """Colours from RGB to YUV: the analog signals of ITU-R BT.601.

    ``Y = 0.299 R + 0.587 G + 0.114 B``, ``U = -0.14713 R - 0.28886 G + 0.436 B``,
    ``V = 0.615 R - 0.51499 G - 0.10001 B``. Can be undone. Computes in float64.

    Parameters
    ----------
    image_shape
        ``(height, width, 3)``, where rows are vectors: they stay vectors.

    Raises
    ------
    MismatchError
        Rows are no images of three channels.

    Examples
    --------
    >>> RGB_YUV().transform(np.array([[[[255, 0, 0], [0, 255, 0]]]], "u1")).round(1)[0, 0]
    array([[  76.2,  -37.5,  156.8],
           [ 149.7,  -73.7, -131.3]], dtype=float32)
    """

    _matrix: ClassVar[Numbers] = TO_YUV
    _inverse: ClassVar[Numbers] = TO_RGB
    _colours: ClassVar[str] = "RGB"

    def __init__(self, image_shape: Sequence[int] | None = None) -> None:
        self.image_shape = image_shape

    def _check_image(self, image: Shape) -> None:
        if len(image) != 3 or image[2] != 3:
            raise MismatchError(
                f"images of shape {image}: {self._colours} has three channels, on the last axis; "
                "give images (height, width, 3)"
            )

    def _out_shape(self, row_shape: Shape) -> Shape:
        return row_shape

    def _of_images(self, images: NDArray[Any]) -> NDArray[Any]:
        return _mixed(images, self._matrix)

    def _undo(self, rows: NDArray[Any]) -> NDArray[Any]:
        row_shape = rows.shape[1:]
        self._check(row_shape, rows.dtype)
        return self._by_blocks(rows, lambda images: _mixed(images, self._inverse), row_shape)


class YUV_RGB(RGB_YUV):
    """Colours from YUV to RGB: what undoes `RGB_YUV`, by the inverse of its matrix.

    Parameters
    ----------
    image_shape
        ``(height, width, 3)``, where rows are vectors: they stay vectors.

    Raises
    ------
    MismatchError
        Rows are no images of three channels.

    Examples
    --------
    >>> YUV_RGB().transform(np.array([[[[0.5, 0.0, 0.0]]]])).round(4).tolist()
    [[[[0.5, 0.5, 0.5]]]]
    """

    _matrix = TO_RGB
    _inverse = TO_YUV
    _colours = "YUV"


class Downsample(Windows):
    """Images made smaller: the mean of each block of `sampling_factor` pixels, channel by channel.

    Where a factor does not divide the size of an image, the remainder at its end fills no block and
    is left out, as Pylearn2 did: ``size // factor`` pixels come out. Computes in float64.

    Parameters
    ----------
    sampling_factor
        Pixels of a block, one number for each of 2 or 3 spatial axes: whole numbers from 1 on.
    image_shape
        ``(height, width, channels)``, where rows are vectors.

    Raises
    ------
    MismatchError
        A factor is no such number, or larger than the image.

    Examples
    --------
    >>> image = np.array([[[1.0, 3.0, 5.0], [5.0, 7.0, 9.0]]])
    >>> Downsample((2, 2)).transform(image).tolist()
    [[[4.0]]]
    """

    window = "sampling_factor"

    def __init__(
        self, sampling_factor: Sequence[int], image_shape: Sequence[int] | None = None
    ) -> None:
        self.sampling_factor = sampling_factor
        self.image_shape = image_shape

    def _made_of(self, image: Shape) -> Shape:
        factors = self._window()
        sizes = (size // factor for size, factor in zip(image, factors, strict=False))
        return (*sizes, *image[len(factors) :])

    def _of_images(self, images: NDArray[Any]) -> NDArray[Any]:
        factors = self._window()
        made = images
        for axis, factor in enumerate(factors, start=1):
            made = _block_sums(made, axis, factor)
        mean: Numbers = made / prod(factors)
        return mean


class CentralWindow(Windows):
    """The middle of images: `window_shape` pixels from ``(size - window) // 2`` on.

    Keeps the dtype.

    Parameters
    ----------
    window_shape
        Pixels along each of 2 or 3 spatial axes: whole numbers from 1 on.
    image_shape
        ``(height, width, channels)``, where rows are vectors.

    Raises
    ------
    MismatchError
        The window is no such shape, or larger than the image.

    Examples
    --------
    >>> CentralWindow((1, 2)).transform(np.arange(12).reshape(1, 3, 4)).tolist()
    [[[5, 6]]]
    """

    window = "window_shape"
    keeps_dtype = True

    def __init__(
        self, window_shape: Sequence[int], image_shape: Sequence[int] | None = None
    ) -> None:
        self.window_shape = window_shape
        self.image_shape = image_shape

    def _of_images(self, images: NDArray[Any]) -> NDArray[Any]:
        window = self._window()
        starts = [(size - w) // 2 for size, w in zip(images.shape[1:], window, strict=False)]
        cut = (slice(at, at + w) for at, w in zip(starts, window, strict=True))
        return images[(slice(None), *cut)]


def _mixed(images: NDArray[Any], matrix: Numbers) -> Numbers:
    """Channels mixed, pixel by pixel: not by BLAS, whose rounding depends on how many there are."""
    made = np.empty(images.shape)
    first, second, third = (images[..., k].astype(np.float64) for k in range(3))
    for k, (a, b, c) in enumerate(matrix):
        made[..., k] = a * first + b * second + c * third
    return made


def _block_sums(images: NDArray[Any], axis: int, factor: int) -> Numbers:
    """Sums of `factor` neighbours along an axis; a remainder is left out."""
    whole = images.shape[axis] // factor * factor
    before = (slice(None),) * axis
    sums: Numbers = images[(*before, slice(0, whole, factor))].astype(np.float64)
    for k in range(1, factor):
        sums += images[(*before, slice(k, whole, factor))]
    return sums


def resolved(row_shape: Shape, image_shape: Any, n_axes: int) -> Shape:
    """The shape of the image that a row is: `image_shape` where the row is a vector, else its own.

    Raises
    ------
    MismatchError
        It is none of so many spatial axes, or the two do not match.

    Examples
    --------
    >>> resolved((12,), (2, 2, 3), 2), resolved((2, 2), None, 2)
    ((2, 2, 3), (2, 2))
    """
    if image_shape is None:
        if len(row_shape) == 1 and n_axes > 1:
            raise MismatchError(
                f"rows are vectors of {row_shape[0]} numbers: say which images they are with "
                f"image_shape={LAYOUTS[n_axes]}"
            )
        if len(row_shape) not in (n_axes, n_axes + 1):
            raise MismatchError(
                f"rows of shape {row_shape} are no images {LAYOUTS[n_axes]}: give such rows, or "
                "vectors and their image_shape"
            )
        return row_shape
    image = whole_numbers("image_shape", image_shape, axes=(n_axes, n_axes + 1))
    vector = len(row_shape) == 1 and prod(image) == row_shape[0]
    if not vector and image != row_shape:
        raise MismatchError(
            f"image_shape={image}, {prod(image)} numbers: an image shape that does not match the "
            f"row, which has the shape {row_shape}, {prod(row_shape)} numbers; give that of the "
            "images in the file"
        )
    return image
