"""uvicorn's protocol class: what an application and a client see of it.

Behaviour that uvicorn's own class shares is tested with both classes, if the installed version
is one that ours is modelled on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import ssl
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.request import urlopen

import pytest
import trustme
import uvicorn
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

import fastws
from fastws.connection import Connection
from fastws.deflate import PerMessageDeflate
from fastws.handshake import ClientHandshake, parse_uri
from fastws.integrations._tls import _distinguished_name, tls_extension
from fastws.integrations.uvicorn import WebSocketProtocol
from fastws.spec import Role

from ..tools import Program, free_port, needs_uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    App = Callable[[Any, Any, Any], Awaitable[Any]]

TIMEOUT = 10.0  # seconds; everything takes far less

OURS = pytest.param(WebSocketProtocol, id="fastws")
CLASSES = [OURS]
if tuple(map(int, version("uvicorn").split(".")[:2])) >= (0, 54):
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    CLASSES.append(pytest.param(WebSocketsSansIOProtocol, id="uvicorn"))

both = pytest.mark.parametrize("cls", CLASSES)


# A server in this process, without what takes uvicorn's time --------------------------


class Server:
    """The parts of `uvicorn.Server` that a protocol uses."""

    def __init__(self, app: App, cls: Any, options: dict[str, Any]) -> None:
        options = {"ws_ping_interval": None, "http": "h11"} | options
        self.config = Config(app, ws=cls, lifespan="off", log_config=None, **options)
        self.config.load()
        self.state = ServerState()
        self.app_state = {"of": "the lifespan"}
        self.errors: list[dict[str, Any]] = []

    def make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.state, app_state=self.app_state
        )

    @property
    def protocol(self) -> Any:
        """The only connection."""
        (protocol,) = self.state.connections
        return protocol

    async def wait_idle(self) -> None:
        await until(lambda: not (self.state.tasks or self.state.connections))


@asynccontextmanager
async def serving(app: App, cls: Any = WebSocketProtocol, **options: Any) -> AsyncIterator[Server]:
    tls = options.pop("tls", None)
    server = Server(app, cls, options)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: server.errors.append(context))
    listener = await loop.create_server(server.make_protocol, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
        for connection in list(server.state.connections):
            connection.shutdown()
        async with asyncio.timeout(TIMEOUT):
            await server.wait_idle()
    finally:
        listener.close()
    assert server.errors == []


class Client:
    """A WebSocket client that returns what arrives, and can misbehave."""

    def __init__(self, port: int, path: str = "/", *, tls: Any = None, **options: Any) -> None:
        self.port = port
        self.tls = tls
        self.deflate = options.pop("deflate", None)
        uri = parse_uri(f"{'wss' if tls else 'ws'}://127.0.0.1:{port}{path}")
        extensions = (self.deflate,) if self.deflate else ()
        self.handshake = ClientHandshake(uri, extensions=extensions, **options)
        self.response: Any = None
        self._events: list[Any] = []

    async def __aenter__(self) -> Self:
        host = "127.0.0.1"
        self.reader, self.writer = await asyncio.open_connection(
            host, self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None
        )
        self.writer.write(self.handshake.request())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def open(self) -> Client:
        """Wait for the response that opens the connection."""
        while self.response is None:
            data = await self.reader.read(65536)
            assert data, "no response"
            self.response = self.handshake.receive_data(data)
        self.connection = Connection(
            Role.CLIENT, max_message_size=None, deflate=self.handshake.deflate
        )
        self._events += self.connection.receive_data(self.handshake.trailing_data)
        self.flush()
        return self

    async def refused(self) -> tuple[int, dict[str, str], bytes]:
        """Wait for a response that refuses the connection: status, fields, body."""
        head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
        return int(line.split(" ")[1]), headers, body

    def send(self, *messages: str | bytes) -> None:
        for message in messages:
            self.connection.send(message)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def recv(self) -> Any:
        """Return the next event; after the last, (close code, reason)."""
        while not self._events:
            data = await self.reader.read(65536)
            if not data:
                self.connection.receive_eof()
                return self.connection.close_code, self.connection.close_reason
            self._events += self.connection.receive_data(data)
            self.flush()
        return self._events.pop(0)

    async def end(self) -> tuple[int | None, str]:
        """Wait for the end; return code and reason."""
        while not isinstance(event := await self.recv(), tuple):
            pass
        return event


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - of what has no event to wait for
        await asyncio.sleep(0.001)


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(main: Any, loop_factory: Any = None) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(limited())


class Recorder:
    """An application that records what it receives, and acts as a function says."""

    def __init__(self, act: Callable[[Any, Any], Awaitable[Any]] | None = None) -> None:
        self.events: list[Any] = []
        self.scope: dict[str, Any] = {}
        self.done = asyncio.Event()
        self._act = act

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope

        async def receive_noted() -> Any:
            event = await receive()
            self.events.append(event)
            return event

        try:
            if self._act is None:
                await echo(scope, receive_noted, send)
            else:
                await self._act(receive_noted, send)
        finally:
            self.done.set()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}


def disconnect(code: int, reason: str | None = None) -> dict[str, Any]:
    event = {"type": "websocket.disconnect", "code": code}
    return event if reason is None else event | {"reason": reason}


# Messages -----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_echo(cls: Any, http: str, loop: str) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, cls, http=http) as server, Client(server.port) as client:
            await client.open()
            client.send("one", b"two", "", b"", "drei " * 100_000)
            got = [await client.recv() for _ in range(5)]
            assert got == ["one", b"two", "", b"", "drei " * 100_000]
            client.connection.ping(b"are you there?")
            client.flush()
            assert await client.recv() == fastws.Pong(b"are you there?")
            client.connection.close(4001, "enough")
            client.flush()
            assert await client.end() == (4001, "enough")
        assert app.events == [
            CONNECT,
            {"type": "websocket.receive", "text": "one"},
            {"type": "websocket.receive", "bytes": b"two"},
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b""},
            {"type": "websocket.receive", "text": "drei " * 100_000},
            disconnect(4001, "enough"),
        ]

    run(main(), loop_factory(loop))


@both
def test_fragments_and_both_keys(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        text = (await receive())["text"]
        await send({"type": "websocket.send", "text": text, "bytes": None})
        await send({"type": "websocket.send", "bytes": b"wins", "text": "loses"})
        await send({"type": "websocket.send"})
        await send({"type": "websocket.send", "bytes": bytearray(b"array")})
        await receive()

    async def main() -> None:
        async with serving(Recorder(act), cls) as server, Client(server.port) as client:
            await client.open()
            client.connection.send("fr", fin=False)
            client.connection.ping(b"between")
            client.connection.continuation("", fin=False)
            client.connection.continuation("agments")
            client.flush()
            got = [await client.recv() for _ in range(4)]
            assert got == [fastws.Pong(b"between"), "fragments", b"wins", b"array"]

    run(main())


class Text(str):
    __slots__ = ()


def test_messages_of_the_wrong_type() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with pytest.raises(TypeError, match="bytes must be bytes-like"):
            await send({"type": "websocket.send", "bytes": "text"})
        with pytest.raises(TypeError, match="text must be a str or bytes-like, not 'int'"):
            await send({"type": "websocket.send", "text": 5})
        with pytest.raises(ValueError, match="surrogate"):
            await send({"type": "websocket.send", "text": "\ud800"})
        with pytest.raises(ValueError, match="text is not UTF-8"):
            await send({"type": "websocket.send", "text": b"\xff"})
        await send({"type": "websocket.send", "text": Text("fine")})
        await receive()

    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            assert await (await client.open()).recv() == "fine"

    run(main())


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_text_as_bytes(deflate: bool, loop: str) -> None:
    text = "é✓" * 2000
    servers: list[Server] = []

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await until(lambda: servers[0].protocol._opening.early)
        await send(ACCEPT | {"decode_text": False})
        for form in (bytearray(b"a"), memoryview(b"axbx")[::2], fastws.Text(b"c"), "d", b""):
            await send({"type": "websocket.send", "text": form})
        while (event := await receive())["type"] == "websocket.receive":
            await send(event | {"type": "websocket.send"})

    async def main() -> None:
        app = Recorder(act)
        async with (
            serving(app, ws_per_message_deflate=deflate) as server,
            Client(server.port, deflate=PerMessageDeflate() if deflate else None) as client,
        ):
            servers.append(server)
            await until(lambda: app.events)
            early = Connection(Role.CLIENT)
            early.send("early")
            client.writer.write(early.data_to_send())
            await client.open()
            assert [await client.recv() for _ in range(5)] == ["a", "ab", "c", "d", ""]
            client.send(text, b"\xff", "")
            client.connection.send("\N{GRINNING FACE}", fin=False)
            client.connection.continuation("!")
            client.connection.close()
            client.flush()
            sent = ["early", text, b"\xff", "", "\N{GRINNING FACE}!"]
            assert [await client.recv() for _ in sent] == sent
        received = app.events[1:-1]
        assert received == [
            {"type": "websocket.receive"}
            | ({"text": m.encode()} if isinstance(m, str) else {"bytes": m})
            for m in sent
        ]

    run(main(), loop_factory(loop))


def test_bytes_that_are_no_text() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT | {"decode_text": False})
        await receive()

    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            client.writer.write(bytes.fromhex("8181 00000000 ff"))
            assert await client.end() == (1007, "text message is not UTF-8")
            await app.done.wait()
        assert app.events == [CONNECT, disconnect(1007, "text message is not UTF-8")]

    run(main())


def test_json_in_utf8_with_fastapi() -> None:
    app = FastAPI()

    @app.websocket("/")
    async def answer(ws: WebSocket) -> None:
        await ws.receive()
        await ws.send({"type": "websocket.accept", "decode_text": False})
        async for data in ws.iter_text():
            assert isinstance(data, bytes)
            await ws.send_text(data)  # type: ignore[arg-type]

    async def main() -> None:
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            client.send('["é"]')
            assert await client.recv() == '["é"]'

    run(main())


def test_answers_to_one_read_leave_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(echo) as server, Client(server.port) as client:
            await client.open()
            writes: list[bytes] = []
            protocol = server.protocol
            write = protocol.transport.write

            class Transport:
                def __getattr__(self, name: str) -> Any:
                    return getattr(original, name)

                def write(self, data: bytes) -> None:
                    writes.append(data)
                    write(data)

            original, protocol._transport = protocol.transport, Transport()
            for count in (1, 50, 1):
                writes.clear()
                client.send(*["message"] * count)
                assert [await client.recv() for _ in range(count)] == ["message"] * count
                assert len(writes) == 1
            protocol._transport = original

    run(main())


def test_several_tasks_receive_and_send() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def work() -> None:
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": event["text"]})

        impatient = asyncio.create_task(work())
        workers = [asyncio.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(*workers)

    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            for number in range(20):
                client.send(*[str(number)] * (1 + number % 4))
                for _ in range(1 + number % 4):
                    assert await client.recv() == str(number)
            client.connection.close()
            client.flush()
            assert await client.end() == (1000, "")
        assert app.events[-3:] == [disconnect(1000, "")] * 3

    run(main())


def test_cancelled_receive_loses_nothing() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)
        await send({"type": "websocket.send", "text": "go"})
        for _ in range(2):
            event = await asyncio.wait_for(receive(), TIMEOUT)
            await send({"type": "websocket.send", "text": event["text"]})
        await receive()

    async def main() -> None:
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            await client.open()
            assert await client.recv() == "go"
            client.send("a", "b")
            assert [await client.recv(), await client.recv()] == ["a", "b"]

    run(main())


@both
def test_compression(cls: Any) -> None:
    async def main() -> None:
        async with serving(echo, cls) as server:
            async with Client(server.port, deflate=PerMessageDeflate()) as client:
                await client.open()
                extensions = client.response.headers["Sec-WebSocket-Extensions"]
                assert "permessage-deflate" in extensions
                # uvicorn's own class announces its window without being asked.
                asked = "" if cls is WebSocketProtocol else "server_max_window_bits=12; "
                assert extensions == f"permessage-deflate; {asked}client_max_window_bits=12"
                client.send("compress me " * 1000, b"\x00" * 10_000)
                assert await client.recv() == "compress me " * 1000
                assert await client.recv() == b"\x00" * 10_000
            async with Client(server.port) as client:
                await client.open()
                assert "Sec-WebSocket-Extensions" not in client.response.headers
        async with (
            serving(echo, cls, ws_per_message_deflate=False) as server,
            Client(server.port, deflate=PerMessageDeflate()) as client,
        ):
            await client.open()
            assert "Sec-WebSocket-Extensions" not in client.response.headers

    run(main())


@both
def test_size_limit(cls: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, cls, ws_max_size=100) as server, Client(server.port) as client:
            await client.open()
            client.send(b"x" * 100)
            assert await client.recv() == b"x" * 100
            client.send(b"x" * 101)
            code, _ = await client.end()
            assert code == 1009
        assert app.events[-1]["code"] == 1009
        assert app.events[-1]["reason"]

    run(main())


@both
@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\x81\x84\0\0\0\0\xff\xfe\xfd\xfc", 1007),
        (b"\x81\x01x", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e" + bytes(130), 1002),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),
    ],
    ids=["utf-8", "unmasked", "rsv1", "continuation", "long ping", "1005 in a close frame"],
)
def test_violations(cls: Any, octets: bytes, code: int) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, cls, ws_per_message_deflate=False) as server:
            async with Client(server.port) as client:
                await client.open()
                client.writer.write(octets)
                assert (await client.end())[0] == code
            await app.done.wait()
        assert app.events[:-1] == [CONNECT]
        assert app.events[-1]["code"] == code

    run(main())


def test_answers_what_came_before_a_violation() -> None:
    async def main() -> None:
        async with serving(echo) as server, Client(server.port) as client:
            await client.open()
            client.connection.send("a")
            client.connection.send("b")
            client.writer.write(client.connection.data_to_send() + b"\xff\xff")
            assert [await client.recv(), await client.recv()] == ["a", "b"]
            assert (await client.end())[0] == 1002

    run(main())


# The request and its answer -----------------------------------------------------------


@both
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_scope(cls: Any, http: str) -> None:
    async def main() -> None:
        app = Recorder()
        async with (
            serving(app, cls, http=http, root_path="/sub") as server,
            Client(
                server.port,
                "/a%2Fb%C3%A9/c?x=1&y=%20&q=?",
                subprotocols=["one", "two"],
                origin="http://example.com",
                headers=[("X-Latin", "caf\xe9"), ("Cookie", "a=b"), ("X-Latin", "2")],
            ) as client,
        ):
            await client.open()
            scope = dict(app.scope)
            address = client.writer.get_extra_info("sockname")
            headers = scope.pop("headers")
            state = scope.pop("state")
            assert state == server.app_state
            assert state is not server.app_state
            assert scope == {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "scheme": "ws",
                "server": ("127.0.0.1", server.port),
                "client": address,
                "root_path": "/sub",
                "path": "/sub/a/b\xe9/c",
                "raw_path": b"/sub/a%2Fb%C3%A9/c",
                "query_string": b"x=1&y=%20&q=?",
                "subprotocols": ["one", "two"],
                "extensions": {"websocket.http.response": {}}
                | ({"fastws.text": {}} if cls is WebSocketProtocol else {}),
            }
            assert (b"host", f"127.0.0.1:{server.port}".encode()) in headers
            assert [value for name, value in headers if name == b"x-latin"] == [b"caf\xe9", b"2"]
            assert (b"origin", b"http://example.com") in headers
            assert (b"cookie", b"a=b") in headers

    run(main())


def accepting(**fields: Any) -> Recorder:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT | fields)
        await receive()

    return Recorder(act)


@both
def test_headers_and_subprotocol(cls: Any) -> None:
    app = accepting(
        subprotocol="two",
        headers=[(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"Server", b"mine")],
    )

    async def main() -> None:
        async with serving(app, cls) as server:
            server.state.default_headers = [(b"date", b"today"), (b"server", b"uvicorn")]
            async with Client(server.port, subprotocols=["one", "two"]) as client:
                headers = (await client.open()).response.headers
                assert client.handshake.subprotocol == "two"
                assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
                assert headers.get_all("Server") == ["uvicorn", "mine"]
                assert headers.get_all("Date") == ["today"]

    run(main())


@pytest.mark.parametrize(
    "headers",
    [[(b"x", b"a\r\nSet-Cookie: b")], [(b"x: y\r\nz", b"")], [(b"", b"")]],
    ids=["value", "name", "no name"],
)
def test_headers_cannot_break_out(headers: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(accepting(headers=headers)) as server, Client(server.port) as client:
            status, fields, body = await client.refused()
            assert (status, body) == (500, b"Internal Server Error")
            assert "set-cookie" not in fields

    run(main())
    assert re.search("ValueError: invalid (value of )?header field", caplog.text)


@both
def test_bad_requests_do_not_reach_the_application(cls: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("it was called")

    async def main() -> None:
        async with serving(app, cls) as server:
            for key, number in (("", "13"), ("x", "13"), ("dGhlIHNhbXBsZSBub25jZQ==", "12")):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\n"
                    + f"Sec-WebSocket-Key: {key}\r\n".encode()
                    + f"Sec-WebSocket-Version: {number}\r\n\r\n".encode()
                )
                assert (await reader.read()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 426 "))
                writer.close()

    run(main())


def test_large_cookies() -> None:
    async def main() -> None:
        cookies = [("Cookie", "c" * 8000) for _ in range(6)]
        async with (
            serving(echo, h11_max_incomplete_event_size=1 << 17) as server,
            Client(server.port, headers=cookies) as client,
        ):
            await client.open()

    run(main())


@both
def test_closed_before_accepted(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        await receive()
        with pytest.raises((RuntimeError, ClientDisconnected)):
            await send({"type": "websocket.close"})

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, cls) as server, Client(server.port) as client:
            status, headers, body = await client.refused()
            assert (status, body) == (403, b"")
            assert headers["content-length"] == "0"
        assert app.events == [CONNECT, disconnect(1006)]

    run(main())


def responding(status: int, headers: Any, *bodies: bytes) -> Recorder:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        for body in bodies[:-1]:
            await send({"type": "websocket.http.response.body", "body": body, "more_body": True})
        await send({"type": "websocket.http.response.body", "body": bodies[-1]})
        await receive()

    return Recorder(act)


@both
def test_denial_response(cls: Any) -> None:
    async def main() -> None:
        app = responding(401, [(b"content-type", b"a/b"), (b"x-y", b"z")], b"ab", b"\xff", b"c")
        async with serving(app, cls) as server, Client(server.port) as client:
            status, headers, body = await client.refused()
            assert (status, body) == (401, b"ab\xffc")
            assert headers["content-type"] == "a/b"
            assert headers["x-y"] == "z"
            assert headers["content-length"] == "4"
            assert headers["connection"] == "close"
            assert "date" in headers
        assert app.events == [CONNECT, disconnect(1006)]

        async with serving(responding(404, [], b""), cls) as server, Client(server.port) as client:
            status, headers, body = await client.refused()
            assert (status, body) == (404, b"")
            assert headers["content-type"] == "text/plain; charset=utf-8"

    run(main())


def test_denial_response_frames_itself() -> None:
    app = responding(
        400, [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"99")], b"short"
    )

    async def main() -> None:
        async with serving(app) as server, Client(server.port) as client:
            status, headers, body = await client.refused()
            assert (status, body) == (400, b"short")
            assert headers["content-length"] == "5"
            assert "transfer-encoding" not in headers

    run(main())


def test_denial_response_that_is_never_finished() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"ab", "more_body": True})
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket\.http\.r"):
            await send({"type": "websocket.accept"})

    async def main() -> None:
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            status, _, body = await client.refused()
            assert (status, body) == (404, b"ab")

    run(main())


@both
@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            {"type": "websocket.send", "text": "early"},
            "or 'websocket.http.response.start' but got 'websocket.send'.",
        ),
        (
            {"type": "websocket.http.response.start", "status": 700},
            "Invalid HTTP status code '700' in response.",
        ),
    ],
    ids=["send", "status"],
)
def test_mistakes_before_the_answer(
    cls: Any, event: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(event)

    async def main() -> None:
        async with serving(Recorder(act), cls) as server, Client(server.port) as client:
            status, headers, body = await client.refused()
            assert (status, body) == (500, b"Internal Server Error")
            assert headers["content-length"] == "21"
            assert headers["connection"] == "close"

    run(main())
    assert "Exception in ASGI application\n" in caplog.messages
    assert message in caplog.text


@both
def test_no_answer(cls: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()

    async def main() -> None:
        async with serving(Recorder(act), cls) as server, Client(server.port) as client:
            assert (await client.refused())[0] == 500

    run(main())
    assert "ASGI callable returned without completing handshake." in caplog.messages


@both
def test_lost_before_the_answer(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await receive()
        with pytest.raises(ClientDisconnected):
            await send(ACCEPT)

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, cls) as server:
            async with Client(server.port):
                await until(lambda: app.events)
            await app.done.wait()
        assert app.events == [CONNECT, disconnect(1006)]

    run(main())


def test_frames_sent_before_the_answer() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await until(lambda: protocol()._reading_paused)
        await send(ACCEPT)
        for _ in range(3):
            await send({"type": "websocket.send", "bytes": (await receive())["bytes"]})
        await receive()

    async def main() -> None:
        nonlocal protocol
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            protocol = lambda: server.protocol  # noqa: E731
            early = Connection(Role.CLIENT)
            await until(lambda: app.events)
            for letter in b"abc":
                early.send(bytes([letter]) * 100_000)
            client.writer.write(early.data_to_send())
            await client.open()
            for letter in b"abc":
                assert await client.recv() == bytes([letter]) * 100_000

    protocol: Any = None
    run(main())


# The end ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 1001}, 1001, ""),
        ({"code": 4321, "reason": "because"}, 4321, "because"),
        ({"reason": None}, 1000, ""),
    ],
)
def test_application_closes(cls: Any, fields: Any, code: int, reason: str) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", **fields})
        await receive()
        # The client may be gone already.
        late = r"Unexpected ASGI message 'websocket\.send', after sending 'websocket\.close'\.|^$"
        with pytest.raises((RuntimeError, ClientDisconnected), match=late):
            await send({"type": "websocket.send", "text": "late"})

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.open()
            client.send("hello")
            assert await client.recv() == "bye"
            assert await client.end() == (code, reason)
        assert app.events[2:] == [disconnect(code, reason)]

    run(main())


def test_application_closes_unread() -> None:
    """The client's close frame is queued behind more than the application receives."""

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await until(lambda: protocol()._reading_paused)
        await send({"type": "websocket.close"})
        assert [(await receive())["type"] for _ in range(2)] == ["websocket.receive"] * 2

    async def main() -> None:
        nonlocal protocol
        async with serving(Recorder(act), ws_max_queue=2) as server, Client(server.port) as client:
            protocol = lambda: server.protocol  # noqa: E731
            await client.open()
            for _ in range(100):
                client.send(b"x" * 10_000)
            assert await client.end() == (1000, "")
            await server.wait_idle()

    protocol: Any = None
    run(main())


