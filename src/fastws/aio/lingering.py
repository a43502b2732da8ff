"""The end of a TCP connection, so that no reset overtakes what was sent last (RFC 6455 §7.1.1).

If a socket is closed while the peer still sends, the peer's kernel drops what it has not read
yet. So only our side is shut down, and what arrives is dropped until the peer closes its side.

This module knows how transports end, and how long to wait for the peer. It does not know why a
connection ends, or what was said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastws.spec import LINGER_REFUSED, LINGER_SILENCE

from .transports import close_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from .twin import Wire

__all__ = ["Lingering"]


class Lingering:
    """The end of one connection's transport.

    Args:
        wire: the connection.
        set_timer: replaces the connection's timer: takes a delay in seconds (None: no timer), a
            function and its arguments.
        timeout: how long the peer may take to end its side, in seconds; None: no limit.
        open_by: when the opening handshake had to be done, if it did not come to a connection.
    """

    __slots__ = ("_open_by", "_set_timer", "_timeout", "_wire")

    def __init__(
        self,
        wire: Wire,
        set_timer: Callable[..., None],
        timeout: float | None,
        open_by: float | None,
    ) -> None:
        self._wire = wire
        self._set_timer = set_timer
        self._timeout = timeout
        self._open_by = open_by

    def begin(self, *, is_silent: bool, awaits_eof: bool) -> None:
        """Shut down our side, and wait for the peer to end its own.

        Args:
            is_silent: whether the peer has nothing more to say: neither end broke the protocol.
            awaits_eof: whether to give a silent peer time to end its side.
        """
        transport = self._wire._transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            self.set_limit()
            try:
                transport.write_eof()
            except OSError:  # the peer answered our last write with a reset
                transport.abort()
            if is_silent and not awaits_eof and not transport.is_closing():
                self.await_silence()
        elif is_silent:
            self.close()
        else:
            self.await_silence()

    def await_silence(self) -> None:
        """Close when nothing has arrived for a while: a TLS transport cannot shut down its writing
        side alone, and uvicorn's class does not."""
        timeout = self._patience()
        deadline = None if timeout is None else self._wire._loop.time() + timeout
        self._look(deadline)

    def _look(self, deadline: float | None) -> None:
        wire = self._wire
        now = wire._loop.time()
        if deadline is not None and now >= deadline:
            wire._transport.abort()
        elif wire._received_since_ping or wire._transport.get_write_buffer_size():
            wire._received_since_ping = False
            left = LINGER_SILENCE if deadline is None else min(LINGER_SILENCE, deadline - now)
            self._set_timer(left, self._look, deadline)
        else:
            self.close()

    def set_limit(self) -> None:
        """Do not wait forever for the peer to end its side."""
        self._set_timer(self._patience(), self._wire._transport.abort)

    def _patience(self) -> float | None:
        """Return how long the peer may take, in seconds.

        What never became a connection is gone by the time that its handshake had, or a moment
        after its last word. Only a peer that still takes a response gets as long as a connection.
        """
        if self._open_by is None or self._wire._transport.get_write_buffer_size():
            return self._timeout
        left: float = max(self._open_by - self._wire._loop.time(), LINGER_REFUSED)
        return left if self._timeout is None else min(self._timeout, left)

    def close(self) -> None:
        """Have the transport send what it holds, then close, but do not wait forever."""
        self.set_limit()
        close_transport(self._wire._transport)
