"""Messages: the fast path between the bytes of a socket and the messages of an application.

This module knows all rules of RFC 6455 for received data, and how to write messages that follow
them. It does not know its role, except whether the peer must mask. Nor does it know what a
connection is, where mask keys come from, or when to answer: it never sends anything by itself.
"""

from __future__ import annotations

from io import BytesIO, StringIO
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from fastws import errors, rules
from fastws.events import Ping, Pong, Text
from fastws.exceptions import ProtocolError
from fastws.rules import as_bytes, max_compressed, memory_of
from fastws.spec import (
    CONTROL_BIT,
    CONTROL_COST,
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    FIN,
    INFLATE_BYTE_COST,
    INFLATE_PART,
    INFLATE_PIECE,
    INFLATE_PIECE_COST,
    LENGTH_16,
    MASK,
    MASK_KEY_SIZE,
    OPCODE_BITS,
    RSV1,
    Opcode,
)

from .frames import encode_frame, read_header, rsv_bits, write_header
from .masking import rotate, xor
from .utf8 import Utf8Validator, valid_text

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from fastws.events import Event

__all__ = ["MessageDecoder", "MessageEncoder"]

# Plain ints, because members of an enum are slow.
_TEXT = Opcode.TEXT.value
_BINARY = Opcode.BINARY.value
# The first byte of an unfragmented message.
_WHOLE_TEXT = FIN | _TEXT
_WHOLE_BINARY = FIN | _BINARY
_WHOLE = frozenset({_WHOLE_TEXT, _WHOLE_BINARY})

# From this size on, in bytes, a payload is not copied behind the data before it.
_NOT_COPIED = 64 << 10


class Inflater(Protocol):
    """The interface of an object that decompresses messages, such as `fastws.deflate.Inflater`."""

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        """Decompress a piece of a message.

        Args:
            data: the piece; a message may be split anywhere.
            budget: how many more bytes the message may have; None for no limit.
            last: whether this is the end of the message.

        Returns:
            at most `budget` bytes, or more if the message is too big.

        Raises:
            ProtocolError: if it cannot be decompressed.
        """


class PartInflater(Protocol):
    """The interface of an object that decompresses messages in parts, such as
    `fastws.deflate.PartInflater`."""

    def inflate_part(self, data: bytes, limit: int, last: bool) -> tuple[bytes, bool]:
        """Decompress a piece of a message, but not more than `limit` bytes of it at once.

        Args:
            data: the piece; a message may be split anywhere.
            limit: the maximum number of bytes to return, at least 1.
            last: whether this is the end of the message.

        Returns:
            the bytes, and whether there may be more: if so, the next call has no data and the
            same `last`.

        Raises:
            ProtocolError: if it cannot be decompressed.
        """


