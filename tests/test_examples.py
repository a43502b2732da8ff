"""examples/: each one runs unchanged, and does what it promises."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from fastws import Close, Connection, ConnectionClosed, Ping, Role, encode_frame
from fastws.cli._probing import CHECKS, MANNERS
from fastws.handshake import ClientHandshake, parse_uri

from .tools import TIMEOUT, Program, run_fastws

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import ModuleType, SimpleNamespace

TRIO_SERVER = Path(__file__).parents[1] / "examples" / "trio_server.py"
KEY = b"\x01\x02\x03\x04"
JUNK = bytes(1 << 20)


# As a program -------------------------------------------------------------------------------


@contextmanager
def running(twin: SimpleNamespace) -> Iterator[tuple[Program, str]]:
    """Run the server as a program; return it and its URL."""
    argv = (sys.executable, "-X", "dev", "-W", "error", str(TRIO_SERVER), "0")
    with Program(*argv, env={"FASTWS_IMPL": twin.name}) as program:
        yield program, program.line().removeprefix("listening on ")


def test_trio_server_passes_the_probe_whole(twin: SimpleNamespace) -> None:
    with running(twin) as (program, url):
        result = run_fastws("probe", url, "--json", timeout=4 * TIMEOUT)
        rows = json.loads(result.stdout)
        assert [row for row in rows if row["verdict"] != "ok"] == []
        assert (len(rows), result.returncode) == (len(CHECKS) * len(MANNERS), 0)
        assert program.stop(signal.SIGTERM) == 0
        assert program.errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_trio_server_says_goodbye_when_it_is_stopped(twin: SimpleNamespace, number: int) -> None:
    async def talk(program: Program, port: int) -> None:
        async with connected(port) as client:
            client.connection.send("still here?")
            await client.flush()
            assert await client.next() == "still here?"
            program._process.send_signal(number)
            assert await client.next() == Close(1001, "")
            await client.flush()
            assert await client.stream.receive_some(1) == b""

    with running(twin) as (program, url):
        trio.run(talk, program, int(url.rpartition(":")[2]))
        assert program.wait() == 0
        assert program.errors == ""


# In this process ------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The server as a module, with very long timeouts."""
    spec = spec_from_file_location("trio_server", TRIO_SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "trio_server", module)
    spec.loader.exec_module(module)
    for name in ("OPEN", "SEND", "PING", "CLOSE"):
        monkeypatch.setattr(module, f"{name}_TIMEOUT", 3600.0)
    monkeypatch.setattr(module, "PING_INTERVAL", 3600.0)
    return module


class Client:
    """The other end: a `Connection` on a stream that does nothing on its own."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT)
        self._events: list[Any] = []

    async def open(self, port: int, data: bytes = b"") -> None:
        handshake = ClientHandshake(parse_uri(f"ws://127.0.0.1:{port}"))
        await self.stream.send_all(handshake.request() + data)
        while handshake.receive_data(await self.stream.receive_some(65536)) is None:
            pass
        self._events += self.connection.receive_data(handshake.trailing_data)

    async def flush(self) -> None:
        await self.stream.send_all(self.connection.data_to_send())

    async def next(self) -> Any:
        """Return the next event; None at the end of the stream, which must not be a reset."""
        while not self._events:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._events += self.connection.receive_data(data)
        return self._events.pop(0)


@asynccontextmanager
async def connected(port: int, data: bytes = b"") -> AsyncIterator[Client]:
    with trio.fail_after(TIMEOUT):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Client(stream)
            await client.open(port, data)
            yield client


@dataclass
class Server:
    """A running server; `gone` is set when it has no connection any more."""

    port: int
    gone: trio.Event


def with_server(
    example: ModuleType, on_message: Any, use: Callable[[Server], Awaitable[None]]
) -> None:
    """Run a server with this handler, use it, and wait for its connections to end."""

    async def main() -> None:
        clients = 0

        async def serve_client(stream: trio.SocketStream) -> None:
            nonlocal clients
            clients += 1
            await example.serve_client(on_message, stream)
            clients -= 1
            if not clients:
                server.gone.set()

        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(trio.serve_listeners, serve_client, listeners))
            server = Server(listeners[0].socket.getsockname()[1], trio.Event())
            with trio.fail_after(TIMEOUT):
                await use(server)
                await server.gone.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def repeat(send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send until it raises."""
    while True:
        await send(JUNK)


