"""A bus over Redis, Valkey, or what else speaks their protocol (extra `redis`).

    bus = RedisBus("redis://localhost:6379")

This module knows PUBLISH and SUBSCRIBE. It does not know clusters and sentinels: give it the
address of one server, or of what stands for one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.connection import ConnectionPool, parse_url
from redis.exceptions import NoPermissionError

from ._broker import BrokerBus, logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from redis.asyncio.connection import AbstractConnection

    from fastws.aio.retries import RetryPolicy

__all__ = ["RedisBus"]

# How many topics are named in one command.
_MOST: Final = 500


class RedisBus(BrokerBus):
    """Topics across processes, over Redis.

    What is guaranteed: messages of one publisher arrive in their order, at most once, and all of
    them while the broker can be reached. While it is away, published messages wait, up to
    `max_waiting` bytes; those that were on their way when it went away, or that came when too much
    waited, are lost. `on_gap` tells all processes that may have missed something, publishers'
    losses included.

    If a process takes messages too slowly, the broker ends the connection (its limit is
    `client-output-buffer-limit pubsub`), which is a gap.

    Args:
        url: redis://, rediss:// (TLS) or unix://, as for `redis.asyncio.Redis.from_url`.
        prefix: what channels begin with; the topic follows. Buses with the same prefix and the
            same broker belong together.
        on_gap: called in the event loop with a frozenset of topics when messages of them may have
            been lost, after the broker has subscribed this process again. What the application
            reads from its database then is not missed. If it returns a coroutine, a task runs it,
            and gaps meanwhile are told together afterwards.
        ping_interval: the time between two pings, in seconds. If the broker does not answer in
            that time, the bus reconnects.
        connect_timeout: how long to wait for the broker when connecting, in seconds.
        retry: how long to wait before each attempt to reconnect; by default up to 0.25 seconds
            at first, and up to 5 later.
        max_waiting: how many bytes may wait to be published. Each message counts 256 bytes more
            than it has; a larger one may wait alone.
        max_message_size: the largest message that may be published, in bytes.
        **options: passed to `redis.asyncio.ConnectionPool.from_url`: username, password,
            ssl_ca_certs, … The bus has its own `protocol`, `socket_timeout` and
            `socket_connect_timeout`, whatever these or the URL say.

    Raises:
        ValueError: if the URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "fastws:",
        on_gap: Callable[[frozenset[str]], object] | None = None,
        ping_interval: float = 10.0,
        connect_timeout: float = 5.0,
        retry: RetryPolicy | None = None,
        max_waiting: int = 8 << 20,
        max_message_size: int = 16 << 20,
        **options: Any,
    ) -> None:
        super().__init__(
            on_gap=on_gap,
            retry=retry,
            max_waiting=max_waiting,
            max_message_size=max_message_size,
        )
        # The pool only knows how to make connections; we keep them ourselves. (What the URL says
        # goes before what `from_url` is given.)
        ours: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": connect_timeout,
        }
        self._pool = ConnectionPool(**(options | dict(parse_url(url)) | ours))
        self._prefix = prefix.encode()
        self._ping_interval = ping_interval
        self._connect_timeout = connect_timeout

    async def _connect(self) -> _RedisLink:
        make: Callable[[], AbstractConnection] = self._pool.make_connection
        link = _RedisLink(
            make(),
            make(),
            self._prefix,
            self._ping_interval,
            self._receive,
        )
        try:
            async with asyncio.timeout(self._connect_timeout):
                await link.connect()
        except BaseException:
            await link.close()
            raise
        return link


