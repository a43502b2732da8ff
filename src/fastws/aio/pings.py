"""Our pings on their way, and the pongs that answer them (RFC 6455 §5.5.2, §5.5.3).

This module knows which pong answers which ping. It does not know how either travels.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from fastws.events import Pong

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.events import Event
    from fastws.exceptions import ConnectionClosed

__all__ = ["Pings"]


class Pings:
    """The pings of one connection that are not answered yet, in order."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # What a ping carries: when it was sent, and the future of its round trip.
        self._waiting: dict[bytes, tuple[float, asyncio.Future[float]]] = {}

    def choose(self, data: Buffer | None) -> bytes:
        """Return what the next ping carries: `data`, or something of our own.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if another ping on its way carries the same.
        """
        if data is not None:
            octets = bytes(memoryview(data))
            if octets in self._waiting:
                raise ValueError("another ping with the same data has no answer yet")
            return octets
        number = len(self._waiting)
        while (octets := number.to_bytes(4, "big")) in self._waiting:
            number += 1
        return octets

    def add(self, octets: bytes) -> asyncio.Future[float]:
        """Note that a ping was sent.

        Returns:
            a future: the time until the pong, in seconds.
        """
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[octets] = (perf_counter(), waiter)
        return waiter

    def resolve(self, events: list[Event]) -> float | None:
        """Look among the events for pongs that answer our pings.

        Returns:
            the round trip of the last ping that is answered, in seconds; None if there is none.
        """
        latency = None
        for event in events:
            if isinstance(event, Pong) and event.data in self._waiting:
                now = perf_counter()  # finer than a loop's time
                # §5.5.3: a pong may answer the last of several pings only.
                answered = False
                while not answered:
                    data = next(iter(self._waiting))
                    sent, waiter = self._waiting.pop(data)
                    if not waiter.done():
                        waiter.set_result(now - sent)
                    answered = data == event.data
                latency = now - sent
        return latency

    def end(self, make_error: Callable[[], ConnectionClosed]) -> None:
        """Wake all that wait: no pong will come."""
        for _, waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(make_error())
                waiter.exception()  # nobody has to await it
        self._waiting.clear()
