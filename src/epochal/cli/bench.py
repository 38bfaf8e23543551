"""``epochal bench FILE``: own speed beside this machine's limits for that very file, in one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

import epochal
from epochal import limits, sizes
from epochal.cli import options
from epochal.cli.measure import Epoch, median, run_epochs
from epochal.cli.output import bar, print_json, print_table, rate, say
from epochal.dataset import Dataset
from epochal.stores.ragged import columns_of
from epochal.stores.sniff import URL, matching
from epochal.stores.source import Source

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
# Epochs of ours, and the bound that each is held against.
OURS = {
    "sequential": DECODE,
    "exact shuffle, first epoch": TWO_PASS,
    "exact shuffle, later epochs": DECODE,
}
Bounds = dict[str, Callable[[], limits.Limit]]


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
    """Measure epochs over FILE, in order and shuffled, beside what this machine can do at most."""
    with epochal.open(file, sources=options.source_names(sources), untrusted=untrusted) as ds:
        arguments = {
            "batch_size": batch_size,
            "memory": memory if memory is not None else sizes.default_memory(),
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
    """Measure bounds and ours over the sources of `ds`; as JSON has it."""
    stored = [part for source in ds.stored.values() for part in columns_of(source)]
    threads = arguments["threads"] or len(os.sched_getaffinity(0))
    bounds = _bounds(stored, len(ds), file, threads, arguments["scratch"])
    lines = _by_turns(ds, bounds, arguments, repeat=repeat, quiet=quiet)
    return {
        "file": file,
        "rows": len(ds),
        "sources": list(ds.sources),
        "batch_size": arguments["batch_size"],
        "memory_bytes": arguments["memory"],
        "decoded_bytes": sum(source.layout.decoded_bytes for source in stored),
        "threads": threads,
        "repeat": repeat,
        "lines": [_line_facts(line, lines) for line in lines.values()],
    }


def _by_turns(
    ds: Dataset, bounds: Bounds, arguments: dict[str, Any], *, repeat: int, quiet: bool
) -> dict[str, Line]:
    """Run everything in turn, again and again: a slow moment of the machine falls on all alike."""
    lines = {what: Line(what) for what in bounds}
    lines |= {what: Line(what, against) for what, against in OURS.items()}
    with bar(quiet=quiet) as progress:
        task = progress.add_task("measuring", total=repeat * len(lines))
        for _ in range(repeat):
            for what, bound in bounds.items():
                lines[what].add(bound())
                progress.advance(task)
            [in_order] = run_epochs(lambda: ds.batches("sequential", **arguments))
            shuffled = run_epochs(
                lambda: ds.batches("shuffled_sequential", seed=0, **arguments), n_epochs=2
            )
            for what, epoch in zip(OURS, (in_order, *shuffled), strict=True):
                lines[what].add(epoch)
                progress.advance(task)
    return lines


def _bounds(
    stored: Sequence[Source], n_rows: int, file: str, threads: int, scratch: str | None
) -> Bounds:
    n_bytes = sum(source.layout.decoded_bytes for source in stored)
    files = _files(file)
    raw: Bounds = {RAW: lambda: limits.raw_read(files, n_rows, threads)} if files else {}
    return {
        **raw,
        DECODE: lambda: replace(limits.decode_all(stored, threads), n_rows=n_rows),
        TWO_PASS: lambda: replace(limits.two_pass(stored, threads, scratch), n_rows=n_rows),
        COPY: lambda: limits.memory_copy(n_bytes, n_rows, threads),
    }


def _files(target: str) -> list[str]:
    """All files that a file, a folder or a pattern is; none of a URL."""
    if URL.match(target):
        return []
    paths = [target] if os.path.lexists(target) else matching(target)
    found = []
    for path in paths:
        if os.path.isdir(path):
            walked = os.walk(path)
            found += [os.path.join(folder, name) for folder, _, names in walked for name in names]
        else:
            found.append(path)
    return found


def _line_facts(line: Line, lines: dict[str, Line]) -> dict[str, Any]:
    bound = lines[line.against].rows_per_second if line.against else 0.0
    return {
        "what": line.what,
        "rows_per_second": line.rows_per_second,
        "against": line.against,
        "ratio": line.rows_per_second / bound if bound else None,  # of no rows there is none
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
