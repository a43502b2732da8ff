# cython: language_level=3, freethreading_compatible=True, subinterpreters_compatible=no
# cython: autotestdict=False, nonecheck=True, annotation_typing=False
# cython: binding=False, boundscheck=False, wraparound=False
"""From the socket to the messages and back: the part of an endpoint that every message passes.

This module knows how what was read is decoded and handed over, and how what is queued leaves in
few writes. It knows in which phases data is received and written, but not what leads from one to
the next, and no timer: of the event loop it uses only `call_soon` and `create_future`, and of the
transport only `write` and `abort`.

It is written once. Where it can be, it is compiled, as `fastws._c.wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary, ref

from fastws import _cython as cython
from fastws import errors
from fastws.aio.phases import Pace, Phase
from fastws.events import Text
from fastws.prepared import PreparedMessage
from fastws.spec import State

if cython.compiled:  # pragma: no cover
    import cython  # type: ignore[import-untyped, no-redef]

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from fastws.connection import Connection
    from fastws.exceptions import ConnectionClosed

    from .pings import Pings
    from .senders import Senders
    from .sinks import Sink

__all__ = ["Turn", "Wire", "send", "turn_of"]

# The members of an enum are slow to get at.
_OPENING = Phase.OPENING
_OPEN = Phase.OPEN
_CLOSING = Phase.CLOSING
_LINGERING = Phase.LINGERING
_LOST = Phase.LOST
_CLOSED = Phase.CLOSED
_FAST = Pace.FAST
_STATE_CLOSED = State.CLOSED

# Stand for the number of a turn.
_NEVER = -1
_ANSWERING = -2

# How many bytes may wait for the end of a turn of the event loop, to leave in one write.
_CORK_LIMIT = 64 << 10

# From this size on, in bytes, a buffer is not copied; it leaves after the buffer before it, with
# which as many bytes go.
_LARGE = 64 << 10
_BEGINNING = 16 << 10

# After a read of more messages and control frames than these, other connections have their turn.
_MANY_EVENTS = 256


@cython.cclass
class Turn:
    """The current turn of an event loop, as all connections of the loop see it.

    Nothing tells that a new turn has begun, except a callback. So the number changes only after
    turns that were watched: in one of these, a connection that wrote knows that it did.

    Attributes:
        number: the number of the turn.
    """

    __slots__ = (
        "__weakref__",
        "_is_watched",
        "_left_by",
        "_left_in",
        "_left_size",
        "_storage",
        "_waiting",
        "number",
    )

    number: int
    _is_watched: bool
    _left_by: Wire | None
    _left_in: bytearray
    _left_size: int
    _storage: bytearray  # what all connections read into
    _waiting: list[Wire]

    def __init__(self) -> None:
        self.number = 0
        self._is_watched = False  # `_end` will be called
        self._waiting = []  # connections with something to write at the end, in order
        # The connection that has read into `_left_in`, which all of them use, and has not decoded
        # all of it yet: it hands over messages.
        self._left_by = None

    def _watch(self, loop: Any) -> int:
        """See that this turn ends."""
        if not self._is_watched:
            loop.call_soon(self._end)
            self._is_watched = True
        return 0

    def _wait_for_end(self, wire: Wire) -> int:
        """At the end of this turn, write what a connection has queued."""
        self._watch(wire._loop)
        self._waiting.append(wire)
        return 0

    def _decode_left(self) -> int:
        """Decode what a connection has left. A message may bring about another read, if who gets
        it runs the event loop, as a modal dialog does."""
        wire = self._left_by
        if wire is not None:
            self._left_by = None
            wire._receive_left(self._left_in, self._left_size)
        return 0

    def _end(self) -> None:
        self.number += 1
        self._is_watched = False
        waiting, self._waiting = self._waiting, []
        waiting.reverse()
        try:
            while waiting:
                waiting.pop()._uncork()
        finally:
            # The event loop reports what one of them raised. The others come next.
            while waiting:
                self._wait_for_end(waiting.pop())


# Each event loop runs in one thread, so that nothing has to lock its turn. Its connections keep it
# alive: if the loop is closed while they wait, it refers to them, and they refer to the loop.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[Turn]] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return what tells the turns of an event loop apart."""
    held = _turns.get(loop)
    turn = None if held is None else held()
    if turn is None:
        turn = Turn()
        _turns[loop] = ref(turn)
    return turn


