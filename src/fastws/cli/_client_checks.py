"""What `fastws probe --client` sends to clients, and which answers are right.

This module knows what the request of a client must say, what a client must refuse, and what it must
take, according to RFC 6455, RFC 7692, and RFC 9110 and RFC 9112 for the opening handshake. Frames
that either end may send are those of `_checks`. Whether a client takes something that is right is
seen from a ping that follows; what it understood, from the messages that it sends back. This module
does not know how data is sent or answers are read.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import crc32

from fastws.codec import encode_frame
from fastws.deflate import PerMessageDeflate
from fastws.extensions import parse_extensions
from fastws.http import is_token
from fastws.rules import close_payload
from fastws.spec import FIN, MASK, Opcode

from ._checks import FOR_CLIENTS, Check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal, TypeAlias

    _Observed: TypeAlias = Literal["control", "messages", "keys", "refusal", "end"]

__all__ = ["CLIENT_CHECKS", "ClientCheck", "Head", "describe_messages"]


@dataclass(frozen=True)
class ClientCheck(Check):
    """One thing to try on a client.

    Attributes:
        rule_of_request: judges the client's request, given those that came before; its result is
            the answer, "as required" if the rule is kept. Then nothing is sent but a close frame.
        response: the response to the handshake, with {accept} in place of what answers the key, and
            {wrong} for what answers another; "" for the usual one.
        parameters: what to add to permessage-deflate in the response, such as
            "client_no_context_takeover".
        needs: the parameter that the client must have offered for that.
        unless: the parameter that it must not have offered.
        observe: what counts as the answer: "control", the first pong or close frame; "messages", so
            many messages; "keys", whether their mask keys differ; "refusal", whether the client
            ends the connection; "end", whether it does so after the close frames.
        messages: how many messages to wait for.
        waits: whether to wait before the end of the response, and to see what arrives meanwhile.
        needs_takeover: whether a message of ours refers to an earlier one.
    """

    rule_of_request: Callable[[Head, Sequence[Head]], str] | None = None
    response: str = ""
    parameters: tuple[str, ...] = ()
    needs: str | None = None
    unless: str | None = None
    observe: _Observed = "control"
    messages: int = 0
    waits: bool = False
    needs_takeover: bool = False

    @property
    def group(self) -> str:
        """The heading under which reports list the check."""
        if self.rule_of_request is not None or self.response or self.waits:
            return "Handshake"
        if self.deflate:
            return "Compression"
        return "Messages" if self.observe in ("messages", "keys") else "Frames"


def describe_messages(messages: Sequence[str | bytes]) -> str:
    """Return an answer that consists of messages."""
    return ", ".join(map(_describe, messages)) or "no messages"


def _describe(message: str | bytes) -> str:
    kind = "text" if isinstance(message, str) else "binary"
    if len(message) <= 24:
        return f"{kind} {message!r}".replace(" b'", " '").replace(' b"', ' "')
    octets = message.encode() if isinstance(message, str) else message
    return f"{kind} of {len(octets)} bytes (CRC {crc32(octets):08x})"


# The request ------------------------------------------------------------------------------


class Head:
    """The head of a client's request, as it came: nothing about it has been checked.

    Args:
        octets: the request, up to the empty line at its end.
        port: the port at which it came.

    Attributes:
        octets: the same.
        port: the same.
        lines: its lines, without their ends.
    """

    def __init__(self, octets: bytes, port: int) -> None:
        self.octets = octets
        self.port = port
        text = octets.decode("latin-1")
        self.lines = [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]

    @property
    def key(self) -> str | None:
        """The value of Sec-WebSocket-Key; None if there is none."""
        return next(iter(self.values("Sec-WebSocket-Key")), None)

    def values(self, name: str) -> list[str]:
        """Return the values of all fields with this name."""
        pairs = (line.partition(":") for line in self.lines[1:])
        return [value.strip(" \t") for field, _, value in pairs if field.lower() == name.lower()]

    def members(self, name: str) -> list[str]:
        """Return the members of a list, in lower case."""
        return [each.strip(" \t").lower() for each in ",".join(self.values(name)).split(",")]

    def offers(self) -> list[list[tuple[str, str | None]]]:
        """Return the parameters of each offer of permessage-deflate; none if they are malformed."""
        try:
            extensions = parse_extensions(self.values("Sec-WebSocket-Extensions"))
        except ValueError:
            return []
        return [list(params) for name, params in extensions if name == "permessage-deflate"]


_GOOD = "as required"
_DEFAULT_PORT: Final = 80


def _is(good: object, otherwise: str) -> str:
    return _GOOD if good else otherwise


def _method(head: Head, _: Sequence[Head]) -> str:
    return _is(head.lines[0].startswith("GET "), head.lines[0])


def _version_of_http(head: Head, _: Sequence[Head]) -> str:
    return _is(re.search(r" HTTP/1\.[1-9]$", head.lines[0]), head.lines[0])


def _target(head: Head, _: Sequence[Head]) -> str:
    target = head.lines[0].split(" ")[1:-1]
    good = len(target) == 1 and re.fullmatch(r"(?:(?:ws|http)s?://[^/?#]+)?/[!-~]*", target[0])
    return _is(good, head.lines[0])


def _fragment(head: Head, _: Sequence[Head]) -> str:
    return _is("#" not in head.lines[0], head.lines[0])


def _ends_of_lines(head: Head, _: Sequence[Head]) -> str:
    return _is(not re.search(rb"(?<!\r)\n|\r(?!\n)", head.octets), "a line without CR LF")


def _syntax(head: Head, _: Sequence[Head]) -> str:
    for line in head.lines[1:]:
        name, colon, _value = line.partition(":")
        if not colon or not is_token(name):
            return line
    return _GOOD


def _characters(head: Head, _: Sequence[Head]) -> str:
    bad = next((line for line in head.lines if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line)), None)
    return _GOOD if bad is None else bad


def _host(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Host")
    host, port = r"(?:[A-Za-z0-9_.~!$&'()*+,;=%-]+|\[[0-9A-Za-z:.%_-]+\])", r":[0-9]+"
    if head.port == _DEFAULT_PORT:
        port = f"(?:{port})?"
    good = len(values) == 1 and re.fullmatch(host + port, values[0])
    return _is(good, _listed("Host", values))


def _upgrade(head: Head, _: Sequence[Head]) -> str:
    good = "websocket" in head.members("Upgrade")
    return _is(good, _listed("Upgrade", head.values("Upgrade")))


def _connection(head: Head, _: Sequence[Head]) -> str:
    good = "upgrade" in head.members("Connection")
    return _is(good, _listed("Connection", head.values("Connection")))


def _key(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Sec-WebSocket-Key")
    good = len(values) == 1
    try:
        good = good and len(b64decode(values[0], validate=True)) == 16
    except ValueError:  # also if it is not ASCII
        good = False
    return _is(good, _listed("Sec-WebSocket-Key", values))


def _new_key(head: Head, before: Sequence[Head]) -> str:
    keys = [each.key for each in before]
    return _is(head.key not in keys, f"the key of an earlier connection: {head.key}")


def _version(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Sec-WebSocket-Version")
    return _is(values == ["13"], _listed("Sec-WebSocket-Version", values))


def _origin(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Origin")
    good = len(values) <= 1 and all(
        value == "null" or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?# ]*", value) for value in values
    )
    return _is(good, _listed("Origin", values))


def _subprotocols(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Sec-WebSocket-Protocol")
    names = [name.strip(" \t") for value in values for name in value.split(",")]
    good = all(map(is_token, names)) and len(set(names)) == len(names)
    return _is(good, _listed("Sec-WebSocket-Protocol", values))


def _extensions(head: Head, _: Sequence[Head]) -> str:
    values = head.values("Sec-WebSocket-Extensions")
    try:
        parse_extensions(values)
    except ValueError:
        return _listed("Sec-WebSocket-Extensions", values)
    return _is(all(values), "Sec-WebSocket-Extensions without a value")


def _offers(head: Head, _: Sequence[Head]) -> str:
    # (A server may decline a window of 8 bits, which is valid.)
    good = all(
        PerMessageDeflate().accept_offer(params) or ("server_max_window_bits", "8") in params
        for params in head.offers()
    )
    return _is(good, _listed("Sec-WebSocket-Extensions", head.values("Sec-WebSocket-Extensions")))


def _listed(name: str, values: Sequence[str]) -> str:
    return "; ".join(f"{name}: {value}" for value in values) or f"no {name}"


_REQUESTS = tuple(
    ClientCheck(f"request: {name}", section, rule, (_GOOD,), rule_of_request=judge)
    for name, section, rule, judge in (
        ("method", "6455 §4.1", "the method is GET", _method),
        ("version of HTTP", "6455 §4.1", "HTTP/1.1 or higher", _version_of_http),
        ("target", "6455 §4.1", "the target is a path, perhaps with a query", _target),
        ("fragment", "6455 §3", "a URI of WebSocket has no fragment", _fragment),
        ("ends of lines", "9112 §2.2", "lines end with CR LF", _ends_of_lines),
        ("fields", "9112 §5", "a field is a name, a colon and a value", _syntax),
        ("characters", "9110 §5.5", "a field has no control characters", _characters),
        ("Host", "6455 §4.1", "Host is the host, and the port if it is not the default", _host),
        ("Upgrade", "6455 §4.1", "Upgrade says websocket", _upgrade),
        ("Connection", "6455 §4.1", "Connection says Upgrade", _connection),
        ("key", "6455 §4.1", "the key is 16 bytes in base64", _key),
        ("another key", "6455 §4.1", "the key is random, and new for each connection", _new_key),
        ("Sec-WebSocket-Version", "6455 §4.1", "the version is 13", _version),
        ("Origin", "6455 §4.1, 6454 §6.1", "Origin is one origin", _origin),
        ("subprotocols", "6455 §4.1", "subprotocols are tokens that differ", _subprotocols),
        ("extensions", "6455 §9.1", "extensions are a list of tokens with parameters",
         _extensions),
        ("offers of compression", "7692 §7.1", "parameters are known, and their values valid",
         _offers),
    )
)  # fmt: skip


# The response -----------------------------------------------------------------------------


def _response(
    *left_out: str,
    status: str = "HTTP/1.1 101 Switching Protocols",
    before: str = "",
    more: tuple[str, ...] = (),
    **other: str,
) -> str:
    """Return a response: the usual one without these fields, with these others, and these lines."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": "{accept}",
    } | {name.replace("_", "-"): value for name, value in other.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in left_out]
    return before + "\r\n".join([status, *lines, *more, "", ""])


