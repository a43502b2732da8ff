"""Servers behind a proxy that sends a PROXY protocol header, with and without TLS after it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import ClassVar

import pytest

import fastws.aio.proxied
from fastws import (
    ConnectionClosed,
    HandshakeError,
    ResponseError,
    WebSocketProtocol,
    connect,
    serve,
)
from fastws.aio import admission
from fastws.proxy_protocol import ProxyHeader

from ..wire import upgrade_request

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"
V2 = SIGNATURE + bytes.fromhex("21 11 0010 c0000201 c6336407 dc04 01bb 02 0001 78")
LOCAL = SIGNATURE + bytes.fromhex("20 00 0000")
CLIENT, THERE = ("192.0.2.1", 56324), ("198.51.100.7", 443)
HEADERS = {
    "v1": (V1, ProxyHeader(1, CLIENT, THERE)),
    "v2": (V2, ProxyHeader(2, CLIENT, THERE, ((2, b"x"),))),
    "unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    "local": (LOCAL, ProxyHeader(2)),
}


async def addresses(ws):
    await ws.send(repr((ws.remote_address, ws.local_address)))


class Addresses(WebSocketProtocol):
    def on_open(self):
        self.send(repr((self.remote_address, self.local_address)))
        self.close()


@pytest.fixture(params=[addresses, Addresses], ids=["coroutine", "callback"])
def telling(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["ws", "wss"])
def secure(request):
    return request.param


def sent_first(server, header, chunk=None):
    """Connect a socket to a server, and send it a header, in pieces of this size."""
    sock = socket.create_connection(server.sockets[0].getsockname()[:2])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(header), chunk or len(header)):
        sock.send(header[at : at + (chunk or len(header))])
    sock.setblocking(False)
    return sock


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
@pytest.mark.parametrize("kind", HEADERS)
async def test_the_address_is_the_one_that_the_proxy_tells(telling, secure, kind, tls, until):
    header, told = HEADERS[kind]
    seen = []
    options = {"process_request": lambda request: seen.append(request.peer)}
    options |= {"ssl": tls.server} if secure else {}
    async with serve(telling, "127.0.0.1", 0, proxy_protocol=True, **options) as server:
        sock = sent_first(server, header)
        real = (sock.getsockname(), sock.getpeername())
        uri = f"ws{'s' * secure}://localhost:1"
        async with connect(uri, sock=sock, ssl=tls.client if secure else None) as ws:
            expected = real if told.source is None else (CLIENT, THERE)
            assert await ws.recv() == repr(expected)
        (peer,) = seen
        assert (peer.address, peer.local_address, peer.proxy) == (*expected, told)
        assert (peer.tls is not None) is secure
        assert peer.tls is None or peer.tls.version == "TLSv1.3"
        await until(lambda: not server._endpoints)


async def test_header_and_request_and_frames_may_come_in_one_packet(echo, raw, frame):
    async with serve(echo, "127.0.0.1", 0, proxy_protocol=True) as server:
        async with raw(server, handshake=False) as peer:
            await peer.send(V1 + upgrade_request() + frame(1, b"early"))
            assert (await peer.head())[0] == 101
            assert await peer.frame() == (0x81, b"early")
        async with raw(server, handshake=False) as peer:
            for octet in V2 + upgrade_request():
                await peer.send(bytes([octet]))
                await asyncio.sleep(0)
            assert (await peer.head())[0] == 101


def tls_client(context):
    """A TLS client without I/O: what it has received, what it sends, and itself."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return incoming, outgoing, context.wrap_bio(incoming, outgoing, server_hostname="localhost")


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
@pytest.mark.parametrize("header", [V1, V2])
async def test_the_end_of_tls_and_the_request_may_come_in_one_packet(echo, raw, tls, header, frame):
    options = {"ssl": tls.server, "proxy_protocol": True}
    async with (
        serve(echo, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        incoming, outgoing, client = tls_client(tls.client)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        # The beginning of TLS comes with the header, too.
        await peer.send(header + outgoing.read())
        done = False
        while not done:
            incoming.write(await peer.reader.read(65536))
            try:
                client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
        client.write(upgrade_request())
        client.write(frame(1, b"early"))
        await peer.send(outgoing.read())
        received = b""
        while not received.endswith(b"\x81\x05early"):
            incoming.write(await peer.reader.read(65536))
            try:
                while True:
                    received += client.read()
            except ssl.SSLWantReadError:
                pass
        assert received.startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def failing():
    """A protocol class whose connections never open, and which keeps their errors."""

    class Failing(WebSocketProtocol):
        errors: ClassVar[list[Exception]] = []

        def on_error(self, exc):
            self.errors.append(exc)

        def on_close(self, code, reason):
            raise AssertionError("it was never open")

    return Failing


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "does not begin with a PROXY protocol header"),
        (b"PROXY TCP4 300.0.2.1 192.0.2.1 1 1\r\n", "not an IPv4 address"),
        (SIGNATURE + b"\x31\0\0\0", "unknown version 3"),
    ],
)
async def test_a_bad_header_ends_the_connection(
    failing, secure, tls, raw, caplog, octets, error, until
):
    caplog.set_level(logging.DEBUG, "fastws")
    options = {"proxy_protocol": True} | ({"ssl": tls.server} if secure else {})
    async with (
        serve(failing, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(octets)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(1)
        await until(lambda: not server._endpoints)
    (exc,) = failing.errors
    assert isinstance(exc, HandshakeError)
    assert error in str(exc)
    (record,) = [each for each in caplog.records if "handshake failed" in each.getMessage()]
    assert record.levelname == "DEBUG"
    assert error in record.getMessage()


async def test_a_bad_request_is_reported_with_the_address_that_was_told(echo, raw, caplog, until):
    caplog.set_level(logging.DEBUG, "fastws")
    async with (
        serve(echo, "127.0.0.1", 0, proxy_protocol=True) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(V1 + b"nonsense\r\n\r\n"))[0] == 400
        await until(lambda: "opening handshake failed (('192.0.2.1', 56324))" in caplog.text)


@pytest.mark.parametrize("does", ["says nothing", "says half", "ends", "resets"])
async def test_a_header_that_does_not_come(failing, raw, until, does):
    options = {"proxy_protocol": True, "open_timeout": 0.5 if "says" in does else 30}
    async with (
        serve(failing, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await until(lambda: server._endpoints)
        if does == "says half":
            await peer.send(V1[:20])
        elif does == "ends":
            peer.writer.write_eof()
        elif does == "resets":
            peer.reset()
        await until(lambda: not server._endpoints)
    (exc,) = failing.errors
    assert isinstance(exc, TimeoutError if "says" in does else (HandshakeError, ConnectionError))


@pytest.mark.parametrize("does", ["says nothing", "says nonsense", "ends", "resets"])
async def test_tls_that_does_not_come_after_the_header(failing, tls, raw, until, does):
    options = {"proxy_protocol": True, "ssl": tls.server}
    options["open_timeout"] = 0.5 if does == "says nothing" else 30
    async with (
        serve(failing, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(V1)
        await until(lambda: server._endpoints)
        if does == "says nonsense":
            await peer.send(b"GET / HTTP/1.1\r\n\r\n")
        elif does == "ends":
            peer.writer.write_eof()
        elif does == "resets":
            peer.reset()
        await until(lambda: not server._endpoints)
    assert len(failing.errors) == 1


@pytest.mark.parametrize("sent", [b"", V1])
async def test_a_server_that_closes_does_not_wait_for_headers(
    echo, secure, tls, raw, until, sent, monkeypatch
):
    monkeypatch.setattr(admission, "PATIENCE", 0.1)
    options = {"proxy_protocol": True} | ({"ssl": tls.server} if secure else {})
    async with (
        serve(echo, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(sent)
        await until(lambda: server._endpoints)
        async with asyncio.timeout(5):
            await server.close()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(1)


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_a_server_that_closes_does_not_wait_for_tls(failing, tls, raw, monkeypatch):
    """No event loop tells the task that waits for TLS."""
    monkeypatch.setattr(admission, "PATIENCE", 0.1)
    async with (
        serve(failing, "127.0.0.1", 0, proxy_protocol=True, ssl=tls.server) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(V1)
        await asyncio.sleep(0.05)  # until it has begun
        async with asyncio.timeout(5):
            await server.close()
        assert not server._endpoints
    assert len(failing.errors) == 1


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_a_timeout_for_tls_holds_after_a_header(echo, tls, raw, until):
    options = {"proxy_protocol": True, "ssl": tls.server, "ssl_handshake_timeout": 0.05}
    async with (
        serve(echo, "127.0.0.1", 0, **options, open_timeout=30) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(V1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(5):
                await peer.reader.readexactly(1)
        await until(lambda: not server._endpoints)


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_connections_count_before_tls(echo, tls, raw, until, limit):
    """Those in the middle of it take memory, too."""
    options = {"proxy_protocol": True, "ssl": tls.server, limit: 1}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        async with raw(server, handshake=False) as peer:
            await peer.send(V1)  # and nothing more
            await until(lambda: len(server._admission._admitted) == 1)
            sock = sent_first(server, V1)
            with pytest.raises(ResponseError, match="503"):  # after TLS, so that it can be read
                await connect("wss://localhost:1", sock=sock, ssl=tls.client)
        await until(lambda: not server._endpoints)
        sock = sent_first(server, V1)
        async with connect("wss://localhost:1", sock=sock, ssl=tls.client) as ws:
            await ws.send("there is room again")
            assert await ws.recv() == "there is room again"
        await until(lambda: not server._endpoints)
        assert not server._admission._admitted
        assert not server._admission._counts


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_silent_connections_beyond_the_limit_are_few_before_tls_too(
    echo, tls, raw, until, monkeypatch
):
    monkeypatch.setattr(admission, "_MAX_REFUSALS", 1)
    monkeypatch.setattr(admission, "_RETRY_AFTER", 0.1)
    options = {"proxy_protocol": True, "ssl": tls.server, "max_connections": 0}
    async with (
        serve(echo, "127.0.0.1", 0, **options, open_timeout=None) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(V1)
        await until(lambda: server._admission._refused)
        async with raw(server, handshake=False) as another:
            await another.send(V1)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await another.reader.readexactly(1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(1)
        await until(lambda: not server._endpoints)
        assert not server._admission._refused


async def test_options_of_tls_need_tls(echo):
    with pytest.raises(ValueError, match="ssl_handshake_timeout"):
        await serve(echo, "127.0.0.1", 0, proxy_protocol=True, ssl_handshake_timeout=1)


async def test_a_header_over_a_unix_socket(telling, tmp_path):
    path = str(tmp_path / "socket")
    async with serve(telling, path=path, proxy_protocol=True):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.send(V2)
        sock.setblocking(False)
        async with connect("ws://localhost", sock=sock) as ws:
            assert await ws.recv() == repr((CLIENT, THERE))


async def test_windows_own_loop_cannot_begin_tls_after_a_header(echo, tls, monkeypatch):
    own = type(asyncio.get_running_loop())
    monkeypatch.setattr(fastws.aio.proxied.asyncio, "ProactorEventLoop", own, raising=False)
    with pytest.raises(NotImplementedError, match="SelectorEventLoop"):
        await serve(echo, "127.0.0.1", 0, ssl=tls.server, proxy_protocol=True)
    async with serve(echo, "127.0.0.1", 0, proxy_protocol=True):
        pass


async def test_a_connection_that_ends_in_the_middle_of_a_session(telling, secure, tls, url):
    """Nothing is different from a connection without a header once it is open."""
    options = {"proxy_protocol": True} | ({"ssl": tls.server} if secure else {})
    async with serve(telling, "127.0.0.1", 0, **options) as server:
        sock = sent_first(server, V2, chunk=3)
        uri = f"ws{'s' * secure}://localhost:1"
        async with connect(uri, sock=sock, ssl=tls.client if secure else None) as ws:
            await ws.recv()
            with pytest.raises(ConnectionClosed, match="1000"):
                await ws.recv()
