"""How a connection ended, and that in words: what close codes mean, and which side closed.

This module knows the facts and the words. It does not know how a connection ends, or which
exception says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .spec import CloseCode

if TYPE_CHECKING:
    from .events import Close
    from .exceptions import ConnectionClosed, ProtocolError

__all__ = ["Ending", "describe", "meaning", "name"]


@dataclass(slots=True, eq=False)
class Ending:
    """How a connection ended, or ends: see `ConnectionClosed` for most of this.

    The caller of a `Connection` sets the last three, which only it can know.

    Attributes:
        error: the peer's violation, or None.
        lost_by: the error of the operating system, or None.
    """

    code: int
    reason: str
    error: ProtocolError | None = None
    sent: Close | None = None
    received: Close | None = None
    by_peer: bool | None = None
    last_heard: float | None = None
    unsent: int | None = None
    lost_by: Exception | None = None


# What usually leads to a code (RFC 6455 §7.4.1, IANA's registry). 1000 needs no explanation.
_MEANINGS: Final = {
    1001: "a server shut down, or a browser left the page",
    1002: "one side broke the protocol, or something between them changed the data",
    1003: "the receiver does not take this kind of message, such as binary ones",
    1005: "the side that closed gave no code, as close() in a browser does by default",
    1006: "the network failed, a proxy's timeout expired, or the peer's process ended",
    1007: "text was not UTF-8, or compressed data was corrupt",
    1008: "a rule of the application was broken, or the peer read too slowly",
    1009: "a message was larger than the receiver allows (max_message_size)",
    1010: "the server did not agree to an extension that the client needs",
    1011: "the side that closed had an error, or got no answer to its pings; its log says more",
    1012: "the server restarts; connect again",
    1013: "the server is overloaded; connect again later",
    1014: "a gateway got no valid answer from the server behind it",
    1015: "the TLS handshake failed",
}


def name(code: int) -> str:
    """Return a close code with its name, if it has one."""
    try:
        return f"{code} {CloseCode(code).name.lower()}"
    except ValueError:
        return str(code)


def meaning(code: int) -> str:
    """Return what usually leads to a close code; "" if nothing can be said."""
    return _MEANINGS.get(code, "")


def describe(closed: ConnectionClosed) -> str:
    """Return in one line how a connection ended."""
    said = name(closed.code)
    if closed.reason:
        said += f": {_printable(closed.reason)}"
    if closed.by_peer is None and closed.last_heard is None and closed.unsent is None:
        return said
    parts = [said, _who(closed)]
    if closed.last_heard is not None:
        parts.append(f"peer last heard {closed.last_heard:.1f} s before")
    if closed.unsent is not None:
        parts.append(f"{closed.unsent or 'no'} bytes unsent")
    if usually := meaning(closed.code):
        parts.append(f"usually: {usually}")
    return "; ".join(parts)


def _who(closed: ConnectionClosed) -> str:
    """Return who closed, and with which codes."""
    sent = None if closed.sent is None else _code(closed.sent.code)
    received = None if closed.received is None else _code(closed.received.code)
    if closed.by_peer:
        answer = "we have not answered" if sent is None else f"we answered {sent}"
        return f"the peer closed {received}, {answer}"
    if sent is not None:
        answer = "has not answered" if received is None else f"answered {received}"
        return f"we closed {sent}, the peer {answer}"
    if closed.by_peer is None:
        return "no close frame was sent or received"
    return "we close, and have not said so yet"


def _code(code: int) -> str:
    return "without a code" if code == CloseCode.NO_STATUS_RCVD else f"with {code}"


def _printable(text: str) -> str:
    """Return what the peer wrote in one line that does nothing to a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]
