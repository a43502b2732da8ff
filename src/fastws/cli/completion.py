"""`fastws completion`: print a script that completes the commands and options of `fastws`.

This module knows which shells there are, and which arguments are names of files. It does not know
the commands: it gets the parser of all of them. shtab writes the script.
"""

from __future__ import annotations

from argparse import _SubParsersAction
from typing import TYPE_CHECKING, Any, Final

from ._shared import DISTRIBUTION, CommandError, print_line

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "print a script that completes commands in a shell"

EPILOG = """\
The script completes commands, options, and names of files. It comes from shtab, which is in the
extra fastws-codec[cli]. Print it again after an update of fastws.

example:
  fastws completion bash > ~/.local/share/bash-completion/completions/fastws
  fastws completion fish > ~/.config/fish/completions/fastws.fish
  fastws completion zsh > ~/.zfunc/_fastws     # a directory in $fpath
  fastws completion tcsh > ~/.fastws.csh       # source it in ~/.tcshrc"""

_SHELLS: Final = ("bash", "zsh", "fish", "tcsh")
_FILES: Final = ("FILE", "PATH")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("shell", choices=_SHELLS, help="the shell that will read the script")


def run(args: Namespace) -> int:
    """Print the script for a shell. `args.parser` is the parser of all commands."""
    try:
        import shtab
    except ImportError as exc:
        message = f"shtab is not installed; pip install {DISTRIBUTION}[cli] installs it"
        raise CommandError(message) from exc
    _mark_files(args.parser, shtab.FILE)
    print_line(shtab.complete(args.parser, args.shell))
    return 0


def _mark_files(parser: ArgumentParser, how: Any) -> None:
    """Tell shtab which arguments are names of files: it looks for an attribute."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                _mark_files(command, how)
        elif action.metavar in _FILES:
            action.complete = how  # type: ignore[attr-defined]
