"""The exceptions of fastws, and how they derive from each other.

This module knows what can go wrong and which close code or HTTP status reports it. It does not
know the messages, which are in `errors`, nor how a violation is detected.

    WebSocketError
    ├── ProtocolError           the peer broke RFC 6455            closes with 1002
    │   ├── InvalidPayloadError   text that is not UTF-8           closes with 1007
    │   ├── MessageTooBigError    a limit of ours was exceeded     closes with 1009
    │   └── InternalError         decoding failed on our side      closes with 1011
    ├── HandshakeError          the opening handshake failed
    │   ├── InvalidURIError       not a ws:// or wss:// URI
    │   ├── ProxyError            the proxy cannot be reached, or refuses
    │   ├── RequestError          the client's request; knows the HTTP status to answer
    │   └── ResponseError         the server's answer; knows the response
    │       └── IncompleteResponseError   the connection ended before it was whole
    ├── FieldError              a header field appears more than once
    │   └── MissingFieldError     a header field is missing
    ├── StateError              the application called a method at the wrong time
    └── ConnectionClosed        the connection is closed; knows the close code and reason

Arguments of a wrong type or value raise TypeError or ValueError, as usual in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from . import closing
from .spec import NORMAL_CLOSE_CODES, CloseCode

if TYPE_CHECKING:
    from .events import Close
    from .http import HeadersLike, Response

__all__ = [
    "ConnectionClosed",
    "FieldError",
    "HandshakeError",
    "IncompleteResponseError",
    "InternalError",
    "InvalidPayloadError",
    "InvalidURIError",
    "MessageTooBigError",
    "MissingFieldError",
    "ProtocolError",
    "ProxyError",
    "RequestError",
    "ResponseError",
    "StateError",
    "WebSocketError",
]


class WebSocketError(Exception):
    """The base class of fastws's own exceptions."""


class ProtocolError(WebSocketError):
    """The peer broke a rule of RFC 6455. `close_code` is the code to close with (§7.4.1)."""

    close_code: ClassVar[CloseCode] = CloseCode.PROTOCOL_ERROR


class InvalidPayloadError(ProtocolError):
    """Text or a close reason is not UTF-8 (RFC 6455 §8.1), or compressed data is corrupt."""

    close_code = CloseCode.INVALID_PAYLOAD


class MessageTooBigError(ProtocolError):
    """A message is too large or has too many fragments (RFC 6455 §10.4)."""

    close_code = CloseCode.MESSAGE_TOO_BIG


class InternalError(ProtocolError):
    """Decoding failed, but not because of the peer; memory ran out, for example. The rest of the
    stream cannot be decoded."""

    close_code = CloseCode.INTERNAL_ERROR


class HandshakeError(WebSocketError):
    """The opening handshake failed (RFC 6455 §4)."""


class InvalidURIError(HandshakeError, ValueError):
    """This is not a WebSocket URI (RFC 6455 §3)."""


class ProxyError(HandshakeError):
    """The proxy cannot be reached, or does not connect us to the server.

    If the proxy cannot be reached, or closes the connection without an answer, `__cause__` is the
    `OSError` that says why.

    Attributes:
        status: the HTTP status, or the reply code of a SOCKS proxy; None if there was no
            valid answer.
        response: the response of an HTTP proxy, with the part of its body that was read; None
            if there was none.
    """

    def __init__(
        self, message: str, status: int | None = None, response: Response | None = None
    ) -> None:
        super().__init__(message, status, response)
        self.status = status
        self.response = response

    def __str__(self) -> str:
        return str(self.args[0])


class RequestError(HandshakeError):
    """The client's request cannot be accepted.

    Attributes:
        status: the HTTP status to answer with.
        headers: the header fields to send with it.
    """

    def __init__(self, message: str, status: int = 400, headers: HeadersLike = ()) -> None:
        super().__init__(message, status, headers)
        self.status = status
        self.headers = headers

    def __str__(self) -> str:
        return str(self.args[0])


class ResponseError(HandshakeError):
    """The server's response does not open a WebSocket connection.

    Attributes:
        response: the response, with the part of its body that was read; None if it was not
            HTTP.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message, response)
        self.response = response

    @property
    def status(self) -> int | None:
        """The status of the response; None if it was not HTTP."""
        return None if self.response is None else self.response.status

    def __str__(self) -> str:
        return str(self.args[0])


class IncompleteResponseError(ResponseError):
    """The connection ended before the server's response was whole."""


class FieldError(WebSocketError, LookupError):
    """A header field that was looked up appears more than once.

    What the peer sends causes this, so fastws does not treat it as a bug in the application. If
    it propagates from `process_request` or a handler, and is about the peer's header, the client
    gets a 400 or a close frame with 1008, and fastws logs a line at debug level.

    Attributes:
        name: the name that was looked up.
        count: the number of fields with this name.
    """

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, count)
        self.name = name
        self.count = count

    def __str__(self) -> str:
        return f"{self.count} header fields named {self.name}"


class MissingFieldError(FieldError, KeyError):
    """A header field that was looked up is missing."""

    def __init__(self, name: str, count: int = 0) -> None:
        super().__init__(name, count)

    def __str__(self) -> str:
        return f"no header field named {self.name}"


class StateError(WebSocketError):
    """A method was called at a time when it must not be called."""


class ConnectionClosed(WebSocketError):
    """The connection is closed, or closing.

    As a `str`, it says in one line how the connection ended, and what usually leads to that. If
    the operating system reported an error, it is the `__cause__`.

    Attributes:
        code: the close code (RFC 6455 §7.1.5): the peer's, 1005 if it sent none, our own if the
            peer broke the protocol or did not answer, or 1006 if the connection was lost without
            a close frame.
        reason: the peer's close reason, or a description of how the connection was lost.
        received: the peer's close frame; None if none has arrived.
        sent: our close frame (§5.5.1); None if there is none yet. Its code is 1005 if it has none.
            If the connection was lost, the frame may not have left.
        by_peer: whether the peer closed first. None if no side closed: the connection was lost,
            or never open.
        last_heard: how many seconds before the end something arrived from the peer, even if it was
            only part of a message. None if that is not known: the connection has not ended yet, or
            the operating system does not say (only Linux does, for TCP), or there is no asyncio.
        unsent: how many bytes waited to be sent at the end, as in `Stats.unsent`. None if that is
            not known: the connection has not ended yet, the transport was lost with its buffer,
            or there is no asyncio.
    """

    def __init__(
        self,
        code: int,
        reason: str = "",
        *,
        received: Close | None = None,
        sent: Close | None = None,
        by_peer: bool | None = None,
        last_heard: float | None = None,
        unsent: int | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.received = received
        self.sent = sent
        self.by_peer = by_peer
        self.last_heard = last_heard
        self.unsent = unsent

    @property
    def is_normal(self) -> bool:
        """Whether the connection ended normally (1000, 1001 or 1005)."""
        return self.code in NORMAL_CLOSE_CODES

    @property
    def meaning(self) -> str:
        """What usually leads to this code; "" for 1000 and codes without a registered meaning."""
        return closing.meaning(self.code)

    def __str__(self) -> str:
        return closing.describe(self)
