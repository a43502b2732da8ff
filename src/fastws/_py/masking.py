"""Masking of payloads (RFC 6455 §5.3).

This module knows how to XOR bytes with a 4-byte key, from any position in a payload. It does not
know frames, and it does not create keys.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from fastws import errors
from fastws.rules import as_bytes
from fastws.spec import MASK_KEY_SIZE

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["apply_mask", "apply_mask_inplace"]

# Above this size, four passes of bytes.translate are faster than one XOR of big integers, whose
# conversions take more than linear time.
_BIG = 4096


def apply_mask(data: Buffer, key: Buffer, offset: int = 0) -> bytes:
    """Mask or unmask part of a payload; both are the same operation (RFC 6455 §5.3).

    Args:
        data: the bytes, in any object with the buffer protocol.
        key: the 4-byte mask key.
        offset: the position of `data` in the payload, in bytes.

    Raises:
        TypeError: if `data` or `key` is not bytes-like.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    return xor(as_bytes(data), rotate(as_bytes(key), offset))


def apply_mask_inplace(buffer: Buffer, key: Buffer, offset: int = 0) -> None:
    """Mask or unmask part of a payload in place (RFC 6455 §5.3).

    Args:
        buffer: the bytes, in any writable, C-contiguous object with the buffer protocol.
        key: the 4-byte mask key.
        offset: the position of `buffer` in the payload, in bytes.

    Raises:
        TypeError: if `buffer` is not bytes-like or not writable, or `key` is not bytes-like.
        BufferError: if `buffer` is not C-contiguous.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise errors.writable_required(buffer) from None
    with view:
        if view.readonly:
            raise errors.writable_required(buffer)
        if not view.c_contiguous:
            raise errors.contiguous_required()
        masked = xor(view.tobytes(), rotate(as_bytes(key), offset))
        if masked:  # an empty view cannot be cast
            with view.cast("B") as octets:
                octets[:] = masked


# Shared by the modules of this twin ---------------------------------------------


def rotate(key: bytes, offset: int) -> bytes:
    """Return the key, rotated so that it begins at `offset` in the payload."""
    if len(key) != MASK_KEY_SIZE:
        raise errors.mask_key_of_four_bytes(len(key))
    if offset < 0:
        raise errors.offset_not_negative(offset)
    offset = offset & 3
    return key[offset:] + key[:offset]


def xor(data: bytes, key: bytes) -> bytes:
    """XOR `data` with a 4-byte key, beginning with the key's first byte."""
    size = len(data)
    if size <= _BIG:
        pad = (key * ((size + 3) >> 2))[:size]
        number = int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")
        return number.to_bytes(size, "little")
    result = bytearray(size)
    for i in range(4):
        result[i::4] = data[i::4].translate(_xor_table(key[i]))
    return bytes(result)


@cache
def _xor_table(value: int) -> bytes:
    return bytes(i ^ value for i in range(256))
