"""Every benchmark, each in a process of its own, as the table of the README.

    python benchmarks/all.py            (minutes; the files it makes in benchmarks/data are kept)

What is said after `--` goes to every benchmark: ``python benchmarks/all.py -- --repeat 3``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import harness

SCRIPTS = (
    "sequential",
    "shuffle",
    "peers",
    "resident",
    "small_rows",
    "contiguous",
    "cold",
    "formats",
    "writing",
    "sparse_rows",
    "remote",
    "transforms",
)
COLUMNS = ("what", "rows/s", "against", "its rows/s", "ratio", "at least", "peak", "memory")


def main() -> None:
    passed_on = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    missed = []
    print("| " + " | ".join((*COLUMNS, "command")) + " |")
    print("|" + " --- |" * (len(COLUMNS) + 1))
    for script in SCRIPTS:
        path = Path(__file__).with_name(f"{script}.py")
        words = [sys.executable, str(path), "--json", *passed_on]
        run = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        for figure in harness.figures_of(run.stdout):
            cells = (*harness.cells(figure)[:-1], f"`benchmarks/{script}.py`")
            print("| " + " | ".join(cells) + " |", flush=True)
            if not figure.reached:
                missed.append(f"{figure.what} against {figure.against}")
    if missed:
        sys.exit("not reached: " + "; ".join(missed))


if __name__ == "__main__":
    main()
