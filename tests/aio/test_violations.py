"""What bad input gets: every row of the design's table, through a real socket.

The peer is a raw socket. It must be able to read the close frame, or the HTTP response, up
to the end of the stream, whatever it sends meanwhile: no reset may overtake it.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from fastws import ConnectionClosed, ProtocolError, WebSocketProtocol, serve

LIMITS = {"max_message_size": 1000, "max_fragments": 10}
JUNK = bytes(1 << 20)
KEY = b"\x01\x02\x03\x04"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def close(code, reason=b""):
    return lambda frame: frame(CLOSE, code.to_bytes(2, "big") + reason)


VIOLATIONS = {
    "length of 1 in 2 bytes": (1002, lambda f: f(TEXT, b"a", length=b"\x7e\0\1")),
    "length of 125 in 2 bytes": (1002, lambda f: f(TEXT, b"a" * 125, length=b"\x7e\0\x7d")),
    "length of 1 in 8 bytes": (1002, lambda f: f(TEXT, b"a", length=b"\x7f" + bytes(7) + b"\1")),
    "length of 256 in 8 bytes": (1002, lambda f: f(TEXT, length=b"\x7f" + bytes(6) + b"\1\0")),
    "length with the top bit": (1002, lambda f: f(BINARY, length=b"\x7f\x80" + bytes(7))),
    **{
        f"reserved opcode {opcode}": (1002, lambda f, opcode=opcode: f(opcode, b"x"))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    **{
        f"RSV {rsv} on opcode {opcode}": (1002, lambda f, o=opcode, r=rsv: f(o, rsv=r))
        for rsv, opcode in [(4, TEXT), (2, TEXT), (1, TEXT), (7, BINARY), (4, PING), (4, CLOSE)]
    },
    "RSV1 on a continuation": (1002, lambda f: f(TEXT, b"a", fin=False) + f(0, b"b", rsv=4)),
    "fragmented ping": (1002, lambda f: f(PING, fin=False)),
    "fragmented pong": (1002, lambda f: f(PONG, fin=False)),
    "fragmented close": (1002, lambda f: f(CLOSE, fin=False)),
    "ping of 126 bytes": (1002, lambda f: f(PING, bytes(126))),
    "pong of 65536 bytes": (1002, lambda f: f(PONG, bytes(65536))),
    "close of 126 bytes": (1002, lambda f: f(CLOSE, b"\x03\xe8" + b"x" * 124)),
    "continuation without a start": (1002, lambda f: f(0, b"x")),
    "continuation after the end": (1002, lambda f: f(TEXT, b"x") + f(0, b"x")),
    "text inside fragments": (1002, lambda f: f(TEXT, b"a", fin=False) + f(TEXT, b"b")),
    "binary inside fragments": (1002, lambda f: f(TEXT, fin=False) + f(BINARY, fin=False)),
    "text not masked": (1002, lambda f: f(TEXT, b"x", key=b"")),
    "close not masked": (1002, lambda f: f(CLOSE, b"\x03\xe8", key=b"")),
    "close of 1 byte": (1002, lambda f: f(CLOSE, b"\x03")),
    **{
        f"close code {code}": (1002, close(code))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "text not UTF-8": (1007, lambda f: f(TEXT, b"ab\xffcd")),
    "text that ends in a code point": (1007, lambda f: f(TEXT, "ab€".encode()[:-1])),
    "surrogate in a text": (1007, lambda f: f(TEXT, b"\xed\xa0\x80")),
    "overlong form in a text": (1007, lambda f: f(TEXT, b"\xc0\xaf")),
    "fragments not UTF-8": (1007, lambda f: f(TEXT, b"\xe2", fin=False) + f(0, b"x", fin=False)),
    "fragments end in a code point": (1007, lambda f: f(TEXT, b"\xe2", fin=False) + f(0, b"\x82")),
    "close reason not UTF-8": (1007, close(1000, b"\xff")),
    "close reason ends in a code point": (1007, close(1000, b"\xe2\x82")),
    # Fail fast: these never become complete.
    "text not UTF-8 at once": (1007, lambda f: f(TEXT, length=b"\x7d") + b"\xfe\x02\x03\x04"),
    "reason not UTF-8 at once": (1007, lambda f: f(CLOSE, length=b"\x7d") + b"\x02\xea\xfc\x04"),
    "message announced too big": (1009, lambda f: f(BINARY, length=b"\x7e\x03\xe9")),
    "message announced of 2**63-1": (1009, lambda f: f(TEXT, length=b"\x7f\x7f" + b"\xff" * 7)),
    "fragments too big": (1009, lambda f: f(TEXT, b"x" * 999, fin=False) + f(0, b"yz")),
    "too many fragments": (1009, lambda f: f(TEXT, fin=False) + f(0, fin=False) * 10),
}  # fmt: skip
each_violation = pytest.mark.parametrize(
    ("code", "make"), VIOLATIONS.values(), ids=list(VIOLATIONS)
)
chunked = pytest.mark.parametrize("chunked", [False, True], ids=["whole", "bytewise"])


async def deliver(peer, data, chunked):
    if not chunked:
        await peer.send(data)
        return
    peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(min(len(data), 500)):
        await peer.send(data[i : i + 1])
        await asyncio.sleep(0)  # one turn of the loop: the server reads it
    await peer.send(data[500:])


@each_violation
@chunked
async def test_a_violation_is_answered_with_its_close_code(echo, raw, frame, code, make, chunked):
    async with serve(echo, "127.0.0.1", 0, **LIMITS) as server, raw(server) as peer:
        await deliver(peer, frame(TEXT, b"good") + make(frame), chunked)
        assert await peer.frame() == (0x81, b"good")
        assert (await peer.close_frame())[0] == code
        assert await peer.rest() == b""


@pytest.mark.parametrize("name", ["text not masked", "text not UTF-8", "message announced too big"])
async def test_the_close_frame_is_read_by_a_peer_that_keeps_sending(echo, raw, frame, name):
    code, make = VIOLATIONS[name]
    async with serve(echo, "127.0.0.1", 0, **LIMITS) as server, raw(server) as peer:
        peer.writer.write(make(frame))
        for _ in range(8):
            await peer.send(JUNK)
        assert (await peer.close_frame())[0] == code
        assert await peer.rest() == b""


@pytest.fixture
def impatient(monkeypatch):
    """Make the server wait less for a TLS peer that sends after the end."""
    monkeypatch.setattr("fastws.aio.lingering.LINGER_SILENCE", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "name", ["reserved opcode 3", "close code 1005", "text not UTF-8", "too many fragments"]
)
@chunked
async def test_a_violation_over_tls(echo, raw, frame, tls, name, chunked):
    code, make = VIOLATIONS[name]
    async with (
        serve(echo, "127.0.0.1", 0, ssl=tls.server, **LIMITS) as server,
        raw(server, ssl=tls.client, server_hostname="localhost") as peer,
    ):
        await deliver(peer, make(frame), chunked)
        assert (await peer.close_frame())[0] == code
        assert await peer.rest() == b""


@pytest.mark.usefixtures("impatient")
async def test_the_close_frame_is_read_over_tls_by_a_peer_that_keeps_sending(echo, raw, frame, tls):
    async with (
        serve(echo, "127.0.0.1", 0, ssl=tls.server) as server,
        raw(server, ssl=tls.client, server_hostname="localhost") as peer,
    ):
        peer.writer.write(frame(TEXT, b"\xff"))
        for _ in range(8):
            await peer.send(JUNK)
        assert (await peer.close_frame())[0] == 1007
        assert await peer.rest() == b""


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_peer_that_never_stops_sending_is_ended_by_the_close_timeout(
    echo, raw, frame, tls, until, secure
):
    async def flood(peer):
        while True:
            await peer.send(JUNK)
            # Data written while TLS shuts down is dropped, and `drain` never waits for it.
            await asyncio.sleep(0)

    options = {"ssl": tls.client, "server_hostname": "localhost"} if secure else {}
    async with (
        serve(
            echo, "127.0.0.1", 0, ssl=tls.server if secure else None, close_timeout=0.3
        ) as server,
        raw(server, **options) as peer,
    ):
        await peer.send(frame(TEXT, b"\xff"))
        flooding = asyncio.create_task(flood(peer))
        assert (await peer.close_frame())[0] == 1007
        await until(lambda: not server._endpoints)
        await asyncio.wait([flooding], timeout=5)
        assert isinstance(flooding.exception(), ConnectionError)


async def test_what_follows_a_close_frame_is_dropped(echo, raw, frame):
    async with serve(echo, "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(frame(CLOSE, b"\x0f\xa0bye") + frame(TEXT, b"late") + b"\xff" * 100)
        await peer.send(JUNK)
        assert await peer.close_frame() == (4000, "bye")
        assert await peer.rest() == b""


async def test_the_handler_is_told_of_a_violation(raw, frame):
    told = asyncio.get_running_loop().create_future()

    async def handler(ws):
        assert await ws.recv() == "good"
        try:
            await ws.recv()
        except ConnectionClosed as exc:
            told.set_result(exc)

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        await peer.send(frame(TEXT, b"good") + frame(TEXT, b"x", rsv=4))
        code, reason = await peer.close_frame()
        exc = await told
        assert (exc.code, exc.reason) == (code, reason) == (1002, "reserved bit set: RSV1")
        assert isinstance(exc.__cause__, ProtocolError)


async def test_the_hooks_are_told_of_a_violation(raw, frame, until):
    calls = []

    class Recorder(WebSocketProtocol):
        def on_message(self, message):
            calls.append(message)

        def on_error(self, exc):
            calls.append((type(exc), str(exc)))
            self.close()  # has no effect any more

        def on_close(self, code, reason):
            calls.append((code, reason))

    async with serve(Recorder, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.send(frame(TEXT, b"good") + frame(TEXT, b"x", rsv=4) + frame(TEXT, b"late"))
            await peer.close_frame()
        await until(lambda: not server._endpoints)
    message = "reserved bit set: RSV1"
    assert calls == ["good", (ProtocolError, message), (1002, message)]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x81\x81\1\2\3\4x", 1002),  # masked
        (b"\xc1\x01x", 1002),
        (b"\x81\x01\xff", 1007),
        (b"\x82\x7f\0\0\0\1\0\0\0\0", 1009),
        (b"\x88\x02\x03\xed", 1002),
    ],
)
async def test_a_client_answers_a_servers_violation_too(raw_server, url, stream, code):
    from fastws import connect

    seen = asyncio.get_running_loop().create_future()

    async def play(peer):
        await peer.send(b"\x81\x04good" + stream + JUNK)
        seen.set_result(await peer.close_frame())
        assert await peer.rest() == b""

    async with raw_server(play) as server, connect(url(server)) as ws:
        assert await ws.recv() == "good"
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == code
        assert (await seen)[0] == code


# Bad handshakes -----------------------------------------------------------------------


def request(*changes, method="GET", version="1.1"):
    """Write a request with other header fields: (name, value), or (name, None) to omit one."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    } | dict(changes)
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} / HTTP/{version}", *lines, "", ""]).encode("latin-1")


