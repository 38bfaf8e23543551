"""Exact shuffle with a quarter of the decoded rows in memory, against the two-pass bound and one
decode.

    python benchmarks/shuffle.py

The first epoch is held against decoding every chunk, writing the decoded bytes to scratch in order
and reading them back in order; each later one against reading and decoding every chunk. All on all
cores, with nothing else done.
"""

from __future__ import annotations

import epochal
import harness
from epochal import limits
from epochal.cli.measure import median, run_epochs

LATER_EPOCHS = 3


def main() -> None:
    words = harness.parser(__doc__, rows=harness.IMAGE_ROWS)
    words.add_argument("--scratch", help="folder for scratch files [the system's]")
    arguments = words.parse_args()
    path = harness.images(arguments.data, arguments.rows)
    with epochal.open(str(path)) as ds:
        stored = [ds.store.sources[name] for name in ("X", "y")]
        memory = max(sum(source.layout.decoded_bytes for source in stored) // 4, 16 << 20)

        def shuffled() -> epochal.Batches:
            return ds.batches(
                "shuffled_sequential",
                batch_size=harness.BATCH_ROWS,
                seed=0,
                memory=memory,
                scratch=arguments.scratch,
            )

        limits.two_pass(stored, harness.THREADS, arguments.scratch)
        run_epochs(shuffled)
        two_pass, decode, runs = [], [], []
        for _ in range(arguments.repeat):
            two_pass.append(limits.two_pass(stored, harness.THREADS, arguments.scratch))
            runs.append(run_epochs(shuffled, 1 + LATER_EPOCHS))
            decode.append(limits.decode_all(stored, harness.THREADS))
    peak = max(
        (e.peak_bytes for run in runs for e in run if e.peak_bytes is not None), default=None
    )
    figures = [
        harness.Figure(
            what="exact shuffle, first epoch",
            rows_per_second=median(run[0].rows_per_second for run in runs),
            against="two-pass bound",
            their_rows_per_second=median(bound.rows_per_second for bound in two_pass),
            goal=0.8,
            peak_bytes=peak,
            memory_bytes=memory,
        ),
        harness.Figure(
            what="exact shuffle, later epochs",
            rows_per_second=median(e.rows_per_second for run in runs for e in run[1:]),
            against="read + decode, all cores",
            their_rows_per_second=median(bound.rows_per_second for bound in decode),
            goal=1.2,
            peak_bytes=peak,
            memory_bytes=memory,
        ),
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
