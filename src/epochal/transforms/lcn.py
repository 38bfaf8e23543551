"""Local contrast normalisation of images."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from epochal.errors import MismatchError
from epochal.transforms.arguments import check_number
from epochal.transforms.images import BLOCK_ITEMS, Images, Numbers, Shape

__all__ = ["LeCunLCN"]

SIGMA = 2.0  # of the window, in pixels


class LeCunLCN(Images):
    """Local contrast normalisation, of each channel by itself.

    Of a channel `x`, with the weights `w` of a Gaussian window around each pixel that sum to one,
    ``v = x - sum(w * x)``, ``sigma = sqrt(sum(w * v**2))`` and
    ``y = v / max(mean(sigma), sigma, threshold)``, where the mean is over the image. Beyond its
    borders an image is zero. K. Jarrett, K. Kavukcuoglu, M. Ranzato and Y. LeCun, "What is the Best
    Multi-Stage Architecture for Object Recognition?", ICCV 2009, section 3.

    Pylearn2's divided by the norm in the window of `x` itself and not of `v`, and treated only the
    first channel: for numbers like its, give ``channels=[0]``, and expect others.

    Computes in float64; beside the rows it holds 768 KiB, or three planes where one is larger than
    that. What is made of an image depends on that image alone.

    Parameters
    ----------
    image_shape
        ``(height, width, channels)``, where rows are vectors: they stay vectors.
    kernel_size
        Pixels of the window along an axis, odd, from 3 on; the Gaussian's deviation is 2 pixels.
    threshold
        The least that is divided by, above 0.
    channels
        Those that are normalised, the others stay; None: all.

    Raises
    ------
    MismatchError
        The window is larger than the image, there is no such channel, or rows are no images.

    Examples
    --------
    >>> image = np.zeros((1, 5, 5))
    >>> image[0, 2, 2] = 1.0
    >>> LeCunLCN(kernel_size=3).transform(image)[0, 2].round(3).tolist()
    [0.0, -0.376, 2.63, -0.376, 0.0]
    """

    def __init__(
        self,
        image_shape: Sequence[int] | None = None,
        kernel_size: int = 7,
        threshold: float = 1e-4,
        channels: Sequence[int] | None = None,
    ) -> None:
        self.image_shape = image_shape
        self.kernel_size = kernel_size
        self.threshold = threshold
        self.channels = channels

    def _check_arguments(self) -> None:
        check_number("threshold", self.threshold, least=0)
        if self.threshold == 0:
            raise MismatchError("threshold=0 divides by zero where an image is flat: give a little")
        size = self.kernel_size
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        if not whole or size < 3 or size % 2 == 0:
            raise MismatchError(
                f"kernel_size={size!r}: the window is centred on a pixel; give an odd whole number "
                "from 3 on"
            )

    def _check_image(self, image: Shape) -> None:
        if self.kernel_size > min(image[:2]):
            raise MismatchError(
                f"kernel_size={self.kernel_size} is larger than the image, {image[:2]} pixels: "
                "give a smaller one"
            )
        self._chosen(1 if len(image) == 2 else image[2])

    def _chosen(self, n_channels: int) -> list[int]:
        """The channels that are normalised."""
        if self.channels is None:
            return list(range(n_channels))
        try:
            found = [index(each) for each in self.channels]
        except TypeError:
            found = []
        if not found or len(set(found)) < len(found) or not set(found) <= set(range(n_channels)):
            raise MismatchError(
                f"channels={self.channels!r}: the images have {n_channels}, counted from 0; list "
                "some of them, each once, or give None for all"
            )
        return found

    def _out_shape(self, row_shape: Shape) -> Shape:
        return row_shape

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        self._check(rows.shape[1:], rows.dtype)
        height, width, *channels = self._image(rows.shape[1:])
        images = rows.reshape(len(rows), height, width, *(channels or [1]))
        out = images.astype(self._out_dtype(rows.dtype))
        step = max(1, min(len(rows), BLOCK_ITEMS // (height * width)))
        # Taken once: memory that is given back and taken again for each block costs more than sums.
        room = np.empty((3, step, height, width))
        for at in range(0, len(rows), step):
            block = images[at : at + step]
            for channel in self._chosen(images.shape[3]):
                planes, *scratch = room[:, : len(block)]
                planes[...] = block[..., channel]
                self._normalise(planes, *scratch)
                out[at : at + step, ..., channel] = planes
        return out.reshape(rows.shape)

    def _normalise(self, planes: Numbers, made: Numbers, work: Numbers) -> None:
        """Planes ``(n, height, width)`` in place, each by itself; the others are scratch."""
        weights = gaussian(int(self.kernel_size))
        blur(planes, weights, work, made)
        planes -= made
        np.multiply(planes, planes, out=made)
        blur(made, weights, work, made)
        sigma = np.sqrt(made, out=made)
        mean = sigma.reshape(len(planes), -1).mean(axis=1)[:, None, None]
        np.maximum(sigma, mean, out=sigma)
        planes /= np.maximum(sigma, self.threshold, out=sigma)


def gaussian(size: int) -> Numbers:
    """Weights along one axis, ``(size,)``, that sum to one: the window is their outer product.

    Examples
    --------
    >>> gaussian(3).round(4).tolist()
    [0.3192, 0.3617, 0.3192]
    """
    distance = np.arange(size) - size // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA**2))
    made: Numbers = weights / weights.sum()
    return made


def blur(planes: Numbers, weights: Numbers, work: Numbers, out: Numbers) -> None:
    """Weighted sums over the window around each pixel, zero beyond the borders, into `out`."""
    correlate1d(planes, weights, axis=1, output=work, mode="constant", cval=0.0)
    correlate1d(work, weights, axis=2, output=out, mode="constant", cval=0.0)
