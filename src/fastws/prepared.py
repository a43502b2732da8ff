"""Messages that are encoded once and sent to many.

This module knows a message's payload, plain and compressed. It does not know who it goes to:
each connection writes its own header around it, and a client its own mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .deflate import deflate_alone, deflate_in_pieces
from .rules import as_bytes
from .spec import Opcode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from .deflate import CompressorParameters

__all__ = ["PreparedMessage", "prepare"]


class PreparedMessage:
    """A message to be sent on many connections; `prepare` makes it.

    Connections that compress in the same way share one compressed form, made when the first
    of them needs it.

    Attributes:
        opcode: TEXT or BINARY.
        payload: the message in bytes; text in UTF-8.
    """

    __slots__ = ("_compressed", "opcode", "payload")

    def __init__(self, opcode: Opcode, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        # None while it is compressed piece by piece.
        self._compressed: dict[CompressorParameters, bytes | None] = {}

    def compressed(self, parameters: CompressorParameters) -> bytes:
        """Return the payload compressed, by itself, by such a compressor (RFC 7692 §7.2.1)."""
        payload = self._compressed.get(parameters)
        if payload is None:
            payload = self._compressed[parameters] = deflate_alone(parameters, self.payload)
        return payload

    def compress(self, parameters: CompressorParameters) -> Iterator[None]:
        """Compress the payload piece by piece, for `compressed` to return it at once; there is
        a pause after each piece, for others to have their turn. It is done once, however many
        ask for it at the same time."""
        while self._compressed.get(parameters) is None:
            if parameters in self._compressed:  # somebody else is at it
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


def prepare(message: str | Buffer) -> PreparedMessage:
    """Encode a text (str) or binary (bytes-like) message once, to send it to many.

    Args:
        message: the message; it is copied unless it is `bytes`.

    Returns:
        what every `send` takes in place of the message.

    Raises:
        TypeError: if `message` is neither str nor bytes-like.
        ValueError: if it has lone surrogates.
    """
    if isinstance(message, str):
        return PreparedMessage(Opcode.TEXT, message.encode())
    return PreparedMessage(Opcode.BINARY, as_bytes(message))
