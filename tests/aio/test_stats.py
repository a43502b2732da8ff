"""What `ws.stats` says about a connection on a transport."""

from __future__ import annotations

import asyncio

from fastws import Stats, WebSocket, WebSocketProtocol, connect, prepare, serve
from fastws.spec import KEEPALIVE

KIB = 1 << 10


async def test_both_ends_count_the_same(pair, until):
    async with pair({"max_message_size": None}, {"max_message_size": None}) as (ws, theirs):
        assert ws.stats == theirs.stats == Stats()
        await ws.send("äh")
        await ws.send([b"one", b"two"])
        await ws.send(prepare("three"))
        # Two large ones in a row: the beginning of the second is left for later.
        for _ in range(3):
            await ws.send(bytes(200 * KIB))
        for _ in range(6):
            await theirs.recv()
        await theirs.send("answer")
        await ws.recv()
        latency = await ws.ping()
        await until(lambda: ws.stats.unsent == 0)
        ours, other = ws.stats, theirs.stats
        assert ours.messages_sent == other.messages_received == 6
        assert ours.frames_sent == other.frames_received == 9
        assert ours.payload_sent == other.payload_received == 3 + 6 + 5 + 600 * KIB
        assert ours.bytes_sent == other.bytes_received > other.payload_received
        assert ours.pings_sent == other.pings_received == 1
        assert other.pongs_sent == ours.pongs_received == 1
        assert other.bytes_sent == ours.bytes_received == 8 + 6
        assert ours.latency == latency
        assert other.latency is None
    # Nothing is lost at the end.
    assert ws.stats.frames_sent == ours.frames_sent + 1
    assert ws.stats.frames_received == ours.frames_received + 1
    assert ws.stats.unsent == theirs.stats.unsent == 0


async def test_the_latency_of_the_keepalive(pair, until):
    async with pair({"ping_interval": 0.01}) as (ws, theirs):
        await until(lambda: ws.stats.latency is not None)
        assert 0 < ws.stats.latency < 10
        assert ws.stats.pings_sent >= 1
        assert theirs.stats.pings_received >= 1


async def test_a_pong_that_nobody_asked_for_has_no_latency(raw, frame, until):
    made = []

    class Kept(WebSocketProtocol):
        def on_open(self):
            made.append(self)

    async with serve(Kept, "127.0.0.1", 0, ping_interval=None) as server, raw(server) as peer:
        await peer.send(frame(10, KEEPALIVE) + frame(10, b"\0\0\0\0"))
        await until(lambda: made and made[0].stats.pongs_received == 2)
        assert made[0].stats.latency is None
        await peer.send(frame(8))


async def test_pauses_of_reading(pair, until):
    async with pair({}, {"max_queue": 2}) as (ws, theirs):
        for number in range(10):
            await ws.send(str(number))
            await until(lambda number=number: ws.stats.unsent == 0)
        await until(lambda: theirs.stats.read_pauses)
        for _ in range(10):
            await theirs.recv()
        assert theirs.stats.read_pauses >= 1
        assert ws.stats.read_pauses == 0


async def test_pauses_of_writing(pair):
    async with pair({"max_message_size": None}, {"write_limit": KIB}) as (ws, theirs):
        ws._transport.pause_reading()
        sending = asyncio.ensure_future(theirs.send(bytes(16 * KIB * KIB)))
        await asyncio.sleep(0.01)
        stats = theirs.stats
        assert stats.write_pauses == 1
        assert 0 < stats.unsent < stats.bytes_sent
        ws._transport.resume_reading()
        await ws.recv()
        await sending
        assert theirs.stats.unsent == 0


async def test_a_connection_that_is_not_open_has_counted_nothing():
    for kind in (WebSocket, WebSocketProtocol):
        assert kind().stats == Stats()


async def test_a_connection_that_was_lost(raw, until):
    made = []

    async def handler(ws):
        made.append(ws)
        await ws.wait_closed()

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        await until(lambda: made)
        peer.reset()
        await until(lambda: made[0].close_code)
        assert made[0].stats == Stats()


async def test_over_tls(tls, url):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with (
        serve(echo, "localhost", 0, ssl=tls.server) as server,
        connect(url(server, secure=True), ssl=tls.client) as ws,
    ):
        await ws.send("one")
        await ws.recv()
        await ws.close()
        assert (ws.stats.messages_sent, ws.stats.bytes_sent) == (1, 9 + 8)
        assert (ws.stats.messages_received, ws.stats.bytes_received) == (1, 5 + 4)