def test_client_never_answers_the_close_frame() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        server.protocol.close_timeout = 0.05
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    async def main() -> None:
        nonlocal server
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            data = await client.reader.read()
            assert data.endswith(b"\x88\x02\x03\xe8")

    server: Any = None
    run(main())


@pytest.mark.parametrize(
    "fields", [{"code": 1006}, {"code": 99}, {"reason": "x" * 124}], ids=["1006", "99", "long"]
)
def test_close_frames_that_may_not_travel(fields: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with pytest.raises(ValueError):
            await send({"type": "websocket.close", **fields})
        await send({"type": "websocket.close"})

    async def main() -> None:
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            await client.open()
            assert await client.end() == (1000, "")

    run(main())


@both
def test_client_closes_without_a_code(cls: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.open()
            client.connection.close(None)
            client.flush()
            assert await client.end() == (1005, "")
        assert app.events[1:] == [disconnect(1005, "")]

    run(main())


@both
def test_client_closes(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "late"})
        with suppress(ClientDisconnected):
            await send({"type": "websocket.close"})

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.open()
            client.connection.close(3000, "done")
            client.flush()
            assert await client.end() == (3000, "done")
        assert app.events[1:] == [disconnect(3000, "done")]

    run(main())


def test_answers_what_came_before_the_close_frame() -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            for text in "abc":
                client.connection.send(text)
            client.connection.close()
            client.flush()
            assert [await client.recv() for _ in range(3)] == ["a", "b", "c"]
            assert await client.end() == (1000, "")
        assert len(app.events) == 5

    run(main())


def test_large_answers_leave_before_our_close_frame() -> None:
    """… all of them, although each is large enough to be sent on its own."""
    answers = {text: text.encode() * 70_000 for text in "abc"}

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": answers[event["text"]]})

    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            for text in answers:
                client.connection.send(text)
            client.connection.close()
            client.flush()
            assert [await client.recv() for _ in answers] == list(answers.values())
            assert await client.end() == (1000, "")

    run(main())


@both
def test_client_is_lost(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await server.wait_connections()
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "late"})
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.close"})

    async def main() -> None:
        nonlocal server
        app = Recorder(act)
        async with serving(app, cls) as server:

            async def wait_connections() -> None:
                await until(lambda: not server.state.connections)

            server.wait_connections = wait_connections
            async with Client(server.port) as client:
                await client.open()
            await app.done.wait()
        assert app.events[1:] == [disconnect(1005)]

    server: Any = None
    run(main())


