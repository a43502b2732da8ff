"""The command line: `fastws run`, `echo`, `connect`, `probe` and `info`.

This module knows arguments, terminals, processes and exit statuses. It does not know the
protocol: everything that it tells a peer goes through `serve` and `connect`.

Exit statuses: 0 if all went well, 1 if not, 2 if the command line makes no sense.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import multiprocessing
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from base64 import b64encode
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from hashlib import sha256
from importlib.resources import files
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from . import __version__
from ._info import DISTRIBUTION, collect
from ._terminal import Keyboard, printable
from .aio.client import connect
from .aio.probe import OUT_OF_TIME, probe
from .aio.protocol import WebSocketProtocol
from .aio.server import serve
from .codec import implementation, kernel
from .exceptions import ConnectionClosed, HandshakeError, InvalidURIError
from .http import Response
from .integrations import IntegrationError
from .integrations._hosts import HOSTS
from .integrations._servers import find
from .integrations._startup import environment, try_out
from .integrations._startup.hook import SEEN, never_imported, warning
from .spec import DEFAULT_MAX_MESSAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from io import FileIO
    from multiprocessing.process import BaseProcess

    from .aio.probe import Result
    from .aio.server import Server
    from .aio.websocket import WebSocket
    from .http import Request
    from .integrations import Installation
    from .integrations._servers import KnownServer

__all__ = ["main"]


class OutputError(Exception):
    """Standard output takes no more; the message says why, if it is of use to anybody."""


class CommandError(Exception):
    """What to tell the user in one line, and the exit status that goes with it."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments after the program's name; by default those of this process.

    Returns:
        the exit status.

    Raises:
        SystemExit: if the arguments are wrong, or ask for help or the version.
    """
    multiprocessing.freeze_support()  # in a frozen program, a worker is the program once more
    args = _parser().parse_args(argv)
    _log_printable()
    try:
        status: int = args.run(args)
    except CommandError as exc:
        _say(f"fastws {args.command}: {exc}")
        status = exc.status
    except OutputError as exc:
        if str(exc):
            _say(f"fastws {args.command}: {exc}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python would try again, and complain, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    return status


# The command line ----------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastws",
        description="Runs servers of others with fastws; an echo server, an interactive client, "
        "a test of servers.",
        epilog="fastws COMMAND --help tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastws {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_echo(commands)
    _add_connect(commands)
    _add_probe(commands)
    _add_info(commands)
    return parser


def _add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_run(commands: Any) -> None:
    parser = _add_command(
        commands,
        "run",
        _run_run,
        "run a Python program with fastws in the servers and clients it uses",
        """\
PROGRAM is a console script of the Python that fastws is installed in, or a path to a script.
fastws is tried in the hosts before the program begins; if it does not work, the exit status is 2,
else it is that of the program. It is put into a host when the program imports that, in its
worker processes too; in a process that does not, nothing is done. What is put in place is told
on standard error, and at the end, which host was never imported. `fastws info` lists the
integrations whose hosts are here.

example:
  fastws run --with wsproto -- hypercorn app:app --workers 4
  fastws run --with wsproto,websockets -- -m quart run""",
    )
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
    add("--quiet", action="store_true", help="tell nothing but errors")
    add("-m", dest="module", nargs=argparse.REMAINDER, help="run a module, as python -m does")
    add("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="what to run")


def _add_echo(commands: Any) -> None:
    parser = _add_command(
        commands,
        "echo",
        _run_echo,
        "a server that sends every message back",
        """\
A browser that is pointed at the server gets a page to try it from.
GET /health is answered with OK. SIGINT (Ctrl-C) and SIGTERM end the server in order.