BAD_REQUESTS = {
    "no HTTP": (b"\x16\x03\x01\x02\0hello", 400, b"not HTTP"),
    "bad request line": (b"GET\r\n\r\n", 400, b""),
    "POST": (request(method="POST"), 405, b"GET"),
    "HTTP/1.0": (request(version="1.0"), 426, b"HTTP/1.1"),
    "no upgrade": (request(("Upgrade", None)), 426, b"WebSocket"),
    "no connection": (request(("Connection", "keep-alive")), 426, b"Connection"),
    "no host": (request(("Host", None)), 400, b"Host"),
    "no key": (request(("Sec-WebSocket-Key", None)), 400, b"Sec-WebSocket-Key"),
    "short key": (request(("Sec-WebSocket-Key", "c2hvcnQ=")), 400, b"16 bytes"),
    "no version": (request(("Sec-WebSocket-Version", None)), 400, b"Sec-WebSocket-Version"),
    "version 8": (request(("Sec-WebSocket-Version", "8")), 426, b"13"),
    "a body": (request(("Content-Length", "5")), 400, b"body"),
    "bad extensions": (request(("Sec-WebSocket-Extensions", "a;=")), 400, b"Extensions"),
    "bad subprotocol": (request(("Sec-WebSocket-Protocol", "a, a")), 400, b"Protocol"),
    "origin": (request(("Origin", "https://evil.example")), 403, b"origin"),
    "large headers": (request(("X", "x" * 20_000)), 431, b"header block over 16384 bytes"),
}


