"""The laws of stores, held against files by URL."""

import h5py
import pytest

from epochal.stores import open_store
from epochal.testing import StoreTests


@pytest.fixture(autouse=True)
def _served(request, server):
    """Where `make` puts its files."""
    request.instance.server = server


class TestHDF5ByURL(StoreTests):
    def make(self, folder, arrays):
        with h5py.File(folder / "a.h5", "w") as file:
            for name, array in arrays.items():
                chunks = {"chunks": (min(100, len(array)), *array.shape[1:])} if len(array) else {}
                how = {**chunks, "compression": "gzip"} if chunks else {}
                file.create_dataset(name, data=array, **how)
        self.server.files["/a.h5"] = folder / "a.h5"
        return open_store(f"{self.server.url}/a.h5")
