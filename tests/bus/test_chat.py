"""The chat of examples/chat loses nothing. `make scale` does this with more of everything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..tools import TIMEOUT, Program, free_port
from .chat import EXAMPLE, Member, Room, complete, eventually, members, replaced, servers

if TYPE_CHECKING:
    from .conftest import Broker

pytestmark = pytest.mark.timeout(120)


@pytest.mark.loops("asyncio")
async def test_a_chat_loses_nothing(broker: Broker, redis: Broker) -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}/"
    with servers(redis.url, broker.url, "--port", str(port), workers=2) as program:
        workers = await replaced(program, port, 2, set())
        rooms = [Room(url, f"{broker.program}-{n}", 12) for n in range(2)]
        async with members(rooms):
            await asyncio.gather(*(room.say(2) for room in rooms))
            await complete(rooms)
            # Everybody knows who is there.
            names = sorted(member.name for member in rooms[0].members)
            await eventually(lambda: all(m.here == names for m in rooms[0].members))
            # A server is killed while all talk.
            talking = asyncio.gather(*(room.say(2, 0.05) for room in rooms))
            await asyncio.sleep(0.03)
            os.kill(workers[0], signal.SIGKILL)
            await talking
            workers = await replaced(program, port, 2, {workers[0]})
            await complete(rooms)
            # The broker is killed, and comes back.
            talking = asyncio.gather(*(room.say(2, 0.05) for room in rooms))
            await asyncio.sleep(0.03)
            broker.kill()
            broker.start()
            await talking
            await complete(rooms)
            # The servers are replaced, one after the other.
            talking = asyncio.gather(*(room.say(2, 0.05) for room in rooms))
            await asyncio.sleep(0.03)
            for worker in workers:
                os.kill(worker, signal.SIGTERM)
                await replaced(program, port, 2, {worker})
            await talking
            await complete(rooms)
            # Who comes late gets the last 50 messages.
            late: list[str] = []
            member = Member(url, rooms[0].members[0].room, "late", lambda m: late.append(m["text"]))
            task = asyncio.create_task(member.run())
            await eventually(lambda: len(late) >= 50)
            task.cancel()
            await asyncio.wait([task])
            assert late == [text for _, text in rooms[0].seen[0][-50:]]
        assert program.stop() == 0


@pytest.mark.loops("asyncio")
async def test_what_was_stored_and_not_published(redis: Broker) -> None:
    """A server that is killed may leave this behind. Who talks all the time notices, too."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}/"
    with servers(redis.url, redis.url, "--port", str(port), workers=1) as program:
        room = Room(url, "stored", 2)
        async with members([room]):
            await room.say(1)
            line = {"seq": 3, "name": "killed", "client": "", "id": 1, "text": "last words"}
            async with import_module("redis.asyncio").Redis.from_url(redis.url) as store:
                await store.incr("chat:{stored}:seq")
                await store.rpush("chat:{stored}:log", json.dumps(line))
            late = Member(url, "stored", "late", lambda _: None)
            task = asyncio.create_task(late.run())
            while not all(("killed", "last words") in seen for seen in room.seen):
                await room.say(1, 0.05, talkers=1)
            task.cancel()
            await asyncio.wait([task])
            assert [text for _, text in room.seen[0][:3]] == ["1", "1", "last words"]
        assert program.stop() == 0


HELLO = '{"join": "terminal", "name": "eve", "client": "eve"}'


def test_the_client_for_terminals(redis: Broker) -> None:
    port = free_port()
    with servers(redis.url, redis.url, "--port", str(port), workers=1) as server:
        # What is no message of a client ends its connection, and disturbs nobody else.
        for messages in (
            [HELLO.replace('": "eve"', '": "\\ud800"'), '{"id": 1, "text": "x"}'],
            [HELLO.replace("terminal", "\\ud800")],
            [HELLO, '{"id": 1e999, "text": "x"}'],
            [HELLO, '{"id": 1, "text": ' + "[" * 100_000],
        ):
            with connect(f"ws://127.0.0.1:{port}/", proxy=None) as eve:
                with suppress(ConnectionClosed):
                    for message in messages:
                        eve.send(message)
                    while eve.recv(TIMEOUT):
                        pass
                assert eve.close_code == 1008
        command = (sys.executable, "client.py", f"ws://127.0.0.1:{port}/", "terminal", "ann")
        with Program(*command, cwd=EXAMPLE) as program:
            program.write("hello\n")
            assert program.line() == "ann: hello"
            program.end_input()
            assert program.wait() == 0
        assert server.stop() == 0
        assert server.errors == ""