class _RedisLink:
    """Two connections: one that is told of messages, and one to publish them."""

    def __init__(
        self,
        listening: AbstractConnection,
        speaking: AbstractConnection,
        prefix: bytes,
        ping_interval: float,
        receive: Callable[[str, bytes], None],
    ) -> None:
        self._listening = listening
        self._speaking = speaking
        self._prefix = prefix
        self._ping_interval = ping_interval
        self._receive = receive
        self._is_alive = True
        self._speaks = asyncio.Lock()
        # The topics that are being subscribed, and those being unsubscribed.
        self._unconfirmed: dict[bytes, set[bytes]] = {b"subscribe": set(), b"unsubscribe": set()}
        self._confirmed = asyncio.Event()
        self._refusal: str | None = None

    async def connect(self) -> None:
        for connection in (self._listening, self._speaking):
            connect: Callable[[], Awaitable[None]] = connection.connect
            await connect()
            # A broker that wants a password says so only now.
            await connection.send_command("PING", check_health=False)
            await connection.read_response(disable_decoding=True)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read())
                group.create_task(self._ping())
        except* Exception as exc:
            raise exc.exceptions[0] from None

    async def _read(self) -> None:
        read = self._listening.read_response
        skip = len(self._prefix)
        while True:
            try:
                response = await read(disable_decoding=True)
            except NoPermissionError as exc:
                self._refusal = str(exc)
                self._confirmed.set()
                continue
            self._is_alive = True
            kind = response[0]
            if kind == b"message":
                self._receive(response[1][skip:].decode("utf-8", "replace"), response[2])
            elif kind in self._unconfirmed:
                self._unconfirmed[kind].discard(response[1])
                self._confirmed.set()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_interval)
            if not self._is_alive:
                raise TimeoutError("the broker does not answer")
            self._is_alive = False
            await self._listening.send_command("PING", check_health=False)
            # The other connection may be idle, too, and lost before there is something to say.
            await self._ask([("PING",)])

    async def publish(self, batch: list[tuple[str, bytes]]) -> dict[str, str]:
        refusals = await self._ask(
            [("PUBLISH", self._prefix + topic.encode(), payload) for topic, payload in batch]
        )
        return {batch[number][0]: reason for number, reason in refusals.items()}

    async def _ask(self, commands: list[tuple[str | bytes, ...]]) -> dict[int, str]:
        """Send commands and wait for their responses; return which are not permitted, and why."""
        connection, refusals = self._speaking, {}
        try:
            async with self._speaks, asyncio.timeout(self._ping_interval):
                await connection.send_packed_command(
                    connection.pack_commands(commands), check_health=False
                )
                for number in range(len(commands)):
                    try:
                        await connection.read_response(disable_decoding=True)
                    except NoPermissionError as exc:
                        refusals[number] = str(exc)
        except TimeoutError:
            raise TimeoutError("the broker does not answer") from None
        return refusals

    async def subscribe(self, topics: list[str]) -> dict[str, str]:
        return await self._tell("subscribe", topics)

    async def unsubscribe(self, topics: list[str]) -> None:
        await self._tell("unsubscribe", topics)

    async def _tell(self, command: str, topics: list[str]) -> dict[str, str]:
        refusals = {}
        for start in range(0, len(topics), _MOST):
            some = topics[start : start + _MOST]
            if await self._tell_once(command, some):
                # None of them, because of one of them.
                for topic in some:
                    if reason := await self._tell_once(command, [topic]):
                        refusals[topic] = reason
        return refusals

    async def _tell_once(self, command: str, topics: list[str]) -> str | None:
        """Subscribe or unsubscribe some topics, all or none; return why none."""
        unconfirmed, self._refusal = self._unconfirmed[command.encode()], None
        channels = [self._prefix + topic.encode() for topic in topics]
        unconfirmed.update(channels)
        await self._listening.send_command(command.upper(), *channels, check_health=False)
        while unconfirmed and self._refusal is None:
            self._confirmed.clear()
            await self._confirmed.wait()
        unconfirmed.clear()
        return self._refusal

    async def close(self) -> None:
        await _disconnect((self._listening, self._speaking))


async def _disconnect(connections: Iterable[AbstractConnection]) -> None:
    for connection in connections:
        try:
            await connection.disconnect(nowait=True)
        except Exception as exc:
            logger.debug("could not disconnect: %s", exc)
