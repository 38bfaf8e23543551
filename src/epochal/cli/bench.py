"""``epochal bench FILE``: own speed beside this machine's limits for that very file, in one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

import epochal
from epochal import limits, sizes
from epochal.cli import options
from epochal.cli.measure import Epoch, median, run_epochs
from epochal.cli.output import bar, print_json, print_table, rate, say
from epochal.dataset import Dataset
from epochal.stores.store import Source

__all__ = ["command", "measure"]


@dataclass
class Line:
    """One line of the table: runs of one thing, and the limit that it is held against."""

    what: str
    against: str = ""
    rates: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def add(self, run: Epoch | limits.Limit) -> None:
        """Count one more run."""
        self.rates.append(run.rows_per_second)
        if isinstance(run, Epoch) and run.peak_bytes is not None:
            self.peaks.append(run.peak_bytes)

    @property
    def rows_per_second(self) -> float:
        """Median over the runs."""
        return median(self.rates)

    @property
    def peak_bytes(self) -> int | None:
        """The worst of the runs."""
        return max(self.peaks, default=None)


RAW, DECODE, TWO_PASS, COPY = "raw read", "read + decode", "two-pass bound", "memory copy"
IN_ORDER, FIRST, LATER = "sequential", "exact shuffle, first epoch", "exact shuffle, later epochs"


@click.command("bench")
@options.file_argument
@options.sources
@options.batch_size
@options.memory
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Runs of each; medians are shown.",
)
@options.scratch
@options.threads
@options.untrusted
@options.as_json
def command(
    file: str,
    sources: str | None,
    batch_size: int,
    memory: int | None,
    repeat: int,
    scratch: str | None,
    threads: int | None,
    untrusted: bool,
    as_json: bool,
) -> None:
    """Measure an epoch over FILE in order and exactly shuffled, beside what this machine could do
    at most.
    """
    with epochal.open(file, untrusted=untrusted) as ds:
        arguments = {
            "batch_size": batch_size,
            "memory": memory if memory is not None else sizes.default_memory(),
            "sources": options.source_names(sources) or tuple(ds.sources),
            "scratch": scratch,
            "threads": threads,
        }
        found = measure(ds, file, arguments, repeat=repeat, quiet=as_json)
    if as_json:
        print_json(found)
    else:
        _show(found)


def measure(
    ds: Dataset, file: str, arguments: dict[str, Any], *, repeat: int, quiet: bool = True
) -> dict[str, Any]:
    """Run everything `repeat` times by turns, so that a slow moment of the machine falls on all
    alike.
    """
    stored = [_stored(ds, name) for name in arguments["sources"]]
    threads = arguments["threads"] or len(os.sched_getaffinity(0))
    bounds = _bounds(stored, file, threads, arguments["scratch"])
    lines = {what: Line(what) for what in bounds}
    lines |= {
        line.what: line
        for line in (Line(IN_ORDER, DECODE), Line(FIRST, TWO_PASS), Line(LATER, DECODE))
    }
    with bar(quiet=quiet) as progress:
        task = progress.add_task("measuring", total=repeat * len(lines))
        for _ in range(repeat):
            for what, bound in bounds.items():
                lines[what].add(bound())
                progress.advance(task)
            [in_order] = run_epochs(lambda: ds.batches("sequential", **arguments))
            first, later = run_epochs(
                lambda: ds.batches("shuffled_sequential", seed=0, **arguments), n_epochs=2
            )
            for what, epoch in ((IN_ORDER, in_order), (FIRST, first), (LATER, later)):
                lines[what].add(epoch)
                progress.advance(task)
    return {
        "file": file,
        "rows": len(ds),
        "sources": list(arguments["sources"]),
        "batch_size": arguments["batch_size"],
        "memory_bytes": arguments["memory"],
        "decoded_bytes": sum(source.layout.decoded_bytes for source in stored),
        "threads": threads,
        "repeat": repeat,
        "lines": [_line_facts(line, lines) for line in lines.values()],
    }


def _stored(ds: Dataset, name: str) -> Source:
    ds.sources[name]  # a name that is not there raises here, with what is
    return ds.store.sources[name]


def _bounds(
    stored: Sequence[Source], file: str, threads: int, scratch: str | None
) -> dict[str, Callable[[], limits.Limit]]:
    n_bytes = sum(source.layout.decoded_bytes for source in stored)
    n_rows = max(source.layout.n_rows for source in stored)
    return {
        RAW: lambda: limits.raw_read([file], n_rows, threads),
        DECODE: lambda: limits.decode_all(stored, threads),
        TWO_PASS: lambda: limits.two_pass(stored, threads, scratch),
        COPY: lambda: limits.memory_copy(n_bytes, n_rows, threads),
    }


def _line_facts(line: Line, lines: dict[str, Line]) -> dict[str, Any]:
    return {
        "what": line.what,
        "rows_per_second": line.rows_per_second,
        "against": line.against,
        "ratio": line.rows_per_second / lines[line.against].rows_per_second
        if line.against
        else None,
        "peak_bytes": line.peak_bytes,
    }


def _show(found: dict[str, Any]) -> None:
    row_bytes = found["decoded_bytes"] / max(found["rows"], 1)
    say(
        f"{found['file']}: {', '.join(found['sources'])}; {found['rows']:,} rows, "
        f"{sizes.show(found['decoded_bytes'])} decoded; memory "
        f"{sizes.show(found['memory_bytes'])}, batches of {found['batch_size']}, "
        f"{found['threads']} threads, medians of {found['repeat']}"
    )
    say()
    rows = []
    for line in found["lines"]:
        ratio, peak = line["ratio"], line["peak_bytes"]
        rows.append(
            (
                line["what"],
                rate(line["rows_per_second"]),
                f"{sizes.show(line['rows_per_second'] * row_bytes)}/s",
                f"{ratio:.2f} of {line['against']}" if ratio is not None else "",
                sizes.show(peak) if peak is not None else "",
            )
        )
    print_table(("what", "rows/s", "decoded", "ratio", "peak memory"), rows, numbers=(1, 2, 4))
    say()
    say(
        "Batches are dropped as they come. "
        "Peak memory is the process's own, over what it held before the epoch."
    )
