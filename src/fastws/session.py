"""The whole life of a WebSocket connection, without I/O: from its first byte to the end of TCP.

This module knows the order of things: the opening handshake, the messages, the close handshake,
and when to read, to write, to shut down the writing side and to close the socket. It keeps the
timeouts, by a clock that the caller may choose. It does not know sockets, tasks or event loops:
the caller does what the session says. `ServerHandshake`, `ClientHandshake` and `Connection` know
the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from math import inf
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeAlias, TypedDict

from . import errors, rules
from .connection import Connection
from .deflate import deflate_extensions
from .events import Close, Event, Text
from .exceptions import HandshakeError, RequestError
from .handshake import ClientHandshake, ServerHandshake
from .http import Request
from .spec import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_HEADER_SIZE,
    DEFAULT_MAX_MESSAGE_SIZE,
    DEFAULT_OPEN_TIMEOUT,
    DEFAULT_PING_INTERVAL,
    DEFAULT_PING_TIMEOUT,
    DEFAULT_WRITE_LIMIT,
    KEEPALIVE,
    KEEPALIVE_REASON,
    LINGER_REFUSED,
    LINGER_SILENCE,
    CloseCode,
    Role,
    State,
)
from .stats import Stats

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer, Unpack

    from .deflate import PerMessageDeflate
    from .http import HeadersLike, Response
    from .peers import Peer
    from .prepared import PreparedMessage
    from .uri import URI

__all__ = ["HalfClose", "Opened", "Read", "Session", "SessionEvent", "SessionOptions", "Write"]

# After so many bytes are queued, they must be written before the next message is delivered.
_WRITE_LIMIT: Final = DEFAULT_WRITE_LIMIT
# If the peer has closed, our close frame follows the answers to all of its messages. If the answers
# become larger than this, the remaining messages are dropped.
_MAX_ANSWERS: Final = 1 << 20
# A peer whose close frame has arrived must not send more. If it does, and we have closed the socket
# when that arrives, a reset may overtake our close frame. If there is no HalfClose, the session
# waits until nothing has arrived for so many seconds.
_LAST_MOMENT: Final = 0.1
# In place of "no timeout", in seconds. Sockets take less than 25 days; asking again is harmless.
_NO_LIMIT: Final = 1_000_000.0


# Events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is open: messages can be sent."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read from the socket, and pass what arrives to `Session.receive_data`.

    If nothing arrives in time, pass nothing and go on.

    Attributes:
        timeout: how long to wait, in seconds.
    """

    timeout: float


@dataclass(frozen=True, slots=True)
class Write:
    """Call `Session.data_to_send` and write what it returns.

    That may be nothing: if what was read inflates to much, there is a Write after each step of
    decoding, so that other tasks have their turn.

    Attributes:
        timeout: how long that may take, in seconds. If it takes longer, close the socket: the
            peer does not read.
    """

    timeout: float


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Shut down the writing side of the socket: everything is said. Reading goes on."""


SessionEvent: TypeAlias = Event | Request | Opened | Read | Write | HalfClose
"""What a `Session` yields."""


# Phases -------------------------------------------------------------------------------------


class _Phase(Enum):
    OPENING = "the opening handshake is not done"
    DECIDING = "a server's application has the request, and may answer it"
    OPEN = "messages are exchanged, or close frames"
    ENDING = "when what is queued is written, nothing more is said"
    LINGERING = "what arrives is dropped until the peer ends its side"
    ENDED = "the socket must be closed"


_NEXT: Final = {
    _Phase.OPENING: {
        _Phase.DECIDING,  # §4.2.1: the server has read the request
        _Phase.OPEN,  # §4.1: the client has read a good response
        _Phase.ENDING,  # §4.2.2: the server refuses what is not a request, or takes too long
        _Phase.ENDED,  # §4.1: the client gives up; the stream ended; the application gives up
    },
    _Phase.DECIDING: {
        _Phase.OPEN,  # §4.2.2: the server accepts
        _Phase.ENDING,  # §4.2.2: the server refuses
        _Phase.ENDED,  # the application gives up
    },
    _Phase.OPEN: {
        _Phase.ENDING,  # §7.1.3, §7.1.7: the close frames are exchanged, or ours was the last word
        _Phase.ENDED,  # §7.1.5: the peer's close frame did not come in time; I/O failed
    },
    _Phase.ENDING: {
        _Phase.LINGERING,  # §7.1.1: the peer may still be sending, or must end TCP
        _Phase.ENDED,  # it has ended its side already; I/O failed
    },
    _Phase.LINGERING: {
        _Phase.ENDED,  # the peer has ended its side, or its time is up; I/O failed
    },
    _Phase.ENDED: set(),
}

# Globals, because looking up an enum member is slow.
_OPENING, _DECIDING, _OPEN, _ENDING, _LINGERING, _ENDED = _Phase
_STATE_OPEN: Final = State.OPEN


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of `Session` that `Session.server` and `Session.client` take too."""

    decode_text: bool
    max_message_size: int | None
    max_fragments: int | None
    stream: bool
    max_stream_size: int | None
    open_timeout: float | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    half_close: bool
    clock: Callable[[], float]


