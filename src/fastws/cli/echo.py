"""`fastws echo`: a server that sends every message back, and serves a page to try it from.

This module knows the options of the command, and which of them do not go together. The server
itself is in `_echo_server`, its worker processes are in `_workers`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ._shared import CommandError, add_server_arguments, check_server_arguments, integer

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from fastws.aio.server import Server

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "run a server that sends every message back"

EPILOG = """\
Open the server's address in a browser to get a page that talks to it, or to any other server.
GET /health is answered with OK. SIGINT (Ctrl-C) and SIGTERM shut the server down.

On a terminal, a line shows how many connections there are and what they send, unless there are
--workers. This needs the extra cli.

example:
  fastws echo --port 8080
  fastws echo --inspect
  fastws echo --metrics
  fastws echo --host 0.0.0.0 --port 8443 --tls-cert cert.pem --tls-key key.pem"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add_server_arguments(parser)
    add(
        "--workers",
        type=partial(integer, 1, 1024),
        metavar="N",
        help="run N processes that share the port; the kernel spreads the clients over them, and "
        "a process that dies is replaced",
    )
    add(
        "--inspect",
        action="store_true",
        help="let the page show the last frames of all connections, byte for byte: anybody who "
        "can open the page can read what others send. Slower; not with --workers",
    )


def run(args: Namespace) -> int:
    """Serve until a signal ends the server."""
    check_server_arguments(args)
    if args.inspect and args.workers is not None:
        message = "--inspect shows the frames of one process, so it cannot be used with --workers"
        raise CommandError(message, 2)
    from ._echo_server import announcement, serve_echo
    from ._serving import announce_lines, loop_factory, tls_context

    # What is wrong in any process is reported here, once.
    tls_context(args)
    loop_factory(args)
    if args.workers is not None:
        from ._workers import Job, run_workers

        return run_workers(args, Job("echo", serve_echo, announcement))

    from ._status import Counts, status_line

    counts = Counts()

    def announce(server: Server) -> None:
        announce_lines(args, announcement, server)
        if show is not None:
            show()

    try:
        with status_line(counts) as show:
            serve_echo(args, announce, counts=None if show is None else counts)
    except KeyboardInterrupt:
        pass  # on Windows, where the event loop handles no signals
    return 0
