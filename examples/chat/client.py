"""A member of the chat, for the terminal: python client.py ws://127.0.0.1:8080/ ROOM NAME

`Member` is the whole of what a client must do to lose nothing: it repeats what was not
acknowledged, shows each message once and in order, and asks for what is missing.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from fastws import ConnectionClosed, RetryPolicy, WebSocket, connect

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 0.5  # how long a message may be late before we ask for it, in seconds


class Member:
    """Somebody in a room.

    Attributes:
        here: the names of everybody in the room.
        missed: how many messages were gone from the history before we could ask for them.
    """

    def __init__(
        self, url: str, room: str, name: str, show: Callable[[dict[str, Any]], object]
    ) -> None:
        self.url = url
        self.room, self.name, self.client = room, name, secrets.token_hex(8)
        self.here: list[str] = []
        self.missed = 0
        self.is_there = asyncio.Event()
        self._show = show
        self._revision = 0
        self._last = 0
        self._early: dict[int, dict[str, Any]] = {}
        # The highest number that we know of, and whether messages up to it are missing.
        self._newest = 0
        self._is_behind = asyncio.Event()
        self._number = 0
        self._unacknowledged: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._news = asyncio.Event()

    async def say(self, text: str) -> None:
        """Say something; return when it is stored."""
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        self._unacknowledged[self._number] = (text, future)
        self._news.set()
        await future

    async def run(self) -> None:
        """Stay in the room, on whatever server there is."""
        retry = RetryPolicy(initial_delay=0.2, max_delay=2.0)
        async with aclosing(aiter(connect(self.url, retry=retry))) as connections:
            async for ws in connections:
                async with ws:
                    await self._stay(ws)

    async def _stay(self, ws: WebSocket) -> None:
        tasks = [asyncio.create_task(self._speak(ws)), asyncio.create_task(self._ask(ws))]
        try:
            async for message in ws:
                self._take(json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            self.is_there.clear()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _speak(self, ws: WebSocket) -> None:
        hello = {"join": self.room, "name": self.name, "client": self.client, "since": self._last}
        with suppress(ConnectionClosed):
            await ws.send(json.dumps(hello))
            sent = 0
            while True:
                self._news.clear()
                for number, (text, _) in list(self._unacknowledged.items()):
                    if number > sent:
                        await ws.send(json.dumps({"id": number, "text": text}))
                        sent = number
                await self._news.wait()

    async def _ask(self, ws: WebSocket) -> None:
        """Ask for what is missing if it does not come by itself."""
        with suppress(ConnectionClosed):
            while True:
                await self._is_behind.wait()
                before = self._last
                await asyncio.sleep(PATIENCE)
                if self._is_behind.is_set() and self._last == before:
                    await ws.send(json.dumps({"since": self._last}))

    def _take(self, message: dict[str, Any]) -> None:
        self._newest = max(self._newest, message.get("seq", 0), message.get("newest", 0))
        if "seq" in message:
            if message["seq"] > self._last:
                self._early[message["seq"]] = message
        elif "ack" in message:
            entry = self._unacknowledged.pop(message["ack"], None)
            if entry is not None and not entry[1].done():
                entry[1].set_result(None)
        elif "here" in message:
            if message["revision"] > self._revision:
                self._revision, self.here = message["revision"], message["here"]
        elif "from" in message:
            self.is_there.set()
            if message["from"] > self._last + 1:
                if self._last:
                    self.missed += message["from"] - 1 - self._last
                self._last = message["from"] - 1
                self._early = {seq: m for seq, m in self._early.items() if seq > self._last}
            # What follows is all that there is.
            self._newest = max([self._last, *self._early])
        while self._last + 1 in self._early:
            self._last += 1
            self._show(self._early.pop(self._last))
        if self._newest > self._last:
            self._is_behind.set()
        else:
            self._is_behind.clear()


async def main(url: str, room: str, name: str) -> None:
    member = Member(url, room, name, lambda m: print(f"{m['name']}: {m['text']}", flush=True))
    running = asyncio.create_task(member.run())
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await member.say(line.rstrip("\n"))
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
