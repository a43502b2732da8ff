"""Tests of the coroutine style: tasks that receive, send, ping and close, and are cancelled."""

from __future__ import annotations

import asyncio
import random
from array import array
from contextlib import nullcontext, suppress
from functools import partial

import pytest

from fastws import ConnectionClosed, State, StateError, WebSocket, connect, serve
from fastws.aio.twin import Queue

# aiofastnet has transports of its own.
pytestmark = pytest.mark.loops("asyncio", "uvloop", "aiofastnet")

KIB = 1 << 10


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


# Receiving ----------------------------------------------------------------------------


async def test_messages_arrive_in_order_and_in_their_kind(pair):
    messages = ["a", b"b", "", b"", "c✓", bytes(100 * KIB), "d" * 100_000]
    async with pair() as (client, server):
        for message in messages:
            await client.send(message)
        assert [await server.recv() for _ in messages] == messages
        for message in messages:
            await server.send(message)
        assert [await client.recv() for _ in messages] == messages


@pytest.mark.parametrize("seed", range(5))
async def test_a_cancelled_recv_loses_no_message(pair, seed):
    chance = random.Random(seed)
    received, cancelled = [], 0

    async def send(ws):
        for number in range(500):
            await ws.send(str(number))
            await turns(chance.randrange(4))

    async with pair() as (client, server):
        sending = asyncio.create_task(send(client))
        async with asyncio.timeout(20):
            while len(received) < 500:
                task = asyncio.create_task(server.recv())
                await turns(chance.randrange(4))
                task.cancel()
                try:
                    received.append(int(await task))
                except asyncio.CancelledError:
                    cancelled += 1
        await sending
    assert received == list(range(500))
    assert cancelled


async def test_a_recv_cancelled_as_its_message_arrives_leaves_it_to_the_next(pair):
    async with pair() as (_, server):
        task = asyncio.create_task(server.recv())
        await turns()
        # The waiter is done, but the task has not run yet.
        server._sink.take(server, ["first"], True)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.recv() == "first"


async def test_a_recv_woken_for_a_message_that_another_took_waits_on(pair):
    async with pair() as (client, server):
        task = asyncio.create_task(server.recv())
        await turns()
        server._sink.take(server, ["first"], True)
        assert await server.recv() == "first"
        with pytest.raises(StateError):
            await server.recv()
        await client.send("second")
        assert await task == "second"


async def test_a_timeout_around_recv(pair):
    async with pair() as (client, server):
        for wait in (asyncio.timeout(0.01), asyncio.timeout(0)):
            with pytest.raises(TimeoutError):
                async with wait:
                    await server.recv()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.recv(), 0.01)
        await client.send("late")
        assert await asyncio.wait_for(server.recv(), 5) == "late"


async def test_one_task_at_a_time_may_wait_for_a_message(pair):
    async with pair() as (client, server):
        waiting = asyncio.create_task(server.recv())
        await turns()
        with pytest.raises(StateError, match="another task"):
            await server.recv()
        with pytest.raises(StateError, match="another task"):
            await anext(server)
        await client.send("x")
        assert await waiting == "x"


async def test_what_arrived_can_be_received_after_the_end(pair, until):
    async with pair() as (client, server):
        for number in range(3):
            await client.send(str(number))
        await client.close(4000, "bye")
        await server.wait_closed()
        assert [await server.recv() for _ in range(3)] == ["0", "1", "2"]
        for _ in range(2):
            with pytest.raises(ConnectionClosed) as info:
                await server.recv()
            assert (info.value.code, info.value.reason) == (4000, "bye")


