"""The events of a connection that are not messages: Ping, Pong and Close.

This module knows what valid control frames contain. It does not validate them. A text message is
a `str` and a binary message is `bytes`, so messages need no class of their own. Control frames are
rare, so both twins share these classes.
"""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Close", "Event", "Ping", "Pong"]


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


Event: TypeAlias = str | bytes | Ping | Pong | Close
"""What `MessageDecoder.feed` and `Connection.receive_data` return a list of."""
