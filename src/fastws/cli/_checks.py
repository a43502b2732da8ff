"""What `fastws probe` sends to servers, and which answers are right.

This module knows what a client must not send, and what a server must take, according to RFC 6455,
RFC 7692, and RFC 9110 and RFC 9112 for the opening handshake. Whether a server takes something that
is right is seen from a ping that follows: messages are not answered by every server. Most frames
are the same for clients, without masks: `_client_checks` gets them from here. This module does not
know how data is sent or answers are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastws.codec import encode_frame
from fastws.rules import close_payload
from fastws.spec import FIN, LENGTH_16, LENGTH_64, MASK, RSV1, RSV2, RSV3, Opcode

__all__ = ["CHECKS", "FOR_CLIENTS", "Check"]

# A key of RFC 6455's examples; it need not be unpredictable here.
_KEY: Final = b"\x37\xfa\x21\x3d"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try.

    Attributes:
        name: what is sent.
        section: the section of an RFC that has the rule.
        rule: the rule, in short.
        expected: the answers that follow the rule, such as "close 1002" or "HTTP 426". "HTTP 4xx"
            stands for all of them, "HTTP, but not 101" for everything but an upgrade.
        data: what to send once the connection is open.
        request: the request to send instead, with {target} and {host} in place of the server's.
        deflate: whether permessage-deflate must be negotiated first.
    """

    name: str
    section: str
    rule: str
    expected: tuple[str, ...]
    data: bytes = b""
    request: str = ""
    deflate: bool = False

    @property
    def group(self) -> str:
        """The heading under which reports list the check."""
        return "Handshake" if self.request else "Compression" if self.deflate else "Frames"


@dataclass(frozen=True, slots=True)
class _Octets:
    """What either end may send: masked by a client, plain from a server."""

    masked: bytes
    plain: bytes

    def __add__(self, other: _Octets | bytes) -> _Octets:
        if isinstance(other, bytes):
            other = _Octets(other, other)
        return _Octets(self.masked + other.masked, self.plain + other.plain)


def _both(
    name: str,
    section: str,
    rule: str,
    expected: tuple[str, ...],
    data: _Octets,
    *,
    deflate: bool = False,
) -> tuple[Check, Check]:
    """Return a check of servers, and the same check of clients."""
    server, client = (
        Check(name, section, rule, expected, octets, deflate=deflate)
        for octets in (data.masked, data.plain)
    )
    return server, client


def _frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, key: bytes = _KEY
) -> _Octets:
    masked, plain = (
        encode_frame(opcode, payload, fin=fin, rsv1=rsv1, key=each) for each in (key, None)
    )
    return _Octets(masked, plain)


def _header(first: int, length: int, *octets: int) -> _Octets:
    """Return a header that `encode_frame` would refuse to write, with a client's mask key."""
    masked = bytes((first, MASK | length, *octets)) + _KEY
    return _Octets(masked, bytes((first, length, *octets)))


_TEXT, _PING = FIN | Opcode.TEXT, FIN | Opcode.PING
_CLOSE, _CONTINUATION = FIN | Opcode.CLOSE, FIN | Opcode.CONTINUATION
_1002, _1007, _1009 = ("close 1002",), ("close 1007",), ("close 1009",)


def _close(payload: bytes) -> _Octets:
    return _frame(Opcode.CLOSE, payload)


def _text(payload: bytes, *, fin: bool = True) -> _Octets:
    return _frame(Opcode.TEXT, payload, fin=fin)


def _more(payload: bytes, *, fin: bool = True) -> _Octets:
    return _frame(Opcode.CONTINUATION, payload, fin=fin)


# A ping shows that what comes before it was taken.
_STILL_THERE = _frame(Opcode.PING, b"still there?")
_TAKEN = ("pong 'still there?'",)


