"""Connections whose messages wait to be taken.

This module knows how much may wait, how reading slows down because of it without losing sight
of the peer, and whose turn it is to send. It does not know who takes the messages: tasks that
call `recv`, or an ASGI application.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fastws.exceptions import ConnectionClosed
from fastws.rules import memory_of
from fastws.spec import CloseCode, State

from .protocol import Endpoint, logger

__all__ = ["QueueEndpoint"]

# While too much waits, reading goes on for the sake of pings, pongs, close frames and the end of
# the stream, but with a pause after each read, in seconds.
_PAUSE = 0.1
# A server whose client does not take what it is sent reads no more bytes per second than these.
_PACE = 64 << 10
# So many seconds a connection may be too full to be read from, with nothing being received.
_FORBEARANCE = 60.0


class QueueEndpoint(Endpoint):
    """What the connections have in common whose messages wait in a queue."""

    __slots__ = ("_arrived", "_in_fragments", "_pause", "_unread")

    _turns: deque[asyncio.Future[None]] | None

    def __init__(self) -> None:
        super().__init__()
        # While reading is slow.
        self._pause: asyncio.TimerHandle | None = None
        self._arrived = 0  # in messages, in bytes
        # How many messages there were when one was last received, and when, as keepalive saw it.
        self._unread: tuple[int, float] = 0, 0.0
        self._in_fragments = False  # whose turn it is sends a message in fragments

    # Receiving ----------------------------------------------------------------------------

    _received = Endpoint._keep

    def _pile_up(self, messages: list[str | bytes]) -> None:
        assert self._messages is not None
        self._messages[:0] = messages
        if self._held:
            self._arrived += sum(map(memory_of, messages))
        elif self._too_much_waits():
            self._hold_reading(True)

    def _too_much_waits(self) -> bool:
        assert self._messages is not None
        settings = self._settings
        if settings.max_queue is not None and len(self._messages) >= settings.max_queue:
            return True
        if self.state is not State.OPEN:  # there is little left to wait for
            return True
        limit = settings.read_limit
        return limit is not None and sum(map(memory_of, self._messages)) >= limit

    def _hold_reading(self, held: bool) -> None:
        self._arrived = 0
        self._unread = 0, 0.0
        super()._hold_reading(held)

    def _update_reading(self) -> None:
        self._slow = self.state is State.OPEN and (self._held or self._is_overfull())
        if not self._slow:
            self._end_pause()
        super()._update_reading()

    def _after_read(self, size: int) -> None:
        connection = self._connection
        assert connection is not None
        open_ = connection.state is State.OPEN
        if connection.has_pending and self._messages and open_ and not self._held:
            # What was read and is not decoded yet waits, too, for these to be taken.
            self._hold_reading(True)
        if self._slow and self._pause is None:
            delay = max(size / _PACE, _PAUSE) if self._is_overfull() else _PAUSE
            self._pause = self._loop.call_later(delay, self._read_on)
        super()._after_read(size)

    def _read_on(self) -> None:
        self._pause = None
        self._update_reading()

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _may_read(self) -> bool:
        if not self._slow:
            # While it opens, or closes: then the messages are taken or dropped soon.
            return not self._held
        return self._pause is None and not self._is_full()

    def _is_full(self) -> bool:
        """Tell whether so much waits that nothing more can be read at all."""
        limit = self._settings.read_limit
        return self._held and limit is not None and self._arrived > limit

    def _is_held_up(self) -> bool:
        if not self._is_full():
            return super()._is_held_up()
        count, now = len(self._messages or ()), self._loop.time()
        if count != self._unread[0]:
            self._unread = count, now
        return now < self._unread[1] + _FORBEARANCE

    def _give_up(self) -> None:
        if self._is_full():
            count = self._unread[0]
            logger.warning("%d messages wait, none is received (%s)", count, self.remote_address)
            self._fail_with(CloseCode.INTERNAL_ERROR, "messages are not received")
        else:
            super()._give_up()

    # Sending: messages leave in the order of the calls --------------------------------------

    async def _take_turn(self) -> None:
        """Wait until all that was to be sent before is on its way; `_end_turn` has to follow.

        Raises:
            ConnectionClosed: if the connection ends meanwhile.
        """
        if self._turns is None:
            self._turns = deque()
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._turns.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._end_turn()  # it had just become ours
            raise

    def _end_turn(self) -> None:
        while self._turns:
            waiter = self._turns.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._turns = None

    async def _wait_for_room(self) -> None:
        """Wait, when it is our turn, while more is unsent than may be."""
        while self._has_no_room():
            await self._drain()

    def _has_no_room(self) -> bool:
        limit = self._settings.max_unsent_size
        return (
            self._write_paused
            and not self._ended
            and limit is not None
            and self._transport.get_write_buffer_size() > limit
        )

    async def _finish_sends(self) -> None:
        """Wait until what was to be sent before is on its way, but not for ever."""
        if self._turns is None or self._in_fragments or self.state is not State.OPEN:
            return
        try:
            async with asyncio.timeout(self._settings.close_timeout):
                await self._take_turn()
        except (TimeoutError, ConnectionClosed):
            return
        self._end_turn()

    def _finished(self) -> None:
        self._end_pause()
        self._wake_reader()
        waiters = self._turns or ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        if self._turns:
            self._turns.clear()  # but for whose turn it is
