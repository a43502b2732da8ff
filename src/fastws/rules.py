"""The rules of RFC 6455 that are not checked on the hot path, written once for both twins.

This module knows which header bytes, control payloads and arguments are acceptable and which
error is due for the others. It does not know where the bytes come from, nor what a message is.
Functions that check the peer's bytes return an error; functions that check the application's
arguments raise it.
"""

from __future__ import annotations

import sys
from codecs import utf_8_decode
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any

from . import errors
from .closing import Ending
from .events import Close, MessagePart, Text
from .spec import (
    CONTROL_BIT,
    FIN,
    LENGTH_16,
    LENGTH_64,
    LENGTH_BITS,
    MASK,
    MASK_KEY_SIZE,
    MAX_CLOSE_REASON,
    MAX_CONTROL_PAYLOAD,
    OPCODE_BITS,
    RSV1,
    RSV2,
    RSV3,
    RSV_BITS,
    CloseCode,
    Opcode,
    may_travel,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .events import Event
    from .exceptions import ProtocolError

# PyPy cannot tell the size of an object; it stores a str as UTF-8.
_KNOWS_SIZES = sys.implementation.name == "cpython"

_OPCODES = frozenset(Opcode)
_RSV_NAMES = ((RSV1, "RSV1"), (RSV2, "RSV2"), (RSV3, "RSV3"))

# What the peer sent: headers ---------------------------------------------------
#
# The checks go byte by byte, so that a violation is found at the first byte that proves it, and
# the error is the same no matter how the stream is split into pieces.


def first_byte_error(byte: int, rsv: int, in_message: bool | None) -> ProtocolError | None:
    """Check the first byte of a frame; return the error, or None.

    Args:
        byte: FIN, RSV1-3 and the opcode.
        rsv: the RSV bits that a negotiated extension uses.
        in_message: whether a fragmented message has begun and is not finished; None if the
            order of frames does not matter.
    """
    opcode = byte & OPCODE_BITS
    # §5.2: "MUST be 0 unless an extension is negotiated that defines meanings";
    # RFC 7692 §6.1: RSV1 belongs to the first frame of a data message only.
    if opcode == Opcode.CONTINUATION or opcode & CONTROL_BIT:
        rsv &= ~RSV1
    refused = byte & RSV_BITS & ~rsv
    if refused:
        return errors.reserved_bits(" ".join(name for bit, name in _RSV_NAMES if refused & bit))
    if opcode not in _OPCODES:
        return errors.reserved_opcode(opcode)
    if opcode & CONTROL_BIT:
        # §5.5: "All control frames [...] MUST NOT be fragmented."
        return None if byte & FIN else errors.fragmented_control(opcode)
    # §5.4: the fragments of one message follow each other.
    if in_message is True and opcode != Opcode.CONTINUATION:
        return errors.message_not_finished(opcode)
    if in_message is False and opcode == Opcode.CONTINUATION:
        return errors.nothing_to_continue()
    return None


@cache
def good_first_bytes(rsv: int, in_message: bool | None) -> bytes:
    """Return a table of all first bytes: 1 if `first_byte_error` accepts the byte, else 0."""
    return bytes(first_byte_error(byte, rsv, in_message) is None for byte in range(256))


def second_byte_error(first: int, byte: int, masked: bool | None) -> ProtocolError | None:
    """Check the second byte of a frame: the MASK bit and the 7-bit length.

    Args:
        first: the frame's first byte, which must be valid.
        byte: the second byte.
        masked: whether the peer must mask (True: it is a client), must not (False), or
            may do either (None).
    """
    # §5.1: a client masks every frame; a server masks none.
    if masked is True and not byte & MASK:
        return errors.unmasked()
    if masked is False and byte & MASK:
        return errors.masked()
    opcode = first & OPCODE_BITS
    if opcode & CONTROL_BIT:
        length = byte & LENGTH_BITS
        if length > MAX_CONTROL_PAYLOAD:
            return errors.control_too_long(opcode)
        # §5.5.1: if there is a body, it begins with a 2-byte code.
        if opcode == Opcode.CLOSE and length == 1:
            return errors.close_payload_of_one_byte()
    return None


# What the peer sent: compressed messages ------------------------------------------


def measure_frame(beginning: bytes | bytearray) -> tuple[int, int] | None:
    """Return the sizes of a frame's header, with its mask key, and of its payload, in bytes,
    whatever is wrong with them; None if these bytes do not tell yet (RFC 6455 §5.2)."""
    if len(beginning) < 2:
        return None
    size, length = 2, beginning[1] & LENGTH_BITS
    if length >= LENGTH_16:
        size += 8 if length == LENGTH_64 else 2
        if len(beginning) < size:
            return None
        length = int.from_bytes(beginning[2:size], "big")
    return size + (MASK_KEY_SIZE if beginning[1] & MASK else 0), length


def max_compressed(max_message_size: int) -> int:
    """Return the maximum size of a frame of a compressed message, in bytes.

    DEFLATE makes incompressible data larger: zlib by an eighth, isal's level 0 by half. No code
    for a byte is longer than 15 bits, and the overhead is small. So a longer frame contains a
    message that is too big, or wastes space on purpose.
    """
    return 2 * max_message_size + 1024


# What the peer sent: close frames ---------------------------------------------------


def close_payload_error(payload: bytes) -> ProtocolError | None:
    """Check the first bytes of a close frame's payload. Fewer than 2 are never an error."""
    if len(payload) < 2:
        return None
    code = int.from_bytes(payload[:2], "big")
    if not may_travel(code):
        return errors.close_code_may_not_travel(code)
    try:
        # Not final: an incomplete code point at the end may still become valid.
        _, decoded = utf_8_decode(payload[2:], "strict", False)
    except UnicodeDecodeError:
        return errors.reason_not_utf8()
    return errors.reason_not_utf8() if begins_surrogate(payload[2 + decoded :]) else None


def parse_close(payload: bytes) -> Close | ProtocolError:
    """Parse the complete payload of a close frame (RFC 6455 §5.5.1)."""
    if not payload:
        return Close(CloseCode.NO_STATUS_RCVD.value)
    error = close_payload_error(payload)
    if error is not None:
        return error
    try:
        return Close(int.from_bytes(payload[:2], "big"), payload[2:].decode())
    except UnicodeDecodeError:
        return errors.reason_not_utf8()


def begins_surrogate(pending: bytes) -> bool:
    """Return whether the bytes that a UTF-8 decoder keeps begin a surrogate (RFC 3629 §3).

    CPython's decoder rejects a surrogate only at its third byte. It rejects all other invalid
    sequences at the first wrong byte.
    """
    return b"\xed\xa0" <= pending <= b"\xed\xbf"


# The application's arguments ------------------------------------------------------


def close_payload(code: int | None, reason: str) -> bytes:
    """Build the payload of a close frame (RFC 6455 §5.5.1).

    Args:
        code: a close code that may be sent; None for an empty payload.
        reason: at most 123 bytes in UTF-8; must be empty without a code.

    Raises:
        TypeError: if the code is not an int or the reason is not a str.
        ValueError: if the code may not be sent, the reason is too long, has no code or has
            lone surrogates.
    """
    if not isinstance(reason, str):
        raise errors.str_required(reason)
    if code is None:
        if reason:
            raise ValueError("close reason needs a close code")
        return b""
    code = index(code)
    if not may_travel(code):
        raise ValueError(f"close code {code} may not be used in a close frame")
    encoded = str.encode(reason)
    if len(encoded) > MAX_CLOSE_REASON:
        size = len(encoded)
        raise ValueError(f"close reason must be at most {MAX_CLOSE_REASON} bytes, not {size}")
    return code.to_bytes(2, "big") + encoded


def check_control(opcode: int, length: int, fin: bool) -> None:
    """Raise ValueError if RFC 6455 §5.5 forbids this control frame."""
    if not fin:
        raise ValueError("control frame must not be fragmented")
    if length > MAX_CONTROL_PAYLOAD:
        name, most = Opcode(opcode).name, MAX_CONTROL_PAYLOAD
        raise ValueError(f"payload of {name} must be at most {most} bytes, not {length}")


def check_limit(name: str, value: int | None, least: int) -> int | None:
    """Return the limit. Raise an exception unless it is an int of at least `least`, or None."""
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return int(value)


def check_limits(
    max_message_size: int | None,
    max_fragments: int | None,
    stream: bool,
    max_stream_size: int | None,
    inflater: object,
) -> tuple[int | None, int | None]:
    """Check the limits of a decoder.

    Returns:
        the maximum size of what it decodes, and of its number of frames. Memory does not depend on
        either if messages are passed on in parts, so the usual limits do not apply then.

    Raises:
        TypeError: if a limit is not an int, or the inflater cannot inflate in parts.
        ValueError: if a limit is too small, or `max_stream_size` is without `stream`.
    """
    check_limit("max_message_size", max_message_size, 0)
    check_limit("max_fragments", max_fragments, 1)
    check_limit("max_stream_size", max_stream_size, 0)
    if not stream:
        if max_stream_size is not None:
            raise ValueError("max_stream_size needs stream=True")
        return max_message_size, max_fragments
    if inflater is not None and not hasattr(inflater, "inflate_part"):
        name = type(inflater).__name__
        raise TypeError(f"inflater must have the method inflate_part(); {name!r} does not")
    return max_stream_size, None


def check_timeout(name: str, value: float | None) -> None:
    """Raise ValueError unless the timeout is positive, or None."""
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be positive or None, not {value!r}")


def make_ending(
    before: Ending | None,
    code: int | None,
    reason: str,
    error: ProtocolError | None,
    announced: bool,
    by_peer: bool | None,
) -> Ending:
    """Return how a connection ends after another step to its end.

    Args:
        before: how it ended before this step; None if it did not.
        code: the close code; None for no code.
        reason: the reason that belongs to it.
        error: the peer's violation, or None.
        announced: whether our close frame says so.
        by_peer: whether the peer's close frame is the cause; None if it is the end of the stream.
    """
    code = CloseCode.NO_STATUS_RCVD.value if code is None else index(code)
    sent = received = None
    if before is not None:
        sent, received = before.sent, before.received
    if announced:
        sent = Close(code, reason)
    if by_peer:
        received = Close(code, reason)
    if before is not None and before.by_peer is not None:
        by_peer = before.by_peer
    return Ending(code, reason, error, sent, received, by_peer)


def make_parts(events: list[Event | None]) -> list[Event]:
    """Make parts of the messages, and of the pieces of messages, that a decoder found.

    Args:
        events: what it found, in order. None comes before a piece if more of its message follows.

    Returns:
        the events. Pieces of the same message are joined, unless there is another event between
        them: a peer that sends tiny fragments must not make as many parts.
    """
    made: list[Event] = []
    pieces: list[Any] = []
    last = True
    for event in events:
        if event is None:
            last = False
            continue
        if isinstance(event, (str, bytes, Text)):
            pieces.append(event)
            if not last:
                last = True
                continue
            made.append(MessagePart(join(pieces), True))
        else:
            if pieces:
                made.append(MessagePart(join(pieces), False))
            made.append(event)
        pieces = []
    if pieces:
        made.append(MessagePart(join(pieces), False))
    return made


def join(pieces: list[Any]) -> Any:
    """Return pieces of a message as one: str, bytes or Text."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    if isinstance(first, Text):
        return Text(b"".join([piece.data for piece in pieces]))
    return type(first)().join(pieces)


def frame_repr(
    opcode: Opcode, payload: bytes, fin: bool, rsv1: bool, rsv2: bool, rsv3: bool
) -> str:
    """Return the call that creates a Frame, without the arguments that have their defaults."""
    flags = "" if fin else ", fin=False"
    for name, bit in (("rsv1", rsv1), ("rsv2", rsv2), ("rsv3", rsv3)):
        flags += f", {name}=True" if bit else ""
    return f"Frame(Opcode.{opcode.name}, {payload!r}{flags})"


def memory_of(message: str | bytes | Text | MessagePart) -> int:
    """Return how much memory a message, or a part of one, takes, in bytes.

    A str takes 1, 2 or 4 bytes for each character, depending on its widest character.
    """
    if _KNOWS_SIZES:
        return message.__sizeof__()
    return len(message.data if isinstance(message, MessagePart) else message)


def as_bytes(data: Buffer) -> bytes:
    """Return `data` as bytes, whatever its shape, format or order.

    Raises:
        TypeError: if `data` is not bytes-like.
    """
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise errors.bytes_like_required(data) from None
    with view:
        return view.tobytes()