_FRAMES = (
    _both("ping", "6455 §5.5.2", "a ping is answered with a pong of the same data",
          ("pong 'Hello'",), _frame(Opcode.PING, b"Hello")),
    _both("ping inside a fragmented message", "6455 §5.4", "control frames may come in between",
          ("pong 'Hello'",), _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.PING, b"Hello")),
    _both("empty ping", "6455 §5.5.2", "a ping is answered with a pong of the same data",
          ("pong ''",), _frame(Opcode.PING)),
    _both("ping of 125 bytes", "6455 §5.5", "control frames carry up to 125 bytes",
          (f"pong {'a' * 125!r}",), _frame(Opcode.PING, b"a" * 125)),
    _both("ping that is not UTF-8", "6455 §5.5.2", "a pong carries the same data, whatever it is",
          (f"pong {chr(0) + chr(0xFF)!r}",), _frame(Opcode.PING, b"\x00\xff")),
    _both("two pings", "6455 §5.5.3", "the pong may be for the most recent ping only",
          ("pong 'a'", "pong 'b'"), _frame(Opcode.PING, b"a") + _frame(Opcode.PING, b"b")),
    _both("pong that nobody asked for", "6455 §5.5.3", "an unsolicited pong is allowed",
          _TAKEN, _frame(Opcode.PONG, b"Hello") + _STILL_THERE),
    *(
        _both(name, "6455 §5.2", "lengths up to 125 take 7 bits, those up to 65535 16 more",
              _TAKEN, _text(b"a" * size) + _STILL_THERE)
        for name, size in (("empty text", 0), ("text of 125 bytes", 125),
                           ("text of 126 bytes", 126), ("text of 256 bytes", 256))
    ),
    _both("empty binary message", "6455 §5.6", "a message may be empty",
          _TAKEN, _frame(Opcode.BINARY) + _STILL_THERE),
    _both("binary message that is not UTF-8", "6455 §5.6", "binary data is arbitrary",
          _TAKEN, _frame(Opcode.BINARY, b"\xff\xc0\x80") + _STILL_THERE),
    _both("message in three fragments", "6455 §5.4", "a message may be fragmented",
          _TAKEN, _text(b"a", fin=False) + _more(b"b", fin=False) + _more(b"c") + _STILL_THERE),
    _both("empty fragments", "6455 §5.4", "fragments may be empty",
          _TAKEN, _text(b"", fin=False) + _more(b"", fin=False) + _more(b"") + _STILL_THERE),
    _both("pong inside a fragmented message", "6455 §5.4", "control frames may come in between",
          _TAKEN, _text(b"a", fin=False) + _frame(Opcode.PONG) + _more(b"b") + _STILL_THERE),
    _both("close inside a fragmented message", "6455 §5.4", "control frames may come in between",
          ("close 1000", "close 1002", "close without a code"),
          _text(b"a", fin=False) + _close(close_payload(1000, ""))),
    *(
        _both(f"text with {name}", "6455 §8.1, 3629 §3", "every scalar value may be in text",
              _TAKEN, _text(text.encode()) + _STILL_THERE)
        for name, text in (("U+0000", "\0"), ("U+D7FF and U+E000", "\ud7ff\ue000"),
                           ("U+FFFE and U+FFFF", "\ufffe\uffff"), ("U+FEFF", "\ufeff"),
                           ("U+10000", "\U00010000"), ("U+10FFFF", "\U0010ffff"))
    ),
    _both("code point in two fragments", "6455 §5.6", "a fragment may end inside a code point",
          _TAKEN, _text(b"\xe2\x82", fin=False) + _more(b"\xac") + _STILL_THERE),
    _both("code point around a ping", "6455 §5.4", "control frames may come in between",
          _TAKEN, _text(b"\xf0\x9f", fin=False) + _STILL_THERE + _more(b"\x98\x80")),
    _both("close 1000", "6455 §5.5.1", "a close frame is answered, typically with its code",
          ("close 1000", "close without a code"), _close(close_payload(1000, "bye"))),
    _both("close without a code", "6455 §5.5.1", "a close frame is answered",
          ("close without a code", "close 1000"), _close(b"")),
    _both("close 4999", "6455 §7.4.2", "applications may use 4000 to 4999",
          ("close 4999", "close 1000", "close without a code"), _close(close_payload(4999, ""))),
    *(
        _both(f"close {code}", "6455 §7.4", "this code may be sent",
              (f"close {code}", "close 1000", "close without a code"),
              _close(close_payload(code, "")))
        for code in (1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 3999, 4000)
    ),
    _both("close reason of 123 bytes", "6455 §5.5", "control frames carry up to 125 bytes",
          ("close 1000", "close without a code"), _close(close_payload(1000, "a" * 123))),
    _both("close reason in UTF-8", "6455 §5.5.1", "the reason is UTF-8",
          ("close 1000", "close without a code"), _close(close_payload(1000, "grüß \U0001f600"))),
    _both("ping after a close frame", "6455 §5.5.1", "data after a close frame is dropped",
          ("close 1000", "close without a code"),
          _close(close_payload(1000, "")) + _frame(Opcode.PING, b"Hello")),
    _both("nonsense after a close frame", "6455 §5.5.1", "data after a close frame is dropped",
          ("close 1000", "close without a code"), _close(close_payload(1000, "")) + b"\xff" * 64),
    *(
        _both(f"{name} set", "6455 §5.2", "reserved bits are 0 unless an extension is negotiated",
              _1002, _header(_TEXT | bit, 0))
        for name, bit in (("RSV1", RSV1), ("RSV2", RSV2), ("RSV3", RSV3))
    ),
    *(
        _both(f"opcode 0x{opcode:X}", "6455 §5.2", "reserved opcodes fail the connection",
              _1002, _header(FIN | opcode, 0))
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    ),
    _both("reserved opcode inside a message", "6455 §5.2", "reserved opcodes fail the connection",
          _1002, _text(b"a", fin=False) + _header(FIN | 0x3, 0)),
    *(
        _both(f"{what} with {name} set", "6455 §5.2",
              "reserved bits are 0 unless an extension is negotiated", _1002, _header(first, 0))
        for what, name, first in (
            ("binary message", "RSV2", FIN | Opcode.BINARY | RSV2),
            ("ping", "RSV3", _PING | RSV3),
            ("pong", "RSV2", FIN | Opcode.PONG | RSV2),
            ("close frame", "RSV3", _CLOSE | RSV3),
            ("message", "all of RSV", _TEXT | RSV1 | RSV2 | RSV3),
        )
    ),
    _both("continuation with RSV2 set", "6455 §5.2",
          "reserved bits are 0 unless an extension is negotiated",
          _1002, _text(b"a", fin=False) + _header(_CONTINUATION | RSV2, 0)),
    _both("16-bit length of 0", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_16, 0, 0)),
    _both("64-bit length of 125", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_64, 0, 0, 0, 0, 0, 0, 0, 125) + b"a" * 125),
    _both("16-bit length of 125", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_16, 0, 125) + b"a" * 125),
    _both("64-bit length of 65535", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_64, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF)),
    _both("64-bit length with the top bit", "6455 §5.2", "the most significant bit is 0",
          _1002, _header(_TEXT, LENGTH_64, 0x80, 0, 0, 0, 0, 0, 0, 0)),
    _both("fragmented ping", "6455 §5.5", "control frames are not fragmented",
          _1002, _header(Opcode.PING, 0)),
    _both("ping of 126 bytes", "6455 §5.5", "control frames carry at most 125 bytes",
          _1002, _header(_PING, LENGTH_16, 0, 126) + b"a" * 126),
    _both("fragmented pong", "6455 §5.5", "control frames are not fragmented",
          _1002, _header(Opcode.PONG, 0)),
    _both("fragmented close frame", "6455 §5.5", "control frames are not fragmented",
          _1002, _header(Opcode.CLOSE, 0)),
    _both("pong of 126 bytes", "6455 §5.5", "control frames carry at most 125 bytes",
          _1002, _header(FIN | Opcode.PONG, LENGTH_16, 0, 126) + b"a" * 126),
    _both("close frame of 126 bytes", "6455 §5.5", "control frames carry at most 125 bytes",
          _1002, _header(_CLOSE, LENGTH_16, 0, 126) + b"a" * 126),
    _both("ping with a 64-bit length", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_PING, LENGTH_64, 0, 0, 0, 0, 0, 0, 0, 1) + b"a"),
    _both("continuation that is not the last, of nothing", "6455 §5.4",
          "a continuation follows a fragment", _1002, _header(Opcode.CONTINUATION, 0)),
    _both("continuation after a message", "6455 §5.4", "a continuation follows a fragment",
          _1002, _text(b"a") + _more(b"b")),
    _both("continuation after the last one", "6455 §5.4", "a continuation follows a fragment",
          _1002, _text(b"a", fin=False) + _more(b"b") + _more(b"c")),
    _both("binary message inside fragmented text", "6455 §5.4", "fragments are not interleaved",
          _1002, _text(b"a", fin=False) + _frame(Opcode.BINARY, b"b", fin=False)),
    _both("continuation of nothing", "6455 §5.4", "a continuation follows a fragment",
          _1002, _header(_CONTINUATION, 0)),
    _both("message inside a fragmented one", "6455 §5.4", "fragments are not interleaved",
          _1002, _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.TEXT, b"b")),
    _both("close frame of 1 byte", "6455 §5.5.1", "a body begins with a 2-byte code",
          _1002, _header(_CLOSE, 1) + b"a"),
    *(
        _both(f"close {code}", "6455 §7.4", "this code must not be sent",
              _1002, _close(code.to_bytes(2, "big")))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
    ),
    _both("close reason that is not UTF-8", "6455 §5.5.1", "the reason is UTF-8",
          ("close 1007", "close 1002"), _close(close_payload(1000, "") + b"\xce\xba\xff")),
    _both("text that is not UTF-8", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xff")),
    _both("text that ends in a code point", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xe2\x82")),
    _both("text with a surrogate", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xed\xa0\x80")),
    _both("text beyond U+10FFFF", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xf4\x90\x80\x80")),
    *(
        _both(f"text with {name}", "6455 §8.1, 3629 §3", "text is UTF-8",
              _1007, _text(b"Hello " + octets))
        for name, octets in (
            ("a continuation byte alone", b"\x80"),
            ("U+0000 in two bytes", b"\xc0\x80"),
            ("U+007F in two bytes", b"\xc1\xbf"),
            ("U+07FF in three bytes", b"\xe0\x9f\xbf"),
            ("U+FFFF in four bytes", b"\xf0\x8f\xbf\xbf"),
            ("a surrogate pair in six bytes", b"\xed\xa0\xbd\xed\xb8\x80"),
            ("the byte F5", b"\xf5\x80\x80\x80"),
            ("five bytes for a code point", b"\xf8\x88\x80\x80\x80"),
            ("the byte FE", b"\xfe"),
            ("an unfinished code point inside", b"\xe2\x82!"),
        )
    ),
    _both("bad UTF-8 in the second fragment", "6455 §8.1", "text is UTF-8",
          _1007, _text(b"Hello", fin=False) + _more(b"\xff")),
    _both("bad UTF-8 where fragments meet", "6455 §8.1", "text is UTF-8",
          _1007, _text(b"\xe2\x82", fin=False) + _more(b"!")),
    _both("last fragment that ends in a code point", "6455 §8.1", "text is UTF-8",
          _1007, _text(b"Hello ", fin=False) + _more(b"\xe2\x82")),
    _both("close reason that ends in a code point", "6455 §5.5.1", "the reason is UTF-8",
          ("close 1007", "close 1002"), _close(close_payload(1000, "") + b"\xe2\x82")),
    _both("close reason with a surrogate", "6455 §5.5.1, 3629 §3", "the reason is UTF-8",
          ("close 1007", "close 1002"), _close(close_payload(1000, "") + b"\xed\xa0\x80")),
    _both("bad UTF-8 in the first fragment", "6455 §8.1",
          "text fails where it cannot become valid",
          _1007, _frame(Opcode.TEXT, b"Hello \xff", fin=False)),
    _both("a frame of 2^62 bytes announced", "6455 §10.4", "the size of messages is limited",
          _1009, _header(_TEXT, LENGTH_64, 0x40, 0, 0, 0, 0, 0, 0, 0)),
)  # fmt: skip


_FROM_CLIENTS = (
    Check("mask key of zeros", "6455 §5.3", "any 32-bit value may be chosen",
          ("pong 'Hello'",), _frame(Opcode.PING, b"Hello", key=bytes(4)).masked),
    Check("frame without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.TEXT, b"Hello").plain),
    Check("ping without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.PING, b"Hello").plain),
    Check("close frame without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.CLOSE, close_payload(1000, "")).plain),
    Check("continuation without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _text(b"a", fin=False).masked + _frame(Opcode.CONTINUATION, b"b").plain),
    Check("empty message without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.BINARY).plain),
    Check("close 1010", "6455 §7.4", "this code may be sent",
          ("close 1010", "close 1000", "close without a code"),
          _close(close_payload(1010, "")).masked),
)  # fmt: skip


def _compressed(data: bytes, *, opcode: int = Opcode.TEXT, fin: bool = True) -> _Octets:
    return _frame(opcode, data, fin=fin, rsv1=True)


# "Hello" as in RFC 7692 §7.2.3.1; and again, as a reference to the first (§7.2.3.2).
_HELLO, _AGAIN = b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"
_BROKEN = ("close 1007", "close 1002", "close 1003")

_DEFLATED = (
    *(
        _both(name, f"7692 §{section}", rule, _TAKEN, data + _STILL_THERE, deflate=True)
        for name, section, rule, data in (
            ("compressed message", "7.2.3.1", "messages may be compressed", _compressed(_HELLO)),
            ("message that is not compressed", "6", "messages need not be compressed",
             _text(b"Hello")),
            ("compressed message in fragments", "6.1", "RSV1 is for a message's first frame",
             _compressed(_HELLO[:3], fin=False) + _more(_HELLO[3:])),
            ("two compressed messages", "7.2.3.2", "the second may refer to the first",
             _compressed(_HELLO) + _compressed(_AGAIN)),
            ("block without compression", "7.2.3.3", "all kinds of blocks are allowed",
             _compressed(b"\x00\x05\x00\xfa\xffHello\x00")),
            ("block with BFINAL", "7.2.3.4", "a block may be marked as the last one",
             _compressed(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00")),
            ("message of two blocks", "7.2.3.5", "a message may have several blocks",
             _compressed(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")),
            ("empty compressed message", "7.2.3.6", "an empty message is an empty block",
             _compressed(b"\x00")),
            ("code point in two compressed fragments", "6.1",
             "compressed data is split anywhere",
             _compressed(b"\x00\x03\x00\xfc\xff\xe2\x82", fin=False) + _more(b"\xac\x00")),
        )
    ),
    _both("ping inside a compressed message", "7692 §6.1", "control frames are not compressed",
          _TAKEN, _compressed(_HELLO[:3], fin=False) + _STILL_THERE, deflate=True),
    _both("RSV1 on a pong", "7692 §6", "control frames are not compressed",
          _1002, _header(FIN | Opcode.PONG | RSV1, 0), deflate=True),
    _both("RSV1 on a close frame", "7692 §6", "control frames are not compressed",
          _1002, _header(_CLOSE | RSV1, 0), deflate=True),
    _both("RSV1 on the continuation of a compressed message", "7692 §6.1",
          "RSV1 is for a message's first frame",
          _1002, _compressed(_HELLO[:3], fin=False)
          + _compressed(_HELLO[3:], opcode=Opcode.CONTINUATION), deflate=True),
    _both("RSV2 on a compressed message", "6455 §5.2", "permessage-deflate uses RSV1 only",
          _1002, _header(_TEXT | RSV1 | RSV2, 0), deflate=True),
    _both("reserved type of block", "7692 §7.2.2, 1951 §3.2.3", "block type 3 is an error",
          _BROKEN, _compressed(b"\x07\x00"), deflate=True),
    _both("length of a block that does not match", "7692 §7.2.2, 1951 §3.2.4",
          "NLEN is the complement of LEN",
          _BROKEN, _compressed(b"\x00\x05\x00\x00\x00Hello\x00"), deflate=True),
    _both("reference to what was never sent", "7692 §7.2.2, 1951 §2",
          "a distance does not reach beyond the beginning",
          _BROKEN, _compressed(_AGAIN), deflate=True),
    _both("bad UTF-8 in a compressed fragment", "6455 §8.1", "text is UTF-8, compressed or not",
          _1007, _compressed(b"\x00\x02\x00\xfd\xff\xc3", fin=False) + _more(b"\x28\x00"),
          deflate=True),
    _both("RSV1 on a ping", "7692 §6", "control frames are not compressed",
          _1002, _header(_PING | RSV1, 0), deflate=True),
    _both("RSV1 on a continuation", "7692 §6.1", "RSV1 is for a message's first frame",
          _1002, _frame(Opcode.TEXT, fin=False) + _header(_CONTINUATION | RSV1, 0), deflate=True),
    _both("a compressed message that is not DEFLATE", "7692 §7.2.2, 6455 §7.1.7",
          "data that cannot be inflated fails the connection",
          ("close 1007", "close 1002", "close 1003"),
          _compressed(b"\xff" * 8), deflate=True),
    _both("compressed text that is not UTF-8", "6455 §8.1", "text is UTF-8, compressed or not",
          _1007, _compressed(b"\x00\x01\x00\xfe\xff\xff\x00"),
          deflate=True),
)  # fmt: skip


def _request(
    *left_out: str,
    method: str = "GET",
    target: str = "{target}",
    version: str = "HTTP/1.1",
    more: tuple[str, ...] = (),
    **other: str,
) -> str:
    """Return a request: the usual one without these fields, with these others, and these lines."""
    fields = {
        "Host": "{host}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    } | {name.replace("_", "-"): value for name, value in other.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in left_out]
    return "\r\n".join([f"{method} {target} {version}", *lines, *more, "", ""])


_101, _4XX, _PLAIN = ("HTTP 101",), ("HTTP 4xx",), ("HTTP, but not 101",)
_VERSION = ("HTTP 426", "HTTP 400")
# Servers should answer what is not HTTP, but need not.
_MALFORMED = (*_4XX, "connection closed without an answer")

_ACCEPTED = (
    *(
        Check(name, section, rule, _101, request=request)
        for name, section, rule, request in (
            ("handshake in mixed case", "6455 §4.2.1", "names and tokens are case-insensitive",
             _request(Upgrade="WebSocket", Connection="keep-alive, UPGRADE")),
            ("names of fields in upper case", "9110 §5.1", "names of fields are case-insensitive",
             _request("Upgrade", "Connection", UPGRADE="websocket", CONNECTION="Upgrade")),
            ("white space around values", "9112 §5", "it is not part of the value",
             _request(Upgrade="\t websocket \t")),
            ("no white space before a value", "9112 §5", "it is optional",
             _request("Upgrade", more=("Upgrade:websocket",))),
            ("Connection in two lines", "9110 §5.3", "lines of a list are one list",
             _request(Connection="keep-alive", more=("Connection: Upgrade",))),
            ("empty members of a list", "9110 §5.6.1.2", "a recipient ignores them",
             _request(Connection=", ,Upgrade,")),
            ("target in absolute form", "9112 §3.2.2", "a server accepts it",
             _request(target="http://{host}{target}")),
            ("field that nobody knows", "9110 §5.1", "unknown fields are ignored",
             _request(X_Unknown="\"(,;=?")),
            ("field with an empty value", "9110 §5.5", "a value may be empty",
             _request(X_Unknown="")),
            ("extension that nobody knows", "6455 §9.1", "unknown extensions are not accepted",
             _request(Sec_WebSocket_Extensions="x-unknown; a=b; c")),
            ("extensions in two lines", "6455 §11.3.2", "lines of the field are one list",
             _request(Sec_WebSocket_Extensions="x-unknown",
                      more=("Sec-WebSocket-Extensions: permessage-deflate",))),
            ("value of an extension in quotes", "6455 §9.1", "a value may be quoted",
             _request(
                 Sec_WebSocket_Extensions='permessage-deflate; server_max_window_bits="10"')),
            *(
                (f"offer of {offer}", "7692 §7", "an offer that is not valid is declined",
                 _request(Sec_WebSocket_Extensions=f"permessage-deflate; {offer}"))
                for offer in (
                    "x_unknown",
                    "server_no_context_takeover=1",
                    "server_max_window_bits",
                    "server_max_window_bits=7",
                    "server_max_window_bits=16",
                    "server_max_window_bits=010",
                    "client_max_window_bits=7",
                    "client_no_context_takeover; client_no_context_takeover",
                )
            ),
        )
    ),
)  # fmt: skip

_REFUSED = (
    *(
        Check(name, section, rule, expected, request=request)
        for name, section, rule, expected, request in (
            ("POST", "6455 §4.2.1", "the method is GET", _4XX, _request(method="POST")),
            ("HEAD", "6455 §4.2.1", "the method is GET", _PLAIN, _request(method="HEAD")),
            ("get", "9110 §9.1", "methods are case-sensitive", (*_4XX, "HTTP 501"),
             _request(method="get")),
            ("HTTP/1.0", "6455 §4.2.1", "HTTP/1.1 or higher", (*_4XX, "HTTP 505"),
             _request(version="HTTP/1.0")),
            ("no Host", "6455 §4.2.1", "Host is required", _4XX, _request("Host")),
            ("no Upgrade", "6455 §4.2.1", "Upgrade is required", _PLAIN, _request("Upgrade")),
            ("another Upgrade", "6455 §4.2.1", "Upgrade says websocket", _PLAIN,
             _request(Upgrade="h2c")),
            ("Upgrade with more letters", "6455 §4.2.1", "Upgrade says websocket", _PLAIN,
             _request(Upgrade="websockets")),
            ("no Connection", "6455 §4.2.1", "Connection is required", _PLAIN,
             _request("Connection")),
            ("another Connection", "6455 §4.2.1", "Connection says Upgrade", _PLAIN,
             _request(Connection="keep-alive")),
            ("no Sec-WebSocket-Key", "6455 §4.2.1", "the key is required", _4XX,
             _request("Sec-WebSocket-Key")),
            ("two keys", "6455 §11.3.1", "the key appears once", _4XX,
             _request(more=("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",))),
            *(
                (f"key {what}", "6455 §4.2.1", "the key decodes to 16 bytes", _4XX,
                 _request(Sec_WebSocket_Key=key))
                for what, key in (
                    ("of 15 bytes", "dGhlIHNhbXBsZSBub25j"),
                    ("of 17 bytes", "dGhlIHNhbXBsZSBub25jZXM="),
                    ("of 0 bytes", ""),
                    ("without padding", "dGhlIHNhbXBsZSBub25jZQ"),
                    ("that is not base64", "dGhlIHNhbXBsZSBub25j!!=="),
                )
            ),
            ("no Sec-WebSocket-Version", "6455 §4.2.1", "the version is required", _4XX,
             _request("Sec-WebSocket-Version")),
            ("version 99", "6455 §4.4", "426, with the supported versions", _VERSION,
             _request(Sec_WebSocket_Version="99")),
            ("version 256", "6455 §4.3", "a version is at most 255", _VERSION,
             _request(Sec_WebSocket_Version="256")),
            ("version 013", "6455 §4.3", "a version has no leading zeros", _VERSION,
             _request(Sec_WebSocket_Version="013")),
            ("two versions", "6455 §11.3.5", "the version appears once", _VERSION,
             _request(more=("Sec-WebSocket-Version: 8",))),
            *(
                (f"subprotocols {value!r}", "6455 §4.3", "subprotocols are tokens", _4XX,
                 _request(Sec_WebSocket_Protocol=value))
                for value in ("a b", "a/b")
            ),
            *(
                (f"extensions {value!r}", "6455 §9.1", "a malformed value fails the connection",
                 _4XX, _request(Sec_WebSocket_Extensions=value))
                for value in (";", "a;", "a; b=", "a b", 'a; b="c', 'a; b="c d"', "a; b=c=d")
            ),
            ("Host of two words", "9112 §3.2", "Host is a host and perhaps a port", _4XX,
             _request(Host="a b")),
            ("two Host", "9112 §3.2", "more than one Host is refused", _4XX,
             _request(more=("Host: other.example",))),
            ("white space before a colon", "9112 §5.1", "it is refused", _4XX,
             _request(more=("X-Name : value",))),
            ("line without a colon", "9112 §5", "a field has a name and a value", _MALFORMED,
             _request(more=("nonsense",))),
            ("field without a name", "9110 §5.1", "the name of a field is a token", _MALFORMED,
             _request(more=(": value",))),
            ("field named in brackets", "9110 §5.1", "the name of a field is a token", _MALFORMED,
             _request(more=("X(1): value",))),
            ("NUL in a value", "9110 §5.5", "it is refused, or counts as a space",
             (*_PLAIN, "connection closed without an answer"), _request(Upgrade="web\0socket")),
            ("target without a slash", "9112 §3.2.1", "a target begins with a slash", _MALFORMED,
             _request(target="chat")),
            ("target with a space", "9112 §3.2", "no white space in a target", _MALFORMED,
             _request(target="/a b")),
            ("http/1.1", "9112 §2.3", "the name of HTTP is case-sensitive",
             (*_MALFORMED, "HTTP 505"), _request(version="http/1.1")),
            ("HTTP/11", "9112 §2.3", "a version has a digit, a dot and a digit",
             (*_MALFORMED, "HTTP 505"), _request(version="HTTP/11")),
            *(
                (f"Content-Length: {value}", "9112 §6.3", "an invalid length is refused", _4XX,
                 _request(Content_Length=value))
                for value in ("-1", "+0", "0x0", "0, 1")
            ),
            ("two lengths", "9112 §6.3", "an invalid length is refused", _4XX,
             _request(Content_Length="0", more=("Content-Length: 1",))),
            ("chunked is not the last coding", "9112 §6.3", "the length cannot be known",
             (*_4XX, "HTTP 501"), _request(Transfer_Encoding="chunked, x-unknown")),
        )
    ),
)  # fmt: skip

CHECKS: Final = (
    *(*_ACCEPTED, *_REFUSED),
    *(server for server, _ in _FRAMES),
    *_FROM_CLIENTS,
    *(server for server, _ in _DEFLATED),
)

# The frames that a server may try on a client.
FOR_CLIENTS: Final = tuple(client for _, client in (*_FRAMES, *_DEFLATED))
