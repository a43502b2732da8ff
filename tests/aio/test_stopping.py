"""Tests that a connection ends, and a server stops, whatever the application's code does."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress

import pytest

from fastws import ConnectionClosed, HandshakeError, WebSocketProtocol, connect, serve
from fastws.aio import admission

from ..tools import needs_uvloop
from .conftest import LOOPS

HOST = "127.0.0.1"
KINDS = ["asyncio", pytest.param("uvloop", marks=needs_uvloop)]
PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def eager(loop, coro, *, name=None, context=None, **_):
    """Like asyncio.eager_task_factory (which does not accept all that uvloop passes)."""
    return asyncio.Task(coro, loop=loop, name=name, context=context, eager_start=True)


EAGER = eager if sys.version_info >= (3, 12) else None


class Interruption(BaseException):
    """Like those of test runners and other event loops."""


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def idle(ws):
    await ws.wait_closed()


@pytest.fixture
def reported():
    """What reaches the loop's exception handler, as expected."""
    seen = []
    asyncio_errors = logging.getLogger("asyncio")
    level = asyncio_errors.level
    asyncio_errors.setLevel(logging.CRITICAL)

    def listen():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: seen.append(context.get("exception")))
        return seen

    yield listen
    asyncio_errors.setLevel(level)


async def within(seconds, awaitable):
    """Await without cancelling: a task that swallows cancellation must not seem to end."""
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert done, "it took too long"
    return task.result()


# Hooks ----------------------------------------------------------------------------------


def failing(hook, exc):
    """A class one of whose hooks raises."""

    def fail(self, *args):
        raise exc

    return type("Failing", (WebSocketProtocol,), {hook: fail, "__slots__": ()})


async def provoke(hook, server, raw, frame):
    """Have a client trigger the hook; return when the client is gone."""
    async with raw(server, handshake=hook != "on_error") as peer:
        if hook == "on_error":
            await peer.send(b"nonsense\r\n\r\n")
        elif hook == "on_message":
            await peer.send(frame(1, b"x") * 3)
        elif hook == "on_close":
            peer.reset()
            return
        with suppress(ConnectionError):
            await peer.rest()


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_error", "on_close"])
@pytest.mark.parametrize("exc", [asyncio.CancelledError, Interruption, GeneratorExit, LookupError])
async def test_whatever_a_hook_lets_out_ends_its_connection(hook, exc, raw, frame, until, caplog):
    async with serve(failing(hook, exc), HOST, 0, close_timeout=0.2) as server:
        await provoke(hook, server, raw, frame)
        await until(lambda: not server._endpoints)
        await within(5, server.close())
    assert [record.getMessage().partition(" (")[0] for record in errors(caplog)] == [
        "a hook of Failing failed"
    ]
    assert errors(caplog)[0].exc_info[0] is exc


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_close"])
async def test_whatever_a_client_s_hook_lets_out_ends_its_connection(hook, caplog):
    async def handler(ws):
        await ws.send("x")
        if hook == "on_close":
            return
        with suppress(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1011

    async with serve(handler, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        protocol = await connect(
            f"ws://{HOST}:{port}", protocol=failing(hook, asyncio.CancelledError)
        )
        await within(5, protocol.wait_closed())
    assert [record.exc_info[0] for record in errors(caplog)] == [asyncio.CancelledError]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_error", "on_close"])
@pytest.mark.parametrize("exc", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_loop_ends_it_and_the_connection(kind, hook, exc, raw, frame, caplog):
    """As in asyncio's own protocols, these two propagate."""
    lost, servers = [], []

    class Exits(failing(hook, exc)):
        __slots__ = ()

        def connection_lost(self, reason):
            super().connection_lost(reason)
            lost.append(self)

    async def main():
        async with serve(Exits, HOST, 0, close_timeout=0.2) as server:
            servers.append(server)
            await provoke(hook, server, raw, frame)
            await asyncio.sleep(10)

    with pytest.raises(exc), asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())
    assert not servers[0]._endpoints
    assert len(lost) == 1
    assert not errors(caplog)


# Classes that are not made as they should be ----------------------------------------------


class Forgetful(WebSocketProtocol):
    def __init__(self):
        self.mine = True


class Late(WebSocketProtocol):
    """Is initialized when the connection is made, which is too late."""

    def __init__(self):
        pass

    def connection_made(self, transport):
        WebSocketProtocol.__init__(self)
        super().connection_made(transport)


class Nonsense(WebSocketProtocol):
    def __new__(cls):
        return object()


class Shared(WebSocketProtocol):
    one = None

    def __new__(cls):
        if cls.one is None:
            cls.one = super().__new__(cls)
            WebSocketProtocol.__init__(cls.one)
        return cls.one

    def __init__(self):
        pass


class Interrupted(WebSocketProtocol):
    def __init__(self):
        raise asyncio.CancelledError("in the constructor")


FORGOTTEN = "__init__() must call super().__init__()"


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Forgetful, f"Forgetful.{FORGOTTEN}"),
        (Late, f"Late.{FORGOTTEN}"),
        (Nonsense, "protocol must be a WebSocketProtocol, not 'object'"),
        (Interrupted, "in the constructor"),
    ],
)
async def test_a_protocol_that_cannot_be_made(factory, words, raw, caplog):
    async with serve(factory, HOST, 0) as server:
        for _ in range(2):
            async with raw(server, handshake=False) as peer:
                with suppress(ConnectionError):
                    assert await within(5, peer.rest()) == b""
        assert not server._endpoints
    assert [record.getMessage() for record in errors(caplog)] == [
        f"could not make a protocol: {words}"
    ] * 2


