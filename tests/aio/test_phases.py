"""The life of a connection: each path through the table of phases, and no other.

tests/test_phases.py does the same with uvicorn's class, and compares the table with the document.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from itertools import pairwise, product

import pytest

from fastws import HandshakeError, WebSocket, WebSocketProtocol, connect, serve
from fastws.aio.endpoint import Endpoint
from fastws.aio.phases import NEXT, RECEIVING, Phase

OPENING, OPEN, CLOSING, LINGERING, LOST, CLOSED = Phase

# What the peer does, and the phases that follow OPENING.
OF_SERVERS = {
    "peer closes": (OPEN, LINGERING, CLOSED),
    "peer breaks the protocol": (OPEN, LINGERING, CLOSED),
    "peer ends its side": (OPEN, LINGERING, CLOSED),
    "peer resets": (OPEN, LOST, CLOSED),
    "peer answers our close frame": (OPEN, CLOSING, LINGERING, CLOSED),
    "peer breaks the protocol while we close": (OPEN, CLOSING, LINGERING, CLOSED),
    "peer ends its side while we close": (OPEN, CLOSING, LINGERING, CLOSED),
    "peer resets while we close": (OPEN, CLOSING, LOST, CLOSED),
    "peer is silent while we close": (OPEN, CLOSING, LOST, CLOSED),
    "peer sends no good request": (LINGERING, CLOSED),
    "peer sends no request in time": (LINGERING, CLOSED),
    "peer goes before its request": (CLOSED,),
    "peer resets before its request": (CLOSED,),
}
OF_CLIENTS = {
    "peer closes": (OPEN, LINGERING, CLOSED),
    "peer answers our close frame": (OPEN, CLOSING, LINGERING, CLOSED),
    "peer refuses": (LINGERING, CLOSED),
    "peer does not answer in time": (LINGERING, CLOSED),
    "peer goes before its response": (LINGERING, CLOSED),
    "peer resets before its response": (CLOSED,),
    "nobody listens": (CLOSED,),
}


def test_the_paths_cover_the_table() -> None:
    paths = {(OPENING, *path) for path in (*OF_SERVERS.values(), *OF_CLIENTS.values())}
    taken = {step for path in paths for step in pairwise(path)}
    assert taken == {(phase, following) for phase in NEXT for following in NEXT[phase]}


@pytest.fixture
def phases(monkeypatch):
    """Record the phases that each endpoint enters."""
    entered = {}
    enter = Endpoint._enter

    def record(endpoint, phase):
        entered.setdefault(endpoint, [endpoint._phase]).append(phase)
        enter(endpoint, phase)
        assert endpoint._phase is phase

    monkeypatch.setattr(Endpoint, "_enter", record)
    return entered


async def closer(ws):
    """Close when told to, in the coroutine style."""
    async for _ in ws:
        await ws.close()


class Closer(WebSocketProtocol):
    """The same with hooks."""

    def on_message(self, message):
        self.close()


def reset(peer):
    """End the peer's TCP connection by a reset, also if nothing is unread."""
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.reset()


