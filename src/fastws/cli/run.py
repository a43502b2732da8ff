"""`fastws run`: run a program that knows nothing of fastws with fastws in its hosts.

This module knows programs and how they are started. It does not know how fastws gets into a
host: that is the job of `integrations`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from argparse import REMAINDER
from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastws import __version__
from fastws.codec import implementation, kernel
from fastws.integrations import IntegrationError
from fastws.integrations._hosts import HOSTS
from fastws.integrations._servers import find
from fastws.integrations._startup import environment, try_out
from fastws.integrations._startup.hook import SEEN, never_imported, warning

from ._shared import CommandError, say

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from fastws.integrations import Installation
    from fastws.integrations._servers import KnownServer

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "run a Python program with fastws in the servers and clients it uses"

EPILOG = """\
PROGRAM is a console script of the Python that fastws is installed in, or the path of a script.
fastws first installs itself in the hosts to see whether it works there. If it does not, the exit
status is 2; otherwise it is that of the program. In the program and its worker processes, fastws
is installed in a host when the host is imported; a process that imports none is left alone.
Standard error shows what is replaced and, at the end, which hosts were never imported.
`fastws info` lists the integrations whose hosts are installed.

example:
  fastws run --with wsproto -- hypercorn app:app --workers 4
  fastws run --with wsproto,websockets -- -m quart run"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.usage = (
        "%(prog)s --with NAME[,NAME...] [--quiet] [--] (PROGRAM | -m MODULE) [ARGUMENT ...]"
    )
    add = parser.add_argument
    add(
        "--with",
        dest="integrations",
        type=lambda text: [name.strip().replace("-", "_") for name in text.split(",")],
        action="extend",
        default=[],
        metavar="NAME[,NAME...]",
        help="the integrations to install; may be repeated",
    )
    add("--untested", action="store_true", help="install them in untested versions of hosts, too")
    add("--quiet", action="store_true", help="print errors only")
    add("-m", dest="module", nargs=REMAINDER, help="run a module, as python -m does")
    add("program", nargs=REMAINDER, metavar="PROGRAM", help="the program to run")


def run(args: Namespace) -> int:
    """Replace this process with the program; on Windows, run it and return its exit status."""
    if getattr(sys, "frozen", False):
        raise CommandError("a frozen program cannot run other programs", 2)
    if args.module is not None:
        command = ["-m", *args.module]
    else:
        command = args.program[args.program[:1] == ["--"] :]
    program = _program(command)
    names = _integrations(args.integrations, program)
    if command[:1] != ["-m"]:
        command[:1] = [_script(command)]
    elif len(command) < 2:
        raise CommandError("-m needs the name of a module", 2)
    server = find(program)
    advice = None if server is None else f"{program}: {server.advice}"
    with ExitStack() as tried:
        for name in names:
            try:
                installation = tried.enter_context(try_out(name, untested=args.untested))
            except (ImportError, IntegrationError) as exc:
                raise CommandError(str(exc), 2) from exc
            if not args.quiet:
                say(f"fastws run: {_in_place(installation)}")
    if not args.quiet and server is not None and not _fits(server, names, command):
        say(f"fastws run: {advice}")
    environ = environment(
        names, os.environ, untested=args.untested, advice=None if args.quiet else advice or ""
    )
    command = [sys.executable, *command]
    if os.name == "posix":
        # The program takes over our process, and with it the process id and all signals.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os.execve(sys.executable, command, environ)  # noqa: S606
    status = subprocess.run(command, env=environ, check=False).returncode  # noqa: S603
    if SEEN in environ:
        packages = [HOSTS[name].package for name in names]
        missing = never_imported(packages, environ[SEEN])
        if missing:
            say(warning(missing, advice or "").removesuffix("\n"))
    return status


def _program(command: list[str]) -> str:
    """Return the name of the program: of the script, or of the top package of the module."""
    if command[:1] == ["-m"]:
        return "".join(command[1:2]).partition(".")[0]
    return os.path.basename("".join(command[:1]))


def _integrations(named: list[str], program: str) -> list[str]:
    """Check the names of the integrations, and return each of them once."""
    known = [name for name, host in HOSTS.items() if host.installable]
    choice = f"(choose from {', '.join(known)})"
    for name in named:
        if name not in known:
            server = find(name)
            if server is not None:
                raise CommandError(f"{name} is not a host itself; {server.advice}", 2)
            raise CommandError(f"unknown integration {name!r} {choice}", 2)
    if not named:
        server = find(program)
        if server is not None:
            raise CommandError(f"--with is missing; {program}: {server.advice}", 2)
        raise CommandError(f"--with is missing {choice}", 2)
    return [*dict.fromkeys(named)]


def _in_place(installation: Installation) -> str:
    """Describe what is replaced in a host."""
    tested = "" if installation.tested else " (not tested)"
    what = ", ".join(installation.replaced)
    if not what:
        what = f"nothing is replaced, since nothing would be gained with the twin {implementation}"
    return (
        f"{installation.name} {installation.version}{tested} with fastws {__version__}, "
        f"twin {implementation}, kernel {kernel}: {what}"
    )


def _fits(server: KnownServer, names: list[str], command: list[str]) -> bool:
    """Return whether a known server has a use for one of these integrations."""
    # A user who gives this option of uvicorn has chosen the WebSocket library.
    return not set(server.hosts).isdisjoint(names) or "--ws" in command


def _script(command: list[str]) -> str:
    """Return the path of a program, which must be a script of this Python."""
    if not command:
        raise CommandError("no program to run", 2)
    name = command[0]
    ours = sysconfig.get_path("scripts")
    path = shutil.which(name, path=ours) or shutil.which(name)
    if path is None and os.path.isfile(name):
        path = name
    if path is None:
        raise CommandError(f"cannot find the program {name!r}", 2)
    if os.name != "posix":
        return path
    with open(path, "rb") as file:
        head = file.read(1024)
    found = re.match(rb"#!\s*(?:\S*/env\s+)?(\S+)", head)
    if found is not None and found[1] == b"/bin/sh":
        # pip writes this if the path of the interpreter is too long for the first line.
        found = re.search(rb"\n'{3}exec' \"?([^\"\n]*?)\"? \"\$0\"", head)
    interpreter = os.fsdecode(found[1]) if found else ""
    if "python" not in os.path.basename(interpreter) and not path.endswith(".py"):
        raise CommandError(f"{path} is not a Python script", 2)
    folder = os.path.dirname(interpreter)
    if folder and os.path.realpath(folder) != os.path.realpath(os.path.dirname(sys.executable)):
        raise CommandError(f"{path} is for another Python, {interpreter}: install fastws there", 2)
    return path
