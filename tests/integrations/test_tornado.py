"""tornado with fastws: it does the same as without, to the last byte."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado import httpserver, iostream, netutil, web, websocket

from fastws import codec, integrations
from fastws.integrations import tornado

from ..tools import TIMEOUT, Echo
from .comparing import outcome
from .serving import BODY, CLOSE, FIN, TALKS, TEXT, Talk, converse, frame, serving

KEY = b"\x12\x34\x56\x78"
C = codec.implementation == "c"


@pytest.fixture
def installed():
    with tornado.install() as installation:
        yield installation


def test_installs_and_uninstalls() -> None:
    protocol = websocket.WebSocketProtocol13
    stock = websocket._websocket_mask, protocol._read_bytes
    with tornado.install() as installation:
        assert integrations.installed() == ["tornado"]
        assert tornado.install() is installation
        assert protocol._read_bytes is not stock[1]
        # The pure-Python twin does not replace tornado's own extension.
        compiled = stock[0].__module__ != "tornado.util"
        assert (websocket._websocket_mask is stock[0]) is (not C and compiled)
    assert (websocket._websocket_mask, protocol._read_bytes) == stock


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_masks_alike(key: bytes, data: bytes) -> None:
    theirs = websocket._websocket_mask(key, data)
    with tornado.install():
        ours = websocket._websocket_mask(key, data)
    assert ours == theirs
    assert type(ours) is bytes


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (b"", b"text"),
        (b"abc", b"text"),
        (b"abcde", b""),
        ("abcd", b"text"),
        (KEY, "text"),
        (KEY, bytearray(b"text")),
        (KEY, memoryview(b"text")),
        (KEY, None),
        (None, b"text"),
        (bytearray(KEY), b"text"),
    ],
)
def test_masks_alike_what_is_odd(key: object, data: object) -> None:
    theirs = outcome(websocket._websocket_mask, key, data)
    with tornado.install():
        assert outcome(websocket._websocket_mask, key, data) == theirs


# Servers, as processes ------------------------------------------------------------------


@pytest.fixture(scope="module", params=["1", "0"], ids=["extension", "pure"])
def servers(request):
    """The ports of an unmodified server, and of one with fastws."""
    env = {"TORNADO_EXTENSION": request.param}
    with (
        serving("tornado", env=env) as stock,
        serving("tornado", "tornado", env=env) as ours,
    ):
        yield stock, ours


@pytest.mark.parametrize("path", ["/", "/slow", "/deflate"])
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
def test_talks_alike(servers, talk: Talk, path: str) -> None:
    stock, ours = servers
    assert converse(ours, talk, path) == converse(stock, talk, path)


def test_echoes(servers) -> None:
    _, ours = servers
    _, received = converse(ours, Talk("echo", [frame(FIN | TEXT, BODY)], 1))
    assert received == [(FIN | TEXT, BODY), (FIN | CLOSE, b"\x03\xe8")]


# In this process -------------------------------------------------------------------------


def serve(handler: type[websocket.WebSocketHandler]) -> tuple[httpserver.HTTPServer, int]:
    server = web.Application([("/", handler)]).listen(0, "127.0.0.1")
    (sock,) = server._sockets.values()
    return server, sock.getsockname()[1]


@pytest.mark.parametrize("cut", [None, 1, 2, 7])
def test_tells_that_the_peer_is_gone_while_a_message_is_handled(installed, cut: int) -> None:
    async def main() -> None:
        gone = asyncio.Event()
        began = asyncio.Event()

        class Waits(websocket.WebSocketHandler):
            async def on_message(self, message: str) -> None:
                began.set()
                await gone.wait()

            def open(self) -> None:
                self.ws_connection.stream.set_close_callback(gone.set)

        server, port = serve(Waits)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        writer.write(request.encode())
        await reader.readuntil(b"\r\n\r\n")
        message = frame(FIN | TEXT, b"hello")
        if cut:
            writer.write(message[:cut])
            for _ in range(3):
                await asyncio.sleep(0)  # turns of the loop: the server reads it
        writer.write(message[cut or 0 :])
        await asyncio.wait_for(began.wait(), TIMEOUT)
        writer.close()
        await asyncio.wait_for(gone.wait(), TIMEOUT)
        server.stop()
        await server.close_all_connections()

    asyncio.run(main())


def test_connections_survive_installing_and_uninstalling() -> None:
    async def main(url: str) -> None:
        client = await websocket.websocket_connect(url)
        handle = None
        for number in range(6):
            # All at once, so that part of the data is already buffered at each change.
            for name in "abc":
                await client.write_message(f"{name} {number} " + "x" * 30_000)
            for name in "abc":
                if name == "b":
                    handle = handle.uninstall() if handle else tornado.install()
                message = await asyncio.wait_for(client.read_message(), TIMEOUT)
                assert message == f"{name} {number} " + "x" * 30_000
        client.close()
        assert await asyncio.wait_for(client.read_message(), TIMEOUT) is None

    with Echo("--host", "127.0.0.1") as echo:
        asyncio.run(main(echo.url))


@pytest.mark.parametrize("compression", [None, {}])
def test_client(installed, compression: dict[str, int] | None) -> None:
    async def main(url: str) -> None:
        client = await websocket.websocket_connect(url, compression_options=compression)
        for size in (0, 1, 125, 126, 65_535, 65_536, 300_000):
            text = ("ä€😀x" * (size // 4 + 1))[:size]
            data = os.urandom(size)
            await client.write_message(text)
            await client.write_message(data, binary=True)
            assert await asyncio.wait_for(client.read_message(), TIMEOUT) == text
            received = await asyncio.wait_for(client.read_message(), TIMEOUT)
            assert received == data
            assert type(received) is bytes
        client.close(1000, "bye")
        assert await asyncio.wait_for(client.read_message(), TIMEOUT) is None
        assert client.close_code == 1000

    with Echo("--host", "127.0.0.1") as echo:
        asyncio.run(main(echo.url))


def test_the_size_of_the_buffer_is_limited_as_before() -> None:
    """max_buffer_size limits the stream, and applies before the limit of the message."""

    async def main() -> object:
        class Quiet(websocket.WebSocketHandler):
            pass

        app = web.Application([("/", Quiet)])
        server = httpserver.HTTPServer(app, max_buffer_size=1000)
        (sock,) = netutil.bind_sockets(0, "127.0.0.1")
        server.add_socket(sock)
        port = sock.getsockname()[1]
        client = await websocket.websocket_connect(f"ws://127.0.0.1:{port}/")
        await client.write_message("x" * 2000)
        assert await asyncio.wait_for(client.read_message(), TIMEOUT) is None
        client.close()
        server.stop()
        await server.close_all_connections()
        return client.close_code

    theirs = asyncio.run(main())
    with tornado.install():
        assert asyncio.run(main()) == theirs


def test_refuses_a_stream_that_is_built_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = websocket.WebSocketProtocol13._read_bytes
    monkeypatch.delattr(iostream.BaseIOStream, "_consume")
    with pytest.raises(integrations.IntegrationError, match="_consume"):
        tornado.install()
    assert websocket.WebSocketProtocol13._read_bytes is stock
