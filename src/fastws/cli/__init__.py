"""The command line: `fastws COMMAND`, or `python -m fastws COMMAND`.

Each command is a module here: its summary and epilog, its arguments, and what it does. To add
one, write such a module and enter it in `COMMANDS`. Modules whose names begin with an underscore
are parts of a command, or shared by several.

This package knows arguments, terminals, processes and exit statuses. It does not know the
protocol: all communication with peers goes through `serve` and `connect`, except in `probe`,
which sends what they would refuse to send.

Exit statuses: 0 for success, 1 for failure, 2 for an invalid command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final, Protocol

from fastws import __version__

# These modules import asyncio, and what builds on it, only when the command runs: listing the
# commands must be fast. (They are imported by a statement so that PyInstaller finds them.)
from . import bench, completion, connect, echo, info, inspect, probe, run, serve
from ._shared import CommandError, OutputError, escape_logs, say

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]


class Command(Protocol):
    """What the module of a command provides.

    Attributes:
        SUMMARY: what the command does, in one line without a period.
        EPILOG: more help, and an example.
    """

    SUMMARY: str
    EPILOG: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of the command."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit status."""


COMMANDS: Final[dict[str, Command]] = {
    "run": run,
    "serve": serve,
    "echo": echo,
    "connect": connect,
    "probe": probe,
    "bench": bench,
    "inspect": inspect,
    "info": info,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the program's name; by default those of this process.

    Returns:
        the exit status.

    Raises:
        SystemExit: if the arguments are invalid, or ask for help or the version.
    """
    if getattr(sys, "frozen", False):
        from multiprocessing import freeze_support

        freeze_support()  # a worker of a frozen program starts the program again
    args = _parser().parse_args(argv)
    escape_logs()
    try:
        status = COMMANDS[args.command].run(args)
    except CommandError as exc:
        say(f"fastws {args.command}: {exc}")
        for line in exc.details:
            say(f"  {line}")
        status = exc.status
    except OutputError as exc:
        if str(exc):
            say(f"fastws {args.command}: {exc}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python would try again at exit, and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastws",
        description="Tools for WebSocket servers and clients.",
        epilog="Run fastws COMMAND --help for help on a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastws {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(
                name,
                help=command.SUMMARY,
                description=f"{command.SUMMARY[0].upper()}{command.SUMMARY[1:]}.",
                epilog=command.EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    commands.choices["completion"].set_defaults(parser=parser)
    return parser
