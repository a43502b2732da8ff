"""Topics: who gets which published messages, in one process.

    topics = fastws.Topics()

    async def chat(ws):
        topics.subscribe(ws, "room:42")
        async for message in ws:
            topics.publish("room:42", message)

This module knows which connections have subscribed to which topic, and that they leave when they
end. It does not know how a message reaches them, or what happens if one of them is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastws.prepared import PreparedMessage, prepare
from fastws.spec import (
    DEFAULT_TOPICS_MAX_TOTAL_UNSENT_SIZE,
    DEFAULT_TOPICS_MAX_UNSENT_SIZE,
    DEFAULT_TOPICS_WAIT_TIMEOUT,
)

from .fanout import Budget, Policy, Published, check_policy, fan_out
from .receivers import SupportsSend, receiver_of
from .relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from typing import Self

    from typing_extensions import Buffer

    from fastws.bus import Bus
    from fastws.events import Text

    from .receivers import Receiver

__all__ = ["Policy", "Published", "SupportsSend", "Topics", "broadcast"]


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__!r}")


class Topics:
    """Connections that subscribe to topics, and get what is published there.

    A topic exists while a connection is subscribed to it. A connection leaves all its topics when
    it is no longer open; nothing has to be called for that.

    A connection is a `WebSocket`, a `WebSocketProtocol`, or any object with a method `send` that
    takes a str or bytes. An object of the last kind ends when its `send` raises an exception.

    `len(topics)` is the number of topics, and iterating yields their names as they are at the
    beginning. Use an instance only in the event loop of its connections.

    Args:
        slow: what to do about a receiver if too much is unsent on its connection. "close": close
            it with 1008. "drop": it misses the message. "latest": the message waits, and replaces
            one with the same key that waits. "wait": `await publish(…)` waits for it. Or a
            function that takes a topic and returns one of these.
        max_unsent_size: how much may be unsent on a connection, in bytes, before that happens;
            None for no limit. A connection is never slow if at most its `write_limit` is unsent.
            A message that waits for its turn to be sent counts 256 bytes more than it has.
        max_total_unsent_size: the same for all slow connections together.
        wait_timeout: how long "wait" waits, in seconds, before it closes a connection with 1008;
            None for no timeout.
        bus: carries what is published to the topics of other processes, and back; None for the
            topics of this process alone. Enter `async with topics:`, or call `start`, before
            using the topics. The bus carries topics and messages only: for the receivers of
            other processes, `publish` has no `exclude`, no `key` and the default of `slow`, and
            "wait" skips them if they have no room.

    Raises:
        TypeError, ValueError: if an argument is invalid.
    """

    def __init__(
        self,
        *,
        slow: Policy | Callable[[str], Policy] = "close",
        max_unsent_size: int | None = DEFAULT_TOPICS_MAX_UNSENT_SIZE,
        max_total_unsent_size: int | None = DEFAULT_TOPICS_MAX_TOTAL_UNSENT_SIZE,
        wait_timeout: float | None = DEFAULT_TOPICS_WAIT_TIMEOUT,
        bus: Bus | None = None,
    ) -> None:
        if not callable(slow):
            check_policy(slow)
        self._slow = slow
        self._budget = Budget(max_unsent_size, max_total_unsent_size, wait_timeout)
        # By ids, because a class of the application's may have its own notion of equality.
        self._receivers: dict[str, dict[int, Receiver]] = {}
        self._subscriptions: dict[int, set[str]] = {}
        self._relay = None if bus is None else Relay(bus, self._receivers.__contains__)

    # With other processes -------------------------------------------------------------------

    async def start(self) -> None:
        """Start the bus; do nothing without one.

        Raises:
            BusError: if the bus cannot be started.
        """
        if self._relay is not None:
            await self._relay.start(self._arrived)
            for topic in self:
                self._relay.change(topic)

    async def close(self) -> None:
        """Close the bus, after it has sent what was published; do nothing without one."""
        if self._relay is not None:
            await self._relay.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_subscribed(self, topic: str) -> None:
        """Wait until no message of other processes is missed that is published to a topic from now
        on: from the first `subscribe` of a topic, it takes the bus a moment. Without a bus, or
        without subscribers here, this returns at once. It also does so for a topic that was
        subscribed before the broker went away: `on_gap` of the bus tells when it is back.

        If the bus could not subscribe to the topic before, it tries again.

        Raises:
            BusError: if the bus cannot subscribe to the topic.
            ValueError: if the topic's name is too long for the bus.
        """
        if self._relay is not None:
            await self._relay.told(topic)

    # Who gets what ----------------------------------------------------------------------

    def subscribe(self, connection: SupportsSend, topic: str) -> None:
        """Have a connection get what is published to a topic. Does nothing if it does already.

        Raises:
            TypeError: if the topic is not a str, or the connection has no method `send`.
            ConnectionClosed: if the connection is not open.
        """
        _check_topic(topic)
        receiver = receiver_of(connection)
        topics = self._subscriptions.get(id(receiver))
        if topics is None:
            receiver._watch(self._left)
            topics = self._subscriptions[id(receiver)] = set()
        if topic not in topics:
            topics.add(topic)
            receivers = self._receivers.get(topic)
            if receivers is None:
                receivers = self._receivers[topic] = {}
                self._began(topic)
            receivers[id(receiver)] = receiver

    def unsubscribe(self, connection: SupportsSend, topic: str) -> None:
        """Stop sending a connection what is published to a topic. Does nothing if it is not
        subscribed."""
        receiver = receiver_of(connection)
        topics = self._subscriptions.get(id(receiver))
        if topics is not None and topic in topics:
            topics.discard(topic)
            self._remove(receiver, topic)
            if not topics:
                receiver._unwatch(self._left)
                del self._subscriptions[id(receiver)]
                self._budget.forget(receiver)

    def of(self, connection: SupportsSend) -> frozenset[str]:
        """Return the topics that a connection is subscribed to."""
        return frozenset(self._subscriptions.get(id(receiver_of(connection)), ()))

    def count(self, topic: str) -> int:
        """Return how many connections are subscribed to a topic."""
        return len(self._receivers.get(topic, ()))

    def __len__(self) -> int:
        return len(self._receivers)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._receivers))

    def __contains__(self, topic: object) -> bool:
        return topic in self._receivers

    # (An object without topics must not be false.)
    def __bool__(self) -> bool:
        return True

    # Publishing -------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        message: str | Text | Buffer | PreparedMessage,
        *,
        exclude: SupportsSend | None = None,
        slow: Policy | None = None,
        key: Hashable = None,
        compress: bool | None = None,
    ) -> Published:
        """Send a message to all connections that are subscribed to a topic.

        The message is encoded once, and compressed once for all connections that compress in the
        same way. Each connection gets what is sent and published to it in the order of the calls.
        An exception is what `latest` holds back for a `WebSocketProtocol`: its `send` does not
        wait for that.

        This can be called from callbacks and coroutines. Awaiting the result waits for slow
        receivers if the policy is "wait", and lets other tasks run.

        Args:
            topic: the topic.
            message: text (str or Text), binary (bytes-like), or what `prepare` returned.
            exclude: a connection that does not get the message, such as the one that it is from.
            slow: what to do about slow receivers; None: what the topic has. "wait" skips a
                receiver that has no room, unless the result is awaited.
            key: for "latest": a message that waits is replaced by the next one with the same topic
                and key.
            compress: whether to compress the message on connections that can; None to decide by
                its size. It is done at once: a large message takes its time.

        Returns:
            how many connections it went to; can be awaited.

        Raises:
            TypeError: if `message`, `topic`, `exclude` or `key` is none of these.
            ValueError: if `message` has lone surrogates, or the policy is unknown.
            RuntimeError: if this is not called in the event loop of the connections.
        """
        _check_topic(topic)
        prepared = message if isinstance(message, PreparedMessage) else prepare(message)
        published = self._deliver(topic, prepared, exclude, slow, key, compress)
        if self._relay is not None:
            self._relay.publish(topic, prepared, message if isinstance(message, str) else None)
        return published

    def _deliver(
        self,
        topic: str,
        message: PreparedMessage,
        exclude: SupportsSend | None = None,
        slow: Policy | None = None,
        key: Hashable = None,
        compress: bool | None = None,
    ) -> Published:
        """Send a message to the connections of this process."""
        if slow is not None:
            check_policy(slow)
        elif callable(self._slow):
            slow = self._slow(topic)
            check_policy(slow)
        else:
            slow = self._slow
        # (Some may leave meanwhile.)
        receivers = list(self._receivers.get(topic, {}).values())
        return _send(message, receivers, exclude, self._budget, slow, (topic, key), compress)

    # The bus --------------------------------------------------------------------------------

    def _arrived(self, topic: str, message: str | bytes) -> None:
        self._deliver(topic, prepare(message))

    def _began(self, topic: str) -> None:
        """The first connection has subscribed to a topic."""
        if self._relay is not None:
            self._relay.change(topic)

    def _ceased(self, topic: str) -> None:
        """The last connection has left a topic."""
        if self._relay is not None:
            self._relay.change(topic)

    # Connections that end -------------------------------------------------------------------

    def _left(self, receiver: Receiver) -> None:
        for topic in self._subscriptions.pop(id(receiver), ()):
            self._remove(receiver, topic)
        self._budget.forget(receiver)

    def _remove(self, receiver: Receiver, topic: str) -> None:
        receivers = self._receivers[topic]
        del receivers[id(receiver)]
        if not receivers:
            del self._receivers[topic]
            self._ceased(topic)


def broadcast(
    connections: Iterable[SupportsSend],
    message: str | Text | Buffer | PreparedMessage,
    *,
    exclude: SupportsSend | None = None,
    slow: Policy = "close",
    key: Hashable = None,
    compress: bool | None = None,
    max_unsent_size: int | None = DEFAULT_TOPICS_MAX_UNSENT_SIZE,
    max_total_unsent_size: int | None = DEFAULT_TOPICS_MAX_TOTAL_UNSENT_SIZE,
    wait_timeout: float | None = DEFAULT_TOPICS_WAIT_TIMEOUT,
) -> Published:
    """Send a message to several connections, as `Topics.publish` does for those of a topic.

    Args:
        connections: the connections. They may be a set that changes when one of them ends.
        message: text (str or Text), binary (bytes-like), or what `prepare` returned.
        exclude: a connection that does not get the message.
        slow, key, compress: as for `Topics.publish`.
        max_unsent_size, max_total_unsent_size, wait_timeout: as for `Topics`; the total is that of
            these connections.

    Returns:
        how many connections it went to; can be awaited.

    Raises:
        TypeError, ValueError: if an argument is invalid.
        RuntimeError: if this is not called in the event loop of the connections.
    """
    check_policy(slow)
    prepared = message if isinstance(message, PreparedMessage) else prepare(message)
    receivers = [receiver_of(connection) for connection in list(connections)]
    budget = Budget(max_unsent_size, max_total_unsent_size, wait_timeout, receivers)
    return _send(prepared, receivers, exclude, budget, slow, ("", key), compress)


def _send(
    message: PreparedMessage,
    receivers: list[Receiver],
    exclude: SupportsSend | None,
    budget: Budget,
    slow: Policy,
    key: Hashable,
    compress: bool | None,
) -> Published:
    hash(key)  # raises TypeError now, and not only if a receiver is slow
    if exclude is not None:
        excluded = receiver_of(exclude)
        receivers = [receiver for receiver in receivers if receiver is not excluded]
    return fan_out(message, receivers, budget, slow, key, compress)