example:
  fastws echo --port 8080
  fastws echo --host 0.0.0.0 --port 8443 --tls-cert cert.pem --tls-key key.pem""",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add(
        "--port",
        type=partial(_number, 0, 65535),
        default=8080,
        help="the port to listen on; 0 for any that is free (default: %(default)s)",
    )
    add("--uvloop", action="store_true", help="run on uvloop's event loop")
    add("--tls-cert", metavar="FILE", help="serve wss:// with this certificate chain (PEM)")
    add("--tls-key", metavar="FILE", help="its private key, if that is in a file of its own")
    add(
        "--workers",
        type=partial(_number, 1, 1024),
        metavar="N",
        help="run N processes that share the port; the kernel spreads the clients over them, and "
        "one that dies is replaced",
    )
    add(
        "--max-message-size",
        type=partial(_number, 0, sys.maxsize),
        default=DEFAULT_MAX_MESSAGE_SIZE,
        metavar="BYTES",
        help="the largest message taken (default: %(default)s)",
    )
    add("--deflate", action="store_true", help="compress messages where the client can")


def _add_connect(commands: Any) -> None:
    parser = _add_command(
        commands,
        "connect",
        _run_connect,
        "an interactive client: a line in is a message out",
        """\
Type a line and it is sent as a text message. What arrives is printed, a message in a line:
text, and binary messages as a number of bytes and these in hexadecimal. A terminal gets the
first bytes only, and an escape such as \\x1b for each character that it might obey or would not
show. What is no terminal, a pipe or a file, gets all bytes, and text as it is.

  /ping                   measure how long the server takes to answer
  /close [CODE [REASON]]  close the connection
  //...                   send a line that begins with one slash less

The end of the input (Ctrl-D) closes the connection when all answers are there;
Ctrl-C closes it at once.

example:
  fastws connect ws://localhost:8080
  echo hi | fastws connect wss://example.com/chat --header 'Cookie: id=1'""",
    )
    add = parser.add_argument
    add("uri", metavar="URI", help="where to connect: ws://... or wss://...")
    add(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header field for the request; may be repeated",
    )
    add(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to ask for, the preferred one first; may be repeated",
    )
    add("--origin", help="what to say in the Origin header field")
    _add_trust(parser)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--ca", metavar="FILE", help="trust the certificates in this file (PEM)")
    trust.add_argument(
        "--insecure", action="store_true", help="take any certificate, from anyone at all"
    )


