"""The server of `fastws echo`.

This module knows how to serve in one process. It does not know that there may be several, nor what
plain HTTP requests get.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from fastws.aio.protocol import WebSocketProtocol
from fastws.metrics import Metrics
from fastws.uri import join_host

from ._metrics import note, show_metrics
from ._pages import Pages
from ._serving import cannot_listen, details, listen, loop_factory, serve_until_told, tls_context
from ._status import followed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from fastws.aio.server import Server
    from fastws.http import Request, Response

    from ._status import Counts

__all__ = ["announcement", "serve_echo"]


def serve_echo(
    args: Namespace,
    announce: Callable[[Server], None],
    *,
    parent: int | None = None,
    counts: Counts | None = None,
) -> None:
    """Run an echo server in this process until a signal ends it.

    Args:
        args: the arguments of the command.
        announce: called when the server listens and handles signals.
        parent: in a worker, a file descriptor: see `serve_until_told`.
        counts: where to keep how much the server does; None if nobody looks.

    Raises:
        CommandError: if the server cannot listen.
    """

    async def run() -> None:
        protocol_factory: Callable[[], WebSocketProtocol] = _Echo
        process_request: Callable[[Request], Response | None] = Pages(inspect=args.inspect)
        if args.inspect:
            from ._inspection import Inspection

            inspection = Inspection(args.host, process_request)
            protocol_factory = inspection.protocol_factory
            process_request = inspection.process_request

        async with AsyncExitStack() as stack:
            metrics = Metrics()
            process_request = await show_metrics(args, metrics, process_request, stack)
            server = await listen(
                stack,
                protocol_factory,
                partial(cannot_listen, args),
                host=args.host,
                port=args.port,
                ssl=tls_context(args),
                proxy_protocol=args.proxy_protocol,
                process_request=process_request,
                max_message_size=args.max_message_size,
                deflate=args.deflate,
                reuse_port=True if args.workers is not None else None,
            )
            if args.metrics is not None or counts is not None:
                metrics.observe(server)
            if counts is not None:
                stack.enter_context(followed(metrics, counts))
            await serve_until_told(server, announce, parent)

    with asyncio.Runner(loop_factory=loop_factory(args)) as runner:
        runner.run(run())


def announcement(args: Namespace, address: tuple[Any, ...]) -> str:
    """Return the line that tells where the server listens."""
    where = join_host(*address[:2])
    secure = "" if args.tls_cert is None else "s"
    return (
        f"fastws echo: ws{secure}://{where} (and http{secure}://{where} in a browser), "
        f"{details(args)}{note(args)}"
    )


class _Echo(WebSocketProtocol):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)
