"""Laws that every store keeps: a class of tests to inherit from.

::

    from epochal.testing import StoreTests

    class TestMine(StoreTests):
        def make(self, folder, arrays):
            ...                      # write the arrays, by name, as files of your format
            return MyStore(...)      # and open them

pytest runs the laws on it. They need nothing but numpy.
"""

from __future__ import annotations

import multiprocessing
import pickle
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.dataset import Dataset
from epochal.stores.ragged import RaggedSource
from epochal.stores.source import Source
from epochal.stores.store import Store

__all__ = ["StoreTests", "read_chunks"]

Arrays = Mapping[str, NDArray[Any]]


def read_chunks(source: Source, start: int, stop: int) -> NDArray[Any]:
    """The rows of the chunks ``[start, stop)``, into memory that held something else before."""
    layout = source.layout
    n_rows = layout.bounds(stop - 1)[1] - layout.bounds(start)[0] if start < stop else 0
    out = np.empty((n_rows, *layout.row_shape), layout.dtype)
    if out.nbytes:
        out.reshape(-1).view(np.uint8)[...] = 0xA5
    source.read(start, stop, out)
    return out


def _read_all(source: Source) -> bytes:
    return read_chunks(source, 0, source.layout.n_chunks).tobytes()


def _sources(store: Store) -> dict[str, Source]:
    return {n: s for n, s in store.sources.items() if not isinstance(s, RaggedSource)}