def _plain(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    return encode_frame(opcode, payload, fin=fin, rsv1=rsv1)


# A ping shows whether the client takes the connection for open.
_STILL_THERE = _plain(Opcode.PING, b"still there?")
_TAKEN = ("pong 'still there?'",)
# There is no connection yet that a close frame could close, but one does no harm.
_REFUSES = ("connection closed", "close 1002")
_EARLY = "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"

_ACCEPTED = (
    *(
        ClientCheck(name, section, rule, _TAKEN, _STILL_THERE, response=response)
        for name, section, rule, response in (
            ("response in mixed case", "6455 §4.1", "names and tokens are case-insensitive",
             _response(Upgrade="WebSocket", Connection="UPGRADE")),
            ("names of fields in upper case", "9110 §5.1", "names of fields are case-insensitive",
             _response("Upgrade", "Connection", UPGRADE="websocket", CONNECTION="Upgrade")),
            ("names of fields in lower case", "9110 §5.1", "names of fields are case-insensitive",
             _response("Upgrade", "Connection", upgrade="websocket", connection="Upgrade")),
            ("name of Sec-WebSocket-Accept in lower case", "9110 §5.1",
             "names of fields are case-insensitive",
             _response("Sec-WebSocket-Accept", sec_websocket_accept="{accept}")),
            ("white space around values", "9112 §5", "it is not part of the value",
             _response(Sec_WebSocket_Accept="\t {accept} \t")),
            ("no white space before a value", "9112 §5", "it is optional",
             _response("Upgrade", more=("Upgrade:websocket",))),
            ("Connection with two members", "6455 §4.1", "Connection contains Upgrade",
             _response(Connection="keep-alive, Upgrade")),
            ("another reason phrase", "9112 §4", "a client ignores the reason phrase",
             _response(status="HTTP/1.1 101 Welcome")),
            ("no reason phrase", "9112 §4", "the reason phrase may be empty",
             _response(status="HTTP/1.1 101 ")),
            ("field that nobody knows", "9110 §5.1", "unknown fields are ignored",
             _response(X_Unknown="\"(,;=?")),
            ("field with an empty value", "9110 §5.5", "a value may be empty",
             _response(X_Unknown="")),
            ("cookies", "6455 §4.1", "other fields may be there",
             _response(more=("Set-Cookie: a=b; Path=/", "Set-Cookie: c=d"))),
            ("103 before 101", "9110 §15.2", "informational responses come before the final one",
             _response(before=_EARLY)),
        )
    ),
    ClientCheck("response that comes late", "6455 §4.1", "a client waits for all of the response",
                _TAKEN, _STILL_THERE, response=_response(), waits=True),
)  # fmt: skip

_REFUSED = tuple(
    ClientCheck(name, section, rule, _REFUSES, _STILL_THERE, response=response, observe="refusal")
    for name, section, rule, response in (
        *(
            (f"status {status}", "6455 §4.1", "any status but 101 opens no connection",
             _response(status=f"HTTP/1.1 {status} Whatever", Connection="close",
                       more=("Content-Length: 0",)))
            for status in (200, 202, 400, 403, 404, 426, 500, 503)
        ),
        ("no Upgrade", "6455 §4.1", "Upgrade is required", _response("Upgrade")),
        ("another Upgrade", "6455 §4.1", "Upgrade says websocket", _response(Upgrade="h2c")),
        ("Upgrade with more letters", "6455 §4.1", "Upgrade says websocket",
         _response(Upgrade="websockets")),
        ("empty Upgrade", "6455 §4.1", "Upgrade says websocket", _response(Upgrade="")),
        ("no Connection", "6455 §4.1", "Connection is required", _response("Connection")),
        ("another Connection", "6455 §4.1", "Connection says Upgrade",
         _response(Connection="keep-alive")),
        ("no Sec-WebSocket-Accept", "6455 §4.1", "Sec-WebSocket-Accept is required",
         _response("Sec-WebSocket-Accept")),
        ("answer to another key", "6455 §4.1", "Sec-WebSocket-Accept answers the key",
         _response(Sec_WebSocket_Accept="{wrong}")),
        ("empty Sec-WebSocket-Accept", "6455 §4.1", "Sec-WebSocket-Accept answers the key",
         _response(Sec_WebSocket_Accept="")),
        ("Sec-WebSocket-Accept with one letter more", "6455 §4.1",
         "Sec-WebSocket-Accept answers the key", _response(Sec_WebSocket_Accept="{accept}A")),
        ("subprotocol that was not asked for", "6455 §4.1", "the client asked for it",
         _response(Sec_WebSocket_Protocol="x-unasked")),
        ("extension that was not asked for", "6455 §4.1", "the client asked for it",
         _response(Sec_WebSocket_Extensions="x-unasked")),
        ("extensions that are malformed", "6455 §9.1", "a malformed value fails the connection",
         _response(Sec_WebSocket_Extensions="permessage-deflate; =")),
        ("permessage-deflate twice", "7692 §5", "an extension is accepted once",
         _response(Sec_WebSocket_Extensions="permessage-deflate, permessage-deflate")),
        *(
            (f"permessage-deflate; {parameters}", "7692 §7.1",
             "other parameters or values fail the connection",
             _response(Sec_WebSocket_Extensions=f"permessage-deflate; {parameters}"))
            for parameters in (
                "x_unknown",
                "server_no_context_takeover=1",
                "client_no_context_takeover=1",
                "server_no_context_takeover; server_no_context_takeover",
                "server_max_window_bits",
                "server_max_window_bits=7",
                "server_max_window_bits=16",
                "server_max_window_bits=010",
                "client_max_window_bits",
                "client_max_window_bits=7",
                "client_max_window_bits=16",
            )
        ),
        ("no HTTP", "9112 §4", "a response begins with the version of HTTP",
         "SSH-2.0-OpenSSH\r\n\r\n"),
        ("status that is no number", "9112 §4", "a status is three digits",
         _response(status="HTTP/1.1 1O1 Switching Protocols")),
    )
)  # fmt: skip

# What is wrong only if the client has not asked for it.
_UNASKED = (
    ClientCheck("client_max_window_bits that was not offered", "7692 §7.1.2.2",
                "only a client that offers it can be told to limit its window",
                _REFUSES, _STILL_THERE, deflate=True, parameters=("client_max_window_bits=15",),
                unless="client_max_window_bits", observe="refusal"),
)  # fmt: skip


# Frames and messages ------------------------------------------------------------------------


def _shared(check: Check) -> ClientCheck:
    takes_over = check.name == "two compressed messages"
    fields = (check.name, check.section, check.rule, check.expected, check.data)
    return ClientCheck(*fields, deflate=check.deflate, needs_takeover=takes_over)


_HELLO = _plain(Opcode.TEXT, b"Hello")
_BYE = _plain(Opcode.CLOSE, close_payload(1000, "bye"))

_FRAMES = (
    *(
        ClientCheck(name, "6455 §5.1", "a server does not mask its frames", ("close 1002",), data)
        for name, data in (
            ("masked frame", encode_frame(Opcode.TEXT, b"Hello", key=b"\x37\xfa\x21\x3d")),
            ("masked ping", encode_frame(Opcode.PING, b"Hello", key=b"\x37\xfa\x21\x3d")),
            ("mask key of zeros", encode_frame(Opcode.TEXT, b"Hello", key=bytes(4))),
            ("masked frame of 0 bytes", bytes((FIN | Opcode.BINARY, MASK)) + bytes(4)),
        )
    ),
    *(
        ClientCheck(f"close {code}", "6455 §7.4.1", "this code may be sent",
                    (f"close {code}", "close 1000", "close without a code"),
                    _plain(Opcode.CLOSE, close_payload(code, "")))
        for code in (1012, 1013, 1014)
    ),
    ClientCheck("close, then the end of TCP", "6455 §7.1.1, 6455 §5.5.1",
                "a client sends nothing after its close frame, and ends TCP when the server has",
                ("end of TCP",), _HELLO + _BYE, observe="end"),
)  # fmt: skip


def _echo(
    name: str,
    section: str,
    rule: str,
    messages: Sequence[str | bytes],
    data: bytes,
    *,
    deflate: bool = False,
    parameters: tuple[str, ...] = (),
    needs: str | None = None,
    needs_takeover: bool = False,
) -> ClientCheck:
    return ClientCheck(
        name, section, rule, (describe_messages(messages),), data, deflate=deflate,
        parameters=parameters, needs=needs, needs_takeover=needs_takeover,
        observe="messages", messages=len(messages),
    )  # fmt: skip


def _fragments(opcode: int, *payloads: bytes, between: bytes = b"") -> bytes:
    """Return a message in fragments, with this between them."""
    last = len(payloads) - 1
    return between.join(
        _plain(Opcode.CONTINUATION if number else opcode, payload, fin=number == last)
        for number, payload in enumerate(payloads)
    )


_LENGTHS = "lengths take 7, 16 or 64 bits"
_WHOLE = "fragments are put together"
_ASIS = "text arrives as it was sent"
_SCRIPTS = "κόσμε שלום 你好 \U0001f600"

_MESSAGES = (
    *(
        _echo(f"echo of text of {size} bytes", "6455 §5.2", _LENGTHS, ["*" * size],
              _plain(Opcode.TEXT, b"*" * size))
        for size in (0, 1, 125, 126, 127, 128, 1000)
    ),
    *(
        _echo(f"echo of {size} bytes", "6455 §5.2", _LENGTHS, [b"\xfe" * size],
              _plain(Opcode.BINARY, b"\xfe" * size))
        for size in (0, 1, 125, 126, 127, 128, 1000)
    ),
    _echo("echo of all bytes", "6455 §5.6", "binary data is arbitrary", [bytes(range(256))],
          _plain(Opcode.BINARY, bytes(range(256)))),
    *(
        _echo(f"echo of {name}", "6455 §5.6, 3629 §3", _ASIS, [text],
              _plain(Opcode.TEXT, text.encode()))
        for name, text in (("many scripts", _SCRIPTS), ("U+0000", "a\0b"), ("U+FEFF", "\ufeffa"),
                           ("U+FFFF", "\uffff"), ("U+10FFFF", "\U0010ffff"), ("CR LF", "a\r\nb"))
    ),
    _echo("echo of a message in three fragments", "6455 §5.4", _WHOLE, ["Hello"],
          _fragments(Opcode.TEXT, b"He", b"l", b"lo")),
    _echo("echo of a binary message in fragments", "6455 §5.4", _WHOLE, [b"\0\xff\1"],
          _fragments(Opcode.BINARY, b"\0", b"\xff", b"\1")),
    _echo("echo of a message in empty fragments", "6455 §5.4", _WHOLE, [""],
          _fragments(Opcode.TEXT, b"", b"", b"")),
    _echo("echo of a code point in four fragments", "6455 §5.6",
          "a fragment may end inside a code point", ["\U0001f600"],
          _fragments(Opcode.TEXT, b"\xf0", b"\x9f", b"\x98", b"\x80")),
    _echo("echo of fragments with pings in between", "6455 §5.4",
          "control frames may come in between", ["Hello"],
          _fragments(Opcode.TEXT, b"He", b"l", b"lo", between=_plain(Opcode.PING, b"in between"))),
    _echo("echo of fragments with pongs in between", "6455 §5.4",
          "control frames may come in between", ["Hello"],
          _fragments(Opcode.TEXT, b"Hel", b"lo", between=_plain(Opcode.PONG))),
    _echo("echo of text and binary", "6455 §5.6", "messages keep their kind", ["a", b"a", "b"],
          _plain(Opcode.TEXT, b"a") + _plain(Opcode.BINARY, b"a") + _plain(Opcode.TEXT, b"b")),
    _echo("echo of many messages", "6455 §5.4", "messages keep their order",
          [str(number) for number in range(20)],
          b"".join(_plain(Opcode.TEXT, b"%d" % number) for number in range(20))),
    _echo("echo of the same message twice", "6455 §5.4", "each message counts", ["Hello", "Hello"],
          _HELLO * 2),
    ClientCheck("mask keys", "6455 §5.3", "a mask key is random, and new for each frame",
                ("mask keys differ",), _HELLO * 8, observe="keys", messages=8),
)  # fmt: skip


def _compressed(data: bytes, *, fin: bool = True) -> bytes:
    return _plain(Opcode.TEXT, data, fin=fin, rsv1=True)


# "Hello" as in RFC 7692 §7.2.3.1; and again, as a reference to the first (§7.2.3.2).
_DEFLATED_HELLO, _AGAIN = b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"
# What a client compresses if it compresses at all; the end repeats the beginning, too far away for
# a window of 9 bits.
_LONG = "".join(f"{number * number:x} " for number in range(400, 560)) * 2
_LONG_FRAME = _plain(Opcode.TEXT, _LONG.encode())

_DEFLATED = (
    _echo("echo of a compressed message", "7692 §7.2.2", "messages are inflated", ["Hello"],
          _compressed(_DEFLATED_HELLO), deflate=True),
    _echo("echo of compressed messages that refer to each other", "7692 §7.2.3.2",
          "the second refers to the first", ["Hello", "Hello"],
          _compressed(_DEFLATED_HELLO) + _compressed(_AGAIN), deflate=True, needs_takeover=True),
    _echo("echo of a compressed message in fragments", "7692 §6.1",
          "RSV1 is for a message's first frame", ["Hello"],
          _compressed(_DEFLATED_HELLO[:3], fin=False)
          + _plain(Opcode.CONTINUATION, _DEFLATED_HELLO[3:]), deflate=True),
    _echo("echo of compressed and other messages", "7692 §6", "each message says what it is",
          ["Hello", "Hello"], _HELLO + _compressed(_DEFLATED_HELLO), deflate=True),
    _echo("echo of an empty compressed message", "7692 §7.2.3.6",
          "an empty message is an empty block", [""], _compressed(b"\x00"), deflate=True),
    _echo("echo of a block with BFINAL", "7692 §7.2.3.4", "a block may be marked as the last one",
          ["Hello"], _compressed(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), deflate=True),
    _echo("echo of what can be compressed", "7692 §7.2.1", "messages may be compressed",
          [_LONG, _LONG], _LONG_FRAME * 2, deflate=True),
    _echo("client_no_context_takeover", "7692 §7.1.1.2",
          "its messages do not refer to earlier ones", [_LONG, _LONG], _LONG_FRAME * 2,
          deflate=True, parameters=("client_no_context_takeover",)),
    _echo("client_max_window_bits=9", "7692 §7.1.2.2", "it refers back no further than 512 bytes",
          [_LONG, _LONG], _LONG_FRAME * 2, deflate=True,
          parameters=("client_max_window_bits=9",), needs="client_max_window_bits"),
    *(
        ClientCheck(f"response with {parameter}", section, rule, _TAKEN, _STILL_THERE,
                    deflate=True, parameters=(parameter,))
        for parameter, section, rule in (
            ("server_no_context_takeover", "7692 §7.1.1.1", "a server may say so unasked"),
            ("server_max_window_bits=10", "7692 §7.1.2.1", "a server may say so unasked"),
            ('server_max_window_bits="10"', "6455 §9.1", "a value may be quoted"),
        )
    ),
)  # fmt: skip

CLIENT_CHECKS: Final = (
    *_REQUESTS,
    *_ACCEPTED,
    *_REFUSED,
    *(_shared(check) for check in FOR_CLIENTS if not check.deflate),
    *_FRAMES,
    *_MESSAGES,
    *(_shared(check) for check in FOR_CLIENTS if check.deflate),
    *_DEFLATED,
    *_UNASKED,
)
