"""After closing, an application may go on receiving; `close` does not wait if it does not."""

from __future__ import annotations

import asyncio

import pytest

import fastws

# aiofastnet has transports of its own.
pytestmark = pytest.mark.loops("asyncio", "uvloop", "aiofastnet")

COUNT, SIZE = 200, 20_000


class Many(fastws.WebSocketProtocol):
    """Answer one message with many."""

    def on_message(self, message: str | bytes) -> None:
        for _ in range(COUNT):
            self.send(bytes(SIZE))


async def test_a_reader_receives_all_that_was_sent_before_the_peers_close_frame() -> None:
    async with fastws.serve(Many, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(5):
            ws = await fastws.connect(f"ws://127.0.0.1:{port}")
            await ws.send("go")
            await ws.recv()
            closing = asyncio.create_task(ws.close())
            received = 1 + len([message async for message in ws])
            await closing
            assert (received, ws.close_code) == (COUNT, 1000)


async def test_a_reader_that_takes_its_time_receives_all_of_it() -> None:
    """It is not taken for one that has stopped receiving, however long all of it takes."""
    async with fastws.serve(Many, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ws = await fastws.connect(f"ws://127.0.0.1:{port}")
        await ws.send("go")
        await ws.recv()
        closing = asyncio.create_task(ws.close())
        received = 1
        async for _ in ws:
            received += 1
            await asyncio.sleep(0.002)
        await closing
        assert (received, ws.close_code) == (COUNT, 1000)


async def test_messages_that_nobody_receives_do_not_hold_up_the_close_handshake() -> None:
    async with fastws.serve(Many, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # There is no timeout: if the server's close frame is not read, this hangs.
        ws = await fastws.connect(f"ws://127.0.0.1:{port}", close_timeout=None)
        await ws.send("go")
        await ws.recv()
        await ws.close()
        assert ws.close_code == 1000
        # Queued messages can still be received; the rest was dropped.
        received = 1 + len([message async for message in ws])
        assert 1 < received < COUNT


async def test_a_message_compressed_in_a_thread_waits_for_one_in_fragments() -> None:
    big = "compress me " * 50_000
    received: asyncio.Future[list[str | bytes]] = asyncio.get_running_loop().create_future()

    async def collect(ws: fastws.WebSocket) -> None:
        received.set_result([await ws.recv(), await ws.recv()])

    async with fastws.serve(collect, "127.0.0.1", 0, deflate=True) as server:
        port = server.sockets[0].getsockname()[1]
        async with fastws.connect(f"ws://127.0.0.1:{port}", deflate=True) as ws:
            go_on = asyncio.Event()

            async def fragments():
                yield "one"
                await go_on.wait()
                yield " message"

            sending = asyncio.create_task(ws.send(big))
            await asyncio.sleep(0)  # it is in its thread now
            fragmented = asyncio.create_task(ws.send(fragments()))
            await asyncio.sleep(0.3)
            go_on.set()
            await asyncio.gather(sending, fragmented)
            messages = await received
    assert sorted(messages, key=len) == ["one message", big]
