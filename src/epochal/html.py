"""Tables and texts as HTML, for notebooks. Whatever a file says is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["preformatted", "table"]


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a title.

    >>> table("<f>", ["a"], [["1"]])
    '<p>&lt;f&gt;</p><table><tr><th>a</th></tr><tr><td>1</td></tr></table>'
    """
    lines = [_line("th", columns), *(_line("td", row) for row in rows)]
    return f"<p>{escape(title)}</p><table>{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def preformatted(text: str) -> str:
    """A text as it stands."""
    return f"<pre>{escape(text)}</pre>"
