"""The timers of all connections of an event loop, which need only one timer of the loop.

Nearly all timers of connections are cancelled long before they are due, and event loops are slow
at that.

This module knows what is due when. It does not know what the timers are for.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Timer", "Timers", "timers_of"]

# Event loops may be early by this time, in seconds. (uvloop counts milliseconds.)
_TOLERANCE = 0.001

# With more cancelled timers than others, and more than these, the cancelled ones are removed.
_FEW = 64


class Timer:
    """Calls a function once, if it is not cancelled before; like asyncio's TimerHandle."""

    __slots__ = ("_args", "_callback", "_context", "_handle", "_timers", "_when")

    def __init__(
        self, timers: Timers, when: float, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._timers = timers
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._args = args
        self._context = copy_context()
        self._handle: asyncio.Handle | None = None  # when it is due

    def when(self) -> float:
        """Return when it is due, by the loop's clock."""
        return self._when

    def cancel(self) -> None:
        """Do not call the function."""
        if self._handle is not None:
            self._handle.cancel()
        elif self._callback is not None:
            self._callback = None
            self._args = ()
            self._timers._forget_one()

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._callback is not None:
            # So an exception is reported as usual, and others have their turn.
            self._handle = loop.call_soon(self._callback, *self._args, context=self._context)

    def __lt__(self, other: Timer) -> bool:
        return False  # two that are due at the same time


class Timers:
    """The timers of one event loop, and of the thread that runs it."""

    __slots__ = ("__weakref__", "_cancelled", "_handle", "_loop", "_next", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: list[tuple[float, Timer]] = []  # a heap
        self._cancelled = 0  # how many of them are
        self._next = inf  # when the loop calls us
        self._handle: asyncio.TimerHandle | None = None  # of that call

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call a function after so many seconds."""
        when = self._loop.time() + delay
        timer = Timer(self, when, callback, args)
        heappush(self._queue, (when, timer))
        if when < self._next:
            self._schedule(when)
        return timer

    def _schedule(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = when
        self._handle = self._loop.call_at(when, self._run)

    def _run(self) -> None:
        self._unschedule()
        now = self._loop.time() + _TOLERANCE
        queue = self._queue
        while queue and (queue[0][0] <= now or queue[0][1]._callback is None):
            _, timer = heappop(queue)
            if timer._callback is None:
                self._cancelled -= 1
            timer._fire(self._loop)
        if queue:
            self._schedule(queue[0][0])

    def _unschedule(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next, self._handle = inf, None

    def _forget_one(self) -> None:
        self._cancelled += 1
        queue = self._queue
        left = len(queue) - self._cancelled
        if not left:
            self._unschedule()
            queue.clear()
            self._cancelled = 0
        elif self._cancelled > max(_FEW, left):
            queue[:] = [item for item in queue if item[1]._callback is not None]
            heapify(queue)
            self._cancelled = 0


class _Latest(threading.local):
    """The timers of the event loop that a thread used last. Only the loop and the timers
    themselves keep them alive: they refer to connections, and those to the loop."""

    timers: ref[Timers] | None = None


_latest = _Latest()


def timers_of(loop: asyncio.AbstractEventLoop) -> Timers:
    """Return the timers of an event loop.

    If a thread runs several loops in turns, a loop may get several of these objects.
    """
    timers = None if _latest.timers is None else _latest.timers()
    if timers is None or timers._loop is not loop:
        timers = Timers(loop)
        _latest.timers = ref(timers)
    return timers
