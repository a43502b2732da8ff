"""Small messages that inflate to large ones: memory is bounded, and other tasks get their turn."""

from __future__ import annotations

import asyncio

import pytest

from fastws import ConnectionClosed, PerMessageDeflate, WebSocketProtocol, connect, serve
from fastws.deflate import Inflater

from ..tools import traced
from ..wire import OFFER, compressed

MIB = 1 << 20
COUNT = 200
PAYLOADS = {
    "binary": (2, bytes(MIB)),
    "text": (1, b"a" * MIB),
    "wide text": (1, "😀".encode() + b"a" * (MIB - 4)),
}


@pytest.fixture(params=["callback", "coroutine"])
def count_messages(request):
    """A handler that answers "how many" with a number, and drops everything else."""

    def answer(state, message):
        state["count"] = state.get("count", 0) + 1
        return str(state["count"]) if message == "how many" else None

    def make(state):
        if request.param == "coroutine":

            async def handler(ws):
                async for message in ws:
                    if (reply := answer(state, message)) is not None:
                        await ws.send(reply)

            return handler

        class Protocol(WebSocketProtocol):
            def on_message(self, message):
                if (reply := answer(state, message)) is not None:
                    self.send(reply)

        return Protocol

    return make


@pytest.mark.parametrize("kind", PAYLOADS)
async def test_a_bomb_takes_little_memory_and_lets_others_in(
    count_messages, raw, frame, url, kind, until
):
    opcode, payload = PAYLOADS[kind]
    bomb = frame(opcode, compressed(payload), rsv=4) * COUNT
    bomb += frame(1, b"how many")
    state = {}
    gaps = []
    async with (
        # (A busy machine may take as long as until the first ping.)
        serve(count_messages(state), "127.0.0.1", 0, deflate=True, ping_interval=None) as server,
        raw(server, handshake=False) as peer,
        connect(url(server), ping_interval=None) as other,
    ):
        assert (await peer.request(OFFER))[0] == 101
        with traced() as memory:
            sending = asyncio.create_task(peer.send(bomb))
            reading = asyncio.create_task(peer.frame())
            while not reading.done():
                before = state.get("count", 0)
                await other.send("how many")
                await other.recv()
                gaps.append(state["count"] - before)
            most = memory()[1]
        await sending
        # 200 MiB were inflated, one after the other.
        _, answer = await reading
        assert int(answer) >= COUNT
    assert most < 16 * MIB
    # The other connection got its turn every few messages.
    assert len(gaps) > COUNT // 20
    assert max(gaps) < 20


