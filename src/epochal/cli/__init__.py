"""The command line: words, tables, bars. Each command parses, calls one public function and prints.

Exit status: 0 it worked, 1 it failed (one line on standard error says why), 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

from epochal.cli.commands import app, main

__all__ = ["app", "main"]
