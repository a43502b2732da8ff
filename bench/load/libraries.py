"""How each library listens, with what it is told to do for a connection.

This module knows the fastest documented settings of each library, under the rules of `serving`. It
does not know what the servers do: `bench.echo.servers` and `bench.fanout.servers` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .programs import HOST
from .serving import BACKLOG, MAX_SIZE, Options, forever

if TYPE_CHECKING:
    from .serving import Serve


def fastws(handler: Any, options: Options, **more: Any) -> Serve:
    from fastws import serve

    async def run() -> None:
        async with serve(
            handler,
            HOST,
            options.port,
            ssl=options.context,
            deflate=options.deflate,
            max_message_size=MAX_SIZE,
            ping_interval=None,
            backlog=BACKLOG,
            **more,
        ):
            await forever()

    return run


def websockets(handler: Any, options: Options) -> Serve:
    from websockets.asyncio.server import serve

    async def run() -> None:
        async with serve(
            handler,
            HOST,
            options.port,
            ssl=options.context,
            compression="deflate" if options.deflate else None,
            max_size=MAX_SIZE,
            ping_interval=None,
            backlog=BACKLOG,
        ):
            await forever()

    return run


def aiohttp(handler: Any, options: Options) -> Serve:
    """The handler gets a request, and makes the WebSocketResponse of it."""
    from aiohttp import web

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, options.port, ssl_context=options.context, backlog=BACKLOG)
        await site.start()
        await forever()

    return run


def picows(listener: Any, options: Options) -> Serve:
    from picows import ws_create_server

    async def run() -> None:
        server = await ws_create_server(
            lambda request: listener(),
            HOST,
            options.port,
            ssl=options.context,
            max_frame_size=MAX_SIZE,
            backlog=BACKLOG,
        )
        async with server:
            await forever()

    return run
