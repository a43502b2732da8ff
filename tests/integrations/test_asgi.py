"""Topics in ASGI applications: a chat needs no list of connections, under any server."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from fastws import Topics
from fastws.aio.endpoint import Endpoint
from fastws.integrations.asgi import connection_of
from fastws.integrations.uvicorn import WebSocketProtocol

from ..docs.pages import code
from ..tools import Program, free_port
from .test_uvicorn import Client, both, run, serving, until


def chat(topics: Topics, connections: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.websocket("/{room}")
    async def chat(ws: WebSocket, room: str) -> None:
        await ws.accept()
        connection = connection_of(ws)
        connections.append(connection)
        topics.subscribe(connection, room)
        async for text in ws.iter_text():
            await topics.publish(room, text, exclude=connection_of(ws))

    return app


@both
def test_a_chat_with_fastapi(cls: Any) -> None:
    async def main() -> None:
        topics = Topics()
        connections: list[Any] = []
        async with serving(chat(topics, connections), cls) as server:
            async with Client(server.port, "/a") as one, Client(server.port, "/a") as two:
                await one.open()
                await two.open()
                await until(lambda: topics.count("a") == 2)
                for number in range(20):
                    one.send(f"{number}")
                assert [await two.recv() for _ in range(20)] == [f"{n}" for n in range(20)]
                two.send("answer")
                assert await one.recv() == "answer"
                assert topics.publish("a", b"binary") == 2
                assert await one.recv() == await two.recv() == b"binary"
                two.connection.close()
                two.flush()
                await until(lambda: topics.count("a") == 1)
            await until(lambda: not topics.count("a"))
        assert all(isinstance(c, Endpoint) is (cls is WebSocketProtocol) for c in connections)
        assert not topics._subscriptions

    run(main())


@both
def test_a_slow_client_is_closed(cls: Any) -> None:
    async def main() -> None:
        topics = Topics(max_unsent_size=100_000)
        async with serving(chat(topics, []), cls) as server, Client(server.port, "/a") as client:
            await client.open()
            await until(lambda: topics.count("a") == 1)
            client.writer.transport.pause_reading()
            while topics.count("a"):
                await topics.publish("a", bytes(50_000))

    run(main())


def test_the_chat_of_the_documentation() -> None:
    names: dict[str, Any] = {}
    exec(code("howto/broadcasting.md", "fastapi"), names)

    async def main() -> None:
        async with (
            serving(names["app"]) as server,
            Client(server.port, "/rooms/a") as one,
            Client(server.port, "/rooms/a") as two,
            Client(server.port, "/rooms/b") as other,
        ):
            for client in (one, two, other):
                await client.open()
            await until(lambda: names["topics"].count("a") == 2)
            other.send("in another room")
            one.send("Hi")
            assert await one.recv() == await two.recv() == "Hi"

    run(main())


def test_the_program_to_freeze_of_the_documentation() -> None:
    port = free_port()
    program = code("howto/frozen.md", "uvicorn").replace("8080", str(port))

    async def main() -> None:
        async with Client(port, "/") as client:
            await client.open()
            client.send("Hi")
            assert await client.recv() == "Hi"

    with Program(sys.executable, "-c", program) as running:
        running.wait_for_port(port)
        run(main())
        assert running.errors == ""


def test_a_task_that_is_done_leaves() -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.close":
            raise RuntimeError("too late")

    async def main() -> None:
        topics = Topics()
        scope: dict[str, Any] = {"type": "websocket", "extensions": {}}
        gate = asyncio.Event()

        async def app() -> None:
            topics.subscribe(connection_of(scope, send), "a")
            assert connection_of(scope, send) is connection_of(scope, send)
            await gate.wait()

        task = asyncio.create_task(app())
        await until(lambda: topics.count("a"))
        assert await topics.publish("a", "text", slow="wait") == 1
        assert await topics.publish("a", b"bytes", slow="wait") == 1
        gate.set()
        await task
        await until(lambda: not topics.count("a"))
        assert topics.publish("a", "nobody") == 0
        assert scope == {"type": "websocket", "extensions": {}}

    run(main())
    assert sent == [
        {"type": "websocket.send", "text": "text"},
        {"type": "websocket.send", "bytes": b"bytes"},
    ]


def test_it_wants_a_websocket_and_a_task() -> None:
    with pytest.raises(TypeError, match="'int'"):
        connection_of(42)
    with pytest.raises(TypeError):
        connection_of({"type": "websocket"})

    async def main() -> None:
        called = asyncio.get_running_loop().create_future()

        def call() -> None:
            with pytest.raises(RuntimeError, match="task"):
                connection_of({}, lambda message: None)
            called.set_result(None)

        asyncio.get_running_loop().call_soon(call)
        await called

    run(main())
