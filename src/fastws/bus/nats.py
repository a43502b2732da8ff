"""A bus over NATS (extra `nats`).

    bus = NatsBus("nats://localhost:4222")

This module knows subjects and what nats-py does with them. JetStream is not used: NATS's core has
what topics need.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from nats.aio.client import Client
from nats.errors import MaxPayloadError, SlowConsumerError, UnexpectedEOF

from ._broker import BrokerBus, logger
from ._envelope import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from fastws.aio.retries import RetryPolicy

__all__ = ["NatsBus"]

# How much of one topic may wait in this process until the event loop gets to it.
_PENDING: Final = 16 << 20
# How long to wait for the end of a connection, in seconds.
_FAREWELL: Final = 1.0
# What a server says about a subject that is not ours to use.
_REFUSAL: Final = re.compile(r'permissions violation for (publish|subscription) to "(.*)"')
# It names the subscription if it has permitted that one before.
_WITHDRAWN: Final = '" (sid "'


class NatsBus(BrokerBus):
    """Topics across processes, over NATS.

    What is guaranteed: messages of one publisher and topic arrive in their order, at most once, and
    all of them while the broker can be reached. While it is away, published messages wait, up to
    `max_waiting` bytes; those that were on their way when it went away, or that came when too much
    waited, are lost. `on_gap` tells all processes that may have missed something, publishers'
    losses included.

    If a process takes messages too slowly, 16 MiB of a topic wait in it; what is more is lost,
    which is a gap.

    Args:
        servers: the URL of a server, or several of a cluster.
        prefix: the first token of subjects, or several with dots between; the topic follows, with
            what NATS does not allow in a token encoded as in URLs. Buses with the same prefix and
            the same broker belong together.
        on_gap: called in the event loop with a frozenset of topics when messages of them may have
            been lost, after the broker has subscribed this process again. What the application
            reads from its database then is not missed. If it returns a coroutine, a task runs it,
            and gaps meanwhile are told together afterwards.
        ping_interval: the time between two pings, in seconds. If the broker does not answer two
            of them, the bus reconnects.
        connect_timeout: how long to wait for a server when connecting, in seconds.
        retry: how long to wait before each attempt to reconnect; by default up to 0.25 seconds
            at first, and up to 5 later.
        max_waiting: how many bytes may wait to be published. Each message counts 256 bytes more
            than it has; a larger one may wait alone.
        max_message_size: the largest message that may be published, in bytes. Servers have a
            limit of their own, `max_payload`; 9 bytes less are the limit if that is smaller.
        **options: passed to `nats.connect`: user, password, token, user_credentials, tls, …

    Raises:
        ValueError: if subjects cannot begin with the prefix.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        prefix: str = "fastws",
        on_gap: Callable[[frozenset[str]], object] | None = None,
        ping_interval: float = 10.0,
        connect_timeout: float = 5.0,
        retry: RetryPolicy | None = None,
        max_waiting: int = 8 << 20,
        max_message_size: int = (1 << 20) - HEADER_SIZE,
        **options: Any,
    ) -> None:
        super().__init__(
            on_gap=on_gap,
            retry=retry,
            max_waiting=max_waiting,
            max_message_size=max_message_size,
        )
        # Each of its tokens must be one.
        if not re.fullmatch(r"[^\s.*>]+(\.[^\s.*>]+)*", prefix):
            raise ValueError(f"prefix cannot be the beginning of a subject: {prefix!r}")
        self._prefix = prefix
        self._most = max_message_size
        self._servers = servers if isinstance(servers, str) else list(servers)
        self._options = options | {
            "connect_timeout": connect_timeout,
            "ping_interval": ping_interval,
            # We reconnect ourselves: so nothing waits in two places, and no gap goes unnoticed.
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "no_echo": True,
        }

    async def _connect(self) -> _NatsLink:
        link = _NatsLink(self._prefix, self._receive, self._tell_gap)
        try:
            await link.connect(self._servers, self._options)
        except BaseException:
            await link.close()
            raise
        self._max_message_size = min(self._most, link.max_payload - HEADER_SIZE)
        return link