async def test_a_protocol_that_has_a_connection_already(raw, caplog):
    async with serve(Shared, HOST, 0) as server, raw(server):
        async with raw(server, handshake=False) as peer:
            with suppress(ConnectionError):
                assert await within(5, peer.rest()) == b""
        assert len(server.connections) == 1
    assert [record.getMessage() for record in errors(caplog)] == [
        "could not make a protocol: Shared object already has a connection"
    ]
    Shared.one = None


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        (Forgetful, RuntimeError, f"Forgetful.{FORGOTTEN}"),
        (object, TypeError, "not 'object'"),
        (Interrupted, asyncio.CancelledError, "in the constructor"),
    ],
)
async def test_a_clients_protocol_that_cannot_be_made(factory, error, words):
    with pytest.raises(error) as caught:
        await connect(f"ws://{HOST}:9", protocol=factory)
    assert words in str(caught.value)


async def test_a_protocol_that_was_not_initialized_on_a_transport_of_its_own(reported):
    """`loop.create_server` accepts the class too."""
    seen = reported()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Forgetful, HOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(PLAIN)
    with suppress(ConnectionError):
        assert await within(5, reader.read()) == b""
    writer.close()
    server.close()
    assert [str(exc) for exc in seen] == [f"Forgetful.{FORGOTTEN}"]


# asyncio's own methods, overridden --------------------------------------------------------


class MadeBefore(WebSocketProtocol):
    def connection_made(self, transport):
        raise LookupError("made")


