"""Published proofs of concept against libhdf5: each opens or is refused, and nothing crashes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from corpus import files

# Reads what opens, in a process of its own. Prints how many were opened, and how many refused.
READER = """
import sys
import numpy as np
from epochal.errors import EpochalError
from epochal.stores import open_store

opened = refused = 0
for path in sys.argv[1:]:
    print(path, file=sys.stderr, flush=True)
    try:
        store = open_store(path, untrusted=True)
    except EpochalError:
        refused += 1
        continue
    opened += 1
    for source in store.sources.values():
        layout = source.layout
        assert layout.kind != "library"
        for chunk in range(min(layout.n_chunks, 20)):
            start, stop = layout.bounds(chunk)
            if (stop - start) * layout.row_bytes > 1 << 26:
                break  # what a budget is there to refuse
            out = np.empty((stop - start, *layout.row_shape), layout.dtype)
            try:
                source.read(chunk, chunk + 1, out)
            except EpochalError:
                pass
print(opened, refused)
"""


def read_through(paths):
    command = [sys.executable, "-c", READER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]  # its last line is the file
    return map(int, done.stdout.split())


def test_hostile_files_are_read_or_refused():
    paths = files("hostile")
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(read_through, (paths[::2], paths[1::2]))
        opened, refused = map(sum, zip(*halves, strict=True))
    assert opened + refused == len(paths)
    assert refused >= 10
    assert opened >= 30
