"""The server of `fastws echo`.

This module knows how to serve in one process. It does not know that there may be several, nor what
plain HTTP requests get.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from fastws.aio.protocol import WebSocketProtocol
from fastws.aio.serving import serve
from fastws.codec import implementation, kernel

from ._pages import Pages
from ._serving import loop_factory, tls_context
from ._status import counted

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
        parent: in a worker, a file descriptor that becomes readable when the parent process dies.
        counts: where to count what the server does; None to count nothing, which is faster.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        protocol: type[WebSocketProtocol] = _Echo if counts is None else counted(_Echo, counts)
        protocol_factory: Callable[[], WebSocketProtocol] = protocol
        process_request: Callable[[Request], Response | None] = Pages(inspect=args.inspect)
        if args.inspect:
            from ._inspection import Inspection, Recorded

            inspection = Inspection(args.host, process_request)
            protocol_factory = inspection.protocol_factory
            if counts is not None:
                protocol_factory = partial(counted(Recorded, counts), inspection)
            process_request = inspection.process_request

        async with serve(
            protocol_factory,
            args.host,
            args.port,
            ssl=tls_context(args),
            process_request=process_request,
            max_message_size=args.max_message_size,
            deflate=args.deflate,
            reuse_port=True if args.workers is not None else None,
        ) as server:
            # A signal may follow the announcement at once. This runs when serve_forever waits,
            # which is after it has installed its handlers.
            loop.call_soon(announce, server)
            if parent is None:
                await server.serve_forever()
            else:

                def orphaned() -> None:
                    loop.remove_reader(parent)
                    signal.raise_signal(signal.SIGTERM)

                loop.add_reader(parent, orphaned)
                # Ctrl-C reaches every process of the terminal; the parent passes it on.
                await server.serve_forever(signals=[signal.SIGTERM])
                loop.remove_reader(parent)

    with asyncio.Runner(loop_factory=loop_factory(args)) as runner:
        runner.run(run())


def announcement(args: Namespace, address: tuple[Any, ...]) -> str:
    """Return the line that tells where the server listens."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    secure = "" if args.tls_cert is None else "s"
    line = (
        f"fastws echo: ws{secure}://{host}:{address[1]} "
        f"(and http{secure}://{host}:{address[1]} in a browser), "
        f"twin {implementation}, kernel {kernel}"
    )
    return line if args.workers is None else f"{line}, workers {args.workers}"


class _Echo(WebSocketProtocol):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)
