"""The chat of examples/chat at its full size: `make scale`.

    python -m tests.bus.scale [--figures | --proof] [--by port | nginx | haproxy] [redis | nats ...]

The clients come to the 4 servers by one port, which these share, or by nginx or HAProxy, which have
the configuration of examples/deploy and two ports with 2 servers each.

The proof: 1,000 members in 20 rooms on 4 servers see each message once and all in the same order,
which is that of each sender; while a server is killed, the broker is killed and started again, and
the servers are replaced one after the other. No acknowledged message is lost.

The figures: how many messages per second are delivered, how long that takes, and how much memory a
connection costs. Servers, broker, Redis and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastws

from ..tools import free_port
from .chat import Room, complete, eventually, members, memory, replaced, servers
from .conftest import BROKERS, Broker, Redis
from .deploying import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..tools import Program

    Fleet = list[tuple[Program, int]]

WAYS = ("port", "nginx", "haproxy")
WORKERS, ROOMS, MEMBERS = 4, 20, 50
TALKERS = 10  # of each room: more than 50 messages are not kept for members that are away
SECONDS = 5.0


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def fleet(way: str, store: Broker, broker: Broker, folder: Path) -> Iterator[tuple[str, Fleet]]:
    """Run 4 servers; yield the URL for clients, and what runs the servers, with their ports."""
    ports = {port: free_port() for port in ("8080", "8081", "8082")}
    own = [ports["8080"]] if way == "port" else [ports["8081"], ports["8082"]]
    with ExitStack() as stack:
        programs = []
        for port in own:
            options = ("--port", str(port), "--backlog", "2048")
            running = servers(store.url, broker.url, *options, workers=WORKERS // len(own))
            programs.append((stack.enter_context(running), port))
        if way != "port":
            stack.enter_context(proxy(way, folder, ports, 4 * ROOMS * MEMBERS))
        yield f"ws://127.0.0.1:{ports['8080']}/", programs


async def standing(programs: Fleet, gone: set[int]) -> list[int]:
    """Wait until there are 4 servers, none of them one that is gone."""
    count = WORKERS // len(programs)
    return [pid for program, port in programs for pid in await replaced(program, port, count, gone)]


# The proof -------------------------------------------------------------------------------------


async def prove(programs: Fleet, broker: Broker, url: str) -> None:
    workers = await standing(programs, set())
    rooms = [Room(url, f"proof-{n}", MEMBERS) for n in range(ROOMS)]

    async def talk(rounds: int) -> None:
        await asyncio.gather(*(room.say(rounds, 0.2, TALKERS) for room in rooms))

    async with members(rooms):
        say(f"  {ROOMS * MEMBERS} members are there")
        await talk(2)
        await complete(rooms)
        say("  each message once and in order: yes")

        talking = asyncio.create_task(talk(5))
        await asyncio.sleep(0.3)
        os.kill(workers[0], signal.SIGKILL)
        await talking
        await complete(rooms)
        say("  after the kill of a server: yes")

        await standing(programs, {workers[0]})
        talking = asyncio.create_task(talk(5))
        await asyncio.sleep(0.3)
        broker.kill()
        await asyncio.sleep(0.3)
        broker.start()
        await talking
        await complete(rooms)
        say("  after the kill and the start of the broker: yes")

        talking = asyncio.create_task(talk(20))
        for worker in await standing(programs, {workers[0]}):
            os.kill(worker, signal.SIGTERM)
            await standing(programs, {worker})
        await talking
        await complete(rooms)
        say("  after a rolling restart: yes")
        # (The killed server's members are listed until its entry expires.)
        await eventually(
            lambda: all(len(m.here) == MEMBERS for room in rooms for m in room.members)
        )
        say("  everybody knows who is there: yes")
    acknowledged = sum(len(room.acknowledged) for room in rooms)
    say(f"  {acknowledged} acknowledged messages, {acknowledged * MEMBERS} deliveries")


# The figures -----------------------------------------------------------------------------------


class Listener(fastws.WebSocketProtocol):
    """A member that does nothing but count."""

    def __init__(self, room: Talk, talks: bool) -> None:
        super().__init__()
        self.room = room
        self.talks = talks

    def on_open(self) -> None:
        self.send(json.dumps({"join": self.room.name, "name": "n", "client": f"{id(self)}"}))

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        if message.startswith('{"seq"'):
            sent = float(message.partition('"text": "')[2].partition('"')[0])
            self.room.latencies.append(time.perf_counter() - sent)
        elif self.talks and message.startswith('{"ack"'):
            self.room.talk(self)
        elif message.startswith('{"from"'):
            self.room.there += 1


class Talk:
    """A room in which a member says the next message when the last one is stored."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.there = 0
        self.number = 0
        self.is_on = False
        self.latencies: list[float] = []

    def talk(self, listener: Listener) -> None:
        if self.is_on:
            self.number += 1
            message = {"id": self.number, "text": f"{time.perf_counter():.9f}"}
            listener.send(json.dumps(message))


async def measure(programs: Fleet, url: str) -> dict[str, Any]:
    workers = await standing(programs, set())
    before = sum(map(memory, workers))
    talks = [Talk(f"figures-{n}") for n in range(ROOMS)]
    talkers = []
    connections = []
    for talk in talks:
        for n in range(MEMBERS):
            listener = Listener(talk, n == 0)
            connections.append(
                await fastws.connect(url, protocol=lambda listener=listener: listener)
            )
            if n == 0:
                talkers.append(listener)
    await eventually(lambda: all(talk.there == MEMBERS for talk in talks))
    await asyncio.sleep(1)  # until everybody knows who is there
    each = (sum(map(memory, workers)) - before) / len(connections)
    for talk, listener in zip(talks, talkers, strict=True):
        talk.is_on = True
        talk.talk(listener)
    await asyncio.sleep(1)
    for talk in talks:
        talk.latencies.clear()
    start = time.perf_counter()
    await asyncio.sleep(SECONDS)
    latencies = [latency for talk in talks for latency in talk.latencies]
    seconds = time.perf_counter() - start
    for talk in talks:
        talk.is_on = False
    await asyncio.sleep(0.5)
    for connection in connections:
        connection.close()
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "deliveries/s": round(len(latencies) / seconds),
        "p50 ms": round(cuts[49] * 1000, 1),
        "p99 ms": round(cuts[98] * 1000, 1),
        "KiB per connection": round(each / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bus.scale")
    parser.add_argument("brokers", nargs="*", metavar="redis | nats")
    parser.add_argument("--figures", action="store_true", help="measure only")
    parser.add_argument("--proof", action="store_true", help="do not measure")
    parser.add_argument("--by", choices=WAYS, help="how clients come to the servers (all ways)")
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ways = [args.by] if args.by else WAYS
    for name, way in itertools.product(args.brokers or BROKERS, ways):
        say(f"{name}, by {'one port' if way == 'port' else way}:")
        with tempfile.TemporaryDirectory() as folder:
            broker = BROKERS[name](Path(folder))
            store = broker if name == "redis" else Redis(Path(folder))
            try:
                broker.start()
                if store is not broker:
                    store.start()
                with fleet(way, store, broker, Path(folder)) as (url, programs):
                    if not args.proof:
                        say(f"  {asyncio.run(measure(programs, url))}")
                    if not args.figures:
                        asyncio.run(prove(programs, broker, url))
            finally:
                sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the logs of the programs
                broker.kill()
                store.kill()
                sys.stderr = sys.__stderr__


if __name__ == "__main__":
    main()
