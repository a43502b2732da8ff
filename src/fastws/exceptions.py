"""The error tree.

This module knows what can go wrong and which close code or HTTP status says so. It does not
know the words, which are in `errors`, nor how a violation is found.

    WebSocketError
    ├── ProtocolError           the peer broke RFC 6455            closes with 1002
    │   ├── InvalidPayloadError   text that is not UTF-8           closes with 1007
    │   ├── MessageTooBigError    a limit of ours was passed       closes with 1009
    │   └── InternalError         decoding failed on our side      closes with 1011
    ├── HandshakeError          no WebSocket connection came about
    │   ├── InvalidURIError       not a ws:// or wss:// URI
    │   ├── RequestError          the client's request; knows the HTTP status to answer
    │   └── ResponseError         the server's answer; knows the response
    ├── FieldError              a header field looked up is there more than once
    │   └── MissingFieldError     ... or is not there
    ├── StateError              the application called a method out of turn
    └── ConnectionClosed        the connection is gone; knows close code and reason

A wrong type or value handed to a function raises TypeError or ValueError as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .spec import NORMAL_CLOSE_CODES, CloseCode

if TYPE_CHECKING:
    from .http import Response

__all__ = [
    "ConnectionClosed",
    "FieldError",
    "HandshakeError",
    "InternalError",
    "InvalidPayloadError",
    "InvalidURIError",
    "MessageTooBigError",
    "MissingFieldError",
    "ProtocolError",
    "RequestError",
    "ResponseError",
    "StateError",
    "WebSocketError",
]


class WebSocketError(Exception):
    """Whatever fastws raises that is neither TypeError, ValueError nor OSError."""


class ProtocolError(WebSocketError):
    """The peer broke a rule of RFC 6455. `close_code` is what to tell it (§7.4.1)."""

    close_code: ClassVar[CloseCode] = CloseCode.PROTOCOL_ERROR


class InvalidPayloadError(ProtocolError):
    """Text, or a close reason, that is not UTF-8 (RFC 6455 §8.1); bad compression."""

    close_code = CloseCode.INVALID_PAYLOAD


class MessageTooBigError(ProtocolError):
    """A message, or its number of fragments, is over the limit set (RFC 6455 §10.4)."""

    close_code = CloseCode.MESSAGE_TOO_BIG


class InternalError(ProtocolError):
    """Decoding failed for a reason that is not the peer's: memory ran out, for example. What
    follows in the stream can no longer be understood."""

    close_code = CloseCode.INTERNAL_ERROR


class HandshakeError(WebSocketError):
    """The opening handshake failed (RFC 6455 §4)."""


class InvalidURIError(HandshakeError, ValueError):
    """Not a URI of RFC 6455 §3."""


class RequestError(HandshakeError):
    """The client's request cannot be accepted.

    Attributes:
        status: the HTTP status to answer with.
        headers: the header fields that belong to that answer.
    """

    def __init__(
        self, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message, status, headers)
        self.status = status
        self.headers = headers

    def __str__(self) -> str:
        return str(self.args[0])


class ResponseError(HandshakeError):
    """The server's response does not open a WebSocket connection.

    Attributes:
        response: the response, with as much of its body as was read; None when it was
            not HTTP.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message, response)
        self.response = response

    def __str__(self) -> str:
        return str(self.args[0])


class FieldError(WebSocketError, LookupError):
    """A header field that was looked up is there more than once.

    What a peer sends decides this, so fastws does not take it for a mistake of the application:
    where `process_request` or a handler lets it out, and the peer's header is why, the client gets
    a 400 or a close frame with 1008, and a line is logged at debug level.

    Attributes:
        name: the name that was looked up.
        count: how many fields have it.
    """

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, count)
        self.name = name
        self.count = count

    def __str__(self) -> str:
        return f"{self.count} header fields named {self.name}"


class MissingFieldError(FieldError, KeyError):
    """A header field that was looked up is not there."""

    def __init__(self, name: str, count: int = 0) -> None:
        super().__init__(name, count)

    def __str__(self) -> str:
        return f"no header field named {self.name}"


class StateError(WebSocketError):
    """A method was called at a time when it makes no sense."""


class ConnectionClosed(WebSocketError):
    """The connection is closed, or closing.

    Attributes:
        code: the close code (RFC 6455 §7.1.5): what the peer sent, 1005 if it sent none,
            1006 if the connection was lost without a close frame.
        reason: the peer's close reason, or our own word for how the connection was lost.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    @property
    def is_normal(self) -> bool:
        """Whether this is how a connection ends that did its work (1000, 1001, 1005)."""
        return self.code in NORMAL_CLOSE_CODES

    def __str__(self) -> str:
        try:
            name = f"{self.code} {CloseCode(self.code).name.lower()}"
        except ValueError:
            name = str(self.code)
        return f"{name}: {self.reason}" if self.reason else name
