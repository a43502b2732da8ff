"""Tests of `connect`: where it connects to, how it handles the answer, when it tries again,
and how it compresses."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import asynccontextmanager, suppress
from itertools import repeat

import pytest
import websockets

import fastws
from fastws import (
    ConnectionClosed,
    PerMessageDeflate,
    Response,
    ResponseError,
    RetryPolicy,
    connect,
    serve,
)
from fastws.aio import client

from ..wire import OFFER

HOST = "127.0.0.1"


class Recorder(fastws.WebSocketProtocol):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_open(self):
        self.calls.append("open")

    def on_error(self, exc):
        self.calls.append(exc)

    def on_close(self, code, reason):
        self.calls.append(code)


@pytest.fixture
def handler():
    """A handler that echoes and keeps its connections."""

    async def echo(ws):
        echo.seen.append(ws)
        async for message in ws:
            await ws.send(message)

    echo.seen = []
    return echo


@pytest.fixture
def swift(monkeypatch):
    """Try again without delay."""
    monkeypatch.setattr(RetryPolicy, "delays", lambda _: repeat(0.01))


# The three ways to connect --------------------------------------------------------------


async def test_awaited(handler, url):
    async with serve(handler, HOST, 0) as server:
        ws = await connect(url(server))
        await ws.send("Hello Server!")
        assert await ws.recv() == "Hello Server!"
        await ws.close(4000, "bye")
        assert (ws.close_code, ws.close_reason) == (4000, "bye")


@pytest.mark.parametrize("code", [1000, 1011])
async def test_async_with_closes(code, handler, url, until):
    async with serve(handler, HOST, 0) as server:
        try:
            async with connect(url(server), protocol=Recorder) as protocol:
                assert protocol.calls == ["open"]
                if code == 1011:
                    raise LookupError
        except LookupError:
            assert code == 1011
        assert protocol.calls == ["open", code]
        await until(lambda: not server._endpoints)
    assert handler.seen[0].close_code == code


async def test_async_for_connects_anew_and_closes_on_break(handler, url, until):
    async with serve(handler, HOST, 0) as server:
        async for ws in connect(url(server)):
            await ws.send("hi")
            assert await ws.recv() == "hi"
            if len(handler.seen) == 3:
                break

        def closed():
            gc.collect()  # a Python without reference counting finds the iterator this way
            return not server._endpoints

        await until(closed)
    assert [ws.close_code for ws in handler.seen] == [1000] * 3


async def test_async_for_waits_for_a_server_that_hangs_up_at_once(monkeypatch, url):
    waited = []

    def delays():
        for number in range(3):
            waited.append(number)
            yield 0.01

    async def hang_up(ws):
        await ws.close(1013)

    monkeypatch.setattr(RetryPolicy, "delays", lambda _: delays())
    async with serve(hang_up, HOST, 0) as server:
        rounds = 0
        async for ws in connect(url(server)):
            with suppress(ConnectionClosed):
                await ws.recv()
            rounds += 1
            # The third was open long enough to reset the delays.
            monkeypatch.setattr(client, "_SHORT", 0.0 if rounds == 3 else 60.0)
            if rounds == 5:
                break
    assert waited == [0, 1, 0]


async def test_async_for_does_not_wait_if_the_body_closes(handler, monkeypatch, url):
    monkeypatch.setattr(RetryPolicy, "delays", lambda _: iter(()))
    rounds = 0
    async with serve(handler, HOST, 0) as server:
        async for ws in connect(url(server)):
            async with ws:
                rounds += 1
                if rounds == 3:
                    break
    assert [ws.close_code for ws in handler.seen] == [1000] * 3


async def test_async_for_waits_for_a_server_that_breaks_the_rules(monkeypatch, raw_server, url):
    """We close the connection then, but it is not what the body wanted."""
    waited = []

    def delays():
        waited.append(1)
        yield 0.0

    monkeypatch.setattr(RetryPolicy, "delays", lambda _: delays())

    async def play(peer):
        await peer.send(b"\xff\xff")
        await peer.rest()

    async with raw_server(play) as server:
        async for ws in connect(url(server)):
            with pytest.raises(ConnectionClosed, match="1002"):
                await ws.recv()
            if waited:
                break
    assert waited == [1]


async def test_a_socket_is_for_one_connection(handler):
    async with serve(handler, HOST, 0) as server:
        sock = socket.create_connection(server.sockets[0].getsockname())
        connecting = connect("ws://localhost", sock=sock)
        with pytest.raises(ValueError, match="sock"):
            await anext(aiter(connecting))
        async with connecting as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


# Trying again ------------------------------------------------------------------------------


async def test_a_server_that_comes_back_is_found_again(monkeypatch, handler, url):
    server = await serve(handler, HOST, 0)
    again = None
    missed = asyncio.Event()

    def delays():
        yield 0.01  # after the server hung up
        while True:
            missed.set()  # after an attempt to connect
            yield 0.01

    monkeypatch.setattr(RetryPolicy, "delays", lambda _: delays())

    async def restart(port):
        await missed.wait()
        return await serve(handler, HOST, port)

    heard = []
    async for ws in connect(url(server)):
        await ws.send(f"round {len(heard)}")
        heard.append(await ws.recv())
        if again is not None:
            break
        port = server.sockets[0].getsockname()[1]
        await server.close()
        again = asyncio.create_task(restart(port))
        with pytest.raises(ConnectionClosed, match="1001"):
            await ws.recv()
    assert heard == ["round 0", "round 1"]
    await ws.close()
    await (await again).close()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524, 530])
async def test_a_status_that_passes_is_tried_again(status, swift, handler, url):
    answers = [Response.text("later", status), Response.text("later", status), None]
    async with serve(handler, HOST, 0, process_request=lambda _: answers.pop(0)) as server:
        async for ws in connect(url(server)):
            await ws.close()
            break
    assert answers == []


@pytest.mark.parametrize("status", [301, 401, 403, 404, 501, 505, 511])
async def test_other_statuses_are_raised_at_once(status, swift, handler, url):
    asked = []

    def refuse(request):
        asked.append(request)
        return Response.text("go away", status)

    async def run():
        async for _ in connect(url(server), protocol=lambda: protocol):
            pytest.fail("connected")

    protocol = Recorder()
    async with serve(handler, HOST, 0, process_request=refuse) as server:
        with pytest.raises(ResponseError, match=str(status)) as caught:
            await run()
    assert (caught.value.response.status, caught.value.response.body) == (status, b"go away")
    assert len(asked) == 1
    assert protocol.calls == [caught.value]


# No connection -------------------------------------------------------------------------------


async def test_refused(handler, url):
    async with serve(handler, HOST, 0) as server:
        uri = url(server)
    protocol = Recorder()
    with pytest.raises(ConnectionRefusedError) as caught:
        await connect(uri, protocol=lambda: protocol)
    assert protocol.calls == [caught.value]


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "localhost:80",
        "ftp://localhost",
        "http://localhost/#a",
        "ws://",
        "ws://localhost:99999",
        "ws://localhost/#a",
    ],
)
def test_a_bad_uri_is_told_at_once(uri):
    with pytest.raises(fastws.InvalidURIError):
        connect(uri)


def test_bad_arguments_are_told_at_once(tls):
    limits = {"open_timeout": 0, "max_message_size": -1, "headers": {"Upgrade": "h2c"}}
    for name, value in {"ssl": tls.client, **limits}.items():
        with pytest.raises(ValueError, match="Upgrade" if name == "headers" else name):
            connect("ws://localhost", **{name: value})
    for port in (0, 70000):
        with pytest.raises(ValueError, match=f"port must be at .*, not {port}"):
            connect("ws://localhost", port=port)
    for host in ("a" * 64, "a..b", "a b", "[::1]", ""):
        with pytest.raises(ValueError, match=r"^host: not a host name$"):
            connect("ws://localhost", host=host)
    for name, value in {"subprotocols": "chat", "headers": {"X": 5}, "origin": b"x"}.items():
        with pytest.raises(TypeError):
            connect("ws://localhost", **{name: value})
    with pytest.raises(TypeError, match="must be a str, not 'bytes'"):
        connect(b"ws://localhost")
    # A wrong type must not turn off TLS, say, or mean the proxy of the environment.
    wrong = {"ssl": [True, False], "proxy_ssl": [True], "proxy": [b"http://localhost", 1]}
    for name, values in {**wrong, "port": ["80"], "retry": [None, lambda _: True]}.items():
        for value in values:
            with pytest.raises(TypeError, match=f"^{name} must be .*not '{type(value).__name__}'"):
                connect("wss://localhost", **{name: value})


def test_there_is_one_place_to_connect_to():
    with socket.socket() as sock:
        for where in (
            {"path": "/x", "sock": sock},
            {"path": "/x", "host": HOST},
            {"sock": sock, "host": HOST},
            {"sock": sock, "port": 1},
        ):
            with pytest.raises(ValueError, match="cannot be used with"):
                connect("ws://localhost", **where)


WRONG_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", None, id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", 200, id="200"),
        pytest.param(WRONG_ACCEPT, 101, id="wrong accept"),
        pytest.param(b"", None, id="nothing"),
        pytest.param(WRONG_ACCEPT[:60], None, id="half a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000, None, id="long header"),
    ],
)
async def test_a_wrong_answer(answer, status, raw_server, url):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)

    protocol = Recorder()
    async with raw_server(play, handshake=False) as server:
        with pytest.raises(fastws.HandshakeError) as caught:
            await connect(url(server), protocol=lambda: protocol)
    assert protocol.calls == [caught.value]
    if status is not None:
        assert caught.value.response.status == status
        assert caught.value.response.body == answer.partition(b"\r\n\r\n")[2]


@pytest.fixture
def silent(raw_server):
    """A server that does not finish its answer; events for the request and the disconnect."""

    @asynccontextmanager
    async def listen(answer=b""):
        asked, left = asyncio.Event(), asyncio.Event()

        async def play(peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(answer)
            asked.set()
            try:
                await peer.rest()
            finally:
                left.set()

        async with raw_server(play, handshake=False) as server:
            yield server, asked, left

    return listen


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 403 No\r\n\r\nbec"])
async def test_silence(answer, silent, url):
    protocol = Recorder()
    async with silent(answer) as (server, _, left):
        with pytest.raises(TimeoutError, match="too long"):
            # (So long that a busy machine gets to the answer.)
            await connect(url(server), protocol=lambda: protocol, open_timeout=1.0)
        await asyncio.wait_for(left.wait(), 5)
    assert [type(call) for call in protocol.calls] == [TimeoutError]


async def test_a_cancelled_connect_leaves_nothing(silent, url):
    async def run(uri):
        await connect(uri, protocol=lambda: protocol)

    protocol = Recorder()
    async with silent() as (server, asked, left):
        task = asyncio.create_task(run(url(server)))
        await asyncio.wait_for(asked.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)
    with socket.create_server((HOST, 0)) as listener:  # nor before there is a connection
        for turns in range(5):
            task = asyncio.create_task(run(f"ws://{HOST}:{listener.getsockname()[1]}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert protocol.calls == []


# Where to, and with what ----------------------------------------------------------------


async def test_what_the_server_sees(handler, url):
    async with serve(handler, HOST, 0, subprotocols=["b", "a"]) as server:
        ws = await connect(
            url(server, "/path?query").replace("//", "//us%20er:pass@"),
            origin="https://example.com",
            subprotocols=["a", "b"],
            headers={"X-One": "1", "Cookie": "a=b"},
        )
        await ws.close()
        assert ws.subprotocol == handler.seen[0].subprotocol == "b"
        assert handler.seen[0].request.target == "/path?query"
        headers = handler.seen[0].request.headers
    assert headers["Authorization"] == "Basic dXMgZXI6cGFzcw=="
    assert headers["Origin"] == "https://example.com"
    assert (headers["X-One"], headers["Cookie"]) == ("1", "a=b")


@pytest.mark.parametrize("by", ["host", "sock", "path"])
async def test_elsewhere_than_the_uri_says(by, handler, tmp_path):
    if by == "path" and not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets")
    path = str(tmp_path / "s")
    where = {"path": path} if by == "path" else {"host": HOST, "port": 0}
    async with serve(handler, **where) as server:
        address = server.sockets[0].getsockname()
        if by == "host":
            where = {"host": HOST, "port": address[1]}
        elif by == "sock":
            where = {"sock": socket.create_connection(address)}
        async with connect("ws://example.invalid:1/", **where) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert handler.seen[0].request.headers["Host"] == "example.invalid:1"


async def test_a_unix_socket_in_the_uri(handler, tmp_path):
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets")
    path = tmp_path / "a:b c"
    async with serve(handler, path=str(path)):
        uri = f"ws+unix://{path}".replace("a:b c", "a%3Ab%20c:/target?x=1")
        async with connect(uri) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
        for name, value in (("host", HOST), ("port", 1), ("path", "/x"), ("proxy", "http://x")):
            with pytest.raises(ValueError, match="cannot be used with"):
                connect(uri, **{name: value})
    request = handler.seen[0].request
    assert (request.target, request.headers["Host"]) == ("/target?x=1", "localhost")


async def test_a_limit_on_what_a_client_receives(pair):
    async with pair(client={"max_message_size": 1000}) as (ws, peer):
        await peer.send(b"x" * 1000)
        await peer.send(b"x" * 1001)
        assert await ws.recv() == b"x" * 1000
        with pytest.raises(ConnectionClosed, match="1009"):
            await ws.recv()
        await peer.wait_closed()
    assert ws.close_code == peer.close_code == 1009


# Compression ----------------------------------------------------------------------------

PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. " * 20


def is_deflated(ws):
    return "permessage-deflate" in (ws.response.headers.get("Sec-WebSocket-Extensions") or "")


@pytest.mark.parametrize("peer", ["deflate", "plain", "websockets"])
@pytest.mark.parametrize("ours", [True, False])
async def test_compression_is_agreed_on(ours, peer, handler, url):
    if peer == "websockets":
        listen = websockets.serve(handler, HOST, 0, compression="deflate")
    else:
        listen = serve(handler, HOST, 0, deflate=peer == "deflate")
    async with listen as server, connect(url(server), deflate=ours) as ws:
        assert is_deflated(ws) is (ours and peer != "plain")
        for message in (PROSE, PROSE.encode(), "", b"", "short", b"x" * 500_000):
            for compress in (None, True, False):
                await ws.send(message, compress=compress)
                assert await ws.recv() == message


async def test_which_messages_are_compressed(raw, frame):
    async def handler(ws):
        await ws.recv()
        for compress in (None, True, False):
            await ws.send(PROSE, compress=compress)
            await ws.send("short", compress=compress)
        await ws.wait_closed()

    options = {"deflate": True}
    async with serve(handler, HOST, 0, **options) as server, raw(server, handshake=False) as peer:
        assert (await peer.request(OFFER))[0] == 101
        await peer.send(frame(1, b"go"))
        frames = [await peer.frame() for _ in range(6)]
        await peer.send(frame(8, b"\x03\xe8"))
        await peer.close_frame()
    compressed = [first == 0xC1 for first, _ in frames]
    assert compressed == [True, False, True, True, False, False]
    assert len(frames[0][1]) < len(PROSE) // 4
    assert frames[4:] == [(0x81, PROSE.encode()), (0x81, b"short")]


async def test_a_prepared_message_for_clients_of_every_kind(handler, url, until):
    alone = PerMessageDeflate(context_takeover=False)
    peer_alone = PerMessageDeflate(peer_context_takeover=False)
    wide = PerMessageDeflate(max_window_bits=15, peer_max_window_bits=9, threshold=0)
    settings = [False, True, alone, peer_alone, wide]
    texts = [PROSE, PROSE.encode() * 3, PROSE, "short"]
    messages = [message for text in texts for message in (fastws.prepare(text), text)]

    async def receive(ws):
        return [await ws.recv() for _ in messages]

    async with serve(handler, HOST, 0, deflate=True) as server:
        clients = [await connect(url(server), deflate=settings[i % 5]) for i in range(20)]
        await until(lambda: len(handler.seen) == 20)
        for ws in handler.seen:
            for message in messages:
                await ws.send(message)
        expected = [text for text in texts for _ in range(2)]
        assert await asyncio.gather(*map(receive, clients)) == [expected] * 20
        await asyncio.gather(*[ws.close() for ws in clients])


async def test_a_large_message_stays_in_its_place(pair):
    large = bytes(range(256)) * (8 << 10)
    messages = ["before", large, "after", b"small" * 100, large.hex(), "end"]
    options = {"deflate": True, "max_message_size": None}
    async with pair(client=options, server=options) as ends:
        for sender, receiver in (ends, ends[::-1]):

            async def send(ws=sender):
                for message in messages:
                    await ws.send(message)

            sending = asyncio.create_task(send())
            assert [await receiver.recv() for _ in messages] == messages
            await sending
