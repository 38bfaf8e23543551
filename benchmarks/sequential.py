"""A sequential epoch against reading and decoding every chunk on all cores, and nothing else.

python benchmarks/sequential.py
"""

from __future__ import annotations

import epochal
import harness
from epochal import limits
from epochal.cli.measure import median, run_epochs


def main() -> None:
    arguments = harness.parser(__doc__, rows=harness.IMAGE_ROWS).parse_args()
    path = harness.images(arguments.data, arguments.rows)
    with epochal.open(str(path)) as ds:
        stored = [ds.store.sources[name] for name in ("X", "y")]
        memory = max(sum(source.layout.decoded_bytes for source in stored) // 4, 16 << 20)

        def in_order() -> epochal.Batches:
            return ds.batches("sequential", batch_size=harness.BATCH_ROWS, memory=memory)

        limits.decode_all(stored, harness.THREADS)
        run_epochs(in_order)
        bounds, first, later = [], [], []
        for _ in range(arguments.repeat):
            bounds.append(limits.decode_all(stored, harness.THREADS))
            epochs = run_epochs(in_order, 4)
            first.append(epochs[0])
            later += epochs[1:]
    figures = [
        harness.Figure(
            what=what,
            rows_per_second=median(epoch.rows_per_second for epoch in epochs),
            against="read + decode, all cores",
            their_rows_per_second=median(bound.rows_per_second for bound in bounds),
            goal=0.9,
            peak_bytes=max(
                (e.peak_bytes for e in epochs if e.peak_bytes is not None), default=None
            ),
            memory_bytes=memory,
        )
        for what, epochs in (
            ("sequential, first epoch", first),
            ("sequential, later epochs", later),
        )
    ]
    harness.show(figures, arguments.json)


if __name__ == "__main__":
    main()
