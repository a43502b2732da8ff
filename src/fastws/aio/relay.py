"""What topics and their bus tell each other.

This module knows that a bus takes messages one after the other, and must be told which topics have
subscribers here. It does not know who they are, nor how a bus works.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from fastws.spec import Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastws.bus import Bus
    from fastws.prepared import PreparedMessage

__all__ = ["Relay"]

logger = logging.getLogger("fastws.bus")

# How much may wait for `Bus.publish`, in bytes, and what a message costs beside its payload. The
# buses of fastws take a message at once, so nothing waits longer than to the loop's next turn.
_MAX_OUTBOX: Final = 32 << 20
_OVERHEAD: Final = 256
# How long `close` waits for that, in seconds.
_FAREWELL: Final = 2.0


class Relay:
    """Passes on what happens to topics.

    Args:
        bus: the bus.
        wants: says whether a topic has subscribers here.
    """

    def __init__(self, bus: Bus, wants: Callable[[str], bool]) -> None:
        self._bus = bus
        self._wants = wants
        self._outbox: deque[tuple[str, str | bytes, int]] = deque()  # and their sizes
        self._size = 0
        self._sending: asyncio.Task[None] | None = None
        self._dropped = 0
        # For each topic that the bus is being told of, the last task that does; those whose task
        # waits for the one before it; and the topics that the bus could not subscribe.
        self._changes: dict[str, asyncio.Task[None]] = {}
        self._next: set[str] = set()
        self._failed: set[str] = set()

    async def start(self, deliver: Callable[[str, str | bytes], None]) -> None:
        """Start the bus."""
        await self._bus.start(deliver)

    async def close(self) -> None:
        """Close the bus, after it has got what was published, if it takes that soon."""
        try:
            if self._sending is not None:
                await asyncio.wait([self._sending], timeout=_FAREWELL)
            tasks = list(self._changes.values())
            if self._sending is not None:
                tasks.append(self._sending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._bus.close()

    # Messages -----------------------------------------------------------------------------

    def publish(self, topic: str, message: PreparedMessage, text: str | None) -> None:
        """Have the bus publish a message after those before it.

        Args:
            topic: its topic.
            message: the message.
            text: the same as a str, if it was one.
        """
        data: str | bytes = message.payload if text is None else text
        if text is None and message.opcode is Opcode.TEXT:
            data = message.payload.decode()
        if self._size > _MAX_OUTBOX:
            self._drop(f"{self._size} bytes wait for the bus")
            return
        size = len(message.payload) + _OVERHEAD
        self._size += size
        self._outbox.append((topic, data, size))
        if self._sending is None:
            # (An eager task would run before it is stored.)
            self._sending = asyncio.Task(self._send(), loop=asyncio.get_running_loop())

    async def _send(self) -> None:
        try:
            while self._outbox:
                topic, message, size = self._outbox.popleft()
                self._size -= size
                try:
                    await self._bus.publish(topic, message)
                except Exception as exc:
                    self._drop(str(exc) or type(exc).__name__)
                else:
                    self._dropped = 0
        finally:
            self._sending = None

    def _drop(self, reason: str) -> None:
        # (One line for each time of trouble.)
        if not self._dropped:
            logger.warning("messages do not reach other processes: %s", reason)
        self._dropped += 1

    # Topics -------------------------------------------------------------------------------

    def change(self, topic: str) -> None:
        """Have the bus subscribe or unsubscribe a topic, whichever it is now."""
        if topic in self._next:
            return  # its task will see
        before = self._changes.get(topic)
        if before is not None:
            self._next.add(topic)
            before.cancel()  # it may be waiting for a broker that is away
        # (Not an eager one either.)
        task = asyncio.Task(self._tell(topic, before), loop=asyncio.get_running_loop())
        self._changes[topic] = task
        task.add_done_callback(lambda task: self._told(topic, task))

    async def _tell(self, topic: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
            self._next.discard(topic)
        if self._wants(topic):
            await self._bus.subscribe(topic)
        else:
            await self._bus.unsubscribe(topic)

    def _told(self, topic: str, task: asyncio.Task[None]) -> None:
        if self._changes.get(topic) is task:
            del self._changes[topic]
        self._failed.discard(topic)
        if not task.cancelled() and (exc := task.exception()) is not None:
            if self._wants(topic):
                self._failed.add(topic)
            logger.warning("topic %r does not get messages of other processes: %s", topic, exc)

    async def told(self, topic: str) -> None:
        """Wait until the bus knows about a topic; try again if it failed before.

        Raises:
            BusError, ValueError: if it cannot subscribe it.
        """
        if topic in self._failed and topic not in self._changes:
            self.change(topic)
        while (task := self._changes.get(topic)) is not None:
            await asyncio.wait([task])
            if self._changes.get(topic, task) is task and not task.cancelled():
                task.result()
                return
