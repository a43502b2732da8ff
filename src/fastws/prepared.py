"""Messages that are encoded once and sent on many connections.

This module knows a message's payload, plain and compressed, and keeps the frames that were made of
it for servers. It does not know the connections: they make these frames, and a client, which must
mask each message anew, makes its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .deflate import deflate_alone, deflate_in_pieces
from .events import Text
from .rules import as_bytes
from .spec import Opcode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from .deflate import CompressorParameters

__all__ = ["PreparedMessage", "prepare"]


class PreparedMessage:
    """A message to send on many connections, as `prepare` returns it.

    A server's connections that compress in the same way, or not at all, share one encoded frame.
    Clients that compress in the same way share one compressed payload. They are created when the
    first connection needs them.

    Attributes:
        opcode: TEXT or BINARY.
        payload: the message as bytes; text is encoded in UTF-8.
    """

    __slots__ = ("_compressed", "_compressed_frames", "_frame", "opcode", "payload")

    def __init__(self, opcode: Opcode, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        # A value is None while the payload is being compressed piece by piece.
        self._compressed: dict[CompressorParameters, bytes | None] = {}
        # For `Connection`, which sets them: the frames that a server sends, uncompressed (None: not
        # needed yet, or too large to keep) and compressed.
        self._frame: bytes | None = None
        self._compressed_frames: dict[CompressorParameters, bytes] = {}

    def compressed(self, parameters: CompressorParameters) -> bytes:
        """Return the payload, compressed with these parameters and without referring to other
        messages (RFC 7692 §7.2.1)."""
        payload = self._compressed.get(parameters)
        if payload is None:
            payload = self._compressed[parameters] = deflate_alone(parameters, self.payload)
        return payload

    def compress(self, parameters: CompressorParameters) -> Iterator[None]:
        """Compress the payload piece by piece, so that `compressed` can return it at once. Yield
        after each piece, so that other tasks can run. The payload is compressed only once, even
        if several tasks call this at the same time."""
        while self._compressed.get(parameters) is None:
            if parameters in self._compressed:  # another task is doing it
                yield
                continue
            self._compressed[parameters] = None
            try:
                self._compressed[parameters] = yield from deflate_in_pieces(
                    parameters, self.payload
                )
            finally:
                if self._compressed[parameters] is None:
                    del self._compressed[parameters]


def prepare(message: str | Text | Buffer) -> PreparedMessage:
    """Encode a text (str or Text) or binary (bytes-like) message once, to send it on many
    connections.

    Args:
        message: the message; it is copied unless it is `bytes`.

    Returns:
        an object that can be passed to any `send` in place of the message.

    Raises:
        TypeError: if `message` is neither str nor bytes-like.
        ValueError: if it has lone surrogates.
    """
    if isinstance(message, str):
        return PreparedMessage(Opcode.TEXT, message.encode())
    if isinstance(message, Text):
        return PreparedMessage(Opcode.TEXT, message.data)
    return PreparedMessage(Opcode.BINARY, as_bytes(message))
