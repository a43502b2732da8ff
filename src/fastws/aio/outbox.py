"""Published messages that wait for one receiver, which is busy or takes too little.

This module knows the order of these messages, and that the newest of a kind can replace an older
one. It does not know how many may wait, or who published them.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Final, TypeAlias

from fastws.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable

    from fastws.prepared import PreparedMessage

    from .receivers import Receiver

    _Entry: TypeAlias = tuple[PreparedMessage, bool | None, asyncio.Future[None] | None]

__all__ = ["Outbox", "cost"]

# What each message that waits costs beside its payload, in bytes. So short ones are bounded, too.
_OVERHEAD: Final = 256


def cost(message: PreparedMessage) -> int:
    """Return how many bytes a message takes while it waits."""
    return len(message.payload) + _OVERHEAD


class Outbox:
    """The messages that wait for one receiver, and the task that sends them.

    It has a place in the line of those who send on the connection, and lasts until nothing waits,
    or the connection ends.

    Args:
        receiver: where to send the messages.
        running: what is being sent already, and must be awaited first.

    Attributes:
        size: how many bytes wait, with what each message costs beside its payload.
    """

    __slots__ = ("_entries", "_place", "_running", "_senders", "_task", "size")

    def __init__(self, receiver: Receiver, running: Awaitable[object] | None = None) -> None:
        self.size = 0
        # By their keys, which are unique objects for messages that nothing replaces.
        self._entries: dict[Hashable, _Entry] = {}
        self._running = running
        loop = asyncio.get_running_loop()
        self._senders = receiver._waiting_senders()
        self._senders.outboxes.append(self)
        self._place = self._senders.line_up()
        # (A task created by an eager task factory would run at once.)
        self._task = asyncio.Task(self._send_all(receiver), loop=loop)
        # It may be cancelled before it has begun.
        self._task.add_done_callback(lambda _: self._end())

    def put(
        self,
        message: PreparedMessage,
        compress: bool | None,
        key: Hashable = None,
        sent: asyncio.Future[None] | None = None,
    ) -> None:
        """Let a message wait.

        Args:
            message: the message.
            compress: whether to compress it.
            key: a message with the same key that waits is replaced; None: nothing is replaced.
            sent: is done when the message was sent, or never will be.
        """
        if key is None:
            key = object()
        self.size += cost(message) - (self.cost_of(key) or 0)
        self._entries[key] = (message, compress, sent)

    def cost_of(self, key: Hashable) -> int | None:
        """Return the cost of the message with this key that waits; None if none does."""
        entry = self._entries.get(key)
        return None if entry is None else cost(entry[0])

    def is_last(self) -> bool:
        """Return whether nobody has lined up since. If somebody has, what is published now has to
        wait in another outbox."""
        return self._senders.is_last(self._place)

    def cancel(self) -> None:
        """Drop what waits, and interrupt what is being sent."""
        self._task.cancel()
        self._end()

    async def _send_all(self, receiver: Receiver) -> None:
        try:
            running, self._running = self._running, None
            if running is not None:
                await receiver._finish(running)
            await self._place
            while self._entries:
                while receiver._write_paused and receiver._is_open():
                    await receiver._drain()
                key = next(iter(self._entries))
                message, compress, sent = self._entries.pop(key)
                try:
                    running = receiver._offer(message, compress=compress)
                    if running is not None:
                        await receiver._finish(running)
                finally:
                    self.size -= cost(message)
                    _tell(sent)
                if receiver._must_yield:
                    await receiver._yield_to_loop()
        except ConnectionClosed:
            pass
        except Exception as exc:
            receiver._log_error("could not send a published message", exc)
        finally:
            self._end()

    def _end(self) -> None:
        if self in self._senders.outboxes:
            self._senders.outboxes.remove(self)
            if inspect.iscoroutine(self._running):
                self._running.close()  # it was never started
            for _, _, sent in self._entries.values():
                _tell(sent)
            self._entries.clear()
            self._senders.leave(self._place)


def _tell(sent: asyncio.Future[None] | None) -> None:
    if sent is not None and not sent.done():
        sent.set_result(None)
