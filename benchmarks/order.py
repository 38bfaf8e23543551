"""The exact order of any number of rows in the memory of one pile: rows a second, peak memory.

    python benchmarks/order.py --rows 1000000000 --memory 512MiB

It asks `scheme.batch(i)` for batch after batch, as training would, and never holds the order. The
sum, the exclusive or and the number of the rows that come out must be those of ``0 .. rows - 1``;
the peak is the kernel's own (VmHWM).
"""

import argparse
import re
import sys
import time
from pathlib import Path

import numpy as np

from epochal import schemes

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Beside the pile: blocks of keys, the table of counts, a batch.
_BESIDE_PILE = 8 << 20


def main() -> int:
    options = _options()
    order_rows = (options.memory - _BESIDE_PILE) // 8
    scheme = schemes.make(
        "shuffled_sequential", options.rows, batch_size=options.batch_size, seed=0
    ).holding(order_rows)
    before = _memory("VmRSS")
    _forget_peak()
    start = time.perf_counter()
    starts = scheme.pile_starts
    counted = time.perf_counter()
    n_piles = min(scheme.n_piles, options.piles or scheme.n_piles)
    stop = int(starts[n_piles])
    print(
        f"{options.rows:,} rows in {scheme.n_piles} piles of about "
        f"{options.rows // scheme.n_piles:,}; "
        f"counted in {counted - start:.1f} s",
        flush=True,
    )
    rows, total, folded = _drain(scheme, stop)
    seconds = time.perf_counter() - counted
    peak = _memory("VmHWM") - before
    print(f"{rows:,} rows of {n_piles} piles in {seconds:.1f} s: {rows / seconds:,.0f} rows/s")
    print(f"with the counting pass: {rows / (seconds + counted - start):,.0f} rows/s")
    print(f"peak growth {peak / 2**20:.1f} MiB of {options.memory / 2**20:.1f} MiB allowed")
    whole = stop == options.rows
    if whole:
        right = (rows, total, folded) == _of_all(options.rows)
        print(f"count, sum and exclusive or are those of a permutation: {right}")
    return 0 if peak <= options.memory and (not whole or right) else 1


def _drain(scheme: schemes.Scheme, stop: int) -> tuple[int, int, int]:
    """Ask for the batches below `stop`: how many rows, their sum, their exclusive or."""
    n_rows, total, folded = 0, 0, 0
    for i in range(len(scheme)):
        begin, end = scheme.bounds(i)
        if begin >= stop:
            break
        # The batch that spans the last pile asked for is cut there, so that no further one is made.
        rows = scheme.rows(begin, min(end, stop))
        n_rows += len(rows)
        total += int(rows.sum())
        folded ^= int(np.bitwise_xor.reduce(rows))
    return n_rows, total, folded


def _of_all(n: int) -> tuple[int, int, int]:
    return n, n * (n - 1) // 2, [n - 1, 1, n, 0][(n - 1) % 4] if n else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--memory", type=_bytes, default=_bytes("512MiB"))
    parser.add_argument("--batch-size", type=int, default=65_536)
    parser.add_argument("--piles", type=int, help="stop after so many piles")
    return parser.parse_args()


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*(KiB|MiB|GiB|)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512MiB")
    return int(found[1]) * _UNITS[found[2]]


def _memory(field: str) -> int:
    """Bytes of a field of this process's status: VmRSS (now) or VmHWM (the most so far)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def _forget_peak() -> None:
    """Let VmHWM begin anew; where that is forbidden it counts from the process's start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak includes the imports", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
