"""Pings, pongs, close frames and keepalive work whether or not messages are received."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

import pytest

from fastws import ConnectionClosed, State, WebSocketProtocol, connect, serve

from ..wire import upgrade_request

KIB = 1 << 10
MIB = 1 << 20
ALERT = {"ping_interval": 0.1, "ping_timeout": 0.3}

# More messages than may be queued: how many, and how large.
UNREAD = [(2, 1), (40, 1), (2000, 10), (30, 64 * KIB)]
unread = pytest.mark.parametrize(("count", "size"), UNREAD, ids=lambda value: str(value))


@pytest.fixture
def idle(until):
    """A server whose handler receives nothing, and its side of the only connection."""
    go = asyncio.Event()

    async def handler(ws):
        await go.wait()

    handler.go = go
    return handler


async def connection_of(server, until):
    await until(lambda: server._endpoints)
    (ws,) = server.connections
    return ws


@unread
async def test_a_peer_that_is_not_received_gets_its_pongs(idle, url, count, size):
    """Its keepalive must not consider us dead."""
    keepalive = {"ping_interval": 0.2, "ping_timeout": 1.0}
    async with serve(idle, "127.0.0.1", 0) as server, connect(url(server), **keepalive) as ws:
        for number in range(count):
            await ws.send(bytes([number % 256]) * size)
        for _ in range(3):
            assert await ws.ping() < 10
        await asyncio.sleep(1.5)
        assert ws.state is State.OPEN
        idle.go.set()


@unread
async def test_our_pings_are_answered_while_messages_wait(pair, count, size):
    async with pair() as (client, server):
        for number in range(count):
            await client.send(bytes([number % 256]) * size)
        async with asyncio.timeout(20):
            assert await server.ping() < 20
        assert server.state is State.OPEN
        received = [await server.recv() for _ in range(count)]
        assert received == [bytes([number % 256]) * size for number in range(count)]


@unread
@pytest.mark.parametrize("how", ["close frame", "end of stream"])
async def test_the_peers_end_is_noticed_while_messages_wait(raw, frame, until, count, size, how):
    closed = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await ws.wait_closed()
        messages = []
        try:
            while True:
                messages.append(await ws.recv())
        except ConnectionClosed as exc:
            closed.set_result((exc.code, len(messages)))

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        for _ in range(count):
            await peer.send(frame(2, bytes(size)))
            await asyncio.sleep(0)
        if how == "close frame":
            await peer.send(frame(8, b"\x0f\xa0"))
            assert await peer.close_frame() == (4000, "")
        peer.writer.write_eof()
        # All that arrived can still be received.
        assert await closed == (4000 if how == "close frame" else 1006, count)


@pytest.mark.parametrize(("count", "size"), UNREAD[:3])
async def test_a_dead_peer_is_dropped_while_messages_wait(raw, frame, until, count, size):
    """It answers no ping. Unread data that it sent earlier is not a sign of life."""
    closed = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await ws.wait_closed()
        closed.set_result(ws.close_code)

    options = {**ALERT, "close_timeout": 0.2}
    async with serve(handler, "127.0.0.1", 0, **options) as server, raw(server) as peer:
        for _ in range(count):
            await peer.send(frame(2, bytes(size)))
        assert await closed == 1011
        await until(lambda: not server._endpoints)


async def deaf(server, frame):
    """A client that reads nothing, and has a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, server.sockets[0].getsockname())
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(upgrade_request())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()
    return writer


@pytest.mark.parametrize("trickle", [None, "message", "ping", "part of a message"])
@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_deaf_peer_is_dropped_whatever_it_sends(frame, until, trickle, style):
    """A handler waits in `send`; a byte now and then must not make it wait forever."""
    closed = asyncio.get_running_loop().create_future()

    async def flood(ws):
        try:
            while True:
                await ws.send(bytes(100 * KIB))
        except ConnectionClosed as exc:
            closed.set_result(exc.code)

    class Flood(WebSocketProtocol):
        def on_open(self):
            for _ in range(100):
                self.send(bytes(100 * KIB))

        def on_close(self, code, reason):
            closed.set_result(code)

    options = {**ALERT, "close_timeout": 0.2}
    handler = flood if style == "coroutine" else Flood
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        writer = await deaf(server, frame)
        pieces = {
            None: b"",
            "message": frame(2, b"x"),
            "ping": frame(9, b"x"),
            "part of a message": b"x",
        }
        if trickle == "part of a message":
            writer.write(frame(2, bytes(100_000))[:20])
        async with asyncio.timeout(10):
            while not closed.done():
                writer.write(pieces[trickle])
                await asyncio.sleep(0.05)
        assert await closed in (1006, 1011)
        await until(lambda: not server._endpoints)
        writer.close()


@pytest.mark.parametrize("style", ["coroutine", "callback"])
async def test_a_slow_peer_that_takes_a_little_now_and_then_stays(frame, style):
    """It answers no ping, because these are queued behind other data, but it goes on reading."""
    size = 16 * MIB

    async def send(ws):
        await ws.send(bytes(size))
        await ws.wait_closed()

    class Send(WebSocketProtocol):
        def on_open(self):
            self.send(bytes(size))

    options = {"ping_interval": 0.2, "ping_timeout": 0.5, "close_timeout": 0.2}
    handler = send if style == "coroutine" else Send
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        writer = await deaf(server, frame)
        sock = writer.get_extra_info("socket")
        writer.transport.pause_reading()
        loop = asyncio.get_running_loop()
        (ws,) = server.connections
        start = loop.time()
        taken = 0
        while loop.time() < start + 2:
            with suppress(BlockingIOError):
                taken += len(os.read(sock.fileno(), 64 * KIB))
            await asyncio.sleep(0.02)
            assert ws.state is State.OPEN
        assert taken < size
        assert ws._transport.get_write_buffer_size()
        writer.transport.abort()


