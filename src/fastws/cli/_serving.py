"""What commands that serve share: TLS, event loops, and why a server cannot listen.

This module knows how a server starts. It does not know what is served, nor in how many processes.
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import TYPE_CHECKING, Any

from fastws.aio.serving import serve

from ._shared import DISTRIBUTION, CommandError, describe

if TYPE_CHECKING:
    import asyncio
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from fastws.aio.server import Server

__all__ = ["cannot_listen", "listen", "loop_factory", "tls_context"]


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
    args: Namespace, stack: AsyncExitStack, handler: Callable[..., Any], **options: Any
) -> Server:
    """Start a server.

    Args:
        args: the arguments of the command.
        stack: what ends with the server.
        handler: the handler of `serve`.
        options: other arguments of `serve`.

    Raises:
        CommandError: if it cannot listen. Errors of what is served are passed on as they are.
    """
    try:
        return await stack.enter_async_context(serve(handler, **options))
    except (OSError, ValueError) as exc:
        raise CommandError(cannot_listen(args, exc)) from exc


def cannot_listen(args: Namespace, exc: Exception) -> str:
    """Return a message that says why the server cannot listen."""
    path = getattr(args, "path", None)
    where = f"{args.host} port {args.port}" if path is None else path
    why = describe(exc)
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        why = "the port is in use" if path is None else "it exists already"
    return f"cannot listen on {where}: {why}"
