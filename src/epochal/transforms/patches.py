"""Patches of images: along a grid, put together again, or from random places."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from epochal.batches import Batches
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.stores.patches import PatchSource, PatchStore, cut
from epochal.transforms.arguments import check_real, check_whole, whole_numbers
from epochal.transforms.function import RowFunction
from epochal.transforms.images import Shape, Windows
from epochal.transforms.reading import Matrix
from epochal.transforms.transform import Transform
from epochal.view import RaggedView, SourceView

__all__ = ["ExtractGridPatches", "ExtractPatches", "ReassembleGridPatches"]

Rows = NDArray[np.int64]
AXES = (1, 2, 3)


class ExtractGridPatches(Windows):
    """Images as their patches along a regular grid, which may overlap. Keeps the dtype.

    Patches come image by image, in each by rows of the grid, and in those by columns. What is left
    at the end of an axis and holds no whole patch is left out, as Pylearn2 did. All other sources
    of a dataset repeat their rows, so that each patch has the label of its image.
    `ReassembleGridPatches` undoes it where the stride is the patch's own shape.

    Parameters
    ----------
    patch_shape
        Pixels of a patch along each of 1, 2 or 3 spatial axes.
    patch_stride
        Pixels from a patch to the next along each axis: whole numbers from 1 on.
    image_shape
        ``(height, width, channels)``, where rows are vectors.

    Raises
    ------
    MismatchError
        A patch is larger than the image, or an argument is not for each axis.

    Examples
    --------
    >>> images = np.arange(12).reshape(1, 2, 6)
    >>> ExtractGridPatches((2, 2), (2, 3)).transform(images).tolist()
    [[[0, 1], [6, 7]], [[3, 4], [9, 10]]]
    """

    window = "patch_shape"
    axes = AXES
    keeps_dtype = True

    def __init__(
        self,
        patch_shape: Sequence[int],
        patch_stride: Sequence[int],
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.patch_shape = patch_shape
        self.patch_stride = patch_stride
        self.image_shape = image_shape

    def _stride(self) -> Shape:
        return whole_numbers("patch_stride", self.patch_stride, axes=(self._n_axes(),))

    def _check_arguments(self) -> None:
        self._stride()

    def _grid(self, image: Shape) -> Shape:
        """Patches along each axis."""
        each = zip(image, self._window(), self._stride(), strict=False)
        return tuple((size - patch) // stride + 1 for size, patch, stride in each)

    def _factor(self, row_shape: Shape) -> int:
        return prod(self._grid(self._image(row_shape)))

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        self._check(rows.shape[1:], rows.dtype)
        image = self._image(rows.shape[1:])
        k = len(self._window())
        axes = tuple(range(1, 1 + k))
        windows = sliding_window_view(
            rows.reshape(len(rows), *image), self._window(), axis=axes
        )  # (n, *places[, channels], *patch)
        grid = windows[(slice(None), *(slice(None, None, stride) for stride in self._stride()))]
        patches = np.moveaxis(grid, 1 + k, -1) if len(image) > k else grid
        # A copy, for which the window's view of overlapping patches is spread out.
        return np.array(patches, order="C").reshape(-1, *self._made_of(image))


class ReassembleGridPatches(Transform):
    """Images of patches that tile them: what undoes `ExtractGridPatches` of a stride that is the
    patch's own shape. Keeps the dtype.

    It makes one row of several: an array, or a dataset, has to hold whole images. Other sources of
    a dataset keep the first of the rows that make one.

    Parameters
    ----------
    orig_shape
        Pixels of an image along each of 1, 2 or 3 spatial axes.
    patch_shape
        Pixels of a patch.

    Raises
    ------
    MismatchError
        Patches do not tile the image, are of another shape, or do not make whole images.

    Examples
    --------
    >>> images = np.arange(8).reshape(1, 2, 4)
    >>> patches = ExtractGridPatches((2, 2), (2, 2)).transform(images)
    >>> ReassembleGridPatches((2, 4), (2, 2)).transform(patches).tolist()
    [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """

    whole = True
    of_images = True
    keeps_dtype = True

    def __init__(self, orig_shape: Sequence[int], patch_shape: Sequence[int]) -> None:
        self.orig_shape = orig_shape
        self.patch_shape = patch_shape

    def _shapes(self) -> tuple[Shape, Shape]:
        """Of an image and of a patch, whose sizes divide it."""
        patch = whole_numbers("patch_shape", self.patch_shape, axes=AXES)
        image = whole_numbers("orig_shape", self.orig_shape, axes=(len(patch),))
        if any(size % p for size, p in zip(image, patch, strict=True)):
            raise MismatchError(
                f"patch_shape={patch} does not tile orig_shape={image}: patches that overlap, or "
                "are oversized, cannot be put together; give a patch_shape that divides it along "
                "each axis"
            )
        return image, patch

    def _check(self, row_shape: Shape, dtype: np.dtype) -> None:
        _, patch = self._shapes()
        k = len(patch)
        if row_shape[:k] != patch or len(row_shape) > k + 1:
            raise MismatchError(
                f"rows of shape {row_shape} are no patches of patch_shape={patch}: give rows of "
                "that shape, or of that and channels"
            )

    def _out_shape(self, row_shape: Shape) -> Shape:
        image, patch = self._shapes()
        return (*image, *row_shape[len(patch) :])

    def lazily(self, row_shape: Shape, dtype: np.dtype) -> RowFunction:
        """See `Transform`: the rows of a dataset have to make whole images."""
        self._check(row_shape, dtype)
        image, patch = self._shapes()
        group = prod(size // p for size, p in zip(image, patch, strict=True))
        return RowFunction(self.as_it_is(), self._out_shape(row_shape), dtype, group=group)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        self._check(rows.shape[1:], rows.dtype)
        image, patch = self._shapes()
        grid = tuple(size // p for size, p in zip(image, patch, strict=True))
        if len(rows) % prod(grid):
            raise MismatchError(
                f"{len(rows)} patches are no whole images: {prod(grid)} of {patch} make one of "
                f"{image}; give a multiple of that"
            )
        k = len(patch)
        tiles = rows.reshape(-1, *grid, *rows.shape[1:])  # (n, *grid, *patch[, channels])
        pairs = [axis for i in range(k) for axis in (1 + i, 1 + k + i)]
        turned = tiles.transpose(0, *pairs, *range(1 + 2 * k, tiles.ndim))
        return np.array(turned, order="C").reshape(-1, *self._out_shape(rows.shape[1:]))


class ExtractPatches(Windows):
    """Patches from random places of random images: each image and each place is as likely as any
    other, independently, and may come again. Keeps the dtype.

    The numbers of the images are sorted, so that a file is read once and in order: patches of one
    image come one after another. Take a shuffling scheme to have them in random order. The same
    seed draws the same patches of as many images, of an array or of a dataset.

    Of a dataset or a view it gives a lazy one of patches alone: labels are dropped, as Pylearn2's,
    and so is what `Dataset.map` makes of batches. That holds ``8 * (1 + n_axes)`` bytes a patch.

    Parameters
    ----------
    patch_shape
        Pixels of a patch along each of 1, 2 or 3 spatial axes.
    num_patches
        How many are drawn.
    seed
        Key of the generator: a whole number from 0 on, below ``2**64``.
    image_shape
        ``(height, width, channels)``, where rows are vectors.

    Raises
    ------
    MismatchError
        A patch is larger than the image, or an argument makes no sense.

    Examples
    --------
    >>> images = np.arange(18).reshape(2, 3, 3)
    >>> ExtractPatches((1, 2), 3).transform(images).shape
    (3, 1, 2)
    """

    window = "patch_shape"
    axes = AXES
    keeps_dtype = True
    whole = True
    keeps_order = False

    def __init__(
        self,
        patch_shape: Sequence[int],
        num_patches: int,
        seed: int = 0,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.patch_shape = patch_shape
        self.num_patches = num_patches
        self.seed = seed
        self.image_shape = image_shape

    def places(self, n_images: int, row_shape: Shape) -> tuple[Rows, Rows]:
        """Where patches are cut from so many images.

        Returns
        -------
        images
            The number of the image of each patch, ascending, ``(num_patches,)`` int64.
        corners
            Its first pixel along each axis, ``(num_patches, n_axes)`` int64.

        Raises
        ------
        MismatchError
            There are no images, or a patch is larger than they are.

        Examples
        --------
        >>> images, corners = ExtractPatches((2, 2), 3).places(100, (8, 8, 3))
        >>> images.shape, corners.shape
        ((3,), (3, 2))
        """
        self._check(row_shape, np.dtype(np.float64))
        if n_images < 1:
            raise MismatchError("there are 0 images: no patch can be cut; give some")
        patch = self._window()
        sizes = np.array(self._image(row_shape)[: len(patch)])
        draw = np.random.Generator(np.random.Philox(key=int(self.seed)))
        images = np.sort(draw.integers(n_images, size=int(self.num_patches), dtype=np.int64))
        last = sizes - np.array(patch)
        corners = draw.integers(last + 1, size=(len(images), len(patch)), dtype=np.int64)
        return images, corners

    def transform(self, X: Any) -> Any:
        """Patches ``(num_patches, *patch_shape[, channels])``: of an array at once, of a dataset
        or a view lazily.

        Raises
        ------
        MismatchError
            Of `Batches`, which are drawn from as what they are batches of.
        """
        if isinstance(X, Matrix):
            return self.transform(X.X)
        if isinstance(X, Dataset):
            name = X.largest
            return self._dataset(X, name)
        if isinstance(X, SourceView):
            return self._dataset(Dataset.of_view(X), X.name)[X.name]
        if isinstance(X, Batches):
            raise MismatchError(
                "ExtractPatches draws from all images, and batches hold some: transform the "
                "dataset, and take batches of what that gives"
            )
        return super().transform(X)

    def _dataset(self, ds: Dataset, name: str) -> Dataset:
        view = ds[name]
        if isinstance(view, RaggedView):
            raise MismatchError(f"rows of {name!r} vary in length: no transform takes them")
        row_shape = view.shape[1:]
        self._check_width(row_shape)
        check_real(view.dtype, self)
        images, corners = self.places(len(view), row_shape)
        rows = images if view.selection is None else view.selection[images]
        source = PatchSource(view.source, rows, corners, self._window(), self._image(row_shape))
        store = PatchStore(ds.store, {name: source})
        return Dataset(store, store.sources)

    def lazily(self, row_shape: Shape, dtype: np.dtype) -> RowFunction:
        """Refused: patches are of all images, and not of one after another.

        Raises
        ------
        MismatchError
            Always.
        """
        raise MismatchError(
            "ExtractPatches draws from all images, and makes no rows of each: call its "
            "transform(dataset), and go on with what that gives"
        )

    def _check_arguments(self) -> None:
        check_whole("num_patches", self.num_patches, least=1)
        check_whole("seed", self.seed, least=0)

    def _apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        images, corners = self.places(len(rows), rows.shape[1:])
        shaped = rows.reshape(len(rows), *self._image(rows.shape[1:]))
        return cut(shaped, images, corners, self._window())
