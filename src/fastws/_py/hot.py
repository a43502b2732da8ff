"""What happens for each message: the hot part of `Connection` and of asyncio's endpoints.

This module knows how messages get from a read to who wants them, and answers into a write.
What happens seldom (control frames, closing, compression, timers) it leaves to its
subclasses: `fastws.connection.Connection`, and the endpoints in `fastws.aio`. It does not
know the event loop but for `call_soon`, nor the transport but for `write`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from fastws import errors
from fastws.exceptions import ConnectionClosed
from fastws.spec import CORK_LIMIT, MANY_EVENTS, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.events import Event

    from .messages import MessageDecoder, MessageEncoder

__all__ = ["HotConnection", "HotEndpoint"]

# The members of an enum are slow to get at.
_OPEN = State.OPEN
_CLOSED = State.CLOSED


class HotConnection:
    """The hot part of `fastws.Connection`, which documents the attributes.

    Args:
        decoder: of what is received.
        encoder: of what is sent.
        make_key: returns a new mask key; None on a server.
        plain: whether messages are sent as they are, uncompressed.
    """

    __slots__ = (
        "_decoder",
        "_encoder",
        "_make_key",
        "_plain",
        "close_code",
        "only_messages",
        "state",
    )

    state: State
    close_code: int | None
    only_messages: bool

    def __init__(
        self,
        decoder: MessageDecoder,
        encoder: MessageEncoder,
        make_key: Callable[[], bytes] | None,
        plain: bool,
    ) -> None:
        self.state = State.OPEN
        self.close_code = None
        self.only_messages = True
        self._decoder = decoder
        self._encoder = encoder
        self._make_key = make_key
        self._plain = plain

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    def receive_data(self, data: Buffer) -> list[Event]:
        """Take what the peer sent; queue what has to be answered.

        Pings are answered and so is a close frame. After a violation of the protocol
        `error` is set and a close frame says so. That close frame comes after what is sent
        until `data_to_send` is called: the answers to the messages before.

        What costs much is done in steps: see `has_pending`.

        Args:
            data: any number of bytes, cut anywhere.

        Returns:
            the messages and control frames that are complete now, in order.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        decoder = self._decoder
        try:
            events = decoder.feed(data)
        except BaseException:
            self._take_control([])  # the decoder may have failed: that ends the connection
            raise
        if self.close_code is not None:
            return []
        self.only_messages = decoder.only_messages
        if not self.only_messages:
            self._take_control(events)
        return events

    def send(self, message: Any, *, fin: bool = True, compress: bool | None = None) -> int:
        """Queue a text (str) or binary (bytes-like) message.

        Args:
            message: the message, or with `fin=False` its first fragment; or what `prepare`
                made of one.
            fin: whether this is all of it; otherwise `continuation` has to follow.
            compress: whether to compress it, where that was agreed on; None to decide by
                its size, and send it plain if compression does not pay.

        Returns:
            how many bytes wait for `data_to_send` now.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if `message` has lone surrogates.
            StateError: if a fragmented message is not finished.
            ConnectionClosed: if we sent or received a close frame.
        """
        if self.state is not _OPEN:
            self.check_open()
        make_key = self._make_key
        key = None if make_key is None else make_key()
        if fin and self._plain:
            # Most messages are one frame and go as they are.
            if type(message) is str:
                return self._encoder.text(message, key)
            if type(message) is bytes:
                return self._encoder.binary(message, key)
        return self._send(message, fin, compress, key)

    def buffers_to_send(self) -> list[bytes]:
        """As `data_to_send`, but without copying large messages together with the rest.

        Returns:
            what to send, one after the other; in how many pieces is not said.
        """
        if self.close_code is not None and self.state is _OPEN:
            self._answer_close()
        return self._encoder.take_buffers()

    @property
    def has_pending(self) -> bool:
        """Whether the last `receive_data` had done enough and left the rest of its data for the
        next call: it stops after some 256 KiB of inflated messages, or 1,024 control frames. Take
        what it returned, send what has to be sent, and call `receive_data(b"")`, as long as this
        is true, before you read from the socket again.
        """
        return self._decoder.has_pending and self.close_code is None

    # For the subclass to fill in -------------------------------------------------------

    def check_open(self) -> None:
        """Raise ConnectionClosed if the connection is not open."""
        raise NotImplementedError

    def _take_control(self, events: list[Event]) -> None:
        """Deal with what is no message: control frames and the decoder's error."""
        raise NotImplementedError

    def _send(self, message: Any, fin: bool, compress: bool | None, key: bytes | None) -> int:
        """Queue a message that is not simply one frame."""
        raise NotImplementedError

    def _answer_close(self) -> None:
        """Queue our close frame, as the answer to the peer's or its violation."""
        raise NotImplementedError


