"""uvicorn's protocol class with peers and applications that misbehave."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from typing import Any

import pytest
import trustme

import fastws
from fastws.deflate import PerMessageDeflate

from ..tools import needs_uvloop, traced
from ..wire import compressed
from .test_uvicorn import ACCEPT, Client, Recorder, run, serving, until

KIB = 1 << 10
MIB = 1 << 20
ALERT: Any = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.3}


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def play(request: pytest.FixtureRequest) -> Any:
    """Run a coroutine on each of the loops."""
    if request.param == "asyncio":
        return run
    import uvloop

    return lambda main: run(main, uvloop.new_event_loop)


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    return fastws.encode_frame(opcode, payload, fin=fin, rsv1=rsv1, key=b"mask")


async def idle(receive: Any, send: Any) -> None:
    """An application that receives nothing."""
    await receive()
    await send(ACCEPT)
    await asyncio.sleep(60)


# Memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"a", "😀".encode() + b"a" * 996])
def test_a_bomb(play: Any, text: bytes) -> None:
    """Messages are inflated step by step, and other tasks get their turn in between."""
    count = 100
    unit = text or b"\x00"
    one = frame(1 if text else 2, compressed(unit * (MIB // len(unit))), rsv1=True)
    numbers: list[int] = []
    gaps: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("text") == "how many":
                await send({"type": "websocket.send", "text": str(len(numbers))})
            else:
                numbers.append(1)

    async def main() -> None:
        async with (
            serving(app) as server,
            Client(server.port, deflate=PerMessageDeflate()) as bomber,
            Client(server.port) as other,
        ):
            await bomber.open()
            await other.open()
            with traced() as memory:
                bomber.writer.write(one * count + frame(1, b"how many"))
                answer = asyncio.create_task(bomber.recv())
                while not answer.done():
                    before = len(numbers)
                    other.send("how many")
                    await other.recv()
                    gaps.append(len(numbers) - before)
                assert await answer == str(count)
                assert memory()[1] < 16 * MIB
            assert len(gaps) > count // 20
            assert max(gaps) < 20

    play(main())


def test_a_bomb_that_nobody_receives(play: Any) -> None:
    bomb = frame(2, compressed(bytes(MIB)), rsv1=True) * 200

    async def main() -> None:
        async with (
            serving(Recorder(idle)) as server,
            Client(server.port, deflate=PerMessageDeflate()) as client,
        ):
            await client.open()
            with traced() as memory:
                client.writer.write(bomb)
                await until(lambda: server.protocol._sink.messages)
                await asyncio.sleep(1)
                assert memory()[1] < 16 * MIB
            for task in server.state.tasks:
                task.cancel()
            client.writer.transport.abort()

    play(main())


def test_an_empty_message_without_payload(play: Any) -> None:
    async def main() -> None:
        app = Recorder()
        async with (
            serving(app) as server,
            Client(server.port, deflate=PerMessageDeflate()) as client,
        ):
            await client.open()
            client.writer.write(frame(1, b"", rsv1=True) + frame(1, compressed(b"a"), rsv1=True))
            assert [await client.recv(), await client.recv()] == ["", "a"]

    play(main())


# Alive ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(40, 1), (2000, 10), (30, 64 * KIB)])
def test_control_frames_are_taken_care_of_while_messages_wait(
    play: Any, count: int, size: int
) -> None:
    async def main() -> None:
        app = Recorder(act)
        async with serving(app) as server, Client(server.port) as client:
            await client.open()
            for number in range(count):
                client.send(bytes([number % 256]) * size)
            client.connection.ping(b"there?")
            client.flush()
            assert await client.recv() == fastws.Pong(b"there?")
            client.connection.close(4000)
            client.flush()
            assert await client.end() == (4000, "")
            go.set()
            await app.done.wait()
        # All that was sent before can still be received.
        assert [event["type"] for event in app.events[1:]] == [
            *["websocket.receive"] * count,
            "websocket.disconnect",
        ]

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    go = asyncio.Event()
    play(main())


@pytest.mark.parametrize(("count", "size"), [(1, 1), (100, 1), (30, 64 * KIB)])
def test_a_dead_client_is_dropped_while_messages_wait(play: Any, count: int, size: int) -> None:
    async def main() -> None:
        async with serving(Recorder(idle), **ALERT) as server, Client(server.port) as client:
            await client.open()
            for _ in range(count):
                client.send(bytes(size))
            data = b""
            while piece := await client.reader.read(65536):
                data += piece
            assert data.endswith(b"\x03\xf3keepalive ping timeout")
            for task in server.state.tasks:
                task.cancel()

    play(main())


@pytest.mark.parametrize("trickle", [b"", frame(2, b"x"), frame(9, b"x")])
def test_a_deaf_client_is_dropped_whatever_it_sends(play: Any, trickle: bytes) -> None:
    async def flood(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100 * KIB)})

    async def main() -> None:
        app = Recorder(flood)
        async with serving(app, **ALERT) as server, Client(server.port) as client:
            await client.open()
            client.writer.transport.pause_reading()
            while not app.done.is_set():
                client.writer.write(trickle)
                await asyncio.sleep(0.05)
            client.writer.transport.abort()

    play(main())


# The end ------------------------------------------------------------------------------------


def test_the_close_frame_reaches_a_client_that_sends_on(play: Any) -> None:
    """Closing a socket with unread data resets the connection."""

    async def main() -> None:
        for _ in range(20):
            app = Recorder()
            async with serving(app) as server, Client(server.port) as client:
                await client.open()
                client.connection.close(4000)
                client.flush()
                client.writer.transport.pause_reading()
                for _ in range(20):
                    client.writer.write(frame(2, bytes(10_000)))
                    await client.writer.drain()
                    await asyncio.sleep(0)
                client.writer.transport.resume_reading()
                assert await client.end() == (4000, "")

    play(main())


# The order ----------------------------------------------------------------------------------


def test_messages_leave_in_the_order_of_the_calls(play: Any) -> None:
    texts = [f"{number}" * 100_000 for number in range(9)]
    expected = [*texts, "last"]

    async def act(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        tasks = []
        for text in texts:
            event = {"type": "websocket.send", "text": text}
            tasks.append(asyncio.create_task(send(event)))
            await asyncio.sleep(0)
        await send({"type": "websocket.send", "text": "last"})
        await asyncio.gather(*tasks)
        await receive()

    async def main() -> None:
        async with serving(Recorder(act)) as server, Client(server.port) as client:
            client.writer.transport.pause_reading()
            await asyncio.sleep(0.3)
            client.writer.transport.resume_reading()
            await client.open()
            assert [await client.recv() for _ in expected] == expected
            client.connection.close()
            client.flush()
            await client.end()

    play(main())


# What is left -------------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_nothing_large_is_left_to_the_garbage_collector(play: Any, http: str) -> None:
    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)

    async def main() -> None:
        async with serving(Recorder(), tls=ours, http=http) as server:
            gc.collect()
            gc.disable()
            async with Client(server.port, tls=theirs) as client:
                await client.open()
                engine = weakref.ref(server.protocol.transport.get_extra_info("ssl_object"))
                client.connection.close()
                client.flush()
                await client.end()
            await server.wait_idle()
            await until(lambda: engine() is None)

    try:
        play(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("ends", ["application", "server"])
def test_a_lost_connection_with_messages_that_nobody_receives_ends(play: Any, ends: str) -> None:
    """Some of what was read is not decoded yet, but nobody will ask for it."""
    bomb = frame(2, compressed(bytes(MIB)), rsv1=True) * 50

    async def main() -> None:
        done = asyncio.Event()

        async def app(receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            await done.wait()

        async with (
            serving(Recorder(app)) as server,
            Client(server.port, deflate=PerMessageDeflate()) as client,
        ):
            await client.open()
            client.writer.write(bomb)
            await until(lambda: server.protocol._sink.is_held)
            server.protocol._transport.abort()
            await until(lambda: server.protocol._phase.name == "LOST")
            if ends == "server":
                server.protocol.shutdown()
            else:
                done.set()
            await asyncio.wait_for(until(lambda: not server.state.connections), 5)
            done.set()

    play(main())
