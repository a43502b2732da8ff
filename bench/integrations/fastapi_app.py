"""An echo application with FastAPI, which looks up annotations in the module's namespace."""

from fastapi import FastAPI, WebSocket

asgi = FastAPI()


@asgi.websocket("/")
async def echo(ws: WebSocket) -> None:
    await ws.accept()
    while (event := await ws.receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await ws.send_text(event["text"])
        else:
            await ws.send_bytes(event["bytes"])