class MadeAfter(WebSocketProtocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        raise LookupError("made")


class LostBefore(WebSocketProtocol):
    def connection_lost(self, exc):
        raise LookupError("lost")


class LostAfter(WebSocketProtocol):
    def connection_lost(self, exc):
        super().connection_lost(exc)
        raise asyncio.CancelledError("lost")


class LostBelow(LostBefore):
    """An override of an override."""

    def connection_lost(self, exc):
        super().connection_lost(exc)


class LostForgotten(WebSocketProtocol):
    def connection_lost(self, exc):
        pass


MADE = [MadeBefore, MadeAfter]
LOST = [LostBefore, LostAfter, LostBelow, LostForgotten]


@pytest.mark.parametrize("factory", MADE)
async def test_a_connection_made_that_fails_ends_the_connection(factory, raw, reported, until):
    seen = reported()
    async with serve(factory, HOST, 0) as server:
        async with raw(server, handshake=False) as peer:
            with suppress(ConnectionError):
                assert await within(5, peer.rest()) == b""
        await until(lambda: not server._endpoints)
        await within(5, server.close())
    assert [str(exc) for exc in seen] == ["made"]


@pytest.mark.parametrize("factory", MADE)
async def test_a_clients_connection_made_that_fails(factory, url, reported):
    seen = reported()
    async with serve(idle, HOST, 0) as server:
        with pytest.raises(LookupError, match="made"):
            await within(5, connect(url(server), protocol=factory)._connect())
    assert [str(exc) for exc in seen] == ["made"]


@pytest.mark.parametrize("factory", LOST)
async def test_a_connection_lost_that_fails(factory, raw, url, reported, until):
    seen, closed = reported(), []

    class Protocol(factory):
        def on_close(self, code, reason):
            closed.append(code)

    async with serve(Protocol, HOST, 0, ping_interval=0.05) as server:
        async with raw(server) as peer:
            await until(lambda: server._endpoints)
            peer.reset()
        await until(lambda: not server._endpoints)
        protocol = await connect(url(server), protocol=Protocol)
        ping = protocol.ping()
        protocol._transport.abort()
        await within(5, protocol.wait_closed())
        with pytest.raises(ConnectionClosed):
            await ping
        await until(lambda: not server._endpoints)
        await within(5, server.close())
    assert closed == [1006] * 3
    assert [str(exc) for exc in seen] == ["lost"] * (0 if factory is LostForgotten else 3)


@pytest.mark.parametrize("factory", [LostBefore, LostForgotten])
async def test_a_connection_lost_that_fails_during_the_handshake(
    factory, raw_server, url, reported
):
    reported()

    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.reset()

    async with raw_server(play, handshake=False) as server:
        with pytest.raises((OSError, HandshakeError)):
            await within(5, connect(url(server), protocol=factory)._connect())


# Handlers -------------------------------------------------------------------------------


@pytest.fixture
def stubborn():
    """A handler that ignores cancellation until the test ends."""
    release = asyncio.Event()

    async def stubborn(ws):
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    stubborn.release = release
    return stubborn


async def test_a_handler_that_does_not_end_is_left_behind_and_named(stubborn, url, caplog, until):
    server = await serve(stubborn, HOST, 0, shutdown_timeout=0.05)
    clients = [await connect(url(server)) for _ in range(2)]
    addresses = {str(ws.local_address) for ws in clients}
    await within(10, server.close())
    await within(1, server.wait_closed())
    assert not server._endpoints
    messages, numbers = zip(*(r.getMessage().split(" #") for r in errors(caplog)), strict=True)
    assert len(set(map(int, numbers))) == 2
    name = stubborn.__qualname__
    assert sorted(messages) == sorted(
        f"handler {name} did not end when it was cancelled ({address})" for address in addresses
    )
    stubborn.release.set()
    await until(lambda: not server._tasks)
    for ws in clients:
        await ws.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
async def test_a_second_signal_does_not_wait_for_a_stubborn_handler(stubborn, url, caplog, until):
    async with serve(stubborn, HOST, 0, shutdown_timeout=None) as server, connect(url(server)):
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: server._closing is not None)
        os.kill(os.getpid(), signal.SIGTERM)
        await within(10, serving)
        stubborn.release.set()
    assert len(errors(caplog)) == 1


async def test_a_handler_that_takes_its_time_to_clean_up_has_some(url):
    cleaned = []

    async def handler(ws):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append(True)

    async with serve(handler, HOST, 0, shutdown_timeout=0.05) as server, connect(url(server)):
        await within(10, server.close())
        assert cleaned == [True]


