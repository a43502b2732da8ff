"""Strict UTF-8 (RFC 3629), in one piece or in many.

This module knows which bytes are UTF-8, and stops at the first one that cannot be part of it. It
does not know messages, where the bytes come from, or what an error means to them.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, NoReturn

from fastws import errors, rules
from fastws.events import Text
from fastws.rules import as_bytes

from .masking import rotate, xor

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Utf8Validator", "decode_utf8", "is_utf8"]

# It fails at the first byte that cannot begin or continue a code point, even if more bytes are
# still to come. The one exception is in rules.begins_surrogate.
_Decoder = getincrementaldecoder("utf-8")


class Utf8Validator:
    """Validates UTF-8 that arrives in pieces."""

    __slots__ = ("_decoder", "_valid")

    def __init__(self) -> None:
        self._decoder = _Decoder()
        self._valid = True

    def feed(self, data: Buffer) -> bool:
        """Validate the next piece.

        Returns:
            whether all bytes so far can be the beginning of valid UTF-8. This becomes False at
            the first byte that cannot be part of it, even in the middle of a code point, and
            stays False.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        return self._decode(as_bytes(data)) is not None

    def _decode(self, octets: bytes) -> str | None:
        """Return the complete code points of the next piece; None if it is not valid."""
        if self._valid:
            try:
                text = self._decoder.decode(octets)
            except UnicodeDecodeError:
                self._valid = False
            else:
                self._valid = not rules.begins_surrogate(self._decoder.getstate()[0])
        return text if self._valid else None

    def __reduce__(self) -> NoReturn:
        raise errors.not_copyable(self)

    @property
    def complete(self) -> bool:
        """Whether the bytes fed so far are complete, valid UTF-8."""
        return self._valid and not self._decoder.getstate()[0]


def is_utf8(data: Buffer) -> bool:
    """Return whether `data` is complete, valid UTF-8.

    Raises:
        TypeError: if `data` is not bytes-like.
    """
    try:
        as_bytes(data).decode()
    except UnicodeDecodeError:
        return False
    return True


def valid_text(data: bytes) -> Text:
    """Return a text message that is given in valid UTF-8."""
    text = Text.__new__(Text)
    object.__setattr__(text, "data", data)
    return text


def decode_utf8(data: Buffer, key: Buffer | None = None, offset: int = 0) -> str:
    """Unmask, validate and decode UTF-8.

    Args:
        data: the bytes, in any object with the buffer protocol.
        key: the 4-byte mask key; None if the data is not masked.
        offset: the position of `data` in the masked payload, in bytes.

    Raises:
        UnicodeDecodeError: if the unmasked bytes are not valid UTF-8.
        TypeError: if `data` or `key` is not bytes-like.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    octets = as_bytes(data)
    if key is not None:
        octets = xor(octets, rotate(as_bytes(key), offset))
    elif offset < 0:
        raise errors.offset_not_negative(offset)
    return octets.decode()