@cython.cclass
class Wire:
    """What an asyncio protocol does for each message of its connection."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_is_corked",
        "_latency",
        "_loop",
        "_mixed",
        "_must_yield",
        "_number",
        "_pace",
        "_phase",
        "_pings",
        "_read_pauses",
        "_reading_paused",
        "_received_since_ping",
        "_senders",
        "_sink",
        "_transport",
        "_turn",
        "_write_paused",
        "_write_pauses",
        "_wrote_in",
    )

    _buffer: memoryview
    _connection: Connection | None
    _is_corked: bool
    _latency: float
    _loop: Any
    _mixed: bool
    _must_yield: bool
    _number: int
    _pace: Pace
    _phase: Phase
    _pings: Pings | None
    _read_pauses: int
    _reading_paused: bool
    _received_since_ping: bool
    _sink: Sink
    _transport: Any
    _turn: Turn
    _senders: Senders | None
    _write_paused: bool
    _write_pauses: int
    _wrote_in: int

    def __init__(self, sink: Sink) -> None:
        self._phase = _OPENING
        self._transport = self._connection = None
        self._sink = sink
        self._pace = _FAST
        self._pings = self._senders = None
        self._received_since_ping = self._write_paused = self._reading_paused = False
        # What is sent waits for the end of the read, or of the turn of the event loop.
        self._is_corked = False
        # The turn with the last write outside of reads and ends of turns; or _NEVER, or _ANSWERING:
        # a task has just begun to process a message.
        self._wrote_in = _NEVER
        # For `View`. (Here, because they take less memory in C.)
        self._latency = -1.0  # of the last ping, in seconds; -1 if there was none
        self._number = self._read_pauses = self._write_pauses = 0
        # A coroutine sent much in this turn of the event loop, and others must have theirs: a
        # transport that met an error drops what it is given, until connection_lost is called.
        self._must_yield = False
        self._mixed = False  # text may wait that was decoded, and text that was not

    def _use_buffer(self, buffer: memoryview) -> None:
        """Read into a bytearray's memory."""
        self._buffer = buffer
        self._turn._storage = buffer.obj  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    # asyncio.BufferedProtocol ------------------------------------------------------------

    @cython.critical_section
    def get_buffer(self, sizehint: int) -> memoryview:
        if self._turn._left_by is not None:
            self._turn._decode_left()
        return self._buffer

    @cython.critical_section
    def buffer_updated(self, nbytes: int) -> None:
        self._received_since_ping = True
        if self._phase is _OPEN or self._phase is _CLOSING:
            self._receive_from(self._turn._storage, nbytes)
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
        turn = self._turn
        if turn._left_by is not None:
            turn._decode_left()
        # What is sent in answer leaves in one write.
        self._is_corked = True
        many = False
        try:
            try:
                events = connection._receive_from(storage, size)
            except Exception as exc:
                self._log_error("decoding failed", exc)
                events = []
            if connection._decoder._left:
                turn._left_by, turn._left_in, turn._left_size = self, storage, size
            many = len(events) > _MANY_EVENTS
            if not connection._only_messages:
                self._take_pongs(events)
            if events:
                self._sink.take(self, events, connection._only_messages)
        finally:
            if connection.close_code is None:
                self._is_corked = False
                self._write_queued(connection)
                if many or self._pace is not _FAST or connection._decoder._has_rest():
                    self._after_read(size)
            else:
                # Our close frame comes next. A task that a message has just woken has its
                # turn before, and may answer. (The end of this turn may come before that task.)
                self._loop.call_soon(self._uncork)
        if turn._left_by is self:
            # The beginning of a large message, without the memory for it, so that the message
            # before can be freed first.
            del events
            turn._decode_left()

    def _receive_left(self, storage: bytearray, size: int) -> None:
        """Decode what `_receive_from` has left: no event, but perhaps a violation."""
        connection = self._connection
        assert connection is not None
        goes_on = connection.close_code is None
        try:
            connection._receive_left(storage, size)
        except Exception as exc:
            self._log_error("decoding failed", exc)
        if connection.close_code is None:
            if connection._decoder._has_rest():
                self._after_read(size)
        elif goes_on:
            self._is_corked = True
            self._loop.call_soon(self._uncork)

    @cython.critical_section
    def _next_message(self, decode_text: bool | None) -> Any:
        """Return the next message that waits; None if there is none.

        Args:
            decode_text: whether text is to be a str, now and from now on; None for what was
                decided for the connection.
        """
        connection = self._connection
        if connection is not None and (decode_text is not None or self._mixed):
            self._mixed = True
            wanted = connection.decode_text if decode_text is None else decode_text
            connection._decoder._decode_text = wanted
        return self._take_message(decode_text)

    def _take_message(self, decode_text: bool | None) -> Any:
        sink = self._sink
        messages = sink.messages
        if messages is None:
            return None
        message = messages.pop()
        if not messages:
            sink.messages = None
            sink.emptied(self)
        if self._mixed:
            if decode_text is None:
                assert self._connection is not None
                decode_text = self._connection.decode_text
            if decode_text:
                return str(message) if type(message) is Text else message
            return Text(message.encode()) if type(message) is str else message
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
        self._wrote_in = _NEVER
        if self._is_corked:
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
    def _waited(self, decode_text: bool | None) -> Any:
        """The future is done: return the next message, if nobody else took it."""
        self._sink.waiter = None
        self._wrote_in = _ANSWERING
        return self._take_message(decode_text)

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
            or (
                type(message) is not str
                and type(message) is not bytes
                and type(message) is not PreparedMessage
                and type(message) is not Text
            )
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
        """Send what is queued (so many bytes), or see that it leaves soon.

        The first write of a turn of the event loop is not delayed, unless there are messages
        left to answer; what follows in the same turn leaves together at its end, or when it
        becomes much: a task that sends and sends must come to feel the back pressure.
        """
        if not self._is_corked:
            turn = self._turn
            if self._wrote_in == turn.number or self._sink.messages is not None:
                turn._wait_for_end(self)
                self._is_corked = True
                return
            # Most answers of a task are one message. The task waits then, and watching the turn
            # would cost more than it can save. (If the task sends more, all of that is taken to
            # be of this turn.)
            if self._wrote_in != _ANSWERING:
                turn._watch(self._loop)
            self._wrote_in = turn.number
            self._send_queued()
            return
        connection = self._connection
        assert connection is not None
        # (The last flush adds our close frame; it must not come in the middle.)
        if queued > _CORK_LIMIT and connection.close_code is None:
            self._send_queued()
            self._must_yield = True

    @cython.critical_section
    def _uncork(self) -> None:
        self._is_corked = False
        self._send_queued()

    @cython.critical_section
    def _flush(self) -> None:
        """Send what is queued; if it ends with our last word, so does the connection."""
        self._send_queued()

    def _send_queued(self) -> None:
        connection = self._connection
        assert connection is not None
        if connection.close_code is None:
            self._write_queued(connection)
            return
        buffers = connection._take()
        if buffers:
            self._write(buffers)
        if connection.state is _STATE_CLOSED and (
            self._phase is _OPEN or self._phase is _CLOSING or self._phase is _LOST
        ):
            self._end_connection()

    @cython.critical_section
    def _drop_queued(self) -> None:
        """Nothing can be written any more: what is queued counts as sent, as does our answer to
        the peer's close frame."""
        connection = self._connection
        assert connection is not None
        connection._take()

    def _write_queued(self, connection: Connection) -> None:
        """Write what is queued on a connection that goes on."""
        octets = connection._encoder._take_only()
        if octets is None:
            self._write(connection._encoder._take_all())
        elif octets:
            self._write_one(octets)

    def _write_one(self, octets: bytes) -> None:
        if self._phase is _LOST or self._phase is _CLOSED:
            return
        if self._write_paused and self._drop_slow_peer():
            return
        if len(octets) > _LARGE:
            self._write_large([octets])
        else:
            self._transport.write(octets)

    def _write(self, buffers: list[bytes]) -> None:
        if len(buffers) == 1:
            self._write_one(buffers[0])
            return
        if self._phase is _LOST or self._phase is _CLOSED:
            return
        if self._write_paused and self._drop_slow_peer():
            return
        self._write_large(buffers)

    def _write_large(self, buffers: Sequence[bytes | Iterable[bytes | memoryview]]) -> None:
        """Write frames whose payloads follow their headers as buffers of their own.

        Not with writelines: asyncio's joins what it gets, before Python 3.12, and later ones, up
        to 3.13.1, forget to say that the peer takes too little. Instead, a header leaves with the
        beginning of its payload: alone, it would be a packet that wakes the peer for nothing.
        """
        head = b""
        try:
            for buffer in buffers:
                if isinstance(buffer, bytes) and len(buffer) < _LARGE and not head:
                    head = buffer
                    continue
                for piece in (buffer,) if isinstance(buffer, bytes) else buffer:
                    if head:
                        view = memoryview(piece)
                        self._write_piece(head + view[:_BEGINNING])
                        self._write_piece(view[_BEGINNING:])
                        head = b""
                    else:
                        self._write_piece(piece)
            if head:
                self._write_piece(head)
        except BaseException:
            # What follows would be taken for the rest of a frame.
            self._transport.abort()
            raise

    # For `Endpoint` to fill in ------------------------------------------------------------

    def _receive_opening(self, data: bytes) -> None:
        """Take what arrives before the connection is open."""
        raise NotImplementedError

    def _take_pongs(self, events: list[Any]) -> None:
        """There are control frames among the events."""
        raise NotImplementedError

    def _after_read(self, size: int) -> None:
        """`size` bytes were read, and that was much to do, or reading is to be slow."""
        raise NotImplementedError

    def _write_piece(self, piece: bytes | memoryview) -> None:
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
    self: Wire, message: str | Text | Buffer | PreparedMessage, *, compress: bool | None = None
) -> None:
    """Send a text (str or Text) or binary (bytes-like) message, or one that `prepare` made. What
    the peer does not take yet is buffered.

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
    if queued > _CORK_LIMIT or not wire._is_corked:
        wire._flush_soon(queued)


# Users call it as a method, and need not know what it is a method of.
del send.__annotations__["self"]
