"""Heads of HTTP/1 messages: the start line and the header fields (RFC 9112), over h11.

This module knows how to read a head within limits, and how to write one. It does not know what
the fields mean, nor bodies, handshakes or sockets.

Nearly all heads are as browsers and well-behaved clients write them, and need no parser: one
regular expression recognizes them, and their lines need only be split. h11 reads all others, and
says what is wrong with them. It would read the usual ones in the same way;
`tests/test_heads.py` compares the two.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Self, cast

import h11

from .http import TCHAR, Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

__all__ = [
    "HeadError",
    "RequestReader",
    "ResponseReader",
    "date",
    "headers_of",
    "reason_of",
    "write_fields",
    "write_request_head",
    "write_response_head",
]

_BLANK_LINE = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")

# The fields of a usual head, and the blank line: what RFC 9112 §5 allows a sender to write, and
# h11 accepts. There is no line folding, no bare CR or LF, and no control character. The possessive
# quantifiers keep the time proportional to the size.
_FIELDS = rf"((?:{TCHAR}++:[\t -~\x80-\xff]*+\r\n)++)\r\n".encode("latin-1")

_TARGET = re.compile(r"[!-~]+")


class HeadError(Exception):
    """A head is malformed, or exceeds a limit.

    Attributes:
        status: the status of a response that says so.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


# Reading ------------------------------------------------------------------------------------


class _HeadReader:
    """Collects heads, and passes only complete ones on.

    h11 limits the size of an incomplete head, but not of one that arrives complete, and its
    checks of the first bytes depend on how the data is split. With this class, a head gets the
    same limit and the same error whether it arrives in one piece or in many.

    Args:
        max_size: the maximum size of all heads together, in bytes.
        max_fields: the maximum number of fields in one head.
    """

    # How heads begin, and what usual ones are.
    _START: ClassVar[re.Pattern[bytes]]
    _USUAL: ClassVar[re.Pattern[bytes]]

    def __init__(self, max_size: int, max_fields: int) -> None:
        self._max_size = max_size
        self._max_fields = max_fields
        self._buffer = bytearray()
        self._searched = 0  # for the end of the head; more than 0 if it arrives in pieces
        self._taken = 0

    def again(self) -> Self:
        """Return a reader for another connection, with the same limits."""
        return type(self)(self._max_size, self._max_fields)

    @property
    def rest(self) -> bytes:
        """The bytes after the last head."""
        return bytes(self._buffer)

    def receive_data(self, data: Buffer) -> None:
        self._buffer += data

    def _match_usual(self) -> re.Match[bytes] | None:
        """Return a head that is complete, usual and within the limits, if there is one."""
        head = self._USUAL.match(self._buffer, 0, self._room())
        if head is not None and self._has_too_many_fields(head.end()):
            return None
        return head

    def _find_end(self) -> int | None:
        """Return where the head ends; None if it is not complete."""
        # Other protocols, such as a TLS hello, may never send a blank line.
        if self._buffer and not self._START.match(self._buffer):
            raise HeadError("not HTTP")
        # h11 looks for the same end, so it finds exactly one head in what it gets.
        end = _BLANK_LINE.search(self._buffer, max(0, self._searched - 2), self._room())
        self._check_size(end.end() if end else len(self._buffer))
        if end is None:
            self._searched = len(self._buffer)
            return None
        # h11 would take long to parse more.
        if self._has_too_many_fields(end.end()):
            raise HeadError(f"more than {self._max_fields} header fields", 431)
        return end.end()

    def _room(self) -> int:
        return max(0, self._max_size - self._taken)

    def _check_size(self, size: int) -> None:
        if self._taken + size > self._max_size:
            raise HeadError(f"header block over {self._max_size} bytes", 431)

    def _has_too_many_fields(self, size: int) -> bool:
        # Two lines are not fields: the start line and the blank line. Each line of a folded field
        # (RFC 9112 §5.2) counts.
        return self._buffer.count(b"\n", 0, size) > self._max_fields + 2

    def _take(self, size: int) -> bytes:
        """Remove the head from the data, and return it."""
        head = bytes(self._buffer[:size])
        self._skip(size)
        return head

    def _skip(self, size: int) -> None:
        del self._buffer[:size]
        self._taken += size
        self._searched = 0


class RequestReader(_HeadReader):
    """Reads one request."""

    _START = re.compile(TCHAR.encode())
    _USUAL = re.compile(rb"GET ([!-~]++) HTTP/1\.1\r\n" + _FIELDS)

    def next_request(self) -> Request | None:
        """Return the request; None if it is not complete.

        Raises:
            HeadError: if it is malformed, or exceeds a limit.
        """
        if not self._searched and (request := self._usual_request()) is not None:
            return request
        if self._buffer.startswith((b"\r", b"\n")):
            self._skip_empty_lines()
            if self._buffer == b"\r":  # perhaps half of an empty line
                return None
        end = self._find_end()
        if end is None:
            return None
        return (self._usual_request() if self._searched else None) or _parse_request(
            self._take(end)
        )

    def _usual_request(self) -> Request | None:
        head = self._match_usual()
        if head is None:
            return None
        target, lines = head.groups()
        headers = Headers._of_lines(lines[:-2].decode("latin-1"))
        # RFC 9112 §3.2; h11 knows what to say.
        if len(headers._values.get("host", ())) != 1 or _has_body(headers):
            return None
        self._skip(head.end())
        return Request("GET", target.decode("ascii"), headers, "1.1")

    def _skip_empty_lines(self) -> None:
        """Skip empty lines before a request (RFC 9112 §2.2)."""
        lines = cast("re.Match[bytes]", _EMPTY_LINES.match(self._buffer))
        self._skip(lines.end())
        self._check_size(0)