async def test_what_arrives_while_reading_is_held_waits_with_the_rest(pair):
    """(A transport may still deliver data after it is paused.)"""
    async with pair() as (_, server):
        for number in range(4):
            server._sink.take(server, [str(number)], True)
        assert [await server.recv() for _ in range(4)] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("code", "normal"),
    [(1000, True), (1001, True), (None, True), (1002, False), (1011, False), (4000, False)],
)
async def test_async_for_ends_with_the_connection(pair, code, normal):
    async with pair() as (client, server):
        await client.send("a")
        await client.send("b")
        closing = asyncio.create_task(client.close(code))
        received = []
        with nullcontext() if normal else pytest.raises(ConnectionClosed):
            async for message in server:
                received.append(message)  # noqa: PERF401
        assert received == ["a", "b"]
        assert server.close_code == (code or 1005)
        await closing


async def test_async_for_raises_when_the_connection_is_lost(raw, until):
    ended = asyncio.get_running_loop().create_future()

    async def handler(ws):
        try:
            async for _ in ws:
                pass
        except ConnectionClosed as exc:
            ended.set_result(exc.code)
            raise  # nobody logs it

    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server):
            pass
        assert await ended == 1006


async def test_messages_still_arrive_while_closing(raw, frame):
    got = asyncio.get_running_loop().create_future()

    async def handler(ws):
        closing = asyncio.create_task(ws.close(4000))
        got.set_result([message async for message in aiter_all(ws)])
        await closing

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        assert await peer.close_frame() == (4000, "")
        await peer.send(frame(1, b"a") + frame(1, b"b"))
        await peer.send(frame(8, b"\x0f\xa0"))
        assert await got == ["a", "b"]


async def aiter_all(ws):
    with suppress(ConnectionClosed):
        while True:
            yield await ws.recv()


async def test_who_closed_and_does_not_receive_keeps_two_reads_at_most(raw, frame, until):
    kept = asyncio.get_running_loop().create_future()

    async def handler(ws):
        await ws.close(4000)
        kept.set_result([message async for message in aiter_all(ws)])

    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            (ws,) = server._endpoints
            assert await peer.close_frame() == (4000, "")
            await peer.send(frame(1, b"a") + frame(1, b"b"))
            await until(lambda: ws._sink.messages)
            for _ in range(100):
                await peer.send(frame(2, bytes(64 * KIB)))
            await peer.send(frame(1, b"y") + frame(1, b"z") + frame(8, b"\x0f\xa0"))
        messages = await kept
        assert messages[:2] == ["a", "b"]
        assert sum(map(len, messages)) <= 512 * KIB
        assert "z" not in messages  # dropped messages leave no gap


async def test_who_closes_may_take_its_time_to_receive(raw, frame, settled, monkeypatch):
    """Nothing is dropped as long as the application goes on receiving."""
    monkeypatch.setattr(f"{Queue.__module__}._PATIENCE", 30)
    got = asyncio.get_running_loop().create_future()

    async def handler(ws):
        closing = asyncio.create_task(ws.close(4000))
        messages = []
        async for message in aiter_all(ws):
            messages.append(message)
            if len(messages) == 1:
                await settled(lambda: len(ws._sink.messages or ()))
                # One was taken meanwhile.
                waiting = ws._sink.messages or []
                ws._sink._drop_unread(ws, waiting, len(waiting) + 1)
        await closing
        got.set_result(messages)

    sizes = [200_000] * 5
    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            assert await peer.close_frame() == (4000, "")
            for size in sizes:
                await peer.send(frame(2, bytes(size)))
            await peer.send(frame(8, b"\x0f\xa0"))
            assert await peer.rest() == b""
        assert [len(message) for message in await got] == sizes


# Sending ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "arrives"),
    [
        ("text ✓", "text ✓"),
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"xviewx")[1:5], b"view"),
        (array("H", [1, 2]), array("H", [1, 2]).tobytes()),
        (["fr", "ag", "", "ments"], "fragments"),
        ((b"fr", bytearray(b"ag"), memoryview(b"ments")), b"fragments"),
        ([b""], b""),
        ({"set"}, "set"),
    ],
)
async def test_anything_that_is_a_message_is_sent(pair, message, arrives):
    async with pair() as (client, server):
        await client.send(message)
        assert await server.recv() == arrives
        if isinstance(message, list):
            await client.send(iter(message))
            assert await server.recv() == arrives


