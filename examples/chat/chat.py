"""A chat: rooms, the last 50 messages for late comers, who is there; on any number of servers.

    redis-server --appendonly yes
    fastws serve chat:app --process-request chat:pages --workers 4
    open http://127.0.0.1:8080/

Environment: CHAT_STORE is the URL of Redis, which keeps the messages. CHAT_BUS is the URL of the
broker that carries them to other servers: redis:// or nats://.

Messages are JSON objects in text messages. A client sends

    {"join": ROOM, "name": NAME, "client": RANDOM, "since": LAST}    first
    {"id": 1, "text": TEXT}        ids grow; what was not acknowledged is sent again
    {"since": LAST}                if messages are missing

and gets

    {"from": SEQ}                  the number of the first message that follows
    {"seq": SEQ, "name": NAME, "client": RANDOM, "id": ID, "text": TEXT}
    {"ack": ID}                    the message is stored, and will not be lost
    {"here": [NAME, …], "revision": N, "newest": SEQ}
                                   who is there, and the number of the last message; what has a
                                   lower revision is older

A message is stored first and published then. Its number says whether the client has it already, and
whether one before it is missing: so each client shows each message once, and all of them show the
same order, whatever happens to servers and broker in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from store import Store, end

from fastws import Response, Topics, WebSocket, broadcast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastws import Request
    from fastws.bus import Bus

PAGE = Path(__file__).with_name("page.html").read_text("utf-8")
# How often to look for changes in the presence, and for changes on other servers, in seconds.
OFTEN, SELDOM = 0.25, 5.0


class Chat:
    """One server process of the chat."""

    def __init__(self) -> None:
        self.members: dict[str, dict[WebSocket, str]] = {}
        self.changed: set[str] = set()
        self.here: dict[str, list[str]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Callable[[WebSocket], Awaitable[None]]:
        """Connect to the store and the bus; return the handler of connections."""
        store = os.environ.get("CHAT_STORE", "redis://127.0.0.1:6379")
        async with AsyncExitStack() as stack:
            self.store = await stack.enter_async_context(Store(store))
            self.topics = Topics(bus=self.bus(os.environ.get("CHAT_BUS", store)))
            await stack.enter_async_context(self.topics)
            self.start(self.watch())
            self.stack = stack.pop_all()
        return self.talk

    async def __aexit__(self, *_: object) -> None:
        await end(self.tasks.copy())
        await self.stack.aclose()

    def bus(self, url: str) -> Bus:
        if url.startswith("nats:"):
            from fastws.bus.nats import NatsBus

            return NatsBus(url, on_gap=self.gap)
        from fastws.bus.redis import RedisBus

        return RedisBus(url, on_gap=self.gap)

    def start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Connections ----------------------------------------------------------------------------

    async def talk(self, ws: WebSocket) -> None:
        try:
            hello = json.loads(await ws.recv())
            room, name, client = (str(hello[key])[:100] for key in ("join", "name", "client"))
            (room + name + client).encode()  # JSON can have lone surrogates, UTF-8 cannot
            # From here on, no message is missed. So what the store has now and what comes later
            # is everything.
            self.topics.subscribe(ws, room)
            await self.topics.wait_subscribed(room)
            self.members.setdefault(room, {})[ws] = name
            self.changed.add(room)
            try:
                await self.catch_up(ws, room, int(hello.get("since") or 0))
                async for message in ws:
                    await self.take(ws, room, name, client, json.loads(message))
            finally:
                del self.members[room][ws]
                self.changed.add(room)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            await ws.close(1008, "not understood")

    async def take(self, ws: WebSocket, room: str, name: str, client: str, message: dict) -> None:
        if "since" in message:
            await self.catch_up(ws, room, int(message["since"]))
            return
        number = int(message["id"])
        said = {"name": name, "client": client, "id": number, "text": str(message["text"])[:10_000]}
        line = await self.store.add(room, client, number, json.dumps(said))
        if line:
            self.topics.publish(room, line)
        await ws.send(json.dumps({"ack": number}))

    async def catch_up(self, ws: WebSocket, room: str, since: int) -> None:
        first, lines = await self.store.history(room, since)
        await ws.send(json.dumps({"from": first}))
        for line in lines:
            await ws.send(line)

    # The broker was away ----------------------------------------------------------------------

    def gap(self, rooms: frozenset[str]) -> None:
        for room in rooms:
            self.start(self.fill(room))

    async def fill(self, room: str) -> None:
        """Send the last messages to all members here; they know which of them they have."""
        _, lines = await self.store.history(room, 0)
        for line in lines:
            broadcast(self.members.get(room, ()), line)

    # Presence ---------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Tell rooms who is there when somebody has come or gone, or a server has died."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(OFTEN)
            changed, self.changed = self.changed, set()
            rooms = set(changed)
            if time.monotonic() - last >= SELDOM:
                last = time.monotonic()
                rooms |= self.members.keys()
            try:
                for room in rooms:
                    await self.tell_who_is_here(room, room in changed)
            except RedisError:
                self.changed |= changed  # the store is away, or full

    async def tell_who_is_here(self, room: str, changed: bool) -> None:
        members = self.members.get(room, {})
        revision, newest, names = await self.store.here(room, list(members.values()), 3 * SELDOM)
        message = json.dumps({"here": names, "revision": revision, "newest": newest})
        if changed:
            self.topics.publish(room, message)
        elif names != self.here.get(room):
            broadcast(members, message)
        self.here[room] = names
        if not self.members.get(room):  # nobody has come meanwhile
            self.members.pop(room, None)
            self.here.pop(room, None)


def pages(request: Request) -> Response | None:
    """Answer what is not a WebSocket: the page, and the health check of load balancers."""
    if request.is_websocket:
        return None
    if request.path == "/":
        return Response.html(PAGE)
    if request.path == "/health":
        return Response.text("OK\n")
    return Response.text("not found\n", 404)


app = Chat()