def frame(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return encode_frame(opcode, payload, key=KEY, **options)


def test_trio_server_answers_what_came_before_the_close_frame(example: ModuleType) -> None:
    """… in more than one write, including messages that came right after the request."""

    async def answer(ws: Any, message: str) -> None:
        await ws.send(message * 70_000)

    async def use(server: Server) -> None:
        early = b"".join(frame(1, text) for text in (b"a", b"b", b"c"))
        async with connected(server.port, early + frame(8, b"\x0f\xa0bye")) as client:
            assert [await client.next() for _ in range(3)] == [c * 70_000 for c in "abc"]
            assert await client.next() == Close(4000, "bye")
            assert await client.next() is None

    with_server(example, answer, use)


def test_trio_servers_answers_to_a_client_that_has_closed_are_bounded(example: ModuleType) -> None:
    async def flood(ws: Any, message: str) -> None:
        for _ in range(100):
            await ws.send(JUNK)
        complete.append(True)

    async def use(server: Server) -> None:
        async with connected(server.port, frame(1, b"go") + frame(8, b"\x03\xe8")) as client:
            assert await client.next() == JUNK
            while (event := await client.next()) == JUNK:
                pass
            assert event == Close(1000, "")
            assert await client.next() is None

    complete: list[bool] = []
    with_server(example, flood, use)
    assert complete == []


@pytest.mark.parametrize("ending", [frame(1, b"\xff"), frame(0)], ids=["1007", "1002"])
def test_trio_servers_close_frame_is_read_by_a_client_that_keeps_sending(
    example: ModuleType, ending: bytes
) -> None:
    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            await client.stream.send_all(ending)
            for _ in range(8):
                await client.stream.send_all(JUNK)
            event = await client.next()
            assert event.code == (1002 if ending == frame(0) else 1007)
            assert await client.next() is None

    with_server(example, example.echo, use)


def test_trio_servers_refusal_is_read_by_a_client_that_keeps_sending(example: ModuleType) -> None:
    async def use(server: Server) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(8):
                await stream.send_all(JUNK)
            response = b"".join([data async for data in stream])
            assert response.startswith(b"HTTP/1.1 405 ")
            assert response.endswith(b"\r\n\r\nthe method must be GET\n")

    with_server(example, example.echo, use)


def test_trio_server_closes(example: ModuleType) -> None:
    """… and waits for the client's close frame before it ends the TCP connection."""
    heard: list[str] = []

    async def close(ws: Any, message: str) -> None:
        heard.append(message)
        await ws.close(4000, "bye")
        with pytest.raises(ConnectionClosed, match="4000"):
            await ws.send("too late")

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("go")
            client.connection.send("too late")
            await client.flush()
            assert await client.next() == Close(4000, "bye")

            async def read_on() -> None:
                ended.append(await client.next())

            ended: list[None] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert ended == []
                await client.flush()
            assert ended == [None]

    with_server(example, close, use)
    assert heard == ["go"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ConnectionClosed(1006)], ids=repr)
def test_trio_servers_handler_may_fail(
    example: ModuleType, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """… with an error that is about another connection, too."""

    async def fail(ws: Any, message: str) -> None:
        raise error

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("oh")
            await client.flush()
            assert await client.next() == Close(1011, "")
            await client.flush()
            assert await client.next() is None

    with_server(example, fail, use)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, type(error))


