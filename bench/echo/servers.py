"""Echo servers in Python, by name.

    python -m bench.echo.servers NAME --port P [--tls CERT KEY] [--deflate]

This module knows how to make each library echo. Each one is used as its documentation recommends,
in the fastest documented way. It does not know what is measured.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from bench.load import libraries
from bench.load.programs import HOST
from bench.load.serving import BACKLOG, MAX_SIZE, Options, forever, main, names_of

if TYPE_CHECKING:
    from bench.load.serving import Factory, Serve


# fastws ---------------------------------------------------------------------------------


def fastws_callback(options: Options) -> Serve:
    from fastws import WebSocketProtocol

    class Echo(WebSocketProtocol):
        def on_message(self, message: str | bytes) -> None:
            self.send(message)

    return libraries.fastws(Echo, options)


def fastws_coroutine(options: Options) -> Serve:
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    return libraries.fastws(echo, options)


# Peers ----------------------------------------------------------------------------------


def websockets(options: Options) -> Serve:
    from websockets.exceptions import ConnectionClosed

    async def echo(ws: Any) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        except ConnectionClosed:
            pass

    return libraries.websockets(echo, options)


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

    return libraries.aiohttp(echo, options)


def picows(options: Options) -> Serve:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport

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

    return libraries.picows(Echo, options)


def _uvicorn(protocol: Any, needs: str, options: Options) -> Serve:
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


def fastws_uvicorn(options: Options) -> Serve:
    from fastws.integrations.uvicorn import WebSocketProtocol

    return _uvicorn(WebSocketProtocol, "httptools", options)


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
    "fastws-uvicorn": fastws_uvicorn,
    "picows": picows,
    "websockets": websockets,
    "aiohttp": aiohttp,
    "uvicorn-websockets": uvicorn_websockets,
    "uvicorn-wsproto": uvicorn_wsproto,
    "tornado": tornado,
}
NAMES = names_of(
    FACTORIES,
    aiofastnet=["fastws-callback"],
    pure=["fastws-callback", "fastws-coroutine"],
)


if __name__ == "__main__":
    sys.exit(main("bench.echo.servers", FACTORIES, NAMES))