class MessageDecoder:
    """Decodes messages, pings, pongs and the close frame from a stream of bytes.

    Args:
        masked: whether the peer must mask: True on a server, False on a client.
        max_message_size: the maximum size of a message, in bytes; None for no limit.
        max_fragments: the maximum number of frames in a message, including empty ones; None
            for no limit.
        inflater: decompresses the messages that the peer sends with RSV1 set (RFC 7692 §6).
            Without an inflater, the bit is a violation. With one, `max_message_size` limits
            the inflated message, and `rules.max_compressed` limits each of its frames.
        step: about how many bytes one call of `feed` inflates before it stops (see
            `has_pending`); a control frame counts as 256 bytes. None for no limit. Use a step
            because a few bytes can inflate to a thousand times as many, and one read from a
            socket can contain many messages.
        decode_text: whether to decode text messages to `str`. If not, each is a `Text`, which
            has its UTF-8 as bytes. It is validated in either case.
        stream: whether to return messages in parts, as they arrive. Then each message becomes one
            or more `MessagePart` events, and needs no memory once these are processed: a part is
            about as large as what one call of `feed` received, or inflated in a step. Text is cut
            between characters. `max_message_size` and `max_fragments` do not apply. The inflater
            must have the method `inflate_part`, as `fastws.deflate.PartInflater` has.
        max_stream_size: the maximum size of a message that is returned in parts, in bytes; None
            for no limit.

    Attributes:
        error: the peer's violation of the protocol, or None. A decoder decodes nothing more
            after an error, after a close frame, or if its inflater raised.
        has_pending: whether the last `feed` stopped at `step`, before the end of its data.
            `feed(b"")` continues with the rest; data of later calls comes after it.

    Raises:
        TypeError: if a limit is not an int, or the inflater cannot inflate in parts.
        ValueError: if `max_message_size` or `max_stream_size` is negative, `max_fragments` or
            `step` is less than 1, or there is a `max_stream_size` without `stream`.
    """

    __slots__ = (
        "_buffer",
        "_bytes_seen",
        "_compressed",
        "_decode_text",
        "_decodes",
        "_done",
        "_fin",
        "_fragments",
        "_fragments_seen",
        "_inflater",
        "_inflating",
        "_key",
        "_masked",
        "_max_fragments",
        "_max_message_size",
        "_messages_seen",
        "_more",
        "_no_messages",
        "_only_messages",
        "_opcode",
        "_payload_seen",
        "_pings_seen",
        "_pongs_seen",
        "_remaining",
        "_rest",
        "_rsv",
        "_size",
        "_step",
        "_step_left",
        "_stream",
        "_tail",
        "_text",
        "_utf8",
        "error",
    )

    error: ProtocolError | None
    _only_messages: bool  # whether the last `feed` found no control frame and no violation
    _left = 0  # how many bytes the last `_feed_from` has left to `_feed_left`

    def __init__(
        self,
        *,
        masked: bool,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        inflater: Inflater | PartInflater | None = None,
        step: int | None = None,
        decode_text: bool = True,
        stream: bool = False,
        max_stream_size: int | None = None,
    ) -> None:
        self.error = None
        self._only_messages = True
        self._decode_text = bool(decode_text)
        self._inflater: Any = inflater
        self._inflating = False
        self._rsv = 0 if inflater is None else RSV1
        self._masked = bool(masked)
        self._stream = bool(stream)
        self._max_message_size, self._max_fragments = rules.check_limits(
            max_message_size, max_fragments, self._stream, max_stream_size, inflater
        )
        self._step = rules.check_limit("step", step, 1)
        self._done = False
        # How much this call may still do, and the data that it left for the next call.
        self._step_left: int | float = inf
        self._rest = b""
        # Whether the inflater has more of the piece that it got last. Only if `stream`.
        self._more = False
        # The beginning of an incomplete header or control frame: at most 130 bytes.
        self._tail = b""
        # The data frame whose payload is arriving.
        self._remaining = 0
        self._key = b""
        self._fin = False
        # The message that the frame belongs to. If the opcode is 0, there is none.
        self._opcode = 0
        self._decodes = False  # it becomes a str, piece by piece
        self._compressed = False
        self._size = 0
        self._fragments = 0
        self._buffer: BytesIO | None = None
        self._utf8: Utf8Validator | None = None
        self._text: StringIO | None = None
        # Counts since the beginning: see `_counts`.
        self._bytes_seen = self._payload_seen = self._messages_seen = 0
        self._fragments_seen = self._pings_seen = self._pongs_seen = 0
        self._no_messages = 0  # how many of the events of this call are not messages

    def feed(self, data: Buffer) -> list[Event]:
        """Decode the data that the socket delivered.

        Args:
            data: any number of bytes; messages may be split anywhere.

        Returns:
            the events that are now complete: a `str` for a text message (a `Text` if
            `decode_text` is false), `bytes` for a binary one, or `MessagePart` instead of them;
            `Ping`, `Pong`, `Close`. Events before a violation are included; check `error` after
            the call. Nothing follows a `Close` or an error.

        Raises:
            TypeError: if `data` is not bytes-like.
            StateError: if the inflater calls this method.

        After any other exception, from the inflater or because memory ran out, the decoder
        decodes nothing more, and its `error` is an InternalError.
        """
        octets = as_bytes(data)
        events: list[Any] = []
        if self._inflating:
            raise errors.being_fed()
        self._only_messages = not self._done
        if self._done:
            return events
        self._bytes_seen += len(octets)
        self._no_messages = 0
        if self._tail or self._rest:
            octets = self._tail + self._rest + octets  # one of the first two is empty
            self._tail = self._rest = b""
        self._step_left = inf if self._step is None else self._step
        try:
            self._decode(octets, events)
        except ProtocolError as exc:
            self.error = exc.with_traceback(None)
            exc.__context__ = None  # a UnicodeDecodeError would keep the payload alive
            self._finish()
        except BaseException:
            # Only a part of the data was processed, so the rest cannot be decoded.
            self.error = errors.decoding_failed()
            self._finish()
            raise
        self._messages_seen += len(events) - self._no_messages
        return rules.make_parts(events) if self._stream else events

    @property
    def has_pending(self) -> bool:
        """Whether the last `feed` stopped before the end of its data; see the class."""
        return self._has_rest()

    # For `Connection`. If it is compiled, it calls these in C.

    _feed = feed

    def _feed_from(self, storage: bytearray, size: int) -> list[Event]:
        """Decode the first `size` bytes of a buffer, which must not be resized during the call."""
        return self.feed(memoryview(storage)[: max(size, 0)])

    def _feed_left(self, storage: bytearray, size: int) -> list[Event]:
        """Decode the bytes at the end of the buffer that the last `_feed_from` has left."""
        return []

    def _has_rest(self) -> bool:
        return self._rest != b"" or self._more

    def _counts(self) -> tuple[int, int, int, int, int, int]:
        """Return what was decoded so far: complete messages, complete frames, bytes, bytes of the
        messages' payloads, pings, pongs."""
        messages, pings, pongs = self._messages_seen, self._pings_seen, self._pongs_seen
        closes = 1 if self._done and self.error is None else 0
        frames = messages + self._fragments_seen + pings + pongs + closes
        return messages, frames, self._bytes_seen, self._payload_seen, pings, pongs

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    def _decode(self, data: bytes, events: list[Any]) -> None:
        position, end = 0, len(data)
        key_size = MASK_KEY_SIZE if self._masked else 0
        mask = MASK if self._masked else 0
        limit = self._max_message_size
        if self._more:
            self._take_payload(data, 0, events)
        while position < end:
            if self._step_left <= 0:
                self._rest = data[position:]
                return
            if self._remaining:
                position = self._take_payload(data, position, events)
                continue
            # A shortcut for an unfragmented message of up to 64 KiB: read_header would take much
            # longer. It handles everything else, including errors.
            start = position + 2 + key_size
            if start <= end and not self._opcode and data[position] in _WHOLE:
                length = data[position + 1] ^ mask  # a wrong MASK bit makes this large
                minimal = length < LENGTH_16
                if length == LENGTH_16:
                    start += 2
                    length = int.from_bytes(data[position + 2 : position + 4], "big")
                    minimal = length >= LENGTH_16
                stop = start + length
                if minimal and stop <= end and (limit is None or length <= limit):
                    payload = data[start:stop]
                    self._payload_seen += length
                    if mask:
                        payload = xor(payload, data[start - MASK_KEY_SIZE : start])
                    if data[position] == _WHOLE_TEXT:
                        text = _decode_text(payload)
                        events.append(text if self._decode_text else valid_text(payload))
                    else:
                        events.append(payload)
                    position = stop
                    continue

            header = read_header(data, position, self._masked, self._rsv, self._opcode != 0)
            if header is None:
                self._tail = data[position:]
                return
            first, length, key, start = header
            if first & CONTROL_BIT:
                stop = start + length
                if key is not None:
                    payload = data[start:stop]
                    if key:
                        payload = xor(payload, key)
                    self._take_control(first & OPCODE_BITS, payload, length, events)
                    if self._done:
                        return
                if key is None or stop > end:
                    self._tail = data[position:]
                    return
                position = stop
                continue

            # The limits apply as soon as the length is known.
            if self._max_fragments is not None and self._fragments >= self._max_fragments:
                raise errors.too_many_fragments(self._max_fragments)
            if limit is not None:
                if self._compressed or first & RSV1:
                    if length > max_compressed(limit):
                        raise errors.message_too_big(limit)
                elif self._size + length > limit:
                    raise errors.message_too_big(limit)
            if key is None:
                self._tail = data[position:]
                return
            self._begin_frame(first, length, key)
            position = self._take_payload(data, start, events)

    def _take_control(self, opcode: int, payload: bytes, length: int, events: list[Any]) -> None:
        """Handle as much of a control frame's payload as has arrived."""
        if opcode == Opcode.CLOSE:
            if len(payload) < length:
                error = rules.close_payload_error(payload)
                if error is not None:
                    raise error
                return
            close = rules.parse_close(payload)
            if isinstance(close, ProtocolError):
                raise close
            events.append(close)
            self._no_messages += 1
            self._finish()
        elif len(payload) == length:
            if opcode == Opcode.PING:
                events.append(Ping(payload))
                self._pings_seen += 1
            else:
                events.append(Pong(payload))
                self._pongs_seen += 1
            self._no_messages += 1
            self._only_messages = False
            self._step_left -= CONTROL_COST

    def _begin_frame(self, first: int, length: int, key: bytes) -> None:
        opcode = first & OPCODE_BITS
        if opcode:
            self._opcode = opcode
            self._compressed = first & RSV1 != 0
            self._decodes = opcode == Opcode.TEXT and self._decode_text
            if opcode == Opcode.TEXT:
                self._utf8 = Utf8Validator()
        self._fin = first & FIN != 0
        self._key = key
        self._remaining = length
        if not self._compressed:
            self._size += length
        self._fragments += 1

    def _take_payload(self, data: bytes, position: int, events: list[Any]) -> int:
        """Add as much of the frame's payload as has arrived; return where it ends."""
        size = min(self._remaining, len(data) - position)
        if self._compressed:
            size = 0 if self._more else min(size, INFLATE_PIECE)
        else:
            self._payload_seen += size
        piece = data[position : position + size]
        if self._key:
            piece = xor(piece, self._key)
            self._key = rotate(self._key, size)
        self._remaining -= size
        complete = self._fin and not self._remaining
        if self._stream:
            self._take_parts(piece, complete, events)
            if not self._fin and not self._remaining and not self._more:
                self._fragments_seen += 1
            return position + size
        if self._compressed:
            assert self._inflater is not None
            self._inflating = True
            try:
                piece = self._inflater.inflate(piece, self._budget(), complete)
            finally:
                self._inflating = False
            self._step_left -= max(len(piece), size * INFLATE_BYTE_COST) + INFLATE_PIECE_COST
        text = None if self._utf8 is None else self._utf8._decode(piece)
        if text is None and self._utf8 is not None:
            raise errors.text_not_utf8()
        if self._compressed:
            self._grow(len(piece))
        if complete and self._utf8 is not None and not self._utf8.complete:
            raise errors.text_not_utf8()
        if text is None or not self._decodes:
            if self._buffer is None and not complete:
                self._buffer = BytesIO()
            if self._buffer is not None:
                self._buffer.write(piece)
            if complete:
                payload = piece if self._buffer is None else self._buffer.getvalue()
                events.append(payload if text is None else valid_text(payload))
        else:
            if self._text is None and not complete:
                # A list would contain a str per byte if the peer sends one byte at a time.
                self._text = StringIO(newline="")
            if self._text is not None:
                self._text.write(text)
            if complete:
                if self._text is not None:
                    text = self._text.getvalue()
                if self._compressed:
                    # A str may take four times as much as its UTF-8.
                    self._step_left -= max(memory_of(text) - self._size, 0)
                events.append(text)
        if complete:
            self._reset_message()
        elif not self._remaining:
            self._fragments_seen += 1
        return position + size

    def _take_parts(self, piece: bytes, last: bool, events: list[Any]) -> None:
        """Pass on a piece of the message."""
        self._add_part(self._inflate_part(piece, last), last, events)
        while self._more and self._step_left > 0:
            self._add_part(self._inflate_part(b"", last), last, events)

    def _inflate_part(self, piece: bytes, last: bool) -> bytes:
        if not self._compressed:
            return piece
        budget, self._inflating = self._budget(), True
        limit = INFLATE_PART if budget is None else min(budget + 1, INFLATE_PART)
        try:
            inflated, self._more = self._inflater.inflate_part(piece, limit, last)
        finally:
            self._inflating = False
        cost = max(len(inflated), len(piece) * INFLATE_BYTE_COST)
        self._step_left -= cost + INFLATE_PIECE_COST
        return inflated  # type: ignore[no-any-return]

    def _add_part(self, octets: bytes, last: bool, events: list[Any]) -> None:
        part: str | Text | bytes = octets
        if self._utf8 is not None:
            text = self._utf8._decode(octets)
            if text is None:
                raise errors.text_not_utf8()
            part = text if self._decodes else valid_text(text.encode())
        if self._compressed:
            self._grow(len(octets))
        complete = last and not self._more
        if complete and self._utf8 is not None and not self._utf8.complete:
            raise errors.text_not_utf8()
        if not complete:
            if not part:
                return
            events.append(None)
            self._no_messages += 2
        if self._compressed and self._decodes:
            # A str may take four times as much as its UTF-8.
            self._step_left -= memory_of(part) - len(part)
        events.append(part)
        if complete:
            self._reset_message()

    def _grow(self, size: int) -> None:
        """Add to the size of a compressed message, and check the limit."""
        budget = self._budget()
        if budget is not None and size > budget:
            assert self._max_message_size is not None
            raise errors.message_too_big(self._max_message_size)
        self._size += size
        self._payload_seen += size

    def _budget(self) -> int | None:
        """Return how many more bytes the message may have; None if there is no limit."""
        return None if self._max_message_size is None else self._max_message_size - self._size

    def _reset_message(self) -> None:
        self._opcode = self._size = self._fragments = 0
        self._compressed = False
        self._utf8 = self._text = self._buffer = None

    def _finish(self) -> None:
        """Decode nothing more, and release the data that was kept."""
        self._done = True
        self._more = self._only_messages = False
        self._remaining = 0
        self._tail = self._rest = b""
        self._reset_message()


