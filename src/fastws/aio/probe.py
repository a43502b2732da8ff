"""Probe a WebSocket server: what does it answer to input that breaks the rules?

This module knows what a client may not send, and what RFC 6455 and RFC 7692 want a server to
answer. It does not judge what arrives here; that is for the codec. Each check has a connection
of its own and sends some hundred bytes at most, so that a server in use is not disturbed. Nor can
a server disturb us: a check ends after MAX_RECEIVED bytes, and after its timeout.
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

from fastws.codec import MessageDecoder, encode_frame
from fastws.deflate import PerMessageDeflate
from fastws.events import Close, Pong
from fastws.exceptions import HandshakeError, MessageTooBigError
from fastws.handshake import ClientHandshake
from fastws.rules import close_payload
from fastws.spec import FIN, LENGTH_16, LENGTH_64, MASK, RSV1, RSV2, RSV3, Opcode
from fastws.uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastws.uri import URI

__all__ = ["CHECKS", "MANNERS", "MAX_RECEIVED", "OUT_OF_TIME", "Check", "Result", "probe"]

MANNERS: Final = ("whole", "byte by byte")

# What is read in one check, in bytes, before the server is taken for one that does not answer.
MAX_RECEIVED: Final = 1 << 20

# The answer of a check that was not made any more.
OUT_OF_TIME: Final = "not tried: the time for all checks is up"

# How much may arrive before it is looked at, and how much of an answer is told.
_MAX_WAITING = 64 << 10
_MAX_ANSWER = 200

# Of RFC 6455's examples; to be unpredictable would serve nobody here.
_KEY: Final = b"\x37\xfa\x21\x3d"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try.

    Attributes:
        name: what is sent.
        section: where it is ruled on.
        rule: the rule, in short.
        expected: the answers that follow the rule, such as "close 1002" or "HTTP 426".
        data: what to send once the connection is open.
        request: the request to send instead; {target} and {host} stand for the server's.
        deflate: whether permessage-deflate has to be agreed on first.
    """

    name: str
    section: str
    rule: str
    expected: tuple[str, ...]
    data: bytes = b""
    request: str = ""
    deflate: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check.

    Attributes:
        check: the check.
        manner: one of MANNERS: how the data was sent.
        verdict: "ok", "wrong" or "skipped".
        answer: what the server did.
    """

    check: Check
    manner: str
    verdict: str
    answer: str


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
        uri: a ws:// or wss:// URI.
        ssl: the context for wss://; by default `ssl.create_default_context()`.
        timeout: how long a check may take, in seconds, and to connect for it.
        total_timeout: how long all of them may take, in seconds; by default 60 times `timeout`.
            A check that does not begin in time is skipped, with the answer OUT_OF_TIME.
        on_result: called with each result as it comes.

    Returns:
        the results: for each of CHECKS one for each of MANNERS.

    Raises:
        InvalidURIError: if `uri` is not a WebSocket URI.
        OSError, TimeoutError, HandshakeError: if there is no WebSocket server. That a server
            ends a connection, or takes no more of them, is the answer of a check.
    """
    address = parse_uri(uri)
    if not address.secure:
        ssl = None
    elif ssl is None:
        ssl = ssl_module.create_default_context()
    end = asyncio.get_running_loop().time()
    end += 60 * timeout if total_timeout is None else total_timeout
    try:
        async with asyncio.timeout(timeout), _session(address, ssl) as session:
            await session.open(deflate=False)
    except _TooMuch as exc:
        raise HandshakeError(str(exc)) from None
    results = []
    for check in CHECKS:
        for manner in MANNERS:
            result = await _run(check, manner, address, ssl, min(end, _now() + timeout))
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _run(
    check: Check, manner: str, uri: URI, ssl: ssl_module.SSLContext | None, deadline: float
) -> Result:
    """Make one check, whatever the server does, until a time of the event loop."""
    if deadline <= _now():
        return Result(check, manner, "skipped", OUT_OF_TIME)
    session = None
    try:
        async with asyncio.timeout_at(deadline), _session(uri, ssl) as session:
            answer = await session.run(check, manner)
    except _Skipped as exc:
        return Result(check, manner, "skipped", str(exc))
    except TimeoutError as exc:
        # The operating system has such an error too, with a number.
        answer = "no connection: it takes too long" if session is None else "no answer"
        if exc.errno is not None:
            answer = "connection timed out"
    except _TooMuch as exc:
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
    expected = any(_matches(answer, text) for text in check.expected)
    return Result(check, manner, "ok" if expected else "wrong", answer[:_MAX_ANSWER])


# One connection -----------------------------------------------------------------------------


class _TooMuch(Exception):
    """The server sends and sends, and that is no answer."""


class _Skipped(Exception):
    """The check cannot be made with this server."""


class _Wire(asyncio.Protocol):
    """What a server sends, up to a limit; it can be read to the end even if a write failed."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._size = 0  # of what waits
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
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
        """Whether the server sends no more."""
        return self._ended

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def receive(self) -> bytes:
        """Return what came, or b"" at the end.

        Raises:
            OSError: if the connection was lost in another way.
            _TooMuch: if it is more than MAX_RECEIVED bytes in all.
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
            raise _TooMuch(f"no answer within {MAX_RECEIVED} bytes")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data


