"""The coroutines that wait to send.

This module knows that they go one after the other, in the order of their calls, that they wait
while the peer takes too little, and that they end with the connection. It does not know what they
send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastws.exceptions import ConnectionClosed

    from .flow import Flow
    from .outbox import Outbox

__all__ = ["Senders", "while_open"]


class Senders:
    """The coroutines that send on one connection, if that takes them some time.

    Attributes:
        is_endless: whether the one whose turn it is may never be done.
        outboxes: the published messages that wait to be sent, in the order of their turns.
    """

    __slots__ = ("_for_room", "_for_turn", "is_endless", "outboxes")

    def __init__(self) -> None:
        self.is_endless = False
        self.outboxes: list[Outbox] = []
        self._for_turn: deque[asyncio.Future[None]] | None = None  # None: it is nobody's turn
        self._for_room: list[asyncio.Future[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether it is somebody's turn."""
        return self._for_turn is not None

    def line_up(self) -> asyncio.Future[None]:
        """Take a place behind all that is to be sent before.

        Returns:
            what to await until it is our turn; its exception is ConnectionClosed if the connection
            ends first. Pass it to `leave` in any case.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._for_turn is None:
            self._for_turn = deque()
            place.set_result(None)
        else:
            self._for_turn.append(place)
        return place

    def is_last(self, place: asyncio.Future[None]) -> bool:
        """Return whether nobody has a place behind this one."""
        return not self._for_turn or self._for_turn[-1] is place

    def leave(self, place: asyncio.Future[None]) -> None:
        """Give up a place in the line: the next one's turn comes if it was ours."""
        if not place.cancel() and not place.cancelled() and place.exception() is None:
            self._end_turn()

    @asynccontextmanager
    async def turn(self, *, endless: bool = False) -> AsyncIterator[None]:
        """Wait until all that was to be sent before has been handed to the transport.

        Args:
            endless: whether this turn may never be done.

        Raises:
            ConnectionClosed: if the connection ends meanwhile.
        """
        place = self.line_up()
        try:
            await place
            self.is_endless = endless
            yield
        finally:
            # (The turn may have just become ours when this was cancelled.)
            if place.done() and not place.cancelled() and place.exception() is None:
                self.is_endless = False
            self.leave(place)

    def _end_turn(self) -> None:
        while self._for_turn:
            waiter = self._for_turn.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._for_turn = None

    async def room(self) -> None:
        """Wait until the peer has taken enough of what was sent, or the connection ends."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for_room.append(waiter)
        await waiter

    def make_room(self) -> None:
        """The peer has taken enough."""
        waiters, self._for_room = self._for_room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def end(self, make_error: Callable[[], ConnectionClosed]) -> None:
        """Nothing more can be sent."""
        for waiter in self._for_turn or ():
            if not waiter.done():
                waiter.set_exception(make_error())
        if self._for_turn:
            self._for_turn.clear()  # except whose turn it is
        self.make_room()


@asynccontextmanager
async def while_open(flow: Flow) -> AsyncIterator[None]:
    """Interrupt what the block waits for as soon as the connection is no longer open.

    What is sent may come from elsewhere: nothing may follow for hours.

    Raises:
        ConnectionClosed: if the block was interrupted, or the connection is not open.
    """
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)

    def interrupt(_: Flow) -> None:
        scope.reschedule(loop.time())

    try:
        async with scope:
            flow._watch(interrupt)
            try:
                yield
            finally:
                flow._unwatch(interrupt)
    except TimeoutError:
        if not scope.expired():
            raise
    else:
        return
    flow._require_connection().check_open()
    raise flow._closed_error()
