"""One WebSocket connection on an asyncio transport.

`Endpoint` knows the transport, the timers and back pressure, and leads a connection from
its opening to its end. It does not know what becomes of the messages: that is for its two
subclasses, `WebSocketProtocol` here, which calls hooks, and `WebSocket`, which is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import wraps
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast
from weakref import WeakKeyDictionary

from fastws import rules
from fastws.codec import HotEndpoint
from fastws.connection import Connection
from fastws.deflate import PerMessageDeflate
from fastws.events import Pong
from fastws.exceptions import ConnectionClosed, FieldError, HandshakeError
from fastws.spec import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    DEFAULT_MAX_QUEUE,
    DEFAULT_MAX_UNSENT_SIZE,
    DEFAULT_OPEN_TIMEOUT,
    DEFAULT_PING_INTERVAL,
    DEFAULT_PING_TIMEOUT,
    DEFAULT_READ_LIMIT,
    DEFAULT_WRITE_LIMIT,
    CloseCode,
    Role,
    State,
)

from .opening import ServerOpening
from .unsent import acknowledged, unacknowledged

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.deflate import Agreement
    from fastws.events import Event
    from fastws.http import Request, Response

    from .opening import Opening

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger("fastws")


# What all connections of a server share ----------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and times; `serve` and `connect` document them."""

    max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE
    max_fragments: int | None = DEFAULT_MAX_FRAGMENTS
    open_timeout: float | None = DEFAULT_OPEN_TIMEOUT
    close_timeout: float | None = DEFAULT_CLOSE_TIMEOUT
    ping_interval: float | None = DEFAULT_PING_INTERVAL
    ping_timeout: float | None = DEFAULT_PING_TIMEOUT
    max_queue: int | None = DEFAULT_MAX_QUEUE
    read_limit: int | None = DEFAULT_READ_LIMIT
    write_limit: int = DEFAULT_WRITE_LIMIT
    max_unsent_size: int | None = DEFAULT_MAX_UNSENT_SIZE

    def __post_init__(self) -> None:
        rules.check_limit("max_queue", self.max_queue, 1)
        rules.check_limit("read_limit", self.read_limit, 1)
        rules.check_limit("write_limit", self.write_limit, 0)
        # (A write limit over the default of the other raises that with it.)
        least = min(self.write_limit, DEFAULT_MAX_UNSENT_SIZE)
        rules.check_limit("max_unsent_size", self.max_unsent_size, least)
        for name in ("open_timeout", "close_timeout", "ping_interval", "ping_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, or None for never")
        # The limits are checked where they are used; here, so that serve() raises.
        Connection(
            Role.SERVER, max_message_size=self.max_message_size, max_fragments=self.max_fragments
        )

    @property
    def unsent_limit(self) -> int | None:
        """How much may be unsent, in bytes; None for no limit."""
        return None if self.max_unsent_size is None else max(self.max_unsent_size, self.write_limit)


def deflate_extensions(deflate: PerMessageDeflate | bool) -> tuple[PerMessageDeflate, ...]:
    """Read the argument of that name of `serve` and `connect`."""
    if isinstance(deflate, PerMessageDeflate):
        return (deflate,)
    return (PerMessageDeflate(),) if deflate else ()


def configured(
    endpoint: object, settings: Settings, make_opening: Callable[[], Opening], owner: Owner
) -> Endpoint:
    """Make an endpoint that the application created ready for its connection.

    Raises:
        TypeError: if it is no endpoint.
        RuntimeError: if it was not initialized, or has a connection already.
    """
    if not isinstance(endpoint, Endpoint):
        raise TypeError(f"protocol must be a WebSocketProtocol, not {type(endpoint).__name__!r}")
    endpoint._check_initialized()
    if endpoint._transport is not None and not endpoint._gone:
        raise RuntimeError(f"{type(endpoint).__qualname__} object already has a connection")
    endpoint._settings = settings
    endpoint._make_opening = make_opening
    endpoint._owner = owner
    # From here on, and not from when there is a transport: TLS may take its time before.
    if settings.open_timeout is not None:
        endpoint._deadline = asyncio.get_running_loop().time() + settings.open_timeout
    return endpoint


