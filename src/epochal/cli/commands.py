"""The group of commands, and what becomes of an error."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from epochal import __version__
from epochal.errors import EpochalError

__all__ = ["app", "main"]

# A command is imported when it is called: `epochal info` does not load the classifier of `epochal
# demo`.
COMMANDS = {
    "info": "epochal.cli.info",
    "explain": "epochal.cli.explain",
    "bench": "epochal.cli.bench",
    "convert": "epochal.cli.convert",
    "shuffle": "epochal.cli.shuffle",
    "transform": "epochal.cli.transform",
    "show": "epochal.cli.show",
    "verify": "epochal.cli.verify",
    "svhn": "epochal.cli.svhn",
    "demo": "epochal.cli.demo",
}


class Failure(click.ClickException):
    """An error that a user can do something about: one line, exit status 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print ``epochal: what is wrong``."""
        click.echo(f"epochal: {' '.join(self.message.split())}", err=True, file=file)


class Commands(click.Group):
    """Commands by name, each from its own module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises on purpose becomes one line."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has gone
        except (EpochalError, OSError) as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(130)


@click.command(
    cls=Commands, name="epochal", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """Train on datasets larger than memory, in exactly shuffled order, at the speed of reading them
    once.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names from a file may be any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app.main(args=arguments, prog_name="epochal")
    except KeyboardInterrupt:
        sys.exit(130)  # between two commands' worth of imports, say
    sys.exit(0)
