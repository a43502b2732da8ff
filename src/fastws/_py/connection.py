# cython: language_level=3, freethreading_compatible=True, subinterpreters_compatible=no
# cython: autotestdict=False, nonecheck=True, annotation_typing=False
# cython: binding=True, embedsignature.format=clinic
"""The behaviour of a connection; `fastws.connection` documents how to use it.

This module knows the phases of a connection's life, how to answer pings, close frames and
violations of the protocol, and which messages to compress (RFC 6455 §5-§7, RFC 7692 §6). It does
not know where bytes come from or go to, nor clocks, tasks or the source of mask keys.

It is the source of both twins: `fastws._c.connection` is this file, compiled with the C types in
`_c/connection.pxd`. The methods declared there are C functions in that twin.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn

from fastws import _cython as cython
from fastws import errors
from fastws.deflate import Deflater
from fastws.events import Close, Ping, Text
from fastws.prepared import PreparedMessage, prepare
from fastws.rules import make_ending
from fastws.spec import CloseCode, Opcode, State

from .frames import encode_frame
from .messages import MessageDecoder, MessageEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.closing import Ending
    from fastws.deflate import Agreement, CompressorParameters
    from fastws.events import Event
    from fastws.exceptions import ProtocolError
    from fastws.spec import Role

if cython.compiled:  # pragma: no cover
    import cython  # type: ignore[import-untyped, no-redef]

__all__ = ["Connection"]


# The life of a connection ---------------------------------------------------------------


class _Phase(Enum):
    OPEN = "messages go both ways"
    ANSWERING = "nothing more is received, and our close frame comes after the answers"
    CLOSING = "nothing more is sent, and the peer's close frame is to come"
    CLOSED = "nothing more is received or sent"

    # Enum's own runs Python code, during which another thread may have a turn.
    __hash__ = object.__hash__


class _Cause(Enum):
    CLOSE = "the application closes"
    FAIL = "the application gives up"
    PEER_CLOSE = "the peer's close frame"
    VIOLATION = "the peer broke the protocol, or decoding failed"
    EOF = "the stream ended"
    ANSWER = "all answers are given"

    __hash__ = object.__hash__


# The next phase by phase and cause, and whether to queue a close frame. All other combinations
# change nothing.
_LIFE: Final = {
    (_Phase.OPEN, _Cause.CLOSE): (_Phase.CLOSING, True),  # §7.1.2
    (_Phase.OPEN, _Cause.FAIL): (_Phase.CLOSED, True),  # §7.1.7
    (_Phase.OPEN, _Cause.PEER_CLOSE): (_Phase.ANSWERING, False),  # §5.5.1: "MAY delay sending"
    (_Phase.OPEN, _Cause.VIOLATION): (_Phase.ANSWERING, False),  # §7.1.7
    (_Phase.OPEN, _Cause.EOF): (_Phase.CLOSED, False),  # §7.1.5
    (_Phase.ANSWERING, _Cause.ANSWER): (_Phase.CLOSED, True),  # §5.5.1, §7.1.7
    (_Phase.CLOSING, _Cause.FAIL): (_Phase.CLOSED, False),  # §7.1.7
    (_Phase.CLOSING, _Cause.PEER_CLOSE): (_Phase.CLOSED, False),  # §7.1.4
    (_Phase.CLOSING, _Cause.VIOLATION): (_Phase.CLOSED, False),  # §7.1.7
    (_Phase.CLOSING, _Cause.EOF): (_Phase.CLOSED, False),  # §7.1.5
}

# The state that the application sees. While ANSWERING, it may still answer the last messages.
_STATES: Final = {
    _Phase.OPEN: State.OPEN,
    _Phase.ANSWERING: State.OPEN,
    _Phase.CLOSING: State.CLOSING,
    _Phase.CLOSED: State.CLOSED,
}

# Globals, because looking up an enum member is slow and would interrupt a critical section.
_OPEN = State.OPEN
_BEGINNING: Final = _Phase.OPEN
_CLOSE, _FAIL, _PEER_CLOSE, _VIOLATION, _EOF, _ANSWER = _Cause
_NO_STATUS: Final = CloseCode.NO_STATUS_RCVD.value
_ABNORMAL: Final = CloseCode.ABNORMAL_CLOSURE.value

# From this size on, in bytes, a prepared payload is sent behind a header of its own. A second copy
# of it, with the header, would take too much memory.
_TOO_LARGE_TO_SHARE = 64 << 10

# From this size on, in bytes, a first fragment shows whether compression makes a message smaller.
_TELLING = 4 << 10


@cython.cclass
class Connection:
    """Connection(role, decoder, deflate=None, make_key=None)\n--\n
    The base class of `fastws.Connection`, which creates the parts.

    Args:
        role: the end that we are.
        decoder: decodes the received data.
        deflate: how to compress messages; None for no compression.
        make_key: returns a new mask key; None on a server.
    """

    __slots__ = (
        "_compressing",
        "_decoder",
        "_deflater",
        "_encoder",
        "_ending",
        "_make_key",
        "_only_messages",
        "_phase",
        "_plain",
        "_pong_owed",
        "_pongs_held",
        "close_code",
        "decode_text",
        "deflate",
        "role",
        "state",
    )

    role: Role
    deflate: Agreement | None
    decode_text: bool
    # Derived from the phase; stored because it is read for each message.
    state: State
    close_code: int | None

    @cython.critical_section
    def __init__(
        self,
        role: Role,
        decoder: MessageDecoder,
        deflate: Agreement | None = None,
        make_key: Callable[[], bytes] | None = None,
    ) -> None:
        self.role = role
        self.deflate = deflate
        self._phase = _BEGINNING
        self.state = _OPEN
        self.close_code = None
        # How it ended; while closing, with the code and reason of our close frame. What only the
        # caller knows, such as the time, the caller adds.
        self._ending: Ending | None = None
        self._decoder = decoder
        self.decode_text = self._decoder._decode_text  # which may change
        self._encoder = MessageEncoder()
        self._only_messages = True  # the last `receive_data` had no control frame or violation
        self._deflater = None if deflate is None else Deflater(deflate)
        self._plain = deflate is None  # messages are sent uncompressed
        self._compressing = False  # the message that is being sent in fragments is compressed
        self._make_key = make_key
        self._pongs_held = False
        self._pong_owed: bytes | None = None

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    def __repr__(self) -> str:
        code = "" if self.close_code is None else f" {self.close_code}"
        return f"<{type(self).__name__} {self.role.name.lower()} {self.state.name.lower()}{code}>"

    # Receiving -------------------------------------------------------------------

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.critical_section
    def receive_data(self, data: Buffer) -> list[Event]:
        """Receive data from the peer, and queue the answers to it.

        Pings and a close frame are answered. If the peer breaks the protocol, `error` is set and
        a close frame is sent. That close frame comes after everything that is sent before the
        next call of `data_to_send`, so that earlier messages can still be answered.

        Expensive work is done in steps: see `has_pending`.

        Args:
            data: any number of bytes; messages may be split anywhere.

        Returns:
            the messages, or parts of messages, and control frames that are complete now, in order.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        try:
            events = self._decoder._feed(data)
        except BaseException:
            self._react([])  # if the decoder has failed, this ends the connection
            raise
        return self._react(events)

    def _receive_from(self, storage: bytearray, size: int) -> list[Event]:
        try:
            events = self._decoder._feed_from(storage, size)
        except BaseException:
            self._react([])
            raise
        return self._react(events)

    def _receive_left(self, storage: bytearray, size: int) -> list[Event]:
        try:
            events = self._decoder._feed_left(storage, size)
        except BaseException:
            self._react([])
            raise
        return self._react(events)

    @property
    @cython.critical_section
    def has_pending(self) -> bool:
        """Whether the last `receive_data` stopped before the end of its data. It stops after about
        256 KiB of inflated messages, or 1,024 control frames. While this is true, process the
        events, send what `data_to_send` returns, and call `receive_data(b"")`, before you read
        from the socket again.
        """
        return self._decoder._has_rest() and self.close_code is None

    @cython.critical_section
    def receive_eof(self) -> None:
        """Tell the connection that the stream has ended: the peer will send nothing more.

        If the peer has not sent a close frame, the connection is lost: `state` becomes CLOSED and
        `close_code` becomes 1006, even if we sent a close frame. No close frame is queued now.
        `data_to_send` still returns what was queued before, because the peer may have shut down
        only its writing side. An incomplete message is dropped.

        After the peer's close frame or a violation, this changes nothing, and earlier messages
        can still be answered.
        """
        self._advance(_EOF, _ABNORMAL, "", None)

    def _react(self, events: list[Event]) -> list[Event]:
        """Answer the events; return those that the application gets."""
        if self.close_code is not None:
            return []
        self._only_messages = self._decoder._only_messages
        if not self._only_messages:
            self._handle_control(events)
        return events

    def _handle_control(self, events: list[Event]) -> int:
        for event in events:
            if isinstance(event, Ping):
                # §5.5.2: answer "unless it already received a Close frame". After we have sent
                # one, there is no need to show that we are alive.
                if self.state is not _OPEN:
                    continue
                if self._pongs_held:
                    self._pong_owed = event.data
                else:
                    self._answer_ping(event.data)
            elif isinstance(event, Close):
                self._advance(_PEER_CLOSE, event.code, event.reason, None)
        error = self._decoder.error
        if error is not None:
            self._advance(_VIOLATION, error.close_code.value, str(error), error)
        return 0

    def _answer_ping(self, data: bytes) -> int:
        return self._encoder.pong(data, self._mask_key())

    # Sending -----------------------------------------------------------------------

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.critical_section
    def send(
        self,
        message: str | Text | Buffer | PreparedMessage,
        *,
        fin: bool = True,
        compress: bool | None = None,
    ) -> int:
        """Queue a text (str or Text) or binary (bytes-like) message.

        Args:
            message: the message, or with `fin=False` its first fragment; or a prepared message
                (see `prepare`).
            fin: whether this is the whole message; if not, `continuation` must follow.
            compress: whether to compress the message, if compression was negotiated. None: decide
                by its size, and send it uncompressed if compression does not make it smaller. Of
                a message in fragments, this is decided by the first one, if it has 4 KiB or more.

        Returns:
            the number of bytes that are queued for `data_to_send` now.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if `message` has lone surrogates.
            StateError: if a fragmented message is not finished.
            ConnectionClosed: if we sent or received a close frame.
        """
        return self._queue(message, fin, compress)

    def _queue(
        self, message: str | Text | Buffer | PreparedMessage, fin: bool, compress: bool | None
    ) -> int:
        if self.state is not _OPEN:
            self.check_open()
        key = None if self._make_key is None else self._make_key()
        if fin and self._plain:
            # Most messages are one uncompressed frame.
            if type(message) is str:
                return self._encoder._whole_text(message, key)
            if type(message) is bytes:
                return self._encoder._whole_binary(message, key)
            if type(message) is Text:
                return self._encoder._whole_utf8(message, key)
            if type(message) is PreparedMessage and key is None:
                frame = message._frame
                if frame is not None:
                    return self._encoder._whole_frame(frame)
        return self._queue_frame(message, fin, compress, key)

    def _queue_frame(
        self,
        message: str | Text | Buffer | PreparedMessage,
        fin: bool,
        compress: bool | None,
        key: bytes | None,
    ) -> int:
        """Queue a message that is prepared, may be compressed, or continues after this frame."""
        deflater = self._deflater
        if isinstance(message, PreparedMessage):
            prepared = message
        elif deflater is not None and deflater.enabled and compress is not False:
            prepared = prepare(message)
        elif isinstance(message, (str, Text)):
            return self._encoder.text(message, key, fin=fin)
        else:
            return self._encoder.binary(message, key, fin=fin)
        compressed = self._compress(prepared, prepared is message, fin, compress)
        payload = prepared.payload if compressed is None else compressed
        rsv1 = compressed is not None
        try:
            if prepared is message and fin and key is None and len(payload) < _TOO_LARGE_TO_SHARE:
                frame = self._shared_frame(prepared, payload, rsv1)
                queued = self._encoder._whole_frame(frame)
            else:
                queued = self._encoder.frame(prepared.opcode, payload, fin=fin, rsv1=rsv1, key=key)
        except BaseException:
            if deflater is not None:
                deflater.forget()
            raise
        if compressed is not None:
            assert deflater is not None
            deflater.saved += len(prepared.payload) - len(compressed)
        self._compressing = rsv1 and not fin
        return queued

    def _shared_frame(self, prepared: PreparedMessage, payload: bytes, rsv1: bool) -> bytes:
        """Return the frame of a prepared message, which is the same on all connections of a server
        that compress in the same way."""
        if not rsv1:
            if prepared._frame is None:
                prepared._frame = encode_frame(prepared.opcode, payload)
            return prepared._frame
        assert self._deflater is not None
        frames = prepared._compressed_frames
        parameters = self._deflater.parameters
        frame = frames.get(parameters)
        if frame is None:
            frame = frames[parameters] = encode_frame(prepared.opcode, payload, rsv1=True)
        return frame

    def _compress(
        self, prepared: PreparedMessage, shared: bool, fin: bool, compress: bool | None
    ) -> bytes | None:
        """Return the compressed payload, or None to send the message uncompressed.

        Our compressor may refer only to data that the peer's decompressor has received from it.
        It must forget data that was not sent, and all data if the peer received other compressed
        data.
        """
        deflater = self._deflater
        if deflater is None or not deflater.enabled or compress is False:
            return None
        size = len(prepared.payload)
        # (The size of a fragmented message is not known in advance.)
        if fin and not compress and size < deflater.threshold:
            return None
        if shared and fin:
            payload = prepared.compressed(deflater.parameters)
            deflater.forget()
        else:
            payload = deflater.deflate(prepared.payload, fin)
        # The rest of a fragmented message is like its beginning, unless that is short.
        if not compress and len(payload) >= size and (fin or size >= _TELLING):
            deflater.forget()
            return None
        return payload

    def continuation(self, fragment: str | Text | Buffer, *, fin: bool = True) -> None:
        """Queue another fragment of a message, by default its last.

        Raises:
            TypeError: if `fragment` is neither a str nor bytes-like.
            ValueError: if `fragment` has lone surrogates.
            StateError: if there is no fragmented message to continue.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        if not self._compressing:
            self._encoder.continuation(fragment, self._mask_key(), fin=fin)
            return
        assert self._deflater is not None
        octets = prepare(fragment).payload
        payload = self._deflater.deflate(octets, fin)
        self._encoder.frame(Opcode.CONTINUATION, payload, fin=fin, key=self._mask_key())
        self._deflater.saved += len(octets) - len(payload)
        self._compressing = not fin

    def ping(self, data: Buffer = b"") -> None:
        """Queue a ping with at most 125 bytes of data (RFC 6455 §5.5.2).

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        self._encoder.ping(data, self._mask_key())

    def pong(self, data: Buffer = b"") -> None:
        """Queue an unsolicited pong (RFC 6455 §5.5.3).

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        self._encoder.pong(data, self._mask_key())

    @cython.critical_section
    def hold_pongs(self, held: bool) -> None:
        """Hold back pongs, because the peer reads too slowly, or send them again.

        Answering each ping of such a peer would let it fill our memory. While pongs are held
        back, pings are not answered; afterwards, the last one is (RFC 6455 §5.5.3).
        """
        self._pongs_held = bool(held)
        owed = self._pong_owed
        if owed is not None and not held:
            self._pong_owed = None
            if self.state is _OPEN:
                self._answer_ping(owed)

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.critical_section
    def data_to_send(self) -> bytes:
        """Return everything queued since the last call. If the peer has closed the connection or
        broken the protocol, our close frame follows at the end."""
        return self._encoder._join(self._take())

    @cython.binding(False)
    @cython.embedsignature(True)
    @cython.critical_section
    def buffers_to_send(self) -> list[bytes]:
        """Like `data_to_send`, but without copying large messages.

        Returns:
            the buffers to send, in order. How many there are is unspecified.
        """
        return [self._encoder._join([buffer]) for buffer in self._take()]

    def _take(self) -> list[bytes]:
        if self.close_code is not None and self.state is _OPEN:
            # §5.5.1: "it typically echos the status code it received".
            assert self._ending is not None
            ending = self._ending
            code = None if ending.code == _NO_STATUS else ending.code
            self._advance(_ANSWER, code, ending.reason, ending.error)
        return self._encoder._take_all()

    @property
    def bytes_queued(self) -> int:
        """The number of bytes that are queued for `data_to_send`."""
        return len(self._encoder)

    @property
    def compressor(self) -> CompressorParameters | None:
        """The parameters of the compressor for sent messages; None if they are not compressed."""
        deflater = self._deflater
        return deflater.parameters if deflater is not None and deflater.enabled else None

    def _mask_key(self) -> bytes | None:
        return None if self._make_key is None else self._make_key()

    # The end (RFC 6455 §7) -----------------------------------------------------------

    @cython.critical_section
    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Queue a close frame. Does nothing if we have sent one, or the peer has sent one that
        the next `data_to_send` answers.

        Args:
            code: a close code that may be sent (RFC 6455 §7.4); None for no code.
            reason: at most 123 bytes in UTF-8; must be empty without a code.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        self._advance(_CLOSE, code, reason, None)

    @cython.critical_section
    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455 §7.1.7): queue a close frame, and do not wait for the
        peer's.

        Args:
            code: a close code that may be sent (RFC 6455 §7.4).
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        self._advance(_FAIL, code, reason, None)

    @cython.critical_section
    def _violated(self, error: ProtocolError) -> None:
        """End the connection like a violation that the decoder found."""
        self._advance(_VIOLATION, error.close_code.value, str(error), error)

    @cython.critical_section
    def check_open(self) -> None:
        """Raise the same exception as `send` if the connection is not open.

        Raises:
            ConnectionClosed: if we sent or received a close frame.
        """
        if self.state is not _OPEN:
            raise errors.closed(self._ending)

    @property
    @cython.critical_section
    def close_reason(self) -> str:
        """The reason that belongs to `close_code`."""
        return "" if self.close_code is None or self._ending is None else self._ending.reason

    @property
    @cython.critical_section
    def error(self) -> ProtocolError | None:
        """The peer's violation of the protocol, if it ended the connection; an InternalError if
        `receive_data` raised.
        """
        return None if self._ending is None else self._ending.error

    def _advance(
        self, cause: _Cause, code: int | None, reason: str, error: ProtocolError | None
    ) -> int:
        """Enter the next phase, if this cause leads to one."""
        step = _LIFE.get((self._phase, cause))
        if step is None:
            return 0
        phase, announced = step
        state = _STATES[phase]
        by_peer = None if cause is _EOF else cause is _PEER_CLOSE
        ending = make_ending(self._ending, code, reason, error, announced, by_peer)
        if announced:
            self._encoder.close(code, reason, self._mask_key())
        # (Nothing runs Python code from here on, once the close frame is queued: no other thread
        # sees half of it, or sends something behind the close frame.)
        self._ending = ending
        self._phase = phase
        self.close_code = None if phase is _Phase.CLOSING else ending.code
        self.state = state
        return 0
