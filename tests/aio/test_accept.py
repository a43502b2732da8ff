"""What `process_request` sees of a client, and what it says when it accepts: fields for this one
response, a context for the connection, a subprotocol. And pongs that answer no ping."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from fastws import (
    Accept,
    ConnectionClosed,
    Peer,
    RequestError,
    ResponseError,
    WebSocketProtocol,
    connect,
    serve,
)

from ..tools import optional
from ..wire import upgrade_request


class Reporter(WebSocketProtocol):
    """Says what its context is."""

    def on_open(self):
        self.send(repr(self.context))


async def report(ws):
    await ws.send(repr(ws.context))


@pytest.fixture(params=[report, Reporter], ids=["coroutine", "callback"])
def reporting(request):
    return request.param


@pytest.fixture(params=["at once", "later"])
def deferred(request):
    """Make a process_request answer at once, or later."""

    def make(function):
        async def later(http_request):
            await asyncio.sleep(0)
            return function(http_request)

        return function if request.param == "at once" else later

    return make


# What goes back --------------------------------------------------------------------------------


async def test_an_accept_adds_fields_to_this_response_and_a_context(reporting, raw, url, deferred):
    def process_request(request):
        if request.path == "/plain":
            return None
        cookies = [("Set-Cookie", "a=1; HttpOnly"), ("Set-Cookie", "b=2"), ("X-Kind", "own")]
        return Accept(cookies, context=request.path)

    options = {"process_request": deferred(process_request), "headers": {"X-Kind": "all"}}
    async with serve(reporting, "127.0.0.1", 0, **options) as server:
        async with connect(url(server, "/user")) as ws:
            assert ws.response.headers.get_all("Set-Cookie") == ["a=1; HttpOnly", "b=2"]
            assert ws.response.headers.get_all("X-Kind") == ["own"]
            assert await ws.recv() == "'/user'"
            assert ws.context is None  # of the client
            ws.context = "mine"
            assert ws.context == "mine"
        async with connect(url(server, "/plain")) as ws:
            assert "Set-Cookie" not in ws.response.headers
            assert ws.response.headers["X-Kind"] == "all"
            assert await ws.recv() == "None"


async def test_an_accept_may_choose_the_subprotocol(reporting, url, deferred):
    def process_request(request):
        return Accept(subprotocol=request.query or None)

    options = {"process_request": deferred(process_request), "subprotocols": ["a", "b"]}
    async with serve(reporting, "127.0.0.1", 0, **options) as server:
        for query, chosen in [("", "a"), ("b", "b"), ("other", "other")]:
            async with connect(url(server, f"/?{query}"), subprotocols=["other", "b", "a"]) as ws:
                assert ws.subprotocol == chosen
        with pytest.raises(ResponseError) as raised:
            await connect(url(server, "/?c"), subprotocols=["a"])
        assert raised.value.status == 400
        assert raised.value.response.body == b"the client does not offer the subprotocol c\n"


async def test_an_accept_opens_nothing_that_is_no_handshake(reporting, raw, url):
    def process_request(request):
        return Accept(context="never seen")

    options = {"process_request": process_request, "origins": ["https://example.com"]}
    async with serve(reporting, "127.0.0.1", 0, **options) as server:
        async with raw(server, handshake=False) as peer:
            status, _ = await peer.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status == 426
        with pytest.raises(ResponseError, match="403"):
            await connect(url(server), origin="https://evil.example")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"headers": {"Sec-WebSocket-Protocol": "a"}}, "is set by the handshake itself"),
        ({"headers": {"connection": "close"}}, "is set by the handshake itself"),
        ({"headers": {"Keep-Alive": "timeout=5"}}, "one hop only"),
        ({"headers": {"X": "a\r\nb"}}, "invalid value of header field X"),
        ({"subprotocol": "a b"}, "subprotocol must be a token"),
        ({"subprotocol": ""}, "subprotocol must be a token"),
    ],
)
async def test_an_accept_that_cannot_be_sent_is_a_mistake(reporting, raw, caplog, arguments, error):
    with pytest.raises(ValueError, match=error):
        Accept(**arguments)
    options = {"process_request": lambda _: Accept(**arguments)}
    async with (
        serve(reporting, "127.0.0.1", 0, **options) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request())[0] == 500
    assert error in caplog.text


# What comes in -----------------------------------------------------------------------------------


async def test_process_request_sees_where_a_request_comes_from(echo, raw, deferred):
    seen = []

    def process_request(request):
        seen.append(request.peer)

    options = {"process_request": deferred(process_request)}
    async with (
        serve(echo, "127.0.0.1", 0, **options) as server,
        raw(server) as peer,
    ):
        address = peer.writer.get_extra_info("sockname")
        assert seen == [Peer(address, server.sockets[0].getsockname())]


async def test_a_request_keeps_what_process_request_saw(url):
    async def handler(ws):
        await ws.send(repr(ws.request.peer and ws.request.peer.address == ws.remote_address))

    for process_request, shown in [(None, "None"), (lambda _: None, "True")]:
        options = {"process_request": process_request}
        async with (
            serve(handler, "127.0.0.1", 0, **options) as server,
            connect(url(server)) as ws,
        ):
            assert await ws.recv() == shown


@pytest.fixture(scope="module")
def mutual():
    """TLS contexts of a server that wants to see a certificate, and of a client that has one."""
    authority = optional("trustme").CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.create_default_context()
    authority.configure_trust(client)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    authority.issue_cert("alice@example.com", common_name="alice").configure_cert(known)
    return server, client, known


def callback_of(context):
    """The callback for server names. (PyPy wraps it.)"""
    return getattr(context.sni_callback, "callback", context.sni_callback)


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_process_request_sees_the_facts_of_tls(echo, mutual, deferred, url, request):
    server_context, stranger, known = mutual
    names, seen = [], []
    is_aiofastnet = request.node.callspec.params["runner"] == "aiofastnet"
    # (With aiofastnet, any callback would crash.)
    callback = None if is_aiofastnet else lambda _, name, context: names.append(name)
    server_context.sni_callback = callback

    def process_request(http_request):
        seen.append(http_request.peer.tls)

    options = {"process_request": deferred(process_request), "ssl": server_context}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        uri = url(server, secure=True)
        for context, name in [(stranger, "localhost"), (known, "127.0.0.1")]:
            async with connect(uri, ssl=context, server_hostname=name):
                pass
        # Another server with the same context does not get in the way.
        async with (
            serve(echo, "127.0.0.1", 0, **options) as another,
            connect(url(another, secure=True), ssl=stranger, server_hostname="localhost"),
        ):
            pass
        async with connect(uri, ssl=stranger, server_hostname="localhost"):
            pass
    first, second, *others = seen
    assert first.server_name == (None if is_aiofastnet else "localhost")
    assert (first.version, first.certificate) == ("TLSv1.3", None)
    assert first.cipher.startswith("TLS_")
    assert second.server_name is None  # §3 of RFC 6066: an address is not a name
    assert (("commonName", "alice"),) in second.certificate["subject"]
    assert others == [first, first]
    # The callback that was there is called as well, and stays.
    assert names == ([] if is_aiofastnet else ["localhost", None, "localhost", "localhost"])
    assert callback_of(server_context) is callback


async def test_servers_that_share_a_context_may_stop_in_any_order(echo, mutual, url):
    server_context, client, _ = mutual
    callback = callback_of(server_context)
    names = []
    options = {
        "process_request": lambda request: names.append(request.peer.tls.server_name),
        "ssl": server_context,
    }
    first = await serve(echo, "127.0.0.1", 0, **options)
    async with serve(echo, "127.0.0.1", 0, **options) as second:
        await first.close()
        uri = url(second, secure=True)
        async with connect(uri, ssl=client, server_hostname="localhost"):
            pass
    assert names == ["localhost"]
    assert callback_of(server_context) is callback


async def test_a_context_is_left_alone_if_nobody_asks(echo):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    async with serve(echo, "127.0.0.1", 0, ssl=context):
        assert context.sni_callback is None


async def test_a_unix_socket_has_no_address_of_the_client(echo, tmp_path, raw):
    seen = []
    path = str(tmp_path / "socket")
    options = {"process_request": lambda request: seen.append(request.peer)}
    async with serve(echo, path=path, **options) as server, raw(server):
        (peer,) = seen
        assert not peer.address
        assert peer.local_address == path


async def test_a_refusal_may_depend_on_the_address(echo, raw, until):
    def process_request(request):
        if request.peer.address[0] == "127.0.0.1":
            raise RequestError("go away", 403)

    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(upgrade_request()))[0] == 403


# Pongs that answer no ping -----------------------------------------------------------------------


class Ponging(WebSocketProtocol):
    def on_open(self):
        self.pong(b"sign of life")
        self.pong()
        with pytest.raises(ValueError, match="125"):
            self.pong(bytes(126))
        with pytest.raises(TypeError):
            self.pong("text")
        self.send("next")

    def on_close(self, code, reason):
        with pytest.raises(ConnectionClosed):
            self.pong()


async def ponging(ws):
    await ws.pong(b"sign of life")
    await ws.pong()
    with pytest.raises(ValueError, match="125"):
        await ws.pong(bytes(126))
    with pytest.raises(TypeError):
        await ws.pong("text")
    await ws.send("next")
    await ws.wait_closed()
    with pytest.raises(ConnectionClosed):
        await ws.pong()


@pytest.mark.parametrize("handler", [ponging, Ponging])
async def test_a_pong_that_answers_no_ping(handler, raw, frame):
    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        assert await peer.frame() == (0x8A, b"sign of life")
        assert await peer.frame() == (0x8A, b"")
        assert await peer.frame() == (0x81, b"next")
        await peer.send(frame(8))


async def test_a_pong_waits_for_a_slow_peer(pair):
    options = {"write_limit": 1, "max_unsent_size": 1 << 16, "ping_interval": None}
    async with pair({"max_message_size": None}, options) as (ws, theirs):
        ws._transport.pause_reading()
        held = asyncio.ensure_future(theirs.send(bytes(8 << 20)))
        await asyncio.sleep(0.05)
        before = theirs.stats.bytes_sent
        waiting = [asyncio.ensure_future(theirs.pong(bytes(100))) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        assert theirs.stats.bytes_sent == before
        ws._transport.resume_reading()
        await ws.recv()
        await asyncio.gather(held, *waiting)


def test_no_pong_is_sent_before_there_is_a_connection():
    with pytest.raises(ConnectionClosed):
        WebSocketProtocol().pong()
