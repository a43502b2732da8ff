"""How fast a connection reads, and how much it may send.

This module knows back pressure in both directions: whom it slows down, and who waits because of
it. It does not know what a connection does when it ends, or who gets its messages.
"""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from contextlib import suppress
from typing import TYPE_CHECKING

from fastws import errors
from fastws.exceptions import ConnectionClosed
from fastws.spec import CloseCode, Role, State

from .phases import RECEIVING, Pace, Phase
from .pings import Pings
from .senders import Senders
from .settings import DEFAULT_SETTINGS
from .twin import send
from .unsent import silent_for
from .view import View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import Buffer

    from fastws.connection import Connection
    from fastws.events import Event
    from fastws.prepared import PreparedMessage

    from .keepalive import Keepalive
    from .opening import OpeningHandshake, Refused
    from .settings import Settings
    from .twin import Sink

__all__ = ["Flow"]

# While reading is slow there is a pause after each read, in seconds.
_PAUSE = 0.1
# While its client does not take what it is sent, a server reads at most this many bytes per second.
_PACE = 64 << 10

# Over TLS, so much is written at once, in bytes, or a quarter of it all. A transport passes on what
# it has encrypted to the one below, and does not count it any more: all of a large write, if the
# one below had room. (asyncio logs the sixth write and those after it if the first one finds the
# connection lost. A header with the beginning of its payload is one more.)
_STEP = 64 << 10
_MOST_STEPS = 4

# The members of an enum are slow to get at.
_OPENING = Phase.OPENING
_CLOSED = Phase.CLOSED
_FAST = Pace.FAST
_STOPPED = Pace.STOPPED


