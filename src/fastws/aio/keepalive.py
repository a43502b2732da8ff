"""When to ping a peer, and when to give it up.

This module knows the clock, what counts as a sign of life, and how long the answer to a ping took.
It does not know how pings travel, or how the connection ends.
"""

from __future__ import annotations

from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING

from fastws.events import Pong
from fastws.spec import KEEPALIVE

from .unsent import acknowledged, unacknowledged

if TYPE_CHECKING:
    import asyncio

    from fastws.events import Event

    from .settings import Settings

__all__ = ["Keepalive", "Verdict"]

# So many bytes are more than the pings between two looks at a connection.
_SMALL = 256

# If no message is received for this long, in seconds, a connection that is too full to be read
# from is given up.
_FORBEARANCE = 60.0

# The round trips of this many pings are measured at the same time. A peer may answer none of them.
_MAX_PINGS = 16


class Verdict(Enum):
    """What to do about a peer now."""

    WAIT = "wait"
    PING = "ping"
    GIVE_UP = "give up"


class Keepalive:
    """The keepalive of one connection that is open.

    Args:
        interval: how often to ping, in seconds.
        now: the time, in seconds.
    """

    __slots__ = ("_deadline", "_next_ping", "_pings", "_taken", "_unread")

    def __init__(self, interval: float, now: float) -> None:
        self._next_ping = now + interval
        self._deadline: float | None = None  # by when the peer has to give a sign of life
        # The pings that have no answer yet: their numbers, and when they were sent.
        self._pings: tuple[tuple[int, float], ...] = ()
        self._taken = 0  # by the peer until the last look, in bytes
        # How many messages have not been received, and since when it has been as many.
        self._unread = (0, 0.0)

    @property
    def due(self) -> float:
        """When to look again, in seconds."""
        if self._deadline is None:
            return self._next_ping
        return min(self._next_ping, self._deadline)

    def is_alive(
        self,
        transport: asyncio.Transport,
        *,
        written: int,
        is_server: bool,
        was_heard: bool,
        is_held_up: bool,
    ) -> bool:
        """Return whether the connection got on since the last look.

        Whatever arrives is a sign of life: behind a large message the pong may be long in
        coming. It is one, too, if the peer takes of what waited to be sent; and no sign can be
        expected while we do not read. But a server that has something to send does not go by
        what a client sends, which could be a byte now and then forever: the client has to take
        something.

        Args:
            transport: the connection's.
            written: how many bytes were written to the transport.
            is_server: whether we are the server.
            was_heard: whether anything was received.
            is_held_up: whether nothing can be received because we do not read.
        """
        sock = transport.get_extra_info("socket")
        waiting = transport.get_write_buffer_size() + unacknowledged(sock)
        taken = acknowledged(sock)
        if taken is None:
            taken = written - waiting
        before, self._taken = self._taken, taken
        # (Our pings are small, and all that a peer's system takes if the peer hangs.)
        is_waiting = waiting > _SMALL
        takes = is_waiting and taken - before > _SMALL
        if is_waiting and is_server:
            return takes
        return takes or was_heard or is_held_up

    def next_ping(self) -> bytes:
        """Return what a ping carries that is sent now."""
        # Pings that are on their way at the same time differ: so a round trip may take longer than
        # the interval.
        number = self._pings[-1][0] + 1 if self._pings else 0
        # (The clock is finer than a loop's time.)
        self._pings = (*self._pings[1 - _MAX_PINGS :], (number, perf_counter()))
        return _payload(number)

    def resolve(self, events: list[Event]) -> float | None:
        """Look among the events for pongs that answer our pings; return the time that the last
        round trip took, in seconds, or None."""
        latency = None
        if self._pings:
            for event in events:
                if isinstance(event, Pong) and event.data.startswith(KEEPALIVE):
                    for at, (number, sent) in enumerate(self._pings, 1):
                        if event.data == _payload(number):
                            latency = perf_counter() - sent
                            self._pings = self._pings[at:]  # §5.5.3: it answers those before, too
                            break
        return latency

    def is_stuck(self, now: float, unread: int) -> bool:
        """Return whether no message has been received for too long.

        Args:
            now: the time, in seconds.
            unread: how many messages wait, if that is so much that no more can be read; else 0.
        """
        if unread != self._unread[0]:
            self._unread = (unread, now)
        return unread > 0 and now >= self._unread[1] + _FORBEARANCE

    def look(self, now: float, *, is_alive: bool, settings: Settings) -> Verdict:
        """Decide what to do.

        Args:
            now: the time, in seconds.
            is_alive: whether the connection got on since the last look.
            settings: how often to ping, and how long to wait.
        """
        if is_alive:
            self._deadline = None
        elif self._deadline is not None and now >= self._deadline:
            return Verdict.GIVE_UP
        if now < self._next_ping:
            return Verdict.WAIT
        assert settings.ping_interval is not None
        self._next_ping = now + settings.ping_interval
        if self._deadline is None and settings.ping_timeout is not None:
            self._deadline = now + settings.ping_timeout
        return Verdict.PING


def _payload(number: int) -> bytes:
    return b"%b%d" % (KEEPALIVE, number) if number else KEEPALIVE
