"""The events of a connection that need a class of their own: control frames, Text and MessagePart.

This module knows what valid control frames contain. It does not validate them. A text message is
a `str` and a binary message is `bytes`; a text message that is wanted as bytes is a `Text`, and a
message that is wanted as it arrives has MessageParts. Both twins share these classes: control
frames and parts are rare, and creating a `Text` takes less time than decoding its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .errors import bytes_like_required, utf8_required

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["Close", "Event", "MessagePart", "Ping", "Pong", "Text"]

# That of the twin in use: `codec`, which imports this module, sets it.
is_utf8: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True, init=False)
class Text:
    """A text message as UTF-8, for programs that need its bytes: most JSON parsers do.

    It is received in place of a `str` if `decode_text` is false, and can be sent. It is no
    subclass of `bytes`, so that it cannot be taken for a binary message, and because parsers
    such as orjson accept only `bytes` itself. `match` takes it apart:

        match message:
            case Text(data):
                value = orjson.loads(data)
            case bytes():
                ...

    Its length is the number of bytes, `str(text)` decodes it, and `bytes(text)` is its data.

    Args:
        data: the message in UTF-8; it is copied unless it is `bytes`.

    Attributes:
        data: the message in UTF-8, as `bytes`. It is always valid.

    Raises:
        TypeError: if `data` is not bytes-like.
        ValueError: if `data` is not UTF-8 (RFC 3629).
    """

    data: bytes

    def __init__(self, data: Buffer) -> None:
        if type(data) is not bytes:
            try:
                data = memoryview(data).tobytes()
            except TypeError:
                raise bytes_like_required(data) from None
        if not is_utf8(data):  # noqa: F821 - it is set later
            raise utf8_required()
        object.__setattr__(self, "data", data)

    def __len__(self) -> int:
        """Return the number of bytes."""
        return len(self.data)

    def __bytes__(self) -> bytes:
        """Return the message in UTF-8."""
        return self.data

    def __str__(self) -> str:
        """Return the message as a str."""
        return self.data.decode()

    def __sizeof__(self) -> int:
        # What waits to be received is limited by its memory, of which this is the most.
        return object.__sizeof__(self) + self.data.__sizeof__()


@dataclass(frozen=True, slots=True)
class MessagePart:
    """A part of a message, if messages are received in parts (see `MessageDecoder`).

    The parts of a message, joined, are the message. They are not the fragments of RFC 6455 §5.4:
    where a message is cut depends on how its bytes arrive.

    Attributes:
        data: a `str` (or a `Text`) if the message is text, `bytes` if it is binary. Only the
            last part of a message can be empty.
        last: whether the message ends with this part.
    """

    data: str | Text | bytes
    last: bool

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.data.__sizeof__()  # as for Text


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, with its application data of at most 125 bytes (RFC 6455 §5.5.2)."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong, with its application data of at most 125 bytes (RFC 6455 §5.5.3)."""

    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame (RFC 6455 §5.5.1).

    Attributes:
        code: the close code; 1005 if the frame contained none (§7.1.5).
        reason: the close reason, at most 123 bytes in UTF-8 (§7.1.6).
    """

    code: int = 1005
    reason: str = ""


Event: TypeAlias = str | bytes | Text | MessagePart | Ping | Pong | Close
"""What `MessageDecoder.feed` and `Connection.receive_data` return a list of."""