class Flow(View):
    """Base of `Endpoint`: what it does about a peer, or an application, that is slow."""

    __slots__ = ("_keepalive", "_opening", "_pause", "_settings", "_watchers")

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._settings: Settings = DEFAULT_SETTINGS
        self._opening: OpeningHandshake | None = None  # in that phase
        self._keepalive: Keepalive | None = None  # while open
        self._pause: asyncio.Handle | None = None  # after which reading goes on
        # What to call when the connection is no longer open; None most of the time.
        self._watchers: tuple[Callable[[Flow], None], ...] | None = None

    # Reading ----------------------------------------------------------------------------

    def _has_pending(self) -> bool:
        """Return whether some of what was read is not decoded yet."""
        return self._connection is not None and self._connection.has_pending

    def _is_overfull(self) -> bool:
        """Return whether the client does not take the answers.

        A client always reads: if neither side did, both would wait for the other forever. Once
        our close frame is on its way, the peer's must not be kept from us.
        """
        connection = self._connection
        return (
            self._write_paused
            and connection is not None
            and connection.role is Role.SERVER
            and connection.state is State.OPEN
            and not self._sink.ignores_unsent
        )

    def _update_reading(self) -> None:
        """Read on, or pause, as who gets the data wants it."""
        wanted = True
        if self._phase is _OPENING:
            wanted = self._opening is None or self._opening.wants_data()
        elif self._phase in RECEIVING:
            wanted = self._update_pace() is not _STOPPED
            if wanted and self._has_pending() and self._pause is None:
                self._pause = self._loop.call_soon(self._go_on)
        if self._transport.is_closing():
            return
        pause = not wanted or self._pause is not None
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _update_pace(self) -> Pace:
        pace = self._sink.pace(self)
        if pace is _FAST and self._pace is not pace and self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._pace = pace
        return pace

    def _after_read(self, size: int) -> None:
        # Nothing more is read, or decoded of what was read, until others have had their turn.
        # (uvloop would read many times.)
        pace = self._update_pace()
        if self._pause is None:
            if pace is Pace.SLOW:
                delay = max(size / _PACE, _PAUSE) if self._is_overfull() else _PAUSE
                self._pause = self._loop.call_later(delay, self._go_on)
            else:
                self._pause = self._loop.call_soon(self._go_on)
        self._update_reading()

    def _go_on(self) -> None:
        """The pause is over."""
        self._pause = None
        if self._has_pending() and self._sink.pace(self) is not Pace.STOPPED:
            self._receive(b"")
        if self._phase is Phase.LOST and not self._has_pending():
            self._end_connection()
        self._update_reading()

    def _take_pongs(self, events: list[Event]) -> None:
        latency = None if self._keepalive is None else self._keepalive.resolve(events)
        if self._pings is not None:
            answered = self._pings.resolve(events)
            latency = latency if answered is None else answered
        if latency is not None:
            self._latency = latency
            for observer in self._observers:
                observer.ping_answered(latency)

    def _send_refusal(self, refused: Refused) -> None:
        self._transport.write(refused.octets)
        for observer in self._observers:
            observer.request_answered(refused.status)

    def _end_waiting(self) -> None:
        """Nothing more is received: wake who waits for what will not come."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._pings is not None:
            self._pings.end(self._closed_error)
        if self._senders is not None:
            self._senders.end(self._closed_error)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._write_pauses += 1
        self._hold_pongs()
        self._update_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._hold_pongs()
        if self._connection is not None and self._connection.bytes_queued:
            self._schedule_flush()
        self._update_reading()
        self._make_room()

    def _write_piece(self, piece: bytes | memoryview) -> None:
        if len(piece) <= _STEP or self.get_extra_info("sslcontext") is None:
            self._transport.write(piece)
            return
        view = memoryview(piece)
        step = max(_STEP, -(-len(view) // _MOST_STEPS))
        for start in range(0, len(view), step):
            self._transport.write(view[start : start + step])

    def _hold_pongs(self) -> None:
        """Hold pongs back while the peer takes too little (RFC 6455 §5.5.3)."""
        if self._connection is not None:
            self._connection.hold_pongs(self._write_paused)

    # Sending ----------------------------------------------------------------------------

    def _require_connection(self) -> Connection:
        """Return the connection.

        Raises:
            ConnectionClosed: if it was never open.
        """
        if self._connection is None:
            raise errors.never_open()
        return self._connection

    def _closed_error(self) -> ConnectionClosed:
        """Return what to raise when the connection has ended."""
        connection = self._connection
        assert connection is not None
        return errors.closed(connection._ending, lost=connection.close_code is None)

    def _note_end(self, error: Exception | None) -> None:
        """Keep what is known now about the end of the connection, for `_closed_error`."""
        connection = self._connection
        assert connection is not None
        if error is not None:
            error = error.with_traceback(None)  # it would keep the objects in its frames alive
        # A transport that is lost has dropped what it had to send.
        unsent = None if self._phase is _CLOSED else self._unsent()
        if (ending := connection._ending) is not None:
            ending.last_heard = silent_for(self.get_extra_info("socket"))
            ending.unsent, ending.lost_by = unsent, error
        if unsent:
            # uvloop writes at the end of the turn, and what it can write then is not unsent. (Tasks
            # that wait for the end are woken after this.)
            self._loop.call_soon(self._note_unsent)

    def _note_unsent(self) -> None:
        connection = self._connection
        if connection is not None and connection._ending and not self._transport.is_closing():
            connection._ending.unsent = self._unsent()

    def _drop_slow_peer(self) -> bool:
        # What ends a connection may always be sent.
        if self._sink.senders_wait or self.state is not State.OPEN or not self._has_no_room():
            return False
        self._drop_peer(f"more than {self._settings.unsent_limit} bytes unsent")
        return True

    def _drop_peer(self, reason: str) -> None:
        """End a connection that is open. The peer takes too little to be told why."""
        assert self._connection is not None
        self._connection.fail(CloseCode.POLICY_VIOLATION, reason)
        self._end_connection(abort=True)

    def _has_no_room(self) -> bool:
        """Return whether more is unsent than may be."""
        limit = self._settings.unsent_limit
        return limit is not None and self._transport.get_write_buffer_size() > limit

    async def _yield_to_loop(self) -> None:
        """End this turn of the event loop: there was much to send in it."""
        self._must_yield = False
        await asyncio.sleep(0)

    def _waiting_senders(self) -> Senders:
        if self._senders is None:
            self._senders = Senders()
        return self._senders

    def _is_sending(self) -> bool:
        """Return whether a coroutine sends something that takes some time."""
        return self._senders is not None and self._senders.is_busy

    async def _drain(self) -> None:
        """Wait until the peer has taken enough of what was sent, or the connection ends."""
        if self._phase in RECEIVING:
            await self._waiting_senders().room()

    def _make_room(self) -> None:
        if self._senders is not None:
            self._senders.make_room()

    async def _finish_sends(self) -> None:
        """Wait until what was to be sent before has been handed to the transport, for
        `close_timeout` at most."""
        senders = self._senders
        if senders is None or not senders.is_busy or senders.is_endless:
            return
        if self.state is State.OPEN:
            with suppress(TimeoutError, ConnectionClosed):
                async with asyncio.timeout(self._settings.close_timeout), senders.turn():
                    pass

    def _send_ping(self, data: Buffer | None) -> asyncio.Future[float]:
        connection = self._require_connection()
        if self._pings is None:
            self._pings = Pings()
        octets = self._pings.choose(data)
        connection.ping(octets)
        waiter = self._pings.add(octets)
        self._schedule_flush()
        return waiter

    def _send_pong(self, data: Buffer) -> None:
        self._require_connection().pong(data)
        self._schedule_flush()

    # Publishing: see `receivers` -----------------------------------------------------------

    def _watch(self, callback: Callable[[Flow], None]) -> None:
        """Call a function when the connection is no longer open.

        Raises:
            ConnectionClosed: if it is not open now.
        """
        self._require_connection().check_open()
        if self._phase is not Phase.OPEN:
            raise self._closed_error()
        self._watchers = (*(self._watchers or ()), callback)

    def _unwatch(self, callback: Callable[[Flow], None]) -> None:
        watchers = self._watchers or ()
        self._watchers = tuple(each for each in watchers if each != callback) or None

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, None
        for callback in watchers or ():
            callback(self)

    def _is_open(self) -> bool:
        return self._phase is Phase.OPEN and self.state is State.OPEN

    def _is_elsewhere(self) -> bool:
        return _get_running_loop() is not self._loop

    def _most_unsent(self) -> int | None:
        """Return the maximum of that; None for no limit."""
        return self._settings.unsent_limit

    if TYPE_CHECKING:
        # As for `WebSocketProtocol.send`.
        def _offer(self, message: PreparedMessage, *, compress: bool | None = None) -> None: ...

    else:
        _offer = send

    async def _finish(self, running: Awaitable[object]) -> None:
        await running
