"""How `fastws probe` checks servers.

This module knows how data is sent to a server and what counts as its answer. It does not know
which answers are right: that is in `_checks`. Nor does it judge what arrives; the codec does.
Each check uses a connection of its own and sends some hundred bytes at most, so that a server in
use is not disturbed. A check ends after MAX_RECEIVED bytes or after its timeout, so that a server
cannot disturb us either.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl as ssl_module
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from fastws.codec import MessageDecoder
from fastws.deflate import PerMessageDeflate
from fastws.events import Close, Pong
from fastws.exceptions import HandshakeError, MessageTooBigError
from fastws.handshake import ClientHandshake
from fastws.uri import parse_uri

from ._checks import CHECKS, Check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastws.uri import URI

__all__ = [
    "CHECKS",
    "MANNERS",
    "MAX_RECEIVED",
    "OUT_OF_TIME",
    "Check",
    "Result",
    "Skipped",
    "TooMuch",
    "Wire",
    "control_answer",
    "judge",
    "now",
    "probe",
    "send",
]

MANNERS: Final = ("whole", "byte by byte")

# The most that a check reads, in bytes, before the server counts as one that does not answer.
MAX_RECEIVED: Final = 1 << 20

# The answer of a check for which there was no time.
OUT_OF_TIME: Final = "not tried: the time for all checks is up"

# The most that is held before it is read, in bytes, and the longest answer, in characters.
_MAX_WAITING = 64 << 10
_MAX_ANSWER = 200


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check.

    Attributes:
        check: the check.
        manner: how the data was sent: one of MANNERS.
        verdict: "ok", "wrong" or "skipped".
        answer: what the server did.
        seconds: how long the check took.
    """

    check: Check
    manner: str
    verdict: str
    answer: str
    seconds: float = 0.0


