"""``epochal demo``: the main job on real input, from a compressed file to a table of what its order
cost.
"""

from __future__ import annotations

from epochal.cli.demo.command import command

__all__ = ["command"]
