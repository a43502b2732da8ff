"""Heads of HTTP/1 messages: the start line and the header fields (RFC 9112), over h11.

This module knows how to read a head within limits, and how to write the head of a response. It
does not know what the fields mean, nor bodies, handshakes or sockets.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias, cast

import h11

from .http import TCHAR, Headers

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Head",
    "HeadReader",
    "date_field",
    "headers_of",
    "reason_of",
    "write_response_head",
]

_BLANK_LINE = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")
_REQUEST_START = re.compile(TCHAR.encode())
_RESPONSE_START = re.compile(b"H")

Head: TypeAlias = h11.Request | h11.InformationalResponse | h11.Response


# Reading ------------------------------------------------------------------------------------


class HeadReader:
    """Feeds h11 complete header blocks only.

    h11 limits the size of an incomplete block, but not of one that arrives complete, and its
    checks of the first bytes depend on how the data is split. With this class, a block gets the
    same limit and the same error whether it arrives in one piece or in many.

    Args:
        connection: the h11 parser.
        max_size: the maximum size of all blocks together, in bytes.
        max_fields: the maximum number of fields in one block.
    """

    def __init__(self, connection: h11.Connection, max_size: int, max_fields: int) -> None:
        self._connection = connection
        self._max_size = max_size
        self._max_fields = max_fields
        self._buffer = bytearray()
        self._searched = 0
        self._taken = 0

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer)

    def receive_data(self, data: Buffer) -> None:
        self._buffer += data

    def next_event(self) -> Head | None:
        is_server = self._connection.our_role is h11.SERVER
        if is_server and self._buffer.startswith((b"\r", b"\n")):
            self._skip_empty_lines()
            if self._buffer == b"\r":  # perhaps half of an empty line
                return None
        # Other protocols, such as a TLS hello, may never send a blank line.
        first = _REQUEST_START if is_server else _RESPONSE_START
        if self._buffer and not first.match(self._buffer):
            raise h11.RemoteProtocolError("not HTTP")
        # h11 looks for the same end, so it finds exactly one block in what it gets.
        room = max(0, self._max_size - self._taken)
        end = _BLANK_LINE.search(self._buffer, self._searched, room)
        size = end.end() if end else len(self._buffer)
        self._check_size(size)
        if end is None:
            self._searched = max(0, size - 2)
            return None
        # h11 would take long to parse more. Two lines are not fields: the start line and the
        # blank line. Each line of a folded field (RFC 9112 §5.2) counts.
        if self._buffer.count(b"\n", 0, size) > self._max_fields + 2:
            message = f"more than {self._max_fields} header fields"
            raise h11.RemoteProtocolError(message, error_status_hint=431)
        self._connection.receive_data(bytes(self._buffer[:size]))
        del self._buffer[:size]
        self._searched = 0
        self._taken += size
        return cast("Head", self._connection.next_event())

    def _skip_empty_lines(self) -> None:
        """Skip empty lines before a request (RFC 9112 §2.2)."""
        lines = cast("re.Match[bytes]", _EMPTY_LINES.match(self._buffer))
        self._taken += lines.end()
        del self._buffer[: lines.end()]
        self._check_size(0)

    def _check_size(self, size: int) -> None:
        if self._taken + size > self._max_size:
            message = f"header block over {self._max_size} bytes"
            raise h11.RemoteProtocolError(message, error_status_hint=431)


def headers_of(event: Head) -> Headers:
    return Headers(
        (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers.raw_items()
    )


def reason_of(error: h11.RemoteProtocolError) -> str:
    # h11 quotes the line that it refuses. That line may be long and comes from an untrusted peer,
    # so it must not appear in a response or a log.
    return str(error).partition(": bytearray(")[0]


# Writing ------------------------------------------------------------------------------------

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def write_response_head(status: int, reason: str, headers: Headers) -> bytes:
    # h11's writer does not refuse line breaks in a reason, and treats a 2xx answer to CONNECT
    # as a tunnel. Headers and Response contain nothing that could break a line.
    reason = reason or _PHRASES.get(status, "")
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *lines, "", ""]).encode("latin-1")


def date_field() -> tuple[str, str]:
    return "Date", formatdate(usegmt=True)