async def test_handlers_that_let_out_anything(url, caplog, reported):
    reported()
    excs = [Interruption("x"), asyncio.CancelledError("x"), LookupError("x")]

    async def handler(ws):
        raise excs[int(await ws.recv())]

    async with serve(handler, HOST, 0) as server:
        codes = []
        for index in range(len(excs)):
            async with connect(url(server)) as ws:
                await ws.send(str(index))
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                codes.append(ws.close_code)
        await within(5, server.close())
    assert codes == [1011, 1001, 1011]
    assert [record.exc_info[1] for record in errors(caplog)] == [excs[0], excs[2]]


async def close_once(server):
    await server.close()


async def close_twice(server):
    await server.close()
    await server.close()


async def close_concurrently(server):
    await asyncio.gather(server.close(), server.close())


async def close_with_a_timeout(server):
    await asyncio.wait_for(server.close(), 20)


async def close_in_the_background(server):
    server.background = asyncio.create_task(server.close())


async def close_and_lose_patience(server):
    with suppress(TimeoutError):
        await asyncio.wait_for(server.close(), 0.001)


CLOSERS = [
    close_once, close_twice, close_concurrently, close_with_a_timeout, close_in_the_background,
    close_and_lose_patience,
]  # fmt: skip


@pytest.mark.parametrize("close", CLOSERS)
@pytest.mark.parametrize("factory", [None] if EAGER is None else [None, EAGER])
@pytest.mark.parametrize("first", [True, False], ids=["at_once", "later"])
@pytest.mark.parametrize("timeout", [None, 20])
async def test_a_handler_may_close_its_own_server(close, factory, first, timeout, url, until):
    asyncio.get_running_loop().set_task_factory(factory)
    ended = []

    async def handler(ws):
        try:
            if not first:
                await ws.recv()
            await close(server)
            with suppress(ConnectionClosed):
                await ws.recv()
            ended.append(ws.close_code)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with serve(handler, HOST, 0, shutdown_timeout=timeout) as server:
        ws = await connect(url(server))
        if not first:
            await ws.send("stop")
        with pytest.raises(ConnectionClosed, match="1001"):
            await ws.recv()
        await ws.close()
        await within(15, server.wait_closed())
        await within(1, server.close())
        if close is close_in_the_background:
            await server.background
            assert ended == [1001]  # it was waited for
    await until(lambda: ended)
    assert ended == [1001]


@pytest.mark.skipif(EAGER is None, reason="eager tasks came with Python 3.12")
async def test_eager_tasks(url, raw, frame):
    """A handler may have returned before the server knows its task."""
    asyncio.get_running_loop().set_task_factory(EAGER)

    async def handler(ws):
        await ws.send("bye")

    async with serve(handler, HOST, 0) as server:
        for _ in range(3):
            async with connect(url(server)) as ws:
                assert [message async for message in ws] == ["bye"]
                assert ws.close_code == 1000
        await within(5, server.close())
        assert not server._tasks


# close() ----------------------------------------------------------------------------------


async def test_a_close_that_is_cancelled_goes_on(url):
    go_on = asyncio.Event()

    async def handler(ws):
        await go_on.wait()

    async with serve(handler, HOST, 0, shutdown_timeout=20) as server, connect(url(server)):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.close(), 0.01)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await within(5, closing)


async def test_a_close_is_begun_again_when_all_tasks_were_cancelled(url, caplog):
    """Like programs that want to exit."""

    async def handler(ws):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    server = await serve(handler, HOST, 0, shutdown_timeout=0.05)
    ws = await connect(url(server))
    closing = asyncio.create_task(server.close())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait([closing])
    await within(5, server.close())
    await within(1, server.wait_closed())
    assert not server._endpoints
    await ws.close()


