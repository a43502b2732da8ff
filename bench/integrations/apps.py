"""The echo applications that the hosts serve, the same with fastws and without."""

from __future__ import annotations

from typing import Any


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Plain ASGI, with nothing between host and application."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


def serve_autobahn(port: int) -> None:
    """autobahn on asyncio."""
    import asyncio

    from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol

    class Echo(WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
            self.sendMessage(payload, isBinary)

    async def run() -> None:
        factory = WebSocketServerFactory(f"ws://127.0.0.1:{port}")
        factory.protocol = Echo
        loop = asyncio.get_running_loop()
        await loop.create_server(factory, "127.0.0.1", port, backlog=1024)
        await loop.create_future()

    asyncio.run(run())


def serve_trio(port: int) -> None:
    """trio-websocket."""
    import trio
    from trio_websocket import ConnectionClosed, serve_websocket

    async def echo(request: Any) -> None:
        ws = await request.accept()
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            pass

    trio.run(serve_websocket, echo, "127.0.0.1", port, None)


if __name__ == "__main__":
    import sys

    globals()[f"serve_{sys.argv[1]}"](int(sys.argv[2]))