class StoreTests:
    """What a store must keep. Inherit, and say how one is `make`d."""

    #: Rows of the arrays that are written: not a multiple of any chunk.
    n_rows = 1003
    #: Whether the store survives a pickle, and so a spawned process.
    pickles = True

    def make(self, folder: Path, arrays: Arrays) -> Store:
        """Write `arrays`, ``{name: (n_rows, *row_shape)}``, into `folder` and open them."""
        raise NotImplementedError("say how a store is made of arrays")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is written: override where the format cannot hold these."""
        rng = np.random.default_rng(0)
        return {
            "X": rng.integers(0, 99, (self.n_rows, 3, 5)).astype("u1"),
            "y": rng.integers(0, 10, self.n_rows).astype("<i8"),
            "z": rng.random((self.n_rows, 2)).astype("<f4"),
        }

    # Laws ----------------------------------------------------------------

    def test_sources_are_the_arrays(self, tmp_path: Path) -> None:
        """Names, shapes and types are those that were written."""
        arrays = self.arrays()
        store = self.make(tmp_path, arrays)
        assert set(_sources(store)) == set(arrays)
        assert store.name
        assert isinstance(store.groups, Mapping)
        for name, source in _sources(store).items():
            assert source.layout.shape == arrays[name].shape
            assert source.layout.dtype == arrays[name].dtype

    def test_chunks_partition_the_rows(self, tmp_path: Path) -> None:
        """Chunks follow one another from the first row to the last, none of them empty."""
        for source in _sources(self.make(tmp_path, self.arrays())).values():
            layout = source.layout
            at = 0
            for chunk in range(layout.n_chunks):
                first, last = layout.bounds(chunk)
                assert first == at < last
                assert last - first <= layout.chunk_rows
                assert layout.chunk_of(first) == layout.chunk_of(last - 1) == chunk
                at = last
            assert at == layout.n_rows
            assert layout.chunk_row_counts.sum() == layout.n_rows
            if layout.piece_bytes is not None:
                assert len(layout.piece_bytes) == layout.n_chunks
            assert layout.read_overhead_bytes >= 0

    def test_reads_equal_the_slice(self, tmp_path: Path) -> None:
        """Any run of chunks is the numpy slice, bit for bit, and all of the output is written."""
        arrays = self.arrays()
        rng = np.random.default_rng(1)
        for name, source in _sources(self.make(tmp_path, arrays)).items():
            n = source.layout.n_chunks
            runs = [(0, n), (0, 0), (n - 1, n)]
            runs += [tuple(sorted(rng.integers(0, n + 1, 2).tolist())) for _ in range(20)]
            for start, stop in runs:
                got = read_chunks(source, start, stop)
                first = source.layout.bounds(start)[0] if start < stop else 0
                assert got.tobytes() == arrays[name][first : first + len(got)].tobytes()

    def test_rows_alone_equal_the_rows(self, tmp_path: Path) -> None:
        """Where single rows can be read: any of them, in any order, repeats kept. (Or any but those
        of some chunks.)
        """
        arrays = self.arrays()
        rng = np.random.default_rng(2)
        for name, source in _sources(self.make(tmp_path, arrays)).items():
            every = np.arange(self.n_rows)
            alone = every[~source.layout.is_coded(source.layout.chunks_of(every))]
            if not len(alone):
                continue
            for size in (0, 1, 2, 50):
                rows = rng.choice(alone, size)
                out = np.empty((size, *source.layout.row_shape), source.layout.dtype)
                source.read_rows(rows, out)
                assert out.tobytes() == arrays[name][rows].tobytes()

    def test_few_rows(self, tmp_path: Path) -> None:
        """No rows and one row are arrays, too."""
        for n_rows in (0, 1):
            folder = tmp_path / str(n_rows)
            folder.mkdir()
            arrays = {name: array[:n_rows] for name, array in self.arrays().items()}
            store = self.make(folder, arrays)
            for name, source in _sources(store).items():
                assert source.layout.shape == arrays[name].shape
                assert _read_all(source) == arrays[name].tobytes()
            store.close()

    def test_eight_threads_at_once(self, tmp_path: Path) -> None:
        """Reads from many threads do not disturb each other."""
        arrays = self.arrays()
        for name, source in _sources(self.make(tmp_path, arrays)).items():
            with ThreadPoolExecutor(8) as pool:
                found = set(pool.map(_read_all, [source] * 24))
            assert found == {arrays[name].tobytes()}

    def test_other_processes(self, tmp_path: Path) -> None:
        """A fork after a read in the parent, a spawned process and a pickle read the same rows."""
        arrays = self.arrays()
        store = self.make(tmp_path, arrays)
        for name, source in _sources(store).items():
            expected = arrays[name].tobytes()
            assert _read_all(source) == expected
            if self.pickles:
                assert _read_all(pickle.loads(pickle.dumps(source))) == expected
        methods = ("fork", "spawn") if self.pickles else ("fork",)
        for method in methods:
            with multiprocessing.get_context(method).Pool(2) as pool:
                read = {n: pool.apply_async(_read_all, (s,)) for n, s in _sources(store).items()}
                assert {n: r.get(60) for n, r in read.items()} == {
                    name: array.tobytes() for name, array in arrays.items()
                }

    def test_memory_is_what_is_declared(self, tmp_path: Path) -> None:
        """Reading one chunk holds no more beside its output than the layout says, and a little."""
        for source in _sources(self.make(tmp_path, self.arrays())).values():
            read_chunks(source, 0, 1)
            tracemalloc.start()
            try:
                out = read_chunks(source, 0, 1)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak <= out.nbytes + source.layout.read_overhead_bytes + (64 << 10)

    def test_shuffled_batches_equal_the_oracle(self, tmp_path: Path) -> None:
        """An exact shuffle in little memory is the arrays in the scheme's order."""
        arrays = self.arrays()
        store = self.make(tmp_path, arrays)
        dataset = Dataset(store, _sources(store))
        memory = 4 * sum(s.layout.read_overhead_bytes for s in _sources(store).values()) + (1 << 20)
        batches = dataset.batches("shuffled_sequential", batch_size=64, seed=3, memory=memory)
        for number, batch in enumerate(batches):
            rows = batches.scheme.at(0).batch(number)
            for name, got in zip(dataset.sources, batch, strict=True):
                assert got.tobytes() == arrays[name][rows].tobytes()
        batches.close()

    def test_closing(self, tmp_path: Path) -> None:
        """A store may be closed, twice even."""
        store = self.make(tmp_path, self.arrays())
        for source in _sources(store).values():
            read_chunks(source, 0, 1)
        store.close()
        store.close()
