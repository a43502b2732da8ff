"""One end of a WebSocket connection after the opening handshake, without I/O.

This module knows its role, answers pings, takes part in the close handshake and fails the
connection when the peer breaks the protocol (RFC 6455 §5-§7). It does not know sockets,
clocks or tasks: bytes come in through `receive_data` and go out through `data_to_send`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .codec import HotConnection, MessageDecoder, MessageEncoder
from .deflate import Deflater, Inflater
from .events import Close, Ping
from .exceptions import ConnectionClosed
from .prepared import PreparedMessage, prepare
from .spec import (
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    STEP,
    CloseCode,
    Opcode,
    Role,
    State,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .deflate import Agreement, CompressorParameters
    from .events import Event
    from .exceptions import ProtocolError

__all__ = ["Connection", "State"]


class Connection(HotConnection):
    """One end of a WebSocket connection.

    Threads that share one have to lock it.

    It does no I/O. Pass what the socket delivers to `receive_data`, then b"" as long as
    `has_pending` is true, and call `receive_eof` at the end of the stream. After these calls, and
    after those that send something, write what `data_to_send` returns. When `state` is CLOSED
    after that, there is nothing more to say, and the TCP connection has to be ended (RFC 6455
    §7.1.1, §7.1.7):

    - On a server, and wherever the connection failed (`error` is set, or you called `fail`),
      shut down only the writing side of the socket. Then read, and drop what arrives, until the
      peer has ended its side too; give up after 10 seconds, say. Then close the socket. If you
      close it at once while something is unread or still to come, the system sends a reset, and
      the peer loses whatever it has not read yet: the close frame that says what was wrong.
    - On a client, read until the server has closed, for at most 10 seconds, then close.
    - Where the writing side cannot be shut down alone, as with TLS in Python, read and drop
      until the peer has closed or has been silent for a second, then close.
    - After `receive_eof`, if `close_code` is 1006, there is nobody to wait for: close at once.

    The clock is yours, too. Close the socket if the peer does not answer `close` within some
    10 seconds. Limit how long a write may take, for a peer may never read; and `ping` a peer
    that is silent, for it may be gone without the system knowing. A server that does all this
    is in `examples/trio_server.py` of fastws's sources.

    Args:
        role: which end we are: a client masks what it sends (RFC 6455 §5.1).
        max_message_size: the largest message received, in bytes; None for no limit.
        max_fragments: the largest number of frames that make up one message received,
            empty ones included; None for no limit.
        deflate: how messages are compressed, as `PerMessageDeflate` and the opening
            handshake agreed on it; None for not at all.

    Attributes:
        role: which end we are.
        deflate: how messages are compressed; None for not at all.
        state: what can still happen.
        only_messages: whether the last `receive_data` met nothing but messages: no control
            frame and no violation.
        error: the peer's violation of the protocol, if that is what ended the connection; an
            InternalError if `receive_data` raised.
        has_pending: whether the last `receive_data` left part of its data undecoded, as it had
            done enough. Call `receive_data(b"")` as long as it does.
        close_code: how the connection ended (RFC 6455 §7.1.5): the code that the peer sent
            (1005 if it sent none), or that we sent when it broke the protocol, or 1006 if it
            went without a close frame. None while it has not ended.
        close_reason: the reason that came with the code.

    Raises:
        TypeError: if a limit is not an int.
        ValueError: if `max_message_size` is negative or `max_fragments` is less than 1.
    """

    __slots__ = (
        "_compressing",
        "_deflater",
        "_pong_owed",
        "_pongs_held",
        "_sent",
        "close_reason",
        "deflate",
        "error",
        "role",
    )

    role: Role
    deflate: Agreement | None
    error: ProtocolError | None
    close_reason: str

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        deflate: Agreement | None = None,
    ) -> None:
        role = Role(role)
        super().__init__(
            MessageDecoder(
                masked=role is Role.SERVER,
                max_message_size=max_message_size,
                max_fragments=max_fragments,
                inflater=None if deflate is None else Inflater(deflate),
                step=STEP,
            ),
            MessageEncoder(),
            _next_mask_key if role is Role.CLIENT else None,
            plain=deflate is None,
        )
        self.role = role
        self.deflate = deflate
        self.error = None
        self.close_reason = ""
        self._deflater = None if deflate is None else Deflater(deflate)
        self._compressing = False  # a message that is sent in fragments
        self._pongs_held = False
        self._pong_owed: bytes | None = None
        self._sent: tuple[int, str] | None = None  # our close frame's code and reason

    # Receiving -------------------------------------------------------------------

    def _take_control(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Ping):
                # §5.5.2: answer "unless it already received a Close frame"; having sent
                # one ourselves, there is nothing left to keep alive.
                if self.state is not State.OPEN:
                    continue
                if self._pongs_held:
                    self._pong_owed = event.data
                else:
                    self._encoder.pong(event.data, self._key())
            elif isinstance(event, Close):
                self._end(event.code, event.reason)
        if self._decoder.error is not None:
            self.error = self._decoder.error
            self._end(self.error.close_code.value, str(self.error))

    def receive_eof(self) -> None:
        """Note that the stream has ended: the peer will send nothing more.

        If that comes before the peer's close frame, the connection is lost: `state` becomes
        CLOSED and `close_code` 1006, even if we sent a close frame, and none is queued now.
        What was queued before is still returned by `data_to_send`, as the peer may have shut
        down only its writing side. Part of a message is dropped.

        After the peer's close frame or a violation, nothing changes, and what came before can
        still be answered.
        """
        if self.close_code is None:
            self._end(CloseCode.ABNORMAL_CLOSURE.value, "")
            self.state = State.CLOSED

    # Sending -----------------------------------------------------------------------

    def _send(
        self,
        message: str | Buffer | PreparedMessage,
        fin: bool,
        compress: bool | None,
        key: bytes | None,
    ) -> int:
        deflater = self._deflater
        if isinstance(message, PreparedMessage) or (
            deflater is not None and deflater.enabled and compress is not False
        ):
            return self._send_prepared(message, fin, compress, key)
        if isinstance(message, str):
            return self._encoder.text(message, key, fin=fin)
        return self._encoder.binary(message, key, fin=fin)

    def continuation(self, fragment: str | Buffer, *, fin: bool = True) -> None:
        """Queue a further fragment of a message, by default its last.

        Raises:
            TypeError: if `fragment` is neither str nor bytes-like.
            ValueError: if `fragment` has lone surrogates.
            StateError: if there is no fragmented message to continue.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        if not self._compressing:
            self._encoder.continuation(fragment, self._key(), fin=fin)
            return
        assert self._deflater is not None
        payload = self._deflater.deflate(prepare(fragment).payload, fin)
        self._encoder.frame(Opcode.CONTINUATION, payload, fin=fin, key=self._key())
        self._compressing = not fin

    def ping(self, data: Buffer = b"") -> None:
        """Queue a ping with at most 125 bytes of data (RFC 6455 §5.5.2).

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        self._encoder.ping(data, self._key())

    def pong(self, data: Buffer = b"") -> None:
        """Queue a pong that no ping asked for (RFC 6455 §5.5.3).

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if we sent or received a close frame.
        """
        self.check_open()
        self._encoder.pong(data, self._key())

    def hold_pongs(self, held: bool) -> None:
        """Say whether the peer takes too little of what is sent.

        While it does, its pings are not answered one by one, which would let it fill our
        memory: the last of them is, afterwards (RFC 6455 §5.5.3).
        """
        self._pongs_held = held
        owed, self._pong_owed = self._pong_owed, None
        if owed is not None:
            if held:
                self._pong_owed = owed
            elif self.state is State.OPEN:
                self._encoder.pong(owed, self._key())

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Queue a close frame; nothing, if there was one already or the peer's is to be
        answered.

        Args:
            code: a close code that may travel (RFC 6455 §7.4); None to send none.
            reason: at most 123 bytes in UTF-8; none without a code.

        Raises:
            ValueError: if the code may not travel or the reason is too long.
        """
        if self.state is State.OPEN and self.close_code is None:
            self._send_close(code, reason)
            self.state = State.CLOSING

    def fail(self, code: int, reason: str) -> None:
        """End the connection for a reason of our own, without waiting for the peer's close
        frame (RFC 6455 §7.1.7); the close frame that says so is queued.

        Args:
            code: a close code that may travel (RFC 6455 §7.4).
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: if the code may not travel or the reason is too long.
        """
        if self.close_code is None:
            if self.state is State.OPEN:
                self._send_close(code, reason)
            self._end(int(code), reason)
            self.state = State.CLOSED

    def check_open(self) -> None:
        """Raise what `send` would if the connection is not open.

        Raises:
            ConnectionClosed: if we sent or received a close frame.
        """
        if self.state is State.OPEN:
            return
        if self.close_code is not None:
            raise ConnectionClosed(self.close_code, self.close_reason) from self.error
        assert self._sent is not None  # CLOSING means that we sent a close frame
        raise ConnectionClosed(*self._sent)

    @property
    def compressor(self) -> CompressorParameters | None:
        """How messages are compressed that we send; None if they are not."""
        deflater = self._deflater
        return deflater.parameters if deflater is not None and deflater.enabled else None

    @property
    def bytes_queued(self) -> int:
        """How many bytes wait for `data_to_send`."""
        return len(self._encoder)

    def data_to_send(self) -> bytes:
        """Hand over everything queued since the last call, and at the end our close frame if
        that is what is left to say."""
        return b"".join(self.buffers_to_send())

    def _send_prepared(
        self,
        message: str | Buffer | PreparedMessage,
        fin: bool,
        compress: bool | None,
        key: bytes | None,
    ) -> int:
        """Queue a message that may be compressed."""
        shared = isinstance(message, PreparedMessage)
        prepared = message if isinstance(message, PreparedMessage) else prepare(message)
        compressed = self._compressed(prepared, shared, fin, compress)
        payload = prepared.payload if compressed is None else compressed
        rsv1 = compressed is not None
        try:
            queued = self._encoder.frame(prepared.opcode, payload, fin=fin, rsv1=rsv1, key=key)
        except BaseException:
            if self._deflater is not None:
                self._deflater.forget()
            raise
        self._compressing = rsv1 and not fin
        return queued

    def _compressed(
        self, prepared: PreparedMessage, shared: bool, fin: bool, compress: bool | None
    ) -> bytes | None:
        """Return what to send in place of the payload; None if it is to go out plain.

        Our compressor may refer only to what the peer's decompressor got from it: it has to
        forget what was not sent, and everything when the peer got something else.
        """
        deflater = self._deflater
        if deflater is None or not deflater.enabled or compress is False:
            return None
        size = len(prepared.payload)
        # How large a message in fragments will be is not known.
        if fin and not compress and size < deflater.threshold:
            return None
        if shared and fin:
            payload = prepared.compressed(deflater.parameters)
            deflater.forget()
        else:
            payload = deflater.deflate(prepared.payload, fin)
        if fin and not compress and len(payload) >= size:
            deflater.forget()
            return None
        return payload

    # The close handshake (RFC 6455 §7) ---------------------------------------------------

    def _answer_close(self) -> None:
        # §5.5.1: "it typically echos the status code it received".
        assert self.close_code is not None
        no_status = self.close_code == CloseCode.NO_STATUS_RCVD
        self._send_close(None if no_status else self.close_code, self.close_reason)
        self.state = State.CLOSED

    def _send_close(self, code: int | None, reason: str) -> None:
        self._encoder.close(code, reason, self._key())
        self._sent = (CloseCode.NO_STATUS_RCVD.value if code is None else int(code), reason)

    def _end(self, code: int, reason: str) -> None:
        """Nothing more is received; nor sent, if we sent our close frame."""
        self.close_code = code
        self.close_reason = reason
        if self.state is State.CLOSING:
            self.state = State.CLOSED

    def _key(self) -> bytes | None:
        return None if self._make_key is None else self._make_key()


# Mask keys (RFC 6455 §5.3: "derived from a strong source of entropy") --------------------
#
# One call of the operating system yields many. list.pop is atomic, so threads that share
# the pool never share a key; a forked child must not continue with its parent's.

_POOL_SIZE = 4096
_pool: list[bytes] = []


def _next_mask_key() -> bytes:
    try:
        return _pool.pop()
    except IndexError:
        octets = os.urandom(_POOL_SIZE)
        _pool.extend([octets[i : i + 4] for i in range(4, _POOL_SIZE, 4)])
        return octets[:4]


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows, which cannot fork, has none
    os.register_at_fork(after_in_child=_pool.clear)
