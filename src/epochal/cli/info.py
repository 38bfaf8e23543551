"""``epochal info FILE``: what is in a file, and what of it is a source."""

from __future__ import annotations

from typing import Any

import click

import epochal
from epochal import sizes
from epochal.cli import options
from epochal.cli.output import print_json, print_table, say
from epochal.dataset import Dataset
from epochal.layout import RaggedLayout

__all__ = ["command", "facts", "show"]


@click.command("info")
@options.file_argument
@options.untrusted
@options.as_json
def command(file: str, untrusted: bool, as_json: bool) -> None:
    """Show the sources of FILE, how they are stored, and what is not a source and why."""
    with epochal.open(file, untrusted=untrusted) as ds:
        found = facts(ds, file)
    if as_json:
        print_json(found)
    else:
        show(found)


def facts(ds: Dataset, file: str) -> dict[str, Any]:
    """What `info` shows, as JSON has it."""
    sources = []
    for name, view in ds.sources.items():
        layout = view.layout
        chunks: dict[str, Any] = {}
        if isinstance(layout, RaggedLayout):
            chunks = {"chunk_rows": None, "n_chunks": None, "items": int(layout.offsets[-1])}
        else:
            chunks = {"chunk_rows": layout.chunk_rows, "n_chunks": layout.n_chunks}
        sources.append(
            {
                "name": name,
                "shape": list(layout.shape),
                "dtype": str(layout.dtype),
                "kind": layout.kind,
                "codec": layout.codec,
                "stored_bytes": layout.stored_bytes,
                "decoded_bytes": layout.decoded_bytes,
                **chunks,
                "parallel": layout.parallel,
            }
        )
    others = [
        {
            "name": other.name,
            "why": other.why,
            "shape": list(other.shape) if other.shape is not None else None,
            "dtype": other.dtype,
        }
        for other in ds.others
    ]
    return {"file": file, "rows": len(ds), "sources": sources, "others": others}


def show(found: dict[str, Any]) -> None:
    """Print the facts for people."""
    say(f"{found['file']}: {found['rows']:,} rows")
    say()
    columns = (
        "source",
        "shape",
        "dtype",
        "layout",
        "codec",
        "stored",
        "decoded",
        "ratio",
        "chunk rows",
    )
    print_table(columns, [_row(source) for source in found["sources"]], numbers=(5, 6, 7, 8))
    if found["others"]:
        say()
        others = [
            (other["name"], _shape(other["shape"]), other["dtype"], other["why"])
            for other in found["others"]
        ]
        print_table(("not a source", "shape", "dtype", "why"), others)


def _row(source: dict[str, Any]) -> tuple[str, ...]:
    stored, decoded = source["stored_bytes"], source["decoded_bytes"]
    return (
        source["name"],
        _shape(source["shape"]),
        source["dtype"],
        source["kind"],
        source["codec"] or "none",
        sizes.show(stored),
        sizes.show(decoded),
        f"{decoded / stored:.1f}x" if stored else "",
        "" if source["chunk_rows"] is None else f"{source['chunk_rows']:,}",
    )


def _shape(shape: list[int] | None) -> str:
    return "" if shape is None else "x".join(f"{n}" for n in shape) or "scalar"