async def fragments_of(*fragments, wait=None):
    for fragment in fragments:
        if wait is not None:
            await wait()
        if isinstance(fragment, BaseException):
            raise fragment
        yield fragment


async def test_an_asynchronous_iterable_is_one_message(pair):
    async with pair() as (client, server):
        await client.send(fragments_of("a", "b", "c", wait=turns))
        await client.send(fragments_of(b"d"))
        await client.send(fragments_of())
        await client.send([])
        await client.send("end")
        assert [await server.recv() for _ in range(3)] == ["abc", b"d", "end"]


async def test_an_iterable_is_sent_as_fragments(raw):
    async def handler(ws):
        await ws.send(["a", "b"])
        await ws.send(iter([b"c"]))

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        frames = [(0x01, b"a"), (0x00, b"b"), (0x80, b""), (0x02, b"c"), (0x80, b"")]
        assert [await peer.frame() for _ in frames] == frames


@pytest.mark.parametrize(
    "message", [None, 1, 1.5, object(), {"a": "mapping"}, [1], [None], [["x"]]]
)
async def test_what_is_no_message_is_refused(pair, message):
    async with pair() as (client, server):
        with pytest.raises(TypeError):
            await client.send(message)
        await client.send("still here")
        assert await server.recv() == "still here"


async def test_lone_surrogates_are_refused(pair):
    async with pair() as (client, server):
        for message in ("\ud800", ["\ud800"]):
            with pytest.raises(ValueError, match="surrogates"):
                await client.send(message)
        await client.send("still here")
        assert await server.recv() == "still here"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ["a", b"b"], TypeError),
        (lambda: [b"a", "b"], TypeError),
        (lambda: ["a", 1], TypeError),
        (lambda: ["a", "\ud800"], ValueError),
        (lambda: ("a" * (1 // (1 - i)) for i in range(2)), ZeroDivisionError),
        (lambda: fragments_of("a", ZeroDivisionError()), ZeroDivisionError),
    ],
)
async def test_a_message_that_breaks_off_ends_the_connection(pair, make, error):
    async with pair() as (client, server):
        with pytest.raises(error):
            await client.send(make())
        with pytest.raises(ConnectionClosed) as info:
            await server.recv()
        assert info.value.code == 1011


async def test_a_message_that_is_cancelled_ends_the_connection(pair):
    forever = asyncio.Event()
    async with pair() as (client, server):
        sending = asyncio.create_task(client.send(fragments_of("a", wait=turns)))
        await turns()
        sending.cancel()  # before anything was sent
        with pytest.raises(asyncio.CancelledError):
            await sending
        await client.send("whole")
        assert await server.recv() == "whole"

        async def begin():
            yield "begun"
            await forever.wait()

        sending = asyncio.create_task(client.send(begin()))
        await turns()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        with pytest.raises(ConnectionClosed) as info:
            await server.recv()
        assert info.value.code == 1011


async def test_other_messages_wait_for_a_fragmented_one(pair):
    go_on = asyncio.Event()

    async def begin():
        yield "be"
        await go_on.wait()
        yield "gun"

    async with pair() as (client, server):
        sends = [asyncio.create_task(client.send(begin()))]
        await turns()
        for message in ("a", ["b", "c"], b"d"):
            sends.append(asyncio.create_task(client.send(message)))
            await turns()
        impatient = asyncio.create_task(client.send("never"))
        answering = asyncio.create_task(server.recv())
        await client.ping()  # control frames do not wait
        impatient.cancel()
        assert not sends[1].done()
        go_on.set()
        await asyncio.gather(*sends)
        assert await answering == "begun"
        assert [await server.recv() for _ in range(3)] == ["a", "bc", b"d"]


async def test_a_send_that_waits_for_a_fragmented_one_learns_of_the_end(pair):
    forever = asyncio.Event()

    async def begin():
        yield "begun"
        await forever.wait()

    async with pair() as (client, server):
        first = asyncio.create_task(client.send(begin()))
        await turns()
        second = asyncio.create_task(client.send("waits"))
        await turns()
        await server.close(4000)
        with pytest.raises(ConnectionClosed) as info:
            await asyncio.wait_for(second, 5)
        assert info.value.code == 4000
        forever.set()
        with pytest.raises(ConnectionClosed):
            await first


async def test_nothing_is_sent_on_a_closed_connection(pair):
    async with pair() as (client, server):
        await server.close(4000, "bye")
        await client.wait_closed()
        for message in ("x", ["x"], fragments_of("x")):
            with pytest.raises(ConnectionClosed) as info:
                await client.send(message)
            assert (info.value.code, info.value.reason) == (4000, "bye")


async def test_a_send_that_waits_learns_that_the_connection_is_lost(raw, settled, until):
    sent, ends = 0, []

    async def handler(message, ws):
        nonlocal sent
        try:
            while True:
                await ws.send(message)
                sent += 1
        except ConnectionClosed as exc:
            ends.append(exc.code)

    for message in (bytes(64 * KIB), [bytes(64 * KIB)] * 4):
        async with serve(partial(handler, message), "127.0.0.1", 0) as server:
            async with raw(server) as peer:
                await settled(lambda: sent)
                peer.reset()
            await until(lambda: not server._endpoints)
    assert ends == [1006, 1006]


# Pings --------------------------------------------------------------------------------


async def test_ping_tells_the_latency(pair):
    async with pair() as (client, server):
        for ws in (client, server):
            assert 0 <= await ws.ping() < 5
            assert 0 <= await ws.ping(b"data") < 5
            assert 0 <= await ws.ping(memoryview(b"x" * 125)) < 5
        latencies = await asyncio.gather(*(client.ping() for _ in range(10)))
        assert len(latencies) == 10


async def test_wrong_pings_are_refused(raw):
    async def handler(ws):
        first = asyncio.create_task(ws.ping(b"\0\0\0\1"))
        await turns()
        with pytest.raises(ValueError, match="no answer yet"):
            await ws.ping(b"\0\0\0\1")
        with pytest.raises(ValueError, match="125"):
            await ws.ping(bytes(126))
        with pytest.raises(TypeError):
            await ws.ping("text")
        second = asyncio.create_task(ws.ping())  # finds its own data
        await turns()
        await ws.send("done")
        await ws.close(4000)
        for ping in (first, second):
            with pytest.raises(ConnectionClosed) as info:
                await ping
            assert info.value.code == 4001
        with pytest.raises(ConnectionClosed):
            await ws.ping()

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        first, second = await peer.frame(), await peer.frame()
        assert first == (0x89, b"\0\0\0\1")
        assert second[0] == 0x89
        assert second != first
        assert await peer.frame() == (0x81, b"done")
        assert await peer.close_frame() == (4000, "")
        await peer.send(b"\x88\x82\0\0\0\0\x0f\xa1")


async def test_a_pong_answers_the_pings_before_too(raw, frame):
    async def handler(ws):
        pings = [asyncio.create_task(ws.ping(data)) for data in (b"1", b"2", b"3")]
        given_up = asyncio.create_task(ws.ping(b"0"))
        await turns()
        given_up.cancel()
        await ws.recv()
        await asyncio.gather(*pings[:2])
        assert not pings[2].done()
        await ws.send("two")
        await ws.recv()
        await asyncio.gather(*pings)
        await ws.send("all")

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        for _ in range(4):
            await peer.frame()
        await peer.send(frame(10, b"unasked for") + frame(10, b"2") + frame(1, b"go"))
        assert await peer.frame() == (0x81, b"two")
        await peer.send(frame(10, b"0") + frame(1, b"go"))
        assert await peer.frame() == (0x81, b"all")


async def test_a_ping_that_was_given_up_does_no_harm_at_the_end(raw_server, url):
    async def play(peer):
        await peer.frame()
        await peer.frame()
        peer.reset()

    async with raw_server(play) as server, connect(url(server)) as ws:
        pings = [asyncio.create_task(ws.ping()) for _ in range(2)]
        await turns()
        pings[0].cancel()
        with pytest.raises(ConnectionClosed):
            await pings[1]


async def test_a_ping_fails_when_the_connection_is_lost(raw):
    failed = asyncio.get_running_loop().create_future()

    async def handler(ws):
        try:
            await ws.ping()
        except ConnectionClosed as exc:
            failed.set_result(exc.code)

    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            await peer.frame()
        assert await failed == 1006


# Closing ------------------------------------------------------------------------------


@pytest.mark.parametrize("closer", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4999, "fin ✓"), (None, "")])
async def test_close_tells_both_sides(pair, closer, code, reason):
    async with pair() as sides:
        waiting = asyncio.create_task(sides[1 - closer].recv())
        await turns()
        await sides[closer].close(code, reason)
        with pytest.raises(ConnectionClosed) as info:
            await waiting
        assert (info.value.code, info.value.reason) == (code or 1005, reason)
        for ws in sides:
            await ws.wait_closed()
            assert (ws.state, ws.close_code, ws.close_reason) == (
                State.CLOSED, code or 1005, reason,
            )  # fmt: skip
            await ws.close(4001, "again")
            assert ws.close_code == (code or 1005)


