"""What captured bytes mean: HTTP heads, frames and messages, and the rules that they break.

This module knows how to read the two directions of a connection leniently: each violation is
named, and reading goes on while it is clear where the next frame begins. (`MessageDecoder` stops
at the first violation, and shows no frames.) It does not know where the bytes come from, or how
the results are printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fastws import errors, rules
from fastws.codec import Utf8Validator, apply_mask
from fastws.deflate import Agreement, Inflater, PerMessageDeflate
from fastws.exceptions import HandshakeError, InvalidPayloadError, ProtocolError
from fastws.extensions import parse_extensions
from fastws.handshake import ServerHandshake, accept_key
from fastws.heads import HeadError, ResponseReader
from fastws.spec import (
    CONTROL_BIT,
    FIN,
    LENGTH_16,
    LENGTH_64,
    LENGTH_BITS,
    MASK,
    MASK_KEY_SIZE,
    MAX_16_BIT_LENGTH,
    MAX_CONTROL_PAYLOAD,
    OPCODE_BITS,
    RSV1,
    RSV2,
    RSV3,
    RSV_BITS,
    Opcode,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastws.events import Close
    from fastws.http import Request

__all__ = ["Conversation", "Frame", "Head", "Item", "Message", "Rest", "Violation"]

_OPCODES: Final = frozenset(Opcode)
_RSV_NAMES: Final = ((RSV1, "RSV1"), (RSV2, "RSV2"), (RSV3, "RSV3"))
# What is taken for agreed on if nobody knows.
_ASSUMED: Final = "permessage-deflate"
# What one message may inflate to, in bytes, before the rest of it is not shown.
_MAX_INFLATED: Final = 64 << 20
# What an HTTP head may have; more than any server accepts.
_MAX_HEAD: Final = 1 << 20
_MAX_FIELDS: Final = 1000
# Methods, and what begins a response. No valid frame begins with these letters: their first bytes
# would be reserved opcodes.
_HEADS: Final = tuple(
    f"{word}{end}".encode()
    for words, end in (
        (("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"), " "),
        (("HTTP",), "/"),
    )
    for word in words
)


class Violation(NamedTuple):
    """A rule that was broken.

    Attributes:
        section: where the rule stands, as in "RFC 6455 §5.1".
        text: what is wrong.
        close_code: the code that closes the connection; None in the opening handshake.
    """

    section: str
    text: str
    close_code: int | None


@dataclass(kw_only=True)
class Item:
    """A part of one direction.

    Attributes:
        sender: who sent it.
        offset: the number of bytes before it, in this direction.
        violations: the rules that it breaks.
    """

    sender: Role
    offset: int
    violations: list[Violation] = field(default_factory=list)


@dataclass(kw_only=True)
class Head(Item):
    """A request or a response.

    Attributes:
        octets: all bytes, with the blank line at the end.
    """

    octets: bytes


@dataclass(kw_only=True)
class Message:
    """A message, which its last frame completes.

    Attributes:
        opcode: TEXT or BINARY.
        payload: the message, inflated.
        compressed_size: the size of the compressed payload; None if it was not compressed.
        is_whole: whether all of it was inflated.
        frames: the number of its frames.
    """

    opcode: Opcode
    payload: bytes
    compressed_size: int | None
    is_whole: bool
    frames: int


@dataclass(kw_only=True)
class Frame(Item):
    """A frame, as much of it as was captured.

    Attributes:
        header: the bytes before the mask key.
        key: the mask key; empty if there is none.
        length: the length that the header announces.
        octets: the payload as it was sent.
        payload: the payload, unmasked.
        message: the message that ends here, if one does.
        close: what the close frame says, if this is one and valid.
    """

    header: bytes
    key: bytes
    length: int
    octets: bytes
    payload: bytes
    message: Message | None = None
    close: Close | None = None

    @property
    def opcode(self) -> int:
        """The frame type; it may be a reserved one."""
        return self.header[0] & OPCODE_BITS

    @property
    def is_complete(self) -> bool:
        """Whether the whole payload was captured."""
        return len(self.octets) == self.length


@dataclass(kw_only=True)
class Rest(Item):
    """Bytes that are not read.

    Attributes:
        size: how many there are.
        reason: why they are not read.
    """

    size: int
    reason: str


class Conversation:
    """Both directions of one connection, which may begin anywhere.

    Args:
        extensions: the value of Sec-WebSocket-Extensions that both ends agreed on; "" for none.
            By default it is taken from the response. If that was not captured, data frames with
            RSV1 are read as compressed.

    Raises:
        ValueError: if `extensions` is not a valid value.
    """

    def __init__(self, extensions: str | None = None) -> None:
        self.request: Request | None = None
        self.is_refused = False
        self._agreements: dict[Role, Agreement] | None = None
        self.agree([_ASSUMED] if extensions is None else [extensions])
        self._is_fixed = extensions is not None
        self._readers: dict[Role, _Reader] = {}

    def feed(self, sender: Role, data: bytes) -> Iterator[Item]:
        """Read more of what one end sent, and yield what is complete."""
        if sender not in self._readers:
            self._readers[sender] = _Reader(self, sender)
        return self._readers[sender].feed(data)

    def end(self) -> Iterator[Item]:
        """Yield what is incomplete. Nothing more was captured."""
        for reader in self._readers.values():
            yield from reader.end()

    # For the readers ------------------------------------------------------------------

    def agree(self, values: list[str]) -> None:
        """Learn the extensions, from the fields of the response.

        Raises:
            ValueError: if they are malformed, or not permessage-deflate.
        """
        agreements: dict[Role, Agreement] = {}
        for name, params in parse_extensions(values):
            if name != "permessage-deflate" or agreements:
                raise ValueError(f"not an extension that can be read: {name}")
            ours = PerMessageDeflate(max_window_bits=15)
            agreement = ours.accept_response(params)
            agreements[Role.SERVER] = agreement
            # What the server learned about the client.
            agreements[Role.CLIENT] = Agreement(
                role=Role.SERVER,
                config=ours,
                context_takeover=agreement.peer_context_takeover,
                peer_context_takeover=agreement.context_takeover,
                max_window_bits=15,
                peer_max_window_bits=agreement.max_window_bits,
            )
        self._agreements = agreements

    def learn(self, values: list[str]) -> None:
        """The same, unless the user has said what was agreed on."""
        if not self._is_fixed:
            self.agree(values)

    def agreement(self, sender: Role) -> Agreement | None:
        """Return how this end's messages are compressed; None if they are not."""
        assert self._agreements is not None
        return self._agreements.get(sender)


