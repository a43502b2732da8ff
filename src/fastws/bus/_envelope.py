"""How a message travels through a broker: nine bytes before its payload.

    kind     1 byte   "t": text in UTF-8, "b": binary, "g": messages may be missing before this
    origin   8 bytes  random; each bus has its own, by which it knows its own messages

This module knows these bytes. It does not know brokers.
"""

from __future__ import annotations

import secrets
from typing import Final

__all__ = ["GAP", "HEADER_SIZE", "new_origin", "open_envelope", "seal", "seal_gap"]

HEADER_SIZE: Final = 9


class _Gap:
    def __repr__(self) -> str:
        return "GAP"


# What `open_envelope` returns instead of a message.
GAP: Final = _Gap()


def new_origin() -> bytes:
    """Return the 8 bytes that name a bus."""
    return secrets.token_bytes(HEADER_SIZE - 1)


def seal(origin: bytes, message: str | bytes) -> bytes:
    """Return what to publish for a message.

    Raises:
        UnicodeEncodeError: if a str has surrogates.
        TypeError: if the message is neither str nor bytes-like.
    """
    if isinstance(message, str):
        return b"t" + origin + message.encode()
    return b"".join((b"b", origin, message))


def seal_gap(origin: bytes) -> bytes:
    """Return what tells the others that messages of ours may be missing."""
    return b"g" + origin


def open_envelope(data: bytes) -> tuple[bytes, str | bytes | _Gap]:
    """Return the origin and the message; GAP instead of it if messages may be missing.

    Raises:
        ValueError: if no bus has written this.
    """
    kind, origin, payload = data[:1], data[1:HEADER_SIZE], data[HEADER_SIZE:]
    if len(origin) == HEADER_SIZE - 1:
        if kind == b"b":
            return origin, payload
        if kind == b"t":
            return origin, payload.decode()
        if kind == b"g" and not payload:
            return origin, GAP
    raise ValueError("not a message of a bus")