class MessageEncoder:
    """Encodes messages and control frames into one buffer.

    Each method appends a frame and returns the size of the buffer. `take` returns the whole
    buffer, so that many small messages can be sent in one write. A client passes a new,
    unpredictable mask key to each call (RFC 6455 §5.3); a server passes none.
    """

    __slots__ = (
        "_buffers",
        "_bytes_taken",
        "_in_message",
        "_messages_made",
        "_others_made",
        "_parts",
        "_payload_made",
        "_pings_made",
        "_pongs_made",
        "_size",
        "_utf8",
    )

    def __init__(self) -> None:
        self._buffers: list[bytes] | None = None  # complete ones; None if there are none
        self._parts: list[bytes] = []  # the parts of the next buffer
        self._size = 0
        self._in_message = False
        # Checks the fragments of a message that `text_bytes` has begun.
        self._utf8: Utf8Validator | None = None
        # Counts since the beginning: see `_counts`. (Others are close frames and the fragments
        # with which a message does not end.)
        self._bytes_taken = self._payload_made = self._messages_made = 0
        self._others_made = self._pings_made = self._pongs_made = 0

    def __len__(self) -> int:
        """Return the number of bytes that `take` would return."""
        return self._size

    def text(self, message: str | Text, key: Buffer | None = None, *, fin: bool = True) -> int:
        """Append a text message, or with `fin=False` its first fragment.

        Raises:
            TypeError: if `message` is neither a str nor a Text, or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long or `message` has lone surrogates.
            StateError: if a fragmented message is not finished.
        """
        if isinstance(message, Text):
            octets = as_bytes(message.data)
        elif isinstance(message, str):
            octets = str.encode(message)
        else:
            raise errors.str_required(message)
        return self._append_data(_TEXT | (FIN if fin else 0), octets, key)

    def text_bytes(self, data: Buffer, key: Buffer | None = None, *, fin: bool = True) -> int:
        """Append a text message that is given in UTF-8, or with `fin=False` its first fragment.

        Fragments may be cut inside of a character. Those that `continuation` appends are checked,
        too.

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is not UTF-8, or `key` is not 4 bytes long.
            StateError: if a fragmented message is not finished.
        """
        last = FIN if fin else 0
        octets = as_bytes(data)
        utf8 = _checked(None, octets, last)
        size = self._append_data(_TEXT | last, octets, key)
        self._utf8 = None if last else utf8
        return size

    def binary(self, message: Buffer, key: Buffer | None = None, *, fin: bool = True) -> int:
        """Append a binary message, or with `fin=False` its first fragment.

        Raises:
            TypeError: if `message` or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long.
            StateError: if a fragmented message is not finished.
        """
        return self._append_data(_BINARY | (FIN if fin else 0), as_bytes(message), key)

    def continuation(
        self, fragment: str | Buffer | Text, key: Buffer | None = None, *, fin: bool = True
    ) -> int:
        """Append another fragment of a message, by default its last.

        Raises:
            TypeError: if `fragment` is neither a str nor bytes-like, or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long, `fragment` has lone surrogates, or
                `text_bytes` has begun the message and this is not UTF-8.
            StateError: if there is no fragmented message to continue.
        """
        if isinstance(fragment, Text):
            fragment = fragment.data
        octets = str.encode(fragment) if isinstance(fragment, str) else as_bytes(fragment)
        last = FIN if fin else 0
        utf8 = None if self._utf8 is None else _checked(self._utf8, octets, last)
        size = self._append_data(last, octets, key)
        self._utf8 = None if last else utf8
        return size

    def ping(self, data: Buffer = b"", key: Buffer | None = None) -> int:
        """Append a ping with at most 125 bytes of data (RFC 6455 §5.5.2).

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is too long or `key` is not 4 bytes long.
        """
        return self.frame(Opcode.PING, data, key=key)

    def pong(self, data: Buffer = b"", key: Buffer | None = None) -> int:
        """Append a pong with at most 125 bytes of data (RFC 6455 §5.5.3).

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is too long or `key` is not 4 bytes long.
        """
        return self.frame(Opcode.PONG, data, key=key)

    def close(self, code: int | None = None, reason: str = "", key: Buffer | None = None) -> int:
        """Append a close frame (RFC 6455 §5.5.1).

        Args:
            code: a close code that may be sent (§7.4); None for an empty frame.
            reason: at most 123 bytes in UTF-8; must be empty without a code.
            key: the mask key.

        Raises:
            TypeError: if `code` is not an int, `reason` is not a str or `key` is not bytes-like.
            ValueError: if the code may not be sent, the reason is too long, has no code or has
                lone surrogates, or `key` is not 4 bytes long.
        """
        return self.frame(Opcode.CLOSE, rules.close_payload(code, reason), key=key)

    def frame(
        self,
        opcode: int,
        payload: Buffer = b"",
        *,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
        key: Buffer | None = None,
    ) -> int:
        """Append any frame; see `encode_frame` for the arguments and errors.

        Raises:
            StateError: if a data frame must not come next (RFC 6455 §5.4).
        """
        opcode = Opcode(opcode)
        octets = as_bytes(payload)
        if opcode & CONTROL_BIT:
            size = self._append(
                encode_frame(opcode, octets, fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3, key=key)
            )
            if opcode == Opcode.PING:
                self._pings_made += 1
            elif opcode == Opcode.PONG:
                self._pongs_made += 1
            else:
                self._others_made += 1
            return size
        first = opcode | rsv_bits(rsv1, rsv2, rsv3) | (FIN if fin else 0)
        return self._append_data(first, octets, key)

    def raw(self, frames: Buffer) -> int:
        """Append complete messages or control frames that `encode_frame` has encoded.

        Raises:
            TypeError: if `frames` is not bytes-like.
        """
        return self._append(as_bytes(frames))

    def take(self) -> bytes:
        """Return everything appended since the last call."""
        return b"".join(self.take_buffers())

    def take_buffers(self) -> list[bytes]:
        """Like `take`, but without copying large payloads.

        Returns:
            the buffers to send, in order. How many there are is unspecified.
        """
        buffers, self._buffers = self._buffers or [], None
        if self._parts:
            buffers.append(b"".join(self._parts))
            self._parts.clear()
        self._bytes_taken += self._size
        self._size = 0
        return buffers

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    # For `Connection`. If it is compiled, it calls these in C.

    # The other twin's buffers are bytes, or iterators over what to write: bytes and memoryviews.
    _take_all = take_buffers

    def _take_only(self) -> bytes | None:
        """Return everything appended since the last call, if it is one buffer; b"" if there is
        nothing; None if there are more buffers, which `_take_all` returns."""
        if self._buffers is not None:
            return None
        octets = b"".join(self._parts)
        self._parts.clear()
        self._bytes_taken += self._size
        self._size = 0
        return octets

    def _whole_frame(self, frame: bytes) -> int:
        """Append a message that is one encoded frame. It is not copied if it is all that is
        taken."""
        if self._in_message:
            raise errors.in_message()
        self._messages_made += 1
        self._payload_made += len(frame) - _header_size(frame)
        return self._append(frame)

    def _counts(self) -> tuple[int, int, int, int, int, int]:
        """Return what was encoded so far, without `raw`: complete messages, frames, bytes that were
        taken (also of `raw`), bytes of the messages' payloads, pings, pongs."""
        messages, pings, pongs = self._messages_made, self._pings_made, self._pongs_made
        frames = messages + self._others_made + pings + pongs
        return messages, frames, self._bytes_taken, self._payload_made, pings, pongs

    def _join(self, buffers: list[bytes]) -> bytes:
        """Return buffers that `_take_all` has returned, in one piece."""
        return b"".join(buffers)

    def _whole_text(self, message: str, key: bytes | None) -> int:
        """Append a text message; its type must be exactly str."""
        return self._append_data(_WHOLE_TEXT, message.encode(), key)

    def _whole_utf8(self, message: Text, key: bytes | None) -> int:
        """Append a text message; its type must be exactly Text."""
        return self._append_data(_WHOLE_TEXT, as_bytes(message.data), key)

    def _whole_binary(self, message: bytes, key: bytes | None) -> int:
        """Append a binary message; its type must be exactly bytes."""
        return self._append_data(_WHOLE_BINARY, message, key)

    def _append_data(self, first: int, octets: bytes, key: Buffer | None) -> int:
        """Append a data frame, if it may come next (RFC 6455 §5.4)."""
        if key is not None:
            key = rotate(as_bytes(key), 0)
        continues = not first & OPCODE_BITS
        if self._in_message is not continues:
            raise errors.in_message() if self._in_message else errors.not_in_message()
        size = len(octets)
        if key is not None:
            head = write_header(first, size, MASK) + key
            self._parts += head, xor(octets, key)
        else:
            head = write_header(first, size, 0)
            if size < _NOT_COPIED:
                self._parts += head, octets
            else:
                if self._buffers is None:
                    self._buffers = []
                self._buffers += b"".join([*self._parts, head]), octets
                self._parts.clear()
        self._in_message = not first & FIN
        if first & FIN:
            self._messages_made += 1
        else:
            self._others_made += 1
        self._payload_made += size
        self._utf8 = None
        self._size += len(head) + size
        return self._size

    def _append(self, encoded: bytes) -> int:
        self._parts.append(encoded)
        self._size += len(encoded)
        return self._size


def _header_size(frame: bytes) -> int:
    """Return the size of the header of an encoded frame that is not masked."""
    length = frame[1]
    if length < LENGTH_16:
        return 2
    return 4 if length == LENGTH_16 else 10


def _decode_text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise errors.text_not_utf8() from None


def _checked(before: Utf8Validator | None, octets: bytes, last: int) -> Utf8Validator:
    """Return a validator of a fragment and those before it, which are valid."""
    utf8 = Utf8Validator()
    if before is not None:
        utf8._decoder.setstate(before._decoder.getstate())
    if not utf8.feed(octets) or (last and not utf8.complete):
        raise errors.utf8_required()
    return utf8