@asynccontextmanager
async def _session(uri: URI, ssl: ssl_module.SSLContext | None) -> AsyncIterator[_Session]:
    loop = asyncio.get_running_loop()
    wire = _Wire()
    try:
        # A dot at the end makes a name absolute for DNS; no certificate has it (RFC 6066 §3).
        name = None if ssl is None else uri.host.removesuffix(".")
        await loop.create_connection(
            lambda: wire, uri.host, uri.port, ssl=ssl, server_hostname=name
        )
        yield _Session(uri, wire)
    finally:
        wire.abort()


class _Compressed:
    """In the place of a decompressor: what messages say does not matter here."""

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        return b""


class _Session:
    def __init__(self, uri: URI, wire: _Wire) -> None:
        self._uri = uri
        self._wire = wire
        self._trailing = b""

    async def open(self, *, deflate: bool) -> bool:
        """Go through the opening handshake; tell whether compression is as wanted."""
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
            await self._send(request.encode(), manner)
            return await self._status()
        if not await self.open(deflate=check.deflate):
            raise _Skipped("permessage-deflate is not agreed on")
        await self._send(check.data, manner)
        return await self._answer(deflate=check.deflate)

    async def _send(self, data: bytes, manner: str) -> None:
        step = 1 if manner == "byte by byte" else len(data)
        for start in range(0, len(data), step):
            if self._wire.ended:
                return  # the answer is there, or there will be none
            self._wire.write(data[start : start + step])
            # What arrives is read before the next write can fail, for that ends all reading.
            await asyncio.sleep(0)

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
        if len(parts) > 1 and parts[0] == "HTTP/1.1" and re.fullmatch("[1-9][0-9]{2}", parts[1]):
            return f"HTTP {parts[1]}"
        return "not HTTP"

    async def _answer(self, *, deflate: bool) -> str:
        """Read up to the first thing that is an answer; messages that happen to come are not."""
        decoder = MessageDecoder(
            masked=False,
            max_message_size=MAX_RECEIVED,
            inflater=_Compressed() if deflate else None,
        )
        data = self._trailing
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
                raise _TooMuch(f"no answer, but a {decoder.error}")
            if decoder.error is not None:
                return f"a broken frame: {decoder.error}"
            data = await self._wire.receive()
            if not data:
                return "connection closed without a close frame"


def _matches(answer: str, expected: str) -> bool:
    return answer == expected or (expected == "HTTP 4xx" and answer.startswith("HTTP 4"))


# The checks -------------------------------------------------------------------------------


def _frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes | None = _KEY
) -> bytes:
    return encode_frame(opcode, payload, fin=fin, key=key)


def _header(first: int, length: int, *octets: int) -> bytes:
    """A header that `encode_frame` would refuse to write, with its mask key."""
    return bytes((first, MASK | length, *octets)) + _KEY


_TEXT, _PING = FIN | Opcode.TEXT, FIN | Opcode.PING
_CLOSE, _CONTINUATION = FIN | Opcode.CLOSE, FIN | Opcode.CONTINUATION
_1002, _1007, _1009 = ("close 1002",), ("close 1007",), ("close 1009",)


def _close(payload: bytes) -> bytes:
    return _frame(Opcode.CLOSE, payload)


