"""How many connections a server has, in all and for each address, and until when.

This module knows who is let in, what the others are told, and when a connection has lived long
enough. It does not know what connections do.
"""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import IPv6Address
from math import inf
from typing import TYPE_CHECKING, Any, Final

from fastws import rules
from fastws.exceptions import RequestError
from fastws.spec import CloseCode

from .opening import Refused, ServerOpeningHandshake
from .view import logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .endpoint import Endpoint
    from .opening import Decision

__all__ = ["PATIENCE", "Admission", "Lifetimes", "turn_away"]

# What the others are told: after how many seconds they may try again. They are gone by then.
_RETRY_AFTER = 5

# The same, when the server shuts down: another one has taken its place, or will soon.
_RETRY_ELSEWHERE = 1

# How long a client may take to send its request then, in seconds, from when it connected.
PATIENCE: Final = 1.0

# This many connections may wait for that answer at the same time. Others get none.
_MAX_REFUSALS = 256

# The time between two lines in the log about this, in seconds.
_QUIET = 60.0

# A connection lives for at least this part of the maximum. (Random: those that came at the same
# time must not all come back at the same time.)
_SHORTEST_LIFE = 0.8


class Admission:
    """Decides which connections a server lets in.

    Args:
        max_connections: the maximum number of connections; None for no limit.
        max_per_address: the maximum number of connections from one address; None for no limit.

    Raises:
        TypeError: if a limit is not an int.
        ValueError: if a limit is negative.
    """

    def __init__(self, max_connections: int | None, max_per_address: int | None) -> None:
        self._max_connections = rules.check_limit("max_connections", max_connections, 0)
        self._max_per_address = rules.check_limit("max_connections_per_address", max_per_address, 0)
        self._admitted: dict[Endpoint, Any] = {}  # and where they come from
        self._refused: set[Endpoint] = set()
        self._counts: Counter[Any] = Counter()
        self._warned_at: float | None = None

    def admit(self, endpoint: Endpoint) -> str | None:
        """Let a new connection in, or see that it is refused, before its opening handshake.

        Returns:
            the limit that is reached; None if the connection is let in.
        """
        origin = None
        if self._max_per_address is not None:
            origin = _origin(endpoint.remote_address)
        if self._max_connections is not None and len(self._admitted) >= self._max_connections:
            self._refuse(endpoint, "too many connections")
            return "max_connections"
        if origin is not None and self._counts[origin] >= (self._max_per_address or 0):
            self._refuse(endpoint, "too many connections from this address")
            return "max_connections_per_address"
        self._admitted[endpoint] = origin
        if origin is not None:
            self._counts[origin] += 1
        return None

    def leave(self, endpoint: Endpoint) -> None:
        """A connection has ended."""
        self._refused.discard(endpoint)
        origin = self._admitted.pop(endpoint, None)
        if origin is not None:
            self._counts[origin] -= 1
            if not self._counts[origin]:
                del self._counts[origin]

    def _refuse(self, endpoint: Endpoint, why: str) -> None:
        now = endpoint._loop.time()
        if self._warned_at is None or now >= self._warned_at + _QUIET:
            self._warned_at = now
            address = endpoint.remote_address
            logger.warning("%s: refused (%s); there are %d", why, address, len(self._admitted))
        if len(self._refused) >= _MAX_REFUSALS:
            endpoint._transport.abort()
            return
        self._refused.add(endpoint)
        assert isinstance(endpoint._opening, ServerOpeningHandshake)
        endpoint._opening = _Refusal(endpoint._opening, why, _RETRY_AFTER)
        endpoint._open_by = min(endpoint._open_by or inf, now + _RETRY_AFTER)


class _Refusal(ServerOpeningHandshake):
    """The opening handshake of a connection that is refused, whatever it asks for."""

    __slots__ = ("_why", "retry_after")

    def __init__(self, opening: ServerOpeningHandshake, why: str, retry_after: int) -> None:
        super().__init__(opening.handshake)
        self._why = why
        self.retry_after = retry_after

    def receive_data(self, data: bytes) -> Decision | None:
        retry = ("Retry-After", str(self.retry_after))
        error = RequestError(self._why, 503, (retry,))
        return Refused(self.handshake.reject(error), error)

    def time_out(self) -> Decision:
        decision = self.receive_data(b"")
        assert decision is not None
        return decision


def turn_away(endpoint: Endpoint, drop: Callable[[], object]) -> None:
    """The server shuts down: tell a client in its opening handshake to try again.

    Its request may be on its way. If it does not come, there is nothing to answer.

    Args:
        endpoint: the connection.
        drop: called when the client has had its time.
    """
    opening, now = endpoint._opening, endpoint._loop.time()
    if isinstance(opening, _Refusal):
        if opening.retry_after != _RETRY_ELSEWHERE:  # it was told already, or says nothing
            drop()
        return
    left = PATIENCE
    if endpoint._open_by is not None and endpoint._settings.open_timeout is not None:
        left -= now - (endpoint._open_by - endpoint._settings.open_timeout)
    endpoint._open_by = now + 2 * PATIENCE  # it is gone by then, answered or not
    assert isinstance(opening, ServerOpeningHandshake)
    refusal = _Refusal(opening, "the server is shutting down", _RETRY_ELSEWHERE)
    if opening.answer is not None:  # the application has not decided
        endpoint._act_on(refusal.receive_data(b""))
        return
    if left <= 0:
        drop()
        return
    endpoint._opening = refusal
    endpoint._loop.call_later(
        left, lambda: drop() if isinstance(endpoint._opening, _Refusal) else None
    )


def _origin(address: Any) -> Any:
    """Return what connections from one place have in common; None if that is not known.

    An IPv6 address counts by its first 64 bits: one host has as many of the rest as it likes.
    """
    if not isinstance(address, tuple) or not address:
        return None
    host = address[0]
    if ":" not in host:
        return host
    parsed = IPv6Address(host.partition("%")[0])
    mapped = parsed.ipv4_mapped
    return int(parsed) >> 64 if mapped is None else str(mapped)


class Lifetimes:
    """Ends the connections of a server that have lived long enough.

    Args:
        longest: how long a connection may live, in seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._timers: dict[Endpoint, asyncio.TimerHandle] = {}

    def begin(self, endpoint: Endpoint) -> None:
        """A connection is open."""
        # (Nobody gains anything by guessing it.)
        life = self._longest * random.uniform(_SHORTEST_LIFE, 1.0)
        end = endpoint._begin_closing
        self._timers[endpoint] = endpoint._loop.call_later(life, end, CloseCode.SERVICE_RESTART, "")

    def end(self, endpoint: Endpoint) -> None:
        """A connection has ended, or was never open."""
        timer = self._timers.pop(endpoint, None)
        if timer is not None:
            timer.cancel()
