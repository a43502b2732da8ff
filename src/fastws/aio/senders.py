"""The coroutines that wait to send.

This module knows that they go one after the other, in the order of their calls, and that they
wait while the peer takes too little. It does not know what they send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastws.exceptions import ConnectionClosed

__all__ = ["Senders"]


class Senders:
    """The coroutines that send on one connection, if that takes them some time.

    Attributes:
        is_endless: whether the one whose turn it is may never be done.
    """

    __slots__ = ("_for_room", "_for_turn", "is_endless")

    def __init__(self) -> None:
        self.is_endless = False
        self._for_turn: deque[asyncio.Future[None]] | None = None  # None: it is nobody's turn
        self._for_room: list[asyncio.Future[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether it is somebody's turn."""
        return self._for_turn is not None

    @asynccontextmanager
    async def turn(self, *, endless: bool = False) -> AsyncIterator[None]:
        """Wait until all that was to be sent before has been handed to the transport.

        Args:
            endless: whether this turn may never be done.

        Raises:
            ConnectionClosed: if the connection ends meanwhile.
        """
        if self._for_turn is None:
            self._for_turn = deque()
        else:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._for_turn.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    self._end_turn()  # it had just become ours
                raise
        self.is_endless = endless
        try:
            yield
        finally:
            self.is_endless = False
            self._end_turn()

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
