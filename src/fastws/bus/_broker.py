"""A bus over a broker: what waits for it, what is subscribed, and what is done when it is away.

This module knows queues, subscriptions and reconnecting. It does not know how to speak to a
broker: that is the job of a `Link`, of which there is one for each connection to the broker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastws.aio.retries import RetryPolicy

from . import BusError
from ._envelope import GAP, HEADER_SIZE, new_origin, open_envelope, seal, seal_gap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

__all__ = ["BrokerBus", "Link"]

logger = logging.getLogger("fastws.bus")

# The longest name of a topic, in bytes of UTF-8: NATS ends the connection if a line is too long.
MAX_TOPIC_SIZE: Final = 1024
# What each waiting message costs beside its bytes. So empty ones are bounded, too.
_OVERHEAD: Final = 256
# How much is given to the broker at once, before it has confirmed it.
_BATCH: Final = 256 << 10
# How many refused topics the log names.
_MAX_COMPLAINTS: Final = 20
# How long `close` waits for the broker to take what waits, in seconds.
_FAREWELL: Final = 2.0


class Link(Protocol):
    """A connection to a broker. If a method raises, the connection is of no more use.

    What the broker refuses is no reason for that: `publish` and `subscribe` return the topics of
    which it does not take or send messages, with what it says about them.
    """

    async def run(self) -> None:
        """Receive until the connection is lost; then raise."""

    async def publish(self, batch: list[tuple[str, bytes]]) -> dict[str, str]:
        """Return when the broker has these messages, in this order."""

    async def subscribe(self, topics: list[str]) -> dict[str, str]:
        """Return when the broker sends the messages of these topics."""

    async def unsubscribe(self, topics: list[str]) -> None:
        """Return when the broker knows."""

    async def close(self) -> None:
        """Close the connection; do not raise."""


class BrokerBus:
    """A bus over a broker; a subclass says how to connect.

    Args:
        on_gap: called with a frozenset of topics when messages of them may have been lost; if it
            returns a coroutine, a task runs it, and gaps meanwhile are told together afterwards.
        retry: how long to wait before each attempt to reconnect.
        max_waiting: how many bytes may wait to be published, if that is more than one message.
        max_message_size: the largest message that the broker takes, in bytes.
    """

    def __init__(
        self,
        *,
        on_gap: Callable[[frozenset[str]], object] | None,
        retry: RetryPolicy | None,
        max_waiting: int,
        max_message_size: int,
    ) -> None:
        self._on_gap = on_gap
        self._retry = retry or RetryPolicy(initial_delay=0.25, factor=2.0, max_delay=5.0)
        self._max_waiting = max_waiting
        self._max_message_size = max_message_size
        self._origin = new_origin()
        self._deliver: Callable[[str, str | bytes], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        # What waits, its size, and the topics of what may not have arrived.
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._lost: set[str] = set()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        # Each topic's future is done when the broker has subscribed us, or says why it does not.
        # Topics that the broker may have to be told about are in `_changes`; those whose messages
        # we may have missed, and of which `on_gap` has not been told, in `_missed`.
        self._topics: dict[str, asyncio.Future[str | None]] = {}
        self._changes: set[str] = set()
        self._changed = asyncio.Event()
        self._missed: set[str] = set()
        # The topics that `on_gap` has yet to be told of: it runs once at a time.
        self._gaps: set[str] = set()
        self._gap_task: asyncio.Task[None] | None = None
        # What has been complained of already.
        self._complaints: set[str] = set()

    async def _connect(self) -> Link:
        """Return a new connection; raise OSError or whatever the broker's library raises."""
        raise NotImplementedError

    @property
    def waiting_size(self) -> int:
        """How many bytes wait to be published, with what each message costs beside its bytes."""
        return self._size

    async def start(self, deliver: Callable[[str, str | bytes], None]) -> None:
        """Connect to the broker.

        Only this first attempt can fail. Later, the bus reconnects by itself.

        Args:
            deliver: called with the topic and the message for each message from another process.

        Raises:
            BusError: if the broker cannot be reached or refuses us; if the bus was started before,
                such as by other topics; or if it is closed meanwhile.
        """
        if self._deliver is not None:
            raise BusError("the bus has already been started: each Topics needs its own")
        self._deliver = deliver
        try:
            link = await self._connect()
        except BaseException as exc:
            self._deliver = None
            if not isinstance(exc, Exception):
                raise  # cancelled
            raise BusError(f"cannot connect to the broker: {_describe(exc)}") from exc
        if self._is_closed:
            await link.close()
            raise BusError("the bus was closed")
        self._task = asyncio.get_running_loop().create_task(self._stay_connected(link))

    async def close(self) -> None:
        """Send what waits, if the broker takes it within 2 seconds, and disconnect."""
        task, self._task = self._task, None
        if task is None:
            self._is_closed = self._deliver is not None  # and connects
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._idle.wait()
        finally:
            if self._size:
                logger.warning("closing with %d bytes that the broker did not take", self._size)
            # (This task ends others; it must have the time for that.)
            await _end([task], patience=1.0)
            self._forget()
            self._gaps.clear()
        await _end([] if self._gap_task is None else [self._gap_task])

    def _forget(self) -> None:
        for future in self._topics.values():
            future.cancel()
        self._topics.clear()
        self._waiting.clear()
        self._size = 0
        self._idle.set()

    async def publish(self, topic: str, message: str | bytes) -> None:
        """Queue a message for all other processes that have subscribed to its topic.

        This does not wait for the broker. While the broker is away, messages wait, up to
        `max_waiting` bytes; a larger one only waits alone.

        Raises:
            BusError: if the message is dropped because too much waits, or if the bus is closed.
            ValueError: if the message or the name of the topic is too long.
        """
        if self._task is None:
            raise BusError("the bus is not connected: it was closed, or not started")
        name_size = _check_topic(topic)
        data = seal(self._origin, message)
        if len(data) > self._max_message_size + HEADER_SIZE:
            self._lose([topic])
            raise ValueError(
                f"message must be at most {self._max_message_size} bytes, "
                f"not {len(data) - HEADER_SIZE}"
            )
        size = len(data) + name_size + _OVERHEAD
        if self._size and self._size + size > self._max_waiting:
            self._lose([topic])
            raise BusError(f"{self._size} bytes are already waiting for the broker")
        self._size += size
        self._waiting.append((topic, data))
        self._idle.clear()
        self._news.set()

    async def subscribe(self, topic: str) -> None:
        """Have the messages of a topic delivered.

        This waits until the broker knows; while the broker is away, until it is back. If the
        coroutine is cancelled, the topic remains subscribed.

        Raises:
            BusError: if the broker refuses the topic, or if the bus is closed. A refused topic is
                tried again when the bus reconnects.
            ValueError: if the name of the topic is too long.
        """
        if self._task is None:
            raise BusError("the bus is not connected: it was closed, or not started")
        _check_topic(topic)
        future = self._topics.get(topic)
        if future is None or (future.done() and future.result()):
            future = self._topics[topic] = asyncio.get_running_loop().create_future()
            self._change(topic)
        await asyncio.wait([future])
        if future.cancelled():
            raise BusError(f"topic {topic!r} was unsubscribed, or the bus was closed")
        if reason := future.result():
            raise BusError(f"the broker refuses topic {topic!r}: {reason}")

    async def unsubscribe(self, topic: str) -> None:
        """Have no more messages of a topic delivered; do nothing if it is not subscribed."""
        future = self._topics.pop(topic, None)
        if future is not None:
            future.cancel()
            self._gaps.discard(topic)
            self._change(topic)

    def _change(self, topic: str) -> None:
        self._changes.add(topic)
        self._changed.set()

    # With a broker, and without -------------------------------------------------------------

    def _lose(self, topics: Iterable[str]) -> None:
        """Note that messages of ours are lost, so that the others are told."""
        for topic in topics:
            if len(self._lost) * _OVERHEAD < self._max_waiting:
                self._lost.add(topic)
                self._news.set()

    async def _stay_connected(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        delays = self._retry.delays()
        while True:
            began = loop.time()
            try:
                exc = await self._use(link)
            finally:
                await link.close()
            # (A broker may take connections only to end them.)
            if loop.time() - began > self._retry.max_delay:
                delays = self._retry.delays()
            for topic, future in self._topics.items():
                if future.done():
                    self._missed.add(topic)
                    self._topics[topic] = loop.create_future()
            logger.warning("lost the broker, reconnecting: %s", _describe(exc))
            link = await self._reconnect(delays)
            logger.warning("the broker is back")

    async def _reconnect(self, delays: Iterator[float]) -> Link:
        said = None
        for delay in delays:
            await asyncio.sleep(delay)
            try:
                return await self._connect()
            except Exception as exc:
                # (Another reason is worth another line.)
                if said != _describe(exc):
                    said = _describe(exc)
                    logger.warning("cannot connect to the broker: %s", said)
        raise AssertionError("delays never end")

    async def _use(self, link: Link) -> BaseException:
        """Use a connection until it is lost; return why."""
        works: tuple[Coroutine[Any, Any, None], ...] = (
            link.run(),
            self._keep_subscribed(link),
            self._publish_waiting(link),
        )
        tasks = [asyncio.get_running_loop().create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)
        return next(iter(done)).exception() or ConnectionError("the connection has ended")

    async def _keep_subscribed(self, link: Link) -> None:
        """Have the broker send what is wanted, whenever that changes."""
        active: set[str] = set()
        self._changes = set(self._topics)
        while True:
            changes, self._changes = self._changes, set()
            added = [topic for topic in changes if topic in self._topics and topic not in active]
            dropped = [topic for topic in changes if topic in active and topic not in self._topics]
            refused: dict[str, str] = {}
            if added:
                refused = await link.subscribe(added)
                active.update(topic for topic in added if topic not in refused)
            if dropped:
                await link.unsubscribe(dropped)
                active.difference_update(dropped)
            for topic in changes:
                future = self._topics.get(topic)
                if future is not None and not future.done() and topic in active | refused.keys():
                    future.set_result(refused.get(topic))
                    if topic in refused and topic in self._missed:
                        self._complain(f"the broker refuses topic {topic!r}: {refused[topic]}")
            missed, self._missed = self._missed, set()
            self._tell_gap(topic for topic in missed & active if topic in self._topics)
            if not self._changes:
                self._changed.clear()
                await self._changed.wait()

    async def _publish_waiting(self, link: Link) -> None:
        while True:
            if self._lost:
                topics, self._lost = self._lost, set()
                gap = seal_gap(self._origin)
                try:
                    # (What it refuses even now, it will not take later.)
                    await link.publish([(topic, gap) for topic in topics])
                except BaseException:
                    self._lost |= topics
                    raise
            batch, size = [], 0
            while self._waiting and size < _BATCH:
                batch.append(self._waiting.popleft())
                size += _cost(*batch[-1])
            if not batch:
                if not self._lost:
                    self._news.clear()
                    await self._news.wait()
                continue
            try:
                refused = await link.publish(batch)
            except BaseException:
                # The broker may have them or not. They are not sent again: at most once.
                self._lose(topic for topic, _ in batch)
                raise
            else:
                for topic, reason in refused.items():
                    self._complain(f"the broker refuses messages of topic {topic!r}: {reason}")
                self._lose(refused)
            finally:
                self._size -= size
                if not self._size:
                    self._idle.set()

    # For links ------------------------------------------------------------------------------

    def _receive(self, topic: str, data: bytes) -> None:
        if topic not in self._topics:
            return  # unsubscribed; the broker does not know yet
        try:
            origin, message = open_envelope(data)
        except ValueError:
            self._complain(f"ignored what is not from a bus, in topic {topic!r}")
            return
        if origin == self._origin:
            return
        if not isinstance(message, (str, bytes)):
            assert message is GAP
            self._tell_gap([topic])
            return
        assert self._deliver is not None
        try:
            self._deliver(topic, message)
        except Exception:
            logger.exception("could not deliver a message of topic %r", topic)

    def _tell_gap(self, topics: Iterable[str]) -> None:
        if self._on_gap is None:
            return
        self._gaps.update(topics)
        if not self._gaps or self._gap_task is not None:
            return
        names = frozenset(self._gaps)
        self._gaps.clear()
        try:
            result = self._on_gap(names)
        except Exception:
            logger.exception("on_gap failed")
            return
        if inspect.isawaitable(result):
            self._gap_task = asyncio.get_running_loop().create_task(_log_failure(result))
            self._gap_task.add_done_callback(self._gap_told)

    def _gap_told(self, _: asyncio.Task[None]) -> None:
        self._gap_task = None
        self._tell_gap(())

    def _complain(self, complaint: str) -> None:
        # (Once, and of some topics only: clients may choose their names.)
        if complaint not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add(complaint)
            logger.warning("%s", complaint)


async def _log_failure(result: Awaitable[object]) -> None:
    try:
        await result
    except Exception:
        logger.exception("on_gap failed")


async def _end(tasks: Iterable[asyncio.Task[None]], patience: float = 0.05) -> None:
    """Cancel tasks until they have ended. Once is not enough: nats-py swallows cancellations."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=patience)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that asyncio does not report it


def _cost(topic: str, data: bytes) -> int:
    return len(data) + len(topic.encode()) + _OVERHEAD


def _check_topic(topic: str) -> int:
    """Return the size of a topic's name.

    Raises:
        ValueError: if it is too long.
    """
    size = len(topic.encode())
    if size > MAX_TOPIC_SIZE:
        raise ValueError(f"topic must be at most {MAX_TOPIC_SIZE} bytes, not {size}")
    return size


def _describe(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
