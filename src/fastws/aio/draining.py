"""How a server loses its connections one after the other, before it ends.

This module knows which connections go first, and how many at a time. It does not know how a
connection ends, or what comes after that.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from .phases import Phase
from .websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .endpoint import Endpoint

__all__ = ["drain", "is_idle"]

# How many times connections are ended, at least; and the time in between, in seconds, at most.
_STEPS = 100
_LONGEST_STEP = 0.5


def is_idle(endpoint: Endpoint) -> bool:
    """Return whether nothing is under way: no message waits to be received or sent, none has
    arrived in part, and the handler waits for the next one, if there is a handler."""
    connection, sink = endpoint._connection, endpoint._sink
    return (
        connection is not None
        and not sink.messages
        and (not isinstance(endpoint, WebSocket) or endpoint._awaits_message())
        and not connection.has_pending
        and not connection._decoder._opcode
        and not connection.bytes_queued
        and not endpoint._is_sending()
        and not endpoint._transport.get_write_buffer_size()
    )


async def drain(
    endpoints: Collection[Endpoint],
    over: float,
    end: Callable[[Endpoint], None],
    is_stopped: Callable[[], bool],
) -> None:
    """End connections, spread evenly over a time. Return when there are none, when stopped or when
    the time is up; then there may be some left.

    Args:
        endpoints: the connections of a server, which come and go.
        over: the time, in seconds.
        end: ends a connection.
        is_stopped: whether not to go on.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()
    deadline = last + over
    step = min(over / _STEPS, _LONGEST_STEP)
    due = 0.0
    while endpoints and not is_stopped():
        await asyncio.sleep(step)
        now = loop.time()
        if now >= deadline:
            return
        staying = [each for each in endpoints if each._phase is Phase.OPEN]
        due += len(staying) * (now - last) / (deadline - last)
        last = now
        for endpoint in _idle_first(staying, int(due)):
            end(endpoint)
        due %= 1


def _idle_first(endpoints: list[Endpoint], count: int) -> list[Endpoint]:
    """Return this many of the connections, idle ones if there are enough."""
    idle = list(islice(filter(is_idle, endpoints), count))
    if len(idle) < count:
        others = set(endpoints) - set(idle)
        idle += islice(others, count - len(idle))
    return idle