@both
@pytest.mark.parametrize("result", [None, 123, ZeroDivisionError], ids=["None", "123", "oh"])
def test_application_leaves_without_a_word(
    cls: Any, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "last"})
        if result is ZeroDivisionError:
            # (Created here: as a parameter it would live too long, and its traceback with it.)
            raise ZeroDivisionError("oh")
        return result

    async def main() -> None:
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.open()
            assert await client.recv() == "last"
            assert await client.end() == (1006, "")

    run(main())
    assert ("ASGI callable should return None, but returned '123'." in caplog.text) is (
        result == 123
    )
    assert ("ZeroDivisionError: oh" in caplog.text) is (result is ZeroDivisionError)


@both
def test_wrong_event_on_an_open_connection(cls: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send(ACCEPT)

    async def main() -> None:
        async with serving(Recorder(act), cls) as server, Client(server.port) as client:
            await client.open()
            assert await client.end() == (1006, "")

    run(main())
    assert (
        "Expected ASGI message 'websocket.send' or 'websocket.close', "
        "but got 'websocket.accept'." in caplog.text
    )


@both
def test_server_stops(cls: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.open()
            client.send("before")
            assert await client.recv() == "before"
            server.protocol.shutdown()
            assert await client.end() == (1012, "")
            await app.done.wait()
        assert app.events[2:] == [disconnect(1012)]

    run(main())


@both
def test_server_stops_before_the_answer(cls: Any) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, cls) as server, Client(server.port) as client:
            await until(lambda: app.events)
            server.protocol.shutdown()
            assert (await client.refused())[0] == 500
            await app.done.wait()
        assert app.events == [CONNECT, disconnect(1006)]

    run(main())


@both
def test_server_stops_after_the_application_closed(
    cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops waiting for the client's close frame, and sends nothing more."""
    monkeypatch.setattr("fastws.integrations.uvicorn._SHUTDOWN_TIMEOUT", 3600.0)

    async def act(receive: Any, send: Any) -> None:
        await receive()
        server.protocol.close_timeout = 3600.0
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000, "reason": "mine"})
        await receive()

    async def main() -> None:
        nonlocal server
        app = Recorder(act)
        async with serving(app, cls) as server, Client(server.port) as client:
            await client.reader.readuntil(b"\r\n\r\n")
            await app.done.wait()
            server.protocol.shutdown()
            assert await client.reader.read() == b"\x88\x06\x0f\xa0mine"
            await server.wait_idle()
        assert app.events == [CONNECT, disconnect(4000, "mine")]

    server: Any = None
    run(main())


