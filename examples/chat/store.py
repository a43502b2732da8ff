"""What the chat keeps in Redis: the last 50 messages of each room, and who is there.

It outlives every server process. If Redis is started with `--appendonly yes`, it outlives Redis,
too. While Redis is away, what reads and writes messages waits.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEPT = 50  # messages of a room
AWAY = (exceptions.ConnectionError, exceptions.TimeoutError)
DAY = 24 * 60 * 60

# Store a message, unless it was stored before; return it with its number in the room. Each client
# numbers its messages, and repeats those that were not acknowledged.
ADD = f"""
local seen = redis.call('HGET', KEYS[2], ARGV[1])
if seen then
  local id, seq = string.match(seen, '(%d+) (%d+)')
  if tonumber(ARGV[2]) < tonumber(id) then return '' end
  if tonumber(ARGV[2]) == tonumber(id) then
    local behind = tonumber(redis.call('GET', KEYS[3])) - tonumber(seq)
    return redis.call('LINDEX', KEYS[1], -1 - behind) or ''
  end
end
local seq = redis.call('INCR', KEYS[3])
local line = '{{"seq": ' .. seq .. ', ' .. string.sub(ARGV[3], 2)
redis.call('RPUSH', KEYS[1], line)
redis.call('LTRIM', KEYS[1], -{KEPT}, -1)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. seq)
redis.call('EXPIRE', KEYS[2], {DAY})
return line
"""


async def end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: redis-py swallows some cancellations."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.1)


class Store:
    """Rooms in Redis."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=5, decode_responses=True
        )
        self._me = secrets.token_hex(8)
        self._waiting: deque[tuple[list[str], asyncio.Future[str]]] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._add = self._redis.register_script(ADD)
        self._task = asyncio.create_task(self._store())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await end({self._task})
        await self._redis.aclose()

    # Messages -----------------------------------------------------------------------------

    async def add(self, room: str, client: str, number: int, line: str) -> str:
        """Store a message. Return it with its number in the room; "" if it was stored some time
        ago."""
        future = asyncio.get_running_loop().create_future()
        keys = [f"chat:{{{room}}}:{kind}" for kind in ("log", "seen", "seq")]
        self._waiting.append(([*keys, client, str(number), line], future))
        self._news.set()
        return await future

    async def _store(self) -> None:
        """Store all messages that wait with one round trip, again and again."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting = [self._waiting.popleft() for _ in range(min(len(self._waiting), 200))]
            if self._waiting:
                self._news.set()
            try:
                results = await self._until_it_works(partial(self._add_all, waiting))
            except exceptions.RedisError as exc:
                # Redis refused it: it may be full. The clients are told, and repeat it.
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for (_, future), line in zip(waiting, results, strict=True):
                if not future.done():
                    future.set_result(line)

    async def _add_all(self, waiting: list[tuple[list[str], asyncio.Future[str]]]) -> list[str]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for arguments, _ in waiting:
                await self._add(arguments[:3], arguments[3:], client=pipeline)
            return await pipeline.execute()

    async def history(self, room: str, since: int) -> tuple[int, list[str]]:
        """Return the number of the next message after `since` that is still there, and the
        lines from it on."""

        async def read() -> tuple[int, list[str]]:
            async with self._redis.pipeline() as pipeline:
                pipeline.get(f"chat:{{{room}}}:seq")
                pipeline.lrange(f"chat:{{{room}}}:log", 0, -1)
                newest, lines = await pipeline.execute()
            first = int(newest or 0) - len(lines) + 1
            skipped = min(max(since + 1 - first, 0), len(lines))
            return first + skipped, lines[skipped:]

        return await self._until_it_works(read)

    # Presence -----------------------------------------------------------------------------

    async def here(self, room: str, names: list[str], seconds: float) -> tuple[int, int, list[str]]:
        """Say who is in a room on this server for some seconds; return who is there on all. Before
        it, a number that is higher in what is newer, and the number of the last message."""
        now = time.time()
        key = f"chat:{{{room}}}:here"
        async with self._redis.pipeline() as pipeline:
            if names:
                mine = json.dumps([now + seconds, names])
                pipeline.hset(key, self._me, mine)
                pipeline.expire(key, DAY)
            else:
                pipeline.hdel(key, self._me)
            pipeline.hgetall(key)
            pipeline.get(f"chat:{{{room}}}:seq")
            pipeline.incr(f"{key}:revision")
            *_, servers, newest, revision = await pipeline.execute()
        there = [json.loads(value) for value in servers.values()]
        everybody = sorted(name for until, names in there if until > now for name in names)
        return revision, int(newest or 0), everybody

    async def _until_it_works(self, act: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await act()
            except AWAY:
                await asyncio.sleep(0.1)
