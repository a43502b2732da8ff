"""Connections whose messages wait to be taken.

This module knows how much may wait, how reading slows down because of it without losing sight
of the peer, and whose turn it is to send. It does not know who takes the messages: tasks that
call `recv`, or an ASGI application.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastws.exceptions import ConnectionClosed
from fastws.rules import memory_of
from fastws.spec import CloseCode, State

from .protocol import Endpoint, logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["QueueEndpoint"]

# While too much waits, reading goes on for the sake of pings, pongs, close frames and the end of
# the stream, but with a pause after each read, in seconds.
_PAUSE = 0.1
# While its client does not take what it is sent, a server reads at most this many bytes per second.
_PACE = 64 << 10
# After this many seconds without a message being received, a connection that is too full to be
# read from is closed.
_FORBEARANCE = 60.0


class QueueEndpoint(Endpoint):
    """Base of the connections whose messages wait in a queue."""

    __slots__ = ("_arrived", "_pause", "_unread")

    _turns: deque[asyncio.Future[None]] | None

    def __init__(self) -> None:
        super().__init__()
        self._pause: asyncio.TimerHandle | None = None  # while reading is slow
        # The memory of the messages that arrived since reading is held, in bytes. Before that it
        # is at least the memory of all that wait.
        self._arrived = 0
        # How many messages waited, and since when it has been as many, as keepalive saw it.
        self._unread: tuple[int, float] = 0, 0.0

    # Receiving ----------------------------------------------------------------------------

    _received = Endpoint._keep

    def _pile_up(self, messages: list[str | bytes]) -> None:
        assert self._messages is not None
        self._messages[:0] = messages
        # (What came before the first pile is in the queue, and counted with it.)
        first = not self._held and not self._arrived
        self._arrived += sum(map(memory_of, self._messages if first else messages))
        if not self._held and self._too_much_waits():
            self._hold_reading(True)

    def _too_much_waits(self) -> bool:
        assert self._messages is not None
        settings = self._settings
        if settings.max_queue is not None and len(self._messages) >= settings.max_queue:
            return True
        if self.state is not State.OPEN:  # there is little left to wait for
            return True
        limit = settings.read_limit
        if limit is None or self._arrived < limit:
            return False
        # Some of what arrived was taken since. To count it only now keeps this linear.
        self._arrived = sum(map(memory_of, self._messages))
        return self._arrived >= limit

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
        settings = self._settings
        if not self._held:
            return False
        if settings.read_limit is not None:
            return self._arrived > settings.read_limit
        assert settings.max_queue is not None  # else nothing is ever held
        return len(self._messages or ()) > 2 * settings.max_queue

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

    def _drop_slow_peer(self) -> bool:
        return False  # messages wait for room, and what else is sent is small

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until all that was to be sent before has been handed to the transport.

        Raises:
            ConnectionClosed: if the connection ends meanwhile.
        """
        if self._turns is None:
            self._turns = deque()
        else:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._turns.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._end_turn()  # it had just become ours
                raise
        try:
            yield
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        while self._turns:
            waiter = self._turns.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._turns = None

    async def _finish_sends(self) -> None:
        """Wait until what was to be sent before has been handed to the transport, for
        `close_timeout` at most."""
        if self._turns is not None and self.state is State.OPEN:
            with suppress(TimeoutError, ConnectionClosed):
                async with asyncio.timeout(self._settings.close_timeout), self._turn():
                    pass

    def _finished(self) -> None:
        self._end_pause()
        self._wake_reader()
        waiters = self._turns or ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        if self._turns:
            self._turns.clear()  # but for whose turn it is
