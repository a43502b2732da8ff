"""The rules of RFC 6455 that are checked off the hot path, written once for both twins.

This module knows which header bytes, control payloads and arguments are acceptable and
which error answers the others. It does not know where the bytes come from, nor what a
message is. A function that judges the peer returns its error; one that judges the
application raises.
"""

from __future__ import annotations

import sys
from codecs import utf_8_decode
from functools import cache
from operator import index
from typing import TYPE_CHECKING

from . import errors
from .events import Close
from .spec import (
    CONTROL_BIT,
    FIN,
    LENGTH_BITS,
    MASK,
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

    from .exceptions import ProtocolError

# PyPy does not tell how large an object is; there a str is its UTF-8.
_KNOWS_SIZES = sys.implementation.name == "cpython"

_OPCODES = frozenset(Opcode)
_RSV_NAMES = ((RSV1, "RSV1"), (RSV2, "RSV2"), (RSV3, "RSV3"))

# What the peer sent: headers ---------------------------------------------------
#
# The checks go byte by byte, so that a violation is found at the byte that makes it one
# and the same error comes out however the stream was cut into pieces.


def first_byte_error(byte: int, rsv: int, in_message: bool | None) -> ProtocolError | None:
    """Judge the first byte of a frame.

    Args:
        byte: FIN, RSV1-3 and the opcode.
        rsv: the RSV bits that a negotiated extension gave a meaning.
        in_message: whether a fragmented message waits to be continued; None if the
            sequence of frames is not to be judged.
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
    """Tabulate which first bytes are good: 1 for those without a `first_byte_error`, else 0."""
    return bytes(first_byte_error(byte, rsv, in_message) is None for byte in range(256))


def second_byte_error(first: int, byte: int, masked: bool | None) -> ProtocolError | None:
    """Judge the second byte of a frame: the MASK bit and the 7-bit length.

    Args:
        first: the frame's first byte, found to be good.
        byte: the second byte.
        masked: whether the peer must mask (True: it is a client), must not (False), or
            may do either (None).
    """
    # §5.1: a client masks every frame, a server none.
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


def max_compressed(max_message_size: int) -> int:
    """Tell how long a frame of a compressed message may be, in bytes.

    DEFLATE makes a message that cannot be compressed larger: zlib by an eighth, isal's level
    0 by half. No code for a byte has more than 15 bits, and what comes on top is small. A
    longer frame holds too much, or nothing worth it.
    """
    return 2 * max_message_size + 1024


# What the peer sent: close frames ---------------------------------------------------


def close_payload_error(payload: bytes) -> ProtocolError | None:
    """Judge the first bytes of a close frame's payload: fewer than 2 tell nothing yet."""
    if len(payload) < 2:
        return None
    code = int.from_bytes(payload[:2], "big")
    if not may_travel(code):
        return errors.close_code_may_not_travel(code)
    try:
        # Not final: a code point that only lacks its end may still become valid.
        _, decoded = utf_8_decode(payload[2:], "strict", False)
    except UnicodeDecodeError:
        return errors.reason_not_utf8()
    return errors.reason_not_utf8() if begins_surrogate(payload[2 + decoded :]) else None


def parse_close(payload: bytes) -> Close | ProtocolError:
    """Read the payload of a whole close frame (RFC 6455 §5.5.1)."""
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
    """Tell whether what a UTF-8 decoder keeps for later begins a surrogate (RFC 3629 §3).

    CPython's waits for the third byte to say so. It is the only impossible beginning that
    it accepts.
    """
    return b"\xed\xa0" <= pending <= b"\xed\xbf"


# What the application asks for ----------------------------------------------------


def close_payload(code: int | None, reason: str) -> bytes:
    """Build the payload of a close frame (RFC 6455 §5.5.1).

    Args:
        code: a close code that may travel; None for an empty payload.
        reason: at most 123 bytes in UTF-8; none without a code.

    Raises:
        TypeError: if the code is not an int or the reason not a str.
        ValueError: if the code may not travel, the reason is too long, has no code or has
            lone surrogates.
    """
    if not isinstance(reason, str):
        raise errors.str_required(reason)
    if code is None:
        if reason:
            raise ValueError("a close reason needs a close code")
        return b""
    code = index(code)
    if not may_travel(code):
        raise ValueError(f"close code {code} may not be used in a close frame")
    encoded = str.encode(reason)
    if len(encoded) > MAX_CLOSE_REASON:
        raise ValueError(f"close reason over {MAX_CLOSE_REASON} bytes")
    return code.to_bytes(2, "big") + encoded


def check_control(opcode: int, length: int, fin: bool) -> None:
    """Refuse to encode a control frame that RFC 6455 §5.5 forbids."""
    if not fin:
        raise ValueError("a control frame cannot be fragmented")
    if length > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"control frame over {MAX_CONTROL_PAYLOAD} bytes: {Opcode(opcode).name}")


def check_limit(name: str, value: int | None, least: int) -> int | None:
    """Refuse a limit that is not a number of at least `least`, or None for no limit."""
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}")
    return value


def frame_repr(
    opcode: Opcode, payload: bytes, fin: bool, rsv1: bool, rsv2: bool, rsv3: bool
) -> str:
    """Write a Frame as the call that makes it, its defaults left out."""
    flags = "" if fin else ", fin=False"
    for name, bit in (("rsv1", rsv1), ("rsv2", rsv2), ("rsv3", rsv3)):
        flags += f", {name}=True" if bit else ""
    return f"Frame(Opcode.{opcode.name}, {payload!r}{flags})"


def memory_of(message: str | bytes) -> int:
    """Tell how much memory a message takes, in bytes.

    A str takes 1, 2 or 4 bytes for each of its characters, as the widest of them needs.
    """
    return message.__sizeof__() if _KNOWS_SIZES else len(message)


def as_bytes(data: Buffer) -> bytes:
    """Return `data` as bytes, in whatever shape, format or order it holds them.

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
