"""Tests of the callback style, and of what both styles inherit from `Endpoint`: writes, back
pressure, keepalive, and how a connection ends if its peer misbehaves."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from functools import partial
from itertools import chain, repeat

import pytest

from fastws import (
    ConnectionClosed,
    HandshakeError,
    Response,
    State,
    WebSocket,
    WebSocketProtocol,
    connect,
    serve,
)

from ..wire import upgrade_request

KIB, MIB = 1 << 10, 1 << 20
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER that makes close() send a reset


class Recorder(WebSocketProtocol):
    """Records the hooks that are called."""

    def __init__(self, calls=None):
        super().__init__()
        self.calls = [] if calls is None else calls

    def on_open(self):
        self.calls.append("open")

    def on_message(self, message):
        self.calls.append(message)

    def on_error(self, exc):
        self.calls.append(type(exc))

    def on_close(self, code, reason):
        self.calls.append((code, reason))


class Spy:
    """A transport that records what is written."""

    def __init__(self, transport, writes):
        self.transport = transport
        self.writes = writes

    def write(self, data):
        self.writes.append(bytes(data))
        self.transport.write(data)

    def __getattr__(self, name):
        return getattr(self.transport, name)


@pytest.fixture
def writes(monkeypatch):
    """Record what a server's class writes after the opening handshake."""
    writes = []

    def spy_on(cls):
        made = cls.connection_made
        monkeypatch.setattr(cls, "connection_made", lambda p, t: made(p, Spy(t, writes)))
        return writes

    return spy_on


@pytest.fixture(params=["callback", "coroutine"])
def style(request):
    """The style in which a test writes its handler."""
    return request.param


# Conversations ------------------------------------------------------------------------


async def test_the_seed_conversation(echo, url, until):
    class Client(WebSocketProtocol):
        def __init__(self):
            super().__init__()
            self.log = []

        def on_open(self):
            self.send("Hello Server!")

        def on_message(self, message):
            self.log.append(f"received: {message}")
            self.close()

        def on_close(self, code, reason):
            self.log.append(f"closed: {code}")

        def on_error(self, exc):
            self.log.append(f"error: {type(exc).__name__}")

    async with serve(echo, "127.0.0.1", 0) as server:
        uri = url(server)
        client = await connect(uri, protocol=Client)
        await client.wait_closed()
        assert client.log == ["received: Hello Server!", "closed: 1000"]

    refused = Client()
    with pytest.raises(ConnectionRefusedError):
        await connect(uri, protocol=lambda: refused)
    assert refused.log == ["error: ConnectionRefusedError"]


async def test_the_hooks_are_called_in_order_on_both_sides(url):
    calls = []
    async with serve(partial(Recorder, calls), "127.0.0.1", 0) as server:
        client = await connect(url(server), protocol=Recorder)
        client.send("text")
        client.send(b"binary")
        client.close(4000, "bye")
        client.close(4001, "twice")
        await client.wait_closed()
    assert client.calls == ["open", (4000, "bye")]
    assert calls == ["open", "text", b"binary", (4000, "bye")]


async def test_a_connection_knows_where_it_is(url, until):
    class Client(Recorder):
        def on_open(self):
            self.calls.append((self.state, self.close_code, self.subprotocol))

        def connection_made(self, transport):
            super().connection_made(transport)
            assert repr(self) == f"<Client client {self.remote_address} opening>"

    async with serve(Recorder, "127.0.0.1", 0, subprotocols=["chat"]) as server:
        client = await connect(url(server, "/a?b"), protocol=Client, subprotocols=["chat"])
        await until(lambda: server.connections)
        (peer,) = server.connections
        assert peer.request.target == "/a?b"
        assert peer.response is client.request is None
        assert client.response.status == 101
        assert peer.subprotocol == client.subprotocol == "chat"
        assert peer.remote_address == client.local_address
        assert peer.local_address == client.remote_address == server.sockets[0].getsockname()
        assert client.get_extra_info("socket") is not None
        assert client.get_extra_info("nonsense", "default") == "default"
        assert repr(client) == f"<Client client {client.remote_address} open>"
        assert repr(peer) == f"<Recorder server {peer.remote_address} open>"
        client.close()
        assert client.state is State.CLOSING
        await client.wait_closed()
        await client.wait_closed()
        assert (client.state, client.close_code, client.close_reason) == (State.CLOSED, 1000, "")
        assert client.remote_address == server.sockets[0].getsockname()
    assert client.calls == [(State.OPEN, None, "chat"), (1000, "")]


