"""A source whose rows are patches of the images of another: a view, of which nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from epochal.layout import Layout
from epochal.stores.memory import virtual_chunk_rows
from epochal.stores.source import Source
from epochal.stores.store import AnySource, Other, Store, version_of

__all__ = ["PatchSource", "PatchStore", "cut"]

Rows = NDArray[np.int64]
RUN_BYTES = 2 << 20  # of images that are read in one call, where their chunks are no larger
MOST_BLOCKS = 8  # that a chunk grows to, so as to end where a chunk of the images ends
MOST_PIECE_BYTES = (1 << 32) - 1  # that a layout can tell


@dataclass(frozen=True)
class Places:
    """Which patches of which images: what tells one draw from another."""

    images: Rows
    corners: Rows
    patch_shape: tuple[int, ...]


class PatchSource:
    """Patches of the images of a source: row ``j`` is cut from image ``images[j]``.

    Its chunks are about 1 MiB of patches. Where `images` ascend, they end where a chunk of the
    images does, if that makes them no longer than 8 MiB: then reading all of it decodes each chunk
    of images once. Of images that can be read alone no others are read. Holds ``8 * (1 + n_axes)``
    bytes a patch; in reading, 2 MiB of images, or one chunk of them.

    Parameters
    ----------
    source
        The images: rows ``(*spatial[, channels])``, or vectors.
    images
        Row numbers of `source`, ``(n_patches,)``.
    corners
        The first pixel of each patch along each axis, ``(n_patches, n_axes)``.
    patch_shape
        Pixels of a patch, ``(n_axes,)``.
    image_shape
        Of the image that a row is.
    """

    def __init__(
        self,
        source: Source,
        images: Rows,
        corners: Rows,
        patch_shape: tuple[int, ...],
        image_shape: tuple[int, ...],
    ) -> None:
        self.source, self.places = source, Places(images, corners, patch_shape)
        self._image_shape = image_shape
        self.layout = self._laid_out()

    @property
    def version(self) -> int:
        """How many times the images were assigned to."""
        return version_of(self.source)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read the chunks ``[start, stop)``."""
        first = self.layout.bounds(start)[0]
        self.read_rows(np.arange(first, first + len(out)), out)

    def read_rows(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read single rows."""
        needed, which = np.unique(self.places.images[rows], return_inverse=True)
        corners = self.places.corners[rows]
        order = np.argsort(which, kind="stable")
        slots = np.searchsorted(which[order], np.arange(len(needed) + 1))
        for low, high, images, places in self._runs(needed):
            mine = order[slots[low] : slots[high]]
            out[mine] = cut(
                images, places[which[mine] - low], corners[mine], self.places.patch_shape
            )

    def _runs(self, needed: Rows) -> Iterator[tuple[int, int, NDArray[Any], Rows]]:
        """Images of ``needed[low:high]``, run by run, and where among what was read they are."""
        stored = self.source.layout
        if stored.rows_alone:
            step = max(1, RUN_BYTES // max(stored.row_bytes, 1))
            for low in range(0, len(needed), step):
                some = needed[low : low + step]
                block = np.empty((len(some), *stored.row_shape), stored.dtype)
                self.source.read_rows(some, block)
                yield low, low + len(some), self._shaped(block), np.arange(len(some))
            return
        for start, stop in runs_of(np.unique(stored.chunks_of(needed)), self._run_chunks()):
            first, last = stored.bounds(start)[0], stored.bounds(stop - 1)[1]
            block = np.empty((last - first, *stored.row_shape), stored.dtype)
            self.source.read(start, stop, block)
            low, high = np.searchsorted(needed, [first, last]).tolist()
            yield low, high, self._shaped(block), needed[low:high] - first

    def _run_chunks(self) -> int:
        return max(1, RUN_BYTES // max(self.source.layout.chunk_bytes, 1))

    def _shaped(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows.reshape(len(rows), *self._image_shape)

    def _laid_out(self) -> Layout:
        stored, n_axes = self.source.layout, len(self.places.patch_shape)
        shape = (*self.places.patch_shape, *self._image_shape[n_axes:])
        row_bytes = int(np.prod(shape, dtype=np.int64)) * stored.dtype.itemsize
        units = self.places.images if stored.rows_alone else stored.chunks_of(self.places.images)
        edges = edges_of(units, virtual_chunk_rows(row_bytes))
        chunk_rows = int(np.diff(edges).max(initial=1))
        run_bytes = max(RUN_BYTES, stored.chunk_bytes, stored.row_bytes)
        return Layout(
            shape=(len(self.places.images), *shape),
            dtype=stored.dtype,
            chunk_rows=chunk_rows,
            piece_bytes=self._bytes_read(units, edges),
            # Images of a run, and its patches before they are put where they belong.
            read_overhead_bytes=stored.read_overhead_bytes + run_bytes + chunk_rows * row_bytes,
            kind=stored.kind,
            codec=stored.codec,
            parallel=stored.parallel,
            in_flight=stored.in_flight,
            checked=stored.checked and not stored.rows_alone,
            starts=edges,
        )

    def _bytes_read(self, units: Rows, edges: Rows) -> NDArray[np.uint32]:
        """Stored bytes that each chunk is read from, ``(n_chunks, 1)``: of each unit once."""
        stored = self.source.layout
        costs = None if stored.rows_alone else stored.chunk_stored_bytes
        found = np.zeros((len(edges) - 1, 1), np.uint32)
        for k, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            touched = np.unique(units[low:high])
            n_bytes = len(touched) * stored.row_bytes if costs is None else costs[touched].sum()
            found[k] = min(int(n_bytes), MOST_PIECE_BYTES)
        return found


class PatchStore:
    """A store whose sources are patches of another's, which it closes."""

    def __init__(self, store: Store, sources: Mapping[str, AnySource]) -> None:
        self._store = store
        self.sources = dict(sources)

    @property
    def name(self) -> str:
        """That of the images."""
        return self._store.name

    @property
    def others(self) -> tuple[Other, ...]:
        """None: labels are of images."""
        return ()

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """None: what they say is of images."""
        return {}

    def close(self) -> None:
        """Give back the descriptors of the images' store."""
        self._store.close()


def runs_of(chunks: Rows, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of neighbours among ascending chunks, of at most so many.

    Examples
    --------
    >>> list(runs_of(np.array([0, 1, 2, 5]), 2))
    [(0, 2), (2, 3), (5, 6)]
    """
    for run in np.split(chunks, np.flatnonzero(np.diff(chunks) != 1) + 1):
        for at in range(0, len(run), most):
            some = run[at : at + most]
            yield int(some[0]), int(some[-1]) + 1


def edges_of(units: Rows, n_rows: int) -> Rows:
    """Where runs of about `n_rows` rows begin, and the end: between two units, where those ascend.

    Examples
    --------
    >>> edges_of(np.array([0, 0, 0, 1, 1, 2]), 2).tolist()
    [0, 3, 5, 6]
    >>> edges_of(np.array([1, 0, 2]), 2).tolist()
    [0, 2, 3]
    """
    n = len(units)
    steps = np.diff(units)
    if (steps < 0).any():
        return np.append(np.arange(0, n, n_rows), n).astype(np.int64)
    between = np.append(np.flatnonzero(steps) + 1, n)
    edges = [0]
    while edges[-1] < n:
        wanted = min(edges[-1] + n_rows, n)
        end = int(between[np.searchsorted(between, wanted)])
        edges.append(end if end - edges[-1] <= MOST_BLOCKS * n_rows else wanted)
    return np.array(edges, dtype=np.int64)


def cut(
    images: NDArray[Any], which: Rows, corners: Rows, patch_shape: tuple[int, ...]
) -> NDArray[Any]:
    """Patches ``(n, *patch_shape[, channels])`` of images ``(n_images, *spatial[, channels])``.

    Parameters
    ----------
    images
        Some images.
    which
        The image of each patch, ``(n,)``.
    corners
        Its first pixel along each axis, ``(n, n_axes)``.
    patch_shape
        Pixels of a patch.

    Examples
    --------
    >>> images = np.arange(9).reshape(1, 3, 3)
    >>> cut(images, np.array([0]), np.array([[1, 1]]), (2, 2)).tolist()
    [[[4, 5], [7, 8]]]
    """
    n_axes = len(patch_shape)
    window = (*patch_shape, *images.shape[1 + n_axes :])  # with all channels
    windows = sliding_window_view(images, window, axis=tuple(range(1, images.ndim)))
    places = (corners[:, axis] for axis in range(n_axes))
    channels = (0,) * (images.ndim - 1 - n_axes)
    made: NDArray[Any] = windows[(which, *places, *channels)]
    return made
