"""Tests of `connect` through proxies that misbehave, are slow, or are played by hand.

Real proxies are tested in tests/proxies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from contextlib import suppress

import pytest

import fastws
from fastws import ProxyError, connect, serve
from fastws.aio.retries import may_pass
from fastws.handshake import accept_key

from ..tools import optional

HOST = "127.0.0.1"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def relay(peer, host, port):
    """Connect a peer to a server, and pass on what either sends."""

    async def copy(reader, writer):
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    reader, writer = await asyncio.open_connection(host, port)
    await asyncio.gather(copy(peer.reader, writer), copy(reader, peer.writer))
    with suppress(ConnectionError):
        await writer.wait_closed()


def at(server, scheme="http"):
    host, port = server.sockets[0].getsockname()
    return f"{scheme}://{host}:{port}"


async def failed(proxy, uri="ws://server.example", **options):
    """Return the exception of a connection that must fail, which the application is told."""
    told = []

    class Recorder(fastws.WebSocketProtocol):
        def on_error(self, exc):
            told.append(exc)

    with pytest.raises((ProxyError, OSError)) as caught:
        await connect(uri, proxy=proxy, protocol=Recorder, **options)
    assert told == [caught.value]
    return caught.value


# HTTP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_in_pieces(size, raw_server, url):
    heads = []

    async def play(peer):
        heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 299 Fine\r\nVia: x\r\n\r\n"
        for start in range(0, len(answer), size):
            await peer.send(answer[start : start + size])
            await asyncio.sleep(0)
        await relay(peer, *server.sockets[0].getsockname())

    async with serve(echo, HOST, 0) as server, raw_server(play, handshake=False) as proxy:
        credentials = at(proxy).replace("//", "//J%C3%BCrgen:a%3Ab@")
        async with connect("ws://server.example/x", proxy=credentials) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert ws.remote_address == proxy.sockets[0].getsockname()
    assert heads[0].startswith(b"CONNECT server.example:80 HTTP/1.1\r\nHost: server.example:80\r\n")
    assert b"\r\nProxy-Authorization: Basic SsO8cmdlbjphOmI=\r\n" in heads[0]


async def test_where_the_proxy_connects_to(raw_server):
    heads = []

    async def play(peer):
        heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        await peer.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(play, handshake=False) as proxy:
        for options in ({}, {"host": "::1", "port": 81}, {"port": 443}):
            error = await failed(at(proxy), "wss://server.example", **options)
            assert (error.status, str(error)) == (
                502,
                f"the proxy {at(proxy)[7:]} refused: HTTP 502 Bad Gateway",
            )
    assert [head.split()[1] for head in heads] == [
        b"server.example:443",
        b"[::1]:81",
        b"server.example:443",
    ]


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        pytest.param(b"", None, "closed the connection", id="nothing"),
        pytest.param(b"HTTP/1.1 200", None, "closed the connection", id="half a head"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", None, "bad response", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99_999, None, "bad", id="long header"),
        pytest.param(ESTABLISHED + b"early", None, "nobody asked for", id="early data"),
        pytest.param(
            b"HTTP/1.1 407 No\r\nContent-Length: 9\r\n\r\nwho", 407, "407 No", id="half a body"
        ),
        pytest.param(b"HTTP/1.1 403 No\r\n\r\nwho", 403, "403 No", id="no length"),
        pytest.param(
            b"HTTP/1.1 503 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhox",
            503,
            "HTTP 503",
            id="malformed body",
        ),
        pytest.param(b"HTTP/1.1 500 No\r\n\r\n" + b"who" * 99_999, 500, "500 No", id="long body"),
    ],
)
async def test_a_wrong_answer(answer, status, text, raw_server):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)

    async with raw_server(play, handshake=False) as proxy:
        error = await failed(at(proxy))
        assert text in str(error)
        assert error.status == status
        if status is not None:
            assert error.response.body.startswith(b"who")
            assert len(error.response.body) <= 65536


async def test_data_after_the_answer(raw_server, tls):
    """It does not reach TLS, or the connection."""

    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(ESTABLISHED)
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.rest()

    async with raw_server(play, handshake=False) as proxy:
        with pytest.raises((fastws.HandshakeError, OSError)):
            await connect("ws://server.example", proxy=at(proxy), open_timeout=5)
        with pytest.raises((fastws.HandshakeError, OSError)) as caught:
            await connect("wss://localhost", proxy=at(proxy), ssl=tls.client, open_timeout=5)
        assert not isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5h"])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_giving_up_leaves_nothing(scheme, how, raw_server):
    asked, left = asyncio.Event(), asyncio.Event()

    async def play(peer):
        await peer.reader.read(1)
        asked.set()
        try:
            await peer.rest()
        finally:
            left.set()

    async with raw_server(play, handshake=False) as proxy:
        # (So long that a busy machine gets to the proxy.)
        options = {"open_timeout": 1.0 if how == "timeout" else None}
        if scheme == "https":  # making the default context may take that long
            options["proxy_ssl"] = ssl.create_default_context()
        connecting = connect(f"ws://{HOST}:9", proxy=at(proxy, scheme), **options)
        task = asyncio.create_task(connecting._connect())
        await asyncio.wait_for(asked.wait(), 5)
        if how == "cancel":
            task.cancel()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else TimeoutError):
            await task
        await asyncio.wait_for(left.wait(), 5)


async def test_the_proxy_leaves_during_tls(raw_server, tls):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(ESTABLISHED)
        await peer.reader.read(1)
        peer.reset()

    async with raw_server(play, handshake=False) as proxy:
        error = await failed(at(proxy), "wss://localhost", ssl=tls.client)
        assert isinstance(error, ConnectionError)
        assert str(error)


@pytest.mark.parametrize("said", [b"", b"some"])
@pytest.mark.parametrize("scheme", ["http", "socks4a", "socks5h"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_proxy_leaves_without_an_answer(scheme, how, said, raw_server):
    """As a server that does so: it may be about to start again."""
    if said:
        said = {"http": b"HTTP/1.1 2", "socks4a": b"\0", "socks5h": b"\x05"}[scheme]

    async def play(peer):
        await peer.reader.read(100)
        await peer.send(said)
        if how == "reset":
            peer.reset()

    async with raw_server(play, handshake=False) as proxy:
        assert may_pass(await failed(at(proxy, scheme)))


async def test_a_reason_that_a_terminal_might_obey(raw_server):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 502 \x9b31mBad\x1b[0m\r\nContent-Length: 0\r\n\r\n")
        await peer.rest()

    async with raw_server(play, handshake=False) as proxy:
        error = await failed(at(proxy))
        assert str(error).endswith("refused: HTTP 502")
        assert error.response.reason == "\x9b31mBad\x1b[0m"


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5h"])
async def test_nobody_listens(scheme, raw_server):
    async with raw_server(print) as proxy:
        address = at(proxy, scheme)
    error = await failed(address, f"ws://{HOST}", all_errors=True)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert address.partition("//")[2] in str(error)
    assert (error.status, error.response) == (None, None)


async def test_https_without_tls(raw_server):
    async def play(peer):
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.rest()

    async with raw_server(play, handshake=False) as proxy:
        error = await failed(at(proxy, "https"))
        assert isinstance(error.__cause__, ssl.SSLError)
        assert not may_pass(error)


# SOCKS --------------------------------------------------------------------------------------


async def test_socks4a(raw_server):
    """What is sent, to the byte. (tests/proxies has a real server.)"""
    requests = []

    async def play(peer):
        request = await peer.reader.readexactly(8)
        for _ in range(2):
            request += await peer.reader.readuntil(b"\0")
        requests.append(request)
        await peer.send(b"\0\x5a")
        await peer.send(b"\0" * 6)
        await relay(peer, *server.sockets[0].getsockname())

    async with serve(echo, HOST, 0) as server, raw_server(play, handshake=False) as proxy:
        address = at(proxy, "socks4a").replace("//", "//me@")
        async with connect("ws://server.example:81", proxy=address) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
    assert requests == [b"\x04\x01\x00\x51\0\0\0\1me\0server.example\0"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", None),
        (b"\x05", None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
        (b"\x05\x02", None),  # it wants a password that we do not have
        (b"\x05\xff", None),
        (b"\x05\x00\x05\x01\x00\x01" + b"\0" * 6, 1),
        (b"\x05\x00\x05\x02\x00\x01" + b"\0" * 6, 2),
        (b"\x05\x00\x05\x00\x00\x07" + b"\0" * 6, None),
    ],
)
async def test_a_wrong_answer_of_socks(answer, status, raw_server):
    async def play(peer):
        await peer.reader.read(100)
        await peer.send(answer)

    async with raw_server(play, handshake=False) as proxy:
        error = await failed(at(proxy, "socks5h"))
        assert (error.status, error.response) == (status, None)


def socks_proxy(*answers):
    """Play a proxy that gives these answers, one to each connection, and notes the addresses."""
    left, asked = list(answers), []

    async def play(peer):
        version = (await peer.reader.readexactly(2))[:1]
        if version == b"\x04":
            request = await peer.reader.readexactly(7)
            asked.append(socket.inet_ntop(socket.AF_INET, request[2:6]))
            answer = bytes([0, left.pop(0)])
        else:
            await peer.reader.readexactly(1)
            await peer.send(b"\x05\x00")
            *_, kind = await peer.reader.readexactly(4)
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            asked.append(socket.inet_ntop(family, await peer.reader.readexactly(size)))
            await peer.reader.readexactly(2)
            answer = bytes([5, left.pop(0), 0, 1])
        await peer.send(answer + bytes(6))
        await upgraded(peer)

    async def upgraded(peer):
        with suppress(EOFError):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
            lines = ("Upgrade: websocket", "Connection: Upgrade")
            accept = f"Sec-WebSocket-Accept: {accept_key(key)}"
            response = "\r\n".join(("HTTP/1.1 101 Yes", *lines, accept, "", ""))
            await peer.send(response.encode() + b"\x88\0")
            await peer.close_frame()

    return play, asked


V4 = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{n}", 80)) for n in (1, 2, 3)]
V6 = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0))]


@pytest.mark.parametrize(
    ("scheme", "answers", "tried", "status"),
    [
        ("socks4", [91, 91, 90], ["192.0.2.1", "192.0.2.2", "192.0.2.3"], 0),
        ("socks4", [91, 92, 91], ["192.0.2.1", "192.0.2.2", "192.0.2.3"], 91),
        ("socks5", [8, 4, 0], ["2001:db8::1", "192.0.2.1", "192.0.2.2"], 0),
        ("socks5", [0], ["2001:db8::1"], 0),
        ("socks5", [8, 8, 5, 4], ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"], 5),
        ("socks5", [8] * 4, ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"], 8),
        # What is no answer about an address ends it.
        ("socks5", [4, 99], ["2001:db8::1", "192.0.2.1"], 4),
    ],
)
async def test_all_addresses_are_tried(scheme, answers, tried, status, raw_server, names):
    play, asked = socks_proxy(*answers)
    names({"h.example": V6 + V4})
    async with raw_server(play, handshake=False) as proxy:
        if status:
            error = await failed(at(proxy, scheme), "ws://h.example")
            assert error.status == status
            assert all(f"{address}: " in str(error) for address in tried)
        else:
            async with connect("ws://h.example", proxy=at(proxy, scheme)):
                pass
    assert asked == tried


async def test_a_name_without_addresses(raw_server, names):
    names({"h.example": V6})
    async with raw_server(print, handshake=False) as proxy:
        error = await failed(at(proxy, "socks4"), "ws://h.example")
    assert "no address" in str(error)


async def test_python_socks_is_missing(monkeypatch, raw_server):
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)
    for scheme in ("socks4", "socks5h"):
        with pytest.raises(ProxyError, match=r"fastws-codec\[proxy\]"):
            connect("ws://server.example", proxy=f"{scheme}://{HOST}")
    # If the environment names it, there is no direct connection either.
    monkeypatch.setenv("all_proxy", f"socks5://{HOST}")
    with pytest.raises(ProxyError, match=r"fastws-codec\[proxy\]"):
        await connect("ws://server.example")


# Which proxy --------------------------------------------------------------------------------


async def test_the_proxy_of_the_environment(monkeypatch, raw_server, url):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(ESTABLISHED)
        await relay(peer, *server.sockets[0].getsockname())

    async with serve(echo, HOST, 0) as server, raw_server(play, handshake=False) as proxy:
        monkeypatch.setenv("ws_proxy", at(proxy))
        async with connect("ws://server.invalid/") as ws:
            assert ws.remote_address == proxy.sockets[0].getsockname()
        # Where the caller says how to connect, there is none.
        for options in ({}, {"host": HOST, "port": 1, "proxy": None}):
            uri = url(server) if not options else "ws://server.invalid/"
            if options:
                options["port"] = server.sockets[0].getsockname()[1]
            async with connect(uri, **options) as ws:
                assert ws.remote_address == server.sockets[0].getsockname()
        monkeypatch.setenv("ws_proxy", "ftp://x")
        with pytest.raises(fastws.InvalidURIError, match="scheme"):
            await connect("ws://server.invalid/")


def test_arguments_that_do_not_fit():
    optional("python_socks")
    context = ssl.create_default_context()
    for options in (
        {"proxy": "http://x", "path": "/x"},
        {"proxy": "http://x", "proxy_ssl": context},
        {"proxy": "socks5://x", "proxy_ssl": context},
        {"proxy": None, "proxy_ssl": context},
    ):
        with pytest.raises(ValueError, match=r"proxy(_ssl)? (cannot|needs)"):
            connect("ws://server.example", **options)
    connect("ws://server.example", proxy="https://x", proxy_ssl=context)
    with pytest.raises(fastws.InvalidURIError):
        connect("ws://server.example", proxy="ftp://x")
