"""aiohttp with fastws: its client writes the same as without."""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import ClientConnectionResetError, client, web_ws
from aiohttp._websocket import writer
from aiohttp.compression_utils import ZLibBackend
from hypothesis import given
from hypothesis import strategies as st

from fastws import codec, integrations
from fastws.integrations import aiohttp as integration

from ..tools import TIMEOUT, Echo
from .serving import TALKS, Talk, converse, serving

C = codec.implementation == "c"
STOCK = writer.WebSocketWriter._write_websocket_frame


@pytest.fixture
def installed():
    with integration.install() as installation:
        yield installation


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing


def write(message, opcode: int, rsv: int, masked: bool = True):
    """Write one frame with a writer; return what it did."""

    async def main():
        transport = Transport()
        protocol = SimpleNamespace(_paused=False)
        writer = client.WebSocketWriter(
            protocol, transport, use_mask=masked, random=random.Random(1)
        )
        try:
            writer._write_websocket_frame(message, opcode, rsv)
        except Exception as exc:
            return type(exc), str(exc)
        return b"".join(transport.written), writer._output_size

    return asyncio.run(main())


def test_installs_and_uninstalls() -> None:
    stock = client.WebSocketWriter
    with integration.install() as installation:
        assert integrations.installed() == ["aiohttp"]
        assert integration.install() is installation
        assert (client.WebSocketWriter is not stock) is C
        assert ZLibBackend._zlib_backend is zlib
    assert client.WebSocketWriter is stock


def test_leaves_servers_alone(installed) -> None:
    assert web_ws.WebSocketWriter is writer.WebSocketWriter
    assert "_write_websocket_frame" in vars(writer.WebSocketWriter)
    assert writer.WebSocketWriter._write_websocket_frame is STOCK


@pytest.mark.parametrize(
    ("name", "module"), [("zlib-ng", "zlib_ng.zlib_ng"), ("isal", "isal.isal_zlib")]
)
def test_changes_the_zlib_backend_if_asked_to(name: str, module: str) -> None:
    with integration.install(zlib_backend=name):
        assert ZLibBackend._zlib_backend.__name__ == module
        assert ZLibBackend.name == module
    assert ZLibBackend._zlib_backend is zlib
    with pytest.raises(ValueError, match="zlib_backend must be one of zlib, zlib-ng, isal"):
        integration.install(zlib_backend="brotli")


@given(
    st.sampled_from([bytes, bytearray, memoryview]),
    st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes)),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10]),
    st.sampled_from([0, 0x40, 0x20, 0x70]),
    st.booleans(),
)
def test_writes_alike(kind: type, data: bytes, opcode: int, rsv: int, masked: bool) -> None:
    theirs = write(kind(data), opcode, rsv, masked)
    with integration.install():
        assert write(kind(data), opcode, rsv, masked) == theirs


@pytest.mark.parametrize("message", [None, "text", 7])
def test_refuses_alike(message: object) -> None:
    theirs = write(message, 1, 0)
    with integration.install():
        assert write(message, 1, 0) == theirs


def test_does_not_write_to_a_closing_transport(installed) -> None:
    async def main() -> None:
        transport = Transport()
        transport.closing = True
        protocol = SimpleNamespace(_paused=False)
        writer = client.WebSocketWriter(protocol, transport, use_mask=True)
        with pytest.raises(ClientConnectionResetError, match="Cannot write to closing transport"):
            await writer.send_frame(b"text", aiohttp.WSMsgType.TEXT)
        assert transport.written == []

    asyncio.run(main())


async def talk(url: str, compress: int) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, compress=compress, max_msg_size=0) as ws,
    ):
        for size in (0, 1, 125, 126, 20_000, 65_535, 65_536, 300_000):
            text = ("ä€😀x" * (size // 4 + 1))[:size]
            data = os.urandom(size)
            await ws.send_str(text)
            await ws.send_bytes(data)
            await ws.send_bytes(bytearray(data))
            await ws.send_bytes(memoryview(data))
            assert await ws.receive_str(timeout=TIMEOUT) == text
            for _ in range(3):
                assert await ws.receive_bytes(timeout=TIMEOUT) == data
        await ws.ping(b"there?")
        await ws.close(code=4000, message=b"bye")
        assert ws.close_code == 4000


@pytest.mark.parametrize("compress", [0, 15])
@pytest.mark.parametrize("backend", [None, "zlib-ng", "isal"])
def test_client(compress: int, backend: str | None) -> None:
    with Echo("--host", "127.0.0.1") as echo, integration.install(zlib_backend=backend):
        asyncio.run(talk(echo.url, compress))


@pytest.fixture(scope="module")
def servers():
    """The ports of an unmodified server, and of one with fastws."""
    with serving("aiohttp") as stock, serving("aiohttp", "aiohttp") as ours:
        yield stock, ours


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
def test_server_talks_alike(servers, talk: Talk) -> None:
    stock, ours = servers
    assert converse(ours, talk) == converse(stock, talk)
