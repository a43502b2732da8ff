"""Topics across processes and machines: what `Topics` needs of a bus.

A bus carries messages between the processes that have subscribers of a topic. Each process has one
bus and one subscription for each of its topics, however many connections subscribe to it; it
delivers to them itself. `RedisBus` (`fastws.bus.redis`) and `NatsBus` (`fastws.bus.nats`) are
buses over a broker. Anything else with these methods is one, too.

This module knows what a bus does. It does not know how, nor who the subscribers are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastws.exceptions import WebSocketError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bus", "BusError"]


class BusError(WebSocketError):
    """The bus cannot do this: it is closed, or too much waits for its broker."""


class Bus(Protocol):
    """Carries messages to the other processes, and theirs to this one.

    A bus belongs to one event loop and to one `Topics`, which calls `publish` for one message after
    the other, and never `subscribe` and `unsubscribe` of the same topic at the same time. The
    messages of one publisher arrive in their order, if they are of the same topic. A message
    arrives at most once, and its type (str or bytes) is kept.
    """

    async def start(self, deliver: Callable[[str, str | bytes], None]) -> None:
        """Connect.

        Args:
            deliver: called in the event loop with the topic and the message when a message from
                another process arrives. The messages of this process do not come back.

        Raises:
            BusError: if the bus cannot be used.
        """

    async def publish(self, topic: str, message: str | bytes) -> None:
        """Take a message for all other processes that have subscribed to its topic.

        Raises:
            BusError: if the message is dropped, because too much waits already.
        """

    async def subscribe(self, topic: str) -> None:
        """Have the messages of a topic delivered.

        This returns when no message of the topic that is published from now on is missed. Until
        then, messages may be delivered already. It is cancelled if its last subscriber leaves
        meanwhile; `unsubscribe` follows, or `subscribe` if there is another one by then.

        Raises:
            BusError: if that is impossible.
        """

    async def unsubscribe(self, topic: str) -> None:
        """Have no more messages of a topic delivered; do nothing if it is not subscribed."""

    async def close(self) -> None:
        """Send what waits, if that is possible soon, and disconnect."""
