"""Programs based on wsproto: echo servers, and clients that talk to one.

    python wsproto_apps.py SERVER PORT
    python wsproto_apps.py CLIENT URL

Hypercorn and uvicorn run the ASGI applications. None of the programs knows about fastws.
"""

from __future__ import annotations

import sys
from typing import Any

MAX_SIZE = 100_000
# What a client sends, and expects to come back. How to send a ping is up to the host.
SAID = ["text €", b"bytes", "", b"", "x" * 126, bytes(66_000)]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


def quart() -> Any:
    from quart import Quart, websocket

    app = Quart(__name__)

    @app.websocket("/")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive())

    return app


def serve_trio_websocket(port: str) -> None:
    import trio
    from trio_websocket import ConnectionClosed, serve_websocket

    async def echo(request: Any) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            pass

    trio.run(
        lambda: serve_websocket(
            echo, "127.0.0.1", int(port), ssl_context=None, max_message_size=MAX_SIZE
        )
    )


def serve_simple_websocket(port: str) -> None:
    from simple_websocket import ConnectionClosed, Server
    from werkzeug.serving import WSGIRequestHandler, run_simple

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.0"  # no second request on a connection

        def log(self, *args: Any) -> None:
            pass

    def echo(environ: Any, start_response: Any) -> Any:
        ws = Server.accept(environ, max_message_size=MAX_SIZE)
        try:
            while True:
                ws.send(ws.receive())
        except ConnectionClosed:
            ws.thread.join()  # which may still have to answer the close frame
            raise ConnectionError from None  # makes werkzeug write no response

    run_simple("127.0.0.1", int(port), echo, threaded=True, request_handler=Quiet)


def serve_nicegui(port: str) -> None:
    from nicegui import ui

    @ui.page("/")
    def page() -> None:
        ui.label("hello")

    ui.run(port=int(port), show=False, reload=False)


def talk_httpx_ws(url: str) -> list[Any]:
    from httpx_ws import connect_ws

    with connect_ws(url) as ws:
        ws.ping(b"are you there?").wait(10)
        heard: list[Any] = []
        for message in SAID:
            if isinstance(message, str):
                ws.send_text(message)
                heard.append(ws.receive_text())
            else:
                ws.send_bytes(message)
                heard.append(ws.receive_bytes())
    return heard


def talk_simple_websocket(url: str) -> list[Any]:
    from simple_websocket import Client

    ws = Client(url)
    heard = []
    for message in SAID:
        ws.send(message)
        heard.append(ws.receive(timeout=10))
    ws.close()
    return heard


def talk_trio_websocket(url: str) -> list[Any]:
    import trio
    from trio_websocket import open_websocket_url

    async def talk() -> list[Any]:
        heard = []
        async with open_websocket_url(url) as ws:
            await ws.ping(b"are you there?")
            for message in SAID:
                await ws.send_message(message)
                heard.append(await ws.get_message())
        return heard

    return trio.run(talk)


if __name__ == "__main__":
    name, where = sys.argv[1:]
    if name.startswith("talk"):
        from fastws.integrations import installed

        assert globals()[name](where) == SAID
        print(*installed())
    else:
        globals()[name](where)
