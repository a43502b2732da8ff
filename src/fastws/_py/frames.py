"""Single frames (RFC 6455 §5.2), independent of each other.

This module knows how to read and write frame headers. It does not know messages: it does not
validate text, assemble fragments or check their order. It is for proxies, inspectors and hosts
that assemble messages themselves; `messages` is the fast path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from fastws import errors, rules
from fastws.exceptions import ProtocolError
from fastws.rules import as_bytes, good_first_bytes
from fastws.spec import (
    CONTROL_BIT,
    DEFAULT_MAX_MESSAGE_SIZE,
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
    Opcode,
)

from .masking import rotate, xor

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Frame", "FrameDecoder", "encode_frame"]


class Frame:
    """One unmasked frame (RFC 6455 §5.2). Immutable.

    Args:
        opcode: the frame type.
        payload: the unmasked payload data.
        fin: whether this is the last frame of its message.
        rsv1: the first bit reserved for extensions.
        rsv2: the second bit reserved for extensions.
        rsv3: the third bit reserved for extensions.

    Raises:
        ValueError: if `opcode` is reserved.
        TypeError: if `payload` is not bytes-like.
    """

    __slots__ = ("fin", "opcode", "payload", "rsv1", "rsv2", "rsv3")
    __match_args__ = ("opcode", "payload", "fin", "rsv1", "rsv2", "rsv3")

    opcode: Opcode
    payload: bytes
    fin: bool
    rsv1: bool
    rsv2: bool
    rsv3: bool

    def __init__(
        self,
        opcode: int,
        payload: Buffer = b"",
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        store = object.__setattr__
        store(self, "opcode", Opcode(opcode))
        store(self, "payload", as_bytes(payload))
        store(self, "fin", bool(fin))
        store(self, "rsv1", bool(rsv1))
        store(self, "rsv2", bool(rsv2))
        store(self, "rsv3", bool(rsv3))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise errors.frame_is_immutable(name)

    def __delattr__(self, name: str) -> NoReturn:
        raise errors.frame_is_immutable(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return rules.frame_repr(*self._fields())

    def __reduce__(self) -> tuple[type[Frame], tuple[Any, ...]]:
        return Frame, self._fields()

    def _fields(self) -> tuple[Opcode, bytes, bool, bool, bool, bool]:
        return self.opcode, self.payload, self.fin, self.rsv1, self.rsv2, self.rsv3


class FrameDecoder:
    """Decodes frames from a stream of bytes.

    Args:
        masked: whether the peer must mask (True: it is a client), must not (False: it is
            a server), or may do either (None).
        max_payload_size: the maximum payload size of a frame, in bytes; None for no limit.
        rsv1: whether an extension uses RSV1 (RFC 7692 §6: in the first frame of a data message).
        rsv2: whether an extension uses RSV2.
        rsv3: whether an extension uses RSV3.

    Attributes:
        error: the peer's violation of the protocol, or None. After an error, the decoder decodes
            nothing more.
    """

    __slots__ = ("_buffer", "_limit", "_masked", "_needed", "_rsv", "error")

    error: ProtocolError | None

    def __init__(
        self,
        *,
        masked: bool | None,
        max_payload_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
    ) -> None:
        self.error = None
        self._masked = masked if masked is None else bool(masked)
        self._limit = rules.check_limit("max_payload_size", max_payload_size, 0)
        self._rsv = rsv_bits(rsv1, rsv2, rsv3)
        self._buffer = bytearray()  # the beginning of a frame
        self._needed = 0  # the size of the buffer at which to try again

    def feed(self, data: Buffer) -> list[Frame]:
        """Decode the data that the socket delivered.

        Args:
            data: any number of bytes; frames may be split anywhere.

        Returns:
            the frames that are now complete, including those before a violation; check `error`
            after the call.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        octets = as_bytes(data)
        frames: list[Frame] = []
        if self.error is not None:
            return frames
        if self._buffer:
            self._buffer += octets
            if len(self._buffer) < self._needed:
                return frames
            octets = bytes(self._buffer)
            self._buffer = bytearray()
        try:
            position = self._decode(octets, frames)
        except ProtocolError as exc:
            self.error = exc.with_traceback(None)
            return frames
        self._buffer += octets[position:]
        return frames

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    def _decode(self, data: bytes, frames: list[Frame]) -> int:
        """Decode all complete frames; return where the first incomplete one begins."""
        position, end = 0, len(data)
        while True:
            header = read_header(data, position, self._masked, self._rsv, None)
            if header is None:
                self._needed = 0
                return position
            first, length, key, start = header
            if self._limit is not None and length > self._limit:
                raise errors.payload_too_big(self._limit)
            stop = start + length
            if key is None or stop > end:
                self._needed = stop - position
                return position
            payload = data[start:stop]
            frames.append(
                Frame(
                    first & OPCODE_BITS,
                    xor(payload, key) if key else payload,
                    first & FIN != 0,
                    first & RSV1 != 0,
                    first & RSV2 != 0,
                    first & RSV3 != 0,
                )
            )
            position = stop