class HotEndpoint:
    """The hot part of an asyncio protocol that leads one connection."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_corked",
        "_deaf",
        "_ended",
        "_gone",
        "_heard",
        "_held",
        "_hogging",
        "_loop",
        "_messages",
        "_pings",
        "_slow",
        "_transport",
        "_turns",
        "_waiter",
        "_write_paused",
        "_written",
        "_wrote",
    )

    _buffer: memoryview
    _loop: Any
    _transport: Any
    _connection: HotConnection | None

    def __init__(self) -> None:
        self._transport = None
        self._connection = None
        self._ended = False  # nothing more is received
        self._gone = False  # nor is there a transport
        self._heard = False
        self._deaf = False  # a hook failed: no more messages are for it
        self._pings: dict[bytes, Any] | None = None
        self._corked = False
        self._wrote = False  # not all that is sent in one turn is corked: the first is not
        self._write_paused = False
        self._written = 0  # to the transport, in bytes
        # For coroutines.
        # Much was sent in this turn of the event loop, which others have to have theirs of: a
        # transport that met an error drops what it is given, and connection_lost is to come.
        self._hogging = False
        self._messages: list[str | bytes] | None = None  # the next one at the end; never empty
        self._held = False  # reading, as what was read is not wanted yet
        self._slow = False  # reading, which then calls `_after_read`
        self._waiter: Any = None  # the future of the one task that waits for a message
        self._turns: Any = None  # of the coroutines that send, if that takes them some time

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    # asyncio.BufferedProtocol ------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        if self._ended:
            return
        if self._connection is not None:
            self._receive(self._buffer[:nbytes])
        else:
            self._receive_opening(bytes(self._buffer[:nbytes]))

    # Receiving and sending -----------------------------------------------------------------

    def _receive(self, data: Buffer) -> None:
        connection = self._connection
        assert connection is not None
        # What is sent in answer leaves in one write.
        self._corked = True
        events: list[Event] = []
        try:
            try:
                events = connection.receive_data(data)
            except Exception as exc:
                self._decoding_failed(exc)
            if self._pings:
                self._resolve_pings(events)
            if events:
                self._received(events)
        finally:
            if connection.close_code is None:
                self._corked = self._wrote = False
                buffers = connection.buffers_to_send()
                if buffers:
                    self._write(buffers)
                if self._slow or len(events) > MANY_EVENTS or connection._decoder.has_pending:
                    self._after_read(memoryview(data).nbytes)
            else:
                # Our close frame comes next. A task that a message has just woken has its
                # turn before, and may answer.
                self._cork()

    def _sent(self, queued: int | None = None) -> None:
        """Something was queued: see that it leaves.

        The first write of a turn of the event loop is not delayed, unless there are messages
        left to answer; what follows in the same turn leaves together at its end, or when it
        becomes much: a task that sends and sends must come to feel the back pressure.

        Args:
            queued: how many bytes wait, where that is known.
        """
        if not self._corked:
            if self._wrote or self._messages is not None:
                self._cork()
            else:
                self._wrote = True
                self._flush()
            return
        connection = self._connection
        assert connection is not None
        if queued is None:
            queued = len(connection._encoder)
        # (The last flush adds our close frame; it must not come in the middle.)
        if queued > CORK_LIMIT and connection.close_code is None:
            self._flush()
            self._hogging = True

    def _cork(self) -> None:
        self._corked = True
        self._loop.call_soon(self._uncork)

    def _uncork(self) -> None:
        self._corked = self._wrote = False
        self._flush()

    def _flush(self) -> None:
        """Send what is queued; if it ends with our last word, so does the connection."""
        connection = self._connection
        assert connection is not None
        buffers = connection.buffers_to_send()
        if buffers:
            self._write(buffers)
        if connection.state is _CLOSED and not self._ended:
            self._finish()
            self._end_transport()

    def _write(self, buffers: list[bytes]) -> None:
        if self._gone or (self._write_paused and self._drop_slow_peer()):
            return
        # Not writelines: asyncio's joins what it gets, before Python 3.12, and later ones, up to
        # 3.13.1, forget to say that the peer takes too little.
        for buffer in buffers:
            self._written += len(buffer)
            self._transport.write(buffer)

    # For who is called ----------------------------------------------------------------

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """Send a text (str) or binary (bytes-like) message, or one that `prepare` made; what
        the peer does not take yet is buffered.

        Args:
            message: the message.
            compress: whether to compress it, where that was agreed on; None to decide by
                its size. It is done at once: a large message takes its time.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if `message` has lone surrogates.
            ConnectionClosed: if the connection is closed or closing.
        """
        connection = self._connection
        if connection is None:
            connection = self._sendable()
        queued = connection.send(message, compress=compress)
        if queued > CORK_LIMIT or not self._corked:
            self._sent(queued)

    def _call_back(self, events: list[Event]) -> None:
        if self._deaf:
            return
        on_message = self.on_message
        for event in events:
            if type(event) is str or type(event) is bytes:
                try:
                    on_message(event)
                except BaseException as exc:
                    self._hook_failed(exc)
                    if not isinstance(exc, ConnectionClosed):
                        return

    # For coroutines ----------------------------------------------------------------------

    def _keep(self, events: list[Event]) -> None:
        assert self._connection is not None
        messages: list[Any] = events
        if not self._connection.only_messages:
            messages = [event for event in events if isinstance(event, (str, bytes))]
            if not messages:
                return
        messages.reverse()
        if self._messages is None:
            self._messages = messages
        else:
            self._pile_up(messages)
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wait_for_message(self) -> Any:
        """Return a future to await: there may be a message then; afterwards reset `_waiter`.

        Raises:
            ConnectionClosed: if nothing more will be received.
            StateError: if another task is waiting.
        """
        if self._ended:
            raise self._closed_error()
        if self._waiter is not None:
            raise errors.already_waiting()
        # Whoever waits has said all there was to say.
        self._wrote = False
        if self._corked:
            self._flush()
            if self._ended:
                raise self._closed_error()
        self._waiter = self._loop.create_future()
        return self._waiter

    def _next_message(self) -> str | bytes:
        """Take a message, of which there is one."""
        messages = self._messages
        assert messages is not None
        message = messages.pop()
        if not messages:
            self._messages = None
            if self._held:
                self._hold_reading(False)
        return message

    def _send_at_once(self, message: Any) -> bool:
        """Send a message if it goes as it is; return whether that is so."""
        connection = self._connection
        if (
            connection is None
            or not connection._plain
            or self._turns is not None
            or self._write_paused
            or (type(message) is not str and type(message) is not bytes)
        ):
            return False
        self._sent(connection.send(message))
        return True

    # For the subclasses to fill in -----------------------------------------------------------

    def _receive_opening(self, data: bytes) -> None:
        """Take what arrives before the connection is open."""

    def _received(self, events: list[Event]) -> None:
        """Messages and control frames arrived; must not raise."""

    def _sendable(self) -> HotConnection:
        """Return the connection; raise ConnectionClosed if there is none yet."""
        raise NotImplementedError

    def _resolve_pings(self, events: list[Event]) -> None:
        """Pings of ours are on their way: look whether they are answered."""

    def _drop_slow_peer(self) -> bool:
        """The peer takes too little of what is sent: return whether it had to be dropped."""
        raise NotImplementedError

    def _decoding_failed(self, exc: Exception) -> None:
        """Decoding failed, and not because of what the peer sent."""

    def _after_read(self, size: int) -> None:
        """`size` bytes were read, and either that was much to do or reading is slow."""

    def _finish(self) -> None:
        """Nothing more will be received."""

    def _end_transport(self) -> None:
        """The close frames are exchanged, or ours is the last word."""

    def on_message(self, message: str | bytes) -> None:
        """A message arrived: a `str` if it is text, `bytes` if it is binary."""

    def _hook_failed(self, exc: BaseException) -> None:
        """A hook raised."""

    def _pile_up(self, messages: list[str | bytes]) -> None:
        """There are messages of an earlier read: the handler is slow."""

    def _closed_error(self) -> ConnectionClosed:
        """Return what to raise when the connection is closed."""
        raise NotImplementedError

    def _hold_reading(self, held: bool) -> None:
        """Hold reading, or no longer."""