class _NatsLink:
    """One connection to a server."""

    def __init__(
        self,
        prefix: str,
        receive: Callable[[str, bytes], None],
        tell_gap: Callable[[list[str]], None],
    ) -> None:
        self._prefix = prefix
        self._receive = receive
        self._tell_gap = tell_gap
        self._client = Client()
        self._subscriptions: dict[str, Subscription] = {}
        self._is_connected = False
        self._lost = asyncio.Event()
        self._error: Exception | None = None
        # What the server does not permit: to publish or to subscribe which subject, in small
        # letters, as nats-py gives it.
        self._refusals: dict[tuple[str, str], str] = {}

    async def connect(self, servers: str | list[str], options: dict[str, Any]) -> None:
        await self._client.connect(
            servers, **options, error_cb=self._on_error, closed_cb=self._on_closed
        )
        self._is_connected = True
        # Older versions of nats-py often end without calling closed_cb; but they stop reading.
        reading = getattr(self._client, "_reading_task", None)
        if reading is not None:
            reading.add_done_callback(lambda _: self._lost.set())

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    async def _on_error(self, exc: Exception) -> None:
        if isinstance(exc, SlowConsumerError):
            for topic, subscription in self._subscriptions.items():
                if subscription is exc.sub:
                    self._tell_gap([topic])
                    break
            return
        withdrawn = _WITHDRAWN in str(exc)
        refusal = None if withdrawn else _REFUSAL.search(str(exc))
        if refusal:
            self._refusals[refusal[1], refusal[2]] = refusal[0]
        else:
            self._error = exc
            # (A new connection learns what is permitted now. If a write fails, nats-py forgets to
            # call closed_cb.)
            if self._is_connected and (withdrawn or isinstance(exc, (OSError, UnexpectedEOF))):
                self._lost.set()

    async def _on_closed(self) -> None:
        self._lost.set()

    async def run(self) -> None:
        await self._lost.wait()
        raise self._error or self._client.last_error or ConnectionError("the connection has ended")

    async def publish(self, batch: list[tuple[str, bytes]]) -> dict[str, str]:
        too_large = {}
        for topic, payload in batch:
            try:
                await self._client.publish(self._subject(topic), payload)
            except MaxPayloadError as exc:
                # Only if it waited while the broker was away, and came back with another limit.
                too_large[topic] = str(exc)
        await self._flush()
        return too_large | self._refused("publish", {topic for topic, _ in batch})

    async def subscribe(self, topics: list[str]) -> dict[str, str]:
        refused: dict[str, str] = {}
        while topics:
            # (What is refused of those that differ only in case could not be told apart.)
            some = {self._subject(topic).lower(): topic for topic in topics}.values()
            refused |= await self._subscribe_some(some)
            topics = [topic for topic in topics if topic not in self._subscriptions]
        if refused:
            await self.unsubscribe(list(refused))
        return refused

    async def _subscribe_some(self, topics: Collection[str]) -> dict[str, str]:
        for topic in topics:
            self._subscriptions[topic] = await self._client.subscribe(
                self._subject(topic),
                cb=partial(self._on_message, topic),
                pending_msgs_limit=0,
                pending_bytes_limit=_PENDING,
            )
        await self._flush()
        return self._refused("subscription", topics)

    async def unsubscribe(self, topics: list[str]) -> None:
        for topic in topics:
            await self._subscriptions.pop(topic).unsubscribe()
        await self._flush()

    def _refused(self, what: str, topics: Iterable[str]) -> dict[str, str]:
        """Return for which of these topics the server has not permitted it, with its words."""
        refused = {}
        if self._refusals:
            keys = {topic: (what, self._subject(topic).lower()) for topic in topics}
            for topic, key in keys.items():
                if (reason := self._refusals.get(key)) is not None:
                    refused[topic] = reason
            for key in keys.values():
                self._refusals.pop(key, None)
        return refused

    async def _flush(self) -> None:
        # A PING goes before what nats-py has not written yet, so its answer would mean nothing.
        await asyncio.sleep(0)
        while self._client.pending_data_size and self._client.is_connected:
            await self._client.flush()
        await self._client.flush()
        if not self._client.is_connected:
            raise ConnectionError("the connection has ended")

    async def _on_message(self, topic: str, msg: Msg) -> None:
        self._receive(topic, msg.data)

    def _subject(self, topic: str) -> str:
        # A token has no dots, blanks and wildcards, and is not empty: "%" is no topic otherwise.
        return f"{self._prefix}.{quote(topic, safe='/:').replace('.', '%2E') or '%'}"

    async def close(self) -> None:
        # If the connection is lost while something is written, nats-py leaves these tasks behind.
        tasks = [
            task
            for subscription in self._subscriptions.values()
            if (task := getattr(subscription, "_wait_for_msgs_task", None)) is not None
        ]
        try:
            # (After a TLS handshake that failed, nats-py waits forever for the end.)
            async with asyncio.timeout(_FAREWELL):
                await self._client.close()
        except Exception as exc:
            logger.debug("could not close the connection: %s", exc)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