class ResponseReader(_HeadReader):
    """Reads the responses to a request for an upgrade.

    Attributes:
        connection: the h11 parser, for the body of a response that is no upgrade.
    """

    _START = re.compile(b"H")
    _USUAL = re.compile(rb"HTTP/1\.1 101 ([\t -~\x80-\xff]*+)\r\n" + _FIELDS)

    connection: h11.Connection | None = None

    def next_response(self) -> tuple[Response, str] | None:
        """Return the next response, without its body, and its HTTP version, as in "1.1"; None if
        it is not complete.

        Raises:
            HeadError: if it is malformed, or exceeds a limit.
        """
        if not self._searched and (response := self._usual_response()) is not None:
            return response, "1.1"
        end = self._find_end()
        if end is None:
            return None
        if self._searched and (response := self._usual_response()) is not None:
            return response, "1.1"
        if self.connection is None:
            self.connection = h11.Connection(h11.CLIENT)
            self.connection.send(_ANY_UPGRADE)
            self.connection.send(h11.EndOfMessage())
        return _parse_response(self.connection, self._take(end))

    def _usual_response(self) -> Response | None:
        head = self._match_usual()
        if head is None:
            return None
        reason, lines = head.groups()
        headers = Headers._of_lines(lines[:-2].decode("latin-1"))
        if _has_body(headers):
            return None
        self._skip(head.end())
        return Response(101, headers, reason=reason.decode("latin-1"))


def _has_body(headers: Headers) -> bool:
    # h11 has rules for these.
    return "content-length" in headers._values or "transfer-encoding" in headers._values


# What h11 has to know of a request in order to read the response.
_ANY_UPGRADE = h11.Request(
    method="GET",
    target="/",
    headers=[("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
)


def _parse_request(head: bytes) -> Request:
    event = cast("h11.Request", _next_event(h11.Connection(h11.SERVER), head))
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        headers_of(event),
        event.http_version.decode("ascii"),
    )


def _parse_response(connection: h11.Connection, head: bytes) -> tuple[Response, str]:
    event = cast("h11.InformationalResponse | h11.Response", _next_event(connection, head))
    reason = event.reason.decode("latin-1")
    response = Response(event.status_code, headers_of(event), reason=reason)
    return response, event.http_version.decode("ascii")


def _next_event(connection: h11.Connection, head: bytes) -> object:
    try:
        connection.receive_data(head)
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        # h11 asks for 501 if it does not know a transfer coding. That does not matter here: a
        # request with a body is refused anyway.
        status = 431 if error.error_status_hint == 431 else 400
        raise HeadError(reason_of(error), status) from None


def reason_of(error: h11.RemoteProtocolError) -> str:
    """Return why h11 refused what a peer sent."""
    # h11 quotes the line that it refuses. That line may be long and comes from an untrusted peer,
    # so it must not appear in a response or a log.
    return str(error).partition(": bytearray(")[0]


def headers_of(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    """Return the fields that h11 has read."""
    return Headers(
        (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers.raw_items()
    )


# Writing ------------------------------------------------------------------------------------

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# h11's writer does not refuse line breaks in a reason, and treats a 2xx answer to CONNECT as a
# tunnel. Headers and Response contain nothing that could break a line.


def write_request_head(target: str, headers: Headers) -> bytes:
    """Return the head of a GET request.

    Raises:
        ValueError: if the target cannot be sent, or there is not exactly one Host.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"invalid request target: {target!r}")
    if len(headers.get_all("Host")) != 1:
        raise ValueError("no Host, or more than one")
    # RFC 9110 §7.2: Host should be the first field.
    fields = sorted(headers.items(), key=lambda field: field[0].lower() != "host")
    return f"GET {target} HTTP/1.1\r\n{write_fields(fields)}\r\n".encode("latin-1")


def write_response_head(status: int, reason: str, headers: Headers) -> bytes:
    """Return the head of a response. Without a reason, it has the registered one."""
    reason = reason or _PHRASES.get(status, "")
    fields = write_fields(headers.items())
    return f"HTTP/1.1 {status} {reason}\r\n{fields}\r\n".encode("latin-1")


def write_fields(fields: Iterable[tuple[str, str]]) -> str:
    """Return the lines of header fields."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields])


def date() -> str:
    """Return the time as a value of Date (RFC 9110 §5.6.7), which has a resolution of a second."""
    global _date
    now = int(time.time())
    if now != _date[0]:
        _date = now, formatdate(now, usegmt=True)
    return _date[1]


_date = (0, "")
