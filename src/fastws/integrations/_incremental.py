"""Masking and validation in pieces, with the interface of wsaccel, which autobahn uses too.

This module knows how many bytes were processed, and which is the first one that is not UTF-8. It
does not know any host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastws import codec
from fastws.spec import MASK_KEY_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Utf8Validator", "XorMasker"]


class XorMasker:
    """Masks or unmasks one payload that arrives in pieces (RFC 6455 §5.3).

    Args:
        mask: the 4-byte mask key.

    Raises:
        TypeError: if `mask` is not bytes-like.
        ValueError: if it is not 4 bytes long.
    """

    __slots__ = ("_mask", "_position")

    def __init__(self, mask: Buffer) -> None:
        if type(mask) is not bytes:
            mask = memoryview(mask).tobytes()
        if len(mask) != MASK_KEY_SIZE:
            raise ValueError("mask should be 4byte.")  # wsaccel's message
        self._mask = mask
        self._position = 0

    def pointer(self) -> int:
        """Return how many bytes were processed."""
        return self._position

    def reset(self) -> None:
        """Begin with a new payload."""
        self._position = 0

    def process(self, data: Buffer) -> bytes:
        """Mask or unmask the next piece.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        masked = codec.apply_mask(data, self._mask, self._position)
        self._position += len(masked)
        return masked


class Utf8Validator:
    """Validates UTF-8 that arrives in pieces, and returns the position of an invalid byte."""

    __slots__ = ("_pending", "_total", "_valid", "_validator")

    def __init__(self) -> None:
        self._validator = codec.Utf8Validator()
        self._valid = True
        self._total = 0
        self._pending = b""  # the beginning of a code point

    def reset(self) -> None:
        """Begin with a new text."""
        if self._pending or not self._valid:
            self._validator = codec.Utf8Validator()
            self._valid = True
            self._pending = b""
        self._total = 0

    def validate(self, ba: Buffer) -> tuple[bool, bool, int, int]:
        """Validate the next piece.

        Returns:
            whether everything is valid so far; whether the text could end here; the index in this
            piece of the first byte that makes it invalid, or of the end if there is none; the same
            index in the whole text. After an error, further pieces are invalid from their first
            byte on.

        Raises:
            TypeError: if `ba` is not bytes-like.
        """
        piece: bytes | memoryview = ba if type(ba) is bytes else _octets(ba)
        size = len(piece)
        if self._validator.feed(piece):
            complete = self._validator.complete
            if complete:
                self._pending = b""
            else:
                self._pending = _incomplete(self._pending + bytes(piece[-3:]))
            self._total += size
            return True, complete, size, self._total
        if not size:
            return True, False, 0, self._total
        if not self._valid:
            return False, False, 0, self._total
        self._valid = False
        index = _first_invalid(self._pending + bytes(piece)) - len(self._pending)
        self._total += index
        return False, False, index, self._total


def _octets(data: Buffer) -> bytes | memoryview:
    view = memoryview(data)
    return view if view.ndim == 1 and view.itemsize == 1 else view.tobytes()


def _incomplete(octets: bytes) -> bytes:
    """Return the incomplete code point at the end of `octets`, which are valid so far."""
    begin = len(octets) - 1
    while octets[begin] < 0xC0:  # larger bytes begin a code point
        begin -= 1
    return octets[begin:]


def _first_invalid(octets: bytes) -> int:
    """Return the index of the first byte that makes `octets` invalid; they must be invalid."""
    try:
        octets.decode()
    except UnicodeDecodeError as exc:
        index = exc.start  # of the code point; now find the byte in it
    validator = codec.Utf8Validator()
    while validator.feed(octets[index : index + 1]):
        index += 1
    return index
