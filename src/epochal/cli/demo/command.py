"""``epochal demo``: make or open the file, look at it, train in three orders, print one table."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

import epochal
from epochal import sizes
from epochal.cli import info, options
from epochal.cli.demo.digits import HELD_OUT, TRAIN, digits_file
from epochal.cli.demo.race import ORDERS, Race, Result
from epochal.cli.demo.rival import fancy_indexing
from epochal.cli.output import bar, print_json, print_table, rate, say
from epochal.dataset import Dataset

__all__ = ["command"]

DIGITS_MEMORY_BYTES = 32 << 20
LEAST_MEMORY_BYTES = 16 << 20  # a quarter of a small file might not hold a batch
HELD_OUT_ROWS = 5000
RIVAL_SECONDS = 3.0


@dataclass(frozen=True)
class Setting:
    """What the command was asked for."""

    epochs: int
    batch_size: int
    memory_bytes: int | None
    quiet: bool


@click.command("demo")
@click.option("--file", "file", type=click.Path(), help="Your own HDF5 file instead of the digits.")
@click.option("--source", default="X", show_default=True, help="Inputs in --file.")
@click.option(
    "--target", default="y", show_default=True, help="Labels in --file: one integer a row."
)
@click.option(
    "--data",
    type=click.Path(),
    default="demo-data",
    show_default=True,
    help="Folder for the digits' file.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1000),
    default=60_000,
    show_default=True,
    help="Images of digits to compose.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Epochs of training in each order.",
)
@options.batch_size
@click.option(
    "--memory",
    type=options.SIZE,
    help="The most that epochal may hold [32MiB for the digits, a quarter of the rows for --file].",
)
@options.as_json
def command(
    file: str | None,
    source: str,
    target: str,
    data: str,
    rows: int,
    epochs: int,
    batch_size: int,
    memory: int | None,
    as_json: bool,
) -> None:
    """Train one classifier from a compressed file in three orders of its rows, in bounded memory.

    Without --file the rows are colour images composed from scikit-learn's handwritten digits. Ends
    with one table: what each order does to accuracy, how fast it loads, and how much memory that
    takes.
    """
    started = time.perf_counter()
    setting = Setting(epochs, batch_size, memory, quiet=as_json)
    with ExitStack() as stack:
        if file is None:
            path = str(_digits(Path(data), rows, setting))
            found = _run_digits(path, setting, stack)
        else:
            found = _run_file(file, source, target, setting, stack)
    found["seconds"] = time.perf_counter() - started
    if as_json:
        print_json(found)
    else:
        _show(found)


def _digits(folder: Path, n_rows: int, setting: Setting) -> Path:
    with bar(quiet=setting.quiet) as progress:
        task = progress.add_task("composing digits", total=n_rows + HELD_OUT_ROWS)
        return digits_file(folder, n_rows, HELD_OUT_ROWS, lambda n: progress.advance(task, n))


def _run_digits(path: str, setting: Setting, stack: ExitStack) -> dict[str, Any]:
    train = stack.enter_context(epochal.open(path, sources=TRAIN))
    test = stack.enter_context(epochal.open(path, sources=HELD_OUT))
    memory_bytes = setting.memory_bytes or DIGITS_MEMORY_BYTES
    return _run(path, train, train, test, (TRAIN, HELD_OUT), memory_bytes, setting)


def _run_file(
    path: str, source: str, target: str, setting: Setting, stack: ExitStack
) -> dict[str, Any]:
    names = (source, target)
    whole = stack.enter_context(epochal.open(path, sources=names))
    train, test = whole.split(0.9, seed=0)
    quarter = max(_decoded_bytes(whole, names) // 4, LEAST_MEMORY_BYTES)
    memory_bytes = setting.memory_bytes or quarter
    return _run(path, whole, train, test, (names, names), memory_bytes, setting)


def _decoded_bytes(ds: Dataset, names: tuple[str, ...]) -> int:
    return sum(ds.sources[name].layout.decoded_bytes for name in names)


def _run(
    path: str,
    whole: Dataset,
    train: Dataset,
    test: Dataset,
    names: tuple[tuple[str, str], tuple[str, str]],
    memory_bytes: int,
    setting: Setting,
) -> dict[str, Any]:
    race = Race(
        train,
        test,
        *names,
        batch_size=setting.batch_size,
        memory_bytes=memory_bytes,
        n_epochs=setting.epochs,
    )
    decoded_bytes = _decoded_bytes(whole, names[0])
    plan = train.explain(
        "shuffled_sequential",
        batch_size=setting.batch_size,
        sources=names[0],
        seed=0,
        memory=memory_bytes,
    )
    if not setting.quiet:
        _introduce(path, str(plan), memory_bytes, decoded_bytes, setting)
    with bar(quiet=setting.quiet) as progress:
        results = [_run_order(race, order, progress) for order in ORDERS]
    return {
        "file": path,
        "rows": len(train),
        "held_out_rows": len(test),
        "classes": len(race.classes),
        "batch_size": setting.batch_size,
        "epochs": setting.epochs,
        "memory_bytes": memory_bytes,
        "decoded_bytes": decoded_bytes,
        "orders": [asdict(result) for result in results],
        "h5py_rows_per_second": fancy_indexing(path, names[0], setting.batch_size, RIVAL_SECONDS),
    }


def _run_order(race: Race, order: str, progress: Progress) -> Result:
    task = progress.add_task(order, total=len(race.train) * (race.n_epochs + 2))
    result = race.run(order, lambda n: progress.advance(task, n))
    progress.remove_task(task)
    return result


def _introduce(
    path: str, page: str, memory_bytes: int, decoded_bytes: int, setting: Setting
) -> None:
    with epochal.open(path) as ds:
        info.show(info.facts(ds, path))
    say()
    say(page)
    say()
    say(
        f"Training one classifier in {len(ORDERS)} orders, {setting.epochs} epochs each, "
        f"batches of {setting.batch_size}, in {sizes.show(memory_bytes)}: the rows decoded are "
        f"{decoded_bytes / memory_bytes:.1f} times that."
    )
    say()


def _show(found: dict[str, Any]) -> None:
    budget = sizes.show(found["memory_bytes"])
    rows = [_row(result, budget) for result in found["orders"]]
    h5py_rate = found["h5py_rows_per_second"]
    rows.append(("(h5py, fancy indexing)", "", rate(h5py_rate), "", "", ""))
    columns = ("order", "accuracy", "rows/s", "later", "peak", "budget")
    print_table(columns, rows, numbers=(1, 2, 3, 4, 5))
    say()
    exact = found["orders"][-1]["rows_per_second"]
    say(
        f"Exactly shuffled, epochal loads {exact / h5py_rate:,.0f} times as many rows a second "
        "as h5py's fancy indexing."
    )
    say(
        f"Accuracy: after {found['epochs']} epochs, on {found['held_out_rows']:,} held-out rows "
        f"of {found['classes']} classes."
    )
    say(
        "Rows/s: of loading alone, in the first epoch and in a later one; h5py's on as many "
        f"batches as {RIVAL_SECONDS:.0f} seconds allow."
    )
    say(
        "Peak memory: the process's own while loading, over what it held before. "
        f"All in {found['seconds']:.0f} seconds."
    )


def _row(result: dict[str, Any], budget: str) -> tuple[str, ...]:
    peak = result["peak_bytes"]
    return (
        result["order"],
        f"{result['accuracy'][-1]:.1%}",
        rate(result["rows_per_second"]),
        rate(result["later_rows_per_second"]),
        sizes.show(peak) if peak is not None else "unknown",
        budget,
    )
