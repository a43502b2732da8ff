"""What may be asked about a connection at any time.

This module knows how a connection stands: its peer, its state, how it ended. It does not know
what changes that.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from fastws.spec import State
from fastws.stats import Stats

from .blame import blames_peer
from .twin import Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from typing_extensions import TypeVar

    from fastws.events import Text
    from fastws.http import Request, Response
    from fastws.proxy_protocol import ProxyHeader

    from .creation import Observer, ServerOrConnector
    from .opening import OpeningHandshake
    from .twin import Sink

    T = TypeVar("T", bound=str | Text, default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")  # what a received text message is

__all__ = ["T", "View", "logger"]

logger = logging.getLogger("fastws")

# A counter, and not random numbers: it is short and readable, and its order is that of time.
_numbers = count()
_MOST_NUMBERS = (1 << 32) - 1


class View(Wire):
    """Base of `Flow` and `Endpoint`.

    Attributes:
        request: the client's request; None on a client.
        response: the server's response; None on a server.
        subprotocol: the subprotocol agreed on; None if there is none.
        context: the application's own; on a server, `process_request` sets it with `Accept`.
    """

    __slots__ = ("_creator", "context", "request", "response", "subprotocol")

    _loop: asyncio.AbstractEventLoop
    # There is none before connection_made; nothing of ours is called by then.
    _transport: asyncio.Transport
    _opening: OpeningHandshake | None  # which `Flow` has

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.context: Any = None
        self._creator: ServerOrConnector | None = None

    def __repr__(self) -> str:
        end = self._connection or self._opening
        role = "" if end is None else f" {end.role.name.lower()}"
        state = "opening" if self.state is None else self.state.name.lower()
        return f"<{type(self).__name__}{role} {self.remote_address} {state}>"

    @property
    def id(self) -> int:
        """A number that no other connection of this process has; log lines have it as "#7".

        Numbers are small, and given out in the order in which they are needed: with logging at
        INFO level, that is the order in which connections open.
        """
        if not self._number:
            # (In C, it has 32 bits; and 0 means none.)
            self._number = next(_numbers) % _MOST_NUMBERS + 1
        return self._number

    @property
    def remote_address(self) -> Any:
        """The peer's address, as its socket family has it; None if there is none. If a PROXY
        protocol header told one, this is it."""
        told = self._told
        if told is not None and told.source is not None:
            return told.source
        return self.get_extra_info("peername")

    @property
    def local_address(self) -> Any:
        """Our address, as its socket family has it; None if there is none. If a PROXY protocol
        header told to which address the client connected, this is it."""
        told = self._told
        if told is not None and told.destination is not None:
            return told.destination
        return self.get_extra_info("sockname")

    @property
    def _told(self) -> ProxyHeader | None:
        return None if self._creator is None else self._creator.told

    @property
    def _observers(self) -> Sequence[Observer]:
        return () if self._creator is None else self._creator.observers

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows: "ssl_object", "socket", … (see asyncio's docs)."""
        if self._transport is None:
            return default
        return self._transport.get_extra_info(name, default)

    @property
    def state(self) -> State | None:
        """What can still happen; None before the connection is open."""
        return None if self._connection is None else self._connection.state

    @property
    def stats(self) -> Stats:
        """What was counted since the connection was open: messages, frames, bytes, pings and pongs
        in each direction, the latency, and how often limits were reached."""
        if self._connection is None:
            return Stats()
        return replace(
            self._connection.stats,
            unsent=self._unsent(),
            latency=None if self._latency < 0 else self._latency,
            read_pauses=self._read_pauses,
            write_pauses=self._write_pauses,
        )

    def _unsent(self) -> int:
        """Return how many bytes this process holds that the peer has not taken."""
        connection, senders = self._connection, self._senders
        size = self._transport.get_write_buffer_size()
        if connection is not None:
            size += connection.bytes_queued
        if senders is not None:
            size += sum(outbox.size for outbox in senders.outboxes)
        return size

    @property
    def close_code(self) -> int | None:
        """How the connection ended (see `Connection.close_code`); None while it has not."""
        return None if self._connection is None else self._connection.close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with the close code."""
        return "" if self._connection is None else self._connection.close_reason

    def _blames_peer(self, exc: BaseException) -> bool:
        """Return whether the application raised this only because of what the peer did."""
        may_close = self.state is not State.OPEN
        return blames_peer(exc, self.request or self.response, may_close=may_close)

    def _log_error(self, message: str, exc: BaseException) -> None:
        logger.error("%s (%s) #%d", message, self.remote_address, self.id, exc_info=exc)
