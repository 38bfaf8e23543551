"""The laws of stores, held against each of ours."""

import warnings
from itertools import pairwise

import h5py
import numpy as np
import zarr

from epochal.stores import open_store
from epochal.stores.memory import ArrayStore
from epochal.testing import ChunkedArrays, StoreTests


def hdf5(path, arrays, **how):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (
                {"chunks": (min(100, len(array)), *array.shape[1:])} if len(array) and how else {}
            )
            file.create_dataset(name, data=array, **chunks, **(how if len(array) else {}))
    return path


class TestMemory(StoreTests):
    def make(self, folder, arrays):
        return ArrayStore(arrays)


class TestPretended(StoreTests):
    def make(self, folder, arrays):
        return ChunkedArrays({name: (array, 70) for name, array in arrays.items()})


class TestHDF5(StoreTests):
    def make(self, folder, arrays):
        return open_store(hdf5(folder / "a.h5", arrays, compression="gzip", shuffle=True))


class TestContiguousHDF5(StoreTests):
    def make(self, folder, arrays):
        return open_store(hdf5(folder / "a.h5", arrays))


class TestHDF5ByTheLibrary(StoreTests):
    def make(self, folder, arrays):
        return open_store(hdf5(folder / "a.h5", arrays, compression="lzf"), backend="h5py")


class TestNpz(StoreTests):
    def make(self, folder, arrays):
        np.savez(folder / "a.npz", **arrays)
        return open_store(folder / "a.npz")


class TestCompressedNpz(StoreTests):
    def make(self, folder, arrays):
        np.savez_compressed(folder / "a.npz", **arrays)
        return open_store(folder / "a.npz")


class TestZarr(StoreTests):
    how: dict = {}  # noqa: RUF012

    def make(self, folder, arrays):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = zarr.open_group(folder / "a", mode="w")
            for name, array in arrays.items():
                chunks = {"chunks": (50, *array.shape[1:])}
                shards = {"shards": (200, *array.shape[1:])} if self.how else {}
                root.create_array(name, data=array, **chunks, **shards)
        return open_store(folder / "a")


class TestShardedZarr(TestZarr):
    how = {"shards": True}  # noqa: RUF012


class TestSeveralFiles(StoreTests):
    def make(self, folder, arrays):
        cuts = [0, 0, 1, 400, 401, 1003]
        for number, (low, high) in enumerate(pairwise(cuts)):
            parts = {name: array[low:high] for name, array in arrays.items()}
            hdf5(folder / f"{number}.h5", parts, compression="gzip")
        return open_store(folder)