@pytest.mark.parametrize(("octets", "status", "why"), BAD_REQUESTS.values(), ids=list(BAD_REQUESTS))
@pytest.mark.parametrize("chunked", [False, True, None], ids=["whole", "bytewise", "and more"])
async def test_a_bad_handshake_gets_a_response_that_says_why(
    echo, raw, octets, status, why, chunked
):
    options = {"origins": [None, "https://good.example"]}
    async with (
        serve(echo, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await deliver(peer, octets, chunked)
        if chunked is None:
            for _ in range(8):
                await peer.send(JUNK)
        got, head = await peer.head()
        assert got == status
        assert b"\r\nConnection: close\r\n" in head or b", close\r\n" in head
        body = await peer.rest()
        assert why in body
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert (b"Sec-WebSocket-Version: 13" in head) == (b"only version" in body)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_close_in_on_error_does_not_cut_the_response_off(raw, until, tls, secure):
    """… though the client is still sending: a reset would take the response away from it."""
    errors = []

    class Closes(WebSocketProtocol):
        def on_error(self, exc):
            errors.append(str(exc))
            self.close()

    options = {"ssl": tls.client, "server_hostname": "localhost"} if secure else {}
    async with (
        serve(Closes, "127.0.0.1", 0, ssl=tls.server if secure else None) as server,
        raw(server, handshake=False, **options) as peer,
    ):
        await peer.send(request(("Host", None)))
        await until(lambda: errors)
        for _ in range(8):
            await peer.send(JUNK)
        assert (await peer.head())[0] == 400
        assert b"Host" in await peer.rest()
    assert errors == ["Missing mandatory Host: header"]


@pytest.mark.usefixtures("impatient")
async def test_a_bad_handshake_over_tls(raw, tls, echo):
    async with (
        serve(echo, "127.0.0.1", 0, ssl=tls.server) as server,
        raw(server, ssl=tls.client, server_hostname="localhost", handshake=False) as peer,
    ):
        await peer.send(request(("Host", None)) + JUNK)
        assert (await peer.head())[0] == 400
        assert b"Host" in await peer.rest()


async def test_a_bad_handshake_reaches_on_error_and_no_other_hook(raw, until):
    calls = []

    class Recorder(WebSocketProtocol):
        def on_open(self):
            calls.append("open")

        def on_close(self, code, reason):
            calls.append("close")

        def on_error(self, exc):
            calls.append(str(exc))

    async with serve(Recorder, "127.0.0.1", 0) as server:
        async with raw(server, handshake=False) as peer:
            assert (await peer.request(request(("Host", None))))[0] == 400
            await peer.rest()
        async with raw(server, handshake=False) as peer:
            await peer.send(b"GET / HT")
        await until(lambda: len(calls) == 2)
    assert calls == [
        "Missing mandatory Host: header",
        "connection closed during the opening handshake",
    ]
