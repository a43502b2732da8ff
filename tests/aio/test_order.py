"""Messages leave in the order of the calls, however long it takes to send one of them."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from fastws import (
    ConnectionClosed,
    PerMessageDeflate,
    State,
    connect,
    deflate,
    prepare,
    serve,
)

KIB = 1 << 10
MIB = 1 << 20


def text(size, seed=0):
    """Data that compresses to about half its size."""
    return random.Random(seed).randbytes(size // 2).hex()


@pytest.fixture
def collected(url, until):
    """Return what a server receives of what a function sends."""

    async def collect(send, **options):
        received = []

        async def handler(ws):
            try:
                async for message in ws:
                    received.append(message)  # noqa: PERF401
            except ConnectionClosed:
                pass
            received.append(ws.close_code)

        async with serve(handler, "127.0.0.1", 0, **options) as server:
            async with connect(url(server), **options) as ws:
                await send(ws)
            await until(lambda: received and isinstance(received[-1], int))
        return received

    return collect


async def test_a_small_message_stays_behind_a_large_one_that_is_compressed(collected):
    large = text(300 * KIB)

    async def send(ws):
        await asyncio.gather(ws.send(large), ws.send("second"), ws.send(["th", "ird"]))
        await asyncio.gather(ws.send(prepare(large)), ws.send(b"fifth", compress=False))

    expected = [large, "second", "third", large, b"fifth", 1000]
    assert await collected(send, deflate=True) == expected


@pytest.mark.parametrize("seed", range(4))
async def test_all_kinds_of_messages_from_many_tasks(collected, seed):
    chance = random.Random(seed)
    messages = []
    for number in range(60):
        size = chance.choice([10, 10, 1000, 300 * KIB])
        messages.append(f"{number}:" + text(size, number))

    async def send(ws):
        tasks = []
        for message in messages:
            kind = chance.randrange(4)
            if kind == 0:
                argument = [message[:20], message[20:]]
            elif kind == 1:
                argument = prepare(message)
            else:
                argument = message
            compress = chance.choice([None, None, True, False])
            tasks.append(asyncio.create_task(ws.send(argument, compress=compress)))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    assert await collected(send, deflate=True) == [*messages, 1000]


@pytest.mark.parametrize("how", ["close", "leave the block", "return"])
async def test_close_stays_behind_what_is_being_sent(collected, how, url):
    large = text(2 * MIB)
    options = {"deflate": True, "max_message_size": None}
    if how == "return":
        # The handler has returned, but one of its tasks has not.
        async def handler(ws):
            tasks.append(asyncio.create_task(ws.send(large)))
            await asyncio.sleep(0)

        tasks = []
        async with (
            serve(handler, "127.0.0.1", 0, **options) as server,
            connect(url(server), **options) as ws,
        ):
            assert [message async for message in ws] == [large]
            await tasks[0]
        return

    async def send(ws):
        task = asyncio.create_task(ws.send(large))
        await asyncio.sleep(0)
        if how == "close":
            await asyncio.gather(ws.close(4000), task)

    code = 4000 if how == "close" else 1000
    assert await collected(send, **options) == [large, code]


async def test_close_does_not_wait_for_fragments_that_do_not_come(pair):
    async def fragments():
        yield "begin"
        await asyncio.Event().wait()

    async with pair() as (client, _):
        sending = asyncio.create_task(client.send(fragments()))
        later = asyncio.create_task(client.send("later"))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await client.close()
        sending.cancel()
        with pytest.raises(ConnectionClosed):
            await later
        await asyncio.wait([sending])


async def test_close_refuses_what_it_cannot_send_at_once(pair):
    async with pair(client={"deflate": True}, server={"deflate": True}) as (client, _):
        sending = asyncio.create_task(client.send(text(2 * MIB)))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="1005"):
            await client.close(1005)
        await sending


async def test_who_is_cancelled_gives_its_turn_away(pair):
    options = {"deflate": True, "max_message_size": None}
    large = text(2 * MIB)
    async with pair(client=options, server=options) as (client, server):
        first = asyncio.create_task(client.send(large))
        second = asyncio.create_task(client.send("second"))
        third = asyncio.create_task(client.send("third"))
        fourth = asyncio.create_task(client.send("fourth"))
        await asyncio.sleep(0)
        third.cancel()
        first.cancel()
        await asyncio.wait([first, second, third, fourth])
        assert first.cancelled()
        assert third.cancelled()
        assert [await server.recv() for _ in range(2)] == ["second", "fourth"]
        # The compressor was abandoned midway; the next message is complete all the same.
        await client.send(large)
        assert await server.recv() == large


async def test_no_thread_is_needed_to_send(pair):
    """All threads of the loop's executor may wait for messages to be sent."""
    options = {"deflate": True, "max_message_size": None}
    loop = asyncio.get_running_loop()
    message = text(300 * KIB)
    async with pair(client=options, server=options) as (client, server):

        def send():
            asyncio.run_coroutine_threadsafe(client.send(message), loop).result(20)

        threads = [loop.run_in_executor(None, send) for _ in range(40)]
        for _ in threads:
            assert await server.recv() == message
        await asyncio.gather(*threads)