async def test_nobody_receives_a_bomb(raw, frame, until, settled):
    """Unreceived messages are inflated up to a limit, and the rest as they are received."""
    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * COUNT
    received = []
    go = asyncio.Event()

    async def handler(ws):
        await go.wait()
        received.extend([len(await ws.recv()) for _ in range(COUNT)])

    async with (
        serve(handler, "127.0.0.1", 0, deflate=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        with traced() as memory:
            sending = asyncio.create_task(peer.send(bomb))
            (ws,) = server.connections
            await until(lambda: ws._sink.messages)
            await settled(lambda: len(ws._sink.messages), quiet=0.5)
            assert memory()[1] < 16 * MIB
            go.set()
            await until(lambda: len(received) == COUNT)
            assert memory()[1] < 16 * MIB
        await sending
    assert received == [MIB] * COUNT


async def test_a_client_is_bounded_too(raw_server, url, frame):
    """(A raw server does not negotiate compression, so a fastws server sends.)"""
    messages = [bytes(MIB)] * 50

    class Flood(WebSocketProtocol):
        def on_open(self):
            for message in messages:
                self.send(message)
            self.close()

    async with serve(Flood, "127.0.0.1", 0, deflate=True) as server:
        ws = await connect(url(server), deflate=True)
        with traced() as memory:
            received = [len(message) async for message in ws]
            assert memory()[1] < 16 * MIB
    assert received == [MIB] * 50


@pytest.mark.parametrize("how", ["close frame", "end of stream"])
async def test_the_end_comes_after_all_that_was_inflated(count_messages, raw, frame, how, until):
    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 50
    state = {}
    async with (
        serve(count_messages(state), "127.0.0.1", 0, deflate=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(bomb + (frame(8, b"\x0f\xa0") if how == "close frame" else b""))
        if how == "end of stream":
            peer.writer.write_eof()
            await until(lambda: not server._endpoints)
        else:
            assert await peer.close_frame() == (4000, "")
        assert state["count"] == 50


async def test_close_ends_what_is_pending(raw, frame, until):
    """Nobody receives: the messages are dropped, and the peer's close frame is found."""
    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 50 + frame(8, b"\x0f\xa0")
    ended = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await until(lambda: ws._sink.messages)
        await ws.close(4001)
        ended.set_result(ws.close_code)

    async with (
        serve(handler, "127.0.0.1", 0, deflate=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(bomb)
        assert await peer.close_frame() == (4001, "")
        assert await peer.rest() == b""
        peer.writer.close()
        assert await ended == 4000


async def test_decoding_that_fails_is_told_and_logged(
    count_messages, raw, frame, monkeypatch, caplog
):
    def fail(self, data, budget, last):
        raise MemoryError("no more")

    monkeypatch.setattr(Inflater, "inflate", fail)
    async with (
        serve(count_messages({}), "127.0.0.1", 0, deflate=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(frame(2, b"\x00", rsv=4))
        assert await peer.close_frame() == (1011, "decoding failed")
        assert await peer.rest() == b""
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "decoding failed" in record.message
    assert isinstance(record.exc_info[1], MemoryError)


async def test_an_empty_message_without_payload_is_a_message(pair, raw, frame, count_messages):
    state = {}
    async with (
        serve(count_messages(state), "127.0.0.1", 0, deflate=PerMessageDeflate()) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(frame(1, b"", rsv=4) * 3 + frame(1, compressed(b"how many"), rsv=4))
        assert (await peer.frame())[1] == b"4"


async def test_what_is_pending_goes_with_a_connection_that_is_lost(raw, frame, until):
    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 50
    ended = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await until(lambda: ws._sink.messages)
        ws._transport.abort()
        # (The messages that are pending wait for as long as close_timeout says.)
        await ws.wait_closed()
        try:
            while True:
                await ws.recv()
        except ConnectionClosed as exc:
            ended.set_result(exc.code)

    async with (
        serve(handler, "127.0.0.1", 0, deflate=True, close_timeout=0.2) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(bomb)
        assert await ended == 1006


@pytest.mark.parametrize("how", ["over TLS", "reset"])
async def test_what_was_read_comes_before_the_end(count_messages, raw, frame, until, tls, how):
    """A TLS transport reports the end at once, and so does one that cannot write."""
    state = {}
    closed = []
    handler = count_messages(state)
    if isinstance(handler, type):
        handler = type(handler)(
            "Closing", (handler,), {"on_close": lambda self, code, reason: closed.append(code)}
        )
    bomb = frame(2, compressed(bytes(MIB // 2)), rsv=4) * 20
    bomb += frame(1, b"small") * 20 + frame(8, b"\x0f\xa0")
    options = {"ssl": tls.server} if how == "over TLS" else {}
    client = {"ssl": tls.client, "server_hostname": "localhost"} if options else {}
    async with (
        serve(handler, "127.0.0.1", 0, deflate=True, **options) as server,
        raw(server, handshake=False, **client) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        (ws,) = server.connections
        peer.writer.write(bomb)
        peer.writer.close()
        await until(lambda: state.get("count") == 40 and not server._endpoints)
        assert ws.close_code == 4000
        assert closed in ([], [4000])


async def test_what_nobody_receives_does_not_keep_a_connection_that_is_lost(raw, frame, until, tls):
    ended = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await ws.wait_closed()
        ended.set_result(ws.close_code)

    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 50
    options = {"deflate": True, "ssl": tls.server, "close_timeout": 0.5}
    async with (
        serve(handler, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False, ssl=tls.client, server_hostname="localhost") as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        peer.writer.write(bomb)
        peer.writer.close()
        assert await ended == 1006
        await until(lambda: not server._endpoints)


async def test_a_hook_that_failed_gets_no_more(raw, frame, caplog, until):
    calls = []

    class Fails(WebSocketProtocol):
        def on_message(self, message):
            calls.append(len(message))
            raise ZeroDivisionError

    bomb = frame(2, compressed(bytes(MIB)), rsv=4) * 20 + frame(8, b"\x0f\xa0")
    async with (
        serve(Fails, "127.0.0.1", 0, deflate=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(bomb)
        assert await peer.close_frame() == (1011, "")
        await peer.aclose()
        await until(lambda: not server._endpoints)
    assert calls == [MIB]
    assert len(caplog.records) == 1
