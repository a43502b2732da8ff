"""One WebSocket connection on an asyncio transport.

This module knows the transport, the timer and back pressure, and leads a connection from one
phase of its life to the next. It does not know what becomes of the messages: a `Sink` gets them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from fastws.exceptions import HandshakeError
from fastws.spec import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_WRITE_LIMIT,
    KEEPALIVE_REASON,
    CloseCode,
    Role,
    State,
)

from . import journal
from .creation import ending_on_error, guard
from .flow import Flow
from .keepalive import Keepalive, Verdict
from .lingering import Lingering
from .opening import Failed, Opened, Refused, ServerOpeningHandshake, Undecided
from .phases import NEXT, RECEIVING, Phase
from .redirects import Redirection
from .transports import LostTransport, close_transport, read_buffer
from .twin import Sink, turn_of
from .view import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from .creation import ServerOrConnector
    from .opening import Decision, OpeningHandshake
    from .settings import Settings

__all__ = ["Endpoint", "as_endpoint"]

# The members of an enum are slow to get at.
_OPENING, _OPEN, _CLOSING, _LINGERING, _LOST, _CLOSED = Phase


class Endpoint(Flow, asyncio.BufferedProtocol):
    """A connection on a transport, in either style."""

    __slots__ = (
        "__weakref__",
        "_close_waiter",
        "_lost_by",
        "_open_by",
        "_timer",
    )

    # Whether the peer has time to end its side when both close frames are exchanged.
    _awaits_eof = True

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._open_by: float | None = None  # when the opening handshake has to be done
        self._timer: asyncio.TimerHandle | None = None  # of the phase
        self._lost_by: Exception | None = None  # why the transport went
        self._close_waiter: asyncio.Future[None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        guard(cls, Endpoint)

    def _check_initialized(self) -> None:
        if not hasattr(self, "_close_waiter"):
            Endpoint.__init__(self, Sink())  # for what is called at the end of a connection
            raise RuntimeError(f"{type(self).__qualname__}.__init__() must call super().__init__()")

    def _configure(
        self, settings: Settings, opening: OpeningHandshake, creator: ServerOrConnector
    ) -> None:
        """Get ready for a connection of a server or connector.

        Raises:
            RuntimeError: if this was not initialized, or has a connection already.
        """
        self._check_initialized()
        if self._transport is not None and self._phase is not _CLOSED:
            raise RuntimeError(f"{type(self).__qualname__} object already has a connection")
        self._settings = settings
        self._opening = opening
        self._creator = creator
        # From here on, and not from when there is a transport: TLS may take its time before.
        if settings.open_timeout is not None:
            self._open_by = asyncio.get_running_loop().time() + settings.open_timeout

    # For the subclasses to fill in --------------------------------------------------------

    def _opened(self) -> None:
        """The connection is open."""

    def _failed(self, exc: Exception) -> None:
        """The connection ends, or did not come about, because of an error."""

    def _ended(self) -> None:
        """Nothing more will be received on a connection that was open."""

    def _lost(self) -> None:
        """The transport is gone."""

    # The life of a connection: see phases.py ---------------------------------------------

    def _enter(self, phase: Phase) -> None:
        """Begin a phase: set the timer, wake who waits for what will not come, and read on."""
        previous = self._phase
        assert phase in NEXT[previous], f"{previous} -> {phase}"
        self._phase = phase
        settings = self._settings
        self._keepalive = None
        self._set_timer(None)
        if phase is _OPEN:
            if settings.ping_interval is not None:
                self._keepalive = Keepalive(settings.ping_interval, self._loop.time())
                self._set_timer(settings.ping_interval, self._keep_alive)
        elif phase is _CLOSING:
            self._set_timer(settings.close_timeout, self._transport.abort)
            self._sink.closing(self)
        elif phase is _LOST and self._has_pending():
            self._set_timer(settings.close_timeout or DEFAULT_CLOSE_TIMEOUT, self._conclude)
        if previous is _OPENING:
            self._end_opening()
        elif previous is _OPEN:
            self._tell_watchers()
        if phase in RECEIVING:
            self._update_reading()
        elif previous in RECEIVING:
            self._end_receiving()

    def _end_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None and opening.answer is not None:
            opening.answer.cancel()

    def _end_receiving(self) -> None:
        assert self._connection is not None
        self._note_end(self._lost_by)
        if self._connection.error is not None:
            self._failed(self._connection.error)
        self._end_waiting()
        self._sink.ended(self)
        self._ended()

    # asyncio.BaseProtocol ------------------------------------------------------------------

    @ending_on_error
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._phase is _CLOSED:  # discarded already
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._turn = turn_of(self._loop)
        settings = self._settings
        self._use_buffer(read_buffer(self._loop, parts=settings.stream))
        is_secure = self.get_extra_info("sslcontext") is not None
        if settings.write_limit != DEFAULT_WRITE_LIMIT or is_secure:  # which is asyncio's for TCP
            # (With 0, a transport over TLS says that it is full when it is empty.)
            self._transport.set_write_buffer_limits(max(settings.write_limit, 1))
        if self._creator is not None:
            self._creator.endpoint_made(self)
        opening = self._opening = self._opening or ServerOpeningHandshake()
        now = self._loop.time()
        if self._open_by is None and settings.open_timeout is not None:
            self._open_by = now + settings.open_timeout
        timeout = None if self._open_by is None else max(self._open_by - now, 0.0)
        self._set_timer(timeout, self._open_timed_out)
        if octets := opening.begin(self):
            self._transport.write(octets)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost_by = exc
        self._write_paused = False
        self._make_room()
        if self._phase in RECEIVING:
            self._enter(_LOST)
            if self._has_pending():
                # What was read and is not decoded yet comes before the end, if it is wanted soon.
                return
        self._conclude()

    def _conclude(self) -> None:
        """The transport is gone, and with it all that there was to receive."""
        exc = self._lost_by
        try:
            # (An object that is used again, or whose own connection_made failed, never began.)
            began = self._phase is _OPENING and self._transport is not None
            if began and self._opening is not None:
                self._conclude_opening(self._opening, exc)
            elif self._phase is _LOST:
                self._conclude_connection(exc)
        finally:
            try:
                if self._phase is not _CLOSED:
                    self._enter(_CLOSED)
                self._lost_by = None
                if self._number:
                    journal.closed(self)
                self._lost()
            finally:
                if self._close_waiter is not None and not self._close_waiter.done():
                    self._close_waiter.set_result(None)
                if self._creator is not None:
                    self._creator.endpoint_lost(self)
                self._release_transport()

    def _release_transport(self) -> None:
        if self.get_extra_info("sslcontext") is not None:
            self._transport = LostTransport(self._transport)

    def _conclude_opening(self, opening: OpeningHandshake, exc: Exception | None) -> None:
        # uvloop does not call eof_received if TLS was not shut down before TCP.
        decision = opening.receive_eof() if exc is None else None
        self._enter(_CLOSED)
        if isinstance(decision, Failed):
            exc = decision.error
        self._report(exc or HandshakeError("connection closed during the opening handshake"))

    def _conclude_connection(self, exc: Exception | None) -> None:
        assert self._connection is not None
        self._drop_queued()
        is_over = self._connection.state is State.CLOSED
        self._connection.receive_eof()
        if exc is not None and not is_over:
            self._failed(exc)

    def eof_received(self) -> None:
        if self._phase is _OPENING:
            if self._opening is not None:
                self._act_on(self._opening.receive_eof())
        # What is pending comes before the end of the transport, which follows.
        elif self._phase in RECEIVING and not self._has_pending():
            assert self._connection is not None
            self._flush()
            self._connection.receive_eof()
            if self._phase in RECEIVING:
                self._enter(_LINGERING)
        # Returning None makes the transport send what it holds, then close; a peer that takes
        # none of it must not hold it forever. (One over TLS has more to send than it says.)
        if self._transport.get_write_buffer_size() or not self._transport.can_write_eof():
            self._lingering().set_limit()

    # Opening ---------------------------------------------------------------------------

    def _receive_opening(self, data: bytes) -> None:
        if self._opening is not None:
            self._act_on(self._opening.receive_data(data))

    def _open_timed_out(self) -> None:
        if self._opening is not None:
            self._act_on(self._opening.time_out())

    def _act_on(self, decision: Decision | None) -> None:
        """Do what the opening handshake decided."""
        opening = self._opening
        if opening is None:
            return
        self.request, self.response = opening.request, opening.response
        if isinstance(decision, Opened):
            self._open(decision, opening.role)
        elif isinstance(decision, Refused):
            self._refuse(decision)
        elif isinstance(decision, Failed):
            self._discard()
            self._report(decision.error)
        elif isinstance(decision, Undecided):
            answer = asyncio.ensure_future(decision.answer)
            opening.wait_for(answer)
            answer.add_done_callback(lambda _: self._decided(opening))
        if self._phase is _OPENING:
            self._update_reading()

    def _decided(self, opening: OpeningHandshake) -> None:
        decision = opening.decide()
        if self._opening is opening:
            self._act_on(decision)
        elif isinstance(decision, Refused) and decision.mistake is not None:
            self._log_error("process_request failed", decision.mistake)

    def _open(self, decision: Opened, role: Role) -> None:
        """The handshake succeeded: send its last word and go on."""
        if decision.octets:
            self._transport.write(decision.octets)
        # An idle connection holds little else.
        for head in (self.request, self.response):
            if head is not None:
                head.headers._pack()
        self.subprotocol = decision.subprotocol
        if role is Role.SERVER:
            self.context = decision.context
        if logger.isEnabledFor(logging.INFO):
            journal.opened(self, decision)
        self._connection = self._settings.make_connection(role, decision.deflate)
        self._hold_pongs()
        self._open_by = None
        self._enter(_OPEN)
        self._is_corked = True
        try:
            self._opened()
            if self._creator is not None:
                self._creator.endpoint_opened(self)
        finally:
            self._is_corked = False
            self._flush()
        if decision.trailing:
            self.data_received(decision.trailing)

    def _refuse(self, decision: Refused) -> None:
        """A server answers the handshake with plain HTTP, and that is all."""
        if decision.mistake is not None:
            self._log_error("process_request failed", decision.mistake)
        self._enter(_LINGERING)
        self._send_refusal(decision)
        if decision.error is not None:
            self._report(decision.error)
        self._update_reading()
        self._lingering().begin(is_silent=False, awaits_eof=True)

    def _discard(self) -> None:
        """Drop the connection, wherever it is."""
        if self._transport is None:
            if self._phase is not _CLOSED:
                self._enter(_CLOSED)
            return
        if self._phase is _OPENING:
            self._enter(_LINGERING)
        self._transport.abort()

    def _report(self, exc: Exception) -> None:
        if not isinstance(exc, Redirection):  # that is between the connector and us
            self._failed(exc)
        if self._creator is not None:
            self._creator.endpoint_failed(self, exc)

    # Keepalive ------------------------------------------------------------------------------

    def _keep_alive(self) -> None:
        """Ping the peer, or give it up."""
        keepalive, connection = self._keepalive, self._connection
        if keepalive is None or connection is None or connection.state is not State.OPEN:
            return
        now = self._loop.time()
        unread = len(self._sink.messages or ()) if self._sink.is_full(self) else 0
        is_stuck = keepalive.is_stuck(now, unread)
        is_alive = keepalive.is_alive(
            self._transport,
            written=connection._encoder._counts()[2],
            is_server=connection.role is Role.SERVER,
            was_heard=self._received_since_ping,
            is_held_up=self._reading_paused and not is_stuck,
        )
        verdict = keepalive.look(now, is_alive=is_alive, settings=self._settings)
        if verdict is Verdict.GIVE_UP:
            self._give_up(unread)
            return
        if verdict is Verdict.PING:
            if not self._write_paused:
                connection.ping(keepalive.next_ping())
                self._schedule_flush()
            self._received_since_ping = False
        self._set_timer(max(keepalive.due - now, 0.001), self._keep_alive)

    def _give_up(self, unread: int) -> None:
        """The connection did not get on for too long."""
        reason = KEEPALIVE_REASON
        if unread:
            reason = "messages are not received"
            line = "%d messages wait, none is received (%s) #%d"
            logger.warning(line, unread, self.remote_address, self.id)
        self._fail_with(CloseCode.INTERNAL_ERROR, reason)

    # Closing -----------------------------------------------------------------------------------

    def _begin_closing(self, code: int | None, reason: str) -> None:
        """Begin the close handshake (RFC 6455 §7.1.2)."""
        connection = self._connection
        if connection is None:
            # Never open: there is nobody to say goodbye to.
            if self._phase is _OPENING and self._transport is not None:
                close_transport(self._transport)
        elif connection.state is State.OPEN and connection.close_code is None:
            connection.close(code, reason)
            self._flush()
            if self._phase is _OPEN:
                self._enter(_CLOSING)
            else:
                self._sink.closing(self)

    def _fail_with(self, code: int, reason: str) -> None:
        """End the connection without waiting for the peer's close frame."""
        assert self._connection is not None
        self._connection.fail(code, reason)
        self._flush()

    def _end_connection(self, *, abort: bool = False) -> None:
        if self._phase is _LOST:
            self._conclude()
            return
        self._enter(_LINGERING)
        if abort:
            self._transport.abort()
            return
        # §7.1.1: the server closes first, so that the client does not have to wait.
        self._update_reading()
        connection = self._connection
        assert connection is not None
        if connection.role is Role.SERVER or connection.error is not None:
            self._lingering().begin(is_silent=connection.error is None, awaits_eof=self._awaits_eof)
        else:
            self._set_timer(self._settings.close_timeout, self._transport.abort)

    def _lingering(self) -> Lingering:
        open_by = self._open_by if self._connection is None else None
        return Lingering(self, self._set_timer, self._settings.close_timeout, open_by)

    async def _wait_closed(self) -> None:
        """Wait until the transport is gone."""
        if self._phase in (_LOST, _CLOSED):
            return
        if self._close_waiter is None:
            self._close_waiter = self._loop.create_future()
        # Shielded: a task that is cancelled must not cancel it for the others.
        await asyncio.shield(self._close_waiter)

    # Helpers -------------------------------------------------------------------------------------

    def _set_timer(
        self, delay: float | None, callback: Callable[..., object] | None = None, *args: object
    ) -> None:
        """Replace the one timer of this connection; there is none without a delay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and callback is not None and self._phase is not _CLOSED:
            self._timer = self._loop.call_later(delay, callback, *args)


def as_endpoint(value: object) -> Endpoint:
    """Return what an application made; raise TypeError if that is no endpoint."""
    if not isinstance(value, Endpoint):
        raise TypeError(f"protocol must be a WebSocketProtocol, not {type(value).__name__!r}")
    return value