class Owner(Protocol):
    """Who made an endpoint and wants to know how it fares: a server or a connector."""

    def endpoint_made(self, endpoint: Endpoint) -> None:
        """There is a transport."""

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        """The opening handshake succeeded."""

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        """The opening handshake failed."""

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        """The transport is gone."""


# One read buffer for all connections of a loop: a transport calls get_buffer and
# buffer_updated back to back, so an idle connection needs no buffer of its own.
_READ_BUFFER_SIZE = 256 << 10
_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _read_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    buffer = _read_buffers.get(loop)
    if buffer is None:
        buffer = _read_buffers[loop] = memoryview(bytearray(_READ_BUFFER_SIZE))
    return buffer


# What our own pings carry: a pong must not seem to answer one of the application's.
_KEEPALIVE = b"keepalive"

# So many bytes are more than the pings between two looks at a connection.
_SMALL = 256

# How long a peer may take to close its side when its opening handshake has no time left, in
# seconds.
_MOMENT = 1.0

# A TLS transport cannot shut down its writing side alone. There, and under uvicorn, the peer is
# considered done after so many seconds of silence.
_TLS_LINGER = 1.0


class _LostTransport(asyncio.Transport):
    """What is left of a TLS transport that is gone.

    The transport itself refers to its protocol, and has buffers of several 100 KiB, which would
    stay until the garbage collector comes along.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        names = ("sslcontext", "peercert", "cipher", "compression")
        super().__init__({name: transport.get_extra_info(name) for name in names})

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def _ending_on_error(connection_made: Callable[..., None]) -> Callable[..., None]:
    """Wrap `connection_made`: if it fails, the connection ends."""

    @wraps(connection_made)
    def guarded(self: Endpoint, transport: asyncio.Transport) -> None:
        try:
            self._check_initialized()
            connection_made(self, transport)
        except BaseException as exc:
            transport.abort()
            if self._owner is not None and isinstance(exc, Exception):
                self._owner.endpoint_failed(self, exc)
            raise

    return guarded


def _ending_always(connection_lost: Callable[..., None]) -> Callable[..., None]:
    """Wrap a subclass's `connection_lost`: ours runs even if it fails, or does not call it."""

    @wraps(connection_lost)
    def guarded(self: Endpoint, exc: Exception | None) -> None:
        try:
            connection_lost(self, exc)
        finally:
            if not self._gone:
                Endpoint.connection_lost(self, exc)

    return guarded