async def test_a_client_that_is_not_received_goes_on_reading_a_little(
    raw_server, url, frame, until
):
    """In both directions: a client's application may be slow, too."""
    done = asyncio.Event()

    async def play(peer):
        for _ in range(60):
            await peer.send(frame(1, b"news", key=b""))
        await peer.send(frame(9, b"there?", key=b""))
        while (await peer.frame()) != (0x8A, b"there?"):
            pass
        done.set()
        await peer.close_frame()

    async with raw_server(play) as server, connect(url(server)) as ws:
        async with asyncio.timeout(5):
            await done.wait()
        assert [await ws.recv() for _ in range(60)] == ["news"] * 60


@pytest.mark.parametrize("limit", [{"max_queue": 3}, {"read_limit": 3000}])
async def test_how_much_waits_is_an_argument(pair, settled, limit):
    for side in ("client", "server"):
        async with pair(**{side: limit}) as (client, server):
            sender, receiver = (client, server) if side == "server" else (server, client)
            for number in range(100):
                await sender.send(f"{number:1000}")
                await asyncio.sleep(0)
                if receiver._sink.is_held:
                    break
            assert 2 <= number < 20
            received = [await receiver.recv() for _ in range(number + 1)]
            assert received == [f"{one:1000}" for one in range(number + 1)]


@pytest.mark.parametrize("limits", [{"max_queue": 0}, {"read_limit": 0}, {"max_queue": -1}])
def test_limits_that_let_nothing_wait_are_refused(limits):
    with pytest.raises(ValueError, match="must be at least 1"):
        serve(WebSocketProtocol, "127.0.0.1", 0, **limits)
    with pytest.raises(ValueError, match="must be at least 1"):
        connect("ws://127.0.0.1", **limits)


async def test_no_limits(pair, settled):
    limits = {"max_queue": None, "read_limit": None}
    async with pair(server=limits) as (client, server):
        for _ in range(50):
            await client.send(bytes(64 * KIB))
        assert await settled(lambda: len(server._sink.messages or ())) == 50


async def test_what_nobody_receives_is_bounded(pair, until, settled):
    async with pair() as (client, server):
        sending = asyncio.create_task(client.send([bytes(KIB)] * 10))
        await sending

        async def flood():
            while True:
                await client.send(bytes(16 * KIB))

        flooding = asyncio.create_task(flood())
        await settled(lambda: len(server._sink.messages or ()), quiet=0.5)
        assert sum(map(len, server._sink.messages)) < 3 * MIB
        flooding.cancel()
        await asyncio.wait([flooding])


async def test_nobody_receives_and_nothing_more_can_be_read(raw, frame, until, monkeypatch, caplog):
    """So much is unread that not even pings are read: that must not last forever."""
    monkeypatch.setattr("fastws.aio.keepalive._FORBEARANCE", 1.0)
    closed = asyncio.get_running_loop().create_future()

    async def handler(ws):
        start = asyncio.get_running_loop().time()
        await ws.wait_closed()
        closed.set_result((ws.close_code, asyncio.get_running_loop().time() - start))

    options = {**ALERT, "close_timeout": 0.2}
    async with serve(handler, "127.0.0.1", 0, **options) as server, raw(server) as peer:

        async def flood():
            while True:
                await peer.send(frame(2, bytes(64 * KIB)))

        flooding = asyncio.create_task(flood())
        code, after = await closed
        assert code == 1011
        assert after > 1.0
        flooding.cancel()
        await asyncio.wait([flooding])
    (record,) = caplog.records
    assert "none is received" in record.message


async def test_who_receives_now_and_then_is_borne_with(pair, monkeypatch, until):
    monkeypatch.setattr("fastws.aio.keepalive._FORBEARANCE", 1.0)
    async with pair(server=ALERT) as (client, server):

        async def flood():
            while True:
                await client.send(bytes(64 * KIB))

        flooding = asyncio.create_task(flood())
        await until(lambda: server._sink.is_full(server))
        for _ in range(8):
            await asyncio.sleep(0.5)
            assert len(await server.recv()) == 64 * KIB
        assert server.state is State.OPEN
        flooding.cancel()
        await asyncio.wait([flooding])


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_a_transfer_that_goes_on_is_a_sign_of_life(raw, tls, secure):
    """Wherever the unsent bytes are: in a transport, in one below it, or in the system."""
    size = 48 * MIB

    async def handler(ws):
        with suppress(ConnectionClosed):
            await ws.send(bytes(size))
            await ws.wait_closed()

    options = {"ping_interval": 0.3, "ping_timeout": 0.3, "close_timeout": 0.2}
    options |= {"ssl": tls.server} if secure else {}
    client = {"ssl": tls.client, "server_hostname": "localhost"} if secure else {}
    async with (
        serve(handler, "127.0.0.1", 0, **options) as server,
        raw(server, limit=16 * KIB, **client) as peer,
    ):
        (ws,) = server.connections
        loop = asyncio.get_running_loop()
        start = loop.time()
        while loop.time() < start + 2.5:
            await peer.reader.readexactly(64 * KIB)
            await asyncio.sleep(0.02)
            assert ws.state is State.OPEN
        peer.reset()


async def test_the_queue_is_bounded_by_its_length_alone(pair, settled):
    async with pair(server={"read_limit": None}) as (client, server):

        async def flood():
            while True:
                await client.send(bytes(10 * KIB))

        flooding = asyncio.create_task(flood())
        count = await settled(lambda: len(server._sink.messages or ()), quiet=0.5)
        assert 16 <= count < 200
        flooding.cancel()
        await asyncio.wait([flooding])
