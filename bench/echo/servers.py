"""Echo servers in Python, by name, all under the same rules.

    python -m bench.echo.servers NAME --port P [--tls CERT KEY] [--deflate]

This module knows how to make each library echo: messages up to 16 MiB, no keepalive, no logging,
compression only if requested. Each one is used as its documentation recommends, in the fastest
documented way. It does not know what is measured.

Exit status 3: the library is not installed. SIGUSR2 collects garbage.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import logging
import os
import signal
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    # A factory imports its library before there is an event loop, and returns what runs in it.
    Serve = Callable[[], Coroutine[Any, Any, None]]
    Factory = Callable[["Options"], Serve]

MISSING = 3
HOST = "127.0.0.1"
MAX_SIZE = 16 << 20
BACKLOG = 1024


@dataclass(frozen=True)
class Options:
    port: int
    cert: str | None = None
    key: str | None = None
    deflate: bool = False

    @property
    def context(self) -> ssl.SSLContext | None:
        if self.cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# fastws ---------------------------------------------------------------------------------


def _fastws(handler: Any, options: Options) -> Serve:
    import fastws

    async def run() -> None:
        async with fastws.serve(
            handler,
            HOST,
            options.port,
            ssl=options.context,
            deflate=options.deflate,
            max_message_size=MAX_SIZE,
            ping_interval=None,
            backlog=BACKLOG,
        ):
            await forever()

    return run


def fastws_callback(options: Options) -> Serve:
    from fastws import WebSocketProtocol

    class Echo(WebSocketProtocol):
        def on_message(self, message: str | bytes) -> None:
            self.send(message)

    return _fastws(Echo, options)


def fastws_coroutine(options: Options) -> Serve:
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    return _fastws(echo, options)


# Peers ----------------------------------------------------------------------------------


def websockets(options: Options) -> Serve:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    async def echo(ws: ServerConnection) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        except ConnectionClosed:
            pass

    async def run() -> None:
        async with serve(
            echo,
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


def aiohttp(options: Options) -> Serve:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=options.deflate, max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", echo)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, options.port, ssl_context=options.context, backlog=BACKLOG)
        await site.start()
        await forever()

    return run


def picows(options: Options) -> Serve:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    # It returns frames unprocessed: unlike in all others, text is neither decoded nor checked.
    # (The load client sends no fragments.)
    class Echo(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            kind = frame.msg_type
            if kind == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(kind, frame.get_payload_as_memoryview())

    async def run() -> None:
        server = await ws_create_server(
            lambda request: Echo(),
            HOST,
            options.port,
            ssl=options.context,
            max_frame_size=MAX_SIZE,
            backlog=BACKLOG,
        )
        async with server:
            await forever()

    return run


def _uvicorn(protocol: str, needs: str, options: Options) -> Serve:
    import uvicorn

    if importlib.util.find_spec(needs) is None:
        raise ModuleNotFoundError(f"No module named {needs!r}", name=needs)

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    config = uvicorn.Config(
        echo,
        HOST,
        options.port,
        ws=protocol,
        ws_max_size=MAX_SIZE,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        ws_per_message_deflate=options.deflate,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        backlog=BACKLOG,
        ssl_certfile=options.cert,
        ssl_keyfile=options.key,
    )
    return uvicorn.Server(config).serve


def uvicorn_websockets(options: Options) -> Serve:
    return _uvicorn("websockets-sansio", "websockets", options)


def uvicorn_wsproto(options: Options) -> Serve:
    return _uvicorn("wsproto", "wsproto", options)


def tornado(options: Options) -> Serve:
    from tornado.httpserver import HTTPServer
    from tornado.web import Application
    from tornado.websocket import WebSocketHandler

    class Echo(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any] | None:
            return {} if options.deflate else None

        def open(self, *args: str, **kwargs: str) -> None:
            self.set_nodelay(True)

        async def on_message(self, message: str | bytes) -> None:
            await self.write_message(message, binary=isinstance(message, bytes))

    async def run() -> None:
        app = Application(
            [("/", Echo)], websocket_max_message_size=MAX_SIZE, websocket_ping_interval=0
        )
        server = HTTPServer(app, ssl_options=options.context)
        server.listen(options.port, HOST, backlog=BACKLOG)
        await forever()

    return run


# Names ------------------------------------------------------------------------------------

FACTORIES: dict[str, Factory] = {
    "fastws-callback": fastws_callback,
    "fastws-coroutine": fastws_coroutine,
    "picows": picows,
    "websockets": websockets,
    "aiohttp": aiohttp,
    "uvicorn-websockets": uvicorn_websockets,
    "uvicorn-wsproto": uvicorn_wsproto,
    "tornado": tornado,
}
UVLOOP = "-uvloop"
AIOFASTNET = "-aiofastnet"  # its transports instead of the loop's; picows always uses them
PURE = "-py"
NAMES = [
    *(f"{name}{loop}" for name in FACTORIES for loop in ("", UVLOOP)),
    *(f"fastws-callback{loop}{AIOFASTNET}" for loop in ("", UVLOOP)),
    *(f"{name}{PURE}" for name in FACTORIES if name.startswith("fastws")),
]


def choose_loop(name: str) -> tuple[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Split the event loop off a name.

    Raises:
        ImportError: if it is not installed.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    rest = name.removesuffix(AIOFASTNET)
    if rest.endswith(UVLOOP):
        from uvloop import new_event_loop as factory
    if rest != name:
        import aiofastnet

        factory = aiofastnet.loop_factory(factory)
    return rest.removesuffix(UVLOOP), factory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.echo.servers")
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), default=(None, None))
    parser.add_argument("--deflate", action="store_true")
    args = parser.parse_args()

    name = args.name
    if name.startswith("fastws"):
        # Not whichever twin happens to be available.
        os.environ["FASTWS_IMPL"] = "py" if name.endswith(PURE) else "c"
    try:
        name, loop_factory = choose_loop(name)
        factory = FACTORIES[name.removesuffix(PURE)]
        serve = factory(Options(args.port, *args.tls, args.deflate))
    except ImportError as exc:
        print(f"{args.name} is missing: {exc}", file=sys.stderr)
        return MISSING
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