async def test_a_process_request_that_does_not_end(raw, until):
    begun, release = asyncio.Event(), asyncio.Event()

    async def process_request(request):
        begun.set()
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()

    async with (
        serve(idle, HOST, 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(PLAIN)
        await begun.wait()
        await within(5, server.close())
        assert not server._endpoints
        release.set()
        assert (await within(5, peer.rest())).startswith(b"HTTP/1.1 503 ")


async def test_process_request_may_close_the_server(raw):
    async def process_request(request):
        await server.close()

    async with (
        serve(idle, HOST, 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(PLAIN)
        assert (await within(5, peer.rest())).startswith(b"HTTP/1.1 503 ")
        await within(5, server.wait_closed())


@pytest.mark.parametrize(
    ("when", "secure"), [("waiting", False), ("waiting", True), ("accepted", False)]
)
async def test_a_client_that_has_just_connected_is_told_to_try_again(
    when, secure, tls, until, monkeypatch
):
    monkeypatch.setattr(admission, "PATIENCE", 60.0)
    options = {"ssl": tls.server if secure else None, "shutdown_timeout": 60}
    async with serve(idle, HOST, 0, **options) as server:
        address = server.sockets[0].getsockname()
        # The event loop does not run meanwhile, so they are not accepted.
        socks = [socket.create_connection(address) for _ in range(3)]
        if when == "accepted":
            await until(lambda: len(server._endpoints) == 3)
        else:
            await server._stop_listening()
        closing = asyncio.ensure_future(server.close())
        await until(lambda: not server.sockets)
        options = {"ssl": tls.client, "server_hostname": "localhost"} if secure else {}
        for sock in socks:
            reader, writer = await asyncio.open_connection(sock=sock, **options)
            writer.write(PLAIN)
            response = await within(5, reader.read())
            assert response.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in response
            writer.close()
        await within(5, closing)


@pytest.mark.parametrize("when", ["late", "never"])
async def test_a_client_that_says_nothing_is_not_waited_for(when, raw, until, monkeypatch):
    monkeypatch.setattr(admission, "PATIENCE", {"late": 0.0, "never": 0.1}[when])
    async with (
        serve(idle, HOST, 0, open_timeout=60 if when == "late" else None) as server,
        raw(server, handshake=False) as peer,
    ):
        await until(lambda: server._endpoints)
        await within(5, server.close())
        assert await within(5, peer.rest()) == b""


@pytest.mark.parametrize("method", ["close", "drain"])
async def test_a_task_that_stops_listening_may_be_cancelled(method, raw, until):
    async with serve(idle, HOST, 0, close_timeout=0.1) as server, raw(server):
        await until(lambda: server.connections)
        waiting = socket.create_connection(server.sockets[0].getsockname())
        stop = server._close(1001, "") if method == "close" else server.drain(60)
        stopping = asyncio.ensure_future(stop)
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not server.sockets
        if method == "close":
            assert all(each._transport.is_closing() for each in server._endpoints)
        waiting.close()
        await within(5, server.close())


@pytest.mark.parametrize("hurried", [False, True])
async def test_tls_that_does_not_begin_is_not_waited_for(hurried, tls, until, monkeypatch):
    monkeypatch.setattr(admission, "PATIENCE", 60.0)
    async with serve(idle, HOST, 0, ssl=tls.server, shutdown_timeout=0.05) as server:
        with socket.create_connection(server.sockets[0].getsockname()):
            await server._stop_listening()
            assert server._arriving
            server._hurried = hurried
            await within(5, server.close())
            assert not server._arriving


@pytest.mark.loops("asyncio")
async def test_connections_wait_for_the_next_server_of_a_socket():
    with socket.create_server((HOST, 0)) as sock:
        async with serve(idle, sock=sock.dup()) as server:
            client = socket.create_connection(sock.getsockname())
            await server.close()
        async with serve(idle, sock=sock.dup()), connect("ws://localhost:1", sock=client):
            pass


@pytest.mark.parametrize("exc", [LookupError, asyncio.CancelledError, Interruption])
async def test_a_body_that_raises_closes_the_server(exc, url):
    async def run():
        async with serve(idle, HOST, 0) as server:
            servers.append(server)
            clients.append(await connect(url(server)))
            raise exc

    servers, clients = [], []
    with pytest.raises(exc):
        await run()
    assert not servers[0].sockets
    assert not servers[0]._endpoints
    with pytest.raises(ConnectionClosed, match="1001"):
        await clients[0].recv()
    await clients[0].close()
    gc.collect()
