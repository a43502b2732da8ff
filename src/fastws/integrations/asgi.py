"""WebSockets of ASGI applications as receivers of topics, under any ASGI server.

    topics = fastws.Topics()

    @app.websocket("/rooms/{room}")
    async def chat(ws: fastapi.WebSocket, room: str):
        await ws.accept()
        topics.subscribe(connection_of(ws), room)
        async for text in ws.iter_text():
            topics.publish(room, text)

This module knows how an application sends in ASGI, and when it is done. It does not know any
server, except that a connection of `fastws.integrations.uvicorn` tells which one it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import ref

from fastws.aio.receivers import ended
from fastws.exceptions import ConnectionClosed
from fastws.spec import CloseCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from fastws.aio.endpoint import Endpoint
    from fastws.aio.receivers import SupportsSend

    _Message = MutableMapping[str, Any]
    _Send = Callable[[_Message], Awaitable[None]]

__all__ = ["connection_of"]

_KEY = "fastws.connection"


def connection_of(websocket: Any, send: _Send | None = None) -> SupportsSend:
    """Return the connection of an ASGI application, to pass it to `fastws.Topics`.

    With `fastws.integrations.uvicorn`, it is the connection itself. With other classes and
    servers, it is an object that calls ASGI's `send` in a task, and leaves its topics when the
    task that has called this function is done. The result is the same for each call.

    Args:
        websocket: an accepted WebSocket with the attributes `scope` and `send`, as those of
            FastAPI and Starlette; or the scope.
        send: ASGI's `send`, if `websocket` is the scope.

    Raises:
        TypeError: if these are none of these.
        RuntimeError: if it is not called in a task.
    """
    scope = websocket if send is not None else getattr(websocket, "scope", None)
    send = getattr(websocket, "send", None) if send is None else send
    if not isinstance(scope, dict) or not callable(send):
        name = type(websocket).__name__
        raise TypeError(f"websocket must have a scope and the method send(); {name!r} does not")
    extensions = scope.get("extensions")
    if isinstance(extensions, Extensions) and (endpoint := extensions.endpoint()) is not None:
        return endpoint  # type: ignore[return-value]
    connection = scope.get(_KEY)
    if connection is None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("connection_of() must be called in a task")
        connection = scope[_KEY] = _Connection(send)
        task.add_done_callback(lambda _: _done(scope, connection))
    return connection


class Extensions(dict[str, Any]):
    """The extensions of an ASGI scope, and which connection it belongs to."""

    __slots__ = ("endpoint",)

    def __init__(self, endpoint: Endpoint, extensions: dict[str, Any]) -> None:
        super().__init__(extensions)
        self.endpoint = ref(endpoint)


class _Connection:
    """What only sends."""

    __slots__ = ("__weakref__", "_send")

    def __init__(self, send: _Send) -> None:
        self._send = send

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self._say({"type": "websocket.send", kind: message})

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        await self._say({"type": "websocket.close", "code": int(code), "reason": reason})

    async def _say(self, message: _Message) -> None:
        try:
            await self._send(message)
        except Exception as exc:  # each server and framework has its own
            raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "") from exc


def _done(scope: dict[str, Any], connection: _Connection) -> None:
    scope.pop(_KEY, None)
    ended(connection)