def _add_probe(commands: Any) -> None:
    parser = _add_command(
        commands,
        "probe",
        _run_probe,
        "what a server answers to input that breaks the rules",
        """\
Each check has a connection of its own, and is made twice: with everything sent at once,
and byte by byte. A check reads 1 MiB at most. The exit status is 1 if an answer is not what
RFC 6455 or RFC 7692 ask for, if there was no time for all checks, or if there is no server.

example:
  fastws probe ws://localhost:8080
  fastws probe wss://staging.example.com/chat --json""",
    )
    add = parser.add_argument
    add("uri", metavar="URI", help="the server to probe, yours: ws://... or wss://...")
    add("--json", action="store_true", help="print all results as JSON")
    add("--all", action="store_true", help="list what is right, too")
    add(
        "--timeout",
        type=partial(_number, 1, 3600),
        default=5,
        metavar="SECONDS",
        help="how long to wait for an answer (default: %(default)s)",
    )
    add(
        "--total-timeout",
        type=partial(_number, 1, 1_000_000),
        metavar="SECONDS",
        help="how long all of it may take; checks that are left are skipped "
        "(default: 60 times --timeout)",
    )
    _add_trust(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(
        commands,
        "info",
        _run_info,
        "what runs here, and on what: to be put into reports of bugs",
        """\
The keys of the JSON are stable, and documented in README.md. Home directories are written as ~.

example:
  fastws info --json""",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _number(least: int, most: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"not in the range {least}-{most}: {text}")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"not of the form 'Name: value': {text!r}")
    return name, value


# fastws run -----------------------------------------------------------------------------


def _run_run(args: argparse.Namespace) -> int:
    if getattr(sys, "frozen", False):
        raise CommandError("this is a frozen program, which cannot run others", 2)
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
                _say(f"fastws run: {_in_place(installation)}")
    if not args.quiet and server is not None and not _fits(server, names, command):
        _say(f"fastws run: {advice}")
    environ = environment(
        names, os.environ, untested=args.untested, advice=None if args.quiet else advice or ""
    )
    command = [sys.executable, *command]
    if os.name == "posix":
        # The program gets our process: its signals, its exit status and its id are its own.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os.execve(sys.executable, command, environ)  # noqa: S606
    status = subprocess.run(command, env=environ, check=False).returncode  # noqa: S603
    if SEEN in environ:
        packages = [HOSTS[name].package for name in names]
        missing = never_imported(packages, environ[SEEN])
        if missing:
            _say(warning(missing, advice or "").removesuffix("\n"))
    return status


def _program(command: list[str]) -> str:
    """Return the name of what is run: of the script, or of the top package of the module."""
    if command[:1] == ["-m"]:
        return "".join(command[1:2]).partition(".")[0]
    return os.path.basename("".join(command[:1]))


def _integrations(named: list[str], program: str) -> list[str]:
    """Return the names of the integrations, each once, if there are such."""
    known = [name for name, host in HOSTS.items() if host.installable]
    for name in named:
        if name not in known:
            server = find(name)
            if server is not None:
                raise CommandError(f"{name} is not a host itself; {server.advice}", 2)
            raise CommandError(f"no integration {name!r}, but {', '.join(known)}", 2)
    if not named:
        server = find(program)
        if server is not None:
            raise CommandError(f"--with is missing; {program}: {server.advice}", 2)
        raise CommandError(f"--with is missing; it names one or more of {', '.join(known)}", 2)
    return [*dict.fromkeys(named)]


def _in_place(installation: Installation) -> str:
    """Say what is put into a host."""
    tested = "" if installation.tested else " (not tested)"
    what = ", ".join(installation.replaced)
    if not what:
        what = f"nothing is replaced, since nothing would be gained with the twin {implementation}"
    return (
        f"{installation.name} {installation.version}{tested} with fastws {__version__}, "
        f"twin {implementation}, kernel {kernel}: {what}"
    )


def _fits(server: KnownServer, names: list[str], command: list[str]) -> bool:
    """Whether a server has a use for one of these integrations; if we know what it uses."""
    # With this option of uvicorn, whoever gave it knows what they do.
    return not set(server.hosts).isdisjoint(names) or "--ws" in command


def _script(command: list[str]) -> str:
    """Return the path of a program, which has to be a script of this Python."""
    if not command:
        raise CommandError("what is to be run?", 2)
    name = command[0]
    ours = sysconfig.get_path("scripts")
    path = shutil.which(name, path=ours) or shutil.which(name)
    if path is None and os.path.isfile(name):
        path = name
    if path is None:
        raise CommandError(f"no program {name!r}", 2)
    if os.name != "posix":
        return path
    with open(path, "rb") as file:
        head = file.read(1024)
    found = re.match(rb"#!\s*(?:\S*/env\s+)?(\S+)", head)
    if found is not None and found[1] == b"/bin/sh":
        # What pip writes for an interpreter whose path is too long for the first line.
        found = re.search(rb"\n'{3}exec' \"?([^\"\n]*?)\"? \"\$0\"", head)
    interpreter = os.fsdecode(found[1]) if found else ""
    if "python" not in os.path.basename(interpreter) and not path.endswith(".py"):
        raise CommandError(f"{path} is not a Python script", 2)
    folder = os.path.dirname(interpreter)
    if folder and os.path.realpath(folder) != os.path.realpath(os.path.dirname(sys.executable)):
        raise CommandError(f"{path} is for another Python, {interpreter}: install fastws there", 2)
    return path


# fastws info ----------------------------------------------------------------------------


def _run_info(args: argparse.Namespace) -> int:
    info = collect(__version__)
    if args.json:
        _print(json.dumps(info, indent=2))
        return 0
    for name, text in _readable(info):
        _print(f"{name:<12} {text}")
    return 0


def _readable(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put what `collect` found into lines."""

    def known(versions: dict[str, str | None]) -> str:
        return ", ".join(f"{name} {number or 'not installed'}" for name, number in versions.items())

    installation, python, system = info["installation"], info["python"], info["platform"]
    if installation["editable"]:
        how = "editable"
    elif installation["version"] is None:
        how = "not installed"
    else:
        how = " ".join(installation["wheel"]) or "from no wheel"
    if installation["version"] not in (None, info["fastws"]):
        how += f", of {installation['version']}"
    yield "fastws", f"{info['fastws']} ({how})"
    yield "location", installation["location"]
    for sentence in info["warnings"]:
        yield "warning", sentence
    error = info["extension_error"]
    yield "twin", f"{info['twin']}: {info['twin_reason']}{f' ({error})' if error else ''}"
    others = ", ".join(name for name in info["kernels"] if name != info["kernel"])
    yield "kernel", info["kernel"] + (f" (there are {others} too)" if others else "")
    if info["extension"] is not None:
        yield "built with", "Cython {cython}, {compiler}".format(**info["extension"])
    yield "python", f"{python['implementation']} {python['version']} ({python['build']})"
    gil = "GIL" if python["gil_enabled"] else "no GIL"
    if python["free_threaded"]:
        gil += ", free-threaded"
    yield "", f"{python['compiler'] or 'unknown compiler'}, {gil}"
    yield "platform", f"{system['name']}"
    libc = f", {system['libc']}" if system["libc"] else ""
    order = f"{system['bits']}-bit, {system['byte_order']}-endian"
    yield "", f"{system['machine']}, {order}{libc}"
    yield "deflate", known(info["deflate"])
    yield "tls", info["openssl"]
    yield "with", known(info["dependencies"])
    found = [
        f"{name} {host['version']}" + ("" if host["tested"] else " (not tested)")
        for name, host in info["integrations"].items()
    ]
    yield "hosts", ", ".join(found) or "none"
    settings = [f"{name}={value}" for name, value in info["environment"].items()]
    yield "environment", ", ".join(settings) or "nothing set"


# fastws echo ----------------------------------------------------------------------------


class _Echo(WebSocketProtocol):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


def _run_echo(args: argparse.Namespace) -> int:
    if args.tls_key is not None and args.tls_cert is None:
        raise CommandError("--tls-key goes with --tls-cert", 2)
    # All that can be found wrong before there is a server is found here, once.
    _tls_context(args)
    _loop_factory(args)
    if args.workers is not None:
        return _run_workers(args)

    def announce(server: Server) -> None:
        with suppress(BrokenPipeError):
            for sock in server.sockets:
                print(_announcement(args, sock.getsockname()), flush=True)

    try:
        _echo(args, announce)
    except KeyboardInterrupt:
        pass  # where the event loop knows no signals, on Windows
    except (OSError, ValueError) as exc:
        raise CommandError(_cannot_listen(args, exc)) from exc
    return 0


def _echo(
    args: argparse.Namespace, announce: Callable[[Server], None], *, parent: int | None = None
) -> None:
    """Run an echo server in this process until a signal ends it.

    Args:
        announce: called when the server listens and heeds signals.
        parent: in a worker, what gets readable when the parent process dies.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async with serve(
            _Echo,
            args.host,
            args.port,
            ssl=_tls_context(args),
            process_request=_Pages(),
            max_message_size=args.max_message_size,
            deflate=args.deflate,
            reuse_port=True if args.workers is not None else None,
        ) as server:
            # Whoever reads the announcement may send a signal right away. This runs when
            # serve_forever waits, and that is when it has installed its handlers.
            loop.call_soon(announce, server)
            if parent is None:
                await server.serve_forever()
            else:

                def orphaned() -> None:
                    loop.remove_reader(parent)
                    signal.raise_signal(signal.SIGTERM)

                loop.add_reader(parent, orphaned)
                # The terminal's Ctrl-C reaches every process; workers await the parent's word.
                await server.serve_forever(signals=[signal.SIGTERM])
                loop.remove_reader(parent)

    with asyncio.Runner(loop_factory=_loop_factory(args)) as runner:
        runner.run(run())


def _announcement(args: argparse.Namespace, address: tuple[Any, ...]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    secure = "" if args.tls_cert is None else "s"
    line = (
        f"fastws echo: ws{secure}://{host}:{address[1]} "
        f"(and http{secure}://{host}:{address[1]} in a browser), "
        f"twin {implementation}, kernel {kernel}"
    )
    return line if args.workers is None else f"{line}, workers {args.workers}"


def _tls_context(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    paths = [path for path in (args.tls_cert, args.tls_key) if path is not None]
    try:
        context.load_cert_chain(*paths)
    except ssl.SSLError as exc:
        message = f"not a certificate and its private key in PEM: {' '.join(paths)}"
        raise CommandError(f"{message} ({_describe(exc)})") from exc
    except OSError as exc:
        # The exception does not say which.
        unreadable = [path for path in paths if not os.access(path, os.R_OK)] or paths
        raise CommandError(f"cannot read {unreadable[0]}: {_describe(exc)}") from exc
    return context


def _loop_factory(args: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not args.uvloop:
        return None
    try:
        import uvloop
    except ImportError as exc:
        message = f"uvloop is not installed; pip install {DISTRIBUTION}[uvloop] does it"
        raise CommandError(message) from exc
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _cannot_listen(args: argparse.Namespace, exc: Exception) -> str:
    where = f"{args.host} port {args.port}"
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: another program does"
    return f"cannot listen on {where}: {_describe(exc)}"


class _Pages:
    """What the echo server answers to plain HTTP: a page to try it from, and a health check."""

    def __init__(self) -> None:
        try:
            # Line ends as an HTML parser sees them, for the hashes below.
            html = files("fastws").joinpath("demo", "index.html").read_text("utf-8")
        except OSError:
            html = "<!doctype html><title>fastws</title>The page is missing in this frozen program."
        # The page may run what it is made of and nothing else, load nothing, and connect to
        # any WebSocket server that is typed into it.
        policy = [
            "default-src 'none'",
            *(
                f"{kind}-src {' '.join(map(_csp_hash, re.findall(pattern, html, re.DOTALL)))}"
                for kind, pattern in (
                    ("script", "<script>(.*?)</script>"),
                    ("style", "<style>(.*?)</style>"),
                )
            ),
            "connect-src 'self' ws: wss:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "; ".join(policy),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        self._page = Response.html(html, 200, headers)
        self._health = Response.text("OK\n", 200, {"Cache-Control": "no-store"})

    def __call__(self, request: Request) -> Response | None:
        if request.is_websocket:
            return None
        if request.method not in ("GET", "HEAD"):
            return Response.text("GET or HEAD\n", 405, {"Allow": "GET, HEAD"})
        if request.path == "/":
            return self._page
        if request.path == "/health":
            return self._health
        return Response.text("nothing here but / and /health\n", 404)


def _csp_hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


# fastws echo --workers --------------------------------------------------------------------


# A worker that dies sooner than this, in seconds, is not replaced at once if the one before it did
# so too, but after a time that doubles up to the longest.
_STEADY = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0


class _Worker:
    """A worker process that runs, and the one that takes its place when it dies.

    Attributes:
        process: the process.
        ready: yields the addresses that it listens on, or why it does not.
        due: when to start another process, as `time.monotonic` has it; None while it runs.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._delay = 0.0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ready, child_end = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(self._args, child_end), daemon=True)
        # The terminal's Ctrl-C is for the parent to act upon; the child inherits the mask.
        resource_tracker.ensure_running()  # or it would be started now, and unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        child_end.close()
        self.process: BaseProcess = process
        self.ready = ready
        self.due: float | None = None
        self._started = time.monotonic()

    def died(self) -> float:
        """Take note of it; return in how many seconds to start another process."""
        now = time.monotonic()
        if now - self._started >= _STEADY:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
        self.due = now + delay
        return delay

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.ready.close()


def _run_workers(args: argparse.Namespace) -> int:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise CommandError("--workers needs SO_REUSEPORT, which this platform does not have")
    if args.port == 0:
        raise CommandError("--workers needs a --port: with 0 each would listen elsewhere", 2)
    try:
        _check_free(args.host, args.port)
    except (OSError, ValueError) as exc:
        raise CommandError(_cannot_listen(args, exc)) from exc

    # Signals arrive as bytes on a socket, so that there is one place where this process
    # waits, and nothing to be interrupted.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    workers: list[_Worker] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(sender.fileno())
    try:
        for number in handlers:
            signal.signal(number, _no_action)
        workers.extend(_Worker(args) for _ in range(args.workers))
        return _watch(workers, receiver, partial(_announcement, args))
    finally:
        for worker in workers:
            worker.close()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()


def _check_free(host: str, port: int) -> None:
    """Raise OSError if another server listens there.

    With SO_REUSEPORT a server of the same user would get some of our clients, silently.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
        except OSError as exc:
            # Other trouble is the workers' to meet: asyncio passes over some of it.
            if exc.errno == errno.EADDRINUSE:
                raise


def _watch(workers: list[_Worker], signals: socket.socket, announce: Callable[[Any], str]) -> int:
    """Replace workers that die, until a signal says to stop; then wait until all are gone."""
    status = 0
    stopping = False
    announced = False
    starting: dict[Any, _Worker] = {worker.ready: worker for worker in workers}
    running: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in workers}

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for worker in running.values():
            worker.process.terminate()

    while running or not stopping:
        now = time.monotonic()
        for worker in workers:
            if worker.due is not None and worker.due <= now and not stopping:
                try:
                    worker.start()
                except OSError as exc:
                    delay = worker.died()
                    _say(f"fastws echo: cannot start a worker, next try in {delay:g} s: {exc}")
                else:
                    starting[worker.ready] = running[worker.process.sentinel] = worker
        due = [worker.due for worker in workers if worker.due is not None and not stopping]
        # What a worker has to say comes before the news that it is gone.
        waited = [signals, *starting, *running]
        timeout = max(min(due) - now, 0.0) if due else None
        for ready in sorted(pipes.wait(waited, timeout), key=waited.index):
            if ready is signals:
                signals.recv(64)
                stop()
            elif ready in starting:
                worker = starting.pop(ready)
                with suppress(EOFError):
                    message = worker.ready.recv()
                    if isinstance(message, str):
                        if status == 0:
                            _say(f"fastws echo: {message}")
                        if not announced:
                            # Nor would others be able to.
                            status = 1
                            stop()
                    elif not starting and not stopping and not announced:
                        announced = True
                        with suppress(BrokenPipeError):
                            print(*map(announce, message), sep="\n", flush=True)
            else:
                worker = running.pop(ready)
                starting.pop(worker.ready, None)
                worker.process.join()
                worker.ready.close()
                if not stopping:
                    delay = worker.died()
                    when = f"in {delay:g} s" if delay else "now"
                    fate = (
                        f"worker {worker.process.pid} ended unexpectedly, {_fate(worker.process)}"
                    )
                    _say(f"fastws echo: {fate}; another one starts {when}")
    return status


def _fate(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _no_action(*_: object) -> None:
    pass


def _work(args: argparse.Namespace, ready: pipes.Connection) -> None:
    """Be a worker process."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def announce(server: Server) -> None:
        ready.send([sock.getsockname() for sock in server.sockets])

    _log_printable()
    try:
        _echo(args, announce, parent=parent.sentinel)
    except (OSError, ValueError) as exc:
        with suppress(OSError):
            ready.send(_cannot_listen(args, exc))
        sys.exit(1)


# fastws connect ---------------------------------------------------------------------------


def _run_connect(args: argparse.Namespace) -> int:
    try:
        connecting = connect(
            args.uri,
            ssl=_trust(args),
            origin=args.origin,
            subprotocols=args.subprotocol,
            headers=args.header,
        )
    except (HandshakeError, ValueError) as exc:
        raise CommandError(str(exc), 2) from exc
    # What the terminal cannot show must not end the conversation, and text stays as it is.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace", newline="\n")
    keyboard = Keyboard(sys.stdin.fileno(), sys.stdin.encoding) if _is_tty(sys.stdin) else None
    with keyboard or nullcontext():
        return asyncio.run(_Conversation(keyboard).hold(connecting))


def _trust(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if args.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=args.ca)
    except ssl.SSLError as exc:
        raise CommandError(f"no certificates in PEM in {args.ca} ({_describe(exc)})") from exc
    except OSError as exc:
        raise CommandError(f"cannot read {args.ca}: {_describe(exc)}") from exc


class _Conversation:
    """One run of `fastws connect`.

    Args:
        keyboard: where lines are typed; None if nobody does.
    """

    def __init__(self, keyboard: Keyboard | None) -> None:
        self._keyboard = keyboard
        self._shows = _is_tty(sys.stdout)
        self._failed = False
        self._closed_by_user: int | None = None

    async def hold(self, connecting: connect[WebSocket]) -> int:
        """Connect, talk until the connection is closed, and return the exit status."""
        try:
            ws = await connecting
        except (OSError, HandshakeError) as exc:
            raise CommandError(f"cannot connect: {_describe(exc)}") from exc
        if self._keyboard is not None:
            agreed = f" ({ws.subprotocol})" if ws.subprotocol else ""
            _say(f"connected{agreed}; a line is a message, Ctrl-D ends, /ping, /close, // for /")
        sender = asyncio.create_task(self._send_lines(ws))
        lost: OutputError | None = None
        try:
            with suppress(ConnectionClosed):
                while True:
                    self._show(await ws.recv())
        except asyncio.CancelledError:  # Ctrl-C
            await ws.close()
        except OutputError as exc:
            lost = exc
            await ws.close()
        finally:
            sender.cancel()
            await asyncio.wait([sender])
        await ws.wait_closed()
        if not sender.cancelled():
            sender.result()
        status = self._report(ws)
        if lost is not None:
            raise lost
        return status

    def _show(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            rest = " ..." if self._shows and len(message) > 32 else ""
            shown = message[:32] if rest else message
            message = f"binary, {len(message)} bytes: {shown.hex(' ')}{rest}"
        if self._shows:
            # No line of it can be taken for one of ours.
            message = "< " + printable(message, keep="\n\t").replace("\n", "\n  ")
        _print(message)

    def _report(self, ws: WebSocket) -> int:
        assert ws.close_code is not None
        closed = ConnectionClosed(ws.close_code, ws.close_reason)
        _say(f"closed: {closed}")
        normal = closed.is_normal or closed.code == self._closed_by_user
        return 0 if normal and not self._failed else 1

    async def _send_lines(self, ws: WebSocket) -> None:
        with suppress(ConnectionClosed):
            try:
                async for line in _lines_of_stdin(self._keyboard):
                    if line.startswith("/") and not line.startswith("//"):
                        await self._obey(ws, line)
                    else:
                        await ws.send(line[1:] if line.startswith("//") else line)
            except (OSError, UnicodeError) as exc:
                self._complain(f"standard input: {_describe(exc)}")
            # A server that learns that we are done may answer no more, not even what it has
            # yet to read. Its pong says that it has read everything.
            await ws.ping()
            await ws.close()

    async def _obey(self, ws: WebSocket, line: str) -> None:
        command, *words = line.split(maxsplit=2)
        if command == "/ping" and not words:
            _say(f"pong after {await ws.ping() * 1000:.1f} ms")
        elif command == "/close":
            code = words[0] if words else "1000"
            if not code.isdecimal():
                self._complain(f"not a close code: {code}")
                return
            self._closed_by_user = int(code)
            try:
                await ws.close(int(code), *words[1:])
            except ValueError as exc:
                self._closed_by_user = None
                self._complain(str(exc))
        else:
            self._complain(f"no such command: {line}; // sends a line that begins with a slash")

    def _complain(self, message: str) -> None:
        _say(f"fastws connect: {message}")
        # Who types can try again; a pipe cannot.
        self._failed = self._failed or self._keyboard is None


async def _lines_of_stdin(keyboard: Keyboard | None) -> AsyncIterator[str]:
    """Read standard input line by line, no faster than the lines are taken.

    Raises:
        OSError: if it cannot be read.
        UnicodeError: if it is not text.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[bytes] | Exception | None] = asyncio.Queue()
    wanted = threading.Semaphore(1)

    def read() -> None:
        chunks = _read_stdin(keyboard)
        while True:
            wanted.acquire()
            item: list[bytes] | Exception | None
            try:
                item = next(chunks, None)
            except Exception as exc:
                item = exc
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, item)
            except RuntimeError:
                return  # the loop is closed: nobody wants to know any more
            if item is None or isinstance(item, Exception):
                return

    # Nothing else waits for a terminal, a pipe and a file on every platform. It cannot be
    # interrupted either, so it must not keep the process alive.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while True:
        item = await arrived.get()
        if item is None:
            return
        if isinstance(item, Exception):
            raise item
        for line in item:
            yield line.removesuffix(b"\r").decode(sys.stdin.encoding)
        wanted.release()


def _read_stdin(keyboard: Keyboard | None) -> Iterator[list[bytes]]:
    """Yield the lines that each read of standard input brings."""
    if sys.stdin is None:
        return
    parts: list[bytes] = []
    # Without a buffer, for its lock would be held while we wait, and the interpreter wants
    # it when it exits.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        for data in _pieces(stdin, keyboard):
            first, *lines = data.split(b"\n")
            parts.append(first)
            if lines:
                lines.insert(0, b"".join(parts))
                parts = [lines.pop()]
                yield lines
    if last := b"".join(parts):
        yield [last]


def _pieces(stdin: FileIO, keyboard: Keyboard | None) -> Iterator[bytes]:
    """Yield what is read, or typed, up to the end of it."""
    while (data := stdin.read(64 << 10)) != b"":
        if data is None:  # somebody made it non-blocking
            select.select([stdin], [], [])
        elif keyboard is None or not keyboard.active:
            yield data
        else:
            for line in keyboard.feed(data):
                if not line:
                    return
                yield line


# fastws probe -----------------------------------------------------------------------------


def _run_probe(args: argparse.Namespace) -> int:
    counts = dict.fromkeys(("ok", "wrong", "skipped"), 0)

    def show(result: Result) -> None:
        counts[result.verdict] += 1
        if args.json or not (args.all or result.verdict == "wrong"):
            return
        check = result.check
        _print(f"{result.verdict:7} {check.name}, {result.manner}: {printable(result.answer)}")
        if result.verdict == "wrong":
            expected = " or ".join(check.expected)
            _print(f"        expected {expected}: {check.rule} (RFC {check.section})")

    probing = probe(
        args.uri,
        ssl=_trust(args),
        timeout=args.timeout,
        total_timeout=args.total_timeout,
        on_result=show,
    )
    try:
        results = asyncio.run(probing)
    except InvalidURIError as exc:
        raise CommandError(str(exc), 2) from exc
    except (OSError, HandshakeError) as exc:
        raise CommandError(f"cannot connect: {_describe(exc)}") from exc
    if args.json:
        rows = [
            {
                "check": result.check.name,
                "manner": result.manner,
                "verdict": result.verdict,
                "answer": result.answer,
                "expected": result.check.expected,
                "rule": result.check.rule,
                "rfc": result.check.section,
            }
            for result in results
        ]
        # JSON escapes all that a terminal might obey but this one.
        _print(json.dumps(rows, indent=2).replace("\x7f", r"\u007f"))
    else:
        _print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    incomplete = any(result.answer == OUT_OF_TIME for result in results)
    if incomplete:
        _say(f"fastws probe: {OUT_OF_TIME.removeprefix('not tried: ')}; --total-timeout gives more")
    return 1 if counts["wrong"] or incomplete else 0


# Helpers ----------------------------------------------------------------------------------


def _is_tty(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _print(text: str) -> None:
    """Print a line of what the command is for.

    Raises:
        OutputError: if that cannot be.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as exc:
        raise OutputError from exc  # which is no news to whoever read it
    except OSError as exc:
        raise OutputError(f"standard output: {_describe(exc)}") from exc


def _say(message: str) -> None:
    """Tell the user something in one line, whoever's words are in it."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """Writes what is logged such that a terminal obeys nothing of it."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def _log_printable() -> None:
    """See to it that what peers sent can be logged; unless somebody does that by themselves."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


def _describe(exc: Exception) -> str:
    """Say in a few words what is wrong."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return re.sub(r" \(_ssl\.c:\d+\)$", "", exc.strerror or str(exc))
    if isinstance(exc, socket.gaierror):
        return exc.strerror or str(exc)
    if isinstance(exc, OSError) and exc.errno is not None:
        # asyncio's own text repeats what was typed.
        return os.strerror(exc.errno)
    return str(exc) or type(exc).__name__
