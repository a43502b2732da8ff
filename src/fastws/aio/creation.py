"""What creates endpoints, and what keeps a subclass of the application's from losing a connection.

This module knows a server or connector as its endpoints see it, and how to wrap the two methods
of a protocol that every connection depends on. It does not know what these do.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Protocol

from .phases import Phase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from fastws.proxy_protocol import ProxyHeader

    from .endpoint import Endpoint

__all__ = ["Observer", "ServerOrConnector", "ending_on_error", "guard"]


class Observer(Protocol):
    """What wants to know what a server does, to count it."""

    def connection_opened(self, endpoint: Endpoint) -> None:
        """The opening handshake succeeded."""

    def connection_lost(self, endpoint: Endpoint) -> None:
        """The transport of a connection is gone; it may never have been open."""

    def connection_refused(self, limit: str) -> None:
        """There are too many connections."""

    def request_answered(self, status: int) -> None:
        """A request got a response other than that of the opening handshake."""

    def handshake_lost(self) -> None:
        """An opening handshake ended without a response."""

    def ping_answered(self, latency: float) -> None:
        """A pong has arrived after so many seconds."""


class ServerOrConnector(Protocol):
    """What created an endpoint and wants to know how it fares.

    Attributes:
        told: what a proxy has told about the endpoint's connection; None if there is none.
        observers: whom to tell what happens.
    """

    @property
    def told(self) -> ProxyHeader | None: ...
    @property
    def observers(self) -> Sequence[Observer]: ...

    def endpoint_made(self, endpoint: Endpoint) -> None:
        """There is a transport."""

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        """The opening handshake succeeded."""

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        """The opening handshake failed."""

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        """The transport is gone."""


def ending_on_error(connection_made: Callable[..., None]) -> Callable[..., None]:
    """Wrap `connection_made`: if it fails, the connection ends."""

    @wraps(connection_made)
    def guarded(self: Endpoint, transport: asyncio.Transport) -> None:
        try:
            self._check_initialized()
            connection_made(self, transport)
        except BaseException as exc:
            transport.abort()
            if isinstance(exc, Exception):
                _report_once(self, exc)
            raise

    return guarded


def _report_once(endpoint: Endpoint, exc: Exception) -> None:
    """Report that the opening handshake cannot begin. This is called for each class that overrides
    `connection_made`, and the transport is lost later."""
    opening, endpoint._opening = endpoint._opening, None
    if opening is None:
        return
    if endpoint._transport is not None:  # it had begun
        endpoint._report(exc)
    elif endpoint._creator is not None:
        endpoint._creator.endpoint_failed(endpoint, exc)


def _ending_always(
    connection_lost: Callable[..., None], base: type[Endpoint]
) -> Callable[..., None]:
    """Wrap a subclass's `connection_lost`: ours runs even if it fails, or does not call it."""

    @wraps(connection_lost)
    def guarded(self: Endpoint, exc: Exception | None) -> None:
        try:
            connection_lost(self, exc)
        finally:
            if self._phase not in (Phase.LOST, Phase.CLOSED):
                base.connection_lost(self, exc)

    return guarded


def guard(cls: type[Endpoint], base: type[Endpoint]) -> None:
    """Wrap what a subclass defines of the two.

    Whatever becomes of the application's own code, a connection that has begun ends, and who
    waits for its end hears of it.
    """
    if (connection_made := cls.__dict__.get("connection_made")) is not None:
        cls.connection_made = ending_on_error(connection_made)  # type: ignore[method-assign]
    if (connection_lost := cls.__dict__.get("connection_lost")) is not None:
        cls.connection_lost = _ending_always(connection_lost, base)  # type: ignore[method-assign]
