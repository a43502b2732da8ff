"""Data queued for a slow peer is limited: `send` waits, or the peer is dropped."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from typing import Any

import pytest

import fastws

# aiofastnet has transports of its own.
pytestmark = pytest.mark.loops("asyncio", "uvloop", "aiofastnet")


async def deaf_client(port: int) -> socket.socket:
    """Do the handshake, and then read nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    handshake = fastws.ClientHandshake(f"ws://127.0.0.1:{port}")
    await loop.sock_sendall(sock, handshake.request())
    while handshake.receive_data(await loop.sock_recv(sock, 1)) is None:
        pass
    return sock


def flood_of(
    size: int, closed: asyncio.Future[tuple[int, str, int]]
) -> type[fastws.WebSocketProtocol]:
    """A protocol that sends ten messages of `size` bytes per turn until it is closed."""

    class Flood(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            self.sent = 0
            asyncio.get_running_loop().call_soon(self.more)

        def more(self) -> None:
            try:
                for _ in range(10):
                    self.send(bytes(size))
                    self.sent += size
            except fastws.ConnectionClosed:
                return
            asyncio.get_running_loop().call_soon(self.more)

        def on_close(self, code: int, reason: str) -> None:
            closed.set_result((code, reason, self.sent))

    return Flood


async def test_a_peer_that_takes_nothing_is_dropped_at_the_limit() -> None:
    closed: asyncio.Future[tuple[int, str, int]] = asyncio.get_running_loop().create_future()
    flood = flood_of(10_000, closed)

    limits = {"write_limit": 50_000, "max_unsent_size": 500_000}
    async with fastws.serve(flood, "127.0.0.1", 0, ping_interval=None, **limits) as server:
        client = await deaf_client(server.sockets[0].getsockname()[1])
        code, reason, sent = await closed
        client.close()
    assert (code, reason) == (1008, "more than 500000 bytes unsent")
    # The buffers of the sockets hold more.
    assert 500_000 < sent < 20_000_000


async def test_send_waits_from_the_write_limit_on_and_nobody_is_dropped(settled: Any) -> None:
    sizes = []

    async def flood(ws: fastws.WebSocket) -> None:
        while True:
            await ws.send(bytes(10_000))
            sizes.append(ws._transport.get_write_buffer_size())

    limits = {"write_limit": 30_000, "max_unsent_size": 200_000}
    async with fastws.serve(
        flood, "127.0.0.1", 0, close_timeout=0.2, shutdown_timeout=0.2, **limits
    ) as server:
        client = await deaf_client(server.sockets[0].getsockname()[1])
        assert await settled(lambda: len(sizes), quiet=0.2)
        (ws,) = server.connections
        assert ws.state is fastws.State.OPEN
        assert max(sizes) < 150_000
        client.close()


async def test_a_server_that_pings_and_never_reads_does_not_fill_its_client(
    raw_server: Any, url: Any, frame: Any
) -> None:
    """A client goes on reading, and only has to answer the last ping (RFC 6455 §5.5.3)."""
    most = 0
    loop = asyncio.get_running_loop()
    client, pongs = loop.create_future(), loop.create_future()

    async def play(peer: Any) -> None:
        nonlocal most
        ws = await client
        # We cannot limit what the sockets hold, so make their buffers small.
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ws.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        pings = frame(9, bytes(125), key=b"") * 100
        for _ in range(200):
            await peer.send(pings)
            await asyncio.sleep(0)  # drain() need not let the client run
            most = max(most, ws._transport.get_write_buffer_size())
        await peer.send(frame(9, b"last", key=b""))
        decoder = fastws.FrameDecoder(masked=True)
        frames: list[fastws.Frame] = []
        while not frames or frames[-1].payload != b"last":
            frames += decoder.feed(await peer.reader.read(65536))
        pongs.set_result(len(frames))
        await peer.close_frame()

    async with (
        raw_server(play) as server,
        fastws.connect(url(server), write_limit=10_000, ping_interval=None) as ws,
    ):
        client.set_result(ws)
        assert 100 < await pongs < 15_000
        await ws.close()
    # The limit, and the pongs to one read of pings.
    assert 10_000 < most < 400_000


@pytest.mark.parametrize(
    "limits",
    [{"write_limit": -1}, {"max_unsent_size": 10}, {"write_limit": 9, "max_unsent_size": 8}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        fastws.serve(fastws.WebSocketProtocol, "127.0.0.1", 0, **limits)
    with pytest.raises(ValueError, match="must be at least"):
        fastws.connect("ws://127.0.0.1", **limits)


@pytest.mark.parametrize("size", [100, 100_000])
async def test_who_only_sends_comes_to_know_that_the_peer_is_gone(size: int) -> None:
    """After an error, a transport accepts all that is written, and drops it."""
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    begun, reset = threading.Event(), threading.Event()

    async def flood(ws: fastws.WebSocket) -> None:
        await ws.recv()
        begun.set()
        # The loop must not notice before the next write does.
        assert reset.wait(10)
        message = "x" * size
        try:
            for _ in range(200_000):
                await ws.send(message)
        except fastws.ConnectionClosed as exc:
            ended.set_result(exc)
        else:
            ended.set_result(None)

    async with fastws.serve(flood, "127.0.0.1", 0) as server:
        client = await deaf_client(server.sockets[0].getsockname()[1])
        frame = fastws.encode_frame(fastws.Opcode.TEXT, b"go", key=b"mask")

        def talk() -> None:
            client.setblocking(True)
            client.sendall(frame)
            assert begun.wait(10)
            # Send nothing on purpose: the peer's next write fails.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            reset.set()

        await asyncio.to_thread(talk)
        assert isinstance(await ended, fastws.ConnectionClosed)


async def test_what_hooks_send_to_a_server_that_never_reads_is_bounded_by_default(
    raw_server: Any, url: Any
) -> None:
    closed: asyncio.Future[tuple[int, str, int]] = asyncio.get_running_loop().create_future()
    flood = flood_of(100_000, closed)

    async def play(peer: Any) -> None:
        peer.writer.transport.pause_reading()
        await closed

    async with raw_server(play) as server:
        await fastws.connect(url(server), protocol=flood)
        code, reason, sent = await closed
    assert (code, reason) == (1008, f"more than {16 << 20} bytes unsent")
    assert 16 << 20 < sent < 64 << 20


async def test_one_large_message_is_not_too_much(url: Any) -> None:
    """The limit applies to what is queued already, not to the message added to it."""
    size = 40 << 20

    class Send(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            self.send(bytes(size))
            self.send("and a small one")

    limits = {"write_limit": 1000, "max_unsent_size": size}
    async with (
        fastws.serve(Send, "127.0.0.1", 0, **limits) as server,
        fastws.connect(url(server), max_message_size=None) as ws,
    ):
        assert len(await ws.recv()) == size
        assert await ws.recv() == "and a small one"


def test_a_large_write_limit_needs_no_other() -> None:
    fastws.serve(fastws.WebSocketProtocol, "127.0.0.1", 0, write_limit=64 << 20)
    fastws.connect("ws://127.0.0.1", write_limit=64 << 20)


@pytest.mark.parametrize("how", ["hooks", "close", "fragments", "ping"])
async def test_what_ends_a_connection_or_is_small_drops_nobody(how: str) -> None:
    """One large message already exceeds the limit."""
    size = 24 << 20

    class Hooks(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            self.send(bytes(size))
            self.close(4000)

    async def handler(ws: fastws.WebSocket) -> None:
        sending = asyncio.create_task(ws.send(bytes(size)))
        await asyncio.sleep(0)
        if how == "fragments":
            await ws.send(["a", "b"])
        elif how == "ping":
            with suppress(fastws.ConnectionClosed):
                await ws.ping()
        await asyncio.gather(sending, ws.close(4000))

    serving = fastws.serve(Hooks if how == "hooks" else handler, "127.0.0.1", 0)
    async with serving as server:
        port = server.sockets[0].getsockname()[1]
        async with fastws.connect(f"ws://127.0.0.1:{port}", max_message_size=None) as ws:
            assert len(await ws.recv()) == size
            if how == "fragments":
                assert await ws.recv() == "ab"
            await ws.wait_closed()
            assert ws.close_code == 4000
