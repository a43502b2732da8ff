"""The applications of the contest: every message goes to all connections, one after the other."""

from __future__ import annotations

from typing import Any

CLOSE = 0  # a kind of message in RSGI

members: set[Any] = set()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        raise NotImplementedError("neither HTTP nor a lifespan")
    await receive()
    await send({"type": "websocket.accept"})
    members.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            for member in list(members):
                await member({"type": "websocket.send", "bytes": event["bytes"]})
    finally:
        members.discard(send)


async def rsgi(scope: Any, protocol: Any) -> None:
    ws = await protocol.accept()
    members.add(ws)
    try:
        while (message := await ws.receive()).kind != CLOSE:
            for member in list(members):
                await member.send_bytes(message.data)
    finally:
        members.discard(ws)
