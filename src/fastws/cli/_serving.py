"""What commands that serve share: TLS, event loops, health checks, and when a server ends.

This module knows how a server starts, why it cannot listen, and what ends it. It does not know what
is served, nor in how many processes.
"""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import signal
import ssl
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fastws.aio.server import SHUTDOWN_SIGNALS
from fastws.aio.serving import serve
from fastws.aio.signals import heed
from fastws.codec import implementation, kernel
from fastws.http import Response

from ._shared import DISTRIBUTION, CommandError, describe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from fastws.aio.server import Server
    from fastws.http import Request

__all__ = [
    "announce_lines",
    "cannot_listen",
    "details",
    "health",
    "listen",
    "loop_factory",
    "serve_until_told",
    "tls_context",
]


def tls_context(args: Namespace) -> ssl.SSLContext | None:
    """Return the TLS context for the certificate; None without one.

    Raises:
        CommandError: if its files cannot be used.
    """
    if args.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    paths = [path for path in (args.tls_cert, args.tls_key) if path is not None]
    try:
        context.load_cert_chain(*paths)
    except ssl.SSLError as exc:
        message = f"not a certificate and its private key in PEM: {' '.join(paths)}"
        raise CommandError(f"{message} ({describe(exc)})") from exc
    except OSError as exc:
        # The exception does not say which file it is.
        unreadable = [path for path in paths if not os.access(path, os.R_OK)] or paths
        raise CommandError(f"cannot read {unreadable[0]}: {describe(exc)}") from exc
    return context


def loop_factory(args: Namespace) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop; None for asyncio's default.

    Raises:
        CommandError: if uvloop is not installed.
    """
    if not args.uvloop:
        return None
    try:
        import uvloop
    except ImportError as exc:
        message = f"uvloop is not installed; pip install {DISTRIBUTION}[uvloop] installs it"
        raise CommandError(message) from exc
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def listen(
    stack: AsyncExitStack,
    handler: Callable[..., Any],
    cannot: Callable[[Exception], CommandError],
    **options: Any,
) -> Server:
    """Start a server.

    Args:
        stack: what ends with the server.
        handler: the handler of `serve`.
        cannot: makes the error to raise if the server cannot listen. Errors of what is served are
            passed on as they are.
        options: other arguments of `serve`.
    """
    try:
        return await stack.enter_async_context(serve(handler, **options))
    except (OSError, ValueError) as exc:
        raise cannot(exc) from exc


def cannot_listen(args: Namespace, exc: Exception) -> CommandError:
    """Return an error that says why the server cannot listen."""
    path = getattr(args, "path", None)
    where = f"{args.host} port {args.port}" if path is None else path
    why = describe(exc)
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        why = "the port is in use" if path is None else "it exists already"
    return CommandError(f"cannot listen on {where}: {why}")


async def serve_until_told(
    server: Server,
    announce: Callable[[Server], None],
    parent: int | None,
    *,
    drain: float | None = None,
    stopping: Callable[[], object] | None = None,
) -> None:
    """Serve until a signal arrives or, in a worker, the parent process has died.

    Args:
        server: the server.
        announce: called with the server when it handles signals.
        parent: in a worker, a file descriptor. What the parent process writes to it hurries the
            server, and its end says that the parent has died.
        drain: the time over which to close connections then, in seconds; None for all at once.
        stopping: called when a signal arrives; None if nobody wants to know.
    """
    loop = asyncio.get_running_loop()
    signals = list(SHUTDOWN_SIGNALS)
    with ExitStack() as stack:
        if parent is not None:
            # Ctrl-C reaches every process of the terminal; the parent passes it on. SIGTERM may
            # come twice, from the parent and from who sends it to all processes. So it is the
            # parent who says that there was a second signal, also when the server has ended and
            # somebody else's code has not.
            signals = []
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, _end_orphan)
            stack.enter_context(heed([signal.SIGTERM], server._stop))
            loop.add_reader(parent, _obey, server, parent)
        elif hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            # The terminal is gone. (Others ignore it, see nohup(1), or have a use for it.)
            signals.append(signal.SIGHUP)
        if stopping is not None:
            stack.enter_context(heed(signals, stopping))
        # A signal may follow the announcement at once. This runs when `serve_forever` waits, which
        # is after it has installed its handlers.
        loop.call_soon(announce, server)
        await server.serve_forever(signals=signals, drain=drain)


def _obey(server: Server, parent: int) -> None:
    """In a worker, do what the parent process wants."""
    order = b""
    with suppress(ConnectionResetError):
        order = os.read(parent, 1)
    if not order:
        asyncio.get_running_loop().remove_reader(parent)
        signal.raise_signal(signal.SIGTERM)
    elif server._closed.is_set():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    else:
        server._stop(hurry=True)


def _end_orphan(number: int, _: object) -> None:
    """The server has ended, and somebody else's code has not: only the parent hurries that, unless
    it is dead."""
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def health(request: Request) -> Response | None:
    """Answer health checks."""
    if request.is_websocket or request.path != "/health":
        return None
    return Response.text("OK\n", 200, {"Cache-Control": "no-store"})


def details(args: Namespace) -> str:
    """Return what the announcements of all servers say after the address."""
    line = f"twin {implementation}, kernel {kernel}"
    if args.workers is not None:
        line += f", workers {args.workers}"
    if args.proxy_protocol:
        line += ", PROXY protocol"
    return line


def announce_lines(
    args: Namespace, announcement: Callable[[Namespace, Any], str], server: Server
) -> None:
    """Print where the server listens."""
    lines = (announcement(args, sock.getsockname()) for sock in server.sockets)
    with suppress(BrokenPipeError):
        print(*lines, sep="\n", flush=True)