def test_server_stops_while_the_transport_is_closing() -> None:
    """The application returned without closing; all that it sent still arrives."""
    size = 16 << 20  # more than the system buffers

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "bytes": bytes(size)})

    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            await app.done.wait()
            await until(lambda: server.protocol.transport.is_closing())
            server.protocol.shutdown()
            server.protocol.shutdown()
            assert await client.recv() == bytes(size)
            assert await client.end() == (1006, "")
            await server.wait_idle()
        assert app.events == [CONNECT]

    run(main())


def test_server_does_not_wait_long_for_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastws.integrations.uvicorn._SHUTDOWN_TIMEOUT", 0.05)

    async def main() -> None:
        async with serving(echo) as server, Client(server.port) as client:
            await client.open()
            server.protocol.shutdown()
            await server.wait_idle()

    run(main())


# Time and pressure --------------------------------------------------------------------


@both
def test_keepalive(cls: Any) -> None:
    async def main() -> None:
        app = Recorder()
        options: Any = {"ws_ping_interval": 0.02, "ws_ping_timeout": 0.1}
        async with serving(app, cls, **options) as server, Client(server.port) as client:
            await client.open()
            for _ in range(3):
                assert isinstance(await client.recv(), fastws.Ping)
            client.send("still here")
            while (event := await client.recv()) != "still here":
                assert isinstance(event, fastws.Ping)
            # From now on the client does not answer.
            data = b""
            while piece := await client.reader.read(65536):
                data += piece
            assert data.endswith(b"\x03\xf3keepalive ping timeout")
        assert app.events[2:] == [disconnect(1005)]

    run(main())


