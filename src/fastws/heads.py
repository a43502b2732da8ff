"""Heads of HTTP/1 messages: the start line and the header fields (RFC 9112).

This module knows how to read a head within limits, and how to write one. It does not know what
the fields mean, nor bodies, handshakes or sockets.

h11 reads every head, unless httptools is installed: then that reads the usual ones, and h11 all
others. A head is usual if it is as browsers write it: no folded lines, no bare line feeds, no
control characters, no body. Both read such a head in the same way, so it makes no difference
which of them did, except in time. `FASTWS_HTTP=h11` leaves everything to h11, and
`FASTWS_HTTP=httptools` requires httptools.

Attributes:
    parser: the parser of usual heads: "h11" or "httptools".
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, Self, TypeAlias, cast

import h11

from .http import TCHAR, Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

__all__ = [
    "PARSERS",
    "HeadError",
    "RequestReader",
    "ResponseReader",
    "date",
    "parser",
    "use",
    "write_fields",
    "write_request_head",
    "write_response_head",
]

# Returns the values of the fields in a block by lower-case name; None if h11 is to read it. The
# second argument is whether the block is a request.
_Parse: TypeAlias = Callable[[bytes, bool], "dict[str, list[str]] | None"]

_BLANK_LINE = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")
_REQUEST_START = re.compile(TCHAR.encode())
_RESPONSE_START = re.compile(b"H")
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
    """Collects header blocks, and passes only complete ones on.

    h11 limits the size of an incomplete block, but not of one that arrives complete, and its
    checks of the first bytes depend on how the data is split. With this class, a block gets the
    same limit and the same error whether it arrives in one piece or in many.

    Args:
        max_size: the maximum size of all blocks together, in bytes.
        max_fields: the maximum number of fields in one block.
    """

    def __init__(self, max_size: int, max_fields: int) -> None:
        self._max_size = max_size
        self._max_fields = max_fields
        self._buffer = bytearray()
        self._searched = 0
        self._taken = 0

    def again(self) -> Self:
        """Return a reader for another connection, with the same limits."""
        return type(self)(self._max_size, self._max_fields)

    @property
    def rest(self) -> bytes:
        """The bytes after the last block."""
        return bytes(self._buffer)

    def receive_data(self, data: Buffer) -> None:
        self._buffer += data

    def _next_block(self, start: re.Pattern[bytes]) -> bytes | None:
        """Return the next block, without what precedes it; None if it is not complete."""
        buffer = self._buffer
        # Other protocols, such as a TLS hello, may never send a blank line.
        if buffer and not start.match(buffer):
            raise HeadError("not HTTP")
        # h11 looks for the same end, so it finds exactly one block in what it gets.
        room = max(0, self._max_size - self._taken)
        end = _BLANK_LINE.search(buffer, self._searched, room)
        if end is None:
            size = len(buffer)
            self._check_size(size)
            self._searched = max(0, size - 2)
            return None
        size = end.end()
        # h11 would take long to parse more. Two lines are not fields: the start line and the
        # blank line. Each line of a folded field (RFC 9112 §5.2) counts.
        if buffer.count(b"\n", 0, size) > self._max_fields + 2:
            raise HeadError(f"more than {self._max_fields} header fields", 431)
        block = bytes(buffer[:size])
        del buffer[:size]
        self._searched = 0
        self._taken += size
        return block

    def _check_size(self, size: int) -> None:
        if self._taken + size > self._max_size:
            raise HeadError(f"header block over {self._max_size} bytes", 431)


class RequestReader(_HeadReader):
    """Reads one request."""

    def next_request(self) -> Request | None:
        """Return the request; None if it is not complete.

        Raises:
            HeadError: if it is malformed, or exceeds a limit.
        """
        if self._buffer.startswith((b"\r", b"\n")):
            self._skip_empty_lines()
            if self._buffer == b"\r":  # perhaps half of an empty line
                return None
        block = self._next_block(_REQUEST_START)
        if block is None:
            return None
        return _read_usual_request(block) or _read_request(block)

    def _skip_empty_lines(self) -> None:
        """Skip empty lines before a request (RFC 9112 §2.2)."""
        lines = cast("re.Match[bytes]", _EMPTY_LINES.match(self._buffer))
        self._taken += lines.end()
        del self._buffer[: lines.end()]
        self._check_size(0)


class ResponseReader(_HeadReader):
    """Reads the responses to a request for an upgrade.

    Attributes:
        connection: the h11 parser, for the body of a response that is no upgrade.
    """

    connection: h11.Connection | None = None

    def next_response(self) -> tuple[Response, str] | None:
        """Return the next response, without its body, and its HTTP version, as in "1.1"; None if
        it is not complete.

        Raises:
            HeadError: if it is malformed, or exceeds a limit.
        """
        block = self._next_block(_RESPONSE_START)
        if block is None:
            return None
        if self.connection is None:
            if (response := _read_usual_response(block)) is not None:
                return response, "1.1"
            self.connection = h11.Connection(h11.CLIENT)
            self.connection.send(_ANY_UPGRADE)
            self.connection.send(h11.EndOfMessage())
        event = cast("h11.InformationalResponse | h11.Response", _next_event(self.connection, block))
        reason = event.reason.decode("latin-1")
        response = Response(event.status_code, _headers_of(event), reason=reason)
        return response, event.http_version.decode("ascii")


# What h11 has to know of a request in order to read the response.
_ANY_UPGRADE = h11.Request(
    method="GET",
    target="/",
    headers=[("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
)


def _read_request(block: bytes) -> Request:
    event = cast("h11.Request", _next_event(h11.Connection(h11.SERVER), block))
    return Request(
        event.method.decode("ascii"),
        event.target.decode("ascii"),
        _headers_of(event),
        event.http_version.decode("ascii"),
    )


def _next_event(connection: h11.Connection, block: bytes) -> object:
    try:
        connection.receive_data(block)
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        # h11 quotes the line that it refuses. That line may be long and comes from an untrusted
        # peer, so it must not appear in a response or a log.
        message = str(error).partition(": bytearray(")[0]
        # h11 asks for 501 if it does not know a transfer coding. That does not matter here: a
        # request with a body is refused anyway.
        raise HeadError(message, 431 if error.error_status_hint == 431 else 400) from None


def _headers_of(event: h11.Request | h11.InformationalResponse | h11.Response) -> Headers:
    return Headers(
        (name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers.raw_items()
    )


# Usual heads ----------------------------------------------------------------------------------

# What RFC 9112 §2.1, §3, §4 and §5 say of a head, without what a recipient may tolerate. h11
# reads such a head and all of it, and so does httptools. The possessive quantifiers keep the time
# proportional to the size.
_FIELDS = rf"((?:{TCHAR}++:[\t -~\x80-\xff]*+\r\n)++)\r\n".encode("latin-1")
_USUAL_REQUEST = re.compile(rb"GET ([!-~]++) HTTP/1\.1\r\n" + _FIELDS)
_USUAL_RESPONSE = re.compile(rb"HTTP/1\.1 101 ([\t -~\x80-\xff]*+)\r\n" + _FIELDS)

# A body needs one of these, and h11 has rules for them.
_BODY = ("content-length", "transfer-encoding")


def _read_usual_request(block: bytes) -> Request | None:
    """Return a request; None if it is not a usual one."""
    if _parse is None or (head := _USUAL_REQUEST.fullmatch(block)) is None:
        return None
    values = _parse(block, True)
    # RFC 9112 §3.2
    if values is None or len(values.get("host", ())) != 1:
        return None
    target, lines = head.groups()
    return Request("GET", target.decode("ascii"), _usual_headers(lines, values), "1.1")


def _read_usual_response(block: bytes) -> Response | None:
    """Return a 101 response; None if it is not a usual one."""
    if _parse is None or (head := _USUAL_RESPONSE.fullmatch(block)) is None:
        return None
    values = _parse(block, False)
    if values is None:
        return None
    reason, lines = head.groups()
    return Response(101, _usual_headers(lines, values), reason=reason.decode("latin-1"))


def _usual_headers(lines: bytes, values: dict[str, list[str]]) -> Headers:
    return Headers._of_lines(lines[:-2].decode("latin-1"), values)


def _load_h11() -> None:
    """Leave usual heads to h11, like all others."""


def _load_httptools() -> _Parse:
    from httptools import (
        HttpParserError,
        HttpParserUpgrade,
        HttpRequestParser,
        HttpResponseParser,
    )

    def parse(block: bytes, is_request: bool) -> dict[str, list[str]] | None:
        values: dict[str, list[str]] = {}

        def on_header(name: bytes, value: bytes) -> None:
            key = name.decode("ascii").lower()
            text = value.decode("latin-1").strip(" \t")
            if key in values:
                values[key].append(text)
            else:
                values[key] = [text]

        protocol = SimpleNamespace(on_header=on_header)
        parser = HttpRequestParser(protocol) if is_request else HttpResponseParser(protocol)
        try:
            parser.feed_data(block)
        except HttpParserUpgrade as exc:
            # It found the end of the head where we did.
            if exc.args[0] == len(block) and not any(name in values for name in _BODY):
                return values
        except HttpParserError:
            pass
        return None

    return parse


# By name. A loader raises ImportError if the parser is not installed.
PARSERS: Final[dict[str, Callable[[], _Parse | None]]] = {
    "httptools": _load_httptools,
    "h11": _load_h11,
}


def use(name: str) -> None:
    """Choose the parser of usual heads.

    Raises:
        ImportError: if it is not installed.
    """
    global parser, _parse
    _parse = PARSERS[name]()
    parser = name


def _choose() -> None:
    wanted = os.environ.get("FASTWS_HTTP", "")
    if wanted:
        if wanted not in PARSERS:
            raise ImportError(f"FASTWS_HTTP must be {' or '.join(PARSERS)}, not {wanted!r}")
        use(wanted)
        return
    use("h11")
    # Importing httptools could enable the GIL of a free-threaded Python.
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        with suppress(ImportError):
            use("httptools")


parser: str
_parse: _Parse | None
_choose()


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
        raise ValueError(f"not a request target: {target!r}")
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