class _Reader:
    """Reads one direction."""

    def __init__(self, conversation: Conversation, sender: Role) -> None:
        self._conversation = conversation
        self._sender = sender
        self._buffer = bytearray()
        self._needed = 0  # the size of the buffer at which to try again
        self._offset = 0  # of the buffer's first byte
        self._at_start = True
        self._ended: str | None = None  # why nothing more is read
        self._is_closed = False
        # The message that is not finished.
        self._first: int | None = None  # the first byte of its first frame
        self._pieces = bytearray()
        self._compressed_size = 0
        self._frames = 0
        self._utf8: Utf8Validator | None = None  # None: it is binary, or known to be wrong
        self._is_cut = False  # whether the rest of it is not inflated
        # Compressed messages refer to those before: after a corrupt one, none can be inflated.
        self._inflater: Inflater | None = None
        self._cannot_inflate = False

    def feed(self, data: bytes) -> Iterator[Item]:
        self._buffer += data
        while self._ended is None and self._buffer and len(self._buffer) >= self._needed:
            if self._at_start and self._buffer[:1].isupper():
                item: Item | None = self._read_head()
            else:
                item = self._read_frame(at_end=False)
            if item is None:
                return
            yield item

    def end(self) -> Iterator[Item]:
        if self._ended is None and self._buffer:
            if self._at_start and self._may_be_head():
                self._ended = "an HTTP head that is not complete"
            else:
                yield self._read_frame(at_end=True) or self._rest("the beginning of a header")
        if self._buffer:
            yield self._rest(self._ended or "the rest of the capture")

    def _rest(self, reason: str) -> Rest:
        size = len(self._buffer)
        return Rest(sender=self._sender, offset=self._take(size)[0], size=size, reason=reason)

    def _take(self, size: int) -> tuple[int, bytes]:
        """Take bytes from the buffer; return their offset, and them."""
        octets = bytes(self._buffer[:size])
        del self._buffer[:size]
        offset, self._offset = self._offset, self._offset + len(octets)
        self._needed = 0
        return offset, octets

    # The opening handshake (§4) ---------------------------------------------------------

    def _may_be_head(self) -> bool:
        size = len(self._buffer)
        return any(self._buffer.startswith(start[:size]) for start in _HEADS)

    def _read_head(self) -> Item | None:
        if not self._may_be_head():
            self._at_start = False
            return self._read_frame(at_end=False)
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                self._ended = "an HTTP head of more than 1 MiB"
            return None
        offset, octets = self._take(end + 4)
        head = Head(sender=self._sender, offset=offset, octets=octets)
        if octets.startswith(b"HTTP/"):
            self._check_response(head)
        else:
            self._at_start = False
            self._check_request(head)
        return head

    def _check_request(self, head: Head) -> None:
        handshake = ServerHandshake(max_header_size=_MAX_HEAD, max_headers=_MAX_FIELDS)
        try:
            request = handshake.receive_data(head.octets)
            assert request is not None  # it ends with a blank line
            self._conversation.request = request
            handshake.accept(request)
        except HandshakeError as exc:
            head.violations.append(Violation("RFC 6455 §4.2.1", str(exc), None))

    def _check_response(self, head: Head) -> None:
        def wrong(section: str, text: str) -> None:
            head.violations.append(Violation(section, text, None))

        reader = ResponseReader(_MAX_HEAD, _MAX_FIELDS)
        reader.receive_data(head.octets)
        try:
            result = reader.next_response()
        except HeadError as exc:
            wrong("RFC 9112", str(exc))
            result = None
        if result is None:
            self._refuse("not a valid response")
            return
        response, _ = result
        if response.status != 101:
            if response.status >= 200:
                self._refuse(f"the server answered {response.status}")
            return
        self._at_start = False
        headers = response.headers
        for name, member in (("Upgrade", "websocket"), ("Connection", "upgrade")):
            if member not in [token.lower() for token in headers.tokens(name)]:
                wrong("RFC 6455 §4.2.2", f"{name} does not say {member}")
        request = self._conversation.request
        if request is not None:
            keys = request.headers.get_all("Sec-WebSocket-Key")
            if headers.get_all("Sec-WebSocket-Accept") != [accept_key(key) for key in keys]:
                wrong("RFC 6455 §4.2.2", "Sec-WebSocket-Accept does not answer the key")
        try:
            self._conversation.learn(headers.get_all("Sec-WebSocket-Extensions"))
        except ValueError as exc:
            wrong("RFC 6455 §9.1", str(exc))

    def _refuse(self, reason: str) -> None:
        self._ended = reason
        self._conversation.is_refused = True

    # Frames (§5.2) ----------------------------------------------------------------------

    def _read_frame(self, at_end: bool) -> Item | None:
        """Read a frame; at the end of the capture, as much of it as there is."""
        self._at_start = False
        if self._conversation.is_refused:
            self._ended = "the opening handshake failed"
            return None
        header = self._read_header()
        if header is None:
            return None
        size, length, violations = header
        start = size + (MASK_KEY_SIZE if self._buffer[1] & MASK else 0)
        is_lost = length >> 63
        stop = start if is_lost else start + length
        if len(self._buffer) < stop and not at_end:
            self._needed = stop
            return None
        if is_lost:
            self._ended = "it is not known where the next frame begins"
        offset, octets = self._take(stop)
        key, data = octets[size:start], octets[start:]
        frame = Frame(
            sender=self._sender,
            offset=offset,
            header=octets[:size],
            key=key,
            length=length,
            octets=data,
            payload=apply_mask(data, key) if len(key) == MASK_KEY_SIZE else data,
            violations=violations,
        )
        if self._is_closed:
            self._wrong(frame, "§5.5.1", ProtocolError("frame after a close frame"))
        if self._ended is None:
            if frame.opcode & CONTROL_BIT:
                self._check_control(frame)
            else:
                self._add_fragment(frame)
        return frame

    def _wrong(self, frame: Frame, section: str, error: ProtocolError) -> None:
        where = section if section.startswith("RFC") else f"RFC 6455 {section}"
        frame.violations.append(Violation(where, str(error), error.close_code))

    def _read_header(self) -> tuple[int, int, list[Violation]] | None:
        """Return the size of the header without the key, the payload's length and what is wrong;
        None if the header is not complete."""
        data = self._buffer
        if len(data) < 2:
            return None
        first, second = data[0], data[1]
        wrong: list[tuple[str, ProtocolError]] = []
        opcode = first & OPCODE_BITS
        is_first = opcode in (Opcode.TEXT, Opcode.BINARY)
        # RFC 7692 §6: RSV1 belongs to the first frame of a compressed message.
        agreed = RSV1 if is_first and self._conversation.agreement(self._sender) else 0
        refused = first & RSV_BITS & ~agreed
        if refused:
            names = [name for bit, name in _RSV_NAMES if refused & bit]
            wrong.append(("§5.2", errors.reserved_bits(" ".join(names))))
        if opcode not in _OPCODES:
            wrong.append(("§5.2", errors.reserved_opcode(opcode)))
        elif opcode & CONTROL_BIT:
            if not first & FIN:
                wrong.append(("§5.5", errors.fragmented_control(opcode)))
        elif is_first and self._first is not None:
            wrong.append(("§5.4", errors.message_not_finished(opcode)))
        elif not is_first and self._first is None:
            wrong.append(("§5.4", errors.nothing_to_continue()))
        masked = bool(second & MASK)
        if masked is not (self._sender is Role.CLIENT):
            wrong.append(("§5.1", errors.masked() if masked else errors.unmasked()))
        size, length = 2, second & LENGTH_BITS
        if length >= LENGTH_16:
            size += 2 if length == LENGTH_16 else 8
            if len(data) < size:
                return None
            least = MAX_CONTROL_PAYLOAD if length == LENGTH_16 else MAX_16_BIT_LENGTH
            is_64 = length == LENGTH_64
            length = int.from_bytes(data[2:size], "big")
            if length <= least:
                wrong.append(("§5.2", errors.length_not_minimal(length)))
            if is_64 and data[2] & 0x80:
                wrong.append(("§5.2", errors.length_top_bit()))
        if opcode in _OPCODES and opcode & CONTROL_BIT and length > MAX_CONTROL_PAYLOAD:
            wrong.append(("§5.5", errors.control_too_long(opcode)))
        if opcode == Opcode.CLOSE and length == 1:
            wrong.append(("§5.5.1", errors.close_payload_of_one_byte()))
        violations = [
            Violation(f"RFC 6455 {section}", str(error), error.close_code)
            for section, error in wrong
        ]
        return size, length, violations

    # Payloads ---------------------------------------------------------------------------

    def _check_control(self, frame: Frame) -> None:
        if frame.opcode != Opcode.CLOSE:
            return
        self._is_closed = True
        if not frame.is_complete or frame.length > MAX_CONTROL_PAYLOAD or frame.length == 1:
            return
        parsed = rules.parse_close(frame.payload)
        if not isinstance(parsed, ProtocolError):
            frame.close = parsed
        elif isinstance(parsed, InvalidPayloadError):
            self._wrong(frame, "§5.5.1", parsed)
        else:
            self._wrong(frame, "§7.4", parsed)

    def _add_fragment(self, frame: Frame) -> None:
        """Add the frame to its message."""
        first = frame.header[0]
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._first, self._frames, self._compressed_size = first, 0, 0
            self._pieces.clear()
            self._utf8 = Utf8Validator() if frame.opcode == Opcode.TEXT else None
            self._is_cut = False
        elif frame.opcode != Opcode.CONTINUATION or self._first is None:
            return
        self._frames += 1
        is_last = bool(first & FIN) and frame.is_complete
        is_compressed = bool(self._first & RSV1)
        piece = self._inflate(frame, is_last) if is_compressed else frame.payload
        self._compressed_size += len(frame.payload)
        self._pieces += piece
        utf8 = None if self._is_cut else self._utf8
        if utf8 is not None and not (utf8.feed(piece) and (utf8.complete or not is_last)):
            self._utf8 = None
            self._wrong(frame, "§8.1", errors.text_not_utf8())
        if is_last:
            frame.message = Message(
                opcode=Opcode(self._first & OPCODE_BITS),
                payload=bytes(self._pieces),
                compressed_size=self._compressed_size if is_compressed else None,
                is_whole=not self._is_cut,
                frames=self._frames,
            )
            self._first = None
            self._pieces.clear()

    def _inflate(self, frame: Frame, is_last: bool) -> bytes:
        if self._is_cut or self._cannot_inflate:
            self._is_cut = True
            return b""
        if self._inflater is None:
            agreement = self._conversation.agreement(self._sender)
            if agreement is None:  # RSV1 is a violation, and means nothing
                self._is_cut = True
                return b""
            self._inflater = Inflater(agreement)
        budget = _MAX_INFLATED - len(self._pieces)
        try:
            piece = self._inflater.inflate(frame.payload, budget, is_last)
        except InvalidPayloadError as exc:
            self._is_cut = self._cannot_inflate = True
            self._wrong(frame, "RFC 7692 §7.2.2", exc)
            return b""
        if len(piece) > budget:  # the inflater cannot be used any more
            self._is_cut = self._cannot_inflate = True
        return piece