def encode_frame(
    opcode: int,
    payload: Buffer = b"",
    *,
    fin: bool = True,
    rsv1: bool = False,
    rsv2: bool = False,
    rsv3: bool = False,
    key: Buffer | None = None,
) -> bytes:
    """Encode one frame (RFC 6455 §5.2).

    Args:
        opcode: the frame type.
        payload: the payload data; at most 125 bytes in a control frame.
        fin: whether this is the last frame of its message; must be true for a control frame.
        rsv1: the first bit reserved for extensions.
        rsv2: the second bit reserved for extensions.
        rsv3: the third bit reserved for extensions.
        key: the 4-byte mask key; None for no mask. Only a client masks (§5.1).

    Raises:
        ValueError: if `opcode` is reserved, `key` is not 4 bytes long, or a control frame is
            fragmented or too long.
        TypeError: if `payload` or `key` is not bytes-like.
    """
    opcode = Opcode(opcode)
    octets = as_bytes(payload)
    if opcode & CONTROL_BIT:
        rules.check_control(opcode, len(octets), fin)
    first = opcode | rsv_bits(rsv1, rsv2, rsv3) | (FIN if fin else 0)
    if key is None:
        return write_header(first, len(octets), 0) + octets
    key = rotate(as_bytes(key), 0)
    return write_header(first, len(octets), MASK) + key + xor(octets, key)


# Shared by the modules of this twin, and by integrations ---------------------------


def read_header(
    data: bytes, position: int, masked: bool | None, rsv: int, in_message: bool | None
) -> tuple[int, int, bytes | None, int] | None:
    """Read as much of a frame header as has arrived (RFC 6455 §5.2).

    Args:
        data: the bytes that contain the header.
        position: where the header begins.
        masked: whether the peer must mask (True), must not (False), or may do either (None).
        rsv: the RSV bits that a negotiated extension uses.
        in_message: whether a fragmented message has begun and is not finished; None if the
            order of frames does not matter.

    Returns:
        the first byte, the payload's length, the mask key (None if it is incomplete, empty if
        there is none) and the payload's position; None until the length is known.

    Raises:
        ProtocolError: at the first byte that breaks a rule.
    """
    end = len(data)
    if not 0 <= position < end:
        return None
    first = data[position]
    if not good_first_bytes(rsv, in_message)[first]:
        error = rules.first_byte_error(first, rsv, in_message)
        assert error is not None
        raise error
    if position + 1 >= end:
        return None
    second = data[position + 1]
    # Most frames are data frames whose MASK bit is right. They need no further checks.
    if first & CONTROL_BIT or masked is not (second & MASK != 0):
        error = rules.second_byte_error(first, second, masked)
        if error is not None:
            raise error

    position += 2
    length = second & LENGTH_BITS
    if length >= LENGTH_16:
        size = 2 if length == LENGTH_16 else 8
        if size == 8 and position < end and data[position] & 0x80:
            raise errors.length_top_bit()
        if position + size > end:
            return None
        length = int.from_bytes(data[position : position + size], "big")
        if length <= (MAX_CONTROL_PAYLOAD if size == 2 else MAX_16_BIT_LENGTH):
            raise errors.length_not_minimal(length)
        position += size

    if not second & MASK:
        return first, length, b"", position
    key = data[position : position + MASK_KEY_SIZE]
    position += MASK_KEY_SIZE
    return first, length, key if len(key) == MASK_KEY_SIZE else None, position


def write_header(first: int, length: int, mask: int) -> bytes:
    """Write a frame header up to the mask key (RFC 6455 §5.2)."""
    if length <= MAX_CONTROL_PAYLOAD:
        return bytes((first, mask | length))
    if length <= MAX_16_BIT_LENGTH:
        return bytes((first, mask | LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, mask | LENGTH_64)) + length.to_bytes(8, "big")


def rsv_bits(rsv1: bool, rsv2: bool, rsv3: bool) -> int:
    return (RSV1 if rsv1 else 0) | (RSV2 if rsv2 else 0) | (RSV3 if rsv3 else 0)
