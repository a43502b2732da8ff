"""How an endpoint slows down, drops and gives up, next to what was read but is not decoded yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from fastws import WebSocketProtocol, connect, serve

from ..wire import OFFER, compressed

MIB = 1 << 20


async def wait(ws):
    await ws.wait_closed()
    await asyncio.sleep(60)


def transport_of(ws, **replaced):
    """Return a transport like that of a connection, with some of its methods replaced."""
    names = [name for name in dir(ws._transport) if not name.startswith("_")]
    methods = {name: getattr(ws._transport, name) for name in names}
    return SimpleNamespace(**(methods | replaced))


async def test_what_is_pending_waits_for_the_pause_of_slow_reading(raw, frame, until):
    """The next part is not decoded while too much waits, before the pause is over."""
    bomb = frame(2, compressed(bytes(MIB // 4)), rsv=4) * 4
    async with (
        serve(wait, "127.0.0.1", 0, deflate=True, shutdown_timeout=0.1) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        (ws,) = server.connections
        await peer.send(bomb)
        await until(lambda: ws._sink.messages)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(ws._sink.messages) == 1
        await until(lambda: len(ws._sink.messages) == 4)
        peer.reset()


async def test_a_client_that_takes_nothing_does_not_have_its_pings_decoded(raw, frame, until):
    """A server reads 64 KiB a second from it, however many frames they are."""
    async with (
        serve(wait, "127.0.0.1", 0, shutdown_timeout=0.1) as server,
        raw(server) as peer,
    ):
        (ws,) = server.connections
        ws.pause_writing()
        await peer.send(frame(9) * 30_000)  # 180 KB
        await until(lambda: ws._connection.has_pending)
        await asyncio.sleep(0.5)
        assert ws._connection.has_pending
        ws.resume_writing()
        await until(lambda: not ws._connection.has_pending)
        peer.reset()


@pytest.mark.parametrize("closes", ["before", "after"])
async def test_close_does_not_wait_for_what_nobody_receives_of_a_lost_connection(
    raw, frame, until, closes
):
    """The transport is gone, and the close timeout need not pass."""

    async def handler(ws):
        if closes == "before":
            await until(lambda: ws._sink.is_held)
            await ws.close()
        else:
            await until(lambda: ws._phase.name == "LOST")
            await ws.close()

    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 20
    async with (
        serve(handler, "127.0.0.1", 0, deflate=True, close_timeout=20) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        (ws,) = server.connections
        await peer.send(bomb)
        await until(lambda: ws._sink.is_held)
        if closes == "before":
            await until(lambda: ws._phase.name == "CLOSING")
        ws._transport.abort()
        await until(lambda: not server._endpoints, timeout=5)


async def test_no_limit_at_all(raw, frame):
    """Without limits, nothing is too much, not even with something pending."""
    received = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await asyncio.sleep(0.3)
        received.set_result([len(await ws.recv()) for _ in range(8)])

    bomb = frame(2, compressed(bytes(MIB // 4)), rsv=4) * 8
    async with (
        serve(handler, "127.0.0.1", 0, deflate=True, max_queue=None, read_limit=None) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(bomb)
        assert await received == [MIB // 4] * 8


async def test_who_takes_too_little_is_dropped_at_once(raw, until):
    """Nothing is shut down politely."""
    calls = []

    class Flood(WebSocketProtocol):
        def on_close(self, code, reason):
            calls.append(code)

    async with serve(Flood, "127.0.0.1", 0, max_unsent_size=65536) as server, raw(server):
        (ws,) = server.connections
        ws.pause_writing()
        transport = ws._transport

        def abort():
            calls.append("abort")
            transport.abort()

        ws._transport = transport_of(
            ws,
            abort=abort,
            get_write_buffer_size=lambda: MIB,
            write_eof=lambda: calls.append("write_eof"),
            close=lambda: calls.append("close"),
        )
        ws.send("too much")
        ws._transport = transport
        await until(lambda: len(calls) == 2)
        assert calls == ["abort", 1008]


async def test_an_object_that_is_used_again(url):
    """A second connection does not come about, and nothing reaches the loop's handler."""
    protocol = WebSocketProtocol()

    async def handler(ws):
        await ws.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server:
        async with connect(url(server), protocol=lambda: protocol):
            pass
        with pytest.raises(TimeoutError):
            await connect(url(server), protocol=lambda: protocol, open_timeout=0.3)


async def test_connection_made_that_fails_before_ours(url, runner):
    """The connection never began, so there is no opening handshake that could fail."""
    errors = []

    class Fails(WebSocketProtocol):
        def connection_made(self, transport):
            raise ValueError("first")

        def on_error(self, exc):
            errors.append(exc)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def handler(ws):
        await ws.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server:
        with pytest.raises(ValueError, match="first"):
            await connect(url(server), protocol=Fails)
        await asyncio.sleep(0.05)
    assert errors == []


async def test_sending_what_is_compressed_leaves_nothing_behind(url):
    """An idle connection has nothing for senders that wait, if none had to."""

    async def handler(ws):
        await ws.wait_closed()

    async with (
        serve(handler, "127.0.0.1", 0, deflate=True) as server,
        connect(url(server), deflate=True) as ws,
    ):
        await ws.send("text")
        await ws.send(bytearray(b"binary"))
        assert ws._senders is None
