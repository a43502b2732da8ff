"""`fastws serve`: run a handler of yours, in one process or several.

This module knows the options of the command, and which of them do not go together. The server
itself is in `_handlers`, its worker processes are in `_workers`.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from argparse import ArgumentTypeError
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from ._shared import CommandError, add_server_arguments, check_server_arguments, integer

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from fastws.aio.server import Server

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "run a handler in a server, with worker processes"

EPILOG = """\
MODULE:NAME is imported from the current directory, or from wherever Python looks. It is what
`fastws.serve` takes, a coroutine function or a subclass of WebSocketProtocol; or an asynchronous
context manager, which each process enters before it listens and leaves when all connections have
ended, and whose result is the handler.

If systemd passes sockets (LISTEN_FDS), the server listens on these instead of --host and --port;
--backlog replaces the Backlog= of their unit.
GET /health is answered with OK, unless --process-request is given. SIGINT (Ctrl-C) and SIGTERM shut
the server down: it stops listening, closes all connections with 1001, or over a time with --drain,
and waits for the handlers. A second signal ends the wait. A worker that gets SIGTERM does the same,
and is replaced. SIGHUP replaces all workers, one after the other, and loads your code again; if it
comes because the terminal is gone, and without --workers, it shuts the server down.

On a terminal, a line shows how many connections there are and what they send, unless there are
--workers. This needs the extra cli.

example:
  fastws serve chat:app --workers 4
  fastws serve chat:app --reload
  fastws serve chat:app --origin https://chat.example --max-connections 10000
  fastws serve chat:app --workers 4 --metrics 127.0.0.1:9100
  fastws serve chat:app --unix /run/chat.sock --process-request chat:pages"""

# The longest time that can be given, in seconds.
_LONGEST = 86400


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("handler", metavar="MODULE:NAME", help="what to run")
    add_server_arguments(parser)
    add("--unix", dest="path", metavar="PATH", help="listen on a Unix socket instead")
    add(
        "--workers",
        type=partial(integer, 1, 1024),
        metavar="N",
        help="run N processes that share the port or socket; the kernel spreads the clients over "
        "them, and a process that dies is replaced",
    )
    add(
        "--reload",
        action="store_true",
        help="replace the processes when a Python file below the current directory changes",
    )
    add(
        "--process-request",
        metavar="MODULE:NAME",
        help="a function that answers HTTP requests before the handshake, as that of fastws.serve",
    )
    add(
        "--origin",
        dest="origins",
        action="append",
        type=_origin,
        metavar="ORIGIN",
        help="an origin that may connect, such as https://chat.example, or none for clients that "
        "send no Origin; may be repeated (default: all may connect)",
    )
    add(
        "--max-connections",
        type=partial(integer, 0, sys.maxsize),
        metavar="N",
        help="the maximum number of connections, for each process; those beyond it get a 503, and "
        "so do health checks (default: no limit)",
    )
    add(
        "--max-connections-per-address",
        type=partial(integer, 0, sys.maxsize),
        metavar="N",
        help="the same for the connections from one address, for each process",
    )
    add(
        "--max-lifetime",
        type=partial(integer, 1, _LONGEST),
        metavar="SECONDS",
        help="close each connection with 1012 after a random time between 80 and 100 %% of this "
        "(default: no limit)",
    )
    add(
        "--drain",
        type=partial(integer, 1, _LONGEST),
        metavar="SECONDS",
        help="at the end, spread the closing of connections over this time, idle ones first, with "
        "1012 (default: close all at once, with 1001)",
    )
    add(
        "--shutdown-timeout",
        type=partial(integer, 0, _LONGEST),
        default=10,
        metavar="SECONDS",
        help="how long to wait for clients and handlers at the end (default: %(default)s)",
    )
    add(
        "--backlog",
        type=partial(integer, 1, 65535),
        default=100,
        metavar="N",
        help="how many connections the system keeps until they are accepted; it has a limit of "
        "its own, net.core.somaxconn (default: %(default)s)",
    )


def run(args: Namespace) -> int:
    """Serve until a signal ends the server."""
    check_server_arguments(args)
    if args.path == "":
        raise CommandError("--unix needs a path", 2)
    from ._handlers import announcement, serve_handler
    from ._serving import announce_lines, cannot_listen, loop_factory, tls_context
    from ._status import Counts, status_line
    from ._systemd import notify, take_sockets

    # What is wrong in any process is reported here, once.
    tls_context(args)
    loop_factory(args)
    with ExitStack() as stack:
        args.sockets = [stack.enter_context(sock) for sock in take_sockets()]
        option = "--workers"
        if args.reload and args.workers is None:
            option, args.workers = "--reload", 1
        if args.workers is not None:
            from ._sources import Sources
            from ._workers import Job, run_workers

            if args.path is not None and not args.sockets:
                try:
                    args.sockets = [_listen_on_path(args.path, args.backlog, stack)]
                except OSError as exc:
                    raise cannot_listen(args, exc) from exc
            stale = Sources(os.getcwd()).changed if args.reload else None
            job = Job("serve", serve_handler, announcement, option, stale, notify)
            return run_workers(args, job, shares_sockets=bool(args.sockets))

        counts = Counts()

        def announce(server: Server) -> None:
            announce_lines(args, announcement, server)
            notify("READY=1")
            if show is not None:
                show()

        try:
            with status_line(counts) as show:
                serve_handler(
                    args,
                    announce,
                    counts=None if show is None else counts,
                    stopping=lambda: notify("STOPPING=1"),
                )
        except KeyboardInterrupt:
            pass  # on Windows, where the event loop handles no signals
    return 0


def _origin(text: str) -> str | None:
    """Convert an argument to what `serve` takes, for `argparse`."""
    from fastws.uri import is_origin

    if text == "none":
        return None
    if not is_origin(text):
        wanted = "scheme://host[:port] without a default port"
        raise ArgumentTypeError(f"must be {wanted}, not {text!r}")
    return text


def _listen_on_path(path: str, backlog: int, stack: ExitStack) -> socket.socket:
    """Return a socket that workers share. What a server that has ended left there is replaced."""
    if not hasattr(socket, "AF_UNIX"):
        raise CommandError("--unix needs Unix sockets, which this platform does not have")
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(path)
    stack.callback(_unlink, path, os.stat(path).st_ino)
    sock.listen(backlog)
    return sock


def _unlink(path: str, inode: int) -> None:
    """Remove a socket, unless that of another server has taken its place."""
    with suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)