_FRAMES = (
    Check("ping", "6455 §5.5.2", "a ping is answered with a pong of the same data",
          ("pong 'Hello'",), _frame(Opcode.PING, b"Hello")),
    Check("ping inside a fragmented message", "6455 §5.4", "control frames may come in between",
          ("pong 'Hello'",), _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.PING, b"Hello")),
    Check("close 1000", "6455 §5.5.1", "a close frame is answered, typically with its code",
          ("close 1000", "close without a code"), _close(close_payload(1000, "bye"))),
    Check("close without a code", "6455 §5.5.1", "a close frame is answered",
          ("close without a code", "close 1000"), _close(b"")),
    Check("close 4999", "6455 §7.4.2", "applications may use 4000 to 4999",
          ("close 4999", "close 1000", "close without a code"), _close(close_payload(4999, ""))),
    Check("nonsense after a close frame", "6455 §5.5.1", "what follows a close frame is dropped",
          ("close 1000", "close without a code"), _close(close_payload(1000, "")) + b"\xff" * 64),
    *(
        Check(f"{name} set", "6455 §5.2", "reserved bits are 0 unless an extension is agreed on",
              _1002, _header(_TEXT | bit, 0))
        for name, bit in (("RSV1", RSV1), ("RSV2", RSV2), ("RSV3", RSV3))
    ),
    *(
        Check(f"opcode 0x{opcode:X}", "6455 §5.2", "reserved opcodes fail the connection",
              _1002, _header(FIN | opcode, 0))
        for opcode in (0x3, 0x7, 0xB, 0xF)
    ),
    Check("frame without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.TEXT, b"Hello", key=None)),
    Check("16-bit length of 125", "6455 §5.2", "lengths take as few bytes as they can",
          _1002, _header(_TEXT, LENGTH_16, 0, 125)),
    Check("64-bit length of 65535", "6455 §5.2", "lengths take as few bytes as they can",
          _1002, _header(_TEXT, LENGTH_64, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF)),
    Check("64-bit length with the top bit", "6455 §5.2", "the most significant bit is 0",
          _1002, _header(_TEXT, LENGTH_64, 0x80, 0, 0, 0, 0, 0, 0, 0)),
    Check("fragmented ping", "6455 §5.5", "control frames are not fragmented",
          _1002, _header(Opcode.PING, 0)),
    Check("ping of 126 bytes", "6455 §5.5", "control frames have 125 bytes at most",
          _1002, _header(_PING, LENGTH_16, 0, 126) + b"a" * 126),
    Check("continuation of nothing", "6455 §5.4", "a continuation follows a fragment",
          _1002, _header(_CONTINUATION, 0)),
    Check("message inside a fragmented one", "6455 §5.4", "fragments are not interleaved",
          _1002, _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.TEXT, b"b")),
    Check("close frame of 1 byte", "6455 §5.5.1", "a body begins with a 2-byte code",
          _1002, _header(_CLOSE, 1) + b"a"),
    *(
        Check(f"close {code}", "6455 §7.4", "this code may not travel",
              _1002, _close(code.to_bytes(2, "big")))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    ),
    Check("close reason that is not UTF-8", "6455 §5.5.1", "the reason is UTF-8",
          ("close 1007", "close 1002"), _close(close_payload(1000, "") + b"\xce\xba\xff")),
    Check("text that is not UTF-8", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xff")),
    Check("text that ends in a code point", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xe2\x82")),
    Check("text with a surrogate", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xed\xa0\x80")),
    Check("text beyond U+10FFFF", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xf4\x90\x80\x80")),
    Check("bad UTF-8 in the first fragment", "6455 §8.1", "text fails where it cannot become valid",
          _1007, _frame(Opcode.TEXT, b"Hello \xff", fin=False)),
    Check("a frame of 2^62 bytes announced", "6455 §10.4", "there is a limit",
          _1009, _header(_TEXT, LENGTH_64, 0x40, 0, 0, 0, 0, 0, 0, 0)),
)  # fmt: skip

_DEFLATED = (
    Check("RSV1 on a ping", "7692 §6", "control frames are not compressed",
          _1002, _header(_PING | RSV1, 0), deflate=True),
    Check("RSV1 on a continuation", "7692 §6.1", "RSV1 is for a message's first frame",
          _1002, _frame(Opcode.TEXT, fin=False) + _header(_CONTINUATION | RSV1, 0), deflate=True),
    Check("a compressed message that is not DEFLATE", "7692 §7.2.2, 6455 §7.1.7",
          "what cannot be inflated fails the connection",
          ("close 1007", "close 1002", "close 1003"),
          encode_frame(Opcode.TEXT, b"\xff" * 8, rsv1=True, key=_KEY), deflate=True),
    Check("compressed text that is not UTF-8", "6455 §8.1", "text is UTF-8, compressed or not",
          _1007, encode_frame(Opcode.TEXT, b"\x00\x01\x00\xfe\xff\xff\x00", rsv1=True, key=_KEY),
          deflate=True),
)  # fmt: skip


def _request(*left_out: str, method: str = "GET", version: str = "1.1", **other: str) -> str:
    fields = {
        "Host": "{host}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    } | {name.replace("_", "-"): value for name, value in other.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in left_out]
    return "\r\n".join([f"{method} {{target}} HTTP/{version}", *lines, "", ""])


_4XX = ("HTTP 4xx",)
_HANDSHAKES = (
    Check("handshake in mixed case", "6455 §4.2.1", "names and tokens are case-insensitive",
          ("HTTP 101",), request=_request(Upgrade="WebSocket", Connection="keep-alive, UPGRADE")),
    Check("POST", "6455 §4.2.1", "the method is GET", _4XX, request=_request(method="POST")),
    Check("HTTP/1.0", "6455 §4.2.1", "HTTP/1.1 or higher",
          (*_4XX, "HTTP 505"), request=_request(version="1.0")),
    Check("no Host", "6455 §4.2.1", "Host is required", _4XX, request=_request("Host")),
    Check("no Sec-WebSocket-Key", "6455 §4.2.1", "the key is required",
          _4XX, request=_request("Sec-WebSocket-Key")),
    Check("key of 15 bytes", "6455 §4.2.1", "the key decodes to 16 bytes",
          _4XX, request=_request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j")),
    Check("no Sec-WebSocket-Version", "6455 §4.2.1", "the version is required",
          _4XX, request=_request("Sec-WebSocket-Version")),
    Check("version 99", "6455 §4.4", "426, with the versions understood",
          ("HTTP 426", "HTTP 400"), request=_request(Sec_WebSocket_Version="99")),
)  # fmt: skip

CHECKS: Final = (*_HANDSHAKES, *_FRAMES, *_DEFLATED)
