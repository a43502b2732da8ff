"""What is queued for a peer that takes it slowly is limited: `send` waits, or the peer goes."""

from __future__ import annotations

import asyncio
import socket

import pytest

import fastws


async def deaf_client(port: int) -> socket.socket:
    """Go through the handshake and then read nothing."""
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


async def test_a_peer_that_takes_nothing_is_dropped_at_the_limit() -> None:
    closed: asyncio.Future[tuple[int, str, int]] = asyncio.get_running_loop().create_future()

    class Flood(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            self.sent = 0
            asyncio.get_running_loop().call_soon(self.more)

        def more(self) -> None:
            try:
                for _ in range(10):
                    self.send(bytes(10_000))
                    self.sent += 10_000
            except fastws.ConnectionClosed:
                return
            asyncio.get_running_loop().call_soon(self.more)

        def on_close(self, code: int, reason: str) -> None:
            closed.set_result((code, reason, self.sent))

    limits = {"write_limit": 50_000, "max_unsent_size": 500_000}
    async with fastws.serve(Flood, "127.0.0.1", 0, ping_interval=None, **limits) as server:
        client = await deaf_client(server.sockets[0].getsockname()[1])
        code, reason, sent = await closed
        client.close()
    assert (code, reason) == (1008, "more than 500000 bytes unsent")
    # The sockets' own buffers took some more.
    assert 500_000 < sent < 20_000_000


async def test_send_waits_from_the_write_limit_on_and_nobody_is_dropped() -> None:
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
        count = -1
        while count != len(sizes) or not sizes:
            count = len(sizes)
            await asyncio.sleep(0.2)
        (ws,) = server.connections
        assert ws.state is fastws.State.OPEN
        assert max(sizes) < 150_000
        client.close()


@pytest.mark.parametrize(
    "limits",
    [{"write_limit": -1}, {"max_unsent_size": 10}, {"write_limit": 9, "max_unsent_size": 8}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        fastws.serve(fastws.WebSocketProtocol, "127.0.0.1", 0, **limits)
    with pytest.raises(ValueError, match="must be at least"):
        fastws.connect("ws://127.0.0.1", **limits)