@pytest.mark.parametrize("interval", [None, 0, 0.0, -1])
def test_no_keepalive(interval: Any) -> None:
    async def main() -> None:
        options: Any = {"ws_ping_interval": interval, "ws_ping_timeout": 0}
        async with serving(echo, **options) as server, Client(server.port) as client:
            await client.open()
            assert server.protocol._timer is None

    run(main())


@both
def test_slow_client(cls: Any) -> None:
    sent = 0

    async def act(receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1

    async def main() -> None:
        async with serving(Recorder(act), cls) as server, Client(server.port) as client:
            await client.open()
            client.writer.transport.pause_reading()
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.05)
            assert server.protocol.transport.get_write_buffer_size() < 1_000_000
            assert sent < 200
            client.writer.transport.resume_reading()
            while sent < before + 50:
                assert await client.recv() == bytes(100_000)
            # A send that waits raises when the client disconnects.
            client.writer.transport.pause_reading()
            transport = server.protocol.transport
            _, high = transport.get_write_buffer_limits()
            await until(lambda: transport.get_write_buffer_size() > high)

    run(main())


def test_slow_client_does_not_keep_others_from_receiving() -> None:
    async def act(receive: Any, send: Any) -> None:
        async def flood() -> None:
            with suppress(ClientDisconnected):
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(100_000)})

        await receive()
        await send(ACCEPT)
        task = asyncio.create_task(flood())
        while (await receive())["type"] == "websocket.receive":
            received.set()
        await task

    received = asyncio.Event()

    async def main() -> None:
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            await client.open()
            client.writer.transport.pause_reading()
            await until(lambda: server.protocol._write_paused)
            client.send("can you hear me?")
            await received.wait()

    run(main())