class Endpoint(HotEndpoint, asyncio.BufferedProtocol):
    """What both styles of connection have in common."""

    __slots__ = (
        "__weakref__",
        "_close_waiter",
        "_deadline",
        "_drain_waiters",
        "_loss",
        "_make_opening",
        "_next_ping",
        "_opening",
        "_owner",
        "_reading_paused",
        "_settings",
        "_step",
        "_taken",
        "_timer",
        "request",
        "response",
        "subprotocol",
    )

    _loop: asyncio.AbstractEventLoop
    # There is none before connection_made; nothing of ours is called by then.
    _transport: asyncio.Transport
    _connection: Connection | None
    _pings: dict[bytes, tuple[float, asyncio.Future[float]]] | None

    def __init__(self) -> None:
        super().__init__()
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self._settings = _DEFAULT_SETTINGS
        self._make_opening: Callable[[], Opening] = ServerOpening
        self._owner: Owner | None = None
        self._opening: Opening | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Keepalive.
        self._next_ping = 0.0
        # By when the opening handshake has to be done; later on, by when the peer has to move.
        self._deadline: float | None = None
        self._taken = 0  # by the peer until the last look, in bytes
        # The error, or None, with which the transport went while something was pending.
        self._loss: tuple[Exception | None] | None = None
        # Back pressure.
        self._reading_paused = False
        self._step: asyncio.Handle | None = None  # goes on in the next turn of the event loop
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._close_waiter: asyncio.Future[None] | None = None

    def _check_initialized(self) -> None:
        if not hasattr(self, "_close_waiter"):
            Endpoint.__init__(self)  # for what is called at the end of a connection
            raise RuntimeError(f"{type(self).__qualname__}.__init__() must call super().__init__()")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Whatever becomes of the application's own code, a connection that has begun ends, and
        # whoever waits for its end hears of it.
        super().__init_subclass__(**kwargs)
        if (connection_made := cls.__dict__.get("connection_made")) is not None:
            cls.connection_made = _ending_on_error(connection_made)  # type: ignore[method-assign]
        if (connection_lost := cls.__dict__.get("connection_lost")) is not None:
            cls.connection_lost = _ending_always(connection_lost)  # type: ignore[method-assign]

    # For both styles --------------------------------------------------------------

    @property
    def remote_address(self) -> Any:
        """The peer's address, as its socket family has it; None if there is none."""
        return self.get_extra_info("peername")

    @property
    def local_address(self) -> Any:
        """Our address, as its socket family has it; None if there is none."""
        return self.get_extra_info("sockname")

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
    def close_code(self) -> int | None:
        """How the connection ended (see `Connection.close_code`); None while it has not."""
        return None if self._connection is None else self._connection.close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with the close code."""
        return "" if self._connection is None else self._connection.close_reason

    # For the subclasses to fill in -----------------------------------------------------

    def _opened(self) -> None:
        """The connection is open."""

    def _failed(self, exc: Exception) -> None:
        """The connection ends, or did not come about, because of an error."""

    def _finished(self) -> None:
        """Nothing more will be received on a connection that was open."""

    def _lost(self) -> None:
        """The transport of a connection that was open is gone."""

    # asyncio.BaseProtocol ------------------------------------------------------------------

    @_ending_on_error
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._gone:  # discarded already
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._buffer = _read_buffer(self._loop)
        if self._settings.write_limit != DEFAULT_WRITE_LIMIT:  # which is asyncio's, too
            self._transport.set_write_buffer_limits(self._settings.write_limit)
        if self._owner is not None:
            self._owner.endpoint_made(self)
        self._opening = self._make_opening()
        timeout = self._settings.open_timeout
        if timeout is not None:
            if self._deadline is None:
                self._deadline = self._loop.time() + timeout
            timeout = max(self._deadline - self._loop.time(), 0.0)
        self._set_timer(timeout, self._open_timed_out)
        self._opening.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._set_timer(None, None)
        self._write_paused = False
        self._wake_drain_waiters()
        connection = self._connection
        if connection is not None and connection.has_pending and not self._ended:
            # What was read and is not decoded yet comes before the end, if it is wanted soon.
            self._loss = (exc,)
            timeout = self._settings.close_timeout
            self._timer = self._loop.call_later(
                DEFAULT_CLOSE_TIMEOUT if timeout is None else timeout, self._conclude, exc
            )
            self._update_reading()
        else:
            self._conclude(exc)

    def _conclude(self, exc: Exception | None) -> None:
        """The transport is gone, and with it all that there was to receive."""
        self._loss = None
        self._set_timer(None, None)
        try:
            if exc is None and self._opening is not None:
                # uvloop does not call eof_received if TLS was not shut down before TCP.
                self._opening.receive_eof(self)
            opening, self._opening = self._opening, None
            if opening is not None:
                opening.cancel()
                self._report(
                    exc or HandshakeError("connection closed during the opening handshake")
                )
            elif self._connection is not None:
                self._end(self._connection, exc)
        finally:
            if self._close_waiter is not None and not self._close_waiter.done():
                self._close_waiter.set_result(None)
            if self._owner is not None:
                self._owner.endpoint_lost(self)
            if self.get_extra_info("sslcontext") is not None:
                self._transport = _LostTransport(self._transport)

    def _end(self, connection: Connection, exc: Exception | None) -> None:
        """The transport of a connection that was open is gone."""
        try:
            self._flush()
            connection.receive_eof()
            if exc is not None and not self._ended:
                self._failed(exc)
        finally:
            try:
                self._finish()
            finally:
                self._lost()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._connection is not None:
            self._connection.hold_pongs(True)
        self._update_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._connection is not None:
            self._connection.hold_pongs(False)
            if self._connection.bytes_queued:
                self._sent()
        self._update_reading()
        self._wake_drain_waiters()

    # asyncio.BufferedProtocol ----------------------------------------------------------------

    def _receive_opening(self, data: bytes) -> None:
        if self._opening is not None:
            self._opening.receive_data(self, data)

    def eof_received(self) -> None:
        if self._opening is not None:
            self._opening.receive_eof(self)
        elif (
            self._connection is not None
            and not self._ended
            # Else the transport's end, which follows, comes after what is pending.
            and not self._connection.has_pending
        ):
            self._flush()
            self._connection.receive_eof()
            self._finish()
        # Returning None makes the transport send what it holds, then close; a peer that takes
        # none of it must not hold it for ever.
        self._set_timer(self._patience(), self._transport.abort)

    # Opening ---------------------------------------------------------------------------

    def _open(self, octets: bytes, trailing: bytes, deflate: Agreement | None) -> None:
        """The handshake succeeded: send its last word and go on."""
        opening, self._opening = self._opening, None
        assert opening is not None
        if octets:
            self._transport.write(octets)
        # An idle connection holds little else.
        for head in (self.request, self.response):
            if head is not None:
                head.headers._pack()
        settings = self._settings
        self._connection = Connection(
            opening.role,
            max_message_size=settings.max_message_size,
            max_fragments=settings.max_fragments,
            deflate=deflate,
        )
        if self._write_paused:
            self._connection.hold_pongs(True)
        self._deadline = None
        self._keep_alive_from_now()
        self._corked = True
        try:
            self._opened()
            if self._owner is not None:
                self._owner.endpoint_opened(self)
        finally:
            self._corked = False
            self._flush()
        if trailing:
            self._receive(trailing)

    def _refuse(self, octets: bytes, exc: Exception | None) -> None:
        """A server answers the handshake with plain HTTP, and that is all."""
        self._opening = None
        self._ended = True
        self._transport.write(octets)
        if exc is not None:
            self._report(exc)
        self._linger()

    def _abandon(self, exc: Exception) -> None:
        """A client gives up the handshake."""
        self._discard()
        self._report(exc)

    def _discard(self) -> None:
        """Drop the connection, wherever it is."""
        if self._connection is None:
            self._opening = None
            self._ended = True
        if self._transport is not None:
            self._transport.abort()
        else:
            self._gone = True

    def _report(self, exc: Exception) -> None:
        self._failed(exc)
        if self._owner is not None:
            self._owner.endpoint_failed(self, exc)

    def _open_timed_out(self) -> None:
        if self._opening is not None:
            self._opening.time_out(self)

    # Receiving ------------------------------------------------------------------------

    def _finish(self) -> None:
        """Nothing more will be received."""
        if self._ended:
            return
        self._ended = True
        assert self._connection is not None
        if self._connection.error is not None:
            self._failed(self._connection.error)
        for _, waiter in (self._pings or {}).values():
            if not waiter.done():
                waiter.set_exception(self._closed_error())
                waiter.exception()  # nobody has to await it
        self._pings = None
        self._wake_drain_waiters()
        self._finished()

    def _closed_error(self) -> ConnectionClosed:
        connection = self._connection
        assert connection is not None
        code = connection.close_code
        error = ConnectionClosed(
            CloseCode.ABNORMAL_CLOSURE.value if code is None else code, connection.close_reason
        )
        error.__cause__ = connection.error
        return error

    def _decoding_failed(self, exc: Exception) -> None:
        self._log_error("decoding failed", exc)

    # Sending ----------------------------------------------------------------------------

    def _sendable(self) -> Connection:
        if self._connection is None:
            raise ConnectionClosed(
                CloseCode.ABNORMAL_CLOSURE.value, "the connection was never open"
            )
        return self._connection

    def _drop_slow_peer(self) -> bool:
        # What ends a connection may always be sent.
        if self.state is not State.OPEN or not self._has_no_room():
            return False
        limit = self._settings.unsent_limit
        assert self._connection is not None
        self._connection.fail(CloseCode.POLICY_VIOLATION, f"more than {limit} bytes unsent")
        self._finish()
        self._transport.abort()
        return True

    def _has_no_room(self) -> bool:
        """Tell whether more is unsent than may be."""
        limit = self._settings.unsent_limit
        return limit is not None and self._transport.get_write_buffer_size() > limit

    async def _let_others(self) -> None:
        """End this turn of the event loop: there was much to send in it."""
        self._hogging = False
        await asyncio.sleep(0)

    async def _drain(self) -> None:
        """Wait until the peer took enough of what was sent, or the connection ends."""
        if self._ended:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._drain_waiters is None:
            self._drain_waiters = []
        self._drain_waiters.append(waiter)
        await waiter

    def _wake_drain_waiters(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _ping(self, data: Buffer | None) -> asyncio.Future[float]:
        connection = self._sendable()
        if self._pings is None:
            self._pings = {}
        if data is not None:
            octets = bytes(memoryview(data))
            if octets in self._pings:
                raise ValueError("a ping with the same data is on its way")
        else:
            number = len(self._pings)
            while (octets := number.to_bytes(4, "big")) in self._pings:
                number += 1
        connection.ping(octets)
        waiter: asyncio.Future[float] = self._loop.create_future()
        self._pings[octets] = (perf_counter(), waiter)
        self._sent()
        return waiter

    def _resolve_pings(self, events: list[Event]) -> None:
        assert self._pings is not None
        for event in events:
            if isinstance(event, Pong) and event.data in self._pings:
                now = perf_counter()  # finer than a loop's time
                # §5.5.3: a pong may answer the last of several pings only.
                answered = False
                while not answered:
                    data = next(iter(self._pings))
                    sent, waiter = self._pings.pop(data)
                    if not waiter.done():
                        waiter.set_result(now - sent)
                    answered = data == event.data

    # Back pressure -------------------------------------------------------------------------

    def _hold_reading(self, held: bool) -> None:
        """Hold reading because what was read is not wanted yet."""
        self._held = held
        self._update_reading()

    def _is_overfull(self) -> bool:
        """Tell whether nothing is read because the client does not take the answers.

        A client always reads: if neither side did, both would wait for the other for ever. Once
        our close frame is on its way, the peer's must not be kept from us.
        """
        connection = self._connection
        return (
            self._write_paused
            and connection is not None
            and connection.role is Role.SERVER
            and connection.state is State.OPEN
        )

    def _may_read(self) -> bool:
        """Tell whether more may be read, or decoded of what was read."""
        return not self._held and not self._is_overfull()

    def _after_read(self, size: int) -> None:
        self._let_others_read()
        self._update_reading()

    def _let_others_read(self) -> None:
        """Read no more, nor decode what was read, in this turn of the event loop. (uvloop would
        read many times.)"""
        if self._step is None:
            self._step = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._step = None
        connection = self._connection
        assert connection is not None
        if connection.has_pending and self._may_read():
            self._receive(b"")
        if self._loss is not None and not connection.has_pending:
            self._conclude(*self._loss)
        self._update_reading()

    def _update_reading(self) -> None:
        connection = self._connection
        may_read = self._ended or self._may_read()
        if may_read and connection is not None and connection.has_pending:
            self._let_others_read()
        if self._transport.is_closing():
            return
        pause = not may_read or self._step is not None
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # Keepalive ------------------------------------------------------------------------------

    def _keep_alive_from_now(self) -> None:
        interval = self._settings.ping_interval
        if interval is None:
            self._set_timer(None, None)
        else:
            self._next_ping = self._loop.time() + interval
            self._set_timer(interval, self._keep_alive)

    def _keep_alive(self) -> None:
        """Ping the peer, or give it up."""
        connection = self._connection
        settings = self._settings
        if connection is None or connection.state is not State.OPEN:
            return
        now = self._loop.time()
        if self._is_alive():
            self._deadline = None
        elif self._deadline is not None and now >= self._deadline:
            self._give_up()
            return
        if now >= self._next_ping:
            assert settings.ping_interval is not None
            self._next_ping = now + settings.ping_interval
            if not self._write_paused:
                connection.ping(_KEEPALIVE)
                self._sent()
            self._heard = False
            if self._deadline is None and settings.ping_timeout is not None:
                self._deadline = now + settings.ping_timeout
        due = self._next_ping if self._deadline is None else min(self._next_ping, self._deadline)
        self._set_timer(max(due - now, 0.001), self._keep_alive)

    def _is_alive(self) -> bool:
        """Tell whether the connection got on since the last look.

        Whatever arrives is a sign of life: behind a large message the pong may be long in
        coming. So it is if the peer takes of what waited to be sent, and no sign can be
        expected while we do not read. But a server that has something to send does not go by
        what a client sends, which could be a byte now and then for ever: it has to take something.
        """
        sock = self.get_extra_info("socket")
        unsent = self._transport.get_write_buffer_size()
        waiting = unsent + unacknowledged(sock)
        taken = acknowledged(sock)
        if taken is None:
            taken = self._written - waiting
        before, self._taken = self._taken, taken
        # (Our pings are small, and all that a peer's system takes if the peer hangs.)
        takes = waiting > _SMALL and taken - before > _SMALL
        assert self._connection is not None
        if waiting > _SMALL and self._connection.role is Role.SERVER:
            return takes
        return takes or self._heard or self._is_held_up()

    def _is_held_up(self) -> bool:
        """Tell whether nothing can be heard from the peer because we do not read."""
        return self._reading_paused

    def _give_up(self) -> None:
        """The connection did not get on for too long."""
        self._fail_with(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    # Closing -----------------------------------------------------------------------------------

    def _close(self, code: int | None, reason: str) -> None:
        """Begin the close handshake (RFC 6455 §7.1.2)."""
        connection = self._connection
        if connection is None:
            # Never open: there is nobody to say goodbye to.
            if self._transport is not None and not self._ended:
                self._close_transport()
            return
        if connection.state is State.OPEN and connection.close_code is None:
            connection.close(code, reason)
            self._flush()
            self._update_reading()
            self._set_timer(self._settings.close_timeout, self._transport.abort)

    def _fail_with(self, code: int, reason: str) -> None:
        """End the connection without waiting for the peer's close frame."""
        assert self._connection is not None
        self._connection.fail(code, reason)
        self._flush()

    def _end_transport(self) -> None:
        """The close frames are exchanged, or ours is the last word: end the TCP connection.

        §7.1.1: the server closes first, so that the client does not have to wait.
        """
        connection = self._connection
        assert connection is not None
        if connection.role is Role.SERVER or connection.error is not None:
            self._linger()
        else:
            self._update_reading()
            self._set_timer(self._settings.close_timeout, self._transport.abort)

    def _linger(self) -> None:
        """Close the TCP connection such that no reset overtakes what we sent last.

        A socket closed while the peer still sends makes the peer's kernel drop what it has
        not read yet. So only our side is shut down, and what arrives is dropped until the
        peer closes its side.
        """
        self._update_reading()
        if self._transport.is_closing():
            return
        timeout = self._patience()
        if self._transport.can_write_eof():
            self._set_timer(timeout, self._transport.abort)
            try:
                self._transport.write_eof()
            except OSError:  # the peer answered our last write with a reset
                self._transport.abort()
        elif self._connection is not None and self._connection.error is None:
            self._shut()  # the peer sent its close frame, thus nothing after it
        else:
            self._begin_silence()

    def _begin_silence(self) -> None:
        timeout = self._patience()
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._linger_until_silent()

    def _linger_until_silent(self) -> None:
        if self._deadline is not None and self._loop.time() >= self._deadline:
            self._transport.abort()
        elif self._heard or self._transport.get_write_buffer_size():
            self._heard = False
            left = _TLS_LINGER if self._deadline is None else self._deadline - self._loop.time()
            self._set_timer(min(_TLS_LINGER, left), self._linger_until_silent)
        else:
            self._shut()

    def _shut(self) -> None:
        """Have the transport send what it holds, then close, but not wait for ever."""
        self._set_timer(self._patience(), self._transport.abort)
        self._close_transport()

    def _close_transport(self) -> None:
        # Closed twice, a transport over TLS knows nothing any more, not even that it is.
        if not self._transport.is_closing():
            self._transport.close()

    def _patience(self) -> float | None:
        """Return how long the peer may take to end its side, in seconds.

        What never became a connection is gone by the time that its handshake had, or a moment
        after its last word. Only who still takes a response gets as long as a connection.
        """
        timeout = self._settings.close_timeout
        if (
            self._connection is not None
            or self._deadline is None
            or self._transport.get_write_buffer_size()
        ):
            return timeout
        left = max(self._deadline - self._loop.time(), _MOMENT)
        return left if timeout is None else min(timeout, left)

    async def _finish_sends(self) -> None:
        """Wait until what was to be sent before is on its way, but not for ever."""

    async def _wait_closed(self) -> None:
        """Wait until the transport is gone."""
        if self._gone:
            return
        if self._close_waiter is None:
            self._close_waiter = self._loop.create_future()
        # Shielded: whoever is cancelled must not cancel it for the others.
        await asyncio.shield(self._close_waiter)

    # Helpers -------------------------------------------------------------------------------------

    def _set_timer(self, delay: float | None, callback: Callable[[], None] | None) -> None:
        """Replace the one timer of this connection; there is none without a delay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and callback is not None and not self._gone:
            self._timer = self._loop.call_later(delay, callback)

    def _blames_peer(self, exc: BaseException) -> bool:
        """Tell whether the application let this out only because of what the peer did: it went,
        or its header has no field, or several, of a name that was looked up."""
        if isinstance(exc, ExceptionGroup):
            return all(map(self._blames_peer, exc.exceptions))
        if isinstance(exc, ConnectionClosed):
            return self.state is not State.OPEN
        head = self.request or self.response
        return (
            isinstance(exc, FieldError)
            and head is not None
            and len(head.headers.get_all(exc.name)) != 1
        )

    def _log_error(self, message: str, exc: BaseException) -> None:
        logger.error("%s (%s)", message, self.remote_address, exc_info=exc)


_DEFAULT_SETTINGS = Settings()


class WebSocketProtocol(Endpoint):
    """A connection that calls you: override the hooks that you need.

    The hooks are called in the event loop, one at a time. An exception that one of them
    lets out is logged and closes the connection with 1011.

    The class is a protocol factory for `loop.create_server`; `fastws.serve` and
    `fastws.connect` take it too and add what a bare transport has not.

    Attributes:
        request: the client's request; None on a client.
        response: the server's response; None on a server.
        subprotocol: the subprotocol agreed on; None if there is none.
    """

    __slots__ = ()

    # Hooks ----------------------------------------------------------------------------

    def on_open(self) -> None:
        """The connection is open."""

    def on_message(self, message: str | bytes) -> None:
        """A message arrived: a `str` if it is text, `bytes` if it is binary."""

    def on_close(self, code: int, reason: str) -> None:
        """The connection is gone; called once for each `on_open`.

        Args:
            code: the close code that the peer sent (1005 if it sent none), that we sent when
                it broke the protocol, or 1006 if the connection was lost without.
            reason: the reason that came with the code.
        """

    def on_error(self, exc: Exception) -> None:
        """The connection did not come about, or ends, because of an error.

        Args:
            exc: HandshakeError, ProtocolError, OSError or TimeoutError.
        """

    # Methods ----------------------------------------------------------------------------

    def ping(self, data: Buffer | None = None) -> asyncio.Future[float]:
        """Send a ping (RFC 6455 §5.5.2).

        Args:
            data: at most 125 bytes, which no other ping on its way has; by default ours.

        Returns:
            a future, which need not be awaited: the time until the pong, in seconds, or
            ConnectionClosed.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long or that of another ping on its way.
            ConnectionClosed: if the connection is closed or closing.
        """
        return self._ping(data)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; `on_close` follows. Does nothing if it is closing already.

        Args:
            code: a close code that may travel (RFC 6455 §7.4); None to send none.
            reason: at most 123 bytes in UTF-8; none without a code.

        Raises:
            ValueError: if the code may not travel or the reason is too long.
        """
        self._close(code, reason)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._wait_closed()

    # Endpoint's ---------------------------------------------------------------------------

    _received = Endpoint._call_back

    def _opened(self) -> None:
        self._call(self.on_open)

    def _failed(self, exc: Exception) -> None:
        self._call(self.on_error, exc)

    def _lost(self) -> None:
        code = self.close_code
        assert code is not None
        self._call(self.on_close, code, self.close_reason)

    def _call(self, hook: Callable[..., None], *args: Any) -> None:
        try:
            hook(*args)
        except BaseException as exc:
            self._hook_failed(exc)

    def _hook_failed(self, exc: BaseException) -> None:
        code = CloseCode.INTERNAL_ERROR
        if self._blames_peer(exc):
            code = CloseCode.POLICY_VIOLATION
            logger.debug("a hook of %s ended: %s", type(self).__name__, exc)
        elif isinstance(exc, (SystemExit, KeyboardInterrupt)):
            # These two end the event loop; uvloop's transports would not let them through.
            asyncio.get_running_loop().call_soon(_raise, exc)
        else:
            self._log_error(f"a hook of {type(self).__name__} failed", exc)
        if self.state is State.OPEN:
            self._deaf = True
            self._close(code, "")


def _raise(exc: BaseException) -> NoReturn:
    raise exc
