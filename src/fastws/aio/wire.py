# cython: language_level=3, freethreading_compatible=True, subinterpreters_compatible=no
# cython: autotestdict=False, nonecheck=True, annotation_typing=False
# cython: binding=False, boundscheck=False, wraparound=False
"""From the socket to the messages and back: the part of an endpoint that every message passes.

This module knows how what was read is decoded and handed over, and how what is queued leaves in
few writes. It knows in which phases data is received and written, but not what leads from one to
the next, and no timer: of the event loop it uses only `call_soon` and `create_future`, and of the
transport only `write`.

It is written once. Where it can be, it is compiled, as `fastws._c.wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from fastws import _cython as cython
from fastws import errors
from fastws.aio import phases
from fastws.aio.phases import Pace, Phase
from fastws.spec import State

if cython.compiled:  # pragma: no cover
    import cython  # type: ignore[import-untyped, no-redef]

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Buffer

    from fastws.connection import Connection
    from fastws.exceptions import ConnectionClosed
    from fastws.prepared import PreparedMessage

    from .pings import Pings
    from .senders import Senders
    from .sinks import Sink

__all__ = ["Wire", "send"]

# The members of an enum are slow to get at.
_OPENING = Phase.OPENING
_OPEN = Phase.OPEN
_CLOSING = Phase.CLOSING
_LINGERING = Phase.LINGERING
_LOST = Phase.LOST
_CLOSED = Phase.CLOSED
_FAST = Pace.FAST
_STATE_CLOSED = State.CLOSED

_FRESH = phases.FRESH
_WROTE = phases.WROTE
_CORKED = phases.CORKED

# How many bytes may wait for the end of a turn of the event loop, to leave in one write.
_CORK_LIMIT = 64 << 10

# After a read of more messages and control frames than these, other connections have their turn.
_MANY_EVENTS = 256


@cython.cclass
class Wire:
    """What an asyncio protocol does for each message of its connection."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_cork",
        "_loop",
        "_must_yield",
        "_pace",
        "_phase",
        "_pings",
        "_received_since_ping",
        "_senders",
        "_sink",
        "_storage",
        "_transport",
        "_write_paused",
        "_written",
    )

    _buffer: memoryview
    _connection: Connection | None
    _cork: int
    _loop: Any
    _must_yield: bool
    _pace: Pace
    _phase: Phase
    _pings: Pings | None
    _received_since_ping: bool
    _sink: Sink
    _storage: bytearray
    _transport: Any
    _senders: Senders | None
    _write_paused: bool
    _written: int

    def __init__(self, sink: Sink) -> None:
        self._phase = _OPENING
        self._transport = None
        self._connection = None
        self._sink = sink
        self._pace = _FAST
        self._pings = None
        self._senders = None
        self._received_since_ping = False
        self._cork = _FRESH
        self._write_paused = False
        self._written = 0  # to the transport, in bytes
        # A coroutine sent much in this turn of the event loop, and others must have theirs: a
        # transport that met an error drops what it is given, until connection_lost is called.
        self._must_yield = False

    def _use_buffer(self, buffer: memoryview) -> None:
        """Read into a bytearray's memory."""
        self._buffer = buffer
        self._storage = buffer.obj  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    # asyncio.BufferedProtocol ------------------------------------------------------------

    @cython.critical_section
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    @cython.critical_section
    def buffer_updated(self, nbytes: int) -> None:
        self._received_since_ping = True
        if self._phase is _OPEN or self._phase is _CLOSING:
            self._receive_from(self._storage, nbytes)
        elif self._phase is _OPENING:
            self._receive_opening(bytes(self._buffer[:nbytes]))

    @cython.critical_section
    def data_received(self, data: Buffer) -> None:
        """Take what was read, from who does not use `get_buffer`."""
        self._received_since_ping = True
        if self._phase is _OPEN or self._phase is _CLOSING:
            self._receive(data)
        elif self._phase is _OPENING:
            self._receive_opening(bytes(data))

    # Receiving ----------------------------------------------------------------------------

    @cython.critical_section
    def _receive(self, data: Buffer) -> None:
        """Decode; b"" for what is left of the last data."""
        octets = bytearray(data)
        self._receive_from(octets, len(octets))

    def _receive_from(self, storage: bytearray, size: int) -> None:
        """Decode what was read into the beginning of `storage`."""
        connection = self._connection
        assert connection is not None
        # What is sent in answer leaves in one write.
        self._cork = _CORKED
        many = False
        try:
            try:
                events = connection._receive_from(storage, size)
            except Exception as exc:
                self._log_error("decoding failed", exc)
                events = []
            many = len(events) > _MANY_EVENTS
            if self._pings is not None:
                self._pings.resolve(events)
            if events:
                self._sink.take(self, events, connection._only_messages)
        finally:
            if connection.close_code is None:
                self._cork = _FRESH
                buffers = connection._encoder._take_all()
                if buffers:
                    self._write(buffers)
                if many or self._pace is not _FAST or connection._decoder._has_rest():
                    self._after_read(size)
            else:
                # Our close frame comes next. A task that a message has just woken has its
                # turn before, and may answer.
                self._delay_writes()

    @cython.critical_section
    def _next_message(self) -> str | bytes | None:
        """Return the next message that waits; None if there is none."""
        return self._take_message()

    def _take_message(self) -> str | bytes | None:
        sink = self._sink
        messages = sink.messages
        if messages is None:
            return None
        message = messages.pop()
        if not messages:
            sink.messages = None
            sink.emptied(self)
        return message

    @cython.critical_section
    def _wait_for_message(self) -> asyncio.Future[None]:
        """Return a future to await: there may be a message then.

        Call `_waited` when it is done, or `_stop_waiting` if waiting is cancelled.

        Raises:
            ConnectionClosed: if nothing more will be received.
            StateError: if another task is waiting.
        """
        if self._phase is _LINGERING or self._phase is _CLOSED:
            raise self._closed_error()
        sink = self._sink
        if sink.waiter is not None:
            raise errors.already_waiting()
        # A task that waits has said all it had to say.
        if self._cork == _WROTE:
            self._cork = _FRESH
        elif self._cork == _CORKED:
            self._send_queued()
            if self._phase is _LINGERING or self._phase is _CLOSED:
                raise self._closed_error()
        waiter: asyncio.Future[None] = self._loop.create_future()
        sink.waiter = waiter
        return waiter

    def _stop_waiting(self) -> None:
        """No task waits for a message any more."""
        self._sink.waiter = None

    @cython.critical_section
    def _waited(self) -> str | bytes | None:
        """The future is done: return the next message, if nobody else took it."""
        self._sink.waiter = None
        return self._take_message()

    # Sending ------------------------------------------------------------------------------

    @cython.critical_section
    def _fast_send(self, message: object) -> bool:
        """Send a message if nothing has to be done or waited for before; return whether it
        was sent."""
        connection = self._connection
        if (
            connection is None
            or not connection._plain
            or self._write_paused
            or (self._senders is not None and self._senders.is_busy)
            or (type(message) is not str and type(message) is not bytes)
        ):
            return False
        self._flush_soon(connection._queue(message, True, None))
        return True

    @cython.critical_section
    def _schedule_flush(self) -> None:
        """Something was queued: see that it leaves soon."""
        assert self._connection is not None
        self._flush_soon(len(self._connection._encoder))

    def _flush_soon(self, queued: int) -> None:
        """Send what is queued, or see that it leaves soon.

        The first write of a turn of the event loop is not delayed, unless there are messages
        left to answer; what follows in the same turn leaves together at its end, or when it
        becomes much: a task that sends and sends must come to feel the back pressure.

        Args:
            queued: how many bytes wait.
        """
        if self._cork != _CORKED:
            if self._cork == _WROTE or self._sink.messages is not None:
                self._delay_writes()
            else:
                self._cork = _WROTE
                self._send_queued()
            return
        connection = self._connection
        assert connection is not None
        # (The last flush adds our close frame; it must not come in the middle.)
        if queued > _CORK_LIMIT and connection.close_code is None:
            self._send_queued()
            self._must_yield = True

    def _delay_writes(self) -> None:
        self._cork = _CORKED
        self._loop.call_soon(self._uncork)

    @cython.critical_section
    def _uncork(self) -> None:
        self._cork = _FRESH
        self._send_queued()

    @cython.critical_section
    def _flush(self) -> None:
        """Send what is queued; if it ends with our last word, so does the connection."""
        self._send_queued()

    def _send_queued(self) -> None:
        connection = self._connection
        assert connection is not None
        buffers = connection._take()
        if buffers:
            self._write(buffers)
        if connection.state is _STATE_CLOSED and (
            self._phase is _OPEN or self._phase is _CLOSING or self._phase is _LOST
        ):
            self._end_connection()

    def _write(self, buffers: list[bytes]) -> None:
        if self._phase is _LOST or self._phase is _CLOSED:
            return
        if self._write_paused and self._drop_slow_peer():
            return
        # Not writelines: asyncio's joins what it gets, before Python 3.12, and later ones, up to
        # 3.13.1, forget to say that the peer takes too little.
        for buffer in buffers:
            self._written += len(buffer)
            self._transport.write(buffer)

    # For `Endpoint` to fill in ------------------------------------------------------------

    def _receive_opening(self, data: bytes) -> None:
        """Take what arrives before the connection is open."""
        raise NotImplementedError

    def _after_read(self, size: int) -> None:
        """`size` bytes were read, and that was much to do, or reading is to be slow."""
        raise NotImplementedError

    def _drop_slow_peer(self) -> bool:
        """The peer takes too little of what is sent: return whether it had to be dropped."""
        raise NotImplementedError

    def _end_connection(self, *, abort: bool = False) -> None:
        """The close frames are exchanged, or ours is the last word; or the peer is dropped."""
        raise NotImplementedError

    def _closed_error(self) -> ConnectionClosed:
        """Return what to raise when the connection has ended."""
        raise NotImplementedError

    def _log_error(self, message: str, exc: BaseException) -> None:
        raise NotImplementedError


@cython.binding(True)
@cython.critical_section
def send(
    self: Wire, message: str | Buffer | PreparedMessage, *, compress: bool | None = None
) -> None:
    """Send a text (str) or binary (bytes-like) message, or one that `prepare` made. What the
    peer does not take yet is buffered.

    Args:
        message: the message.
        compress: whether to compress it, if that was agreed on; None to decide by its size. It
            is done at once: a large message takes its time.

    Raises:
        TypeError: if `message` is none of these.
        ValueError: if `message` has lone surrogates.
        ConnectionClosed: if the connection is closed or closing.
    """
    wire = cython.cast(Wire, self, typecheck=True)
    connection = wire._connection
    if connection is None:
        raise errors.never_open()
    queued = connection._queue(message, True, compress)
    if queued > _CORK_LIMIT or wire._cork != _CORKED:
        wire._flush_soon(queued)


# Users call it as a method, and need not know what it is a method of.
del send.__annotations__["self"]