def test_application_that_sends_and_sends_lets_others_run() -> None:
    """… although its client reads all of it, so that no `send` has to wait."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def act(receive: Any, send: Any) -> None:
        await receive()
        server.protocol.transport.set_write_buffer_limits(1 << 30)
        await send(ACCEPT)
        others = asyncio.create_task(count_turns())
        for _ in range(1000):
            await send({"type": "websocket.send", "bytes": bytes(4096)})
        assert turns > 10
        others.cancel()
        await send({"type": "websocket.close"})

    async def main() -> None:
        nonlocal server
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            await client.open()
            assert [await client.recv() for _ in range(1000)] == [bytes(4096)] * 1000
            assert await client.end() == (1000, "")

    server: Any = None
    run(main())


@pytest.mark.parametrize(
    ("size", "limit", "most"), [(10, 4, 4), (500_000, 32, 4)], ids=["many", "large"]
)
def test_slow_application(size: int, limit: int, most: int) -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        for number in range(60):
            assert (await receive())["bytes"] == bytes([number]) * size
        await receive()

    go = asyncio.Event()

    async def main() -> None:
        app = Recorder(act)
        async with serving(app, ws_max_queue=limit) as server, Client(server.port) as client:
            await client.open()
            protocol = server.protocol

            async def write() -> None:
                for number in range(60):
                    client.send(bytes([number]) * size)
                    await client.writer.drain()
                    await asyncio.sleep(0.0005)

            task = asyncio.create_task(write())
            await until(lambda: protocol._reading_paused)
            await asyncio.sleep(0.02)
            assert len(protocol._sink.messages) <= most
            go.set()
            await task
            client.connection.close()
            client.flush()
            await client.end()
        assert app.events[-1] == disconnect(1000, "")

    run(main())


def test_no_limit_to_the_queue() -> None:
    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        await send({"type": "websocket.close"})

    go = asyncio.Event()

    async def main() -> None:
        options: Any = {"ws_max_queue": None, "ws_max_size": None}
        async with serving(Recorder(act), **options) as server, Client(server.port) as client:
            await client.open()
            client.send(*["x"] * 1000)
            await until(lambda: len(server.protocol._sink.messages or ()) >= 1000)
            assert not server.protocol._sink.is_held
            go.set()
            await client.end()

    run(main())


# What uvicorn is used with ------------------------------------------------------------


@both
def test_logs(cls: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(5, logger="uvicorn.error")

    def ours() -> list[tuple[str, str]]:
        return [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.name == "uvicorn.error"
            and record.pathname.endswith(("uvicorn.py", "io_impl.py"))
            and not record.getMessage().startswith("connection ")
        ]

    async def main() -> None:
        async with serving(echo, cls) as server:
            async with Client(server.port, "/a%20b?c=d") as client:
                await client.open()
                client.connection.close()
                client.flush()
                await client.end()
                peer = "{}:{}".format(*client.writer.get_extra_info("sockname"))
            await server.wait_idle()
        assert ours() == [
            ("TRACE", f"{peer} - WebSocket connection made"),
            ("INFO", f'{peer} - "WebSocket /a%20b?c=d" [accepted]'),
            ("TRACE", f"{peer} - WebSocket connection lost"),
        ]
        for app, line in ((responding(418, [], b""), "418"), (closing(), "403")):
            caplog.clear()
            async with serving(app, cls) as server, Client(server.port) as client:
                await client.refused()
            assert ours()[1][1].endswith(f' - "WebSocket /" {line}')

    def closing() -> Recorder:
        async def act(receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close"})

        return Recorder(act)

    logging.addLevelName(5, "TRACE")
    run(main())


def _say(*events: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for event in events:
            if isinstance(event, Exception):
                raise event
            await send(event)
        if ACCEPT in events:
            while (await receive())["type"] != "websocket.disconnect":
                pass

    return app


NO_KEY = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


async def ask(port: int, request: bytes) -> bytes:
    """Send a request; return all data until the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.transport.abort()


def upgrade_request(target: str = "/", fields: str = "") -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: here.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    return ("\r\n".join(lines) + f"\r\n{fields}\r\n").encode()


REFUSE = {"type": "websocket.close"}
HTTP = pytest.mark.parametrize("http", ["h11", "httptools"])


@HTTP
@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("http://there.example/a%20b?c=d", "/a b", b"/a%20b", b"c=d"),
        ("ws://there.example:80?c", "/", b"/", b"c"),
        ("http://there.example", "/", b"/", b""),
        ("//a/../b?c", "//a/../b", b"//a/../b", b"c"),
    ],
)
def test_path_of_a_target_in_absolute_form(
    http: str, target: str, path: str, raw_path: bytes, query: bytes
) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await _say(REFUSE)(scope, receive, send)

    async def main() -> None:
        async with serving(app, http=http) as server:
            assert b" 403 " in await ask(server.port, upgrade_request(target))

    run(main())
    assert seen == [(path, raw_path, query)]