class Session:
    """One WebSocket connection, from the opening handshake to the end of TCP.

    It does no I/O. Iterate over it, and do what the events say:

        for event in session:
            match event:
                case str() | bytes():
                    session.send(event)  # or what your program does
                case Write(timeout):
                    sock.settimeout(timeout)
                    sock.sendall(session.data_to_send())
                case Read(timeout):
                    sock.settimeout(timeout)
                    with suppress(TimeoutError):
                        session.receive_data(sock.recv(65536))
                case HalfClose():
                    sock.shutdown(socket.SHUT_WR)
        sock.close()

    The other events are `Request` (on a server), `Opened`, `Ping`, `Pong` and `Close`. You may
    ignore them: the session accepts good requests and answers pings and close frames itself. When
    the loop ends, close the socket. `close_code` and `error` say how it ended. If reading or
    writing fails, leave the loop, call `abort` and close the socket.

    The order of events matters, and therefore the session is iterated over and returns no lists:
    answers leave before more is read, our close frame leaves after the answers to all earlier
    messages, and the writing side is shut down after that. You may stop after any event and
    iterate again later; nothing is lost.

    Other tasks may send too: they call `send`, and write what `data_to_send` returns. Threads may
    share a session. The bytes must be written in the order in which `data_to_send` returned them,
    and before a `HalfClose`: hold a lock for both calls. The loop above does not read while it
    writes. If you send much to a peer that does not read while it writes either, let another task
    or thread write; pass it what `data_to_send` returns.

    Args:
        handshake: a new `ServerHandshake` or `ClientHandshake`. `Session.server` and
            `Session.client` make one.
        decode_text: whether a received text message is a `str`. If not, it is a `Text`, which
            has its UTF-8 as bytes.
        max_message_size: the maximum size of a received message, in bytes; None for no limit.
        max_fragments: the maximum number of frames in a received message; None for no limit.
        stream: whether messages are received in parts, as `MessagePart` events, without the two
            limits above.
        max_stream_size: the maximum size of a message that is received in parts, in bytes; None
            for no limit.
        open_timeout: how long the opening handshake may take, in seconds; None for no timeout. A
            client that takes longer gets a 408.
        close_timeout: how long the peer may take to answer our close frame, and then to end the
            TCP connection, in seconds; None for no timeout.
        ping_interval: how long the peer may be silent before a ping is sent, in seconds; None for
            no pings.
        ping_timeout: how long the peer may be silent after a ping, in seconds, before the
            connection is closed with 1011; and how long it may take to read 64 KiB. None for no
            timeout.
        half_close: whether the writing side of the socket can be shut down alone. With TLS it
            usually cannot. Then there is no `HalfClose`; what arrives at the end is dropped until
            the peer has been silent for a tenth of a second, or for a second if it was refused or
            broke the protocol.
        clock: returns the time, in seconds.

    Attributes:
        role: the end that we are.
        uri: on a client, what to connect to: `uri.host` and `uri.port`, with TLS if `uri.secure`;
            or the Unix socket `uri.unix_path`, if that is not None. None on a server.
        request: on a server, the request, once it has arrived.
        response: on a client, the server's response, once it has arrived and is good.
        subprotocol: the subprotocol agreed on; None if there is none.
        context: what was passed to `accept`; yours to set. None by default.

    Raises:
        TypeError: if `handshake` is neither of the two, or a limit is not an int.
        ValueError: if a limit or timeout is too small.
    """

    def __init__(
        self,
        handshake: ServerHandshake | ClientHandshake,
        *,
        decode_text: bool = True,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        stream: bool = False,
        max_stream_size: int | None = None,
        open_timeout: float | None = DEFAULT_OPEN_TIMEOUT,
        close_timeout: float | None = DEFAULT_CLOSE_TIMEOUT,
        ping_interval: float | None = DEFAULT_PING_INTERVAL,
        ping_timeout: float | None = DEFAULT_PING_TIMEOUT,
        half_close: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.uri: URI | None = None
        self._out = b""  # of the opening handshake
        if isinstance(handshake, ServerHandshake):
            self.role = Role.SERVER
        elif isinstance(handshake, ClientHandshake):
            self.role = Role.CLIENT
            self.uri = handshake.uri
            self._out = handshake.request()
        else:
            kind = type(handshake).__name__
            raise TypeError(f"handshake must be a ServerHandshake or ClientHandshake, not {kind!r}")
        for name, value in (
            ("open_timeout", open_timeout),
            ("close_timeout", close_timeout),
            ("ping_interval", ping_interval),
            ("ping_timeout", ping_timeout),
        ):
            rules.check_timeout(name, value)
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.context: Any = None
        # (Connection checks them too, but only after the opening handshake.)
        rules.check_limits(max_message_size, max_fragments, stream, max_stream_size, None)
        self._make_connection = partial(
            Connection,
            self.role,
            max_message_size=max_message_size,
            max_fragments=max_fragments,
            decode_text=decode_text,
            stream=stream,
            max_stream_size=max_stream_size,
        )
        self._close_timeout = inf if close_timeout is None else close_timeout
        self._ping_interval = inf if ping_interval is None else ping_interval
        self._ping_timeout = inf if ping_timeout is None else ping_timeout
        self._half_close = half_close
        self._clock = clock
        self._lock = RLock()
        self._phase = _OPENING
        self._handshake: ServerHandshake | ClientHandshake | None = handshake
        self._connection: Connection | None = None  # once it is open
        self._error: Exception | None = None
        # By when the opening handshake, the close handshake or the end of TCP must be done.
        self._deadline = inf if open_timeout is None else clock() + open_timeout
        self._silence = inf  # how long to wait for the peer to go on sending, while LINGERING
        self._silent_since: float | None = None  # while we read; None if there was no Read since
        self._pinged = False  # since the peer was last heard
        self._received = b""
        self._ended = False  # the stream
        self._events: list[SessionEvent] = []  # what is decoded and not delivered, the last first
        self._must_write = False
        self._paused = True  # there was a Write after the last decoding
        # Made once, because making one takes as long as `Connection` needs to echo a message.
        self._usual_read = Read(min(self._ping_interval, _NO_LIMIT))
        self._usual_write = Write(min(self._ping_timeout, _NO_LIMIT))

    @classmethod
    def server(
        cls,
        *,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | bool = False,
        headers: HeadersLike = (),
        max_header_size: int = DEFAULT_MAX_HEADER_SIZE,
        peer: Peer | None = None,
        **options: Unpack[SessionOptions],
    ) -> Self:
        """Return the server's end of a new TCP connection.

        Args:
            origins: the origins that may connect, as for `ServerHandshake`; None for all.
            subprotocols: the supported subprotocols, in order of preference.
            deflate: whether to compress messages if the client supports it, or a
                `PerMessageDeflate` that says how.
            headers: header fields to add to every response.
            max_header_size: the maximum size of the request's header block, in bytes.
            peer: what is known about the client; it becomes the `peer` of the request.
            **options: keyword arguments of `Session`.

        Raises:
            TypeError, ValueError: if an argument is invalid.
        """
        handshake = ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            extensions=deflate_extensions(deflate),
            headers=headers,
            max_header_size=max_header_size,
            peer=peer,
        )
        return cls(handshake, **options)

    @classmethod
    def client(
        cls,
        uri: URI | str,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | bool = False,
        headers: HeadersLike = (),
        max_header_size: int = DEFAULT_MAX_HEADER_SIZE,
        **options: Unpack[SessionOptions],
    ) -> Self:
        """Return the client's end of a new TCP connection.

        Args:
            uri: a ws:// or wss:// URI. Connect to its host and port: see the attribute `uri`.
            origin: the value of Origin; None to leave it out.
            subprotocols: the subprotocols to ask for, in order of preference.
            deflate: whether to offer compression, or a `PerMessageDeflate` that says how.
            headers: header fields to add to the request.
            max_header_size: the maximum size of the response's header block, in bytes.
            **options: keyword arguments of `Session`. `half_close` is false by default if the
                scheme is wss.

        Raises:
            InvalidURIError: if `uri` is not a WebSocket URI.
            TypeError, ValueError: if another argument is invalid.
        """
        handshake = ClientHandshake(
            uri,
            origin=origin,
            subprotocols=subprotocols,
            extensions=deflate_extensions(deflate),
            headers=headers,
            max_header_size=max_header_size,
        )
        options.setdefault("half_close", not handshake.uri.secure)
        return cls(handshake, **options)

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    def __repr__(self) -> str:
        state = self._phase if self._connection is None else self._connection.state
        code = "" if self.close_code is None else f" {self.close_code}"
        return f"<{type(self).__name__} {self.role.name.lower()} {state.name.lower()}{code}>"

    # What to do -------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SessionEvent:
        """Return the next event; at the end of the TCP connection, raise StopIteration.

        Raises:
            StateError: if `data_to_send` was not called after a `Write`.
        """
        with self._lock:
            if self._must_write:
                raise errors.not_written()
            while (phase := self._phase) is not _ENDED:
                event = self._talk() if phase is _OPEN else self._advance(phase)
                if event is not None:
                    return event
            raise StopIteration

    def receive_data(self, data: Buffer) -> None:
        """Take what was read from the socket: any number of bytes, or b"" if the stream has ended.

        The next events say what became of it.

        Raises:
            TypeError: if `data` is not bytes-like.
            StateError: if earlier data was not looked at, because the session was not iterated
                over, or the stream has ended before.
        """
        octets = data if type(data) is bytes else rules.as_bytes(data)
        if not octets:
            self.receive_eof()
            return
        with self._lock:
            if self._ended:
                raise errors.stream_ended()
            if self._received:
                raise errors.not_iterated()
            if self._phase is not _ENDED:
                self._received = octets
                self._silent_since = None
                self._pinged = False

    def receive_eof(self) -> None:
        """Tell the session that the stream has ended, like `receive_data(b"")`."""
        with self._lock:
            self._ended = True

    def data_to_send(self) -> bytes:
        """Return what is to be written now; b"" if that is nothing.

        If the peer has closed, the answers to its messages wait here until you go on after the
        last of them. Then they leave together with our close frame, after a `Write`.
        """
        with self._lock:
            octets, self._out = self._out, b""
            may_close, self._must_write = self._must_write, False
            connection = self._connection
            if connection is None:
                return octets
            if not may_close and connection.close_code is not None and self.state is _STATE_OPEN:
                return octets  # after which `Connection` would add our close frame
            return octets + connection.data_to_send()

    # The opening handshake ---------------------------------------------------------------

    def accept(
        self,
        *,
        headers: HeadersLike = (),
        context: Any = None,
        subprotocol: str | None = None,
    ) -> None:
        """Accept the request, if it is valid; if not, refuse it with a response that says why.

        This may be called after the event `Request`. If nothing is called before the session is
        iterated over again, the session calls this.

        Args:
            headers: header fields for the response.
            context: becomes the attribute `context`.
            subprotocol: the subprotocol to agree on, as for `ServerHandshake.accept`; None to
                choose among those of the session.

        Raises:
            StateError: if there is no request to answer.
            ValueError: if `headers` contains a field that the handshake itself sets, or
                `subprotocol` is not a token.
        """
        with self._lock:
            handshake = self._undecided()
            assert self.request is not None
            try:
                octets = handshake.accept(self.request, headers=headers, subprotocol=subprotocol)
            except RequestError as error:
                self._refuse(handshake.reject(error), error)
            else:
                self._out = octets
                self.context = context
                self._open(handshake)

    def respond(self, response: Response) -> None:
        """Answer the request with plain HTTP, and end the TCP connection.

        Args:
            response: what to send, as for `ServerHandshake.respond`.

        Raises:
            StateError: if there is no request to answer.
            ValueError: if the status is not final, or the response has a Transfer-Encoding.
        """
        with self._lock:
            self._refuse(self._undecided().respond(response), None)

    def reject(self, error: RequestError) -> None:
        """Refuse the request, and end the TCP connection.

        Args:
            error: says what is wrong with the request, and with which status to answer.

        Raises:
            StateError: if there is no request to answer.
            ValueError: if the error's status or header fields cannot be sent.
        """
        with self._lock:
            self._refuse(self._undecided().reject(error), error)

    # The connection -----------------------------------------------------------------------

    def send(
        self,
        message: str | Text | Buffer | PreparedMessage,
        *,
        fin: bool = True,
        compress: bool | None = None,
    ) -> int:
        """Queue a text (str or Text) or binary (bytes-like) message, as `Connection.send` does.

        Raises:
            TypeError, ValueError: if `message` cannot be sent.
            StateError: if the connection is not open yet, or a fragmented message is not
                finished.
            ConnectionClosed: if the connection is closed or closing, or was never open.
        """
        with self._lock:
            return self._must_be_open().send(message, fin=fin, compress=compress)

    def send_text(
        self,
        data: str | Text | Buffer,
        *,
        fin: bool = True,
        compress: bool | None = None,
    ) -> int:
        """Queue a text message that is given in UTF-8, as `Connection.send_text` does; see `send`
        for what it raises."""
        with self._lock:
            return self._must_be_open().send_text(data, fin=fin, compress=compress)

    def continuation(self, fragment: str | Text | Buffer, *, fin: bool = True) -> None:
        """Queue another fragment of a message, by default its last: see `Connection`."""
        with self._lock:
            self._must_be_open().continuation(fragment, fin=fin)

    def ping(self, data: Buffer = b"") -> None:
        """Queue a ping with at most 125 bytes of data; see `send` for what it raises."""
        with self._lock:
            self._must_be_open().ping(data)

    def pong(self, data: Buffer = b"") -> None:
        """Queue an unsolicited pong with at most 125 bytes of data; see `send` for what it
        raises."""
        with self._lock:
            self._must_be_open().pong(data)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin to close the connection: queue a close frame. Iterate on to the end.

        Before the connection is open, this gives it up without a word. Does nothing if it is
        closed or closing.

        Args:
            code: a close code that may be sent (RFC 6455 §7.4); None for no code.
            reason: at most 123 bytes in UTF-8; must be empty without a code.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        rules.close_payload(code, reason)
        with self._lock:
            connection = self._connection
            if self._phase in (_OPENING, _DECIDING):
                self._enter(_ENDED)
            elif connection is not None and connection.state is State.OPEN:
                connection.close(code, reason)
                self._deadline = self._clock() + self._close_timeout

    def abort(self) -> None:
        """End the connection at once, without a word: reading or writing failed, or must not go on.

        The iteration ends, and what is queued is dropped. If the connection was open and the peer
        had not closed it, `close_code` becomes 1006. Does nothing at the end.
        """
        with self._lock:
            if self._phase is not _ENDED:
                if self._connection is not None:
                    self._connection.receive_eof()
                    self._connection.data_to_send()  # which also ends the time for answers
                self._enter(_ENDED)

    @property
    def state(self) -> State | None:
        """What can still happen; None if the connection is not open yet, or never was."""
        return None if self._connection is None else self._connection.state

    @property
    def close_code(self) -> int | None:
        """How the connection ended: see `Connection`. None if it has not, or never was open."""
        return None if self._connection is None else self._connection.close_code

    @property
    def close_reason(self) -> str:
        """The reason that belongs to the code."""
        return "" if self._connection is None else self._connection.close_reason

    @property
    def error(self) -> Exception | None:
        """Why the connection did not open: a HandshakeError or TimeoutError. Or the peer's
        violation of the protocol, if it ended the connection: a ProtocolError."""
        return self._error if self._connection is None else self._connection.error

    @property
    def stats(self) -> Stats:
        """What was counted since the connection was open."""
        return Stats() if self._connection is None else self._connection.stats

    @property
    def bytes_queued(self) -> int:
        """The number of bytes that are queued for `data_to_send`."""
        queued = 0 if self._connection is None else self._connection.bytes_queued
        return len(self._out) + queued

    def _must_be_open(self) -> Connection:
        connection = self._connection
        if connection is None:
            if self._phase in (_OPENING, _DECIDING):
                raise errors.not_open_yet()
            raise errors.never_open()
        return connection

    # One step after the other ---------------------------------------------------------------

    def _enter(self, phase: _Phase) -> None:
        assert phase in _NEXT[self._phase], f"{self._phase} -> {phase}"
        self._phase = phase
        if phase is _ENDED:
            self._handshake = None
            self._received = self._out = b""
            self._must_write = False

    # Each of these returns the next event, or None if something changed and there may be one now.

    def _advance(self, phase: _Phase) -> SessionEvent | None:
        if self._out:
            return self._write(len(self._out))
        if phase is _OPENING:
            return self._shake_hands()
        if phase is _DECIDING:
            self.accept()
            return None
        if phase is _ENDING:
            return self._say_nothing_more()
        return self._linger()

    def _write(self, queued: int) -> Write:
        self._must_write = self._paused = True
        write = self._usual_write
        if queued < _WRITE_LIMIT:
            return write
        return Write(min(write.timeout * (1 + queued // _WRITE_LIMIT), _NO_LIMIT))

    def _read_by(self, deadline: float) -> Read | None:
        """Return Read, or None if it is too late."""
        left = deadline - self._clock()
        return Read(min(left, _NO_LIMIT)) if left > 0 else None

    def _take_received(self) -> bytes:
        octets, self._received = self._received, b""
        return octets

    # Opening (RFC 6455 §4)

    def _shake_hands(self) -> Request | Read | None:
        handshake = self._handshake
        try:
            if self._received:
                if isinstance(handshake, ServerHandshake):
                    return self._receive_request(handshake)
                assert handshake is not None
                self._receive_response(handshake)
                return None
            if self._ended:
                if isinstance(handshake, ClientHandshake):
                    handshake.receive_eof()
                raise HandshakeError("connection closed during the opening handshake")
            read = self._read_by(self._deadline)
            if read is None:
                late = "the opening handshake took too long"
                is_client = self.role is Role.CLIENT
                raise TimeoutError(late) if is_client else RequestError(late, 408)
        except RequestError as error:
            assert isinstance(handshake, ServerHandshake)
            self._refuse(handshake.reject(error), error)
            return None
        except (HandshakeError, TimeoutError) as error:
            self._error = error
            self._enter(_ENDED)
            return None
        return read

    def _receive_request(self, handshake: ServerHandshake) -> Request | None:
        self.request = request = handshake.receive_data(self._take_received())
        if request is not None:
            self._enter(_DECIDING)
        return request

    def _receive_response(self, handshake: ClientHandshake) -> None:
        self.response = handshake.receive_data(self._take_received())
        if self.response is not None:
            self._open(handshake)

    def _undecided(self) -> ServerHandshake:
        if self._phase is not _DECIDING:
            raise errors.nothing_to_answer()
        assert isinstance(self._handshake, ServerHandshake)
        return self._handshake

    def _refuse(self, octets: bytes, error: RequestError | None) -> None:
        self._handshake = None
        self._error = error
        self._out = octets
        self._enter(_ENDING)

    def _open(self, handshake: ServerHandshake | ClientHandshake) -> None:
        self._connection = self._make_connection(deflate=handshake.deflate)
        self.subprotocol = handshake.subprotocol
        self._received = handshake.trailing_data + self._received
        self._handshake = None
        self._events.append(Opened())
        self._enter(_OPEN)

    # Messages (§5, §6) and the close handshake (§7)

    def _talk(self) -> SessionEvent | None:
        connection = self._connection
        assert connection is not None
        queued = connection.bytes_queued
        if queued > _WRITE_LIMIT:
            if connection.close_code is None:
                return self._write(queued)
            if queued > _MAX_ANSWERS:
                self._events = [event for event in self._events if isinstance(event, Close)]
        if self._events:
            return self._events.pop()
        if queued or self._out:
            return self._write(queued)
        if connection.close_code is not None:
            if connection.state is _STATE_OPEN:
                return self._write(queued)  # our close frame, as all answers are complete
            self._enter(_ENDING)
            return None
        if connection.has_pending:
            if not self._paused:
                return self._write(queued)  # nothing, so that other tasks have their turn
            data = b""
        elif self._received:
            data = self._take_received()
        else:
            return self._listen(connection)
        self._paused = False
        try:
            events: list[Any] = connection.receive_data(data)
        except Exception as exc:
            # §7.1.7: the connection ends with 1011, and the messages before it are lost.
            if connection.error is None:
                raise
            connection.error.__cause__ = exc
            return None
        event: SessionEvent | None = None
        if len(events) == 1:
            event = events[0]
        else:  # answers to many pings are written before the first event is delivered
            events.reverse()
            self._events = events
        return event

    def _listen(self, connection: Connection) -> Read | None:
        """Wait for the peer. If it is silent, ping it, and give it up if it stays silent."""
        if self._ended:
            connection.receive_eof()
            return None
        if connection.state is not _STATE_OPEN:
            read = self._read_by(self._deadline)
            if read is None:
                connection.receive_eof()
                self._enter(_ENDED)
            return read
        # Only the time that we read counts: the application may have been busy for long.
        if self._silent_since is None:
            self._silent_since = self._clock()
            if not self._pinged:
                return self._usual_read
        gives_up = self._pinged and self._ping_timeout < inf
        patience = self._ping_timeout if gives_up else self._ping_interval
        read = self._read_by(self._silent_since + patience)
        if read is None:
            self._silent_since = None
            if gives_up:
                connection.fail(CloseCode.INTERNAL_ERROR, KEEPALIVE_REASON)
            else:
                connection.ping(KEEPALIVE)
                self._pinged = True
        return read

    # The end of TCP (§7.1.1): see `Connection` for the reasons

    def _say_nothing_more(self) -> HalfClose | None:
        if self._ended:
            self._enter(_ENDED)
            return None
        now = self._clock()
        patience = self._close_timeout
        connection = self._connection
        if connection is None:
            patience = min(patience, max(self._deadline - now, LINGER_REFUSED))
        self._deadline = now + patience
        # Whether the peer may still be sending, because it broke the protocol or was refused.
        may_send = connection is None or connection.error is not None
        self._enter(_LINGERING)
        if self.role is Role.CLIENT and not may_send:
            return None  # §7.1.1: the server closes first
        if self._half_close:
            return HalfClose()
        self._silence = LINGER_SILENCE if may_send else _LAST_MOMENT
        return None

    def _linger(self) -> Read | None:
        """Drop what arrives until the peer has ended its side, or its time is up."""
        self._received = b""
        if self._silent_since is None:
            self._silent_since = self._clock()
        read = self._read_by(min(self._deadline, self._silent_since + self._silence))
        if self._ended or read is None:
            self._enter(_ENDED)
            return None
        return read