async def probe(
    uri: str,
    *,
    ssl: ssl_module.SSLContext | None = None,
    timeout: float = 5.0,
    total_timeout: float | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run all checks against a server, one after the other.

    Args:
        uri: a ws://, wss:// or ws+unix:// URI.
        ssl: the context for wss://; by default `ssl.create_default_context()`.
        timeout: how long a check may take, connecting included, in seconds.
        total_timeout: how long all checks together may take, in seconds; by default 60 times
            `timeout`. A check that does not begin in time is skipped, with the answer OUT_OF_TIME.
        on_result: called with each result as it arrives.

    Returns:
        the results: for each of CHECKS, one for each of MANNERS.

    Raises:
        InvalidURIError: if `uri` is not a WebSocket URI.
        OSError, TimeoutError, HandshakeError: if there is no WebSocket server. If the server
            ends a connection later, or accepts no more, that is the answer of a check.
    """
    address = parse_uri(uri)
    if not address.secure:
        ssl = None
    elif ssl is None:
        ssl = ssl_module.create_default_context()
    end = now()
    end += 60 * timeout if total_timeout is None else total_timeout
    try:
        async with asyncio.timeout(timeout), _session(address, ssl) as session:
            await session.open(deflate=False)
    except TooMuch as exc:
        raise HandshakeError(str(exc)) from None
    results = []
    for check in CHECKS:
        for manner in MANNERS:
            result = await _run(check, manner, address, ssl, min(end, now() + timeout))
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results


def now() -> float:
    """Return the time of the event loop, in seconds."""
    return asyncio.get_running_loop().time()


async def _run(
    check: Check, manner: str, uri: URI, ssl: ssl_module.SSLContext | None, deadline: float
) -> Result:
    """Make one check, which ends at the deadline whatever the server does."""
    # (uvloop's timers may end a millisecond early.)
    if deadline - now() < 0.002:
        return Result(check, manner, "skipped", OUT_OF_TIME)
    begin = now()
    session = None
    try:
        async with asyncio.timeout_at(deadline), _session(uri, ssl) as session:
            answer = await session.run(check, manner)
    except Skipped as exc:
        return Result(check, manner, "skipped", str(exc), now() - begin)
    except TimeoutError as exc:
        # The operating system raises this error too, with an error number.
        answer = "no connection: it takes too long" if session is None else "no answer"
        if exc.errno is not None:
            answer = "connection timed out"
    except TooMuch as exc:
        answer = str(exc)
    except HandshakeError as exc:
        answer = f"no connection: {exc}"
    except OSError as exc:
        if session is None:
            answer = (
                f"no connection: {exc.strerror if exc.errno is None else os.strerror(exc.errno)}"
            )
        elif isinstance(exc, ConnectionError):
            answer = "connection reset"
        else:
            answer = f"connection lost: {exc}"
    return judge(check, manner, answer, now() - begin)


def judge(check: Check, manner: str, answer: str, seconds: float) -> Result:
    """Return the result of a check with this answer."""
    expected = any(_matches(answer, text) for text in check.expected)
    verdict = "ok" if expected else "wrong"
    return Result(check, manner, verdict, answer[:_MAX_ANSWER], seconds)


# One connection -----------------------------------------------------------------------------


class TooMuch(Exception):
    """The peer has sent too much that is no answer."""


class Skipped(Exception):
    """The check cannot be made with this peer."""


class Wire(asyncio.Protocol):
    """Reads what a peer sends, up to a limit, and to the end even if a write fails."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._size = 0  # of _waiting, in bytes
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size > _MAX_WAITING and self._transport is not None:
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> None:
        self._ended = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self.eof_received()

    @property
    def ended(self) -> bool:
        """Whether the peer sends no more."""
        return self._ended

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """Say that no more will be sent."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """End the connection when all is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def receive(self) -> bytes:
        """Return the data that has arrived, or b"" at the end.

        Raises:
            OSError: if the connection was lost.
            TooMuch: if more than MAX_RECEIVED bytes have arrived in all.
        """
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            raise TooMuch(f"no answer within {MAX_RECEIVED} bytes")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data


@asynccontextmanager
async def _session(uri: URI, ssl: ssl_module.SSLContext | None) -> AsyncIterator[_Session]:
    loop = asyncio.get_running_loop()
    wire = Wire()
    try:
        if uri.unix_path is not None:
            await loop.create_unix_connection(lambda: wire, uri.unix_path)
        else:
            # A final dot makes a name absolute for DNS; certificates are without it (RFC 6066 §3).
            name = None if ssl is None else uri.host.removesuffix(".")
            await loop.create_connection(
                lambda: wire, uri.host, uri.port, ssl=ssl, server_hostname=name
            )
        yield _Session(uri, wire)
    finally:
        wire.abort()


class _Compressed:
    """Takes the place of a decompressor: the contents of messages do not matter here."""

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        return b""


class _Session:
    def __init__(self, uri: URI, wire: Wire) -> None:
        self._uri = uri
        self._wire = wire
        self._trailing = b""

    async def open(self, *, deflate: bool) -> bool:
        """Make the opening handshake; return whether compression is as requested."""
        extensions = [PerMessageDeflate()] if deflate else []
        handshake = ClientHandshake(self._uri, extensions=extensions)
        self._wire.write(handshake.request())
        while True:
            data = await self._wire.receive()
            if not data:
                handshake.receive_eof()
            if handshake.receive_data(data) is not None:
                break
        self._trailing = handshake.trailing_data
        return (handshake.deflate is not None) == deflate

    async def run(self, check: Check, manner: str) -> str:
        """Return the answer to a check."""
        if check.request:
            target, host = self._uri.target, self._uri.host_header
            request = check.request.format(target=target, host=host)
            await send(self._wire, request.encode(), manner)
            return await self._status()
        if not await self.open(deflate=check.deflate):
            raise Skipped("permessage-deflate is not negotiated")
        await send(self._wire, check.data, manner)
        decoder = MessageDecoder(
            masked=False,
            max_message_size=MAX_RECEIVED,
            inflater=_Compressed() if check.deflate else None,
        )
        return await control_answer(self._wire, decoder, self._trailing)

    async def _status(self) -> str:
        """Read the status line of a response."""
        line = b""
        while b"\n" not in line:
            data = await self._wire.receive()
            if not data and not line:
                return "connection closed without an answer"
            line += data
            if not data or len(line) > _MAX_WAITING:
                break
        parts = line.partition(b"\n")[0].decode("latin-1").split(" ", 2)
        version, status, *_ = *parts, ""
        # A server may refuse in HTTP/1.0 what it cannot read.
        versions = ("HTTP/1.1",) if status == "101" else ("HTTP/1.0", "HTTP/1.1")
        if version in versions and re.fullmatch("[1-9][0-9]{2}", status):
            return f"HTTP {status}"
        return "not HTTP"


# What both ends need ------------------------------------------------------------------------


async def send(wire: Wire, data: bytes, manner: str) -> None:
    """Send data in one of the MANNERS. (It would take long to send very much byte by byte.)"""
    step = max(len(data) >> 10, 1) if manner == "byte by byte" else len(data)
    for start in range(0, len(data), step):
        if wire.ended:
            return  # the answer has arrived, or there will be none
        wire.write(data[start : start + step])
        # Read what arrives before the next write: if that fails, reading ends.
        await asyncio.sleep(0)


async def control_answer(wire: Wire, decoder: MessageDecoder, data: bytes = b"") -> str:
    """Read up to the first answer; messages do not count as answers.

    Args:
        wire: the connection.
        decoder: decodes what arrives.
        data: what has arrived already.
    """
    while True:
        for event in decoder.feed(data):
            match event:
                case Close(1005, _):
                    return "close without a code"
                case Close(code, _):
                    return f"close {code}"
                case Pong(payload):
                    return f"pong {payload.decode('latin-1')!r}"
        if isinstance(decoder.error, MessageTooBigError):
            raise TooMuch(f"no answer, but a {decoder.error}")
        if decoder.error is not None:
            return f"a broken frame: {decoder.error}"
        data = await wire.receive()
        if not data:
            return "connection closed without a close frame"


def _matches(answer: str, expected: str) -> bool:
    match expected:
        case "HTTP 4xx":
            return answer.startswith("HTTP 4")
        case "HTTP, but not 101":
            return answer.startswith("HTTP ") and answer != "HTTP 101"
        case _:
            return answer == expected