def test_trio_server_keeps_the_order_of_sends(example: ModuleType) -> None:
    """… of many tasks, to a client that reads slowly."""
    sizes = [70_000, 1, 16_000_000, 2, 200_000, 3]

    async def push(ws: Any, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for number, size in enumerate(sizes):
                nursery.start_soon(ws.send, bytes([number]) * size)
                await trio.testing.wait_all_tasks_blocked()
            all_begun.set()

    all_begun = trio.Event()

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection = Connection(Role.CLIENT, max_message_size=None)
            client.connection.send("go")
            await client.flush()
            await all_begun.wait()
            received = [await client.next() for _ in sizes]
            assert received == [bytes([n]) * size for n, size in enumerate(sizes)]

    with_server(example, push, use)


# Clients that do not play along ------------------------------------------------------------


def test_trio_server_ends_an_unfinished_handshake(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "OPEN_TIMEOUT", 0.05)

    async def use(server: Server) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            response = b"".join([data async for data in stream])
            assert response.startswith(b"HTTP/1.1 408 ")

    with_server(example, example.echo, use)


def test_trio_server_pings_a_silent_client_and_gives_it_up(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(example, "PING_TIMEOUT", 1.0)

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            for _ in range(3):
                assert await client.next() == Ping()
                await client.flush()  # the pong
            assert await client.next() == Ping()
            assert await client.next() == Close(1011, "keepalive ping timeout")
            assert await client.next() is None

    with_server(example, example.echo, use)


def test_trio_server_does_not_wait_for_ever_for_a_close_frame(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(example, "CLOSE_TIMEOUT", 0.05)

    async def close(ws: Any, message: str) -> None:
        if message == "here":
            await ws.close()
            await ws.send("too late")  # which is not a mistake
        else:  # while nothing is received
            nursery.start_soon(ws.close)

    async def use(server: Server) -> None:
        nonlocal nursery
        async with trio.open_nursery() as nursery:
            for message in ("here", "from another task"):
                async with connected(server.port) as client:
                    client.connection.send(message)
                    await client.flush()
                    assert await client.next() == Close(1000, "")
                    assert await client.next() is None
            # Nor for a client that goes on.
            async with connected(server.port) as client:
                await client.stream.send_all(frame(0))
                with pytest.raises(trio.BrokenResourceError):
                    await repeat(client.stream.send_all)

    nursery: Any = None
    with_server(example, close, use)
    assert caplog.records == []


def test_trio_server_drops_a_client_that_never_reads(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SEND_TIMEOUT", 0.05)

    async def flood(ws: Any, message: str) -> None:
        with pytest.raises(ConnectionClosed, match="1006"):
            await repeat(ws.send)
        dropped.append(True)

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("go")
            await client.flush()
            await server.gone.wait()

    dropped: list[bool] = []
    with_server(example, flood, use)
    assert dropped == [True]


def test_trio_server_survives_resets(example: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def use(server: Server) -> None:
        for data in (b"", frame(1, b"hello"), frame(1, JUNK), frame(8)):
            async with connected(server.port) as client:
                await client.stream.send_all(data)
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with connected(server.port) as client:
            client.connection.send("still there?")
            await client.flush()
            assert await client.next() == "still there?"

    with_server(example, example.echo, use)
    assert caplog.records == []


def test_trio_server_that_is_cancelled_says_goodbye(example: ModuleType) -> None:
    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                serve_client = partial(example.serve_client, example.echo)
                nursery.start_soon(partial(trio.serve_listeners, serve_client, listeners))
                port = listeners[0].socket.getsockname()[1]

                async def talk(*, task_status: Any) -> None:
                    async with connected(port) as client:
                        client.connection.send("hello")
                        await client.flush()
                        assert await client.next() == "hello"
                        task_status.started()
                        assert await client.next() == Close(1001, "")
                        await client.flush()
                        assert await client.next() is None
                        told.append(True)

                for _ in range(3):
                    await clients.start(talk)
                nursery.cancel_scope.cancel()

    told: list[bool] = []
    trio.run(main)
    assert told == [True] * 3