async def test_both_sides_close_at_once(pair):
    async with pair() as (client, server):
        await asyncio.gather(client.close(4001), server.close(4002), client.close(), server.close())
        assert (client.close_code, server.close_code) == (4002, 4001)


async def test_a_wrong_close_changes_nothing(pair):
    async with pair() as (client, server):
        for args in ((1005,), (1000, "x" * 124), (None, "why"), (999,)):
            with pytest.raises(ValueError, match="close"):
                await client.close(*args)
        with pytest.raises(TypeError):
            await client.close("1000")
        await client.send("still here")
        assert await server.recv() == "still here"


async def test_a_cancelled_close_does_not_wait_but_closes(raw, frame):
    seen = asyncio.get_running_loop().create_future()

    async def handler(ws):
        one = asyncio.create_task(ws.close(4000))
        two = asyncio.create_task(ws.wait_closed())
        await turns()
        one.cancel()
        await ws.send("x") if ws.state is State.OPEN else None
        await two
        seen.set_result((one.cancelled(), ws.close_code))

    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server) as peer:
            assert await peer.close_frame() == (4000, "")
            await peer.send(frame(8, b"\x0f\xa1"))
            assert await peer.rest() == b""
        assert await seen == (True, 4001)


async def test_a_task_that_receives_learns_of_its_own_sides_close(pair):
    async with pair() as (client, _):
        waiting = asyncio.create_task(client.recv())
        await turns()
        await client.close(4000)
        with pytest.raises(ConnectionClosed) as info:
            await waiting
        assert info.value.code == 4000


async def test_async_with_closes(pair):
    async with pair() as (client, server):
        async with client as entered:
            assert entered is client
        assert server.close_code == client.close_code == 1000
    async with pair() as (client, server):
        with pytest.raises(ZeroDivisionError):
            async with client:
                raise ZeroDivisionError
        assert client.close_code == 1011


async def test_repr_tells_role_peer_and_state(pair):
    async with pair() as (client, server):
        assert repr(client) == f"<WebSocket client {client.remote_address} open>"
        assert repr(server) == f"<WebSocket server {server.remote_address} open>"
        await client.close()
        assert repr(client).endswith(" closed>")
    assert repr(WebSocket()) == "<WebSocket None opening>"


async def test_the_conversation_of_the_readme(url):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with serve(echo, "localhost", 0) as server, connect(url(server)) as ws:
        await ws.send("Hello Server!")
        assert await ws.recv() == "Hello Server!"
    assert ws.close_code == 1000