@pytest.mark.parametrize("handler", [closer, Closer], ids=["coroutine", "callback"])
@pytest.mark.parametrize("name", OF_SERVERS)
async def test_a_server_takes_this_path(name, handler, phases, raw, frame, until):
    options = {}
    if "silent" in name:
        options["close_timeout"] = 0.05
    if "in time" in name:
        options["open_timeout"] = 0.05
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        async with raw(server, handshake="request" not in name) as peer:
            await until(lambda: server._endpoints)
            if "we close" in name or "our close" in name:
                await peer.send(frame(1, b"close"))
                assert await peer.close_frame() == (1000, "")
            match name.removesuffix(" while we close").removesuffix(" before its request"):
                case "peer closes" | "peer answers our close frame":
                    await peer.send(frame(8, b"\x03\xe8"))
                case "peer breaks the protocol":
                    await peer.send(frame(3))
                case "peer ends its side":
                    peer.writer.write_eof()
                case "peer sends no good request":
                    assert (await peer.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[0] == 426
                case "peer sends no request in time":
                    assert (await peer.head())[0] == 408
                case "peer goes":
                    await peer.aclose()
                case "peer resets":
                    reset(peer)
                case "peer is silent":
                    await until(lambda: not server._endpoints)
            with suppress(ConnectionError):
                await peer.rest()
        await until(lambda: not server._endpoints)
    (path,) = phases.values()
    assert tuple(path) == (OPENING, *OF_SERVERS[name])


@pytest.mark.parametrize("kind", [WebSocket, Closer], ids=["coroutine", "callback"])
@pytest.mark.parametrize("name", OF_CLIENTS)
async def test_a_client_takes_this_path(name, kind, phases, raw_server, frame):
    made = []

    def make():
        made.append(kind())
        return made[0]

    async def play(peer):
        match name:
            case "peer closes":
                await peer.send(frame(8, b"\x03\xe8", key=b""))
                await peer.close_frame()
                return
            case "peer answers our close frame":
                await peer.close_frame()
                await peer.send(frame(8, b"\x03\xe8", key=b""))
                return
            case "peer refuses":
                await peer.reader.readuntil(b"\r\n\r\n")
                await peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            case "peer does not answer in time":
                await peer.rest()
            case "peer goes before its response":
                await peer.reader.readuntil(b"\r\n\r\n")
                return
            case "peer resets before its response":
                await peer.reader.readuntil(b"\r\n\r\n")
                reset(peer)
                return
        with suppress(ConnectionError):
            await peer.rest()

    handshake = name in ("peer closes", "peer answers our close frame")
    async with raw_server(play, handshake=handshake) as server:
        port = server.sockets[0].getsockname()[1]
        if name == "nobody listens":
            server.close()
        options = {"protocol": make, "open_timeout": 1.0 if "in time" in name else 10.0}
        if handshake:
            endpoint = await connect(f"ws://127.0.0.1:{port}", **options)
            if "our close" in name:
                endpoint._begin_closing(1000, "")
            await endpoint.wait_closed()
        else:
            with pytest.raises((HandshakeError, OSError)):
                await connect(f"ws://127.0.0.1:{port}", **options)
            await asyncio.sleep(0.05)
    assert tuple(phases[made[0]]) == (OPENING, *OF_CLIENTS[name])


@pytest.mark.parametrize("kind", [WebSocket, WebSocketProtocol], ids=["coroutine", "callback"])
async def test_a_life_has_one_end(kind, phases, url):
    """An endpoint that is used again is refused without a step."""

    async def handler(ws):
        await ws.wait_closed()

    endpoint = kind()
    async with serve(handler, "127.0.0.1", 0) as server:
        await connect(url(server), protocol=lambda: endpoint)
        endpoint._begin_closing(1000, "")
        await endpoint.wait_closed()
        with pytest.raises(TimeoutError):
            await connect(url(server), protocol=lambda: endpoint, open_timeout=0.1)
    assert phases[endpoint] == [OPENING, OPEN, CLOSING, LINGERING, CLOSED]


@pytest.mark.parametrize(
    ("phase", "following"),
    [steps for steps in product(Phase, repeat=2) if steps[1] not in NEXT[steps[0]]],
    ids=lambda phase: phase.value,
)
@pytest.mark.parametrize("kind", [WebSocket, WebSocketProtocol])
def test_a_step_that_is_not_in_the_table_is_an_error(kind, phase, following):
    endpoint = kind()
    endpoint._phase = phase
    with pytest.raises(AssertionError, match=f"{phase.name}.*{following.name}"):
        endpoint._enter(following)
    assert endpoint._phase is phase


def test_a_life_begins_with_the_opening_and_always_ends():
    assert WebSocket()._phase is WebSocketProtocol()._phase is OPENING
    assert set(NEXT) == set(Phase)
    assert not NEXT[CLOSED]
    assert [phase for phase in Phase if CLOSED in NEXT[phase]] == [OPENING, LINGERING, LOST]
    # Each phase comes after the one before, so there is no circle.
    order = [OPENING, OPEN, CLOSING, LINGERING, LOST, CLOSED]
    for phase, following in NEXT.items():
        assert all(order.index(phase) < order.index(each) for each in following)
    assert {OPEN, CLOSING, LOST} == RECEIVING