@HTTP
@pytest.mark.parametrize(
    "target",
    [
        "*",
        "chat",
        "host:80",
        "ftp://a/b",
        "http:///b",
        "http://",
        "http://u@a/b",
        "http://a#b",
        "/#",
    ],
)
def test_targets_that_are_none(http: str, target: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it never gets here")

    async def main() -> None:
        async with serving(app, http=http) as server:
            answer = await ask(server.port, upgrade_request(target))
            assert answer.startswith(b"HTTP/1.1 400 ")

    run(main())


LARGE = {
    "a cookie": (f"Cookie: {'x' * 60_000}\r\n", 403),
    "a larger cookie": (f"Cookie: {'x' * 70_000}\r\n", 431),
    "5 MiB": (f"Sec-WebSocket-Extensions: {'a;b, ' * (1 << 20)}\r\n", 431),
    "5 MiB in lines": ("X: y\r\n" * (1 << 20), 431),
    "extensions": (f"Sec-WebSocket-Extensions: {'a, ' * 20_000}\r\n", 400),
    "parameters": (f"Sec-WebSocket-Extensions: a{';b' * 20_000}\r\n", 400),
    "no extensions": (f"Sec-WebSocket-Extensions: {',' * 60_000}\r\n", 400),
    "subprotocols": (f"Sec-WebSocket-Protocol: {'a, ' * 20_000}\r\n", 400),
    "no subprotocols": (f"Sec-WebSocket-Protocol: {', ' * 20_000}\r\n", 400),
    "lines": ("X: y\r\n" * 200, 431),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_headers(name: str) -> None:
    """Over httptools, because h11 has a limit of its own."""
    fields, status = LARGE[name]

    async def main() -> None:
        async with serving(_say(REFUSE), http="httptools") as server:
            answer = await ask(server.port, upgrade_request(fields=fields))
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())

    run(main())


@HTTP
def test_the_limit_of_headers_is_uvicorns_option(http: str) -> None:
    async def main() -> None:
        options = {"http": http, "h11_max_incomplete_event_size": 200_000}
        async with serving(_say(REFUSE), **options) as server:
            for size, good in ((190_000, True), (250_000, False)):
                request = upgrade_request(fields=f"Cookie: {'x' * size}\r\n")
                answer = await ask(server.port, request)
                assert answer.startswith(b"HTTP/1.1 403 " if good else b"HTTP/1.1 4")
                assert good or not answer.startswith(b"HTTP/1.1 403 ")

    run(main())


LIFES = {
    "client closes": (_say(ACCEPT), "close", ["open", "closed"]),
    "client goes": (_say(ACCEPT), "abort", ["open", "closed"]),
    "client errs": (_say(ACCEPT), "err", ["open", "closed"]),
    "application closes": (
        _say(ACCEPT, {"type": "websocket.close", "code": 4000}),
        "wait",
        ["open", "closed"],
    ),
    "application fails": (_say(ACCEPT, ZeroDivisionError()), "wait", ["open", "closed"]),
    "403": (_say({"type": "websocket.close"}), "wait", ["rejected (403 Forbidden)", "closed"]),
    "418": (
        _say(
            {"type": "websocket.http.response.start", "status": 418, "headers": []},
            {"type": "websocket.http.response.body", "body": b""},
        ),
        "wait",
        ["rejected (418 I'm a Teapot)", "closed"],
    ),
    "no answer": (_say(), "wait", ["rejected (500 Internal Server Error)", "closed"]),
    "500": (_say(ZeroDivisionError()), "wait", ["rejected (500 Internal Server Error)", "closed"]),
    "400": (_say(ACCEPT), "no key", ["rejected (400 Bad Request)", "closed"]),
}


@both
@pytest.mark.parametrize("life", LIFES)
def test_lines_that_people_look_for(cls: Any, life: str, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn's class over websockets' legacy server writes all of them, its current class all
    but the last."""
    app, client_does, expected = LIFES[life]
    caplog.set_level(logging.INFO, logger="uvicorn.error")

    async def main() -> None:
        async with serving(app, cls) as server:
            if client_does == "no key":
                assert (await ask(server.port, NO_KEY)).startswith(b"HTTP/1.1 400 ")
                await server.wait_idle()
                return
            async with Client(server.port) as client:
                if "open" in expected:
                    await client.open()
                    if client_does == "close":
                        client.connection.close()
                        client.flush()
                    elif client_does == "err":
                        client.writer.write(b"\xff\xff")
                    if client_does != "abort":
                        await client.end()
                else:
                    await client.refused()
            await server.wait_idle()

    run(main())
    lines = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "uvicorn.error" and record.getMessage().startswith("connection ")
    ]
    if cls is not WebSocketProtocol:
        expected = expected[:1]
        lines = lines[:1]
    assert lines == [("INFO", f"connection {what}") for what in expected]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def talking(
    ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> AsyncIterator[tuple[Recorder, Client]]:
    """An application, and a client that has opened a connection to it over TLS."""
    app = Recorder()
    async with serving(app, tls=ours) as server, Client(server.port, tls=theirs) as client:
        await client.open()
        yield app, client


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_tls(authority: trustme.CA, loop: str) -> None:
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)

    async def main() -> None:
        async with talking(ours, theirs) as (app, client):
            client.send("secret " * 50_000)
            assert await client.recv() == "secret " * 50_000
            assert app.scope["scheme"] == "wss"
            facts = dict(app.scope["extensions"]["tls"])
            assert facts.pop("cipher_suite") in (0x1301, 0x1302, 0x1303)
            assert facts == {
                "server_cert": None,
                "client_cert_chain": [],
                "client_cert_name": None,
                "client_cert_error": None,
                "tls_version": 0x304,
            }
            client.connection.close()
            client.flush()
            assert await client.end() == (1000, "")

    run(main(), loop_factory(loop))


@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_the_certificate_of_a_client(authority: trustme.CA, loop: str) -> None:
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.verify_mode = ssl.CERT_REQUIRED
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    ours.set_ciphers("ECDHE+AESGCM")
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    options = {"common_name": " A, #1", "organization_name": "Chat+", "organization_unit_name": "é"}
    certificate = authority.issue_cert("ann@chat.example", **options)
    certificate.configure_cert(theirs)

    async def main() -> None:
        async with talking(ours, theirs) as (app, client):
            facts = app.scope["extensions"]["tls"]
            assert facts["client_cert_chain"] == [certificate.cert_chain_pems[0].bytes().decode()]
            assert facts["client_cert_name"] == "CN=\\ A\\, #1,OU=é,O=Chat\\+"
            assert facts["tls_version"] == 0x303
            assert facts["cipher_suite"] in (0xC02B, 0xC02C)
            client.connection.close()
            client.flush()
            await client.end()

    run(main(), loop_factory(loop))


@pytest.mark.parametrize(
    ("subject", "name"),
    [  # the examples of RFC 4514 §4, and more
        (((("domainComponent", "net"),), (("domainComponent", "example"),)), "DC=example,DC=net"),
        (
            ((("organizationalUnitName", "Sales"), ("commonName", "J.  Smith")),),
            "OU=Sales+CN=J.  Smith",
        ),
        (((("commonName", 'James "Jim" Smith, III'),),), 'CN=James \\"Jim\\" Smith\\, III'),
        (((("commonName", "a\\b;<c>"),),), "CN=a\\\\b\\;\\<c\\>"),
        (((("commonName", "#a# "),),), "CN=\\#a#\\ "),
        (((("commonName", " "),),), "CN=\\ "),
        (((("commonName", "\\ "),),), "CN=\\\\\\ "),
        (((("1.3.6.1.4.1.1466.0", "a\0b"),),), "1.3.6.1.4.1.1466.0=a\\00b"),
        (((("emailAddress", ""),),), "emailAddress="),
        ((), ""),
    ],
)
def test_how_a_distinguished_name_is_written(subject: Any, name: str) -> None:
    assert _distinguished_name(subject) == name


class Engine:
    """What a transport of another kind may have in place of an `ssl.SSLObject`."""

    def getpeercert(self, binary_form: bool = False) -> Any:
        return None

    def version(self) -> str | None:
        return None

    def cipher(self) -> tuple[str, str, int] | None:
        return None


def test_what_is_not_known_about_tls_is_none() -> None:
    assert tls_extension(Engine()) == {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": None,
        "cipher_suite": None,
    }

    class Newer(Engine):
        def version(self) -> str:
            return "TLSv9"

        def cipher(self) -> tuple[str, str, int]:
            return ("NEW", "TLSv9", 256)

    facts = tls_extension(Newer())
    assert (facts["tls_version"], facts["cipher_suite"]) == (None, None)


def find_token(websocket: WebSocket) -> str:
    if "token" not in websocket.query_params:
        raise WebSocketException(1008, "no token")
    return websocket.query_params["token"]


def test_fastapi() -> None:
    app = FastAPI()
    seen: list[Any] = []

    @app.websocket("/items/{item}")
    async def items(ws: WebSocket, item: int, token: str = Depends(find_token)) -> None:
        await ws.accept(subprotocol="json", headers=[(b"x-item", str(item).encode())])
        try:
            while True:
                data = await ws.receive_json()
                await ws.send_json({"item": item, "token": token, "data": data})
        except WebSocketDisconnect as exc:
            seen.append((exc.code, exc.reason))

    async def main() -> None:
        async with serving(app) as server:
            path = "/items/7?token=t"
            async with Client(server.port, path, subprotocols=["json"]) as client:
                await client.open()
                assert client.response.headers["X-Item"] == "7"
                client.send('["\u00fc"]')
                assert await client.recv() == '{"item":7,"token":"t","data":["\u00fc"]}'
                client.connection.close(4004, "thanks")
                client.flush()
                await client.end()
            async with Client(server.port, "/items/7") as client:
                assert (await client.refused())[0] == 403
            async with Client(server.port, "/nothing/here") as client:
                assert (await client.refused())[0] == 403
        assert seen == [(4004, "thanks")]

    run(main())


# Real servers -------------------------------------------------------------------------

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            scope["state"]["who"] = " lifespan"
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        modules = " ".join(name for name in PARTS if name in sys.modules)
        await send({"type": "websocket.send", "text": modules + scope["state"].get("who", "")})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        print("disconnected with", event["code"], flush=True)

import sys
PARTS = ("websockets", "wsproto", "fastws")
"""

SPEC = "fastws.integrations.uvicorn:WebSocketProtocol"
SRC = str(Path(fastws.__file__).parents[1])


@contextmanager
def started(tmp_path: Path, *argv: str, env: dict[str, str] | None = None) -> Iterator[Any]:
    """A server as a process, in a directory with an application."""
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    # Warnings of a host, and those of a newer Python about it, are not ours.
    environment = {"PYTHONPATH": SRC, "PYTHONWARNINGS": ""} | (env or {})
    command = (sys.executable, "-m", *(arg.replace("PORT", str(port)) for arg in argv))
    with Program(*command, cwd=tmp_path, env=environment) as program:
        program.port = port
        deadline = time.monotonic() + TIMEOUT
        while True:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                program.worker = answer.read()
                break
            assert not program.has_ended, program.errors
            assert time.monotonic() < deadline, program.errors
            time.sleep(0.02)
        yield program


async def talk(port: int, count: int = 20) -> tuple[str, Client]:
    client = await Client(port).__aenter__()
    await client.open()
    greeting = await client.recv()
    client.send(*map(str, range(count)))
    assert [await client.recv() for _ in range(count)] == [str(n) for n in range(count)]
    return greeting, client


async def talk_and_stop(program: Any, number: int = signal.SIGTERM) -> str:
    greeting, client = await talk(program.port)
    os.kill(program.pid, number)
    assert await client.end() == (1012, "")
    await client.__aexit__()
    return greeting


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_command_line(tmp_path: Path, http: str, loop: str) -> None:
    arguments = ["uvicorn", "app:app", "--port", "PORT", "--ws", SPEC, "--http", http]
    with started(tmp_path, *arguments, "--loop", loop) as program:
        greeting = run(talk_and_stop(program))
        assert greeting == "fastws lifespan"  # and has neither websockets nor wsproto
        assert program.wait() in (0, -signal.SIGTERM)
        assert "disconnected with 1012" in program.output
        assert re.search(r'127\.0\.0\.1:\d+ - "WebSocket /" \[accepted\]', program.errors)
        assert "Traceback" not in program.errors


def test_environment(tmp_path: Path) -> None:
    arguments = ["uvicorn", "app:app", "--port", "PORT"]
    with started(tmp_path, *arguments, env={"UVICORN_WS": SPEC}) as program:
        assert run(talk_and_stop(program)) == "fastws lifespan"
        program.wait()


def test_workers(tmp_path: Path) -> None:
    arguments = ["uvicorn", "app:app", "--port", "PORT", "--ws", SPEC, "--workers", "2"]
    with started(tmp_path, *arguments) as program:
        assert run(talk_and_stop(program)) == "fastws lifespan"
        program.wait()
        assert "Traceback" not in program.errors


def test_reload(tmp_path: Path) -> None:
    arguments = ["uvicorn", "app:app", "--port", "PORT", "--ws", SPEC, "--reload"]

    async def main() -> None:
        _, client = await talk(program.port)
        (tmp_path / "app.py").write_text(APP.replace('get("who", "")', 'get("who", "") + "!"'))
        end = asyncio.ensure_future(client.end())
        newer = time.time()
        while not end.done():
            # Neither its first check nor the resolution of file times is known.
            newer += 2
            os.utime(tmp_path / "app.py", (newer, newer))
            await asyncio.wait([end], timeout=0.3)
        assert end.result() == (1012, "")
        await client.__aexit__()
        while True:
            with suppress(OSError):
                greeting, client = await talk(program.port)
                await client.__aexit__()
                break
            await asyncio.sleep(0.05)
        assert greeting == "fastws lifespan!"

    with started(tmp_path, *arguments) as program:
        run(main())


def test_uvicorn_run(tmp_path: Path) -> None:
    script = (
        f"import uvicorn, app\nuvicorn.run(app.app, port=PORT, ws='{SPEC}', log_level='warning')\n"
    )
    port = free_port()
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "main.py").write_text(script.replace("PORT", str(port)))
    with Program(sys.executable, "main.py", cwd=tmp_path, env={"PYTHONPATH": SRC}) as program:
        program.port = port  # type: ignore[attr-defined]
        program.wait_for_port(port)
        assert run(talk_and_stop(program)) == "fastws lifespan"
        program.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gunicorn(tmp_path: Path, number: int) -> None:
    worker = "fastws.integrations.gunicorn.UvicornWorker"
    arguments = ["gunicorn", "-k", worker, "-b", "127.0.0.1:PORT", "--log-level", "debug"]
    with started(tmp_path, *arguments, "-w", "2", "app:app") as program:
        greeting = run(talk_and_stop(program, number))
        assert greeting == "fastws lifespan"
        assert program.wait() == 0
        assert re.search(r'"WebSocket /" \[accepted\]', program.errors)
        assert "Traceback" not in program.errors
        assert "DeprecationWarning" not in program.errors


def test_gunicorn_over_tls(tmp_path: Path, authority: trustme.CA) -> None:
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "cert.pem"
    )
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "app:app"]
    command += ["-k", "fastws.integrations.gunicorn.UvicornWorker", "--certfile", "cert.pem"]
    command += ["--keyfile", "cert.pem"]

    async def main() -> None:
        while True:
            with suppress(OSError):
                async with Client(port, tls=context) as client:
                    await client.open()
                    client.send("hi")
                    assert await client.recv() == "fastws lifespan"
                    assert await client.recv() == "hi"
                    break
            assert not program.has_ended
            await asyncio.sleep(0.02)

    with Program(*command, cwd=tmp_path, env={"PYTHONPATH": SRC}) as program:
        run(main())


def test_host_is_known() -> None:
    assert uvicorn.__version__ == version("uvicorn")
    from fastws.integrations.uvicorn import HOST

    assert HOST.is_tested()