async def test_others_have_their_turn_while_a_large_message_is_compressed(pair):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    options = {"deflate": True, "max_message_size": None}
    async with pair(client=options, server=options) as (client, _):
        counting = asyncio.create_task(count())
        sending = asyncio.create_task(client.send(text(4 * MIB)))
        await sending
        counting.cancel()
        await asyncio.wait([counting])
    assert turns > 50


async def test_many_tasks_may_send_much(pair, settled):
    """`send` waits while too much is unsent; the peer is not dropped for it."""
    size = 200 * KIB
    limits = {"max_unsent_size": MIB}
    async with pair(client=limits) as (client, server):
        tasks = [asyncio.create_task(client.send(bytes([number]) * size)) for number in range(100)]
        await settled(lambda: client._transport.get_write_buffer_size(), quiet=0.2)
        assert client._transport.get_write_buffer_size() <= MIB + size + 100
        received = [(await server.recv())[:1] for _ in tasks]
        assert received == [bytes([number]) for number in range(100)]
        await asyncio.gather(*tasks)


async def test_senders_that_wait_learn_of_the_end(pair):
    options = {"deflate": True, "max_message_size": None}
    async with pair(client=options, server=options) as (client, _):
        tasks = [asyncio.create_task(client.send(text(MIB, seed))) for seed in range(4)]
        await asyncio.sleep(0)
        client._transport.abort()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, ConnectionClosed) for result in results)


async def test_a_large_prepared_message_is_compressed_once_for_all(pair, monkeypatch):
    calls = 0
    original = deflate._compressor

    def compressor(*parameters):
        nonlocal calls
        calls += 1
        return original(*parameters)

    options = {"deflate": True, "max_message_size": None}
    prepared = prepare(text(MIB))
    async with AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair(options, options)) for _ in range(5)]
        monkeypatch.setattr(deflate, "_compressor", compressor)
        await asyncio.gather(*(client.send(prepared) for client, _ in pairs))
        for _, server in pairs:
            assert len(await server.recv()) == MIB
    assert calls == 1


async def test_what_is_not_compressed_is_not_compressed_in_pieces(pair, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("fastws.prepared.deflate_in_pieces", fail)
    config = PerMessageDeflate(threshold=MIB)
    message = text(300 * KIB)
    async with pair({"deflate": config}, {"deflate": config}) as (client, server):
        await client.send(message)
        assert await server.recv() == message


async def test_a_block_that_is_cancelled_closes_all_the_same(url, until):
    options = {"deflate": True, "max_message_size": None}
    done = asyncio.Event()

    async def handler(ws):
        await done.wait()

    async with serve(handler, "127.0.0.1", 0, **options) as server:

        async def use():
            async with connect(url(server), **options) as ws:
                sending.append(asyncio.create_task(ws.send(text(8 * MIB))))
                clients.append(ws)
                await asyncio.sleep(0)

        sending, clients = [], []
        task = asyncio.create_task(use())
        await until(lambda: clients)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, *sending, return_exceptions=True)
        assert clients[0].state is not State.OPEN
        done.set()