async def test_a_protocol_that_was_never_connected_does_no_harm():
    protocol = WebSocketProtocol()
    assert protocol.state is protocol.remote_address is protocol.close_code is None
    assert protocol.get_extra_info("socket", 1) == 1
    assert protocol.close_reason == ""
    assert repr(protocol) == "<WebSocketProtocol None opening>"
    protocol.close()
    for call in (partial(protocol.send, "x"), protocol.ping):
        with pytest.raises(ConnectionClosed, match="never open"):
            call()


async def test_a_bare_transport_will_do(raw, frame):
    class Echo(WebSocketProtocol):
        def on_message(self, message):
            self.send(message)

    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    async with raw(server) as peer:
        await peer.send(frame(1, b"Hello"))
        assert await peer.frame() == (0x81, b"Hello")
        await peer.send(frame(8, b"\x03\xe8"))
        assert await peer.close_frame() == (1000, "")
        assert await peer.rest() == b""
    server.close()


async def test_a_bare_transport_refuses_too(raw):
    server = await asyncio.get_running_loop().create_server(Recorder, "127.0.0.1", 0)
    async with raw(server, handshake=False) as peer:
        assert (await peer.request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 426
        assert await peer.rest() == b"this is a WebSocket server\n"
    server.close()


async def test_a_request_may_bring_messages_along(echo, raw, frame):
    async with (
        serve(echo, "127.0.0.1", 0) as server,
        raw(server, handshake=False) as peer,
    ):
        from_start = frame(1, b"early") + frame(2, b"bird") + frame(8, b"\x0f\xa0")
        status, _ = await peer.request(upgrade_request() + from_start)
        assert status == 101
        assert [await peer.frame() for _ in range(2)] == [(0x81, b"early"), (0x82, b"bird")]
        assert await peer.close_frame() == (4000, "")


async def test_a_response_may_bring_messages_along(raw_server, url):
    async def play(peer):
        head = await peer.reader.readuntil(b"\r\n\r\n")
        peer.reader.feed_data(head)  # for accept(), which calls send_more()
        send = peer.send

        async def send_more(data):
            await send(data + b"\x81\x05early\x88\x02\x0f\xa0")

        peer.send = send_more
        await peer.accept()
        assert await peer.close_frame() == (4000, "")

    async with raw_server(play, handshake=False) as server:
        client = await connect(url(server), protocol=Recorder)
        await client.wait_closed()
        assert client.calls == ["open", "early", (4000, "")]
        ws = await connect(url(server))
        assert await ws.recv() == "early"
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        await ws.close()


# Hooks that fail ----------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["on_open", "on_message"])
async def test_a_hook_that_raises_is_logged_and_closes_with_1011(
    raw, frame, caplog, until, failing
):
    class Faulty(Recorder):
        pass

    def fail(self, *args):
        self.calls.append(failing)
        raise ZeroDivisionError("oops")

    setattr(Faulty, failing, fail)
    calls = []
    async with serve(partial(Faulty, calls), "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.send(frame(1, b"a") + frame(1, b"b"))
            assert await peer.close_frame() == (1011, "")
            await peer.send(frame(8, b"\x03\xf3"))
            assert await peer.rest() == b""
        await until(lambda: not server._endpoints)
    assert calls.count(failing) == 1
    assert calls[-1] == (1011, "")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "fastws"
    assert "a hook of Faulty failed" in record.getMessage()
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize("failing", ["on_error", "on_close"])
async def test_a_hook_that_raises_at_the_end_is_logged(raw, frame, caplog, until, failing):
    class Faulty(WebSocketProtocol):
        pass

    setattr(Faulty, failing, lambda self, *args: 1 / 0)
    async with serve(Faulty, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.send(frame(1, b"\xff"))
            assert (await peer.close_frame())[0] == 1007
        await until(lambda: not server._endpoints)
    assert [r.exc_info[0] for r in caplog.records if r.name == "fastws"] == [ZeroDivisionError]


async def test_to_send_while_closing_is_nobodys_mistake(raw, frame, until):
    """… and takes no message away from on_message."""
    calls = []

    class Closes(Recorder):
        def on_message(self, message):
            super().on_message(message)
            self.close(4000)
            self.send("too late")

    async with serve(partial(Closes, calls), "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.send(frame(1, b"a") + frame(1, b"b"))
            assert await peer.frame() == (0x88, b"\x0f\xa0")
            await peer.send(frame(1, b"c") + frame(8, b"\x0f\xa0"))
            assert await peer.rest() == b""
        await until(lambda: not server._endpoints)
    assert calls == ["open", "a", "b", "c", (4000, "")]


async def test_a_closed_connection_of_another_is_a_mistake(raw, frame, caplog, until):
    class Proxy(WebSocketProtocol):
        def on_message(self, message):
            raise ConnectionClosed(1006)

    async with serve(Proxy, "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(frame(1, b"a"))
        assert await peer.close_frame() == (1011, "")
    assert "a hook of Proxy failed" in caplog.text


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_error", "on_close"])
async def test_close_may_be_called_in_any_hook(raw, frame, until, hook):
    class Closes(Recorder):
        pass

    def close(self, *args):
        getattr(super(Closes, self), hook)(*args)
        self.close(4000)
        self.close()

    setattr(Closes, hook, close)
    calls = []
    async with serve(partial(Closes, calls), "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.send(frame(1, b"a") + frame(1, b"\xff"))
            # (When on_message is called, the peer's violation has been detected already.)
            code = 4000 if hook == "on_open" else 1007
            assert (await peer.close_frame())[0] == code
        await until(lambda: not server._endpoints)
    assert [call for call in calls if isinstance(call, tuple)] == [
        (1007, "text message is not UTF-8")
    ]


async def test_close_in_on_error_after_a_refused_connection():
    class Closes(Recorder):
        def on_error(self, exc):
            super().on_error(exc)
            self.close()

    closes = Closes()
    with pytest.raises(OSError, match=r"Connect|connect"):
        await connect("ws://127.0.0.1:1", protocol=lambda: closes)
    assert closes.calls == [ConnectionRefusedError]
    await closes.wait_closed()


async def test_a_reset_reaches_on_error_and_on_close(raw, until):
    calls = []
    async with serve(partial(Recorder, calls), "127.0.0.1", 0) as server, raw(server) as peer:
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.reset()
        await until(lambda: not server._endpoints)
    assert calls == ["open", ConnectionResetError, (1006, "")]


async def test_a_connection_lost_with_the_peers_close_frame_at_hand_has_its_code(raw, frame, until):
    calls = []

    class Aborts(Recorder):
        def on_message(self, message):
            super().on_message(message)
            self._transport.abort()

    async with serve(partial(Aborts, calls), "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(frame(1, b"a") + frame(8, b"\x0f\xa0bye"))
        await until(lambda: not server._endpoints)
    assert calls == ["open", "a", (4000, "bye")]


async def test_a_connection_that_just_ends_is_1006(raw, until, url):
    calls = []
    async with serve(partial(Recorder, calls), "127.0.0.1", 0) as server:
        async with raw(server):
            await until(lambda: calls)
        await until(lambda: not server._endpoints)
    assert calls == ["open", (1006, "")]


# Writes -------------------------------------------------------------------------------


async def test_answers_to_what_one_read_brought_leave_in_one_write(echo, raw, frame, writes):
    is_coroutine = not isinstance(echo, type)
    written = writes(WebSocket if is_coroutine else WebSocketProtocol)
    async with serve(echo, "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(b"".join(frame(1, b"%d" % i) for i in range(100)) + frame(9, b"ping"))
        answers = [(await peer.frame())[1] for _ in range(101)]
        assert sorted(answers) == sorted([b"%d" % i for i in range(100)] + [b"ping"])
    sizes = [len(data) for data in written if not data.startswith((b"HTTP", b"\x88"))]
    # The pong does not wait for the handler.
    assert sizes == ([6, 390 - 0] if is_coroutine else [396])


async def test_sends_of_one_turn_leave_in_two_writes_at_most(pair, writes):
    written = writes(WebSocket)
    async with pair() as (client, server):
        del written[:]
        for number in range(100):
            await server.send(str(number))
        assert [await client.recv() for _ in range(100)] == [str(i) for i in range(100)]
        assert len(written) == 2
        assert written[0] == b"\x81\x010"  # nor is the first one delayed


async def test_what_was_sent_leaves_before_a_task_waits(pair, writes):
    written = writes(WebSocket)
    async with pair() as (client, server):
        del written[:]
        await server.send("a")
        await server.send("b")
        waiting = asyncio.create_task(server.recv())
        await asyncio.sleep(0)
        assert written == [b"\x81\x01a", b"\x81\x01b"]
        await client.send("c")
        assert await waiting == "c"


async def test_a_message_sent_outside_the_hooks_leaves_at_once(raw, writes):
    """A broadcast does not wait for other activity on each connection."""
    written = writes(WebSocketProtocol)
    async with (
        serve(Recorder, "127.0.0.1", 0) as server,
        raw(server) as one,
        raw(server) as two,
    ):
        del written[:]
        for ws in server.connections:
            ws.send("news")
        assert written == [b"\x81\x04news"] * 2
        for peer in one, two:
            assert await peer.frame() == (0x81, b"news")


@pytest.mark.parametrize("ending", [(8, b"\x0f\xa0bye"), (1, b"\xff")], ids=["close", "violation"])
async def test_large_answers_leave_before_our_close_frame(raw, frame, style, ending):
    """… all of them, although each is large enough to be sent on its own."""
    answers = [bytes([number]) * 70 * KIB for number in range(3)]

    class Answers(WebSocketProtocol):
        def on_message(self, message):
            self.send(answers[int(message)])

    async def answer(ws):
        async for message in ws:
            await ws.send(answers[int(message)])

    questions = b"".join(frame(1, b"%d" % number) for number in range(3))
    async with (
        serve(Answers if style == "callback" else answer, "127.0.0.1", 0) as server,
        raw(server) as peer,
    ):
        await peer.send(questions + frame(*ending))
        for expected in answers:
            assert await peer.frame() == (0x82, expected)
        assert (await peer.close_frame())[0] == (4000 if ending[0] == 8 else 1007)
        assert await peer.rest() == b""


async def test_a_send_on_a_connection_that_was_just_lost_goes_nowhere(raw, frame):
    code = asyncio.get_running_loop().create_future()

    async def handler(ws):
        assert await ws.recv() == "a"
        ws._transport.abort()
        await ws.send("answer")  # waits for that to "b", to leave with it
        await ws.wait_closed()
        assert await ws.recv() == "b"
        try:
            await ws.recv()
        except ConnectionClosed as exc:
            code.set_result(exc.code)

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(frame(1, b"a") + frame(1, b"b"))
        assert await code == 1006


# Back pressure ------------------------------------------------------------------------


async def test_a_slow_handler_slows_its_peer_down(pair, settled):
    message = bytes(64 * KIB)
    sent = 0

    async def send(ws):
        nonlocal sent
        for _ in range(400):
            await ws.send(message)
            sent += 1

    async with pair() as (client, server):
        sending = asyncio.create_task(send(client))
        assert 0 < await settled(lambda: sent) < 350  # no buffer holds 25 MiB
        # The limit, one read beyond it, and what arrives before reading stops.
        assert MIB <= sum(map(len, server._sink.messages)) <= 2 * MIB + 2 * 256 * KIB
        for _ in range(400):
            assert await server.recv() == message
        await sending


async def test_a_slow_peer_makes_send_wait(raw, settled):
    """… even if nothing else is awaited between the calls."""
    message = bytes(4 * KIB)
    sent = 0

    async def handler(ws):
        nonlocal sent
        for _ in range(8192):
            await ws.send(message)
            sent += 1

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        assert await settled(lambda: sent) < 7000
        (ws,) = server.connections
        assert ws._transport.get_write_buffer_size() < MIB
        for _ in range(8192):
            assert len((await peer.frame())[1]) == len(message)
        assert await peer.close_frame() == (1000, "")


class Flood:
    """Sends the same data 400 times, and counts how often it did."""

    def __init__(self, peer, data):
        self.sent = 0
        self.task = asyncio.create_task(self._run(peer, data))

    async def _run(self, peer, data):
        for _ in range(400):
            await peer.send(data)
            self.sent += 1


async def test_an_echo_to_a_peer_that_does_not_read_is_bounded(echo, raw, frame, settled):
    async with serve(echo, "127.0.0.1", 0) as server, raw(server) as peer:
        flood = Flood(peer, frame(2, bytes(64 * KIB)))
        assert await settled(lambda: flood.sent) < 350
        (ws,) = server.connections
        assert ws._transport.get_write_buffer_size() <= MIB
        for _ in range(400):
            assert len((await peer.frame())[1]) == 64 * KIB
        await flood.task


async def test_pongs_to_a_peer_that_does_not_read_are_bounded(echo, raw, frame, settled):
    async with serve(echo, "127.0.0.1", 0) as server, raw(server) as peer:
        flood = Flood(peer, frame(9, bytes(125)) * 500)
        assert await settled(lambda: flood.sent) < 350
        (ws,) = server.connections
        assert ws._transport.get_write_buffer_size() <= MIB
        flood.task.cancel()
        peer.reset()


async def test_both_sides_may_send_all_the_time(echo, url):
    """Neither side stops reading because the other does not read fast enough."""
    message = bytes(64 * KIB)

    async def send(ws):
        for _ in range(300):
            await ws.send(message)

    async with serve(echo, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        sending = asyncio.create_task(send(ws))
        async with asyncio.timeout(20):
            for _ in range(300):
                assert len(await ws.recv()) == len(message)
        await sending


async def test_a_client_of_hooks_may_send_as_much_as_it_likes(echo, url):
    received = []

    class Client(WebSocketProtocol):
        def on_open(self):
            for _ in range(300):
                self.send(bytes(64 * KIB))

        def on_message(self, message):
            received.append(len(message))
            if len(received) == 300:
                self.close()

    async with serve(echo, "127.0.0.1", 0) as server:
        client = await connect(url(server), protocol=Client)
        async with asyncio.timeout(20):
            await client.wait_closed()
    assert received == [64 * KIB] * 300


async def test_close_works_while_reading_is_held(pair, settled):
    async def send(ws):
        while True:
            await ws.send(bytes(64 * KIB))

    async with pair() as (client, server):
        sending = asyncio.create_task(send(client))
        await settled(lambda: len(server._sink.messages or ()))
        async with asyncio.timeout(5):
            await server.close(4000)
            with pytest.raises(ConnectionClosed) as info:
                await sending
        assert info.value.code == 4000
        # Messages that had arrived before can still be received.
        assert await server.recv() == bytes(64 * KIB)


async def test_close_works_while_writing_is_paused(raw, settled):
    sent = 0

    async def handler(ws):
        nonlocal sent
        while True:
            await ws.send(bytes(64 * KIB))
            sent += 1

    async with serve(handler, "127.0.0.1", 0, close_timeout=0.2) as server, raw(server) as peer:
        await settled(lambda: sent)
        (ws,) = server.connections
        async with asyncio.timeout(5):
            await ws.close()  # the peer does not even read what came before
        assert ws.close_code == 1006
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await peer.close_frame()


async def test_tasks_that_wait_for_a_slow_peer_go_on_together(raw, settled):
    sent = []

    async def send(ws, size):
        await ws.send(bytes(size))
        sent.append(size)

    async def handler(ws):
        await asyncio.gather(*(send(ws, 8 * MIB + number) for number in range(2)))

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        await settled(lambda: len(sent))
        assert not sent
        (ws,) = server.connections
        cancelled = asyncio.create_task(send(ws, 1))
        await settled(lambda: len(sent))
        cancelled.cancel()  # the message is sent all the same
        sizes = [len((await peer.frame())[1]) for _ in range(3)]
        assert sizes == [8 * MIB, 8 * MIB + 1, 1]
        assert await peer.close_frame() == (1000, "")
    assert sent == sizes[:2]


# Keepalive ----------------------------------------------------------------------------

ALERT = {"ping_interval": 0.1, "ping_timeout": 0.2}


async def test_a_silent_peer_is_ended_by_the_ping_timeout(echo, raw, until):
    async with serve(echo, "127.0.0.1", 0, **ALERT) as server, raw(server) as peer:
        (ws,) = server.connections
        assert await peer.frame() == (0x89, b"keepalive")
        assert await peer.close_frame() == (1011, "keepalive ping timeout")
        assert (ws.close_code, ws.close_reason) == (1011, "keepalive ping timeout")
        assert await peer.rest() == b""


async def test_a_silent_server_is_ended_by_the_ping_timeout(raw_server, url):
    seen = asyncio.get_running_loop().create_future()

    async def play(peer):
        seen.set_result(await peer.close_frame())

    async with raw_server(play) as server, connect(url(server), **ALERT) as ws:
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert (info.value.code, info.value.reason) == (1011, "keepalive ping timeout")
        assert await seen == (1011, "keepalive ping timeout")


@pytest.mark.parametrize("sign", ["pong", "message"])
async def test_a_peer_that_gives_signs_of_life_is_kept(echo, raw, frame, sign):
    async with serve(echo, "127.0.0.1", 0, **ALERT) as server, raw(server) as peer:
        pings = 0
        while pings < 8:
            first, payload = await peer.frame()
            assert first in (0x89, 0x81)
            if first == 0x89:
                pings += 1
                await peer.send(frame(10, payload) if sign == "pong" else frame(1, b"busy"))


async def test_a_timeout_shorter_than_the_interval(echo, raw, until):
    settings = {"ping_interval": 0.2, "ping_timeout": 0.05}
    async with serve(echo, "127.0.0.1", 0, **settings) as server, raw(server) as peer:
        assert await peer.frame() == (0x89, b"keepalive")
        assert await peer.close_frame() == (1011, "keepalive ping timeout")


async def test_pings_without_a_timeout_end_nobody(echo, raw, frame):
    async with (
        serve(echo, "127.0.0.1", 0, ping_interval=0.05, ping_timeout=None) as server,
        raw(server) as peer,
    ):
        for number in (b"", b"1", b"2", b"3", b"4"):  # so that it is known which one is answered
            assert await peer.frame() == (0x89, b"keepalive" + number)
        await peer.send(frame(1, b"still here"))
        while await peer.frame() != (0x81, b"still here"):
            pass


async def test_a_pong_for_keepalive_answers_no_ping_of_the_application(raw_server, url, frame):
    async def play(peer):
        while (await peer.frame())[1] != b"keepalive":
            pass
        await peer.send(frame(10, b"keepalive", key=b""))
        await peer.close_frame()

    options = {"ping_interval": 0.1, "ping_timeout": None}
    async with raw_server(play) as server, connect(url(server), **options) as ws:
        pings = [asyncio.ensure_future(ws.ping(data)) for data in (b"", None, b"mine")]
        assert (await asyncio.wait(pings, timeout=0.5))[0] == set()
        await ws.close()
        for ping in pings:
            with pytest.raises(ConnectionClosed):
                await ping


async def test_a_peer_that_never_reads_is_ended_by_keepalive(raw, until):
    ends = []

    async def handler(ws):
        try:
            while True:
                await ws.send(bytes(64 * KIB))
        except ConnectionClosed as exc:
            ends.append(exc.code)

    settings = {**ALERT, "close_timeout": 0.2}
    async with serve(handler, "127.0.0.1", 0, **settings) as server, raw(server):
        await until(lambda: ends)
        await until(lambda: not server._endpoints)
    assert ends == [1011]


async def test_a_slow_handler_is_no_dead_peer(pair, settled, until):
    sent = 0

    async def send(ws):
        nonlocal sent
        for _ in range(200):
            await ws.send(bytes(64 * KIB))
            sent += 1

    async with pair(ALERT, ALERT) as (client, server):
        sending = asyncio.create_task(send(client))
        # The server stops reading for much longer than the timeouts. It knows why nothing
        # arrives, and the client receives its pings.
        assert await settled(lambda: sent, quiet=1.0) < 200
        for _ in range(200):
            await server.recv()
        await sending
        assert client.state is server.state is State.OPEN


async def test_timers_that_come_too_late_do_nothing(pair):
    """A loop may already have scheduled the calls."""
    async with pair() as (client, _):
        client._open_timed_out()
        await client.ping()
        await client.close(4000)
        client._keep_alive()
        assert client.close_code == 4000
        assert client._timer is None


# Peers that do not play along ---------------------------------------------------------


async def test_a_peer_that_never_answers_close_is_ended_by_the_close_timeout(raw, until):
    calls = []
    options = {"close_timeout": 0.1}
    async with (
        serve(partial(Recorder, calls), "127.0.0.1", 0, **options) as server,
        raw(server) as peer,
    ):
        (ws,) = server.connections
        ws.close(4000)
        assert await peer.close_frame() == (4000, "")
        async with asyncio.timeout(5):
            await ws.wait_closed()
    assert calls == ["open", (1006, "")]


@pytest.mark.parametrize("closer", ["server", "client"])
async def test_a_server_that_does_not_end_the_tcp_connection(raw_server, url, closer):
    """The client waits for it, but not forever."""

    async def play(peer):
        if closer == "server":
            await peer.send(b"\x88\x02\x0f\xa0")
        await peer.close_frame()
        if closer == "client":
            await peer.send(b"\x88\x02\x0f\xa0")
        assert await peer.rest() == b""

    async with raw_server(play) as server:
        ws = await connect(url(server), close_timeout=0.1)
        async with asyncio.timeout(5):
            if closer == "server":
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
            await ws.close(4000)
        assert ws.close_code == 4000


async def test_a_client_that_does_not_end_the_tcp_connection(echo, raw, frame):
    async with serve(echo, "127.0.0.1", 0, close_timeout=0.1) as server, raw(server) as peer:
        (ws,) = server.connections
        await peer.send(frame(8, b"\x0f\xa0"))
        assert await peer.close_frame() == (4000, "")
        assert await peer.rest() == b""
        async with asyncio.timeout(5):
            await ws.wait_closed()


async def test_a_peer_that_ends_its_side_but_takes_nothing_is_not_kept(until):
    """Too little is unsent for keepalive or back pressure to notice."""

    class Pusher(WebSocketProtocol):
        def on_open(self):
            sock = self.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
            asyncio.get_running_loop().create_task(self.push())

        async def push(self):
            while not self._transport.get_write_buffer_size():
                self.send(bytes(16 * KIB))
                await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    async with serve(Pusher, "127.0.0.1", 0, close_timeout=0.2, ping_interval=None) as server:
        sock = socket.socket()
        with sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            await loop.sock_sendall(sock, upgrade_request())
            await until(
                lambda: any(ws._transport.get_write_buffer_size() for ws in server._endpoints)
            )
            sock.shutdown(socket.SHUT_WR)
            await until(lambda: not server._endpoints, timeout=5)


async def test_a_client_whose_own_timer_ends_the_handshake(raw_server, url, until):
    asked = []

    async def play(peer):
        asked.append(await peer.reader.readuntil(b"\r\n\r\n"))
        await peer.rest()

    clients = []

    def make():
        clients.append(Recorder())
        return clients[-1]

    async with raw_server(play, handshake=False) as server:
        connecting = asyncio.create_task(connect(url(server), protocol=make).__aenter__())
        await until(lambda: asked)
        clients[0]._open_timed_out()
        with pytest.raises(TimeoutError, match="took too long"):
            await connecting
    assert clients[0].calls == [TimeoutError]


async def test_a_handshake_that_was_given_up_is_of_no_interest(raw_server, url, until):
    """… even if it succeeds or fails in the same turn of the loop."""
    asked = []

    async def play(peer):
        asked.append(await peer.reader.readuntil(b"\r\n\r\n"))
        await peer.rest()

    for outcome in ("endpoint_opened", "endpoint_failed"):
        clients = []

        def make(clients=clients):
            clients.append(WebSocket())
            return clients[-1]

        async with raw_server(play, handshake=False) as server:
            connecting = asyncio.create_task(connect(url(server), protocol=make).__aenter__())
            asked.clear()
            await until(lambda: asked)
            (client,) = clients
            connecting.cancel()
            error = () if outcome == "endpoint_opened" else (OSError(),)
            getattr(client._creator, outcome)(client, *error)
            with pytest.raises(asyncio.CancelledError):
                await connecting


async def test_a_connect_cancelled_as_it_succeeds_drops_the_connection(url, echo, until):
    class Client(Recorder):
        def on_open(self):
            super().on_open()
            connecting.cancel()

    client = Client()
    async with serve(echo, "127.0.0.1", 0) as server:
        connecting = asyncio.create_task(connect(url(server), protocol=lambda: client).__aenter__())
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await client.wait_closed()
        await until(lambda: not server._endpoints)
    assert client.calls == ["open", (1006, "")]


async def test_a_connection_made_for_one_who_gave_up_is_dropped(raw_server):
    seen = asyncio.get_running_loop().create_future()

    async def play(peer):
        seen.set_result(await peer.rest())

    protocol = Recorder()
    protocol._discard()
    async with raw_server(play, handshake=False) as server:
        host, port = server.sockets[0].getsockname()
        await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
        assert await seen == b""
    await protocol.wait_closed()
    assert protocol.calls == []


async def test_a_reset_in_the_handshake_is_told(raw_server, url):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.reset()

    client = Recorder()
    async with raw_server(play, handshake=False) as server:
        with pytest.raises(ConnectionResetError):
            await connect(url(server), protocol=lambda: client)
    assert client.calls == [ConnectionResetError]


async def test_a_half_request_is_ended_by_the_open_timeout(raw, until):
    calls = []
    async with (
        serve(partial(Recorder, calls), "127.0.0.1", 0, open_timeout=0.5) as server,
        raw(server, handshake=False) as peer,
    ):
        status, _ = await peer.request(b"GET / HTTP/1.1\r\nHost:")
        assert status == 408
        assert await peer.rest() == b"the opening handshake took too long\n"
    assert len(calls) == 1
    assert issubclass(calls[0], HandshakeError)


async def trickle(sock, data):
    """Send byte by byte, repeating the last one, and read nothing; return when the other side is
    gone."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        for octet in chain(data, repeat(data[-1])):
            await loop.sock_sendall(sock, bytes([octet]))
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("sends", ["nothing", "trickle", "bad", "waits"])
async def test_what_never_opens_is_gone_after_the_open_timeout(echo, until, sends):
    """It may ignore the 408, and keep its side of the connection open."""

    async def wait(request):
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    started = loop.time()
    options = {"open_timeout": 0.3, "close_timeout": 30, "process_request": wait}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            await until(lambda: server._endpoints)
            if sends == "trickle":
                await trickle(sock, b"GET / HTTP/1.1\r\nX: y")
            elif sends == "bad":
                await trickle(sock, b"\0")
            elif sends == "waits":
                await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: not server._endpoints)
    # (It takes 1.3 s on an idle machine, and would take 30 s without the limit.)
    assert loop.time() - started < 10


async def test_a_large_answer_may_take_longer_than_the_open_timeout(raw, echo):
    """A peer that still reads is not cut off."""
    page = bytes(range(256)) * 40_000
    options = {"open_timeout": 0.5, "process_request": lambda request: Response(200, body=page)}
    async with (
        serve(echo, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        await asyncio.sleep(1.5)
        assert await peer.rest() == page


async def test_the_open_timeout_does_not_end_an_open_connection(echo, raw, frame):
    async with serve(echo, "127.0.0.1", 0, open_timeout=0.5) as server, raw(server) as peer:
        await asyncio.sleep(0.6)
        await peer.send(frame(1, b"still here"))
        assert await peer.frame() == (0x81, b"still here")


async def test_a_server_without_timeouts(echo, raw, frame):
    settings = dict.fromkeys(
        ["open_timeout", "close_timeout", "ping_interval", "ping_timeout"], None
    )
    async with serve(echo, "127.0.0.1", 0, **settings) as server, raw(server) as peer:
        (ws,) = server.connections
        assert ws._timer is None
        await peer.send(frame(1, b"a") + frame(8, b"\x03\xe8"))
        assert await peer.frame() == (0x81, b"a")
        assert await peer.close_frame() == (1000, "")
        assert await peer.rest() == b""


# Functions of the wrong kind ------------------------------------------------------------------


async def handle(ws):
    pass


async def produce(ws):
    yield


async def hook(self, *args):
    pass


async def producing_hook(self, *args):
    yield


class Mixin:
    async def on_close(self, code, reason):
        pass


@pytest.mark.parametrize(
    "name", ["on_open", "on_message", "on_message_part", "on_close", "on_error"]
)
@pytest.mark.parametrize("function", [hook, producing_hook, partial(hook, 1)])
def test_a_hook_that_is_asynchronous_is_refused(name, function):
    with pytest.raises(TypeError) as caught:
        type("Chat", (WebSocketProtocol,), {name: function})
    said = str(caught.value)
    assert said.startswith(f"Chat.{name} must not be asynchronous")
    assert f"Use 'def {name}'" in said


def test_a_hook_that_is_inherited_is_refused_too():
    with pytest.raises(TypeError, match=r"Chat\.on_close must not be asynchronous"):

        class Chat(Mixin, WebSocketProtocol):
            pass


def test_other_methods_may_be_asynchronous():
    class Chat(WebSocketProtocol):
        async def say(self):
            pass

        async def on_timer(self):
            pass

    assert Chat()


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (Recorder(), "handler must be the class Recorder, not an instance of it"),
        (None, "handler must be callable, not 'NoneType'"),
        (WebSocket, "handler must be a coroutine function or a WebSocketProtocol subclass, not"),
        (produce, "handler must be a coroutine function, but produce contains 'yield'"),
    ],
)
def test_what_cannot_handle_connections(handler, words):
    with pytest.raises(TypeError, match=words):
        serve(handler, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (Recorder(), "protocol must be the class Recorder, not an instance of it"),
        (None, "protocol must be callable, not 'NoneType'"),
        (
            handle,
            "protocol must be a WebSocketProtocol subclass, not the coroutine function handle",
        ),
    ],
)
def test_what_makes_no_protocols(protocol, words):
    with pytest.raises(TypeError, match=words):
        connect("ws://localhost/", protocol=protocol)


async def test_a_handler_that_is_an_ordinary_function(url, caplog):
    async with serve(lambda ws: None, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        with pytest.raises(ConnectionClosed, match="1011"):
            await ws.recv()
    assert "handler must be a coroutine function" in caplog.text
