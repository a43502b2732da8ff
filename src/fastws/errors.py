"""The error messages of fastws: one constructor for each error.

This module knows the messages, so that each is written only once. It does not know the classes,
which are in `exceptions`, nor how errors are detected: both twins and the layers above call these
functions, and raise or keep the exceptions that they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exceptions import (
    ConnectionClosed,
    InternalError,
    InvalidPayloadError,
    MessageTooBigError,
    ProtocolError,
    StateError,
)
from .spec import CloseCode, Opcode

if TYPE_CHECKING:
    from .closing import Ending

# Wire errors: the header (RFC 6455 §5.2) -------------------------------------


def reserved_bits(names: str) -> ProtocolError:
    return ProtocolError(f"reserved bit set: {names}")


def reserved_opcode(opcode: int) -> ProtocolError:
    return ProtocolError(f"reserved opcode: 0x{opcode:X}")


def fragmented_control(opcode: int) -> ProtocolError:
    return ProtocolError(f"fragmented control frame: {Opcode(opcode).name}")


def control_too_long(opcode: int) -> ProtocolError:
    return ProtocolError(f"control frame over 125 bytes: {Opcode(opcode).name}")


def unmasked() -> ProtocolError:
    return ProtocolError("frame from a client is not masked")


def masked() -> ProtocolError:
    return ProtocolError("frame from a server is masked")


def length_not_minimal(length: int) -> ProtocolError:
    return ProtocolError(f"length {length} is not encoded in the fewest bytes")


def length_top_bit() -> ProtocolError:
    return ProtocolError("64-bit length with its most significant bit set")


# Wire errors: the sequence of frames (RFC 6455 §5.4) -------------------------


def nothing_to_continue() -> ProtocolError:
    return ProtocolError("continuation frame without a message to continue")


def message_not_finished(opcode: int) -> ProtocolError:
    return ProtocolError(f"new {Opcode(opcode).name} message inside a fragmented one")


# Wire errors: payloads -------------------------------------------------------


def text_not_utf8() -> InvalidPayloadError:
    return InvalidPayloadError("text message is not UTF-8")


def reason_not_utf8() -> InvalidPayloadError:
    return InvalidPayloadError("close reason is not UTF-8")


def corrupt_deflate() -> InvalidPayloadError:
    return InvalidPayloadError("compressed message is not DEFLATE")


def decoding_failed() -> InternalError:
    return InternalError("decoding failed")


def close_payload_of_one_byte() -> ProtocolError:
    return ProtocolError("close frame with a payload of 1 byte")


def close_code_may_not_travel(code: int) -> ProtocolError:
    return ProtocolError(f"close code {code} may not be used in a close frame")


# Limits (RFC 6455 §10.4) -----------------------------------------------------


def message_too_big(limit: int) -> MessageTooBigError:
    return MessageTooBigError(f"message over {limit} bytes")


def payload_too_big(limit: int) -> MessageTooBigError:
    return MessageTooBigError(f"frame payload over {limit} bytes")


def too_many_fragments(limit: int) -> MessageTooBigError:
    return MessageTooBigError(f"message of more than {limit} fragments")


# Arguments ----------------------------------------------------------------------


def bytes_like_required(value: object) -> TypeError:
    return TypeError(f"a bytes-like object is required, not {type(value).__name__!r}")


def writable_required(value: object) -> TypeError:
    return TypeError(f"a writable bytes-like object is required, not {type(value).__name__!r}")


def contiguous_required() -> BufferError:
    return BufferError("a C-contiguous buffer is required")


def str_required(value: object) -> TypeError:
    return TypeError(f"a str is required, not {type(value).__name__!r}")


def message_required(value: object) -> TypeError:
    return TypeError(f"message must be a str or bytes-like object, not {type(value).__name__!r}")


def utf8_required() -> ValueError:
    return ValueError("text is not UTF-8")


def fragment_of_other_kind(kind: str, fragment: object) -> TypeError:
    wanted = "str" if kind == "text" else "bytes-like"
    name = type(fragment).__name__
    return TypeError(f"fragments of a {kind} message must be {wanted}, not {name!r}")


def frame_is_immutable(name: str) -> AttributeError:
    return AttributeError(f"a Frame is immutable: cannot set or delete {name!r}")


def not_copyable(value: object) -> TypeError:
    return TypeError(f"cannot copy or pickle {type(value).__name__!r} object: it has state")


def mask_key_of_four_bytes(size: int) -> ValueError:
    return ValueError(f"mask key must be 4 bytes, not {size}")


def offset_not_negative(offset: int) -> ValueError:
    return ValueError(f"offset must be at least 0, not {offset}")


# Calls at the wrong time ----------------------------------------------------------


def not_in_message() -> StateError:
    return StateError("continuation() without a fragmented message to continue")


def being_fed() -> StateError:
    return StateError("the decoder is decoding already: its inflater must not feed it")


def already_waiting() -> StateError:
    return StateError("another task is waiting for a message")


def rest_was_dropped() -> StateError:
    return StateError("the rest of this message was dropped: another one has been received")


def never_open() -> ConnectionClosed:
    return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE.value, "the connection was never open")


def closed(ending: Ending | None, *, lost: bool = False) -> ConnectionClosed:
    """Return the error of a connection that is closed or closing.

    Args:
        ending: how it ended, as `Connection` keeps it.
        lost: whether it was lost, although `ending` does not say so.
    """
    if ending is None:
        return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE.value)
    error = ConnectionClosed(
        CloseCode.ABNORMAL_CLOSURE.value if lost else ending.code,
        "" if lost else ending.reason,
        received=ending.received,
        sent=ending.sent,
        by_peer=ending.by_peer,
        last_heard=ending.last_heard,
        unsent=ending.unsent,
    )
    error.__cause__ = ending.error or ending.lost_by
    return error


def in_message() -> StateError:
    return StateError("a fragmented message is not finished; send continuation() first")


# Calls of a session at the wrong time -----------------------------------------------


def not_open_yet() -> StateError:
    return StateError("the connection is not open yet")


def nothing_to_answer() -> StateError:
    return StateError("there is no request to answer")


def not_written() -> StateError:
    return StateError("after a Write, call data_to_send() and write the data before you go on")


def not_iterated() -> StateError:
    return StateError("earlier data is not decoded yet; iterate over the session first")


def stream_ended() -> StateError:
    return StateError("data after the end of the stream")
