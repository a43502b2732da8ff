"""How many connections a server has and for how long, how it loses them, and which it names."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest

from fastws import ConnectionClosed, ResponseError, State, WebSocketProtocol, connect, serve
from fastws.aio import admission, draining
from fastws.aio.admission import _origin
from fastws.aio.draining import drain, is_idle
from fastws.aio.phases import Phase

from ..wire import upgrade_request

PLAIN = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def stay(ws):
    await ws.wait_closed()


# Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_too_many_connections_get_a_503(echo, url, raw, caplog, until, limit):
    calls = []
    options = {limit: 2, "process_request": calls.append, "headers": {"X-Server": "s"}}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        async with connect(url(server)) as first, connect(url(server)):
            with pytest.raises(ResponseError) as raised:
                await connect(url(server))
            response = raised.value.response
            assert response.status == 503
            assert response.headers["Retry-After"] == "5"
            assert response.headers["X-Server"] == "s"
            assert response.body.startswith(b"too many connections")
            async with raw(server, handshake=False) as peer:
                status, _ = await peer.request(PLAIN)
                assert status == 503
            # Nobody looks at what is sent.
            async with raw(server, handshake=False) as peer:
                status, _ = await peer.request(b"\0")
                assert status == 503
            assert len(calls) == 2
            assert len(server.connections) == 2
            await first.close()
            await until(lambda: len(server._endpoints) == 1)
            async with connect(url(server)) as ws:
                await ws.send("there is room again")
                assert await ws.recv() == "there is room again"
        await until(lambda: not server._endpoints)
        assert not server._admission._counts
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1  # within a minute
    assert "too many connections" in warnings[0].getMessage()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_a_limit_is_for_all_sockets_of_a_server(echo, tmp_path):
    path = str(tmp_path / "socket")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        uris = [f"ws://127.0.0.1:{tcp.getsockname()[1]}", f"ws+unix://{path}"]
        async with serve(echo, sock=[tcp, unix], max_connections=1) as server:
            names = [sock.getsockname() for sock in server.sockets]
            assert names == [tcp.getsockname(), path]
            for here, there in (uris, uris[::-1]):
                async with connect(here) as ws:
                    await ws.send("first")
                    assert await ws.recv() == "first"
                    with pytest.raises(ResponseError, match="503"):
                        await connect(there)
                await ws.wait_closed()
            await server.close()
            assert not server.sockets
            for uri in uris:
                with pytest.raises(OSError, match=r"."):
                    await connect(uri)


async def test_a_server_that_cannot_listen_everywhere_has_no_connections():
    """Clients of its first socket may have connected while it turned to the others."""
    kinds = [socket.SOCK_STREAM] * 6 + [socket.SOCK_DGRAM]
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(type=kind)) for kind in kinds]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        socks[0].listen()
        with socket.create_connection(socks[0].getsockname()) as client:
            client.sendall(upgrade_request())
            client.setblocking(False)
            with pytest.raises(ValueError, match="Stream Socket"):
                await serve(stay, sock=socks)
            with suppress(ConnectionResetError):
                while await asyncio.get_running_loop().sock_recv(client, 1000):
                    pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sock": []}, "sock must not be empty"),
        ({"sock": [None], "path": "x"}, "path cannot be used with sock"),
        ({"sock": None, "path": "x", "port": 1}, "host and port cannot be used with path or sock"),
    ],
)
def test_places_that_go_not_together(options, words):
    with pytest.raises(ValueError, match=words):
        serve(stay, **options)


async def test_silent_connections_beyond_the_limit_are_few_and_do_not_stay(
    echo, raw, until, monkeypatch
):
    monkeypatch.setattr(admission, "_MAX_REFUSALS", 1)
    monkeypatch.setattr(admission, "_RETRY_AFTER", 0.1)
    async with (
        serve(echo, "127.0.0.1", 0, max_connections=0) as server,
        raw(server, handshake=False) as peer,
    ):
        await until(lambda: server._endpoints)
        async with raw(server, handshake=False) as another:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await another.reader.readexactly(1)
        status, _ = await peer.head()
        assert status == 503
        assert (await peer.rest()).endswith(b"too many connections\n")
        peer.writer.write_eof()
        await until(lambda: not server._endpoints)


async def test_who_comes_later_is_told_and_logged_again(echo, url, until, caplog, monkeypatch):
    monkeypatch.setattr(admission, "_MAX_REFUSALS", 1)
    monkeypatch.setattr(admission, "_QUIET", 0.0)
    async with serve(echo, "127.0.0.1", 0, max_connections=0) as server:
        for _ in range(2):
            with pytest.raises(ResponseError, match="503"):
                await connect(url(server))
            await until(lambda: not server._endpoints)
    assert caplog.text.count("too many connections") == 2


async def test_a_silent_connection_beyond_the_limit_does_not_stay_without_an_open_timeout(
    echo, raw, monkeypatch
):
    monkeypatch.setattr(admission, "_RETRY_AFTER", 0.05)
    async with (
        serve(echo, "127.0.0.1", 0, max_connections=0, open_timeout=None) as server,
        raw(server, handshake=False) as peer,
        asyncio.timeout(5),
    ):
        assert (await peer.head())[0] == 503


async def test_nobody_sees_the_request_of_a_connection_that_was_dropped(raw, until, monkeypatch):
    """It may come in one packet with the header that says where it comes from."""
    monkeypatch.setattr(admission, "_MAX_REFUSALS", 0)
    seen = []

    class Opened(WebSocketProtocol):
        def on_open(self):
            seen.append(self)

    options = {"proxy_protocol": True, "max_connections": 0, "process_request": seen.append}
    async with (
        serve(Opened, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n" + upgrade_request())
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(1)
        await until(lambda: not server._endpoints)
    assert not seen


async def test_the_limits_are_for_the_addresses_that_a_proxy_tells(url, raw):
    class Told(WebSocketProtocol):
        def on_open(self):
            self.send(self.remote_address[0])

    options = {"proxy_protocol": True, "max_connections_per_address": 1}
    async with (
        serve(Told, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as one,
        raw(server, handshake=False) as other,
        raw(server, handshake=False) as again,
    ):
        for peer, host, status in [(one, 1, 101), (other, 2, 101), (again, 1, 503)]:
            await peer.send(b"PROXY TCP4 192.0.2.%d 192.0.2.9 1 2\r\n" % host)
            assert (await peer.request())[0] == status


@pytest.mark.parametrize(
    ("address", "other", "is_same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:2", 2, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 1, 0, 3), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 2), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 1, 0, 0), False),
    ],
)
def test_which_addresses_are_one(address, other, is_same):
    assert (_origin(address) == _origin(other)) is is_same


@pytest.mark.parametrize("address", ["", "/run/socket", None, b"\0name", ()])
def test_what_has_no_address_does_not_count(address):
    assert _origin(address) is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_connections": -1}, ValueError),
        ({"max_connections": "1"}, TypeError),
        ({"max_connections_per_address": -1}, ValueError),
        ({"max_lifetime": 0}, ValueError),
    ],
)
def test_wrong_limits_are_told_by_the_call(options, error):
    with pytest.raises(error, match=next(iter(options))):
        serve(stay, **options)


async def test_a_server_without_limits_counts_nothing(echo):
    async with serve(echo, "127.0.0.1", 0) as server:
        assert (server._admission, server._lifetimes) == (None, None)


# Lifetimes ---------------------------------------------------------------------------------------


async def test_a_connection_does_not_live_longer_than_its_maximum(echo, url, monkeypatch, until):
    monkeypatch.setattr(admission.random, "uniform", lambda low, high: low)
    async with serve(echo, "127.0.0.1", 0, max_lifetime=0.2) as server:
        async with connect(url(server)) as ws:
            with pytest.raises(ConnectionClosed) as raised:
                await ws.recv()
            assert raised.value.code == 1012
        clock = asyncio.get_running_loop().time
        before = clock()
        async with connect(url(server)):
            (timer,) = server._lifetimes._timers.values()
            # (A loop may know the time in milliseconds only.)
            assert before + 0.8 * 0.2 - 0.002 <= timer.when() <= clock() + 0.8 * 0.2 + 0.002
        await until(lambda: not server._endpoints)
        assert not server._lifetimes._timers
        assert timer.cancelled()


# Which connections there are ---------------------------------------------------------------------


async def test_connections_are_those_that_are_open_and_may_be_iterated_over(echo, url, raw, until):
    async with serve(echo, "127.0.0.1", 0, close_timeout=30) as server:
        async with raw(server, handshake=False), raw(server) as peer, connect(url(server)) as ws:
            await until(lambda: len(server._endpoints) == 3)
            assert len(server.connections) == 2
            for connection in server.connections:
                assert connection.state is State.OPEN
                async with connect(url(server)):
                    assert len(server.connections) == 3
                await until(lambda: len(server._endpoints) == 3)
            # A connection that is closing is no longer one of them.
            (theirs,) = [
                each for each in server.connections if each.remote_address == ws.local_address
            ]
            (other,) = server.connections - {theirs}
            other._begin_closing(1000, "")
            assert server.connections == {theirs}
            assert (await peer.close_frame())[0] == 1000
            assert len(server._endpoints) == 3
            server_again = server.connections
        await until(lambda: not server.connections)
        assert server_again == {theirs}  # as it was


# Draining ------------------------------------------------------------------------------------


class Clock:
    """A loop's clock and sleeps, with a number in place of time."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.steps = []
        monkeypatch.setattr(draining.asyncio, "get_running_loop", lambda: self)
        monkeypatch.setattr(draining.asyncio, "sleep", self.sleep)

    def time(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        for step in self.steps:
            step(self.now - 100.0)


def run(coroutine):
    """Run a coroutine that never waits for anything real."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


class Stub:
    """An endpoint as `drain` sees it."""

    def __init__(self, *, waits=True):
        self._phase = Phase.OPEN
        self._connection = SimpleNamespace(
            has_pending=False, bytes_queued=0, _decoder=SimpleNamespace(_opcode=0)
        )
        self._sink = SimpleNamespace(messages=None, waiter=None)
        self._transport = SimpleNamespace(get_write_buffer_size=lambda: 0 if waits else 1)

    def _is_sending(self):
        return False


def drained(monkeypatch, endpoints, over, *, stops_at=None):
    """Drain stubs; return when each of them was ended, in order."""
    clock = Clock(monkeypatch)
    ends = []

    def end(endpoint):
        ends.append((clock.now - 100.0, endpoint))
        endpoint._phase = Phase.CLOSING
        endpoints.discard(endpoint)

    is_stopped = lambda: stops_at is not None and clock.now >= 100.0 + stops_at  # noqa: E731
    run(drain(endpoints, over, end, is_stopped))
    return ends


@pytest.mark.parametrize(("count", "over"), [(1, 10), (7, 3), (1000, 30), (1000, 3600)])
def test_connections_end_evenly_over_the_time(monkeypatch, count, over):
    ends = drained(monkeypatch, {Stub() for _ in range(count)}, over)
    # (The last of them may be left for the end.)
    assert count - 1 - count // 50 <= len(ends) <= count
    for number, (at, _) in enumerate(ends):
        assert abs(at - over * number / count) <= over / count + max(0.02 * over, 0.5)


def test_idle_connections_end_first(monkeypatch):
    busy = {Stub(waits=False) for _ in range(50)}
    idle = {Stub() for _ in range(50)}
    ends = [each for _, each in drained(monkeypatch, busy | idle, 10)]
    assert set(ends[:50]) == idle
    assert set(ends[50:]) <= busy
    assert len(ends) > 90


def test_only_open_connections_are_ended(monkeypatch):
    others = {Stub() for _ in range(10)}
    for phase, endpoint in zip((Phase.OPENING, Phase.CLOSING) * 5, others, strict=True):
        endpoint._phase = phase
    opened = {Stub() for _ in range(50)}
    ends = {each for _, each in drained(monkeypatch, others | opened, 10)}
    assert len(ends) > 45
    assert not ends & others


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("_sink", {"messages": ["one that waits"]}),
        ("_connection", {"has_pending": True}),
        ("_connection", {"bytes_queued": 1}),
        ("_connection", {"_decoder": SimpleNamespace(_opcode=1)}),
        ("_transport", {"get_write_buffer_size": lambda: 1}),
    ],
)
def test_what_is_not_idle(part, changes):
    endpoint = Stub()
    assert is_idle(endpoint)
    vars(getattr(endpoint, part)).update(changes)
    assert not is_idle(endpoint)


def test_who_sends_is_not_idle(monkeypatch):
    monkeypatch.setattr(Stub, "_is_sending", lambda self: True)
    assert not is_idle(Stub())


def test_a_drain_may_be_stopped_and_ends_if_there_is_nothing_left(monkeypatch):
    ends = drained(monkeypatch, {Stub() for _ in range(100)}, 10, stops_at=5)
    assert 45 <= len(ends) <= 52
    assert drained(monkeypatch, set(), 10) == []


async def test_what_is_idle(url, until, raw, frame):
    """A connection is idle if its handler waits; not if it has a message, or sends one."""
    go_on = asyncio.Event()

    async def handler(ws):
        async for _ in ws:
            await go_on.wait()

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        (theirs,) = server.connections
        await until(lambda: is_idle(theirs))
        await ws.send("work")
        await until(lambda: not is_idle(theirs))
        go_on.set()
        await until(lambda: is_idle(theirs))
    assert not is_idle(WebSocketProtocol())  # never open


async def test_who_waits_for_the_rest_of_a_message_is_not_idle(until, raw, frame):
    async def handle(ws):
        await ws.recv()
        async for _ in ws.recv_stream():
            pass
        await ws.recv()

    async with serve(handle, "127.0.0.1", 0, stream=True) as server, raw(server) as peer:
        await until(lambda: server.connections)
        (ws,) = server.connections
        for _ in range(2):
            await until(lambda: is_idle(ws))
            await peer.send(frame(2, b"begin", fin=False))
            await until(lambda: ws._sink.waiter is not None and (ws._reader or ws._begun))
            assert not is_idle(ws)
            await peer.send(frame(0, b"end"))
        await until(lambda: is_idle(ws))
        await peer.send(frame(8, b"\x03\xe8"))


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_message_is_not_idle(stream, echo, until, raw, frame):
    async with serve(echo, "127.0.0.1", 0, stream=stream) as server, raw(server) as peer:
        await until(lambda: server.connections)
        (ws,) = server.connections
        whole = frame(1, b"half of it")
        for begin, end in [
            (frame(1, b"begin", fin=False), frame(0, b"end")),
            (whole[:9], whole[9:]),
        ]:
            await until(lambda: is_idle(ws))
            await peer.send(begin)
            await until(lambda: not is_idle(ws))
            await peer.send(end)
        await until(lambda: is_idle(ws))
        await peer.send(frame(8, b"\x03\xe8"))


async def test_a_server_drains_then_closes(echo, url, raw, until):
    async with serve(echo, "127.0.0.1", 0) as server:
        clients = [await connect(url(server)) for _ in range(10)]
        server_address = server.sockets[0].getsockname()
        async with raw(server, handshake=False) as late:
            await late.send(PLAIN[:10])
            drained = asyncio.ensure_future(server.drain(0.3, reason="moving"))
            # Nobody can connect any more, but those who have can go on.
            await until(lambda: not server.sockets)
            with pytest.raises(OSError, match=r"."):
                await asyncio.open_connection(*server_address)
            await clients[0].send("still there?")
            await clients[0].wait_closed()
            assert await clients[0].recv() == "still there?"
            await drained
        await asyncio.gather(*(ws.wait_closed() for ws in clients))
        assert {(ws.close_code, ws.close_reason) for ws in clients} == {(1012, "moving")}
        assert not server._endpoints
        await server.wait_closed()


@pytest.mark.parametrize("how", ["close", "signal"])
async def test_a_drain_is_cut_short(echo, url, how):
    async with serve(echo, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        forever = asyncio.ensure_future(server.serve_forever(signals=(), drain=3600))
        await asyncio.sleep(0)
        server._on_signal()
        await asyncio.sleep(0.01)
        assert not server.sockets
        assert server.connections
        if how == "close":
            await server.close(1001)
        else:
            server._on_signal()
        async with asyncio.timeout(5):
            await forever
        with pytest.raises(ConnectionClosed) as raised:
            await ws.recv()
        assert raised.value.code in ((1001,) if how == "close" else (1012, 1006))


@pytest.mark.parametrize(
    "options", [{"over": 0}, {"over": -1}, {"over": None}, {"over": 1, "code": 1006}]
)
async def test_a_drain_with_wrong_arguments_does_nothing(echo, url, options):
    async with serve(echo, "127.0.0.1", 0) as server:
        with pytest.raises((ValueError, TypeError), match=r"over|code"):
            await server.drain(**options)
        with pytest.raises(ValueError, match="drain"):
            await server.serve_forever(signals=(), drain=0)
        async with connect(url(server)):
            pass
